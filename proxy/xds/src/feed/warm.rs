//! Make before break: which of the accepted resources may take effect now.
//!
//! A listener or route table takes effect when what it points to is usable: its route table has arrived, its EDS clusters
//! have endpoints, its secrets are there. Until then its predecessor stays in force, with the clusters it needs, even
//! when the server has removed them. After [`HOLD_MAX`] it takes effect as it is, as Envoy's `initial_fetch_timeout` does.
//! Source: Envoy, "Cluster warming" and "Listener warming".

use super::held::HeldMap;
use super::refs::Refs;
use crate::ads::Kind;
use outrigger_traffic::config::{ClusterDiscovery, Config, Resource};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time a resource waits for what it points to.
pub const HOLD_MAX: Duration = Duration::from_secs(15);

/// What is in force, and since when the rest waits.
#[derive(Debug, Default)]
pub struct Warming {
    effective: BTreeMap<(Kind, String), Arc<Resource>>,
    waiting: HashMap<(Kind, String), Instant>,
}

impl Warming {
    /// The resources that may take effect at `now`. Does not change what is in force: see [`Self::commit`].
    pub fn choose(
        &mut self,
        accepted: &HeldMap,
        base: &Config,
        now: Instant,
    ) -> BTreeMap<(Kind, String), Arc<Resource>> {
        let ready = Ready::new(accepted, base);
        let mut chosen = BTreeMap::new();
        let mut waiting = HashMap::new();
        for (key, held) in accepted {
            let pointed = match held.resource.as_ref() {
                Resource::Listener(_) | Resource::RouteConfig(_) => ready.is_ready(&held.resource),
                Resource::Cluster(_) | Resource::Endpoints(_) | Resource::Secret(_) => true,
            };
            let in_force = self.effective.get(key);
            let since = *self.waiting.get(key).unwrap_or(&now);
            if pointed || in_force == Some(&held.resource) || now.duration_since(since) >= HOLD_MAX {
                chosen.insert(key.clone(), held.resource.clone());
                continue;
            }
            waiting.insert(key.clone(), since);
            if let Some(previous) = in_force {
                chosen.insert(key.clone(), previous.clone());
            }
        }
        self.keep_what_is_still_used(&mut chosen);
        self.waiting = waiting;
        chosen
    }

    /// The chosen resources are in force now.
    pub fn commit(&mut self, chosen: BTreeMap<(Kind, String), Arc<Resource>>) {
        self.effective = chosen;
    }

    /// One resource was replaced in force without a new choice.
    pub fn replace(&mut self, key: (Kind, String), resource: Arc<Resource>) {
        self.effective.insert(key, resource);
    }

    /// Whether something waits.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Removed resources stay while something in force points to them.
    fn keep_what_is_still_used(&self, chosen: &mut BTreeMap<(Kind, String), Arc<Resource>>) {
        let mut refs = Refs::default();
        for resource in chosen.values() {
            match resource.as_ref() {
                Resource::Listener(v) => refs.add_listener(v),
                Resource::RouteConfig(v) => refs.add_route_config(v),
                Resource::Cluster(_) | Resource::Endpoints(_) | Resource::Secret(_) => {}
            }
        }
        let mut keep = |kind: Kind, names: &BTreeSet<String>, refs: Option<&mut Refs>| {
            let mut more = refs;
            for name in names {
                let key = (kind, name.clone());
                if let (false, Some(old)) = (chosen.contains_key(&key), self.effective.get(&key)) {
                    if let (Some(refs), Resource::Cluster(cluster)) = (more.as_deref_mut(), old.as_ref()) {
                        refs.add_cluster(cluster);
                    }
                    chosen.insert(key, old.clone());
                }
            }
        };
        keep(Kind::RouteConfig, &refs.route_configs, None);
        let mut of_clusters = Refs::default();
        keep(Kind::Cluster, &refs.clusters, Some(&mut of_clusters));
        keep(Kind::Endpoints, &of_clusters.endpoints, None);
        keep(Kind::Secret, &of_clusters.secrets, None);
    }
}

/// Names that are usable.
struct Ready<'a> {
    accepted: &'a HeldMap,
    base: &'a Config,
}

impl<'a> Ready<'a> {
    fn new(accepted: &'a HeldMap, base: &'a Config) -> Self {
        Self { accepted, base }
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.accepted.contains_key(&(kind, name.to_owned()))
    }

    fn is_ready(&self, resource: &Resource) -> bool {
        let mut refs = Refs::default();
        match resource {
            Resource::Listener(v) => refs.add_listener(v),
            Resource::RouteConfig(v) => refs.add_route_config(v),
            Resource::Cluster(_) | Resource::Endpoints(_) | Resource::Secret(_) => {}
        }
        refs.route_configs.iter().all(|name| {
            self.has(Kind::RouteConfig, name) || self.base.route_configs.iter().any(|r| &r.name == name)
        }) && refs.clusters.iter().all(|name| self.cluster_ready(name))
            && refs.secrets.iter().all(|name| self.secret_ready(name))
    }

    /// A cluster that does not exist is not waited for: its requests are answered with 503, as in Envoy.
    fn cluster_ready(&self, name: &str) -> bool {
        let Some(held) = self.accepted.get(&(Kind::Cluster, name.to_owned())) else { return true };
        let Resource::Cluster(cluster) = held.resource.as_ref() else { return true };
        let mut refs = Refs::default();
        refs.add_cluster(cluster);
        let endpoints = match &cluster.discovery {
            ClusterDiscovery::Eds { service_name } => self.has(Kind::Endpoints, service_name),
            ClusterDiscovery::Static(_)
            | ClusterDiscovery::StrictDns { .. }
            | ClusterDiscovery::LogicalDns { .. } => true,
        };
        endpoints && refs.secrets.iter().all(|name| self.secret_ready(name))
    }

    fn secret_ready(&self, name: &str) -> bool {
        self.has(Kind::Secret, name) || self.base.secrets.iter().any(|s| s.name == name)
    }
}
