//! An edge proxy: the ports that Gateway resources open on it, and the rules of VirtualServices bound to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use outrigger_traffic::config::{
    CertificateSource, Config, DownstreamTls, FilterChain, FilterChainMatch, ForwardClientCert,
    HttpConnectionManager, HttpFilter, Listener, NetworkFilter, Rbac, Route, RouteConfig, RouteSource,
    SanMatch, SanType, Secret, SecretValue, SetClientCertDetails, Shared, StringMatch, Terminal,
    TlsCertificate, TlsParams, TlsVersion, ValidationContext, ValidationSource, VirtualHost,
};

use super::authentication;
use super::inbound::{mesh_http, tcp_proxy};
use super::outbound::layer4_choice;
use super::routes::{self, Place};
use super::security::{Guarded, filters, looks_at_paths};
use super::tls::{self, CredentialNames};
use crate::inventory::has_labels;
use crate::name;
use crate::resource::gateway::{Gateway, GatewayProtocol, HostNamespaces, Server, ServerTls, ServerTlsMode};
use crate::resource::{Object, Spec};
use crate::scope::Scope;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// Time for a request's head at the edge, where clients are strangers: slow heads are an old way to hold connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A server of a Gateway resource.
struct Opened<'a> {
    object: &'a Object,
    /// `namespace/name` of the Gateway.
    gateway: String,
    /// Position of the server in it.
    index: usize,
    server: &'a Server,
}

/// Adds the listeners that Gateway resources ask of this node.
pub fn assemble(scope: &Scope<'_>, config: &mut Config) {
    let mut places: BTreeMap<(IpAddr, u16), Vec<Opened<'_>>> = BTreeMap::new();
    for object in &scope.world.resources {
        let Spec::Gateway(gateway) = &object.spec else { continue };
        if !is_selected(scope, gateway) {
            continue;
        }
        for (index, server) in gateway.servers.iter().enumerate() {
            let ip = server.bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            let gateway = format!("{}/{}", object.metadata.namespace, object.metadata.name);
            places.entry((ip, server.port)).or_default().push(Opened { object, gateway, index, server });
        }
    }
    for ((ip, port), mut servers) in places {
        servers.sort_by(|a, b| (&a.gateway, a.index).cmp(&(&b.gateway, b.index)));
        let kind = |s: &Opened<'_>| {
            (s.server.protocol == GatewayProtocol::Http, s.server.protocol == GatewayProtocol::Tcp)
        };
        let Some(first) = servers.first().map(kind) else { continue };
        servers.retain(|s| {
            if kind(s) != first {
                scope.notice(
                    s.object.label(),
                    format!("servers[{}]: port {port} already speaks another protocol", s.index),
                );
            }
            kind(s) == first
        });
        let bound = scope.node.bind_ports.get(&port).copied().unwrap_or(port);
        let mut listener = Listener::new(format!("gateway|{ip}|{port}"), SocketAddr::new(ip, bound));
        match first {
            (true, _) => http(scope, config, &mut listener, &servers, port),
            _ => connections(scope, config, &mut listener, &servers, port),
        }
        listener.tls_inspector =
            listener.filter_chains.iter().any(|c| c.matches != FilterChainMatch::default());
        if !listener.filter_chains.is_empty() {
            config.listeners.push(listener);
        }
    }
}

fn is_selected(scope: &Scope<'_>, gateway: &Gateway) -> bool {
    has_labels(&scope.node.labels, &gateway.selector)
}

fn guarded<'a>(scope: &'a Scope<'_>, port: u16, http: bool) -> Guarded<'a> {
    Guarded { namespace: &scope.node.namespace, labels: &scope.node.labels, port, http }
}

/// Plaintext HTTP: one chain and one table for all servers of the port.
fn http(scope: &Scope<'_>, config: &mut Config, listener: &mut Listener, servers: &[Opened<'_>], port: u16) {
    let table = format!("http|{}", listener.name);
    let hosts = virtual_hosts(scope, servers, port);
    config.route_configs.push(RouteConfig {
        name: table.clone(),
        virtual_hosts: hosts,
        ignore_port_in_host_matching: true,
        ..RouteConfig::default()
    });
    let manager = connection_manager(scope, listener.name.clone(), table, port);
    listener.filter_chains.push(chain(
        listener.name.clone(),
        FilterChainMatch::default(),
        None,
        Terminal::Http(Box::new(manager)),
    ));
}

fn chain(
    name: String,
    matches: FilterChainMatch,
    tls: Option<DownstreamTls>,
    terminal: Terminal,
) -> FilterChain {
    FilterChain {
        name,
        matches,
        tls,
        transport_socket_connect_timeout: HANDSHAKE,
        network_filters: Vec::new(),
        terminal,
    }
}

fn connection_manager(
    scope: &Scope<'_>,
    stat_prefix: String,
    table: String,
    port: u16,
) -> HttpConnectionManager {
    let mut http = mesh_http(scope, stat_prefix, RouteSource::Named(table));
    let rules = filters(scope.world, guarded(scope, port, true));
    http.merge_slashes = looks_at_paths(&rules);
    let tokens = authentication::filter(scope, guarded(scope, port, true));
    http.http_filters = tokens.into_iter().chain(rules.into_iter().map(HttpFilter::rbac)).collect();
    http.use_remote_address = true;
    http.request_headers_timeout = Some(HEAD_TIMEOUT);
    http.forward_client_cert = ForwardClientCert::SanitizeSet;
    http.set_client_cert_details =
        SetClientCertDetails { subject: true, uri: true, dns: true, ..SetClientCertDetails::default() };
    http
}

/// A virtual host for each host that a server serves and a VirtualService bound to its gateway is about. Several
/// VirtualServices for one host are joined in their order.
fn virtual_hosts(scope: &Scope<'_>, servers: &[Opened<'_>], port: u16) -> Vec<Shared<VirtualHost>> {
    let mut by_domain: BTreeMap<String, (Vec<Route>, bool)> = BTreeMap::new();
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for opened in servers {
        let redirects = opened.server.tls.as_ref().is_some_and(|tls| tls.https_redirect);
        for (object, rules, hosts) in scope.virtual_services(&opened.gateway) {
            for domain in served_hosts(opened, object, hosts) {
                let place = Place { scope, gateway: &opened.gateway, port };
                let entry = by_domain.entry(domain.clone()).or_default();
                entry.1 |= redirects;
                // The same VirtualService may reach a host by two servers of a port.
                if seen.insert((domain, object.label())) {
                    entry.0.extend(routes::of_virtual_service(place, object, &rules.http));
                }
            }
        }
    }
    let host = |(domain, (routes, require_tls)): (String, (Vec<Route>, bool))| VirtualHost {
        name: format!("{domain}:{port}"),
        domains: vec![domain],
        routes,
        require_tls,
        ..VirtualHost::default()
    };
    by_domain.into_iter().map(|entry| host(entry).into()).collect()
}

/// The hosts that both a server and a VirtualService name, where the server lets the VirtualService's namespace in.
fn served_hosts(opened: &Opened<'_>, object: &Object, hosts: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for served in &opened.server.hosts {
        let allowed = match &served.namespaces {
            HostNamespaces::Any => true,
            HostNamespaces::Own => object.metadata.namespace == opened.object.metadata.namespace,
            HostNamespaces::Only(namespace) => object.metadata.namespace == *namespace,
        };
        if allowed {
            found
                .extend(hosts.iter().filter_map(|host| name::overlap(&served.host, host)).map(str::to_owned));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// TLS and TCP servers: chains by server name. A name is served once per port: two chains for it could not be told apart.
fn connections(
    scope: &Scope<'_>,
    config: &mut Config,
    listener: &mut Listener,
    servers: &[Opened<'_>],
    port: u16,
) {
    let mut claimed: BTreeSet<String> = BTreeSet::new();
    for opened in servers {
        let mode = opened.server.tls.as_ref().and_then(|tls| tls.mode);
        match (opened.server.protocol, mode) {
            (GatewayProtocol::Https | GatewayProtocol::Tls, Some(ServerTlsMode::Passthrough)) => {
                passthrough(scope, listener, opened, port, &mut claimed);
            }
            (GatewayProtocol::Https, Some(_)) => https(scope, config, listener, opened, port, &mut claimed),
            (GatewayProtocol::Tls, Some(_)) => {
                let Some(tls) = downstream_tls(scope, config, opened, &[]) else { continue };
                let names = claim(
                    scope,
                    opened,
                    opened.server.hosts.iter().map(|h| h.host.clone()).collect(),
                    &mut claimed,
                );
                if let (Some(matches), Some(terminal)) = (names, tcp_terminal(scope, opened, port)) {
                    push_tcp(
                        scope,
                        listener,
                        chain_name(listener, opened, ""),
                        matches,
                        Some(tls),
                        terminal,
                        port,
                    );
                }
            }
            (GatewayProtocol::Tcp | GatewayProtocol::Http, _) | (_, None) => {
                if let (Some(matches), Some(terminal)) =
                    (claim(scope, opened, vec!["*".into()], &mut claimed), tcp_terminal(scope, opened, port))
                {
                    push_tcp(
                        scope,
                        listener,
                        chain_name(listener, opened, ""),
                        matches,
                        None,
                        terminal,
                        port,
                    );
                }
            }
        }
    }
}

fn chain_name(listener: &Listener, opened: &Opened<'_>, suffix: &str) -> String {
    format!("{}|{}|{}{suffix}", listener.name, opened.gateway, opened.index)
}

/// A chain's match for some server names, without those that another chain has; `None` when none is left.
fn claim(
    scope: &Scope<'_>,
    opened: &Opened<'_>,
    mut names: Vec<String>,
    claimed: &mut BTreeSet<String>,
) -> Option<FilterChainMatch> {
    if names.iter().any(|n| n == "*") {
        // A chain that takes any name has no use for single ones.
        names = vec!["*".into()];
    }
    names.retain(|name| {
        let free = claimed.insert(name.clone());
        if !free {
            scope.notice(
                opened.object.label(),
                format!(
                    "servers[{}]: host {name:?} is already served on port {}",
                    opened.index, opened.server.port
                ),
            );
        }
        free
    });
    names.sort();
    match names.as_slice() {
        [] => None,
        [any] if any == "*" => Some(FilterChainMatch::default()),
        _ => Some(FilterChainMatch { server_names: names, ..FilterChainMatch::default() }),
    }
}

fn https(
    scope: &Scope<'_>,
    config: &mut Config,
    listener: &mut Listener,
    opened: &Opened<'_>,
    port: u16,
    claimed: &mut BTreeSet<String>,
) {
    let Some(tls) = downstream_tls(scope, config, opened, &["h2", "http/1.1"]) else { return };
    let names = opened.server.hosts.iter().map(|h| h.host.clone()).collect();
    let Some(matches) = claim(scope, opened, names, claimed) else { return };
    let name = chain_name(listener, opened, "");
    let table = format!("https|{name}");
    config.route_configs.push(RouteConfig {
        name: table.clone(),
        virtual_hosts: virtual_hosts(scope, std::slice::from_ref(opened), port),
        ignore_port_in_host_matching: true,
        ..RouteConfig::default()
    });
    let manager = connection_manager(scope, name.clone(), table, port);
    listener.filter_chains.push(chain(name, matches, Some(tls), Terminal::Http(Box::new(manager))));
}

/// One chain for each TLS rule of a VirtualService.
fn passthrough(
    scope: &Scope<'_>,
    listener: &mut Listener,
    opened: &Opened<'_>,
    port: u16,
    claimed: &mut BTreeSet<String>,
) {
    let place = Place { scope, gateway: &opened.gateway, port };
    let mut count = 0;
    for (object, rules, hosts) in scope.virtual_services(&opened.gateway) {
        let served = served_hosts(opened, object, hosts);
        for rule in &rules.tls {
            let meant = rule.matches.iter().filter(|m| place.layer4(object, &m.base));
            let names: Vec<String> = meant
                .flat_map(|m| &m.sni_hosts)
                .filter(|sni| served.iter().any(|host| name::covers(host, sni)))
                .cloned()
                .collect();
            if names.is_empty() {
                continue;
            }
            let Some(matches) = claim(scope, opened, names, claimed) else { continue };
            let name = chain_name(listener, opened, &format!("|{count}"));
            count += 1;
            let mut tcp = tcp_proxy(scope, name.clone());
            tcp.cluster = layer4_choice(scope, object, &rule.route, port);
            push_tcp(scope, listener, name, matches, None, Terminal::Tcp(Box::new(tcp)), port);
        }
    }
}

/// The first TCP rule that is bound to the server's gateway.
fn tcp_terminal(scope: &Scope<'_>, opened: &Opened<'_>, port: u16) -> Option<Terminal> {
    let place = Place { scope, gateway: &opened.gateway, port };
    for (object, rules, hosts) in scope.virtual_services(&opened.gateway) {
        if served_hosts(opened, object, hosts).is_empty() {
            continue;
        }
        let meant = |r: &&crate::resource::virtual_service::TcpRoute| {
            r.matches.is_empty() || r.matches.iter().any(|m| place.layer4(object, m))
        };
        if let Some(rule) = rules.tcp.iter().find(meant) {
            let mut tcp = tcp_proxy(scope, format!("{}|{}", opened.gateway, opened.index));
            tcp.cluster = layer4_choice(scope, object, &rule.route, port);
            return Some(Terminal::Tcp(Box::new(tcp)));
        }
    }
    scope.notice(
        opened.object.label(),
        format!("servers[{}]: no VirtualService has a TCP route for port {port}", opened.index),
    );
    None
}

fn push_tcp(
    scope: &Scope<'_>,
    listener: &mut Listener,
    name: String,
    matches: FilterChainMatch,
    tls: Option<DownstreamTls>,
    terminal: Terminal,
    port: u16,
) {
    let mut chain = chain(name, matches, tls, terminal);
    let rules = filters(scope.world, guarded(scope, port, false));
    chain.network_filters = rules
        .into_iter()
        .map(|rbac| NetworkFilter::Rbac(Rbac { stat_prefix: "tcp.".into(), ..rbac }))
        .collect();
    listener.filter_chains.push(chain);
}

fn downstream_tls(
    scope: &Scope<'_>,
    config: &mut Config,
    opened: &Opened<'_>,
    alpn: &[&str],
) -> Option<DownstreamTls> {
    let told: &ServerTls = opened.server.tls.as_ref()?;
    let params =
        TlsParams { min: told.min.or(Some(TlsVersion::V1_2)), max: told.max.or(Some(TlsVersion::V1_3)) };
    let mode = told.mode?;
    if mode == ServerTlsMode::IstioMutual {
        return Some(DownstreamTls { params, ..tls::mesh_downstream(&scope.world.settings, alpn) });
    }
    let problem = |what: &str| {
        let text = format!(
            "servers[{}]: {what} in namespace {:?}: the server is not opened",
            opened.index, scope.node.namespace
        );
        scope.notice(opened.object.label(), text);
    };
    let Some(names) = credential(scope, config, &told.credential_name) else {
        problem(&format!("there is no Secret {:?}", told.credential_name));
        return None;
    };
    let Some(certificate) = names.certificate else {
        problem(&format!("Secret {:?} has no certificate", told.credential_name));
        return None;
    };
    let asks = matches!(mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    let san = |name: &String| {
        let kind = if name.contains("://") { SanType::Uri } else { SanType::Dns };
        SanMatch { kind, text: StringMatch::exact(name.clone()) }
    };
    let validation = match (asks, names.roots) {
        (false, _) => None,
        (true, Some(sds)) => {
            let default = ValidationContext {
                sans: told.subject_alt_names.iter().map(san).collect(),
                ..ValidationContext::default()
            };
            Some(ValidationSource::Combined { default, sds })
        }
        (true, None) => {
            problem(&format!(
                "neither Secret {0:?} nor {0}-cacert has trust roots for clients",
                told.credential_name
            ));
            return None;
        }
    };
    Some(DownstreamTls {
        certificates: vec![CertificateSource::Sds(certificate)],
        validation,
        require_client_certificate: mode == ServerTlsMode::Mutual,
        alpn: alpn.iter().map(|a| (*a).to_owned()).collect(),
        params,
        disable_stateless_session_resumption: false,
    })
}

/// Finds a Secret in the node's own namespace, nowhere else, and adds what it holds to the configuration. Trust roots are
/// also taken from `NAME-cacert`, as in Istio.
pub fn credential(scope: &Scope<'_>, config: &mut Config, credential_name: &str) -> Option<CredentialNames> {
    let find = |name: &str| {
        scope.world.resources.iter().find_map(|o| match &o.spec {
            Spec::Secret(secret)
                if o.metadata.name == name && o.metadata.namespace == scope.node.namespace =>
            {
                Some(secret)
            }
            _ => None,
        })
    };
    let name = credential_name.trim_start_matches("kubernetes://");
    let secret = find(name)?;
    let mut put = |suffix: &str, value: SecretValue| {
        let full = format!("secret/{}/{name}{suffix}", scope.node.namespace);
        if !config.secrets.iter().any(|s| s.name == full) {
            config.secrets.push(Secret { name: full.clone(), value });
        }
        full
    };
    let certificate = (!secret.chain_pem.is_empty()).then(|| {
        let pair = TlsCertificate { chain_pem: secret.chain_pem.clone(), key_pem: secret.key_pem.clone() };
        put("", SecretValue::Certificate(pair))
    });
    let own = Some(&secret.roots_pem).filter(|pem| !pem.is_empty()).cloned();
    let roots = own.or_else(|| {
        find(&format!("{name}-cacert")).map(|s| s.roots_pem.clone()).filter(|pem| !pem.is_empty())
    });
    let roots = roots.map(|pem| {
        put(
            "/ca",
            SecretValue::Validation(ValidationContext {
                trusted_ca_pem: Some(pem),
                ..ValidationContext::default()
            }),
        )
    });
    Some(CredentialNames { certificate, roots })
}
