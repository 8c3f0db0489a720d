//! What a source found, before its values were checked.
//!
//! It goes through the same checks as the announcement of a workload that registers. Labels that are no labels are left
//! out rather than the workload: who wrote them did not think of a mesh.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use outrigger_api::outrigger::v1;

use super::status::Unusable;
use super::workload::{
    Health, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, Protocol, Reach, Workload,
};

/// A workload as a source describes it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its name at the source, for the operator.
    pub object: String,
    /// Unique within the namespace.
    pub instance_id: String,
    /// Its namespace.
    pub namespace: String,
    /// The service.
    pub service: String,
    /// Empty: the service's name.
    pub service_account: String,
    /// May be empty.
    pub version: String,
    /// An IP address.
    pub address: String,
    /// What it serves.
    pub ports: Vec<DraftPort>,
    /// For selectors.
    pub labels: BTreeMap<String, String>,
    /// `region/zone/sub_zone`.
    pub locality: String,
    /// Share; 0 is 1.
    pub weight: u32,
    /// Whether it is to be sent requests.
    pub health: Health,
}

/// A port of a [`Draft`].
#[derive(Clone, Debug)]
pub struct DraftPort {
    /// Unique within the workload; empty: the protocol and the number.
    pub name: String,
    /// The port callers name.
    pub number: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// Port at the workload's address.
    pub target: u16,
    /// Whether a proxy of the mesh answers there.
    pub mesh_tls: bool,
}

impl Draft {
    /// The workload, if its values can be used.
    ///
    /// *Errors*: what is wrong with it, all in one text.
    pub fn check(self, source: &str, reach: Reach) -> Result<Workload, Unusable> {
        let object = self.object.clone();
        let health = match self.health {
            Health::Healthy => v1::Health::Healthy,
            Health::Unhealthy => v1::Health::Unhealthy,
            Health::Draining => v1::Health::Draining,
        };
        let ports = self.ports.into_iter().map(|port| v1::WorkloadPort {
            name: if port.name.is_empty() {
                format!("{}-{}", port.protocol.name().to_ascii_lowercase(), port.number)
            } else {
                port.name
            },
            number: port.number.into(),
            protocol: port.protocol.name().to_owned(),
            target_address: String::new(),
            target_port: port.target.into(),
            inbound_port: if port.mesh_tls { port.target.into() } else { 0 },
        });
        let mut place = self.locality.splitn(3, '/').map(str::to_owned);
        let mut next = || place.next().unwrap_or_default();
        let wire = v1::Workload {
            instance_id: self.instance_id,
            namespace: self.namespace,
            service_account: if self.service_account.is_empty() {
                self.service.clone()
            } else {
                self.service_account
            },
            service: self.service,
            version: self.version,
            address: self.address,
            ports: ports.collect(),
            labels: usable(self.labels),
            locality: Some(v1::Locality { region: next(), zone: next(), sub_zone: next() }),
            weight: super::settings::weight(self.weight),
            health: health.into(),
            ..v1::Workload::default()
        };
        // Nobody called: an address that is not given is the unspecified one, and refused.
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        match Workload::from_wire(wire, nowhere, reach) {
            Ok(workload) => Ok(Workload { source: source.to_owned(), ..workload }),
            Err(errors) => {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                Err(Unusable { object, reason: lines.join("; ") })
            }
        }
    }
}

/// The labels that can be labels, as many as there may be, in order. Room is left for `app` and `version`.
fn usable(labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let fits = |(key, value): &(String, String)| {
        (1..=LABEL_KEY_BYTES_MAX).contains(&key.len())
            && value.len() <= LABEL_VALUE_BYTES_MAX
            && !key.chars().chain(value.chars()).any(char::is_control)
    };
    labels.into_iter().filter(fits).take(LABELS_MAX - 2).collect()
}

/// `over` where it says something, `under` where it does not, part by part of `region/zone/sub_zone`.
pub fn locality(over: &str, under: [&str; 2]) -> String {
    let mut parts = over.splitn(3, '/').map(str::trim);
    let mut next = |default: &str| match parts.next() {
        None | Some("") => default.to_owned(),
        Some(part) => part.to_owned(),
    };
    let (region, zone, sub_zone) = (next(under[0]), next(under[1]), next(""));
    format!("{region}/{zone}/{sub_zone}").trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn draft() -> Draft {
        let port = DraftPort {
            name: String::new(),
            number: 80,
            protocol: Protocol::Http,
            target: 8_080,
            mesh_tls: false,
        };
        Draft {
            object: "x".into(),
            instance_id: "one".into(),
            namespace: "shop".into(),
            service: "cart".into(),
            service_account: String::new(),
            version: String::new(),
            address: "192.0.2.1".into(),
            ports: vec![port],
            labels: BTreeMap::new(),
            locality: "hq/rack7".into(),
            weight: 0,
            health: Health::Healthy,
        }
    }

    #[test]
    fn draft_becomes_a_workload_with_defaults() {
        let mut asked = draft();
        asked.labels = [("team".to_owned(), "a".to_owned()), ("note".to_owned(), "x".repeat(64))].into();
        let workload = asked.check("k8s", Reach::Network).unwrap();
        assert_eq!(
            (workload.service_account.as_str(), workload.source.as_str(), workload.weight),
            ("cart", "k8s", 1)
        );
        assert_eq!(
            workload.labels.keys().collect::<Vec<_>>(),
            ["app", "team"],
            "one that is too long is left out"
        );
        assert_eq!((workload.ports[0].name.as_str(), workload.ports[0].inbound_port), ("http-80", None));
        assert_eq!((workload.locality.region.as_str(), workload.locality.zone.as_str()), ("hq", "rack7"));
        let mut meshed = draft();
        meshed.ports[0].mesh_tls = true;
        assert_eq!(meshed.check("k8s", Reach::Network).unwrap().ports[0].inbound_port, Some(8_080));
    }

    #[test]
    fn draft_that_cannot_be_used_says_why() {
        for (change, field) in [
            (Draft { address: String::new(), ..draft() }, "address"),
            (Draft { address: "169.254.170.2".into(), ..draft() }, "address"),
            (Draft { address: "127.0.0.1".into(), ..draft() }, "address"),
            (Draft { namespace: "Shop".into(), ..draft() }, "namespace"),
            (Draft { instance_id: "x".repeat(254), ..draft() }, "instance_id"),
        ] {
            let refused = change.check("k8s", Reach::Network).unwrap_err();
            assert!(refused.reason.contains(field), "{refused:?}");
        }
    }

    #[test]
    fn many_labels_are_cut_to_what_a_workload_may_have() {
        let labels: BTreeMap<String, String> =
            (0..200).map(|i| (format!("l{i:03}"), String::new())).collect();
        let asked = Draft { version: "v1".into(), labels, ..draft() };
        assert_eq!(asked.check("k8s", Reach::Network).unwrap().labels.len(), LABELS_MAX);
    }

    #[test]
    fn locality_is_filled_part_by_part() {
        assert_eq!(locality("", ["eu", "a"]), "eu/a");
        assert_eq!(locality("hq", ["eu", "a"]), "hq/a");
        assert_eq!(locality("/rack7/shelf", ["eu", "a"]), "eu/rack7/shelf");
        assert_eq!(locality("", ["", ""]), "");
    }
}
