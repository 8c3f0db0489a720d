//! Listeners, filter chains, and the tables written inside connection managers.

use super::{Compilation, actions, filters, routes};
use crate::authz::CompiledRbac;
use crate::config::{
    self, AccessLog, AccessLogFormat, Config, LogFilter, NetworkFilter, RouteSource, ScopeTable, ScopedRoutes,
};
use crate::filter::HttpFilter;
use crate::listener::{ChainMatcher, FilterChain, HttpChain, Listener, TcpChain, Terminal, Tunnel};
use crate::route::{Edits, HeaderMatcher, Scopes};
use crate::snapshot::{Snapshot, TableId};
use crate::template::Template;
use crate::tracing;
use std::collections::HashMap;
use std::sync::Arc;

/// Source: Envoy: `max_request_headers_kb`.
const REQUEST_HEADERS_KB: std::ops::RangeInclusive<u32> = 1..=8192;

/// Filters of an access log may be nested this deep.
const LOG_FILTER_DEPTH_MAX: usize = 8;

pub(super) fn compile(compilation: &mut Compilation<'_>, config: &Config) {
    let mut seen = HashMap::with_capacity(config.listeners.len());
    let mut addresses = HashMap::new();
    for listener in &config.listeners {
        if !compilation.admit(&mut seen, "listener", &listener.name) {
            continue;
        }
        let resource = format!("listener/{}", listener.name);
        let all = std::iter::once(&listener.address).chain(&listener.additional_addresses);
        for (i, address) in all.enumerate() {
            // UDP and TCP do not get into each other's way.
            let is_udp = listener.dns.is_some() && i == 0;
            if address.port() != 0
                && let Some(other) = addresses.insert((*address, is_udp), &listener.name)
            {
                compilation.refuse(
                    &resource,
                    "address",
                    format!("`{address}` is taken by listener `{other}`"),
                );
            }
        }
        if !reuse(compilation, listener) {
            one(compilation, listener, &resource);
        }
    }
}

/// Takes an unchanged listener over from the previous snapshot, with the tables written in it.
fn reuse(compilation: &mut Compilation<'_>, listener: &config::Listener) -> bool {
    let Some(previous) = compilation.previous else { return false };
    let Some(old) = previous.listener(&listener.name).filter(|l| *l.config == *listener) else {
        return false;
    };
    for chain in &old.chains {
        match &chain.terminal {
            Terminal::Http(http) => {
                compilation.referenced_tables.insert(http.table.0);
                compilation
                    .referenced
                    .extend(http.filters.iter().flat_map(HttpFilter::clusters).map(|c| c.0));
                reuse_scopes(compilation, previous, &old.config, chain.index, http);
                if let RouteSource::Inline(_) = http.config.routes
                    && let Some(table) = previous.table(http.table)
                {
                    let path = format!(
                        "{}.route_config.",
                        terminal_path(&chain_path(&old.config, chain.index), &chain.config)
                    );
                    routes::validate_references(
                        compilation,
                        table,
                        &format!("listener/{}", listener.name),
                        &path,
                    );
                    compilation.tables.put(http.table.0, table.clone());
                }
            }
            Terminal::Tcp(tcp) => {
                compilation.referenced.extend(actions::choice_references(&tcp.choice).map(|c| c.0))
            }
        }
    }
    compilation.listeners.push(old.clone());
    true
}

/// The tables that are written in scopes go on, too.
fn reuse_scopes(
    compilation: &mut Compilation<'_>,
    previous: &Snapshot,
    listener: &config::Listener,
    index: usize,
    http: &HttpChain,
) {
    let (RouteSource::Scoped(scoped), Some(scopes)) = (&http.config.routes, &http.scopes) else { return };
    compilation.referenced_tables.extend(scopes.tables().map(|table| table.0));
    for scope in scoped.scopes.iter().filter(|scope| matches!(scope.table, ScopeTable::Inline(_))) {
        let number = compilation.tables.number(&scope_key(listener, index, &scope.name));
        if let Some(table) = previous.table(TableId(number)) {
            let resource = format!("listener/{}", listener.name);
            routes::validate_references(compilation, table, &resource, "scoped_routes.");
            compilation.tables.put(number, table.clone());
        }
    }
}

pub(super) fn chain_path(listener: &config::Listener, index: usize) -> String {
    if index < listener.filter_chains.len() {
        format!("filter_chains[{index}]")
    } else {
        "default_filter_chain".into()
    }
}

pub(super) fn terminal_path(chain_path: &str, chain: &config::FilterChain) -> String {
    format!("{chain_path}.filters[{}].typed_config", chain.network_filters.len())
}

fn one(compilation: &mut Compilation<'_>, listener: &config::Listener, resource: &str) {
    let errors_before = compilation.errors.len();
    let mut matchers: Vec<ChainMatcher> = Vec::with_capacity(listener.filter_chains.len());
    for (i, chain) in listener.filter_chains.iter().enumerate() {
        let matcher = ChainMatcher::new(&chain.matches, &mut |field, reason| {
            let path = format!("filter_chains[{i}].filter_chain_match.{field}");
            compilation.errors.push(config::ConfigError::new(resource, path, reason));
        });
        if let Some(other) = matchers.iter().position(|m| *m == matcher) {
            let path = format!("filter_chains[{i}].filter_chain_match");
            compilation.refuse(resource, path, format!("is the same as that of filter_chains[{other}]"));
        }
        matchers.push(matcher);
    }
    let has_default = listener.default_filter_chain.is_some();
    match &listener.dns {
        Some(dns) => dns_listener(compilation, listener, dns, resource),
        None if matchers.is_empty() && !has_default => {
            compilation.refuse(resource, "filter_chains", "must not be empty");
        }
        None => capture(compilation, listener, resource),
    }
    if listener.tcp_backlog_size == 0 {
        compilation.refuse(resource, "tcp_backlog_size", "must be above 0");
    }
    check_access_logs(compilation, resource, "", &listener.access_log);
    let all = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let chains: Vec<_> = all
        .enumerate()
        .filter_map(|(index, chain)| {
            let path = chain_path(listener, index);
            filter_chain(compilation, listener, resource, &path, index, chain)
        })
        .collect();
    if compilation.errors.len() > errors_before {
        return;
    }
    let needs_inspector = listener.tls_inspector || matchers.iter().any(ChainMatcher::needs_inspector);
    compilation.listeners.push(Arc::new(Listener {
        config: Arc::new(listener.clone()),
        chains: chains.into(),
        needs_inspector,
        matchers: matchers.into(),
        has_default,
    }));
}

/// What a listener of DNS must be.
fn dns_listener(
    compilation: &mut Compilation<'_>,
    listener: &config::Listener,
    dns: &config::DnsServer,
    resource: &str,
) {
    if !listener.filter_chains.is_empty() || listener.default_filter_chain.is_some() {
        compilation.refuse(resource, "filter_chains", "a listener of DNS has none");
    }
    if !listener.bind_to_port {
        compilation.refuse(resource, "bind_to_port", "a listener of DNS must be bound");
    }
    let path = "listener_filters.dns_filter";
    let mut seen = HashMap::with_capacity(dns.domains.len());
    for (i, domain) in dns.domains.iter().enumerate() {
        let at = format!("{path}.server_config.inline_dns_table.virtual_domains[{i}]");
        if !is_domain(&domain.name) {
            compilation.refuse(resource, format!("{at}.name"), format!("`{}` is not a name", domain.name));
        }
        if let Some(other) = seen.insert(domain.name.as_str(), i) {
            compilation.refuse(
                resource,
                format!("{at}.name"),
                format!("is that of virtual_domains[{other}]"),
            );
        }
        if domain.addresses.is_empty() {
            compilation.refuse(resource, format!("{at}.endpoint"), "at least one address is required");
        }
    }
    if let Some(forward) = &dns.forward {
        if forward.timeout.is_zero() {
            compilation.refuse(resource, format!("{path}.client_config.resolver_timeout"), "must be above 0");
        }
        if forward.max_pending == 0 {
            let at = format!("{path}.client_config.max_pending_lookups");
            compilation.refuse(resource, at, "must be at least 1");
        }
    }
}

/// A name of a DNS table: lower case, without a final dot; the first label may be `*`.
fn is_domain(name: &str) -> bool {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        // RFC 1035 section 2.3.4.
        (1..=63).contains(&label.len()) && label.bytes().all(fits)
    };
    name.len() <= 253 && rest.split('.').all(is_label)
}

/// What does not go together in capturing.
fn capture(compilation: &mut Compilation<'_>, listener: &config::Listener, resource: &str) {
    let mut refuse = |field: &str, reason: &str| compilation.refuse(resource, field, reason);
    if listener.use_original_dst {
        // Connections are handed over as they are accepted, before anything of them is read.
        if listener.proxy_protocol.is_some() {
            refuse("use_original_dst", "cannot be given together with the filter proxy_protocol");
        }
        if listener.forward_proxy.is_some() {
            refuse("use_original_dst", "cannot be given together with the filter forward_proxy");
        }
    }
    if listener.proxy_protocol.is_some() && listener.forward_proxy.is_some() {
        refuse("listener_filters", "proxy_protocol and forward_proxy do not go together");
    }
    if let Some(proxy) = &listener.proxy_protocol
        && proxy.disallow_v1
        && proxy.disallow_v2
    {
        refuse("listener_filters.proxy_protocol.disallowed_versions", "leaves no version");
    }
    if let Some(forward) = &listener.forward_proxy
        && !forward.connect
        && !forward.socks5
    {
        refuse("listener_filters.forward_proxy", "leaves no protocol");
    }
    if !listener.bind_to_port && listener.address.port() == 0 {
        refuse("bind_to_port", "a listener that is not bound needs a port");
    }
}

fn filter_chain(
    compilation: &mut Compilation<'_>,
    listener: &config::Listener,
    resource: &str,
    path: &str,
    index: usize,
    chain: &config::FilterChain,
) -> Option<Arc<FilterChain>> {
    if chain.transport_socket_connect_timeout.is_zero() {
        compilation.refuse(resource, format!("{path}.transport_socket_connect_timeout"), "must be above 0");
    }
    let mut network_rbac = Vec::new();
    for (i, filter) in chain.network_filters.iter().enumerate() {
        let NetworkFilter::Rbac(rbac) = filter;
        network_rbac.push(rules(compilation, resource, &format!("{path}.filters[{i}].typed_config"), rbac));
    }
    let typed = terminal_path(path, chain);
    let terminal = match &chain.terminal {
        config::Terminal::Http(http) => {
            Terminal::Http(http_chain(compilation, listener, resource, &typed, index, http)?)
        }
        config::Terminal::Tcp(tcp) => Terminal::Tcp(tcp_chain(compilation, resource, &typed, tcp)?),
    };
    Some(Arc::new(FilterChain { config: chain.clone(), index, network_rbac: network_rbac.into(), terminal }))
}

fn rules(compilation: &mut Compilation<'_>, resource: &str, path: &str, rbac: &config::Rbac) -> CompiledRbac {
    CompiledRbac::new(rbac, &mut |field, reason| {
        compilation.errors.push(config::ConfigError::new(resource, format!("{path}.{field}"), reason));
    })
}

fn http_chain(
    compilation: &mut Compilation<'_>,
    listener: &config::Listener,
    resource: &str,
    path: &str,
    index: usize,
    http: &config::HttpConnectionManager,
) -> Option<HttpChain> {
    check_http(compilation, resource, path, http);
    let filters = filters::chain(compilation, resource, path, &http.http_filters);
    let mut scopes = None;
    let number = match &http.routes {
        RouteSource::Scoped(scoped) => {
            scopes = Some(Box::new(scoped_tables(compilation, listener, resource, path, index, scoped)?));
            // A table that never is.
            compilation.tables.number(&format!("scoped/{index}/{}", listener.name))
        }
        RouteSource::Named(name) => {
            if name.is_empty() {
                compilation.refuse(resource, format!("{path}.rds.route_config_name"), "must not be empty");
            }
            compilation.tables.number(&routes::named_key(name))
        }
        RouteSource::Inline(table) => {
            let number = compilation.tables.number(&format!("inline/{index}/{}", listener.name));
            let place = routes::Place { resource, prefix: &format!("{path}.route_config."), number };
            let table = routes::compile_table(compilation, &place, table)?;
            compilation.tables.put(number, table);
            number
        }
    };
    compilation.referenced_tables.insert(number);
    Some(HttpChain { config: Arc::new(http.clone()), table: TableId(number), scopes, filters })
}

/// The tables of scopes, each under the key of its requests.
fn scoped_tables(
    compilation: &mut Compilation<'_>,
    listener: &config::Listener,
    resource: &str,
    path: &str,
    index: usize,
    scoped: &ScopedRoutes,
) -> Option<Scopes> {
    let mut scopes = Scopes::new(&scoped.key);
    if scoped.key.is_empty() {
        let path = format!("{path}.scoped_routes.scope_key_builder.fragments");
        compilation.refuse(resource, path, "at least one is required");
    }
    for scope in &scoped.scopes {
        let path = format!("{path}.scoped_routes[{}]", scope.name);
        let number = match &scope.table {
            ScopeTable::Named(name) => compilation.tables.number(&routes::named_key(name)),
            ScopeTable::Inline(table) => {
                let number = compilation.tables.number(&scope_key(listener, index, &scope.name));
                let prefix = format!("{path}.route_configuration.");
                let place = routes::Place { resource, prefix: &prefix, number };
                let table = routes::compile_table(compilation, &place, table)?;
                compilation.tables.put(number, table);
                number
            }
        };
        compilation.referenced_tables.insert(number);
        if !scopes.insert(&scope.key, TableId(number)) {
            compilation.refuse(resource, format!("{path}.key"), "is that of another scope, too");
        }
    }
    Some(scopes)
}

fn scope_key(listener: &config::Listener, index: usize, scope: &str) -> String {
    format!("scope/{index}/{}/{scope}", listener.name)
}

fn check_http(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    http: &config::HttpConnectionManager,
) {
    let mut refuse =
        |field: &str, reason: &str| compilation.refuse(resource, format!("{path}.{field}"), reason);
    if !REQUEST_HEADERS_KB.contains(&http.max_request_headers_kb) {
        refuse("max_request_headers_kb", "must be between 1 and 8192");
    }
    if http.max_headers_count == 0 {
        refuse("common_http_protocol_options.max_headers_count", "must be at least 1");
    }
    if http.max_requests_per_connection == Some(0) {
        refuse("common_http_protocol_options.max_requests_per_connection", "must be at least 1");
    }
    for (name, window) in [
        ("initial_stream_window_size", http.http2.initial_stream_window_size),
        ("initial_connection_window_size", http.http2.initial_connection_window_size),
    ] {
        if !(65_535..=0x7fff_ffff).contains(&window) {
            refuse(&format!("http2_protocol_options.{name}"), "must be between 65535 and 2147483647");
        }
    }
    if http.http2.max_concurrent_streams == 0 {
        refuse("http2_protocol_options.max_concurrent_streams", "must be at least 1");
    }
    let is_text = |text: &str| text.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f));
    for (name, text) in [("server_name", &http.server_name), ("via", &http.via)] {
        if !is_text(text) {
            refuse(name, "has a character that is not allowed in a header");
        }
    }
    check_access_logs(compilation, resource, &format!("{path}."), &http.access_log);
    if let Some(tracing) = &http.tracing {
        check_tracing(compilation, resource, path, tracing);
    }
}

fn tcp_chain(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    tcp: &config::TcpProxy,
) -> Option<TcpChain> {
    if tcp.max_connect_attempts == 0 {
        compilation.refuse(resource, format!("{path}.max_connect_attempts"), "must be at least 1");
    }
    check_access_logs(compilation, resource, &format!("{path}."), &tcp.access_log);
    if let config::ClusterChoice::Header(_) = tcp.cluster {
        compilation.refuse(resource, path, "a TCP proxy cannot take the cluster from a header");
        return None;
    }
    let levels = routes::Above::none();
    let choice = actions::choice(compilation, resource, path, &tcp.cluster, &[], &levels)?;
    compilation.referenced.extend(actions::choice_references(&choice).map(|c| c.0));
    let tunnel = tcp.tunnel.as_ref().and_then(|from| tunnel(compilation, resource, path, from));
    Some(TcpChain { config: Arc::new(tcp.clone()), choice, tunnel: tunnel.map(Box::new) })
}

/// The request that carries the connections of a TCP proxy.
fn tunnel(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::Tunnel,
) -> Option<Tunnel> {
    let path = format!("{path}.tunneling_config");
    if from.hostname.is_empty() {
        compilation.refuse(resource, format!("{path}.hostname"), "must not be empty");
    }
    if from.post_path.as_ref().is_some_and(|post| !post.starts_with('/')) {
        compilation.refuse(resource, format!("{path}.post_path"), "must begin with a slash");
    }
    let headers = Edits::of_level("headers_to_add", &from.headers, &mut |at, reason| {
        compilation.refuse(resource, format!("{path}.{at}"), reason);
    });
    match Template::parse(&from.hostname) {
        Ok(authority) => {
            let post_path = from.post_path.as_ref().map(|post| post.as_bytes().into());
            Some(Tunnel { authority, post_path, headers })
        }
        Err(reason) => {
            compilation.refuse(resource, format!("{path}.hostname"), reason);
            None
        }
    }
}

/// Header criteria must compile; what is combined is at least two.
fn check_log_filter(compilation: &mut Compilation<'_>, resource: &str, path: &str, filter: &LogFilter) {
    let mut open = vec![(path.to_owned(), filter, 0)];
    while let Some((path, filter, depth)) = open.pop() {
        match filter {
            LogFilter::And(parts) | LogFilter::Or(parts) => {
                if parts.len() < 2 || depth >= LOG_FILTER_DEPTH_MAX {
                    let reason =
                        format!("needs at least two filters, nested at most {LOG_FILTER_DEPTH_MAX} deep");
                    compilation.refuse(resource, path, reason);
                    continue;
                }
                let parts = parts.iter().enumerate();
                open.extend(parts.map(|(i, part)| (format!("{path}.filters[{i}]"), part, depth + 1)));
            }
            LogFilter::Header(header) => {
                if let Err(reason) = HeaderMatcher::for_request(header) {
                    compilation.refuse(resource, format!("{path}.header_filter.header"), reason);
                }
            }
            LogFilter::Status(_)
            | LogFilter::Duration(_)
            | LogFilter::NotHealthCheck
            | LogFilter::Share(_)
            | LogFilter::Flags(_)
            | LogFilter::GrpcStatus { .. }
            | LogFilter::Kind { .. } => {}
        }
    }
}

/// Tags and names of spans.
fn check_tracing(compilation: &mut Compilation<'_>, resource: &str, path: &str, from: &config::Tracing) {
    let mut refuse = |field: String, reason: String| {
        compilation.refuse(resource, format!("{path}.tracing.{field}"), reason);
    };
    tracing::tags(&from.spans.tags, &mut refuse);
    tracing::operation(&from.spans.operation, "operation", &mut refuse);
    tracing::operation(&from.spans.upstream_operation, "upstream_operation", &mut refuse);
}

/// Formats are parsed again where they are rendered; here they are refused in time.
fn check_access_logs(compilation: &mut Compilation<'_>, resource: &str, prefix: &str, logs: &[AccessLog]) {
    for (i, log) in logs.iter().enumerate() {
        if let Some(filter) = &log.filter {
            check_log_filter(compilation, resource, &format!("{prefix}access_log[{i}].filter"), filter);
        }
        let path = format!("{prefix}access_log[{i}].typed_config.log_format");
        match &log.format {
            AccessLogFormat::Default => {}
            AccessLogFormat::Text(text) | AccessLogFormat::TextOmitting(text) => {
                if let Err(reason) = Template::parse(text) {
                    compilation.refuse(resource, path, reason);
                }
            }
            AccessLogFormat::Json(object) | AccessLogFormat::JsonOmitting(object) => {
                // A list instead of recursion: the depth of a configuration is not ours.
                let mut open: Vec<(String, &serde_json::Value)> =
                    object.iter().map(|(k, v)| (format!("{path}.json_format.{k}"), v)).collect();
                while let Some((path, value)) = open.pop() {
                    match value {
                        serde_json::Value::String(text) => {
                            if let Err(reason) = Template::parse(text) {
                                compilation.refuse(resource, path, reason);
                            }
                        }
                        serde_json::Value::Object(inner) => {
                            open.extend(inner.iter().map(|(k, v)| (format!("{path}.{k}"), v)));
                        }
                        serde_json::Value::Array(items) => {
                            open.extend(items.iter().enumerate().map(|(i, v)| (format!("{path}[{i}]"), v)));
                        }
                        serde_json::Value::Null
                        | serde_json::Value::Bool(_)
                        | serde_json::Value::Number(_) => {}
                    }
                }
            }
        }
    }
}
