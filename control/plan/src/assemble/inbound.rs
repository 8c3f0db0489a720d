//! The mesh side of a sidecar: one listener for each port of the host at which its workload is reached.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use outrigger_traffic::config::{
    Action, Cluster, ClusterChoice, ClusterDiscovery, CodecType, Config, Endpoint, Endpoints, FilterChain,
    FilterChainMatch, ForwardClientCert, HttpConnectionManager, HttpFilter, HttpUpstream, Listener,
    LocalityEndpoints, NetworkFilter, Route, RouteAction, RouteConfig, RouteMatch, RouteSource, ServerHeader,
    SetClientCertDetails, TcpProxy, Terminal, TrafficDirection, Upgrade, VirtualHost,
};

use super::authentication;
use super::security::{Guarded, PeerRules, filters, looks_at_paths};
use super::{telemetry, tls};
use crate::name;
use crate::protocol::Protocol;
use crate::resource::peer_authentication::MtlsMode;
use crate::scope::Scope;
use crate::world::{Workload, WorkloadPort};

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// Adds listeners and clusters for the workload's own ports.
pub fn assemble(scope: &Scope<'_>, config: &mut Config) {
    let Some(workload) = scope.node.workload.as_deref() else { return };
    let mut by_inbound: BTreeMap<u16, Vec<&WorkloadPort>> = BTreeMap::new();
    for port in &workload.ports {
        if let Some(inbound) = port.inbound_port.or(workload.inbound_port) {
            by_inbound.entry(inbound).or_default().push(port);
            config.clusters.push(cluster(workload, port));
        }
    }
    for (inbound, ports) in by_inbound {
        if let Some(listener) = listener(scope, workload, inbound, &ports) {
            config.listeners.push(listener);
        }
    }
}

fn listener(
    scope: &Scope<'_>,
    workload: &Workload,
    inbound: u16,
    ports: &[&WorkloadPort],
) -> Option<Listener> {
    let bound = scope.node.bind_ports.get(&inbound).copied().unwrap_or(inbound);
    let ip = scope.node.inbound_address.unwrap_or_else(|| bind_address(workload.address));
    let mut listener = Listener::new(format!("inbound|{inbound}"), SocketAddr::new(ip, bound));
    listener.traffic_direction = TrafficDirection::Inbound;
    let shared = ports.len() > 1;
    let peers = PeerRules::of(scope.world);
    let mut plain: Vec<FilterChain> = Vec::new();
    for port in ports {
        let mode = peers.mode(&workload.namespace, &workload.labels, port.number);
        if mode != MtlsMode::Disable {
            listener.filter_chains.push(chain(scope, workload, port, true, shared, mode));
        }
        if mode != MtlsMode::Strict {
            plain.push(chain(scope, workload, port, false, shared, mode));
        }
    }
    if shared && !plain.is_empty() {
        let text = format!(
            "plaintext cannot be told apart at inbound port {inbound}, which several ports share: it is refused; give each port its own"
        );
        scope.notice(format!("workload/{}/{}", workload.namespace, workload.instance_id), text);
        plain.clear();
    }
    listener.filter_chains.extend(plain);
    listener.tls_inspector = listener.filter_chains.iter().any(|c| c.matches != FilterChainMatch::default());
    (!listener.filter_chains.is_empty()).then_some(listener)
}

/// On the loopback address just there (several workloads of one host in a demo); elsewhere on all addresses, because the
/// address others use may be mapped and not be ours to bind.
fn bind_address(address: IpAddr) -> IpAddr {
    match address {
        address if address.is_loopback() => address,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

fn chain(
    scope: &Scope<'_>,
    workload: &Workload,
    port: &WorkloadPort,
    with_tls: bool,
    shared: bool,
    mode: MtlsMode,
) -> FilterChain {
    let http = port.protocol.is_http();
    let guarded =
        Guarded { namespace: &workload.namespace, labels: &workload.labels, port: port.number, http };
    let rules = filters(scope.world, guarded);
    let mut matches = FilterChainMatch::default();
    if shared && with_tls {
        matches.server_names = server_names(scope, workload, port);
    }
    if mode == MtlsMode::Permissive {
        matches.transport_protocol = Some(if with_tls { "tls" } else { "raw_buffer" }.to_owned());
    }
    let alpn: &[&str] = if http { &["h2", "http/1.1"] } else { &[] };
    let suffix = if with_tls { "" } else { "|plain" };
    FilterChain {
        name: format!("inbound|{}{suffix}", port.number),
        matches,
        tls: with_tls.then(|| tls::mesh_downstream(&scope.world.settings, alpn)),
        transport_socket_connect_timeout: HANDSHAKE,
        network_filters: if http {
            Vec::new()
        } else {
            rules
                .iter()
                .cloned()
                .map(|mut rbac| {
                    rbac.stat_prefix = "tcp.".into();
                    NetworkFilter::Rbac(rbac)
                })
                .collect()
        },
        terminal: if http {
            Terminal::Http(Box::new(connection_manager(
                scope,
                port,
                rules,
                authentication::filter(scope, guarded),
            )))
        } else {
            Terminal::Tcp(Box::new(tcp_proxy(scope, name::inbound_cluster(port.number))))
        },
    }
}

/// The names by which callers ask for this port: those of every service the workload is an instance of.
fn server_names(scope: &Scope<'_>, workload: &Workload, port: &WorkloadPort) -> Vec<String> {
    let mut names = Vec::new();
    for service in scope.all_services() {
        let is_us = |w: &Workload| w.instance_id == workload.instance_id && w.namespace == workload.namespace;
        let here = service.instances.iter().filter(|i| i.workload.as_deref().is_some_and(is_us));
        for (number, at) in here.flat_map(|i| &i.ports) {
            if at.workload_port == port.number {
                names.push(name::server_name(&service.host, *number).to_ascii_lowercase());
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// A TCP proxy to one cluster.
pub fn tcp_proxy(scope: &Scope<'_>, cluster: String) -> TcpProxy {
    TcpProxy {
        stat_prefix: cluster.clone(),
        cluster: ClusterChoice::Single(cluster),
        idle_timeout: Some(Duration::from_secs(3600)),
        max_downstream_connection_duration: None,
        max_connect_attempts: 1,
        tunnel: None,
        access_log: scope.world.settings.access_log.clone(),
    }
}

/// What connection managers of a mesh have in common.
pub fn mesh_http(scope: &Scope<'_>, stat_prefix: String, routes: RouteSource) -> HttpConnectionManager {
    let mut http = HttpConnectionManager::new(stat_prefix, routes);
    http.codec_type = CodecType::Auto;
    http.normalize_path = true;
    http.upgrades = vec![Upgrade { upgrade_type: "websocket".into(), enabled: true }];
    http.http2.allow_connect = true;
    http.http1.enable_trailers = true;
    http.access_log = scope.world.settings.access_log.clone();
    http.tracing = telemetry::tracing(scope);
    http
}

fn connection_manager(
    scope: &Scope<'_>,
    port: &WorkloadPort,
    rules: Vec<outrigger_traffic::config::Rbac>,
    tokens: Option<HttpFilter>,
) -> HttpConnectionManager {
    let cluster = name::inbound_cluster(port.number);
    let mut action = RouteAction::to(cluster.clone());
    // The caller's proxy keeps the time.
    action.timeout = None;
    let route = Route {
        name: "default".into(),
        matches: RouteMatch::prefix("/"),
        action: Action::Forward(Box::new(action)),
        headers: Default::default(),
        filters: None,
        per_request_buffer_limit_bytes: None,
        decorator: None,
        tracing: None,
    };
    let host = VirtualHost {
        name: format!("inbound|http|{}", port.number),
        domains: vec!["*".into()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    let table = RouteConfig {
        name: cluster.clone(),
        virtual_hosts: vec![host.into()],
        validate_clusters: true,
        ..RouteConfig::default()
    };
    let mut http = mesh_http(scope, format!("inbound_{}", port.number), RouteSource::Inline(table));
    // A rule about `/admin` must not be passed by `//admin`.
    http.merge_slashes = looks_at_paths(&rules);
    http.http_filters = tokens.into_iter().chain(rules.into_iter().map(HttpFilter::rbac)).collect();
    http.forward_client_cert = ForwardClientCert::SanitizeSet;
    http.set_client_cert_details =
        SetClientCertDetails { subject: true, uri: true, ..SetClientCertDetails::default() };
    http.server_header = ServerHeader::PassThrough;
    http
}

fn cluster(workload: &Workload, port: &WorkloadPort) -> Cluster {
    let name = name::inbound_cluster(port.number);
    let endpoints = Endpoints {
        cluster_name: name.clone(),
        localities: vec![LocalityEndpoints {
            endpoints: vec![Endpoint::at(SocketAddr::new(port.target_address, port.target_port))],
            ..LocalityEndpoints::default()
        }],
        overprovisioning_factor: None,
    };
    let mut cluster = Cluster::new(name, ClusterDiscovery::Static(endpoints));
    cluster.http.protocol = match port.protocol {
        Protocol::Http2 | Protocol::Grpc => HttpUpstream::Http2,
        Protocol::Http | Protocol::Https | Protocol::Tls | Protocol::Tcp => HttpUpstream::Http1,
    };
    cluster.http.http1.enable_trailers = cluster.http.protocol == HttpUpstream::Http1;
    // The only host there is: setting it aside would help nobody, and limits belong to the callers.
    let limits = &mut cluster.circuit_breakers.default;
    (limits.max_connections, limits.max_requests, limits.max_pending_requests) = (65_536, 65_536, 65_536);
    cluster.labels = vec![
        ("destination_service".into(), workload.service.clone()),
        ("destination_service_name".into(), workload.service.clone()),
        ("destination_service_namespace".into(), workload.namespace.clone()),
    ];
    cluster
}
