//! Route tables.

use super::actions::{choice_references, retry};
use super::{Compilation, actions, filters};
use crate::config::{self, Config, ConfigError};
use crate::filter::{RateLimitRule, RateLimitRules, RouteFilters};
use crate::metadata::MetadataMatcher;
use crate::retry::RetryPolicy;
use crate::route::edits::Level;
use crate::route::{
    Action, Criteria, Edits, HeaderMatcher, HostIndex, MirrorTarget, PathIndex, PathMatcher, PathRewriter,
    QueryMatcher, Redirect, Route, RouteTable, VirtualHost,
};
use crate::snapshot::ClusterId;
use crate::tracing::RouteTracing;
use std::collections::HashMap;
use std::sync::Arc;

/// Named tables and tables inside listeners share one space of names.
pub(super) fn named_key(name: &str) -> String {
    format!("named/{name}")
}

/// Where a table stands: for error paths, and for finding its predecessor.
pub(super) struct Place<'a> {
    pub(super) resource: &'a str,
    pub(super) prefix: &'a str,
    pub(super) number: u32,
}

pub(super) fn compile_named(compilation: &mut Compilation<'_>, config: &Config) {
    let mut seen = HashMap::with_capacity(config.route_configs.len());
    for table in &config.route_configs {
        if !compilation.admit(&mut seen, "route_config", &table.name) {
            continue;
        }
        let resource = format!("route_config/{}", table.name);
        let number = compilation.tables.number(&named_key(&table.name));
        let old = compilation.previous.and_then(|p| p.tables.entry(number));
        let compiled = match old.filter(|t| *t.config == *table) {
            Some(old) => {
                validate_references(compilation, old, &resource, "");
                Some(old.clone())
            }
            None => compile_table(compilation, &Place { resource: &resource, prefix: "", number }, table),
        };
        if let Some(compiled) = compiled {
            compilation.tables.put(number, compiled);
        }
    }
}

/// Where a table asks for it, refuses clusters that are not there.
pub(super) fn validate_references(
    compilation: &mut Compilation<'_>,
    table: &RouteTable,
    resource: &str,
    prefix: &str,
) {
    if !table.config.validate_clusters {
        return;
    }
    let missing = |name: &str| compilation.clusters.existing(name).is_none();
    let mut errors = Vec::new();
    for (v, host) in table.config.virtual_hosts.iter().enumerate() {
        for (r, route) in host.routes.iter().enumerate() {
            let config::Action::Forward(action) = &route.action else { continue };
            let path = format!("{prefix}virtual_hosts[{v}].routes[{r}].route");
            let mut check = |path: String, name: &str| {
                if missing(name) {
                    errors.push(ConfigError::new(resource, path, format!("cluster `{name}` does not exist")));
                }
            };
            match &action.cluster {
                config::ClusterChoice::Single(name) => check(format!("{path}.cluster"), name),
                config::ClusterChoice::Weighted(shares) => {
                    for (i, share) in shares.iter().enumerate() {
                        if share.cluster_header.is_some() {
                            continue;
                        }
                        check(format!("{path}.weighted_clusters.clusters[{i}].name"), &share.name);
                    }
                }
                config::ClusterChoice::Header(_) => {}
            }
            for (i, mirror) in action.mirrors.iter().enumerate() {
                if let config::MirrorCluster::Single(name) = &mirror.cluster {
                    check(format!("{path}.request_mirror_policies[{i}].cluster"), name);
                }
            }
        }
    }
    compilation.errors.extend(errors);
}

/// `None` where something was refused.
pub(super) fn compile_table(
    compilation: &mut Compilation<'_>,
    place: &Place<'_>,
    table: &config::RouteConfig,
) -> Option<Arc<RouteTable>> {
    let errors_before = compilation.errors.len();
    let Place { resource, prefix, .. } = *place;
    let level = level(compilation, resource, prefix, &table.headers);
    let mirrors =
        actions::mirrors(compilation, resource, &format!("{prefix}request_mirror_policies"), &table.mirrors);
    let old = Predecessor::new(compilation, place, table);
    let filters = filters::overrides(
        compilation,
        resource,
        prefix.trim_end_matches('.'),
        table.filters.as_ref(),
        &RouteFilters::default(),
    );
    let mut virtual_hosts = Vec::with_capacity(table.virtual_hosts.len());
    for (i, host) in table.virtual_hosts.iter().enumerate() {
        virtual_hosts.push(match old.as_ref().and_then(|o| o.unchanged(i, host)) {
            Some(same) => same,
            None => {
                let above = Above {
                    level: level.clone(),
                    specific_wins: table.most_specific_header_mutations_wins,
                    filters: filters.clone(),
                };
                let path = format!("{prefix}virtual_hosts[{i}]");
                virtual_host(compilation, resource, &path, host, &above, &mirrors)
            }
        });
    }
    let hosts = match old.as_ref().and_then(Predecessor::hosts) {
        Some(hosts) => hosts,
        None => Arc::new(host_index(compilation, place, table)),
    };
    let references = references(&virtual_hosts);
    let table = RouteTable {
        config: Arc::new(table.clone()),
        hosts,
        virtual_hosts: virtual_hosts.into(),
        references,
    };
    validate_references(compilation, &table, resource, prefix);
    (compilation.errors.len() == errors_before).then(|| Arc::new(table))
}

/// The domains of a table; refuses what cannot be a name or domain, or is one twice.
fn host_index(
    compilation: &mut Compilation<'_>,
    place: &Place<'_>,
    table: &config::RouteConfig,
) -> HostIndex {
    let Place { resource, prefix, .. } = *place;
    let mut hosts = HostIndex::new(table.ignore_port_in_host_matching);
    let mut names = HashMap::with_capacity(table.virtual_hosts.len());
    for (i, host) in table.virtual_hosts.iter().enumerate() {
        let path = |field: &str| format!("{prefix}virtual_hosts[{i}].{field}");
        if host.name.is_empty() {
            compilation.refuse(resource, path("name"), "must not be empty");
        }
        if let Some(other) = names.insert(host.name.as_str(), i) {
            let reason = format!("`{}` is the name of virtual_hosts[{other}] as well", host.name);
            compilation.refuse(resource, path("name"), reason);
        }
        if host.domains.is_empty() {
            compilation.refuse(resource, path("domains"), "must not be empty");
        }
        for (d, domain) in host.domains.iter().enumerate() {
            if let Err(reason) = hosts.insert(domain, i as u32) {
                compilation.refuse(resource, path(&format!("domains[{d}]")), reason);
            }
        }
    }
    hosts
}

/// Clusters that any of the virtual hosts names, each once.
fn references(virtual_hosts: &[Arc<VirtualHost>]) -> Box<[ClusterId]> {
    let mut all: Vec<ClusterId> = virtual_hosts.iter().flat_map(|h| h.references.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    all.into()
}

/// The table of the same number in the previous snapshot.
struct Predecessor<'p> {
    table: &'p RouteTable,
    /// Its virtual hosts by name; empty where those of the new table stand at the same places.
    by_name: HashMap<&'p str, usize>,
    /// Names, domains and their order are the same.
    same_index: bool,
}

impl<'p> Predecessor<'p> {
    /// `None` where the levels above virtual hosts differ: then nothing can be shared.
    fn new(compilation: &Compilation<'p>, place: &Place<'_>, new: &config::RouteConfig) -> Option<Self> {
        let table = compilation.previous?.tables.entry(place.number)?;
        let same_levels = table.config.headers == new.headers
            && table.config.mirrors == new.mirrors
            && table.config.filters == new.filters
            && table.config.most_specific_header_mutations_wins == new.most_specific_header_mutations_wins;
        if !same_levels {
            return None;
        }
        let (old_hosts, new_hosts) = (&table.config.virtual_hosts, &new.virtual_hosts);
        let pairs = || old_hosts.iter().zip(new_hosts);
        let same_places =
            old_hosts.len() == new_hosts.len() && pairs().all(|(a, b)| a.is(b) || a.name == b.name);
        let same_index = same_places
            && table.config.ignore_port_in_host_matching == new.ignore_port_in_host_matching
            && pairs().all(|(a, b)| a.is(b) || a.domains == b.domains);
        let by_name = match same_places {
            true => HashMap::new(),
            false => old_hosts.iter().enumerate().map(|(i, h)| (h.name.as_str(), i)).collect(),
        };
        Some(Self { table, by_name, same_index })
    }

    /// Its index of domains, where that holds for the new table too.
    fn hosts(&self) -> Option<Arc<HostIndex>> {
        self.same_index.then(|| self.table.hosts.clone())
    }

    /// The compiled form of a virtual host that did not change, which stands at place `i` now.
    fn unchanged(&self, i: usize, host: &config::Shared<config::VirtualHost>) -> Option<Arc<VirtualHost>> {
        let at = if self.by_name.is_empty() { i } else { *self.by_name.get(host.name.as_str())? };
        let old = self.table.config.virtual_hosts.get(at)?;
        if old.is(host) {
            return self.table.virtual_hosts.get(at).cloned();
        }
        // Domains belong to the table's index, not to the compiled virtual host.
        let same = old.routes == host.routes
            && old.headers == host.headers
            && old.require_tls == host.require_tls
            && old.retry_policy == host.retry_policy
            && old.include_request_attempt_count == host.include_request_attempt_count
            && old.include_attempt_count_in_response == host.include_attempt_count_in_response
            && old.per_request_buffer_limit_bytes == host.per_request_buffer_limit_bytes
            && old.mirrors == host.mirrors
            && old.filters == host.filters
            && old.rate_limits == host.rate_limits;
        if same { self.table.virtual_hosts.get(at).cloned() } else { None }
    }
}

/// Header edits of the levels above, and what they say of filters.
pub(super) struct Above {
    pub(super) level: Level,
    specific_wins: bool,
    /// What HTTP filters do, as the levels above have it.
    pub(super) filters: RouteFilters,
}

impl Above {
    pub(super) fn none() -> Self {
        Self { level: Level::default(), specific_wins: false, filters: RouteFilters::default() }
    }

    pub(super) fn with(&self, level: &Level) -> Self {
        Self {
            level: level.under(&self.level, self.specific_wins),
            specific_wins: self.specific_wins,
            filters: self.filters.clone(),
        }
    }
}

pub(super) fn level(
    compilation: &mut Compilation<'_>,
    resource: &str,
    prefix: &str,
    from: &config::HeaderEdits,
) -> Level {
    if from.is_empty() {
        return Level::default();
    }
    Level::new(from, &mut |field, reason| compilation.refuse(resource, format!("{prefix}{field}"), reason))
}

fn virtual_host(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    host: &config::VirtualHost,
    above: &Above,
    mirrors: &Arc<[MirrorTarget]>,
) -> Arc<VirtualHost> {
    let level = level(compilation, resource, &format!("{path}."), &host.headers);
    let above = above.with(&level);
    let defaults = HostDefaults {
        retry: host
            .retry_policy
            .as_ref()
            .and_then(|r| retry(compilation, resource, &format!("{path}.retry_policy"), r)),
        filters: filters::overrides(compilation, resource, path, host.filters.as_ref(), &above.filters),
        rate_limits: filters::rate_limits(compilation, resource, path, &host.rate_limits),
        buffer: host.per_request_buffer_limit_bytes,
        mirrors: match host.mirrors.as_slice() {
            [] => mirrors.clone(),
            own => actions::mirrors(compilation, resource, &format!("{path}.request_mirror_policies"), own),
        },
        above,
    };
    let mut routes = Vec::with_capacity(host.routes.len());
    let mut references = Vec::new();
    for (i, from) in host.routes.iter().enumerate() {
        let path = format!("{path}.routes[{i}]");
        if let Some(route) = route(compilation, resource, &path, from, &defaults) {
            if let Action::Forward(forward) = &route.action {
                references.extend(choice_references(&forward.choice));
                references.extend(forward.mirrors.iter().filter_map(MirrorTarget::reference));
            }
            routes.push(Arc::new(route));
        }
    }
    references.sort_unstable();
    references.dedup();
    let sensitive = host.routes.iter().map(|r| r.matches.case_sensitive);
    let paths = PathIndex::new(routes.iter().map(|r| &r.path).zip(sensitive));
    Arc::new(VirtualHost {
        name: host.name.as_str().into(),
        include_request_attempt_count: host.include_request_attempt_count,
        include_attempt_count_in_response: host.include_attempt_count_in_response,
        routes: routes.into(),
        paths,
        tls_redirect: host.require_tls.then(|| Arc::new(tls_redirect(&defaults))),
        references: references.into(),
    })
}

/// What routes take from their virtual host.
pub(super) struct HostDefaults {
    pub(super) retry: Option<Arc<RetryPolicy>>,
    pub(super) mirrors: Arc<[MirrorTarget]>,
    pub(super) filters: RouteFilters,
    rate_limits: Arc<[RateLimitRule]>,
    buffer: Option<u32>,
    above: Above,
}

/// The rule for plaintext requests to a virtual host that requires TLS. Source: Envoy: `require_tls`.
fn tls_redirect(defaults: &HostDefaults) -> Route {
    let redirect = Redirect {
        status: 301,
        scheme: Some(b"https".as_slice().into()),
        host: None,
        port: None,
        path: None,
        path_rewrite: None,
        strip_query: false,
        keeps_authority: true,
    };
    Route {
        name: "".into(),
        action: Action::Redirect(redirect),
        request_edits: Edits::default(),
        // Those of the virtual host do not hold for it (Envoy).
        response_edits: Edits::default(),
        filters: defaults.filters.clone(),
        rate_limits: RateLimitRules { route: Arc::default(), virtual_host: defaults.rate_limits.clone() },
        per_request_buffer_limit_bytes: None,
        decorator: None,
        tracing: None,
        path: PathMatcher::Prefix(Box::default()),
        criteria: Criteria::default(),
    }
}

fn route(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::Route,
    defaults: &HostDefaults,
) -> Option<Route> {
    let level = level(compilation, resource, &format!("{path}."), &from.headers);
    let above = defaults.above.with(&level);
    let criteria = criteria(compilation, resource, &format!("{path}.match"), &from.matches);
    let matcher = PathMatcher::new(&from.matches.path);
    let matcher = kept(compilation, resource, || format!("{path}.match"), matcher);
    let filters = filters::overrides(compilation, resource, path, from.filters.as_ref(), &defaults.filters);
    let above = Above { filters: filters.clone(), ..above };
    let action = actions::action(compilation, resource, path, &from.action, &above, defaults);
    if let (Some(matcher), Some(action)) = (&matcher, &action) {
        variables_are_there(compilation, resource, path, matcher, action);
    }
    let route_limits = match &from.action {
        config::Action::Forward(forward) => {
            filters::rate_limits(compilation, resource, &format!("{path}.route"), &forward.rate_limits)
        }
        config::Action::Redirect(_) | config::Action::Direct(_) => Arc::default(),
    };
    Some(Route {
        rate_limits: RateLimitRules { route: route_limits, virtual_host: defaults.rate_limits.clone() },
        name: from.name.as_str().into(),
        action: action?,
        request_edits: above.level.request.clone(),
        response_edits: above.level.response.clone(),
        filters,
        per_request_buffer_limit_bytes: from.per_request_buffer_limit_bytes.or(defaults.buffer),
        decorator: from.decorator.as_deref().map(Into::into),
        tracing: from.tracing.as_ref().map(|tracing| {
            Box::new(RouteTracing::new(tracing, &mut |field, reason| {
                compilation.refuse(resource, format!("{path}.tracing.{field}"), reason);
            }))
        }),
        path: matcher?,
        criteria,
    })
}

/// Refuses a rewrite by variables that the route's path has not.
fn variables_are_there(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    matcher: &PathMatcher,
    action: &Action,
) {
    let Action::Forward(forward) = action else { return };
    let Some(PathRewriter::Template(rewrite)) = &forward.path_rewrite else { return };
    let checked = match matcher {
        PathMatcher::Template(template) => rewrite.check(template),
        _ => Err("needs a route that is matched by a URI template".into()),
    };
    if let Err(reason) = checked {
        compilation.refuse(resource, format!("{path}.route.path_rewrite_policy"), reason);
    }
}

/// Keeps a value, or refuses it.
pub(super) fn kept<T>(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: impl FnOnce() -> String,
    value: Result<T, String>,
) -> Option<T> {
    value.map_err(|reason| compilation.refuse(resource, path(), reason)).ok()
}

pub(super) fn criteria(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::RouteMatch,
) -> Criteria {
    let headers = from.headers.iter().enumerate().filter_map(|(i, h)| {
        kept(compilation, resource, || format!("{path}.headers[{i}]"), HeaderMatcher::for_request(h))
    });
    let headers = headers.collect();
    let query = from.query.iter().enumerate().filter_map(|(i, q)| {
        kept(compilation, resource, || format!("{path}.query_parameters[{i}]"), QueryMatcher::new(q))
    });
    let query = query.collect();
    let metadata = from.metadata.iter().enumerate().filter_map(|(i, m)| {
        kept(compilation, resource, || format!("{path}.dynamic_metadata[{i}]"), MetadataMatcher::new(m))
    });
    let metadata = metadata.collect();
    Criteria { headers, query, grpc: from.grpc, fraction: from.fraction, tls: from.tls, metadata }
}
