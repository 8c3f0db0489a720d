//! Resources as received: their bytes, their version and what they mean.

use crate::ads::Kind;
use crate::source::Wanted;
use crate::translate::CameFrom;
use outrigger_traffic::config::{Config, Resource};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// One resource in force.
#[derive(Clone, Debug)]
pub struct Held {
    /// Version the server gave it.
    pub version: String,
    /// Protobuf bytes inside its `Any`.
    pub bytes: Arc<[u8]>,
    /// Its meaning.
    pub resource: Arc<Resource>,
    /// What it takes from somewhere else, with the source.
    pub wanted: Arc<[Wanted]>,
    /// What "from there" means in it.
    pub came_from: CameFrom,
}

/// Resources by kind and name.
pub type HeldMap = BTreeMap<(Kind, String), Held>;

/// Kind of a translated resource.
pub fn kind_of(resource: &Resource) -> Kind {
    match resource {
        Resource::Cluster(_) => Kind::Cluster,
        Resource::Endpoints(_) => Kind::Endpoints,
        Resource::Secret(_) => Kind::Secret,
        Resource::Listener(_) => Kind::Listener,
        Resource::RouteConfig(_) => Kind::RouteConfig,
    }
}

/// Puts resources into a configuration, where they replace those of the same kind and name.
pub fn merge<'a>(base: &Config, resources: impl Iterator<Item = &'a Resource>) -> Config {
    let mut config = Config { local_cluster: base.local_cluster.clone(), ..Config::default() };
    for resource in resources {
        match resource {
            Resource::Listener(v) => config.listeners.push(v.clone()),
            Resource::RouteConfig(v) => config.route_configs.push(v.clone()),
            Resource::Cluster(v) => config.clusters.push(v.clone()),
            Resource::Endpoints(v) => config.endpoints.push(v.clone()),
            Resource::Secret(v) => config.secrets.push(v.clone()),
        }
    }
    fill(&mut config.listeners, &base.listeners, |x| &x.name);
    fill(&mut config.route_configs, &base.route_configs, |x| &x.name);
    fill(&mut config.clusters, &base.clusters, |x| &x.name);
    fill(&mut config.endpoints, &base.endpoints, |x| &x.cluster_name);
    fill(&mut config.secrets, &base.secrets, |x| &x.name);
    config
}

/// Adds what is in `base` and not yet in `list`.
fn fill<T: Clone>(list: &mut Vec<T>, base: &[T], name: impl Fn(&T) -> &String) {
    let known: HashSet<String> = list.iter().map(|x| name(x).clone()).collect();
    list.extend(base.iter().filter(|x| !known.contains(name(x))).cloned());
}
