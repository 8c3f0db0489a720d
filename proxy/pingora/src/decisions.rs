//! The configuration in use, and how it is replaced.

use crate::check;
use arc_swap::ArcSwap;
use outrigger_traffic::balance::Balancers;
use outrigger_traffic::config::{ClusterDiscovery, Config, ConfigError, Endpoints};
use outrigger_traffic::{Snapshot, compile_with};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between looks at outliers.
const TICK: Duration = Duration::from_millis(500);

/// What a gateway decides by. One may serve several gateways.
#[derive(Debug, Default)]
pub struct Decisions {
    snapshot: ArcSwap<Snapshot>,
    version: AtomicU64,
    balancers: Balancers,
    /// The configuration in use, and the turn of its writers. Never taken to serve a request.
    config: Mutex<Config>,
}

impl Decisions {
    /// Nothing is routed anywhere yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with balancing policies of the program, by the names that clusters use.
    pub fn with_balancers(balancers: Balancers) -> Self {
        Self { balancers, ..Self::default() }
    }

    /// Replaces the configuration and returns the number of the new one. Requests under way go on with the old one; what is
    /// alive (requests in flight, ejections, breakers) goes over.
    ///
    /// # Errors
    /// Every reason, with `kind/name` of the resource and the path of the field; nothing is changed then. Beside what is wrong
    /// that is everything this adapter does not do.
    pub fn apply(&self, config: Config) -> Result<u64, Vec<ConfigError>> {
        let mut turn = self.turn();
        let old = self.snapshot.load_full();
        let mut errors = check::refusals(&config);
        // Compiling puts endpoints in place, hence not where something was refused already.
        let compiled = if errors.is_empty() {
            compile_with(&config, Some(&old), &self.balancers)
        } else {
            compile_with(&config, None, &self.balancers)
        };
        match compiled {
            Ok(snapshot) if errors.is_empty() => self.snapshot.store(Arc::new(snapshot)),
            Ok(_) => return Err(errors),
            Err(more) => {
                errors.extend(more);
                return Err(errors);
            }
        }
        *turn = config;
        Ok(self.version.fetch_add(1, Relaxed) + 1)
    }

    /// Replaces the endpoints of an EDS service.
    ///
    /// # Errors
    /// Every reason.
    pub fn apply_endpoints(&self, endpoints: &Endpoints) -> Result<(), Vec<ConfigError>> {
        let mut turn = self.turn();
        let snapshot = self.snapshot.load();
        for (_, cluster) in snapshot.clusters() {
            let ClusterDiscovery::Eds { service_name } = &cluster.config.discovery else { continue };
            let name = if service_name.is_empty() { cluster.name() } else { service_name };
            if name == endpoints.cluster_name {
                cluster.set_endpoints(endpoints)?;
            }
        }
        for (_, cluster) in snapshot.clusters() {
            cluster.refresh_if_stale();
        }
        // The next configuration must not bring the old ones back.
        match turn.endpoints.iter_mut().find(|held| held.cluster_name == endpoints.cluster_name) {
            Some(held) => held.clone_from(endpoints),
            None => turn.endpoints.push(endpoints.clone()),
        }
        Ok(())
    }

    /// What is decided by now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// How often the configuration was replaced.
    pub fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// Brings ejected hosts back when their time is over, and ejects those that the statistics speak against, for as long as
    /// it is polled. Run it once, in the background.
    pub async fn keep(&self) {
        let mut due: HashMap<u64, Instant> = HashMap::new();
        loop {
            tokio::time::sleep(TICK).await;
            self.sweep(&mut due, Instant::now());
        }
    }

    fn sweep(&self, due: &mut HashMap<u64, Instant>, now: Instant) {
        let mut next = HashMap::with_capacity(due.len());
        for (_, cluster) in self.snapshot.load().clusters() {
            cluster.refresh_if_stale();
            let Some(rules) = &cluster.config.outlier_detection else { continue };
            let mut at = due.get(&cluster.uid).copied().unwrap_or(now + rules.interval);
            if at <= now {
                let sweep = cluster.sweep(now, &mut || fastrand::u32(..));
                if sweep.returned > 0 || sweep.ejected > 0 {
                    tracing::info!(
                        cluster = cluster.name(),
                        returned = sweep.returned,
                        ejected = sweep.ejected,
                        "outliers"
                    );
                }
                at = now + rules.interval;
            }
            next.insert(cluster.uid, at);
        }
        *due = next;
    }

    fn turn(&self) -> MutexGuard<'_, Config> {
        // A writer that panicked left the old value: it is replaced last.
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "xds")]
impl outrigger_xds::feed::Sink for Decisions {
    fn apply(&self, config: Config) -> Result<u64, Vec<ConfigError>> {
        Self::apply(self, config)
    }

    fn apply_endpoints(&self, endpoints: &Endpoints) -> Result<(), Vec<ConfigError>> {
        Self::apply_endpoints(self, endpoints)
    }
}
