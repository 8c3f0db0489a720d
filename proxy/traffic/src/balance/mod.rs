//! Which host of a cluster takes a request.
//!
//! A pick goes down three steps: the priority ([`locality`] computes their load from their health), within it the
//! locality where localities are weighted, and then a host by the cluster's policy. The policy is a [`Picker`], built
//! by a [`BalancerFactory`] whenever the hosts or their health change; it sees only hosts that may be picked.
//! To add a policy: one file with both traits, and one line in [`builtin`].

mod hashing;
mod least_request;
pub mod locality;
pub(crate) mod maglev;
mod random;
mod ring_hash;
mod round_robin;
mod slow_start;
mod subset;
mod weights;
mod zone;

pub(crate) use locality::Basis;
pub use locality::HostSet;
pub use subset::{Criteria, SubsetFound};
pub(crate) use zone::Neighbourhood;
pub use zone::{ZoneCounts, ZoneFound};

use crate::cluster::{Host, HostId};
use crate::config::{self, LbPolicy};
use std::collections::HashMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// What a pick may take into account.
pub struct PickContext<'a> {
    /// The time.
    pub now: Instant,
    /// Uniformly random numbers over all 64 bits.
    pub draw: &'a mut dyn FnMut() -> u64,
    /// Hosts that earlier attempts went to, where the retry policy avoids them.
    pub avoid: &'a [HostId],
    /// Picks made in search of a host not to avoid; at least one is made. After the last, any host is taken.
    pub attempts_max: u32,
    /// Set by a pick that was made among all hosts of a priority because too few of them are healthy.
    pub panicked: bool,
    /// Where the downstream connection was going, for clusters whose hosts are made of destinations (`ORIGINAL_DST`).
    pub destination: Option<SocketAddr>,
    /// Set by a pick that made a host of a destination which the cluster's full table did not take.
    pub unlisted: bool,
    /// What of the request decides about its host, where the policy goes by that.
    pub hash: Option<u64>,
    /// What the route demands of hosts, where the cluster is divided into subsets.
    pub criteria: Option<&'a Criteria>,
    /// The host that the session wants; it goes before everything else.
    pub wanted: Option<Wanted>,
    /// How the host was found then; set on the way.
    pub subset: SubsetFound,
    /// How the locality was found then; set on the way.
    pub zone: ZoneFound,
    /// Which pick of [`Self::attempts_max`] this is; set on the way.
    pub attempt: u32,
}

impl<'a> PickContext<'a> {
    /// A first attempt.
    pub fn new(now: Instant, draw: &'a mut dyn FnMut() -> u64) -> Self {
        Self {
            now,
            draw,
            avoid: &[],
            attempts_max: 1,
            panicked: false,
            destination: None,
            unlisted: false,
            hash: None,
            criteria: None,
            wanted: None,
            subset: SubsetFound::None,
            zone: ZoneFound::None,
            attempt: 0,
        }
    }
}

/// A host that is wanted, whatever the policy would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is; `None`: nowhere.
    pub address: Option<SocketAddr>,
    /// This one or none.
    pub strict: bool,
}

/// Why no host was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickError {
    /// The cluster has no hosts.
    NoHosts,
    /// It has, but none that may be used.
    NoHealthy,
}

/// Builds the picker of a policy.
pub trait BalancerFactory: Debug + Send + Sync {
    /// Name of the policy.
    fn name(&self) -> &'static str;

    /// A picker over `hosts`.
    fn build(&self, hosts: &[Arc<Host>]) -> Arc<dyn Picker>;

    /// The same where localities' weights are in the hosts' shares of the whole, for policies that make one table of all
    /// localities ([`LbPolicy::is_hashing`]); others need not have it.
    fn build_shared(&self, hosts: &[Arc<Host>], _shares: Vec<f64>) -> Arc<dyn Picker> {
        self.build(hosts)
    }
}

/// A policy over a fixed list of hosts. Immutable but for atomics; shared by all workers.
pub trait Picker: Debug + Send + Sync {
    /// The position in `hosts` (the list it was built for) of the host to use; `None` only for an empty list.
    fn pick(&self, hosts: &[Arc<Host>], context: &mut PickContext<'_>) -> Option<usize>;

    /// The size of its table, where it has one.
    fn figures(&self) -> Option<TableFigures> {
        None
    }
}

/// The table of a hashing policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableFigures {
    /// Points or places.
    pub size: u64,
    /// Those of the host that has the fewest.
    pub least: u64,
    /// Those of the host that has the most.
    pub most: u64,
}

/// The policies of an embedding program, by the names that clusters use ([`LbPolicy::Registered`]).
pub type Balancers = HashMap<String, Arc<dyn BalancerFactory>>;

/// The factory of a policy; `None` where it is an embedding program's and unknown to `registered`.
pub fn builtin(policy: &LbPolicy, registered: &Balancers) -> Option<Arc<dyn BalancerFactory>> {
    Some(match policy {
        LbPolicy::RoundRobin => Arc::new(round_robin::RoundRobin),
        LbPolicy::Random => Arc::new(random::Random),
        LbPolicy::LeastRequest(config) => Arc::new(least_request::LeastRequest::new(config)),
        LbPolicy::RingHash(config) => Arc::new(ring_hash::RingHash(config.clone())),
        LbPolicy::Maglev(config) => Arc::new(maglev::Maglev(config.clone())),
        LbPolicy::Registered(name) => registered.get(name)?.clone(),
    })
}

/// The factory of a cluster's policy, slow start included. Without a factory of that name it is round robin, which the
/// compiler lets nobody meet.
pub(crate) fn of_cluster(cluster: &config::Cluster, registered: &Balancers) -> Arc<dyn BalancerFactory> {
    let below = builtin(&cluster.lb_policy, registered).unwrap_or_else(|| Arc::new(round_robin::RoundRobin));
    match &cluster.slow_start {
        Some(config) => Arc::new(slow_start::SlowStart { below, config: config.clone() }),
        None => below,
    }
}

/// A uniformly random position below `count`; 0 for 0. Without division; the bias is below 2⁻³² × `count`.
pub(crate) fn below(draw: u64, count: usize) -> usize {
    ((u128::from(draw) * count as u128) >> 64) as usize
}

#[cfg(test)]
mod tests;
