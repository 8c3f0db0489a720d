//! What a sidecar needs when its application's connections and questions are redirected to it.
//!
//! ```text
//!  application ──DNS──▶ `dns`: a name of the mesh is a virtual address, the rest is asked of the host's resolvers
//!              ──TCP──▶ `outbound` (bound; asks where the connection was going)
//!                         ├─▶ `captured|VIP:PORT`   a service that declared another protocol than HTTP
//!                         ├─▶ `captured|PORT`       a port on which some service speaks HTTP: by its Host, if it is HTTP
//!                         └─▶ as it was             anything else, where the policy lets it
//! ```
//!
//! Only `outbound` and `dns` are bound; the others wait for connections handed over by it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use outrigger_traffic::config::{
    Action, Cluster, ClusterDiscovery, Config, DnsDomain, DnsForward, DnsServer, Endpoints, FilterChain,
    FilterChainMatch, ForwardProxy, HttpUpstream, Listener, OriginalDst, Route, RouteAction, RouteConfig,
    RouteMatch, RouteSource, ServerHeader, Terminal, TrafficDirection,
};

use super::inbound::{mesh_http, tcp_proxy};
use super::outbound::{Fallback, OUTBOUND, connections, table};
use super::routes;
use crate::inventory::Service;
use crate::node::{Capture, Flavour};
use crate::scope::Scope;
use crate::world::OUTBOUND_POLICY_LABEL;

/// Where connections go that are none of the mesh's. Istio's name.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// Where they go when the mesh is all that may be reached. Istio's name.
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// Name of the route table of redirected requests.
const CAPTURED: &str = "captured";
/// Name of the listener of questions.
const DNS: &str = "dns";
/// Name of the listener that clients name their destination to.
const FORWARD_PROXY: &str = "forward-proxy";

/// How long the first bytes of a connection are waited for. A client of a protocol in which the server speaks first is held
/// up by this much, unless its port is declared.
const DETECTION: Duration = Duration::from_millis(300);
/// How long answers about the mesh may be kept.
const TTL: Duration = Duration::from_secs(30);

/// What the HTTP inspector finds.
const HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// Adds what capture needs, around the listener `outbound` that is in `config` already.
pub fn assemble(scope: &Scope<'_>, capture: &Capture, config: &mut Config) {
    if capture.outbound || capture.forward_proxy_port.is_some() {
        connections_out(scope, capture, config);
    }
    if let Some(port) = capture.dns_port {
        config.listeners.push(dns(scope, port, capture));
    }
    if let Some(port) = capture.forward_proxy_port {
        config.listeners.push(forward_proxy(scope, port, capture.dns_port.is_some()));
    }
}

fn connections_out(scope: &Scope<'_>, capture: &Capture, config: &mut Config) {
    let beyond = if only_mesh(scope) { BLACK_HOLE } else { PASSTHROUGH };
    if capture.outbound
        && let Some(outbound) = config.listeners.iter_mut().find(|listener| listener.name == OUTBOUND)
    {
        redirect(scope, outbound, beyond);
    }
    let (mut http, mut own) = (BTreeSet::new(), Vec::new());
    for service in scope.services() {
        for (number, port) in &service.ports {
            if port.protocol.is_http() {
                http.insert(*number);
            } else if let Some(vip) = scope.virtual_ip(&service.host) {
                own.push(declared(scope, service, *number, vip));
            }
        }
    }
    config.listeners.extend(own);
    for port in http {
        let listener = sniffing(scope, port, beyond);
        // The proxy's own port goes first: two listeners cannot have one address.
        if config.listeners.iter().any(|other| other.address == listener.address) {
            let text =
                format!("port {port} is one of the proxy's own: calls to services at it are not captured");
            scope.notice(format!("proxy/{}", scope.node.id), text);
        } else {
            config.listeners.push(listener);
        }
    }
    let last = if only_mesh(scope) { routes::to_nowhere() } else { as_it_was() };
    config.route_configs.push(RouteConfig { name: CAPTURED.into(), ..table(scope, Fallback(last)) });
    config.clusters.push(match beyond {
        BLACK_HOLE => black_hole(),
        _ => passthrough(),
    });
}

/// Whether destinations outside the mesh are out of reach.
fn only_mesh(scope: &Scope<'_>) -> bool {
    match scope.node.labels.get(OUTBOUND_POLICY_LABEL).map(String::as_str) {
        None | Some("allow-any") => false,
        Some("registry-only") => true,
        Some(other) => {
            let text = format!(
                "{OUTBOUND_POLICY_LABEL}: {other:?} is neither allow-any nor registry-only; nothing outside the mesh is reached"
            );
            scope.notice(format!("proxy/{}", scope.node.id), text);
            true
        }
    }
}

/// Connections that were redirected are handed over, or go where they were going; those that were not are requests to the
/// sidecar's own port, as without redirection.
fn redirect(scope: &Scope<'_>, outbound: &mut Listener, beyond: &str) {
    outbound.use_original_dst = true;
    for chain in &mut outbound.filter_chains {
        chain.matches.destination_port = Some(outbound.address.port());
    }
    outbound.default_filter_chain = Some(opaque(scope, beyond));
}

fn opaque(scope: &Scope<'_>, cluster: &str) -> FilterChain {
    chain(cluster, Terminal::Tcp(Box::new(tcp_proxy(scope, cluster.to_owned()))))
}

fn chain(name: &str, terminal: Terminal) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        matches: FilterChainMatch::default(),
        tls: None,
        transport_socket_connect_timeout: Duration::from_secs(15),
        network_filters: Vec::new(),
        terminal,
    }
}

fn unbound(name: String, address: SocketAddr) -> Listener {
    let mut listener = Listener::new(name, address);
    listener.traffic_direction = TrafficDirection::Outbound;
    listener.bind_to_port = false;
    listener
}

/// A service that said what it speaks: nothing is looked at.
fn declared(scope: &Scope<'_>, service: &Service, port: u16, vip: Ipv4Addr) -> Listener {
    let tcp = connections(scope, service, port);
    let address = SocketAddr::new(vip.into(), port);
    let mut listener = unbound(format!("{CAPTURED}|{address}"), address);
    let name = format!("{CAPTURED}|{port}|{}", service.host);
    listener.filter_chains.push(chain(&name, Terminal::Tcp(Box::new(tcp))));
    listener
}

/// A port on which some service speaks HTTP, at whatever address.
fn sniffing(scope: &Scope<'_>, port: u16, beyond: &str) -> Listener {
    let mut listener =
        unbound(format!("{CAPTURED}|{port}"), SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    listener.additional_addresses = vec![SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)];
    listener.tls_inspector = true;
    listener.http_inspector = true;
    listener.listener_filters_timeout = Some(DETECTION);
    listener.continue_on_listener_filters_timeout = true;
    listener.filter_chains.push(requests(scope, CAPTURED));
    listener.default_filter_chain = Some(opaque(scope, beyond));
    listener
}

/// The chain of what is HTTP.
fn requests(scope: &Scope<'_>, table: &str) -> FilterChain {
    let mut http = mesh_http(scope, table.into(), RouteSource::Named(table.into()));
    http.server_header = ServerHeader::PassThrough;
    let mut chain = chain(table, Terminal::Http(Box::new(http)));
    chain.matches.transport_protocol = Some("raw_buffer".into());
    chain.matches.application_protocols = HTTP.map(str::to_owned).to_vec();
    chain
}

/// A request to a host that is none of the mesh's goes where its connection was going.
fn as_it_was() -> Route {
    let mut action = RouteAction::to(PASSTHROUGH);
    action.timeout = None;
    Route {
        name: "allow_any".into(),
        matches: RouteMatch::prefix("/"),
        action: Action::Forward(Box::new(action)),
        headers: Default::default(),
        filters: None,
        per_request_buffer_limit_bytes: None,
        decorator: None,
        tracing: None,
    }
}

fn passthrough() -> Cluster {
    let mut cluster = Cluster::new(PASSTHROUGH, ClusterDiscovery::OriginalDst(OriginalDst::default()));
    cluster.http.protocol = HttpUpstream::Downstream;
    // Beyond the mesh nobody asked for limits.
    let limits = &mut cluster.circuit_breakers.default;
    (limits.max_connections, limits.max_requests, limits.max_pending_requests) = (65_536, 65_536, 65_536);
    cluster
}

fn black_hole() -> Cluster {
    let endpoints = Endpoints { cluster_name: BLACK_HOLE.into(), ..Endpoints::default() };
    Cluster::new(BLACK_HOLE, ClusterDiscovery::Static(endpoints))
}

/// The names of every service the node may see, and the host's resolvers for the rest. On the loopback address, because a
/// redirected question comes there, and must be answered from there.
fn dns(scope: &Scope<'_>, port: u16, capture: &Capture) -> Listener {
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let mut listener = Listener::new(DNS, address);
    listener.traffic_direction = TrafficDirection::Outbound;
    if scope.node.flavour == Flavour::Outrigger {
        // TCP as well; Envoy's DNS filter has none.
        listener.additional_addresses = vec![address];
    }
    let forward = DnsForward { resolvers: Vec::new(), timeout: Duration::from_secs(4), max_pending: 256 };
    listener.dns = Some(Box::new(DnsServer {
        stat_prefix: OUTBOUND.into(),
        // A virtual address leads nowhere unless connections to it come here, one way or the other.
        domains: if capture.outbound || capture.forward_proxy_port.is_some() {
            domains(scope)
        } else {
            Vec::new()
        },
        forward: Some(forward),
    }));
    listener
}

fn domains(scope: &Scope<'_>) -> Vec<DnsDomain> {
    let mut named: BTreeMap<String, Ipv4Addr> = BTreeMap::new();
    for service in scope.services() {
        let Some(vip) = scope.virtual_ip(&service.host) else { continue };
        let short = service.short.iter().filter(|_| service.namespace == scope.node.namespace);
        for name in std::iter::once(&service.host).chain(&service.aliases).chain(short) {
            // A host may be written as an address: nobody asks for that.
            if *name != "*" && name.parse::<IpAddr>().is_err() {
                named.entry(name.to_ascii_lowercase()).or_insert(vip);
            }
        }
    }
    named.into_iter().map(|(name, vip)| DnsDomain { name, addresses: vec![vip.into()], ttl: TTL }).collect()
}

/// For applications whose connections cannot be redirected: they name their destination, by `HTTP_PROXY` or SOCKS5.
fn forward_proxy(scope: &Scope<'_>, port: u16, with_names: bool) -> Listener {
    let only_mesh = only_mesh(scope);
    let mut listener = Listener::new(FORWARD_PROXY, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    listener.traffic_direction = TrafficDirection::Outbound;
    listener.forward_proxy = Some(ForwardProxy {
        names_of: if with_names { DNS.into() } else { String::new() },
        allow_unknown: !only_mesh,
        ..ForwardProxy::default()
    });
    let mut absolute = requests(scope, OUTBOUND);
    // Without a destination it can only be a request that says in its target where it goes.
    absolute.matches = FilterChainMatch { destination_port: Some(port), ..FilterChainMatch::default() };
    listener.filter_chains.push(absolute);
    listener.default_filter_chain = Some(opaque(scope, if only_mesh { BLACK_HOLE } else { PASSTHROUGH }));
    listener
}
