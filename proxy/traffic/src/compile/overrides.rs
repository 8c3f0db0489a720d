//! What routes override must be there: an override of a filter that does not exist would be in effect nowhere, and a
//! rule that somebody relies on must not vanish like that.

use super::{Compilation, listeners};
use crate::config::{
    Action, ClusterChoice, Config, FilterOverride, FilterOverrides, HttpConnectionManager, RouteConfig,
    RouteSource, ScopeTable, Terminal,
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
                RouteSource::Scoped(scoped) => {
                    for scope in &scoped.scopes {
                        match &scope.table {
                            ScopeTable::Named(name) => {
                                let Some(overridden) = tables.get(name.as_str()) else { continue };
                                let resource = format!("route_config/{name}");
                                refuse_unknown(compilation, &resource, "", http, overridden);
                            }
                            ScopeTable::Inline(table) => {
                                let resource = format!("listener/{}", listener.name);
                                let prefix = format!("scoped_routes[{}].route_configuration.", scope.name);
                                refuse_unknown(compilation, &resource, &prefix, http, &overridden(table));
                            }
                        }
                    }
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

/// An override, and where it stands.
struct Overridden<'c> {
    path: String,
    filter: &'c str,
    word: &'c FilterOverride,
}

fn refuse_unknown(
    compilation: &mut Compilation<'_>,
    resource: &str,
    prefix: &str,
    http: &HttpConnectionManager,
    overridden: &[Overridden<'_>],
) {
    for Overridden { path, filter, word } in overridden {
        let found = http.http_filters.iter().find(|one| one.name == *filter);
        let reason = match (found, word) {
            (None, _) => format!("no filter of `{}` has this name", http.stat_prefix),
            (Some(one), FilterOverride::With(settings)) if !one.config.takes(settings) => {
                format!("the filter of this name of `{}` is of another kind", http.stat_prefix)
            }
            _ => continue,
        };
        compilation.refuse(resource, format!("{prefix}{path}typed_per_filter_config[{filter}]"), reason);
    }
}

/// Everything that a table overrides.
fn overridden(table: &RouteConfig) -> Vec<Overridden<'_>> {
    let mut found = Vec::new();
    level(&mut found, &|| String::new(), &table.filters);
    for (i, host) in table.virtual_hosts.iter().enumerate() {
        level(&mut found, &|| format!("virtual_hosts[{i}]."), &host.filters);
        for (r, route) in host.routes.iter().enumerate() {
            let path = || format!("virtual_hosts[{i}].routes[{r}].");
            level(&mut found, &path, &route.filters);
            let Action::Forward(action) = &route.action else { continue };
            let ClusterChoice::Weighted(shares) = &action.cluster else { continue };
            for (s, share) in shares.iter().enumerate() {
                let path = || format!("{}route.weighted_clusters.clusters[{s}].", path());
                level(&mut found, &path, &share.filters);
            }
        }
    }
    found
}

fn level<'c>(found: &mut Vec<Overridden<'c>>, path: &dyn Fn() -> String, words: &'c Option<FilterOverrides>) {
    for (filter, word) in words.iter().flatten() {
        found.push(Overridden { path: path(), filter, word });
    }
}
