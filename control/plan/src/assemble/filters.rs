//! HTTP filters that rules of VirtualServices need: a connection manager has those of which its routes speak.

use outrigger_traffic::config::{
    Config, FilterConfig, FilterOverride, FilterOverrides, HttpConnectionManager, HttpFilter, RouteConfig,
    RouteFilterConfig, RouteSource, Terminal,
};
use std::collections::{BTreeMap, BTreeSet};

use crate::node::{ApiListener, Flavour};
use crate::resource::virtual_service::HttpRoute;
use crate::scope::Scope;

/// Names of the filters, in the order in which they stand behind the authorization.
const CORS: &str = "envoy.filters.http.cors";
const FAULT: &str = "envoy.filters.http.fault";

/// What a rule says of filters. A client of gRPC is no browser and knows nothing of origins.
pub(super) fn of_rule(scope: &Scope<'_>, rule: &HttpRoute) -> Option<FilterOverrides> {
    let mut found = FilterOverrides::new();
    if let Some(fault) = &rule.fault {
        found.insert(FAULT.into(), FilterOverride::with(RouteFilterConfig::Fault(Box::new(fault.clone()))));
    }
    if let Some(cors) = rule.cors.as_ref().filter(|_| scope.node.flavour != Flavour::Grpc) {
        found.insert(CORS.into(), FilterOverride::with(RouteFilterConfig::Cors(Box::new(cors.clone()))));
    }
    (!found.is_empty()).then_some(found)
}

/// Gives every connection manager the filters of which its routes speak. They do nothing for other routes.
pub(super) fn complete(scope: &Scope<'_>, config: &mut Config, api_listeners: &mut [ApiListener]) {
    let named: BTreeMap<String, BTreeSet<String>> =
        config.route_configs.iter().map(|table| (table.name.clone(), spoken_of(table))).collect();
    let managers = config.listeners.iter_mut().flat_map(|listener| {
        let chains = listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain);
        chains.filter_map(|chain| match &mut chain.terminal {
            Terminal::Http(http) => Some(http),
            _ => None,
        })
    });
    for http in managers {
        add(scope, &named, http);
    }
    for listener in api_listeners {
        add(scope, &named, &mut listener.http);
    }
}

fn add(scope: &Scope<'_>, named: &BTreeMap<String, BTreeSet<String>>, http: &mut HttpConnectionManager) {
    let own;
    let spoken = match &http.routes {
        RouteSource::Named(name) => named.get(name),
        // No planner makes scopes.
        RouteSource::Scoped(_) => None,
        RouteSource::Inline(table) => {
            own = spoken_of(table);
            Some(&own)
        }
    };
    for (name, config) in [(CORS, FilterConfig::Cors), (FAULT, FilterConfig::Fault(Box::default()))] {
        if spoken.is_some_and(|names| names.contains(name)) {
            let mut filter = HttpFilter::new(name, config);
            // Clients of gRPC do not know the word; there it does nothing where no route says otherwise.
            filter.disabled = scope.node.flavour != Flavour::Grpc;
            http.http_filters.push(filter);
        }
    }
}

fn spoken_of(table: &RouteConfig) -> BTreeSet<String> {
    let routes = table.virtual_hosts.iter().flat_map(|host| &host.routes);
    routes.filter_map(|route| route.filters.as_ref()).flat_map(|filters| filters.keys().cloned()).collect()
}
