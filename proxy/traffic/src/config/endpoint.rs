//! Endpoints (`envoy.config.endpoint.v3`).

use super::LbValue;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The endpoints of a cluster (`ClusterLoadAssignment`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The cluster's (EDS service) name.
    pub cluster_name: String,
    /// By locality and priority.
    pub localities: Vec<LocalityEndpoints>,
    /// How much healthier a priority counts than it is, percent. Default 140.
    pub overprovisioning_factor: Option<u32>,
}

/// Endpoints of one place and priority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LocalityEndpoints {
    /// The place.
    pub locality: Locality,
    /// Its share among localities of the priority; 0 or absent with weighted localities: no traffic.
    pub weight: Option<u32>,
    /// 0 is highest; no gaps allowed.
    pub priority: u32,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A place, from large to small.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Part of a zone.
    pub sub_zone: String,
}

/// One address as declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where.
    pub address: EndpointAddress,
    /// Name used for host rewrite and TLS; may be empty.
    pub hostname: String,
    /// 1.. Default 1.
    pub weight: u32,
    /// What the control service says of its health.
    pub health: HealthStatus,
    /// Labels for metrics and logs (workload, namespace, version, principal …); ordered pairs.
    pub labels: Vec<(String, String)>,
    /// What ring hash and Maglev know it by (`hash_key` in the metadata of `envoy.lb`); empty: its address.
    pub hash_key: String,
    /// What subsets are made by (metadata of `envoy.lb`).
    pub lb_metadata: Vec<(String, LbValue)>,
    /// How health checks differ for it.
    pub check: EndpointCheck,
}

/// `health_check_config` of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCheck {
    /// Probed at this port instead of its own.
    pub port: Option<u16>,
    /// Probed at this address instead of its own.
    pub address: Option<SocketAddr>,
    /// The authority of probes; empty: that of the health check.
    pub hostname: String,
    /// Not probed: it counts as healthy.
    pub disabled: bool,
}

impl EndpointCheck {
    /// Where a host that serves at `address` is probed.
    pub fn target(&self, address: SocketAddr) -> SocketAddr {
        let mut target = self.address.unwrap_or(address);
        if let Some(port) = self.port {
            target.set_port(port);
        }
        target
    }
}

impl Endpoint {
    /// A healthy endpoint of weight 1.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address: EndpointAddress::Socket(address),
            hostname: String::new(),
            weight: 1,
            health: HealthStatus::Unknown,
            labels: Vec::new(),
            hash_key: String::new(),
            lb_metadata: Vec::new(),
            check: EndpointCheck::default(),
        }
    }
}

/// Address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndpointAddress {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A name to resolve, and a port (DNS clusters only).
    Name(String, u16),
}

/// `HealthStatus` of EDS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HealthStatus {
    /// Not said: healthy.
    #[default]
    Unknown,
    /// Healthy.
    Healthy,
    /// Not to be used.
    Unhealthy,
    /// Going away: not picked for new requests.
    Draining,
    /// Timed out: as unhealthy.
    Timeout,
    /// Used when too few healthy ones are there.
    Degraded,
}
