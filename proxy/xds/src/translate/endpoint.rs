//! `ClusterLoadAssignment`.

use super::value::{host_port, metadata, metadata_labels, port, socket_address};
use super::{At, subset};
use outrigger_api::envoy::config::core::v3::{self as core, HealthStatus as ProtoHealth, Metadata};
use outrigger_api::envoy::config::endpoint::v3 as proto;
use outrigger_api::metadata::LABELS;
use outrigger_traffic::config::{
    Endpoint, EndpointAddress, EndpointCheck, Endpoints, HealthStatus, Locality, LocalityEndpoints,
};
use std::net::{IpAddr, SocketAddr};

/// Lowest priority that Envoy accepts.
const PRIORITY_MAX: u32 = 128;

/// Whether endpoints may be names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// No: IP addresses only.
    Addresses,
    /// Yes: the cluster resolves them.
    Resolved,
}

/// What is said of a host's health.
pub(super) fn health_status(number: i32, at: &At<'_>) -> HealthStatus {
    match ProtoHealth::try_from(number) {
        Ok(ProtoHealth::Unknown) => HealthStatus::Unknown,
        Ok(ProtoHealth::Healthy) => HealthStatus::Healthy,
        Ok(ProtoHealth::Unhealthy) => HealthStatus::Unhealthy,
        Ok(ProtoHealth::Draining) => HealthStatus::Draining,
        Ok(ProtoHealth::Timeout) => HealthStatus::Timeout,
        Ok(ProtoHealth::Degraded) => HealthStatus::Degraded,
        Err(_) => {
            at.refuse("is not known");
            HealthStatus::Unknown
        }
    }
}

/// The endpoints of a cluster.
pub(super) fn endpoints(message: &proto::ClusterLoadAssignment, names: Names, at: &At<'_>) -> Endpoints {
    at.field("cluster_name").need_text(&message.cluster_name);
    let overprovisioning_factor = message.policy.as_ref().and_then(|p| p.overprovisioning_factor);
    if overprovisioning_factor == Some(0) {
        at.field("policy").field("overprovisioning_factor").refuse("must be greater than 0");
    }
    Endpoints {
        cluster_name: message.cluster_name.clone(),
        localities: message
            .endpoints
            .iter()
            .enumerate()
            .map(|(i, l)| locality(l, names, &at.item("endpoints", i)))
            .collect(),
        overprovisioning_factor,
    }
}

/// A place.
pub(crate) fn place(message: &core::Locality) -> Locality {
    Locality {
        region: message.region.clone(),
        zone: message.zone.clone(),
        sub_zone: message.sub_zone.clone(),
    }
}

fn locality(message: &proto::LocalityLbEndpoints, names: Names, at: &At<'_>) -> LocalityEndpoints {
    if message.load_balancing_weight == Some(0) {
        at.field("load_balancing_weight").refuse("must be greater than 0");
    }
    if message.priority > PRIORITY_MAX {
        at.field("priority").refuse(format!("must be at most {PRIORITY_MAX}"));
    }
    LocalityEndpoints {
        locality: message.locality.as_ref().map(place).unwrap_or_default(),
        weight: message.load_balancing_weight,
        priority: message.priority,
        endpoints: message
            .lb_endpoints
            .iter()
            .enumerate()
            .filter_map(|(i, e)| endpoint(e, names, &at.item("lb_endpoints", i)))
            .collect(),
    }
}

fn endpoint(message: &proto::LbEndpoint, names: Names, at: &At<'_>) -> Option<Endpoint> {
    let weight = message.load_balancing_weight.unwrap_or(1);
    if weight == 0 {
        at.field("load_balancing_weight").refuse("must be greater than 0");
    }
    let health = health_status(message.health_status, &at.field("health_status"));
    let at_metadata = at.field("metadata");
    let ours = metadata(message.metadata.as_ref(), &[LABELS], &at_metadata);
    let labels = metadata_labels(ours.as_ref(), &at_metadata);
    let at = at.field("endpoint");
    let proto::lb_endpoint::HostIdentifier::Endpoint(endpoint) = at.need(message.host_identifier.as_ref())?;
    let at_address = at.field("address");
    let (host, number) = host_port(endpoint.address.as_ref(), &at_address)?;
    let address = match (host.parse::<IpAddr>(), names) {
        (Ok(ip), _) => EndpointAddress::Socket(SocketAddr::new(ip, number)),
        (Err(_), Names::Resolved) => EndpointAddress::Name(host.to_owned(), number),
        (Err(_), Names::Addresses) => {
            at_address.field("socket_address").field("address").refuse(format!(
                "`{host}` is not an IP address; names need a cluster of type STRICT_DNS or LOGICAL_DNS"
            ));
            return None;
        }
    };
    if number == 0 {
        at_address.field("socket_address").field("port_value").refuse("must be greater than 0");
    }
    let check = endpoint.health_check_config.as_ref().map(|c| check(c, &at.field("health_check_config")));
    Some(Endpoint {
        address,
        hostname: endpoint.hostname.clone(),
        weight,
        health,
        labels,
        hash_key: hash_key(message.metadata.as_ref()),
        lb_metadata: subset::lb_metadata(message.metadata.as_ref()),
        check: check.unwrap_or_default(),
    })
}

/// `hash_key` in the metadata of `envoy.lb`; anything but a text is as if it were not there, as in Envoy.
fn hash_key(metadata: Option<&Metadata>) -> String {
    use prost_types::value::Kind;
    let value = metadata.and_then(|m| m.filter_metadata.get("envoy.lb")?.fields.get("hash_key"));
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(key)) => key.clone(),
        _ => String::new(),
    }
}

fn check(message: &proto::endpoint::HealthCheckConfig, at: &At<'_>) -> EndpointCheck {
    let address = message.address.as_ref().and_then(|a| socket_address(Some(a), &at.field("address")));
    EndpointCheck {
        port: Some(port(message.port_value, &at.field("port_value"))).filter(|port| *port != 0),
        address,
        hostname: message.hostname.clone(),
        disabled: message.disable_active_health_check,
    }
}
