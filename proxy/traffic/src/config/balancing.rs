//! How hosts are picked (`lb_policy`, `load_balancing_policy`).

use super::{Fraction, Locality};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Envoy's largest ring.
pub const RING_SIZE_MAX: u64 = 8 << 20;

/// How a host is picked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LbPolicy {
    /// Weighted round robin.
    RoundRobin,
    /// The less loaded of some random hosts.
    LeastRequest(LeastRequest),
    /// Uniformly random, whatever the weights of hosts.
    Random,
    /// By the request's hash, on a ring of hashes of the hosts (ketama).
    RingHash(RingHash),
    /// By the request's hash, in a table of fixed size: quicker than the ring and more even, moves a few more requests when
    /// hosts change.
    Maglev(Maglev),
    /// By a policy of the embedding program, of this name ([`Balancers`](crate::balance::Balancers)).
    Registered(String),
}

impl LbPolicy {
    /// Least request at its defaults.
    pub fn least_request() -> Self {
        Self::LeastRequest(LeastRequest::default())
    }

    /// Whether hosts are picked by the request's hash.
    pub const fn is_hashing(&self) -> bool {
        matches!(self, Self::RingHash(_) | Self::Maglev(_))
    }
}

/// `LEAST_REQUEST`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeastRequest {
    /// Hosts compared; at least 2. Default 2.
    pub choice_count: u32,
    /// Where weights differ: how much requests under way count. 0: not at all; 1: a host with twice as many gets half as
    /// much; above: still less. Default 1.
    pub active_request_bias: f64,
    /// All hosts are compared, and the least loaded one is taken. Default false.
    pub full_scan: bool,
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self { choice_count: 2, active_request_bias: 1.0, full_scan: false }
    }
}

/// `RING_HASH`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingHash {
    /// Points on the ring at least. Default 1024.
    pub minimum_ring_size: u64,
    /// And at most. Default [`RING_SIZE_MAX`].
    pub maximum_ring_size: u64,
    /// How points are made. Default xxHash.
    pub function: RingFunction,
    /// What both policies have.
    pub hashing: Hashing,
}

impl Default for RingHash {
    fn default() -> Self {
        Self {
            minimum_ring_size: 1024,
            maximum_ring_size: RING_SIZE_MAX,
            function: RingFunction::default(),
            hashing: Hashing::default(),
        }
    }
}

/// How points on the ring are made. Requests are always hashed by xxHash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RingFunction {
    /// XXH64.
    #[default]
    XxHash,
    /// MurmurHash2, as `std::hash` of GNU's C++ library.
    Murmur2,
}

/// `MAGLEV`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maglev {
    /// A prime number up to 5,000,011. Default 65,537.
    pub table_size: u64,
    /// What both policies have.
    pub hashing: Hashing,
}

impl Default for Maglev {
    fn default() -> Self {
        Self { table_size: 65_537, hashing: Hashing::default() }
    }
}

/// `consistent_hashing_lb_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashing {
    /// Hosts are known by their name instead of their address.
    pub use_hostname: bool,
    /// A host takes no more than this share, in percent, of the average of all (at least 100); what is above goes to another.
    /// `None`: no limit.
    pub balance_factor: Option<u32>,
}

/// How localities share traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocalityLb {
    /// Hosts alone count.
    #[default]
    None,
    /// By locality weights, scaled by the health of the locality.
    Weighted,
}

/// `zone_aware_lb_config`: what stays in the proxy's own locality, where a [`LocalCluster`] is set. It holds in the first
/// priority of clusters whose localities are not weighted and whose hosts are not picked by a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneAware {
    /// The share of requests it holds for, percent. Default 100.
    pub routing_enabled: u32,
    /// With fewer healthy hosts than this in the priority it does not hold. Default 6.
    pub min_cluster_size: u64,
    /// Requests fail instead of going to unhealthy hosts where too few are healthy. Default false.
    pub fail_traffic_on_panic: bool,
    /// Everything stays here, however the proxies are spread. Default false.
    pub force_locality_direct_routing: bool,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self {
            routing_enabled: 100,
            min_cluster_size: 6,
            fail_traffic_on_panic: false,
            force_locality_direct_routing: false,
        }
    }
}

/// The cluster whose hosts are this proxy and its fellows, and where this proxy is: how much of the requests begins where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalCluster {
    /// Its name (`cluster_manager.local_cluster_name`).
    pub name: String,
    /// Where this proxy is (`node.locality`); `None`: nobody knows, and nothing is kept in a zone.
    pub locality: Option<Locality>,
}

/// `slow_start_config`: the share of a new host grows over a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowStart {
    /// How long.
    pub window: Duration,
    /// 1: in a straight line; above: fast at first. Above 0. Default 1.
    pub aggression: f64,
    /// Where it begins. Default 10 %.
    pub min_weight: Fraction,
}
