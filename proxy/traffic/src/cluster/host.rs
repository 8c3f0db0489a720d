//! Hosts: endpoints with their live state, which belongs to the address and outlives updates.

use crate::balance::HostSet;
use crate::config::{self, EndpointAddress, HealthStatus, Locality};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Where ids of clusters and hosts come from: one source for a snapshot and all its successors, so that an id is never
/// used twice and pools may use them as keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids(Arc<AtomicU64>);

impl Ids {
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }
}

/// Identity of an address within a cluster, for as long as it stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u64);

/// An endpoint with its live state.
#[derive(Debug)]
pub struct Host {
    /// Stays with the address.
    pub id: HostId,
    /// Where.
    pub address: SocketAddr,
    /// Name for host rewrite and TLS; may be empty.
    pub hostname: Arc<str>,
    /// Labels for metrics and logs, ordered.
    pub labels: Arc<[(String, String)]>,
    /// Its place.
    pub locality: Arc<Locality>,
    /// Its share, at least 1.
    pub weight: u32,
    /// Failover level.
    pub priority: u32,
    /// What the control service says of its health.
    pub health: HealthStatus,
    /// What is alive about it.
    pub live: Arc<HostLive>,
}

/// The state of an address that outlives updates.
#[derive(Debug, Default)]
pub struct HostLive {
    /// Requests under way.
    pub requests_active: AtomicU32,
    /// Requests in all.
    pub requests_total: AtomicU64,
    /// Requests that failed: 5xx, reset, timeout, no connection.
    pub requests_error: AtomicU64,
    /// Connections open.
    pub connections_active: AtomicU32,
    /// Connections in all.
    pub connections_total: AtomicU64,
    /// Connections that could not be made.
    pub connections_failed: AtomicU64,
    /// A host made of a destination was used since the table was last tidied.
    pub(crate) used: AtomicBool,
    pub(crate) ejected: AtomicBool,
    pub(crate) outlier: crate::outlier::HostState,
}

/// A request (or TCP connection) under way at a host; dropping it ends it.
#[derive(Debug)]
pub struct InFlight(Arc<Host>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.live.requests_active.fetch_sub(1, Relaxed);
    }
}

/// A connection open to a host; dropping it closes the count.
#[derive(Debug)]
pub struct OpenConnection(Arc<Host>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.live.connections_active.fetch_sub(1, Relaxed);
    }
}

impl Host {
    /// Counts a request as under way until the guard is dropped. Least-request picks see it.
    #[must_use]
    pub fn start_request(self: &Arc<Self>) -> InFlight {
        self.live.requests_active.fetch_add(1, Relaxed);
        self.live.requests_total.fetch_add(1, Relaxed);
        InFlight(self.clone())
    }

    /// Counts a connection as open until the guard is dropped.
    #[must_use]
    pub fn open_connection(self: &Arc<Self>) -> OpenConnection {
        self.live.connections_active.fetch_add(1, Relaxed);
        self.live.connections_total.fetch_add(1, Relaxed);
        OpenConnection(self.clone())
    }

    /// Whether outlier detection has taken it out.
    pub fn is_ejected(&self) -> bool {
        self.live.ejected.load(Relaxed)
    }

    /// Share of its requests that succeeded in the last interval of outlier detection, 0 to 100; `None` where there were
    /// too few, or where nobody asks for it.
    pub fn success_rate(&self) -> Option<f64> {
        self.live.outlier.success_rate()
    }

    /// The same of the ways to it (connections, resets, timeouts), where these are counted apart.
    pub fn local_origin_success_rate(&self) -> Option<f64> {
        self.live.outlier.local_origin_success_rate()
    }

    /// Whether it may be picked in ordinary times.
    pub fn is_healthy(&self) -> bool {
        matches!(self.health, HealthStatus::Unknown | HealthStatus::Healthy) && !self.is_ejected()
    }

    /// Whether it may be picked when healthy ones are too few.
    pub fn is_degraded(&self) -> bool {
        self.health == HealthStatus::Degraded && !self.is_ejected()
    }
}

/// The hosts of endpoints; those whose address stays keep their identity and live state.
pub(super) fn build_hosts(
    endpoints: &config::Endpoints,
    previous: Option<&HostSet>,
    ids: &Ids,
) -> Vec<Arc<Host>> {
    let old: HashMap<SocketAddr, &Arc<Host>, foldhash::fast::RandomState> =
        previous.map(|set| set.hosts().iter().map(|h| (h.address, h)).collect()).unwrap_or_default();
    let mut fresh: HashMap<SocketAddr, (HostId, Arc<HostLive>), foldhash::fast::RandomState> =
        HashMap::default();
    let mut hosts = Vec::with_capacity(endpoints.localities.iter().map(|l| l.endpoints.len()).sum());
    for group in &endpoints.localities {
        let locality = Arc::new(group.locality.clone());
        for endpoint in &group.endpoints {
            // Names are resolved by the engine, which calls `set_endpoints` with addresses.
            let EndpointAddress::Socket(address) = endpoint.address else { continue };
            let old = old.get(&address);
            if let Some(old) = old
                && is_same(old, endpoint, group)
            {
                hosts.push((*old).clone());
                continue;
            }
            // An address may stand in two priorities; it is one host with one life.
            let (id, live) = match (old, fresh.get(&address)) {
                (Some(old), _) => (old.id, old.live.clone()),
                (None, Some((id, live))) => (*id, Arc::clone(live)),
                (None, None) => (HostId(ids.next()), Arc::default()),
            };
            fresh.insert(address, (id, live.clone()));
            hosts.push(Arc::new(Host {
                id,
                address,
                hostname: endpoint.hostname.as_str().into(),
                labels: endpoint.labels.as_slice().into(),
                locality: locality.clone(),
                weight: endpoint.weight.max(1),
                priority: group.priority,
                health: endpoint.health,
                live,
            }));
        }
    }
    hosts
}

fn is_same(host: &Host, endpoint: &config::Endpoint, group: &config::LocalityEndpoints) -> bool {
    host.weight == endpoint.weight.max(1)
        && host.priority == group.priority
        && host.health == endpoint.health
        && *host.hostname == *endpoint.hostname
        && *host.labels == *endpoint.labels
        && *host.locality == group.locality
}
