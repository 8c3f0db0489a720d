//! WorkloadGroups: what registered workloads have from their group.

use std::collections::BTreeMap;
use std::time::Duration;

use outrigger_api::outrigger::v1;
use outrigger_plan::resource::workload_group::{Probe, ProbeKind};
use outrigger_plan::resource::{Object, Spec, WorkloadGroup};

use super::workload::Protocol;
use crate::publish::{Resource, World};
use crate::store::{Key, SharedStore, StoreError};

/// The group of this name, as it is planned with: in memory, a moment after it was stored.
pub fn known(world: &World, namespace: &str, name: &str) -> Option<WorkloadGroup> {
    read(world.resources.get(&key(namespace, name))?.object.clone())
}

/// The group of this name.
///
/// *Errors*: the store's.
pub async fn stored(
    store: &SharedStore,
    namespace: &str,
    name: &str,
) -> Result<Option<WorkloadGroup>, StoreError> {
    let record = store.get(key(namespace, name)).await?;
    Ok(record.and_then(|record| read(Resource::from(record).object.clone())))
}

fn key(namespace: &str, name: &str) -> Key {
    Key::new("WorkloadGroup", namespace, name)
}

fn read(object: serde_json::Value) -> Option<WorkloadGroup> {
    // It was read without problems before it was stored.
    match Object::from_value(object).ok()?.spec {
        Spec::WorkloadGroup(group) => Some(group),
        _ => None,
    }
}

/// Fills in what an announcement leaves open, and returns the labels it has from the group.
///
/// *Errors*: the group is for another service account.
pub fn apply(
    group: &WorkloadGroup,
    announced: &mut v1::Workload,
) -> Result<BTreeMap<String, String>, String> {
    let template = &group.template;
    let wanted = &template.service_account;
    if !wanted.is_empty() && *wanted != announced.service_account {
        return Err(format!(
            "WorkloadGroup {:?} is for service account {wanted:?}, not {:?}",
            announced.workload_group, announced.service_account
        ));
    }
    let labels = group.all_labels();
    for (key, value) in &labels {
        announced.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if announced.weight == 0 {
        announced.weight = template.weight;
    }
    let locality = announced.locality.get_or_insert_default();
    if *locality == v1::Locality::default() {
        locality.region.clone_from(&template.locality.region);
        locality.zone.clone_from(&template.locality.zone);
        locality.sub_zone.clone_from(&template.locality.sub_zone);
    }
    if announced.ports.is_empty() {
        let port = |(name, number): (&String, &u16)| v1::WorkloadPort {
            name: name.clone(),
            number: (*number).into(),
            protocol: protocol_of(name).name().to_owned(),
            ..v1::WorkloadPort::default()
        };
        announced.ports = template.ports.iter().map(port).collect();
    }
    if group.probe.is_some() && announced.health == i32::from(v1::Health::Unspecified) {
        announced.health = v1::Health::Unhealthy.into();
    }
    Ok(labels)
}

/// What a port's name says, as in Istio: `http`, `grpc-web`, `tcp-db`. A name that says nothing is of an opaque port.
fn protocol_of(name: &str) -> Protocol {
    let word = name.split_once('-').map_or(name, |(word, _)| word);
    Protocol::parse(word).unwrap_or(Protocol::Tcp)
}

/// A probe for the proxy that is to make it.
pub fn to_wire(probe: &Probe) -> v1::Probe {
    use v1::probe::Kind;
    let kind = match &probe.kind {
        ProbeKind::Http { host, port, path, headers, tls } => Kind::Http(v1::HttpProbe {
            tls: *tls,
            host: host.clone().unwrap_or_default(),
            port: (*port).into(),
            path: path.clone(),
            headers: headers
                .iter()
                .map(|(name, value)| v1::ProbeHeader { name: name.clone(), value: value.clone() })
                .collect(),
        }),
        ProbeKind::Tcp { host, port } => {
            Kind::Tcp(v1::TcpProbe { host: host.clone().unwrap_or_default(), port: (*port).into() })
        }
        ProbeKind::Grpc { port, service } => {
            Kind::Grpc(v1::GrpcProbe { port: (*port).into(), service: service.clone() })
        }
    };
    v1::Probe {
        initial_delay_ms: millis(probe.initial_delay),
        timeout_ms: millis(probe.timeout),
        period_ms: millis(probe.period),
        success_threshold: probe.success_threshold,
        failure_threshold: probe.failure_threshold,
        kind: Some(kind),
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
