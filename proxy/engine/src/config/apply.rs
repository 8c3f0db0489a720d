//! Putting a configuration into effect.
//!
//! ```text
//!  Config ─▶ traffic::compile ─▶ TLS, logs, counters ─▶ bind ─▶ swap Live ─▶ sockets to workers ─▶ jobs
//!            └────────────── may refuse; nothing has changed ──────┘
//! ```
//!
//! Runs on the control thread. The old [`Live`] is kept until no worker uses it any more, so that freeing it is never
//! a worker's business.

use super::build;
use crate::cluster::ClusterJobs;
use crate::dns::DnsServers;
use crate::identity::Secrets;
use crate::listener::Listeners;
use crate::live::Live;
use crate::worker::Shared;
use outrigger_traffic::config::{
    ClusterDiscovery, Config, ConfigError, Endpoints, Listener, TrafficDirection,
};
use std::net::SocketAddr;
use std::sync::Arc;

/// Old states kept for idle workers to let go of; older ones are freed by whoever is last.
const RETIRED_MAX: usize = 16;

/// Holds what is in effect and replaces it. One per proxy, on the control thread.
#[derive(Debug)]
pub struct Applier {
    shared: Arc<Shared>,
    config: Config,
    secrets: Secrets,
    listeners: Listeners,
    dns: DnsServers,
    jobs: ClusterJobs,
    retired: Vec<Arc<Live>>,
}

impl Applier {
    /// Starts from the empty configuration that `shared` was made with.
    pub fn new(shared: Arc<Shared>, listeners: Listeners, dns: DnsServers, jobs: ClusterJobs) -> Self {
        Self {
            shared,
            config: Config::default(),
            secrets: Secrets::default(),
            listeners,
            dns,
            jobs,
            retired: Vec::new(),
        }
    }

    /// Replaces the whole configuration and returns the number of the new state, or changes nothing.
    ///
    /// *Errors*: every reason found, each with `kind/name` of the resource at fault.
    pub fn apply(&mut self, config: Config) -> Result<u64, Vec<ConfigError>> {
        let result = self.try_apply(config);
        let stats = self.shared.server.control();
        match &result {
            Ok(version) => {
                stats.config_applied.inc();
                stats.config_version.set(*version);
                tracing::info!(config_version = version, "configuration in effect");
            }
            Err(errors) => {
                stats.config_rejected.inc();
                for error in errors {
                    tracing::warn!(error = %error, "configuration refused");
                }
            }
        }
        result
    }

    fn try_apply(&mut self, config: Config) -> Result<u64, Vec<ConfigError>> {
        let old = self.shared.live.load_full();
        let mut errors = Vec::new();
        let compiled = outrigger_traffic::compile_with(&config, Some(&old.snapshot), &self.shared.balancers);
        let snapshot = keep(compiled, &mut errors);
        let secrets = keep(Secrets::parse(&config.secrets, Some(&self.secrets)), &mut errors);
        let (Some(snapshot), Some(secrets)) = (snapshot, secrets) else { return Err(errors) };
        let version = old.version + 1;
        let parts = build::Parts { shared: &self.shared, secrets: &secrets, old: &old };
        let live = keep(build::live(&parts, version, Arc::new(snapshot)), &mut errors);
        let (prepared, refused) = self.listeners.prepare(&config.listeners);
        errors.extend(refused);
        let (prepared_dns, refused) = self.dns.prepare(&config.listeners);
        errors.extend(refused);
        let (Some(live), true) = (live, errors.is_empty()) else { return Err(errors) };
        let live = Arc::new(live);
        // A changed DNS cluster would be without hosts until its names are resolved again: give it the last answers.
        self.jobs.seed(&live);
        self.shared.live.store(live.clone());
        self.listeners
            .commit(prepared, &config.listeners, |name| live.listeners.get(name).map(|l| l.stats.clone()));
        self.dns.commit(prepared_dns, &config.listeners, &self.shared);
        self.shared.news.send_replace(version);
        self.jobs.reconcile(&live);
        (self.config, self.secrets) = (config, secrets);
        self.retire(old);
        Ok(version)
    }

    /// Replaces the endpoints of an EDS service. Requests under way are not disturbed and no new state is made.
    ///
    /// *Errors*: every reason; nothing is changed then.
    pub fn apply_endpoints(&mut self, endpoints: &Endpoints) -> Result<(), Vec<ConfigError>> {
        let live = self.shared.live.load();
        let mut errors = Vec::new();
        for cluster in live.clusters.iter().flatten() {
            let ClusterDiscovery::Eds { service_name } = &cluster.cluster.config.discovery else { continue };
            let name = if service_name.is_empty() { &*cluster.name } else { service_name };
            if name != endpoints.cluster_name {
                continue;
            }
            match cluster.cluster.set_endpoints(endpoints) {
                Ok(()) => {
                    let stats = cluster.stats.control();
                    stats.membership_change.inc();
                    if endpoints.localities.iter().all(|l| l.endpoints.is_empty()) {
                        stats.update_empty.inc();
                    }
                }
                Err(more) => errors.extend(more),
            }
        }
        if !errors.is_empty() {
            // Several clusters may share a service: each would say the same.
            errors.dedup();
            return Err(errors);
        }
        self.jobs.tend(&live);
        // The next compilation must not bring the old ones back.
        match self.config.endpoints.iter_mut().find(|e| e.cluster_name == endpoints.cluster_name) {
            Some(held) => held.clone_from(endpoints),
            None => self.config.endpoints.push(endpoints.clone()),
        }
        Ok(())
    }

    /// What is in effect.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The addresses a listener is bound to.
    pub fn local_addrs(&self, name: &str) -> Vec<SocketAddr> {
        let mut all = self.listeners.local_addrs(name);
        all.extend(self.dns.local_addrs(name));
        all
    }

    /// All bound addresses with the name of their listener.
    pub fn all_addrs(&self) -> Vec<(String, SocketAddr)> {
        let listening = self.listeners.all().chain(self.dns.all());
        let mut all: Vec<_> = listening.map(|(name, address)| (name.to_owned(), address)).collect();
        all.sort();
        all
    }

    /// Closes listening sockets (those of inbound listeners, or all); connections are asked to finish. Listeners come
    /// back with the next configuration.
    pub fn close_listeners(&mut self, inbound_only: bool) {
        let keep =
            |listener: &&Listener| inbound_only && listener.traffic_direction != TrafficDirection::Inbound;
        let kept: Vec<Listener> = self.config.listeners.iter().filter(keep).cloned().collect();
        let (prepared, _) = self.listeners.prepare(&[]);
        self.listeners.commit(prepared, &kept, |_| None);
        let (prepared, _) = self.dns.prepare(&[]);
        self.dns.commit(prepared, &kept, &self.shared);
    }

    /// Lets the clusters' jobs follow their hosts. Called by the control job now and then.
    pub fn tend(&mut self) {
        self.jobs.tend(&self.shared.live.load_full());
    }

    /// Frees old states that no worker uses. Called by the control job now and then.
    pub fn reap(&mut self) {
        self.retired.retain(|old| Arc::strong_count(old) > 1);
    }

    fn retire(&mut self, old: Arc<Live>) {
        self.reap();
        if self.retired.len() >= RETIRED_MAX {
            self.retired.remove(0);
        }
        self.retired.push(old);
    }
}

/// The value, or its errors added to the list.
fn keep<T>(result: Result<T, Vec<ConfigError>>, errors: &mut Vec<ConfigError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(more) => {
            errors.extend(more);
            None
        }
    }
}
