//! Services and their endpoint slices into workloads: pure.
//!
//! A service is exported by the label or annotation `outrigger.io/export`, and keeps its name and namespace. Its pods
//! are spoken to without mesh TLS, unless the service says by `outrigger.io/mesh-tls: "true"` that proxies of this trust
//! domain answer on the pods' ports (Istio's sidecars do, with the same root); `outrigger.io/service-account` then
//! says whom to expect.

use std::collections::BTreeMap;

use super::object::{Endpoint, EndpointSlice, Key, Service, ServicePort};
use crate::source::catalog::Found;
use crate::source::fact::{self, Draft, DraftPort};
use crate::source::settings::{Export, KubernetesSettings};
use crate::source::status::Unusable;
use crate::source::workload::{Health, Protocol, Reach};

const EXPORT: &str = "outrigger.io/export";
const MESH_TLS: &str = "outrigger.io/mesh-tls";
const SERVICE_ACCOUNT: &str = "outrigger.io/service-account";
/// Label of a slice (Kubernetes: EndpointSlices, "ownership").
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// All workloads of a cluster.
pub fn read(
    services: &BTreeMap<Key, Service>,
    slices: &BTreeMap<Key, EndpointSlice>,
    settings: &KubernetesSettings,
    source: &str,
    reach: Reach,
) -> Found {
    let mut found = Found::default();
    for slice in slices.values() {
        let Some(name) = slice.metadata.labels.get(SERVICE_NAME) else { continue };
        let key = (slice.metadata.namespace.clone(), name.clone());
        let Some(service) = services.get(&key).filter(|service| is_exported(service, settings)) else {
            continue;
        };
        let object = format!("{}/{}", slice.metadata.namespace, slice.metadata.name);
        let family = service.spec.ip_families.first();
        match slice.address_type.as_str() {
            "IPv4" | "IPv6" if family.is_some_and(|family| *family != slice.address_type) => continue,
            "IPv4" | "IPv6" => {}
            other => {
                let reason = format!("address type {other:?}: only addresses can be reached");
                found.unusable.push(Unusable { object, reason });
                continue;
            }
        }
        let ports = ports(service, slice);
        for endpoint in &slice.endpoints {
            let Some(draft) = draft(service, endpoint, &ports, settings, source) else { continue };
            match draft.check(source, reach) {
                Ok(workload) => found.workloads.push(workload),
                Err(unusable) => found.unusable.push(unusable),
            }
        }
    }
    found
}

fn is_exported(service: &Service, settings: &KubernetesSettings) -> bool {
    let namespace = &service.metadata.namespace;
    if !(settings.namespaces.is_empty() || settings.namespaces.contains(namespace)) {
        return false;
    }
    match (service.metadata.mark(EXPORT), settings.export) {
        (Some(mark), _) => mark == "true",
        (None, export) => export == Export::All,
    }
}

/// The service's ports with the ports they lead to in this slice. They are matched by name; the only port of a service
/// may have none.
fn ports(service: &Service, slice: &EndpointSlice) -> Vec<DraftPort> {
    let mesh_tls = service.metadata.mark(MESH_TLS) == Some("true");
    let number = |number: i64| u16::try_from(number).ok().filter(|number| *number > 0);
    let is_tcp = |protocol: &str| protocol.is_empty() || protocol == "TCP";
    let mut ports = Vec::new();
    for port in service.spec.ports.iter().filter(|port| is_tcp(&port.protocol)) {
        let target = slice.ports.iter().find(|target| target.name == port.name && is_tcp(&target.protocol));
        let target = target.and_then(|target| target.port).and_then(number);
        if let (Some(number), Some(target)) = (number(port.port), target) {
            let name =
                if crate::identity::spiffe::is_label(&port.name) { port.name.clone() } else { String::new() };
            ports.push(DraftPort { name, number, protocol: protocol(port), target, mesh_tls });
        }
    }
    ports
}

/// What is spoken: `appProtocol`, else what the name begins with, else TCP; as in Istio.
fn protocol(port: &ServicePort) -> Protocol {
    let known = |text: &str| match text {
        "kubernetes.io/h2c" => Some(Protocol::Http2),
        "grpc-web" => Some(Protocol::Http),
        text => Protocol::parse(text),
    };
    let of_name = port.name.split('-').next().unwrap_or_default();
    match port.app_protocol.as_deref() {
        Some(told) => known(told).unwrap_or(Protocol::Tcp),
        None => known(of_name).unwrap_or(Protocol::Tcp),
    }
}

/// `None`: the endpoint takes no requests, and never did or will not any more.
fn draft(
    service: &Service,
    endpoint: &Endpoint,
    ports: &[DraftPort],
    settings: &KubernetesSettings,
    source: &str,
) -> Option<Draft> {
    let metadata = &service.metadata;
    // All addresses of an endpoint are good for the same; clients take the first (EndpointSlice reference).
    let address = endpoint.addresses.first()?.clone();
    let conditions = &endpoint.conditions;
    // A condition that is not known is to be read as "ready" (and "serving" as "ready").
    let ready = conditions.ready.unwrap_or(true);
    let health = match (conditions.terminating.unwrap_or(false), conditions.serving.unwrap_or(ready)) {
        (true, true) => Health::Draining,
        (true, false) => return None,
        (false, _) if ready => Health::Healthy,
        (false, _) => Health::Unhealthy,
    };
    let pod = endpoint.target_ref.as_ref().map_or(address.as_str(), |target| target.name.as_str());
    // A pod can be in several services, a namespace in several clusters.
    let instance_id = format!("{source}/{}/{pod}", metadata.name);
    let zone = endpoint.zone.as_deref().unwrap_or_default();
    let mut parts = settings.locality.splitn(3, '/');
    let under = [parts.next().unwrap_or_default(), parts.next().unwrap_or_default()];
    let is_own = |key: &str| {
        key.contains("kubernetes.io/") || key.contains("k8s.io/") || key.starts_with("outrigger.io/")
    };
    let labels = metadata.labels.iter().filter(|(key, _)| !is_own(key));
    Some(Draft {
        object: format!("{}/{}/{pod}", metadata.namespace, metadata.name),
        instance_id,
        namespace: metadata.namespace.clone(),
        service: metadata.name.clone(),
        service_account: metadata.mark(SERVICE_ACCOUNT).unwrap_or("default").to_owned(),
        version: String::new(),
        address,
        ports: ports.to_vec(),
        labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
        locality: fact::locality(&format!("/{zone}"), under),
        weight: 1,
        health,
    })
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
