//! Upstream clusters with their live hosts.
//!
//! A [`Cluster`] is rebuilt only when its configuration changes; its hosts change far more often and are swapped by
//! themselves ([`Cluster::set_endpoints`]). What is alive — requests in flight, ejections, breaker counts, host ids —
//! belongs to the address and survives both.
//!
//! Writers (endpoint updates, ejections) take turns by a mutex; readers never wait: they load one pointer.

use crate::balance::{HostSet, PickContext, PickError};
use crate::breaker::Breaker;
use crate::config::{self, ConfigError, EndpointAddress, HealthStatus, Locality};
use crate::outcome::Outcome;
use crate::outlier::{Cause, Detector, Ejection, Sweep};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Where ids of clusters and hosts come from: one source for a snapshot and all its successors, so that an id is never
/// used twice and pools may use them as keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids(Arc<AtomicU64>);

impl Ids {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }
}

/// Identity of an address within a cluster, for as long as it stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u64);

/// A compiled cluster.
#[derive(Debug)]
pub struct Cluster {
    /// New whenever the cluster's configuration changed.
    pub uid: u64,
    /// What was asked for.
    pub config: Arc<config::Cluster>,
    hosts: ArcSwap<HostSet>,
    /// What the current host set was made from, and the turn of its writers. Never taken to pick.
    endpoints: Mutex<Arc<config::Endpoints>>,
    ids: Ids,
    default_breaker: Breaker,
    high_breaker: Breaker,
    detector: Option<Detector>,
}

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

    /// Whether it may be picked in ordinary times.
    pub fn is_healthy(&self) -> bool {
        matches!(self.health, HealthStatus::Unknown | HealthStatus::Healthy) && !self.is_ejected()
    }

    /// Whether it may be picked when healthy ones are too few.
    pub fn is_degraded(&self) -> bool {
        self.health == HealthStatus::Degraded && !self.is_ejected()
    }
}

impl Cluster {
    /// A cluster; `previous` is the one of the same name in the last snapshot, whose live state is carried over.
    pub(crate) fn new(
        config: config::Cluster,
        endpoints: Arc<config::Endpoints>,
        previous: Option<&Self>,
        ids: &Ids,
    ) -> Self {
        let limits = &config.circuit_breakers;
        let (default_breaker, high_breaker) = match previous {
            Some(old) => {
                (old.default_breaker.with_limits(&limits.default), old.high_breaker.with_limits(&limits.high))
            }
            None => (Breaker::new(&limits.default), Breaker::new(&limits.high)),
        };
        let old_hosts = previous.map(|p| p.hosts.load_full());
        let hosts = build_hosts(&endpoints, old_hosts.as_deref(), ids);
        let detector = config.outlier_detection.as_ref().map(Detector::new);
        let set = HostSet::new(&config, &endpoints, hosts, old_hosts.as_deref());
        Self {
            uid: ids.next(),
            config: Arc::new(config),
            hosts: ArcSwap::from_pointee(set),
            endpoints: Mutex::new(endpoints),
            ids: ids.clone(),
            default_breaker,
            high_breaker,
            detector,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The present hosts. Cost: one guarded pointer load.
    pub fn hosts(&self) -> arc_swap::Guard<Arc<HostSet>> {
        self.hosts.load()
    }

    /// The endpoints the present hosts were made from.
    pub fn endpoints(&self) -> Arc<config::Endpoints> {
        self.turn().clone()
    }

    /// Replaces the hosts (EDS, DNS). Hosts whose address stays keep their identity and live state.
    /// Does nothing where the endpoints are the same as before.
    ///
    /// # Errors
    /// Unresolved names, weights of 0, addresses that occur twice in a priority, gaps between priorities;
    /// nothing is changed then.
    pub fn set_endpoints(&self, endpoints: &config::Endpoints) -> Result<(), Vec<ConfigError>> {
        check_endpoints(&format!("endpoints/{}", endpoints.cluster_name), "", endpoints, Names::Resolved)?;
        self.put_endpoints(endpoints);
        Ok(())
    }

    /// As above, for endpoints that were checked.
    pub(crate) fn put_endpoints(&self, endpoints: &config::Endpoints) {
        let mut turn = self.turn();
        if **turn == *endpoints {
            return;
        }
        *turn = Arc::new(endpoints.clone());
        let old = self.hosts.load_full();
        let hosts = build_hosts(endpoints, Some(&old), &self.ids);
        self.hosts.store(Arc::new(HostSet::new(&self.config, endpoints, hosts, Some(&old))));
    }

    /// Picks a host.
    ///
    /// # Errors
    /// There is none, or none that may be used.
    pub fn pick(&self, context: &mut PickContext<'_>) -> Result<Arc<Host>, PickError> {
        self.hosts.load().pick(context)
    }

    /// The circuit breaker of ordinary or high priority.
    pub fn breaker(&self, high_priority: bool) -> &Breaker {
        if high_priority { &self.high_breaker } else { &self.default_breaker }
    }

    /// Takes back how an attempt ended. May eject the host; `draw` decides where enforcing is partial.
    ///
    /// Cost: a few relaxed atomic operations; when a host is ejected (at most once per host and base ejection time),
    /// the host set is rebuilt here, in O(hosts).
    pub fn report(&self, host: &Host, outcome: Outcome, now: Instant, draw: u32) -> Ejection {
        if outcome.is_failure() {
            host.live.requests_error.fetch_add(1, Relaxed);
            if outcome == Outcome::ConnectFailed {
                host.live.connections_failed.fetch_add(1, Relaxed);
            }
        }
        let Some(detector) = &self.detector else { return Ejection::None };
        let mut result = Ejection::None;
        for cause in detector.observe(&host.live, outcome).into_iter().flatten() {
            result = self.judge(detector, host, cause, now, draw);
            if let Ejection::Ejected(_) = result {
                break;
            }
        }
        result
    }

    fn judge(&self, detector: &Detector, host: &Host, cause: Cause, now: Instant, draw: u32) -> Ejection {
        if !detector.is_enforced(cause, draw) {
            detector.forget(&host.live, cause);
            return Ejection::NotEnforced(cause);
        }
        // Somebody else is writing: the data path does not wait. The count stays, so the next failure comes here again.
        let Ok(turn) = self.endpoints.try_lock() else { return Ejection::None };
        let hosts = self.hosts.load();
        detector.forget(&host.live, cause);
        if !detector.eject(host, hosts.hosts(), now, draw) {
            return Ejection::Overflow(cause);
        }
        self.hosts.store(Arc::new(hosts.refreshed(&self.config, &turn)));
        Ejection::Ejected(cause)
    }

    /// Brings hosts back whose ejection time is over. Called by the control runtime every
    /// [`interval`](config::OutlierDetection::interval).
    pub fn sweep(&self, now: Instant) -> Sweep {
        let Some(detector) = &self.detector else { return Sweep::default() };
        let turn = self.turn();
        let hosts = self.hosts.load();
        let sweep = detector.sweep(hosts.hosts(), now);
        if sweep.returned > 0 {
            self.hosts.store(Arc::new(hosts.refreshed(&self.config, &turn)));
        }
        sweep
    }

    /// Brings all hosts back: a cluster whose outlier detection was switched off must not keep them out for ever.
    pub(crate) fn return_all(&self) {
        let turn = self.turn();
        let hosts = self.hosts.load();
        let returned = hosts.hosts().iter().filter(|h| h.live.ejected.swap(false, Relaxed)).count();
        if returned > 0 {
            self.hosts.store(Arc::new(hosts.refreshed(&self.config, &turn)));
        }
    }

    fn turn(&self) -> MutexGuard<'_, Arc<config::Endpoints>> {
        // A writer that panicked left the old value: each writes last what it prepared before.
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build_hosts(endpoints: &config::Endpoints, previous: Option<&HostSet>, ids: &Ids) -> Vec<Arc<Host>> {
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

/// Whether names may stand among addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// They may: DNS clusters before resolution.
    Allowed,
    /// They may not.
    Resolved,
}

/// Largest total weight of a priority's hosts, and of its localities. Source: Envoy refuses sums above 2^32−1.
const WEIGHT_SUM_MAX: u64 = u32::MAX as u64;

/// Everything wrong with endpoints.
pub(crate) fn check_endpoints(
    resource: &str,
    prefix: &str,
    endpoints: &config::Endpoints,
    names: Names,
) -> Result<(), Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut seen = std::collections::HashSet::with_hasher(foldhash::fast::RandomState::default());
    let mut weights: HashMap<u32, (u64, u64)> = HashMap::new();
    let mut priority_max = 0;
    for (l, group) in endpoints.localities.iter().enumerate() {
        priority_max = priority_max.max(group.priority);
        let sums = weights.entry(group.priority).or_default();
        sums.0 += u64::from(group.weight.unwrap_or(0));
        for (e, endpoint) in group.endpoints.iter().enumerate() {
            let path = || format!("{prefix}endpoints[{l}].lb_endpoints[{e}]");
            sums.1 += u64::from(endpoint.weight);
            if endpoint.weight == 0 {
                errors.push(ConfigError::new(
                    resource,
                    path() + ".load_balancing_weight",
                    "weight must be at least 1",
                ));
            }
            if !seen.insert((group.priority, &endpoint.address)) {
                errors.push(ConfigError::new(
                    resource,
                    path(),
                    "address occurs more than once in its priority",
                ));
            }
            if let (EndpointAddress::Name(name, _), Names::Resolved) = (&endpoint.address, names) {
                let reason = format!("`{name}` is a name; an IP address is needed here");
                errors.push(ConfigError::new(resource, path() + ".endpoint.address", reason));
            }
        }
    }
    for priority in 0..=priority_max.min(128) {
        if !endpoints.localities.is_empty() && !weights.contains_key(&priority) {
            let reason = format!(
                "priority {priority} has no locality, but a lower one has; priorities must have no gaps"
            );
            errors.push(ConfigError::new(resource, format!("{prefix}endpoints"), reason));
        }
    }
    if priority_max > 128 {
        errors.push(ConfigError::new(resource, format!("{prefix}endpoints"), "priority must be at most 128"));
    }
    if weights.values().any(|(l, h)| *l > WEIGHT_SUM_MAX || *h > WEIGHT_SUM_MAX) {
        errors.push(ConfigError::new(
            resource,
            format!("{prefix}endpoints"),
            "sum of weights of a priority is above 2^32-1",
        ));
    }
    if endpoints.overprovisioning_factor == Some(0) {
        let path = format!("{prefix}policy.overprovisioning_factor");
        errors.push(ConfigError::new(resource, path, "must be above 0"));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}
