//! `ClusterLoadAssignment`.

use outrigger_api::envoy::config::core::v3::{HealthStatus as ProtoHealth, Locality, Metadata};
use outrigger_api::envoy::config::endpoint::v3 as proto;
use outrigger_api::metadata;
use outrigger_traffic::config::{
    Endpoint, EndpointAddress, EndpointCheck, Endpoints, HealthStatus, LocalityEndpoints,
};
use prost_types::value::Kind;

use super::subset;
use super::value::{address, host_port};

/// The endpoints of a cluster.
pub fn endpoints(value: &Endpoints) -> proto::ClusterLoadAssignment {
    let policy = value
        .overprovisioning_factor
        .map(|factor| proto::cluster_load_assignment::Policy { overprovisioning_factor: Some(factor) });
    proto::ClusterLoadAssignment {
        cluster_name: value.cluster_name.clone(),
        endpoints: value.localities.iter().map(locality).collect(),
        policy,
    }
}

fn locality(value: &LocalityEndpoints) -> proto::LocalityLbEndpoints {
    proto::LocalityLbEndpoints {
        locality: Some(Locality {
            region: value.locality.region.clone(),
            zone: value.locality.zone.clone(),
            sub_zone: value.locality.sub_zone.clone(),
        }),
        lb_endpoints: value.endpoints.iter().map(endpoint).collect(),
        load_balancing_weight: value.weight,
        priority: value.priority,
    }
}

/// What is said of a host's health.
pub(super) fn health(value: HealthStatus) -> ProtoHealth {
    match value {
        HealthStatus::Unknown => ProtoHealth::Unknown,
        HealthStatus::Healthy => ProtoHealth::Healthy,
        HealthStatus::Unhealthy => ProtoHealth::Unhealthy,
        HealthStatus::Draining => ProtoHealth::Draining,
        HealthStatus::Timeout => ProtoHealth::Timeout,
        HealthStatus::Degraded => ProtoHealth::Degraded,
    }
}

fn endpoint(value: &Endpoint) -> proto::LbEndpoint {
    let health = health(value.health);
    let at = match &value.address {
        EndpointAddress::Socket(at) => address(*at),
        EndpointAddress::Name(name, port) => host_port(name.clone(), *port),
    };
    let check = &value.check;
    let endpoint = proto::Endpoint {
        address: Some(at),
        health_check_config: (*check != EndpointCheck::default()).then(|| {
            proto::endpoint::HealthCheckConfig {
                port_value: check.port.map_or(0, u32::from),
                hostname: check.hostname.clone(),
                address: check.address.map(address),
                disable_active_health_check: check.disabled,
            }
        }),
        hostname: value.hostname.clone(),
    };
    proto::LbEndpoint {
        health_status: health.into(),
        metadata: with_balancing(metadata::of(&value.labels, &[]), value),
        load_balancing_weight: Some(value.weight),
        host_identifier: Some(proto::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
    }
}

/// What policies by hash know the endpoint by, and what subsets are made by, stands in the metadata of `envoy.lb`.
fn with_balancing(metadata: Option<Metadata>, value: &Endpoint) -> Option<Metadata> {
    let mut fields = subset::fields(&value.lb_metadata);
    if !value.hash_key.is_empty() {
        let key = prost_types::Value { kind: Some(Kind::StringValue(value.hash_key.clone())) };
        fields.insert("hash_key".to_owned(), key);
    }
    if fields.is_empty() {
        return metadata;
    }
    let mut metadata = metadata.unwrap_or_default();
    metadata.filter_metadata.insert(subset::NAMESPACE.to_owned(), prost_types::Struct { fields });
    Some(metadata)
}
