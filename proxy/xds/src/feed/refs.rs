//! What a resource refers to: the names that make-before-break waits for, and that subscriptions follow.

use crate::ads::Kind;
use outrigger_traffic::config::{
    Action, CertificateSource, Cluster, ClusterChoice, ClusterDiscovery, Config, DownstreamTls, Listener,
    RouteConfig, RouteSource, ScopeTable, Terminal, UpstreamTls, ValidationSource,
};
use std::collections::BTreeSet;

/// Names that one or more resources refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refs {
    /// Clusters.
    pub clusters: BTreeSet<String>,
    /// Route tables.
    pub route_configs: BTreeSet<String>,
    /// EDS service names.
    pub endpoints: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

impl Refs {
    /// Adds what a listener refers to, inline route tables included.
    pub fn add_listener(&mut self, listener: &Listener) {
        for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
            if let Some(tls) = &chain.tls {
                self.add_downstream_tls(tls);
            }
            match &chain.terminal {
                Terminal::Tcp(tcp) => self.add_choice(&tcp.cluster),
                Terminal::Http(http) => match &http.routes {
                    RouteSource::Named(name) => {
                        self.route_configs.insert(name.clone());
                    }
                    RouteSource::Inline(table) => self.add_route_config(table),
                    RouteSource::Scoped(scoped) => {
                        for scope in &scoped.scopes {
                            match &scope.table {
                                ScopeTable::Named(name) => drop(self.route_configs.insert(name.clone())),
                                ScopeTable::Inline(table) => self.add_route_config(table),
                            }
                        }
                    }
                },
            }
        }
    }

    /// Adds the clusters of a route table. Clusters named by a header are not known before the request.
    pub fn add_route_config(&mut self, table: &RouteConfig) {
        for route in table.virtual_hosts.iter().flat_map(|v| &v.routes) {
            if let Action::Forward(forward) = &route.action {
                self.add_choice(&forward.cluster);
            }
        }
    }

    /// Adds a cluster's endpoints and secrets.
    pub fn add_cluster(&mut self, cluster: &Cluster) {
        if let ClusterDiscovery::Eds { service_name } = &cluster.discovery {
            self.endpoints.insert(service_name.clone());
        }
        if let Some(tls) = &cluster.tls {
            self.add_upstream_tls(tls);
        }
    }

    /// What is left when the things that a configuration holds itself are taken away.
    #[must_use]
    pub fn without(mut self, base: &Config) -> Self {
        for known in &base.secrets {
            self.secrets.remove(&known.name);
        }
        for known in &base.route_configs {
            self.route_configs.remove(&known.name);
        }
        for known in &base.endpoints {
            self.endpoints.remove(&known.cluster_name);
        }
        self
    }

    /// The names that are subscribed to one by one.
    pub fn by_kind(self) -> [(Kind, BTreeSet<String>); 3] {
        [
            (Kind::Endpoints, self.endpoints),
            (Kind::Secret, self.secrets),
            (Kind::RouteConfig, self.route_configs),
        ]
    }

    fn add_choice(&mut self, choice: &ClusterChoice) {
        match choice {
            // Many routes name the same few clusters: the text is copied for the first of them only.
            ClusterChoice::Single(name) => {
                if !self.clusters.contains(name) {
                    self.clusters.insert(name.clone());
                }
            }
            ClusterChoice::Weighted(list) => {
                self.clusters.extend(list.iter().filter(|w| w.weight > 0).map(|w| w.name.clone()));
            }
            ClusterChoice::Header(_) => {}
        }
    }

    fn add_downstream_tls(&mut self, tls: &DownstreamTls) {
        tls.certificates.iter().for_each(|c| self.add_certificate(c));
        self.add_validation(tls.validation.as_ref());
    }

    fn add_upstream_tls(&mut self, tls: &UpstreamTls) {
        tls.certificate.iter().for_each(|c| self.add_certificate(c));
        self.add_validation(tls.validation.as_ref());
    }

    fn add_certificate(&mut self, source: &CertificateSource) {
        if let CertificateSource::Sds(name) = source {
            self.secrets.insert(name.clone());
        }
    }

    fn add_validation(&mut self, source: Option<&ValidationSource>) {
        if let Some(ValidationSource::Sds(name) | ValidationSource::Combined { sds: name, .. }) = source {
            self.secrets.insert(name.clone());
        }
    }
}
