//! Hosts: endpoints with their live state, which belongs to the address and outlives updates.

use crate::balance::HostSet;
use crate::config::{self, EndpointAddress, EndpointCheck, HealthStatus, LbValue, Locality};
use crate::health::{Flag, Flags};
use arc_swap::ArcSwapOption;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

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
    /// What ring hash and Maglev know it by; empty: its address.
    pub hash_key: Arc<str>,
    /// What subsets are made by.
    pub lb_metadata: Arc<[(String, LbValue)]>,
    /// How health checks differ for it.
    pub check: Arc<EndpointCheck>,
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
    /// Places for connections that are taken, where a host's connections are limited.
    places_taken: AtomicU32,
    /// Connections in all.
    pub connections_total: AtomicU64,
    /// Connections that could not be made.
    pub connections_failed: AtomicU64,
    /// A host made of a destination was used since the table was last tidied.
    pub(crate) used: AtomicBool,
    pub(crate) ejected: AtomicBool,
    /// What health checks say of it.
    pub probed: Flags,
    /// An answer to ordinary traffic asked that it be left out.
    failed_passively: AtomicBool,
    /// When it was first picked, or came back healthy: new hosts are slow to start.
    since: ArcSwapOption<Instant>,
    pub(crate) outlier: crate::outlier::HostState,
}

impl HostLive {
    /// How long it has been there for requests. The first to ask begins the count: a host that nobody asked of is new.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        if let Some(since) = &*self.since.load() {
            return now.saturating_duration_since(**since);
        }
        self.since.store(Some(Arc::new(now)));
        Duration::ZERO
    }

    /// An answer to ordinary traffic asked that the host be left out: health checks are told.
    pub fn fail_passively(&self) {
        self.probed.set(Flag::Excluded, true);
        self.failed_passively.store(true, Relaxed);
    }

    /// Whether one did since the last call.
    pub fn take_passive_failure(&self) -> bool {
        self.failed_passively.load(Relaxed) && self.failed_passively.swap(false, Relaxed)
    }

    /// It is new again.
    pub(crate) fn restart(&self) {
        self.since.store(None);
    }
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

/// A place for a connection to a host whose connections are limited; dropping it gives it back.
#[derive(Debug)]
pub struct Place(Arc<Host>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.live.places_taken.fetch_sub(1, Relaxed);
    }
}

impl Host {
    /// Takes a place for a connection where fewer than `limit` are taken.
    pub(super) fn take_place(self: &Arc<Self>, limit: u32) -> Option<Place> {
        let more = |taken| if taken < limit { Some(taken + 1) } else { None };
        self.live.places_taken.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Place(self.clone()))
    }

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

    /// Whether it may be picked in ordinary times: neither the control service, nor outlier detection, nor health checks
    /// speak against it.
    pub fn is_healthy(&self) -> bool {
        matches!(self.health, HealthStatus::Unknown | HealthStatus::Healthy)
            && !self.is_out()
            && !self.live.probed.has(Flag::Degraded)
    }

    /// Whether it may be picked when healthy ones are too few.
    pub fn is_degraded(&self) -> bool {
        let declared = match self.health {
            HealthStatus::Degraded => true,
            HealthStatus::Unknown | HealthStatus::Healthy => false,
            HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => return false,
        };
        !self.is_out() && (declared || self.live.probed.has(Flag::Degraded))
    }

    /// What is known of its health, from all sides. Source: Envoy: health checks and outlier detection first, then the
    /// control service, then what is degraded.
    pub fn status(&self) -> HealthStatus {
        match self.health {
            _ if self.is_out() => HealthStatus::Unhealthy,
            HealthStatus::Unknown | HealthStatus::Healthy if self.live.probed.has(Flag::Degraded) => {
                HealthStatus::Degraded
            }
            declared => declared,
        }
    }

    /// Whether it is left out of account altogether: not yet probed, where that must be, or at its own wish.
    pub fn is_excluded(&self) -> bool {
        self.live.probed.has(Flag::Pending) || self.live.probed.has(Flag::Excluded)
    }

    fn is_out(&self) -> bool {
        self.is_ejected() || self.live.probed.has(Flag::Failed)
    }
}

/// What becomes of hosts that health checks have not seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewHosts {
    /// The cluster's hosts are probed.
    pub(super) probed: bool,
    /// They count only after that.
    pub(super) ignored_until_probed: bool,
}

impl NewHosts {
    pub(super) fn of(config: &config::Cluster) -> Self {
        let probed = config.health_check.is_some();
        Self { probed, ignored_until_probed: probed && config.ignore_new_hosts_until_first_hc }
    }

    fn live(self, check: &EndpointCheck) -> Arc<HostLive> {
        let live = HostLive::default();
        if self.probed && !check.disabled {
            live.probed.set(Flag::Failed, true);
            live.probed.set(Flag::Pending, self.ignored_until_probed);
        }
        Arc::new(live)
    }
}

/// The hosts of endpoints; those whose address stays keep their identity and live state.
pub(super) fn build_hosts(
    endpoints: &config::Endpoints,
    previous: Option<&HostSet>,
    new: NewHosts,
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
                (None, None) => (HostId(ids.next()), new.live(&endpoint.check)),
            };
            if endpoint.check.disabled {
                // Nobody asks any more: what was found last must not last for ever.
                live.probed.clear();
            }
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
                hash_key: endpoint.hash_key.as_str().into(),
                lb_metadata: endpoint.lb_metadata.as_slice().into(),
                check: Arc::new(endpoint.check.clone()),
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
        && *host.hash_key == *endpoint.hash_key
        && *host.check == endpoint.check
        && *host.lb_metadata == *endpoint.lb_metadata
        && *host.labels == *endpoint.labels
        && *host.locality == group.locality
}
