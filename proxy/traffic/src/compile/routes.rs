//! Route tables.

use super::Compilation;
use crate::authz::CompiledRbac;
use crate::config::{self, Config, ConfigError};
use crate::retry::RetryPolicy;
use crate::route::edits::Level;
use crate::route::split::Share;
use crate::route::{
    Action, Choice, Criteria, Direct, Edits, Forward, HeaderMatcher, HostIndex, HostRewriter, PathIndex,
    PathMatcher, PathRewriter, QueryMatcher, RbacOverride, Redirect, Route, RouteTable, VirtualHost,
};
use crate::snapshot::ClusterId;
use std::collections::HashMap;
use std::sync::Arc;

/// Source: Envoy: `max_direct_response_body_size_bytes`.
const DIRECT_BODY_MAX: usize = 4096;

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
                        check(format!("{path}.weighted_clusters.clusters[{i}].name"), &share.name);
                    }
                }
                config::ClusterChoice::Header(_) => {}
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
    let mut hosts = HostIndex::new(table.ignore_port_in_host_matching);
    let mut names = HashMap::with_capacity(table.virtual_hosts.len());
    let old = Predecessor::new(compilation, place, table);
    let mut virtual_hosts = Vec::with_capacity(table.virtual_hosts.len());
    for (i, host) in table.virtual_hosts.iter().enumerate() {
        let path = format!("{prefix}virtual_hosts[{i}]");
        if host.name.is_empty() {
            compilation.refuse(resource, format!("{path}.name"), "must not be empty");
        }
        if let Some(other) = names.insert(host.name.as_str(), i) {
            let reason = format!("`{}` is the name of virtual_hosts[{other}] as well", host.name);
            compilation.refuse(resource, format!("{path}.name"), reason);
        }
        if host.domains.is_empty() {
            compilation.refuse(resource, format!("{path}.domains"), "must not be empty");
        }
        for (d, domain) in host.domains.iter().enumerate() {
            if let Err(reason) = hosts.insert(domain, i as u32) {
                compilation.refuse(resource, format!("{path}.domains[{d}]"), reason);
            }
        }
        virtual_hosts.push(match old.as_ref().and_then(|o| o.unchanged(host)) {
            Some(same) => same,
            None => {
                let above =
                    Above { level: level.clone(), specific_wins: table.most_specific_header_mutations_wins };
                virtual_host(compilation, resource, &path, host, &above)
            }
        });
    }
    let mut references: Vec<_> = virtual_hosts.iter().flat_map(|h| h.references.iter().copied()).collect();
    references.sort_unstable();
    references.dedup();
    let table = RouteTable {
        config: Arc::new(table.clone()),
        hosts,
        virtual_hosts: virtual_hosts.into(),
        references: references.into(),
    };
    validate_references(compilation, &table, resource, prefix);
    (compilation.errors.len() == errors_before).then(|| Arc::new(table))
}

/// The table of the same number in the previous snapshot.
struct Predecessor<'p> {
    table: &'p RouteTable,
    by_name: HashMap<&'p str, usize>,
}

impl<'p> Predecessor<'p> {
    /// `None` where the levels above virtual hosts differ: then nothing can be shared.
    fn new(compilation: &Compilation<'p>, place: &Place<'_>, new: &config::RouteConfig) -> Option<Self> {
        let table = compilation.previous?.tables.entry(place.number)?;
        let same_levels = table.config.headers == new.headers
            && table.config.most_specific_header_mutations_wins == new.most_specific_header_mutations_wins;
        let by_name =
            table.config.virtual_hosts.iter().enumerate().map(|(i, h)| (h.name.as_str(), i)).collect();
        same_levels.then_some(Self { table, by_name })
    }

    fn unchanged(&self, host: &config::VirtualHost) -> Option<Arc<VirtualHost>> {
        let at = *self.by_name.get(host.name.as_str())?;
        let old = self.table.config.virtual_hosts.get(at)?;
        // Domains belong to the table's index, not to the compiled virtual host.
        let same = old.routes == host.routes
            && old.headers == host.headers
            && old.require_tls == host.require_tls
            && old.retry_policy == host.retry_policy
            && old.include_request_attempt_count == host.include_request_attempt_count
            && old.include_attempt_count_in_response == host.include_attempt_count_in_response
            && old.per_request_buffer_limit_bytes == host.per_request_buffer_limit_bytes
            && old.rbac == host.rbac;
        if same { self.table.virtual_hosts.get(at).cloned() } else { None }
    }
}

/// Header edits of the levels above.
pub(super) struct Above {
    level: Level,
    specific_wins: bool,
}

impl Above {
    pub(super) fn none() -> Self {
        Self { level: Level::default(), specific_wins: false }
    }

    fn with(&self, level: &Level) -> Self {
        Self { level: level.under(&self.level, self.specific_wins), specific_wins: self.specific_wins }
    }
}

fn level(
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
) -> Arc<VirtualHost> {
    let level = level(compilation, resource, &format!("{path}."), &host.headers);
    let above = above.with(&level);
    let defaults = HostDefaults {
        retry: host
            .retry_policy
            .as_ref()
            .and_then(|r| retry(compilation, resource, &format!("{path}.retry_policy"), r)),
        rbac: rbac_override(compilation, resource, path, host.rbac.as_ref(), &RbacOverride::Inherit),
        buffer: host.per_request_buffer_limit_bytes,
        above,
    };
    let mut routes = Vec::with_capacity(host.routes.len());
    let mut references = Vec::new();
    for (i, from) in host.routes.iter().enumerate() {
        let path = format!("{path}.routes[{i}]");
        if let Some(route) = route(compilation, resource, &path, from, &defaults) {
            if let Action::Forward(forward) = &route.action {
                references.extend(choice_references(&forward.choice));
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
struct HostDefaults {
    retry: Option<Arc<RetryPolicy>>,
    rbac: RbacOverride,
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
    };
    Route {
        name: "".into(),
        action: Action::Redirect(redirect),
        request_edits: Edits::default(),
        response_edits: defaults.above.level.response.clone(),
        rbac: defaults.rbac.clone(),
        per_request_buffer_limit_bytes: None,
        decorator: None,
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
    let action = match &from.action {
        config::Action::Forward(a) => {
            forward(compilation, resource, &format!("{path}.route"), a, &above, defaults)
                .map(|f| Action::Forward(Box::new(f)))
        }
        config::Action::Redirect(r) => {
            redirect(compilation, resource, &format!("{path}.redirect"), r).map(Action::Redirect)
        }
        config::Action::Direct(d) => {
            direct(compilation, resource, &format!("{path}.direct_response"), d).map(Action::Direct)
        }
    };
    let rbac = rbac_override(compilation, resource, path, from.rbac.as_ref(), &defaults.rbac);
    Some(Route {
        name: from.name.as_str().into(),
        action: action?,
        request_edits: above.level.request.clone(),
        response_edits: above.level.response.clone(),
        rbac,
        per_request_buffer_limit_bytes: from.per_request_buffer_limit_bytes.or(defaults.buffer),
        decorator: from.decorator.as_deref().map(Into::into),
        path: matcher?,
        criteria,
    })
}

/// Keeps a value, or refuses it.
fn kept<T>(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: impl FnOnce() -> String,
    value: Result<T, String>,
) -> Option<T> {
    value.map_err(|reason| compilation.refuse(resource, path(), reason)).ok()
}

fn criteria(
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
    Criteria { headers, query, grpc: from.grpc, fraction: from.fraction }
}

fn rbac_override(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: Option<&Option<config::Rbac>>,
    inherited: &RbacOverride,
) -> RbacOverride {
    match from {
        None => inherited.clone(),
        Some(None) => RbacOverride::Off,
        Some(Some(rbac)) => {
            let path = format!("{path}.typed_per_filter_config.rbac");
            RbacOverride::Replace(Arc::new(CompiledRbac::new(rbac, &mut |field, reason| {
                compilation.refuse(resource, format!("{path}.{field}"), reason);
            })))
        }
    }
}

fn retry(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::RetryPolicy,
) -> Option<Arc<RetryPolicy>> {
    match RetryPolicy::new(from) {
        Ok(policy) => Some(Arc::new(policy)),
        Err(errors) => {
            for (field, reason) in errors {
                compilation.refuse(resource, format!("{path}.{field}"), reason);
            }
            None
        }
    }
}

fn forward(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::RouteAction,
    above: &Above,
    defaults: &HostDefaults,
) -> Option<Forward> {
    let choice = choice(compilation, resource, path, &from.cluster, above);
    let path_rewrite = from
        .path_rewrite
        .as_ref()
        .and_then(|r| kept(compilation, resource, || format!("{path}.regex_rewrite"), PathRewriter::new(r)));
    let host_rewrite = from
        .host_rewrite
        .as_ref()
        .and_then(|r| kept(compilation, resource, || format!("{path}.host_rewrite"), HostRewriter::new(r)));
    if !(100..=599).contains(&from.cluster_not_found_status) {
        compilation.refuse(
            resource,
            format!("{path}.cluster_not_found_response_code"),
            "must be between 100 and 599",
        );
    }
    let retry = match &from.retry_policy {
        Some(policy) => retry(compilation, resource, &format!("{path}.retry_policy"), policy),
        None => defaults.retry.clone(),
    };
    for (i, upgrade) in from.upgrades.iter().enumerate() {
        if upgrade.upgrade_type.is_empty() {
            compilation.refuse(
                resource,
                format!("{path}.upgrade_configs[{i}].upgrade_type"),
                "must not be empty",
            );
        }
    }
    Some(Forward {
        choice: choice?,
        cluster_not_found_status: from.cluster_not_found_status,
        path_rewrite,
        host_rewrite,
        append_x_forwarded_host: from.append_x_forwarded_host,
        timeout: from.timeout,
        idle_timeout: from.idle_timeout,
        max_stream_duration: from.max_stream_duration,
        grpc_timeout_header_max: from.grpc_timeout_header_max,
        retry,
        upgrades: from.upgrades.as_slice().into(),
        high_priority: from.high_priority,
    })
}

/// A cluster choice; `above` are the edits of the levels above shares.
pub(super) fn choice(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::ClusterChoice,
    above: &Above,
) -> Option<Choice> {
    match from {
        config::ClusterChoice::Single(name) if name.is_empty() => {
            compilation.refuse(resource, format!("{path}.cluster"), "must not be empty");
            None
        }
        config::ClusterChoice::Single(name) => {
            Some(Choice::Single(ClusterId(compilation.clusters.number(name))))
        }
        config::ClusterChoice::Header(name) if name.is_empty() => {
            compilation.refuse(resource, format!("{path}.cluster_header"), "must not be empty");
            None
        }
        config::ClusterChoice::Header(name) => {
            Some(Choice::Header(name.to_ascii_lowercase().into_bytes().into()))
        }
        config::ClusterChoice::Weighted(shares) => {
            weighted(compilation, resource, &format!("{path}.weighted_clusters"), shares, above)
        }
    }
}

fn weighted(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &[config::WeightedCluster],
    above: &Above,
) -> Option<Choice> {
    let mut sum = 0u64;
    let mut shares = Vec::with_capacity(from.len());
    for (i, share) in from.iter().enumerate() {
        let path = format!("{path}.clusters[{i}]");
        if share.name.is_empty() {
            compilation.refuse(resource, format!("{path}.name"), "must not be empty");
        }
        sum += u64::from(share.weight);
        let level = level(compilation, resource, &format!("{path}."), &share.headers);
        let merged = above.with(&level).level;
        let host_rewrite = share.host_rewrite.as_ref().and_then(|h| {
            let rewrite = HostRewriter::new(&config::HostRewrite::Literal(h.clone()));
            kept(compilation, resource, || format!("{path}.host_rewrite_literal"), rewrite)
        });
        shares.push(Share {
            cluster: ClusterId(compilation.clusters.number(&share.name)),
            upper: u32::try_from(sum).unwrap_or(u32::MAX),
            request_edits: merged.request,
            response_edits: merged.response,
            host_rewrite,
        });
    }
    if sum == 0 || sum > u64::from(u32::MAX) {
        let reason = format!("the sum of weights is {sum}; it must be between 1 and 4294967295");
        compilation.refuse(resource, path, reason);
        return None;
    }
    Some(Choice::Weighted(shares.into()))
}

/// Clusters that a choice names.
pub(super) fn choice_references(choice: &Choice) -> impl Iterator<Item = ClusterId> + '_ {
    let (one, many) = match choice {
        Choice::Single(cluster) => (Some(*cluster), &[][..]),
        Choice::Weighted(shares) => (None, &**shares),
        Choice::Header(_) => (None, &[][..]),
    };
    one.into_iter().chain(many.iter().map(|s| s.cluster))
}

fn redirect(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::Redirect,
) -> Option<Redirect> {
    if !matches!(from.status, 301 | 302 | 303 | 307 | 308) {
        let reason = format!("{} is none of 301, 302, 303, 307, 308", from.status);
        compilation.refuse(resource, format!("{path}.response_code"), reason);
    }
    if from.path.is_some() && from.path_rewrite.is_some() {
        compilation.refuse(resource, format!("{path}.path_redirect"), "excludes a rewrite of the path");
    }
    let is_clean = |text: &str| text.bytes().all(|b| b > b' ' && b != 0x7f);
    for (name, text) in
        [("scheme_redirect", &from.scheme), ("host_redirect", &from.host), ("path_redirect", &from.path)]
    {
        if text.as_deref().is_some_and(|t| !is_clean(t)) {
            compilation.refuse(
                resource,
                format!("{path}.{name}"),
                "has a character that is not allowed in a URI",
            );
        }
    }
    let path_rewrite = match &from.path_rewrite {
        Some(r) => {
            Some(kept(compilation, resource, || format!("{path}.regex_rewrite"), PathRewriter::new(r))?)
        }
        None => None,
    };
    let bytes = |text: &Option<String>| text.as_ref().map(|t| t.as_bytes().into());
    Some(Redirect {
        status: from.status,
        scheme: bytes(&from.scheme),
        host: bytes(&from.host),
        port: from.port.map(|p| p.to_string().into_bytes().into()),
        path: bytes(&from.path),
        path_rewrite,
        strip_query: from.strip_query,
    })
}

fn direct(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::DirectResponse,
) -> Option<Direct> {
    if !(200..=599).contains(&from.status) {
        let reason = format!("{} is not between 200 and 599", from.status);
        compilation.refuse(resource, format!("{path}.status"), reason);
    }
    if from.body.len() > DIRECT_BODY_MAX {
        let reason = format!("{} bytes are more than {DIRECT_BODY_MAX}", from.body.len());
        compilation.refuse(resource, format!("{path}.body"), reason);
    }
    Some(Direct {
        status: from.status,
        body: from.body.as_slice().into(),
        content_type: from.content_type.as_deref().map(Into::into),
    })
}
