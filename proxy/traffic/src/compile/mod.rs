//! From a [`Config`] to a [`Snapshot`].
//!
//! Everything that can be known before a request comes is worked out here: names become numbers, texts become
//! matchers, edits are merged. All errors are found at once. What did not change since the previous snapshot is shared
//! with it: clusters with their live state, listeners, route tables and virtual hosts.
//!
//! Resources that others name need not be there: a route may name a cluster, a connection manager a table and a
//! cluster its endpoints before they arrive (unless `validate_clusters` says otherwise).

mod actions;
mod clusters;
pub(crate) mod filters;
mod listeners;
mod overrides;
mod routes;

use crate::balance::{Balancers, Neighbourhood};
use crate::cluster::{Around, Cluster, Ids};
use crate::config::{Config, ConfigError, Endpoints};
use crate::filter::FilterNames;
use crate::listener::Listener;
use crate::route::RouteTable;
use crate::snapshot::{Slots, Snapshot};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Compiles a configuration.
///
/// `previous` is the snapshot in use: unchanged parts are shared with it, and live state goes over to changed ones.
/// When all is well, and only then, endpoints of clusters that are shared with `previous` are put in place.
///
/// # Errors
/// Every reason why the configuration cannot be used. Nothing of `previous` is changed then.
///
/// Cost: linear; allocates; belongs on the control runtime.
pub fn compile(config: &Config, previous: Option<&Snapshot>) -> Result<Snapshot, Vec<ConfigError>> {
    compile_with(config, previous, &Balancers::new())
}

/// The same with balancing policies of the embedding program.
///
/// # Errors
/// As [`compile`], and policies that are not among `balancers`.
pub fn compile_with(
    config: &Config,
    previous: Option<&Snapshot>,
    balancers: &Balancers,
) -> Result<Snapshot, Vec<ConfigError>> {
    let home = config.local_cluster.as_ref().map(|local| {
        let old = previous.and_then(|previous| previous.home.clone());
        old.filter(|old| old.is(local)).unwrap_or_else(|| Arc::new(Neighbourhood::new(local)))
    });
    let mut compilation = Compilation::new(previous, balancers, home);
    clusters::compile(&mut compilation, config);
    routes::compile_named(&mut compilation, config);
    listeners::compile(&mut compilation, config);
    overrides::check(&mut compilation, config);
    compilation.finish()
}

/// What grows while compiling.
struct Compilation<'p> {
    previous: Option<&'p Snapshot>,
    balancers: &'p Balancers,
    home: Option<Arc<Neighbourhood>>,
    errors: Vec<ConfigError>,
    ids: Ids,
    clusters: Slots<Cluster>,
    tables: Slots<RouteTable>,
    /// Places of filters' names in what routes say of filters.
    filter_names: FilterNames,
    listeners: Vec<Arc<Listener>>,
    /// Endpoints for clusters shared with the previous snapshot, put in place at the end.
    updates: Vec<(Arc<Cluster>, Endpoints)>,
    /// Numbers of clusters that listeners name.
    referenced: HashSet<u32, foldhash::fast::RandomState>,
    /// Numbers of tables that listeners name.
    referenced_tables: HashSet<u32, foldhash::fast::RandomState>,
}

impl<'p> Compilation<'p> {
    fn new(
        previous: Option<&'p Snapshot>,
        balancers: &'p Balancers,
        home: Option<Arc<Neighbourhood>>,
    ) -> Self {
        Self {
            previous,
            balancers,
            home,
            errors: Vec::new(),
            ids: previous.map(|p| p.ids.clone()).unwrap_or_default(),
            clusters: previous.map(|p| p.clusters.successor()).unwrap_or_default(),
            tables: previous.map(|p| p.tables.successor()).unwrap_or_default(),
            filter_names: previous.map(|p| p.filter_names.clone()).unwrap_or_default(),
            listeners: Vec::new(),
            updates: Vec::new(),
            referenced: HashSet::default(),
            referenced_tables: HashSet::default(),
        }
    }

    /// What clusters are made in.
    fn around(&self) -> Around<'_> {
        Around { ids: &self.ids, balancers: self.balancers, home: self.home.as_ref() }
    }

    fn refuse(&mut self, resource: &str, path: impl Into<String>, reason: impl Into<String>) {
        self.errors.push(ConfigError::new(resource, path, reason));
    }

    /// Refuses names that are empty or occur twice; gives back whether a name is new.
    fn admit<'n>(&mut self, seen: &mut HashMap<&'n str, ()>, kind: &str, name: &'n str) -> bool {
        let resource = format!("{kind}/{name}");
        if name.is_empty() {
            self.refuse(&resource, "name", "must not be empty");
        }
        let is_new = seen.insert(name, ()).is_none();
        if !is_new {
            self.refuse(&resource, "name", format!("occurs more than once among the {kind}s"));
        }
        is_new
    }

    fn finish(mut self) -> Result<Snapshot, Vec<ConfigError>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        for (_, table) in self.tables.iter() {
            self.referenced.extend(table.references.iter().map(|id| id.0));
        }
        let (referenced, referenced_tables) = (&self.referenced, &self.referenced_tables);
        self.clusters.forget_unused(|n| referenced.contains(&n));
        self.tables.forget_unused(|n| referenced_tables.contains(&n));
        for (cluster, endpoints) in &self.updates {
            cluster.put_endpoints(endpoints);
        }
        for (_, cluster) in self.clusters.iter() {
            if cluster.config.outlier_detection.is_none() {
                cluster.return_all();
            }
            if cluster.config.health_check.is_none() {
                cluster.forget_probes();
            }
        }
        for (_, cluster) in self.clusters.iter() {
            // Whether the local cluster was made before or after the others must not matter.
            cluster.refresh_if_stale();
        }
        Ok(Snapshot {
            listeners: self.listeners.into(),
            tables: self.tables,
            filter_names: self.filter_names,
            clusters: self.clusters,
            ids: self.ids,
            home: self.home,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
