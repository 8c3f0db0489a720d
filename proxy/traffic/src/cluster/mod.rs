//! Upstream clusters with their live hosts.
//!
//! A [`Cluster`] is rebuilt only when its configuration changes; its hosts change far more often and are swapped by
//! themselves ([`Cluster::set_endpoints`]). What is alive — requests in flight, ejections, breaker counts, host ids —
//! belongs to the address and survives both.
//!
//! Writers (endpoint updates, ejections) take turns by a mutex; readers never wait: they load one pointer.

mod check;
mod host;
mod original;

pub(crate) use check::{Names, check_endpoints};
pub(crate) use host::Ids;
pub use host::{Host, HostId, HostLive, InFlight, OpenConnection, Place};
pub use original::ORIGINAL_HOSTS_MAX;

use crate::balance::{
    Balancers, Basis, HostSet, Neighbourhood, PickContext, PickError, ZoneCounts, of_cluster,
};
use crate::breaker::{Breaker, Limited, Permit};
use crate::config::{self, ConfigError, HealthStatus};
use crate::outcome::Outcome;
use crate::outlier::{Cause, Detector, Ejection, Sweep};
use arc_swap::ArcSwap;
use host::{NewHosts, build_hosts};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A compiled cluster.
#[derive(Debug)]
pub struct Cluster {
    /// New whenever the cluster's configuration changed.
    pub uid: u64,
    /// What was asked for.
    pub config: Arc<config::Cluster>,
    /// What host sets are made by.
    basis: Basis,
    hosts: ArcSwap<HostSet>,
    /// What the current host set was made from, and the turn of its writers. Never taken to pick.
    endpoints: Mutex<Arc<config::Endpoints>>,
    ids: Ids,
    default_breaker: Breaker,
    high_breaker: Breaker,
    detector: Option<Detector>,
    /// The host set does not know of an ejection yet.
    stale: AtomicBool,
    /// Hosts by address, where destinations make the hosts.
    original: Option<original::ByAddress>,
}

/// What clusters are made in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    pub(crate) ids: &'a Ids,
    pub(crate) balancers: &'a Balancers,
    pub(crate) home: Option<&'a Arc<Neighbourhood>>,
}

/// Leave for one connection; dropping it gives everything back.
#[derive(Debug)]
#[must_use = "a dropped permit is given back at once"]
pub struct ConnectionPermit {
    _permit: Permit,
    _place: Option<Place>,
}

impl Cluster {
    /// A cluster; `previous` is the one of the same name in the last snapshot, whose live state is carried over.
    pub(crate) fn new(
        config: config::Cluster,
        endpoints: Arc<config::Endpoints>,
        previous: Option<&Self>,
        around: &Around<'_>,
    ) -> Self {
        let ids = around.ids;
        let limits = &config.circuit_breakers;
        let (default_breaker, high_breaker) = match previous {
            Some(old) => {
                (old.default_breaker.with_limits(&limits.default), old.high_breaker.with_limits(&limits.high))
            }
            None => (Breaker::new(&limits.default), Breaker::new(&limits.high)),
        };
        let old_hosts = previous.map(|p| p.hosts.load_full());
        let hosts = build_hosts(&endpoints, old_hosts.as_deref(), NewHosts::of(&config), ids);
        let detector = config.outlier_detection.as_ref().map(Detector::new);
        let policy = of_cluster(&config, around.balancers);
        let config = Arc::new(config);
        let zones = previous.map(|old| old.basis.zones.clone()).unwrap_or_default();
        let basis = Basis { config: config.clone(), policy, home: around.home.cloned(), zones };
        let set = HostSet::new(&basis, &endpoints, hosts);
        let original = matches!(config.discovery, config::ClusterDiscovery::OriginalDst(_))
            .then(|| original::ByAddress::of(set.hosts()));
        let new = Self {
            uid: ids.next(),
            config,
            basis,
            hosts: ArcSwap::from_pointee(set),
            endpoints: Mutex::new(endpoints),
            ids: ids.clone(),
            default_breaker,
            high_breaker,
            detector,
            stale: AtomicBool::new(false),
            original,
        };
        new.tell_home();
        new
    }

    /// Whether it was made with these surroundings.
    pub(crate) fn fits(&self, around: &Around<'_>) -> bool {
        match (&self.basis.home, around.home) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// How requests were kept in the proxy's own zone, where that is possible.
    pub fn zone_counts(&self) -> Option<&ZoneCounts> {
        self.basis.home.as_ref().map(|_| &*self.basis.zones)
    }

    /// Puts a host set in place.
    fn put(&self, set: HostSet) {
        self.hosts.store(Arc::new(set));
        self.tell_home();
    }

    /// The hosts of the local cluster are the proxy's fellows: all others go by where they are.
    fn tell_home(&self) {
        if let Some(home) = self.basis.home.as_ref().filter(|home| *home.cluster == *self.config.name) {
            home.settle(self.hosts.load().hosts());
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
        let hosts = build_hosts(endpoints, Some(&old), NewHosts::of(&self.config), &self.ids);
        self.put(HostSet::new(&self.basis, endpoints, hosts));
    }

    /// Picks a host.
    ///
    /// # Errors
    /// There is none, or none that may be used.
    pub fn pick(&self, context: &mut PickContext<'_>) -> Result<Arc<Host>, PickError> {
        if let Some(known) = &self.original {
            return self.host_at(known, context);
        }
        if let Some(wanted) = context.wanted {
            let hosts = self.hosts.load();
            let found = wanted.address.and_then(|address| hosts.host_at(address));
            match found.filter(|host| self.serves_sessions(host)) {
                Some(host) => return Ok(host.clone()),
                None if wanted.strict => return Err(PickError::NoHealthy),
                None => {}
            }
        }
        self.hosts.load().pick(context)
    }

    /// Whether a session that asks for a host gets it.
    fn serves_sessions(&self, host: &Host) -> bool {
        let status = host.status();
        match &*self.config.override_host_status {
            [] => {
                matches!(status, HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded)
            }
            some => some.contains(&status),
        }
    }

    /// The circuit breaker of ordinary or high priority.
    pub fn breaker(&self, high_priority: bool) -> &Breaker {
        if high_priority { &self.high_breaker } else { &self.default_breaker }
    }

    /// Takes permission for one more connection to a host: the cluster's limit counts, and the host's own.
    ///
    /// # Errors
    /// One of them is reached.
    pub fn try_connection(&self, host: &Arc<Host>, high_priority: bool) -> Result<ConnectionPermit, Limited> {
        let breakers = &self.config.circuit_breakers;
        let most = if high_priority {
            breakers.high_max_connections_per_host
        } else {
            breakers.max_connections_per_host
        };
        let place = match most {
            None => None,
            Some(limit) => Some(host.take_place(limit).ok_or(Limited::Connections)?),
        };
        let permit = self.breaker(high_priority).try_connection()?;
        Ok(ConnectionPermit { _permit: permit, _place: place })
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
        if host.is_ejected() {
            // It was picked in panic. It is out already, so there is nothing to count.
            return Ejection::None;
        }
        if !detector.eject(host, hosts.hosts(), now, draw) {
            return Ejection::Overflow(cause);
        }
        if self.config.lb_policy.is_hashing() {
            // Tables cost milliseconds: that is not for a thread that serves requests.
            self.stale.store(true, Relaxed);
        } else {
            self.put(hosts.refreshed(&self.basis, &turn));
        }
        Ejection::Ejected(cause)
    }

    /// Brings hosts back whose ejection time is over, and ejects those that the statistics of the interval speak against.
    /// Called by the control runtime every [`interval`](config::OutlierDetection::interval); `draw` gives random numbers
    /// for where enforcing is partial and for jitter.
    pub fn sweep(&self, now: Instant, draw: &mut dyn FnMut() -> u32) -> Sweep {
        let Some(detector) = &self.detector else { return Sweep::default() };
        let turn = self.turn();
        let hosts = self.hosts.load();
        let mut sweep = detector.sweep(hosts.hosts(), now);
        let back = sweep.returned;
        for (host, cause) in detector.compare(hosts.hosts()) {
            if host.is_ejected() {
                continue; // The other comparison was first.
            }
            sweep.judged.push(if !detector.is_enforced(cause, draw()) {
                Ejection::NotEnforced(cause)
            } else if detector.eject(&host, hosts.hosts(), now, draw()) {
                sweep.ejected += 1;
                Ejection::Ejected(cause)
            } else {
                Ejection::Overflow(cause)
            });
        }
        if back > 0 || sweep.judged.iter().any(|one| matches!(one, Ejection::Ejected(_))) {
            self.put(hosts.refreshed(&self.basis, &turn));
        }
        sweep
    }

    /// Judges the hosts anew: the health of some changed.
    pub fn refresh(&self) {
        let turn = self.turn();
        self.stale.store(false, Relaxed);
        let hosts = self.hosts.load();
        self.put(hosts.refreshed(&self.basis, &turn));
    }

    /// The same where the proxy's fellows have moved, or an ejection was left for the control runtime to see, which calls this now and then.
    pub fn refresh_if_stale(&self) {
        let outdated = |home: &Arc<Neighbourhood>| self.hosts.load().is_outdated(home);
        if self.stale.load(Relaxed) || self.basis.home.as_ref().is_some_and(outdated) {
            self.refresh();
        }
    }

    /// Ends the ejection of a host that answered a health check well, where the rules say so; returns whether there was one.
    pub fn uneject(&self, host: &Host) -> bool {
        let Some(detector) = &self.detector else { return false };
        let turn = self.turn();
        let back = detector.uneject(host);
        if back {
            let hosts = self.hosts.load();
            self.put(hosts.refreshed(&self.basis, &turn));
        }
        back
    }

    /// Brings all hosts back: a cluster whose outlier detection was switched off must not keep them out for ever.
    pub(crate) fn return_all(&self) {
        let turn = self.turn();
        let hosts = self.hosts.load();
        let returned = hosts.hosts().iter().filter(|h| h.live.ejected.swap(false, Relaxed)).count();
        if returned > 0 {
            self.put(hosts.refreshed(&self.basis, &turn));
        }
    }

    /// Forgets what probes found: nobody asks any more, and what was found last must not last for ever.
    pub(crate) fn forget_probes(&self) {
        let turn = self.turn();
        let hosts = self.hosts.load();
        let mut changed = false;
        for host in hosts.hosts().iter().filter(|host| !host.live.probed.is_clear()) {
            host.live.probed.clear();
            changed = true;
        }
        if changed {
            self.put(hosts.refreshed(&self.basis, &turn));
        }
    }

    fn turn(&self) -> MutexGuard<'_, Arc<config::Endpoints>> {
        // A writer that panicked left the old value: each writes last what it prepared before.
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
