//! One running instance of an application, as it announced itself, after its values were checked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use outrigger_api::outrigger::v1;
pub use outrigger_member::port::Protocol;
use serde::{Deserialize, Serialize};

use crate::identity::spiffe::is_label;

/// Most ports of one workload.
pub const PORTS_MAX: usize = 64;

/// Most labels of one workload.
pub const LABELS_MAX: usize = 64;

/// Longest label key: a DNS name, a slash and a name, as in Kubernetes.
pub const LABEL_KEY_BYTES_MAX: usize = 317;

/// Longest label value, as in Kubernetes.
pub const LABEL_VALUE_BYTES_MAX: usize = 63;

/// Longest of all other texts.
pub const TEXT_BYTES_MAX: usize = 253;

/// Largest weight.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// See the module.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Unique within the namespace.
    pub instance_id: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// What selectors match; has `app` and `version` where those are known.
    pub labels: BTreeMap<String, String>,
    /// The service it is an instance of; empty when it is an instance of none.
    pub service: String,
    /// Its version; may be empty.
    pub version: String,
    /// Where others reach it.
    pub address: IpAddr,
    /// What it serves.
    pub ports: Vec<Port>,
    /// `node.id` of its proxy on the xDS stream; may be empty.
    pub node_id: String,
    /// Region, zone and sub-zone, each may be empty.
    pub locality: Locality,
    /// Where its proxy accepts mutual TLS; `None` without a proxy.
    pub inbound_port: Option<u16>,
    /// Where its proxy takes the application's calls.
    pub outbound_port: Option<u16>,
    /// Address of the above. May be the unspecified one, for all of its host's or container's.
    #[serde(default = "loopback")]
    pub outbound_address: IpAddr,
    /// Share of traffic relative to its siblings, at least 1.
    pub weight: u32,
    /// Whether it is to be sent requests.
    pub health: Health,
    /// Whether it is a proxy at the edge rather than an application.
    pub gateway: bool,
    /// The WorkloadGroup it belongs to; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The host whose certificate it registered with; empty: one that is bound to no host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// The discovery source that found it; empty: it registered itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// One port of a workload.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Unique within the workload.
    pub name: String,
    /// The port callers name.
    pub number: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Where the application listens.
    pub target_address: IpAddr,
    /// Where the application listens.
    pub target_port: u16,
    /// Where the proxy accepts traffic for this port alone; `None`: the workload's inbound port.
    pub inbound_port: Option<u16>,
}

/// Where a workload is.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Sub-zone.
    pub sub_zone: String,
}

/// Whether a workload is to be sent requests.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "UPPERCASE")]
pub enum Health {
    /// It is.
    Healthy,
    /// It is not.
    Unhealthy,
    /// It finishes what it has.
    Draining,
}

impl Health {
    /// From the wire; `None` for "unspecified" and for values this version does not know.
    pub fn from_wire(value: i32) -> Option<Self> {
        match v1::Health::try_from(value) {
            Ok(v1::Health::Healthy) => Some(Self::Healthy),
            Ok(v1::Health::Unhealthy) => Some(Self::Unhealthy),
            Ok(v1::Health::Draining) => Some(Self::Draining),
            Ok(v1::Health::Unspecified) | Err(_) => None,
        }
    }

    fn to_wire(self) -> v1::Health {
        match self {
            Self::Healthy => v1::Health::Healthy,
            Self::Unhealthy => v1::Health::Unhealthy,
            Self::Draining => v1::Health::Draining,
        }
    }
}

/// A value of an announcement that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct WorkloadError {
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Which addresses workloads may announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Those that other hosts can connect to.
    Network,
    /// Those, and loopback addresses: for a mesh whose members are all on one host.
    Host,
}

impl Workload {
    /// Checks an announcement and fills in its defaults; `peer` is where the call came from.
    ///
    /// *Errors*: every [`WorkloadError`] there is, not only the first.
    pub fn from_wire(wire: v1::Workload, peer: IpAddr, reach: Reach) -> Result<Self, Vec<WorkloadError>> {
        let mut errors = Errors(Vec::new());
        errors.text("instance_id", &wire.instance_id, true);
        errors.label("namespace", &wire.namespace, false);
        errors.label("service_account", &wire.service_account, false);
        errors.label("service", &wire.service, true);
        errors.text("node_id", &wire.node_id, false);
        errors.text("workload_group", &wire.workload_group, false);
        errors.length("version", &wire.version, LABEL_VALUE_BYTES_MAX);
        let address = errors.reachable("address", &wire.address, peer, reach);
        if wire.weight > WEIGHT_MAX {
            errors.push("weight", format!("must be at most {WEIGHT_MAX}"));
        }
        let inbound_port = errors.port("inbound_port", wire.inbound_port);
        let outbound_port = errors.port("outbound_port", wire.outbound_port);
        let outbound_address = errors.bind("outbound_address", &wire.outbound_address);
        let health = match wire.health {
            0 => Health::Healthy,
            other => Health::from_wire(other).unwrap_or_else(|| {
                errors.push("health", format!("unknown value {other}"));
                Health::Healthy
            }),
        };
        let locality = wire.locality.unwrap_or_default();
        for (field, value) in
            [("region", &locality.region), ("zone", &locality.zone), ("sub_zone", &locality.sub_zone)]
        {
            errors.text(&format!("locality.{field}"), value, false);
        }
        let mut labels = wire.labels;
        if labels.len() > LABELS_MAX {
            errors.push("labels", format!("at most {LABELS_MAX} are allowed"));
        }
        for (key, value) in &labels {
            if key.is_empty() || key.len() > LABEL_KEY_BYTES_MAX || value.len() > LABEL_VALUE_BYTES_MAX {
                let reason = "a key has 1 to 317 bytes and a value at most 63";
                errors.push(format!("labels[{}]", shortened(key)), reason.to_owned());
            }
        }
        for (key, value) in [("app", &wire.service), ("version", &wire.version)] {
            if !value.is_empty() {
                labels.entry(key.to_owned()).or_insert_with(|| value.clone());
            }
        }
        let ports = errors.ports(wire.ports);
        if !errors.0.is_empty() {
            return Err(errors.0);
        }
        Ok(Self {
            instance_id: wire.instance_id,
            namespace: wire.namespace,
            service_account: wire.service_account,
            labels,
            service: wire.service,
            version: wire.version,
            address,
            ports,
            node_id: wire.node_id,
            locality: Locality { region: locality.region, zone: locality.zone, sub_zone: locality.sub_zone },
            inbound_port,
            outbound_port,
            outbound_address,
            weight: wire.weight.max(1),
            health,
            gateway: wire.gateway,
            group: wire.workload_group,
            host: String::new(),
            source: String::new(),
        })
    }

    /// What was recorded, for the answer to a registration.
    pub fn to_wire(&self) -> v1::Workload {
        let port = |port: &Port| v1::WorkloadPort {
            name: port.name.clone(),
            number: port.number.into(),
            protocol: port.protocol.name().to_owned(),
            target_address: port.target_address.to_string(),
            target_port: port.target_port.into(),
            inbound_port: port.inbound_port.unwrap_or(0).into(),
        };
        v1::Workload {
            instance_id: self.instance_id.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            labels: self.labels.clone(),
            service: self.service.clone(),
            version: self.version.clone(),
            address: self.address.to_string(),
            ports: self.ports.iter().map(port).collect(),
            node_id: self.node_id.clone(),
            locality: Some(v1::Locality {
                region: self.locality.region.clone(),
                zone: self.locality.zone.clone(),
                sub_zone: self.locality.sub_zone.clone(),
            }),
            inbound_port: self.inbound_port.unwrap_or(0).into(),
            outbound_port: self.outbound_port.unwrap_or(0).into(),
            outbound_address: self.outbound_address.to_string(),
            weight: self.weight,
            health: self.health.to_wire().into(),
            gateway: self.gateway,
            workload_group: self.group.clone(),
        }
    }
}

impl Reach {
    /// What kind of address it is, when no workload may be told to be there.
    ///
    /// Peers connect to what a workload announces. Their own loopback address, or one that means something else on
    /// every host, would make them talk to something that is not the workload.
    fn refuses(self, address: IpAddr) -> Option<&'static str> {
        let link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        if address.is_unspecified() {
            Some("unspecified")
        } else if address.is_multicast() || broadcast {
            Some("a multicast address")
        } else if link_local {
            Some("link-local")
        } else if address.is_loopback() && self == Self::Network {
            Some("a loopback address (allowed with --allow-loopback-workloads, for a mesh on one host)")
        } else {
            None
        }
    }
}

/// Collects what is wrong, so that an announcement is corrected in one go.
struct Errors(Vec<WorkloadError>);

impl Errors {
    fn push(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(WorkloadError { field: field.into(), reason: reason.into() });
    }

    fn length(&mut self, field: &str, value: &str, bytes_max: usize) {
        if value.len() > bytes_max {
            self.push(field, format!("longer than {bytes_max} bytes"));
        }
    }

    fn text(&mut self, field: &str, value: &str, required: bool) {
        self.length(field, value, TEXT_BYTES_MAX);
        if required && value.is_empty() {
            self.push(field, "required");
        }
        if value.chars().any(char::is_control) {
            self.push(field, "contains a control character");
        }
    }

    fn label(&mut self, field: &str, value: &str, may_be_empty: bool) {
        if !(is_label(value) || (may_be_empty && value.is_empty())) {
            self.push(field, "must be a DNS label of at most 63 characters");
        }
    }

    /// The address other hosts are to connect to; empty: where the call came from.
    fn reachable(&mut self, field: &str, value: &str, peer: IpAddr, reach: Reach) -> IpAddr {
        let asked = if value.is_empty() { Ok(peer) } else { value.parse::<IpAddr>() };
        // The canonical form is judged, so that ::ffff:127.0.0.1 is no way around it.
        let Ok(address) = asked.map(|address| address.to_canonical()) else {
            self.push(field, "must be an IP address");
            return peer;
        };
        if let Some(kind) = reach.refuses(address) {
            let reason = if value.is_empty() {
                format!(
                    "{address}, where the call came from, is {kind}: give one that other hosts can connect to"
                )
            } else {
                format!("{address} is {kind}: other hosts cannot connect to it")
            };
            self.push(field, reason);
        }
        address
    }

    /// The address of an application, as its own proxy reaches it.
    fn address(&mut self, field: &str, value: &str, default: IpAddr) -> IpAddr {
        if value.is_empty() {
            return default;
        }
        match value.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) if !(address.is_unspecified() || address.is_multicast()) => address,
            _ => {
                self.push(field, "must be an IP address that can be connected to");
                default
            }
        }
    }

    /// An address of the workload's own to listen on; empty: [`loopback`].
    fn bind(&mut self, field: &str, value: &str) -> IpAddr {
        if value.is_empty() {
            return loopback();
        }
        match value.parse::<IpAddr>() {
            Ok(address) if !address.is_multicast() => address.to_canonical(),
            _ => {
                self.push(field, "must be an IP address that can be listened on");
                loopback()
            }
        }
    }

    /// A port number where 0 means "none".
    fn port(&mut self, field: &str, value: u32) -> Option<u16> {
        match u16::try_from(value) {
            Ok(0) => None,
            Ok(port) => Some(port),
            Err(_) => {
                self.push(field, "must be at most 65535");
                None
            }
        }
    }

    fn ports(&mut self, wire: Vec<v1::WorkloadPort>) -> Vec<Port> {
        if wire.len() > PORTS_MAX {
            self.push("ports", format!("at most {PORTS_MAX} are allowed"));
            return Vec::new();
        }
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        let mut ports = Vec::with_capacity(wire.len());
        for (index, port) in wire.into_iter().enumerate() {
            let at = |field: &str| format!("ports[{index}].{field}");
            self.label(&at("name"), &port.name, false);
            if !names.insert(port.name.clone()) {
                self.push(at("name"), "used twice");
            }
            let number = self.port(&at("number"), port.number);
            if number.is_none() && port.number == 0 {
                self.push(at("number"), "required");
            }
            if !numbers.insert(port.number) {
                self.push(at("number"), "used twice");
            }
            let protocol = Protocol::parse(&port.protocol).unwrap_or_else(|| {
                self.push(at("protocol"), "must be HTTP, HTTP2, GRPC, TCP or TLS");
                Protocol::Tcp
            });
            let target_address = self.address(&at("target_address"), &port.target_address, loopback());
            let target_port = self.port(&at("target_port"), port.target_port);
            let inbound_port = self.port(&at("inbound_port"), port.inbound_port);
            let Some(number) = number else { continue };
            ports.push(Port {
                name: port.name,
                number,
                protocol,
                target_address,
                target_port: target_port.unwrap_or(number),
                inbound_port,
            });
        }
        ports
    }
}

/// Where an application and its proxy meet unless they say otherwise.
fn loopback() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

/// The beginning of a text that is too long to be repeated in an error.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
