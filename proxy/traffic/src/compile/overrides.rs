//! What routes override must be there: an override of a filter that does not exist would be in effect nowhere, and a
//! rule that somebody relies on must not vanish like that.

use super::{Compilation, listeners};
use crate::config::{
    Config, HttpConnectionManager, HttpFilter, RbacOverrides, RouteConfig, RouteSource, Terminal,
};
use std::collections::HashMap;

/// Refuses overrides of filters that a connection manager with that table does not have.
pub(super) fn check(compilation: &mut Compilation<'_>, config: &Config) {
    let tables: HashMap<&str, _> =
        config.route_configs.iter().map(|t| (t.name.as_str(), overridden(t))).collect();
    for listener in &config.listeners {
        let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
        for (i, chain) in chains.enumerate() {
            let Terminal::Http(http) = &chain.terminal else { continue };
            match &http.routes {
                RouteSource::Named(name) => {
                    let Some(overridden) = tables.get(name.as_str()) else { continue };
                    let resource = format!("route_config/{name}");
                    refuse_unknown(compilation, &resource, "", http, overridden);
                }
                RouteSource::Inline(table) => {
                    let overridden = overridden(table);
                    if overridden.is_empty() {
                        continue;
                    }
                    let path = listeners::terminal_path(&listeners::chain_path(listener, i), chain);
                    let resource = format!("listener/{}", listener.name);
                    refuse_unknown(
                        compilation,
                        &resource,
                        &format!("{path}.route_config."),
                        http,
                        &overridden,
                    );
                }
            }
        }
    }
}

fn refuse_unknown(
    compilation: &mut Compilation<'_>,
    resource: &str,
    prefix: &str,
    http: &HttpConnectionManager,
    overridden: &[(String, &str)],
) {
    for (path, filter) in overridden {
        if !http.http_filters.iter().any(|HttpFilter::Rbac { name, .. }| name == filter) {
            let reason = format!("no RBAC filter of `{}` has this name", http.stat_prefix);
            compilation.refuse(resource, format!("{prefix}{path}.typed_per_filter_config[{filter}]"), reason);
        }
    }
}

/// Names of overridden filters, and where they are overridden.
fn overridden(table: &RouteConfig) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    for (i, host) in table.virtual_hosts.iter().enumerate() {
        found.extend(names(&host.rbac).map(|name| (format!("virtual_hosts[{i}]"), name)));
        for (r, route) in host.routes.iter().enumerate() {
            found.extend(names(&route.rbac).map(|name| (format!("virtual_hosts[{i}].routes[{r}]"), name)));
        }
    }
    found
}

fn names(overrides: &Option<RbacOverrides>) -> impl Iterator<Item = &str> {
    overrides.iter().flatten().map(|(name, _)| name.as_str())
}
