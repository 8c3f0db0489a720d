//! Routes of connections.

use std::collections::BTreeMap;

use super::{Destination, read_destinations, read_weight};
use crate::resource::document::is_host_pattern;
use crate::resource::read::{Fields, Node};
use crate::resource::shape;

/// A rule for connections.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpRoute {
    /// Any of these; empty: all.
    pub matches: Vec<Layer4Match>,
    /// Where to.
    pub route: Vec<RouteDestination>,
}

/// A rule for TLS connections, by the name the client asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsRoute {
    /// Any of these; at least one.
    pub matches: Vec<TlsMatch>,
    /// Where to.
    pub route: Vec<RouteDestination>,
}

/// Which connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer4Match {
    /// Port of the service.
    pub port: Option<u16>,
    /// Instead of the VirtualService's own list.
    pub gateways: Vec<String>,
    /// Labels of the caller.
    pub source_labels: BTreeMap<String, String>,
    /// Namespace of the caller.
    pub source_namespace: Option<String>,
}

/// Which TLS connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsMatch {
    /// Names asked for; `*.suffix` is understood.
    pub sni_hosts: Vec<String>,
    /// The rest.
    pub base: Layer4Match,
}

/// A share of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Share of the sum, above 0.
    pub weight: u32,
}

impl TcpRoute {
    pub(super) fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::TCP_ROUTE, |f| Self {
            matches: f.list("match").iter().filter_map(|n| n.message(&shape::L4_MATCH, read_match)).collect(),
            route: read_route(f),
        })
    }
}

impl TlsRoute {
    pub(super) fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::TLS_ROUTE, |f| {
            let nodes = f.required("match").map(|n| n.list()).unwrap_or_default();
            let read = |n: &Node<'_>| {
                n.message(&shape::TLS_MATCH, |f| {
                    let sni_hosts: Vec<String> =
                        f.texts("sniHosts").iter().map(|h| h.to_ascii_lowercase()).collect();
                    if sni_hosts.is_empty() {
                        f.problem("sniHosts", "must name at least one host");
                    }
                    for host in sni_hosts.iter().filter(|h| !is_host_pattern(h)) {
                        f.problem("sniHosts", format!("{host:?} is no host name"));
                    }
                    TlsMatch { sni_hosts, base: read_match(f) }
                })
            };
            Self { matches: nodes.iter().filter_map(read).collect(), route: read_route(f) }
        })
    }
}

fn read_match(f: &Fields<'_>) -> Layer4Match {
    Layer4Match {
        port: f.field("port").map(|n| n.port()),
        gateways: f.texts("gateways"),
        source_labels: f.texts_by_key("sourceLabels"),
        source_namespace: f.field("sourceNamespace").map(|n| n.name()),
    }
}

fn read_route(f: &Fields<'_>) -> Vec<RouteDestination> {
    if f.list("route").is_empty() {
        f.problem("route", "must name at least one destination");
    }
    let read = |n: &Node<'_>| {
        n.message(&shape::ROUTE_DESTINATION, |f| {
            let destination = f.required("destination").and_then(|n| Destination::read(&n))?;
            Some(RouteDestination { destination, weight: read_weight(f) })
        })
        .flatten()
    };
    read_destinations(f, read, |d| &mut d.weight)
}
