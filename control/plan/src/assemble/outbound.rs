//! The application's side of a sidecar: a port for requests to every service it may see, and one for each service
//! that speaks something else and was asked for. They are the loopback address's unless the workload has said otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use outrigger_traffic::config::{
    ClusterChoice, Config, FilterChain, FilterChainMatch, HttpConnectionManager, Listener, Route,
    RouteConfig, RouteSource, ServerHeader, TcpProxy, Terminal, TrafficDirection, VirtualHost,
    WeightedCluster,
};

use super::inbound::{mesh_http, tcp_proxy};
use super::routes::{self, Place};
use crate::inventory::Service;
use crate::name;
use crate::resource::Object;
use crate::resource::virtual_service::{MESH, RouteDestination, VirtualService};
use crate::scope::Scope;
use crate::world::TCP_OUTBOUND_LABEL;

/// Name of the listener and of its route table.
pub const OUTBOUND: &str = "outbound";

/// Adds the outbound listeners and their routes.
pub fn assemble(scope: &Scope<'_>, config: &mut Config) {
    let node = scope.node;
    let registered = node.workload.as_ref().and_then(|w| w.outbound_port);
    let ip = node
        .outbound_address
        .or(node.workload.as_ref().map(|w| w.outbound_address))
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if let Some(port) = node.outbound_port.or(registered) {
        let address = SocketAddr::new(ip, port);
        let mut http = mesh_http(scope, OUTBOUND.into(), RouteSource::Named(OUTBOUND.into()));
        http.server_header = ServerHeader::PassThrough;
        config.listeners.push(listener(OUTBOUND.into(), address, Terminal::Http(Box::new(http))));
        config.route_configs.push(table(scope, Fallback(routes::to_nowhere())));
    }
    for (port, host, service_port) in asked_ports(scope) {
        let Some(service) = scope.service(&host) else {
            scope.notice(
                node_label(scope),
                format!(
                    "{TCP_OUTBOUND_LABEL}: no service {host:?} is known to namespace {:?}",
                    node.namespace
                ),
            );
            continue;
        };
        let tcp = connections(scope, service, service_port);
        let address = SocketAddr::new(ip, port);
        config.listeners.push(listener(format!("outbound|{port}"), address, Terminal::Tcp(Box::new(tcp))));
    }
}

fn listener(name: String, address: SocketAddr, terminal: Terminal) -> Listener {
    let mut listener = Listener::new(name.clone(), address);
    listener.traffic_direction = TrafficDirection::Outbound;
    listener.filter_chains.push(FilterChain {
        name,
        matches: FilterChainMatch::default(),
        tls: None,
        transport_socket_connect_timeout: Duration::from_secs(15),
        network_filters: Vec::new(),
        terminal,
    });
    listener
}

fn node_label(scope: &Scope<'_>) -> String {
    format!("proxy/{}", scope.node.id)
}

/// `15432=db.demo:5432,16379=cache:6379`: local port, host in full, port of the service.
fn asked_ports(scope: &Scope<'_>) -> Vec<(u16, String, u16)> {
    let Some(text) = scope.node.labels.get(TCP_OUTBOUND_LABEL) else { return Vec::new() };
    let mut asked: Vec<(u16, String, u16)> = Vec::new();
    for word in text.split([',', ';']).map(str::trim).filter(|w| !w.is_empty()) {
        let parsed = word.split_once('=').and_then(|(local, target)| {
            let (host, port) = target.rsplit_once(':')?;
            Some((local.parse().ok()?, scope.canonical(host, &scope.node.namespace), port.parse().ok()?))
        });
        match parsed {
            Some((local, host, port)) if local > 0 && !asked.iter().any(|(l, ..)| *l == local) => {
                asked.push((local, host, port))
            }
            _ => scope.notice(
                node_label(scope),
                format!(
                    "{TCP_OUTBOUND_LABEL}: {word:?} is not LOCALPORT=SERVICE:PORT, or its local port is taken"
                ),
            ),
        }
    }
    asked
}

/// Connections to a service: by the first TCP rule of a VirtualService that can hold, else to the service itself.
pub fn connections(scope: &Scope<'_>, service: &Service, port: u16) -> TcpProxy {
    let place = Place { scope, gateway: MESH, port };
    let itself = name::outbound_cluster(&service.host, port, None);
    for (object, rules, hosts) in scope.virtual_services(MESH) {
        if !hosts.iter().any(|pattern| name::covers(pattern, &service.host)) {
            continue;
        }
        let holds = |m: &crate::resource::virtual_service::Layer4Match| place.layer4(object, m);
        if let Some(route) = rules.tcp.iter().find(|r| r.matches.is_empty() || r.matches.iter().any(holds)) {
            let mut tcp = tcp_proxy(scope, itself);
            tcp.cluster = layer4_choice(scope, object, &route.route, port);
            return tcp;
        }
    }
    scope.need(&service.host, port, None);
    tcp_proxy(scope, itself)
}

/// The destinations of a rule for connections.
pub fn layer4_choice(
    scope: &Scope<'_>,
    object: &Object,
    route: &[RouteDestination],
    port: u16,
) -> ClusterChoice {
    match route {
        [only] => ClusterChoice::Single(scope.cluster(object, &only.destination, port)),
        several => ClusterChoice::Weighted(
            several
                .iter()
                .map(|d| WeightedCluster {
                    name: scope.cluster(object, &d.destination, port),
                    cluster_header: None,
                    weight: d.weight,
                    headers: Default::default(),
                    host_rewrite: None,
                    filters: None,
                    metadata_match: Vec::new(),
                })
                .collect(),
        ),
    }
}

/// What becomes of requests to hosts that nobody knows.
pub struct Fallback(pub Route);

/// The table of the HTTP port: a virtual host for each port of each service, for hosts that only a VirtualService knows,
/// and one for everything else.
pub fn table(scope: &Scope<'_>, fallback: Fallback) -> RouteConfig {
    let mut hosts = Hosts::default();
    for service in scope.services() {
        let main = main_port(service);
        for (port, _) in service.ports.iter().filter(|(_, p)| p.protocol.is_http()) {
            let domains = domains(scope, service, *port, main == Some(*port));
            hosts.add(
                scope,
                format!("{}:{port}", service.host),
                domains,
                service_routes(scope, service, *port),
            );
        }
    }
    let alone = rules_alone(scope);
    for (host, (object, rules)) in alone {
        let place = Place { scope, gateway: MESH, port: 80 };
        let domains = vec![host.clone(), format!("{host}:80")];
        hosts.add(scope, host, domains, routes::of_virtual_service(place, object, &rules.http));
    }
    let Fallback(last) = fallback;
    hosts.add(scope, last.name.clone(), vec!["*".into()], vec![last]);
    RouteConfig {
        name: OUTBOUND.into(),
        virtual_hosts: hosts.list.into_iter().map(Into::into).collect(),
        ..RouteConfig::default()
    }
}

/// Virtual hosts whose domains are each claimed once.
#[derive(Default)]
struct Hosts {
    list: Vec<VirtualHost>,
    claimed: BTreeSet<String>,
}

impl Hosts {
    fn add(&mut self, scope: &Scope<'_>, name: String, domains: Vec<String>, routes: Vec<Route>) {
        let mut free = Vec::new();
        for domain in domains {
            if self.claimed.insert(domain.clone()) {
                free.push(domain);
            } else if !free.contains(&domain) {
                scope.notice(
                    format!("host/{domain}"),
                    format!("means more than one service; {name} is not reached by it"),
                );
            }
        }
        if !free.is_empty() {
            self.list.push(VirtualHost { name, domains: free, routes, ..VirtualHost::default() });
        }
    }
}

/// The port that is meant when a request names none: 80 where the service has it, else the first that speaks HTTP.
pub fn main_port(service: &Service) -> Option<u16> {
    let mut http = service.ports.iter().filter(|(_, p)| p.protocol.is_http()).map(|(number, _)| *number);
    let first = http.next();
    if http.any(|number| number == 80) { Some(80) } else { first }
}

/// Every name of a port of a service, for callers of the node's namespace.
pub fn domains(scope: &Scope<'_>, service: &Service, port: u16, is_main: bool) -> Vec<String> {
    let short = service.short.iter().filter(|_| service.namespace == scope.node.namespace);
    let names: Vec<&String> = std::iter::once(&service.host).chain(&service.aliases).chain(short).collect();
    // A pattern cannot be followed by a port: `*.example.com` matches with any port already only without one.
    let with_port = names.iter().filter(|n| !n.contains('*')).map(|n| format!("{n}:{port}"));
    let bare = names.iter().filter(|_| is_main).map(|n| (*n).clone());
    // Whoever resolved the name first may call the address.
    let vip = scope.virtual_ip(&service.host).filter(|_| scope.node.capture.is_some());
    let vip_bare = vip.iter().filter(|_| is_main).map(ToString::to_string);
    let vip_with_port = vip.iter().map(|vip| format!("{vip}:{port}"));
    bare.chain(with_port).chain(vip_bare).chain(vip_with_port).collect()
}

/// The routes of a port of a service: those of the first VirtualService about it, else all requests to the service.
pub fn service_routes(scope: &Scope<'_>, service: &Service, port: u16) -> Vec<Route> {
    let mut best: Option<((bool, usize), &Object, &VirtualService)> = None;
    for (object, rules, hosts) in scope.virtual_services(MESH) {
        if rules.http.is_empty() {
            continue;
        }
        for pattern in hosts.iter().filter(|pattern| name::covers(pattern, &service.host)) {
            let rank = name::specificity(pattern);
            match best {
                Some((other, first, _))
                    if other > rank || (other == rank && first.label() != object.label()) =>
                {
                    if other == rank {
                        let text =
                            format!("is not used for {:?}: {} comes first", service.host, first.label());
                        scope.notice(object.label(), text);
                    }
                }
                _ => best = Some((rank, object, rules)),
            }
        }
    }
    match best {
        Some((_, object, rules)) => {
            routes::of_virtual_service(Place { scope, gateway: MESH, port }, object, &rules.http)
        }
        None => {
            scope.need(&service.host, port, None);
            let hash = scope.hash_policy(service, port, None);
            vec![routes::to_cluster(scope, name::outbound_cluster(&service.host, port, None), hash)]
        }
    }
}

/// Hosts of VirtualServices that are no service: requests to them are routed all the same.
fn rules_alone<'a>(scope: &'a Scope<'_>) -> BTreeMap<String, (&'a Object, &'a VirtualService)> {
    let mut alone = BTreeMap::new();
    for (object, rules, hosts) in scope.virtual_services(MESH) {
        for host in hosts {
            let known = scope.services().any(|s| name::overlap(host, &s.host).is_some());
            if !known && !rules.http.is_empty() {
                alone.entry(host.clone()).or_insert((object, rules));
            }
        }
    }
    alone
}

/// A connection manager for gRPC clients.
pub fn proxyless_http(scope: &Scope<'_>, table: String) -> HttpConnectionManager {
    HttpConnectionManager {
        access_log: Vec::new(),
        tracing: None,
        ..mesh_http(scope, OUTBOUND.into(), RouteSource::Named(table))
    }
}
