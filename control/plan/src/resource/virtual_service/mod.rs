//! `VirtualService`: where requests and connections of a host go.

mod http;
mod layer4;
mod shaping;

use super::document::{is_host, is_host_pattern};
use super::read::{Fields, Node};
use super::service_entry::ExportTo;
use super::shape;

pub use http::{
    Headers, HttpAction, HttpDestination, HttpMatch, HttpRoute, PathRewriteRule, Redirect, Respond, Retries,
    Rewrite,
};
pub use layer4::{Layer4Match, RouteDestination, TcpRoute, TlsMatch, TlsRoute};

/// The gateway name that stands for all sidecars.
pub const MESH: &str = "mesh";

/// Rules for some hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualService {
    /// Which hosts, as written: short names are the namespace's.
    pub hosts: Vec<String>,
    /// Where the rules hold: gateways by `name` or `namespace/name`, and [`MESH`]. Never empty.
    pub gateways: Vec<String>,
    /// For requests.
    pub http: Vec<HttpRoute>,
    /// For TLS connections that are not terminated.
    pub tls: Vec<TlsRoute>,
    /// For connections.
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that see it.
    pub export_to: ExportTo,
}

/// A service, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its host, as written.
    pub host: String,
    /// Name of a subset in the host's DestinationRule.
    pub subset: Option<String>,
    /// Its port.
    pub port: Option<u16>,
}

impl VirtualService {
    pub(super) fn read(spec: &Node<'_>) -> Option<Self> {
        spec.message(&shape::VIRTUAL_SERVICE, |f| {
            let mut gateways = f.texts("gateways");
            if gateways.is_empty() {
                gateways.push(MESH.into());
            }
            let service = Self {
                hosts: read_hosts(f),
                http: f.list("http").iter().filter_map(HttpRoute::read).collect(),
                tls: f.list("tls").iter().filter_map(TlsRoute::read).collect(),
                tcp: f.list("tcp").iter().filter_map(TcpRoute::read).collect(),
                export_to: ExportTo::read(f),
                gateways,
            };
            if f.list("http").is_empty() && f.list("tls").is_empty() && f.list("tcp").is_empty() {
                f.problem("", "at least one of http, tls and tcp must have a route");
            }
            let in_mesh = service.gateways.iter().any(|g| g == MESH);
            if in_mesh && service.hosts.iter().any(|h| h == "*") {
                f.problem("hosts", "the host \"*\" can be used with gateways only, not with \"mesh\"");
            }
            service
        })
    }

    /// Whether the rules hold for sidecars.
    pub fn is_for_mesh(&self) -> bool {
        self.gateways.iter().any(|g| g == MESH)
    }
}

impl Destination {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::DESTINATION, |f| {
            let host = f.required("host").map(|n| n.name().to_ascii_lowercase()).unwrap_or_default();
            if !host.is_empty() && !is_host(&host) {
                f.problem("host", format!("{host:?} is no host name"));
            }
            Self {
                host,
                subset: f.field("subset").map(|n| n.name()),
                port: f
                    .field("port")
                    .and_then(|n| {
                        n.message(&shape::PORT_SELECTOR, |f| f.required("number").map(|n| n.port()))
                    })
                    .flatten(),
            }
        })
    }
}

fn read_hosts(f: &Fields<'_>) -> Vec<String> {
    let nodes = f.required("hosts").map(|n| n.list()).unwrap_or_default();
    let mut hosts: Vec<String> = Vec::new();
    if nodes.is_empty() {
        f.problem("hosts", "must name at least one host");
    }
    for node in nodes {
        let host = node.name().to_ascii_lowercase();
        if !host.is_empty() && !is_host_pattern(&host) {
            node.problem(format!("{host:?} is no host name"));
        }
        if hosts.contains(&host) {
            node.problem(format!("{host:?} is named twice"));
        }
        hosts.push(host);
    }
    hosts
}

/// Reads `route:` of any layer with Istio's rules of weights: a single destination takes all, several share by weights
/// of which one at least must be above zero; those of weight zero get nothing.
fn read_destinations<T>(
    f: &Fields<'_>,
    read: impl Fn(&Node<'_>) -> Option<T>,
    weight: impl Fn(&mut T) -> &mut u32,
) -> Vec<T> {
    let nodes = f.list("route");
    let mut destinations: Vec<T> = nodes.iter().filter_map(read).collect();
    if let ([only], 1) = (destinations.as_mut_slice(), nodes.len()) {
        *weight(only) = 1;
        return destinations;
    }
    if destinations.len() == nodes.len()
        && !nodes.is_empty()
        && destinations.iter_mut().all(|d| *weight(d) == 0)
    {
        f.problem("route", "the weights add up to 0: nothing could be sent anywhere");
    }
    destinations.retain_mut(|d| *weight(d) > 0);
    destinations
}

/// Highest weight of a destination: Istio's weights are 32-bit, and their sum must fit 32 bits on the wire.
const WEIGHT_MAX: u32 = 1_000_000;

fn read_weight(f: &Fields<'_>) -> u32 {
    f.field("weight").map_or(0, |n| n.number(0, WEIGHT_MAX))
}
