//! Virtual nodes: the services behind virtual services, and how they are called.

use std::collections::BTreeSet;

use outrigger_plan::Kind as Made_;
use serde_json::{Map, Value, json};

use super::{Item, Kind, World, duration, port_mapping, service};
use crate::import::resource::{self, Made, filled, put};
use crate::import::trace::Cursor;

/// Nodes that somebody insists on reaching by TLS: mesh, node, and the port where it is only one.
pub(super) type NeedTls = BTreeSet<(String, String, Option<u16>)>;

/// How a listener lets TLS in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMode {
    Strict,
    Permissive,
    Disabled,
}

pub(super) const TLS_MODES: [(&str, TlsMode); 3] =
    [("STRICT", TlsMode::Strict), ("PERMISSIVE", TlsMode::Permissive), ("DISABLED", TlsMode::Disabled)];

/// Ports of a node.
pub(super) fn ports(item: &Item<'_>) -> Vec<(u16, &'static str)> {
    item.spec.items("listeners").iter().filter_map(port_mapping).collect()
}

/// Makes the service of a node, the rules for calling it, and its demand of TLS.
pub(super) fn make(world: &World<'_>, item: &Item<'_>, need_tls: &NeedTls, made: &mut Made) {
    let namespace = world.namespace(item.mesh);
    let host = world.node_host(item.mesh, item.name);
    let from = format!("App Mesh virtual node {}", item.name);
    let ports = ports(item);
    if let Some(discovery) = item.spec.get("serviceDiscovery") {
        if ports.is_empty() {
            discovery.lost("a node without listeners is called by nobody");
        } else {
            let spec = entry(&host, &ports, &discovery);
            made.add(Made_::ServiceEntry, &namespace, item.name, &from, &item.cursor, spec);
        }
    }
    let listeners = item.spec.items("listeners");
    let mut by_port: Vec<(u16, Map<String, Value>)> = Vec::new();
    let mut strict = Vec::new();
    for listener in &listeners {
        let Some((port, _)) = port_mapping(listener) else {
            listener.lost("has no port that is understood");
            continue;
        };
        let mut settings = settings(listener);
        let mode = tls(listener);
        let asked = |port| need_tls.contains(&(item.mesh.to_owned(), item.name.to_owned(), port));
        if mode == Some(TlsMode::Strict) || asked(Some(port)) || asked(None) {
            settings.insert("tls".to_owned(), json!({"mode": "ISTIO_MUTUAL"}));
        }
        if mode == Some(TlsMode::Strict) {
            strict.push(port);
        }
        by_port.push((port, settings));
    }
    let policy = match by_port.as_mut_slice() {
        [(_, only)] => std::mem::take(only),
        several => {
            let several = several.iter_mut().filter(|(_, settings)| !settings.is_empty());
            let levels: Vec<Value> = several
                .map(|(port, settings)| {
                    settings.insert("port".to_owned(), json!({"number": *port}));
                    Value::Object(std::mem::take(settings))
                })
                .collect();
            let mut policy = Map::new();
            put(&mut policy, "portLevelSettings", (!levels.is_empty()).then_some(levels));
            policy
        }
    };
    let origin = item.spec.get("listeners").unwrap_or_else(|| item.cursor.clone());
    if let Some(policy) = filled(policy) {
        let spec = json!({"host": host, "trafficPolicy": policy});
        made.add(Made_::DestinationRule, &namespace, item.name, &from, &origin, spec);
    }
    if !strict.is_empty() {
        let levels: Map<String, Value> =
            strict.iter().map(|port| (port.to_string(), json!({"mode": "STRICT"}))).collect();
        let selector = json!({"matchLabels": {"app": resource::label(item.name)}});
        let spec = json!({"selector": selector, "portLevelMtls": levels});
        made.add(Made_::PeerAuthentication, &namespace, item.name, &from, &origin, spec);
    }
    if let Some(logging) = item.spec.get("logging") {
        logging.lost("access logs are a setting of the proxy, not of resources");
    }
}

fn entry(host: &str, ports: &[(u16, &str)], discovery: &Cursor<'_>) -> Value {
    let mut endpoints = Vec::new();
    let mut resolution = "DNS";
    if let Some(dns) = discovery.get("dns") {
        match dns.get("hostname").as_ref().and_then(Cursor::text) {
            Some(name) => endpoints.push(json!({"address": name.trim_end_matches('.')})),
            None => dns.lost("has no hostname"),
        }
        resolution = dns
            .word_of("responseType", &[("LOADBALANCER", "DNS_ROUND_ROBIN"), ("ENDPOINTS", "DNS")])
            .unwrap_or("DNS_ROUND_ROBIN");
        ip_preference(&dns);
    }
    if let Some(map) = discovery.get("awsCloudMap") {
        if let (Some(service), Some(space)) = (map.get("serviceName"), map.get("namespaceName"))
            && let (Some(name), Some(space)) = (service.text(), space.text())
        {
            endpoints.push(json!({"address": format!("{name}.{}", space.trim_end_matches('.'))}));
            service.note(
                "found by its name in DNS here; a Cloud Map namespace that is asked by API only has none: let its tasks \
                 register instead",
            );
        }
        if let Some(attributes) = map.get("attributes") {
            attributes.lost("a name in DNS has all instances; let tasks register, with labels and subsets");
        }
        ip_preference(&map);
    }
    if endpoints.is_empty() {
        // Until tasks register there is nobody.
        resolution = "STATIC";
    }
    service::entry_spec(host, ports, resolution, endpoints)
}

fn ip_preference(at: &Cursor<'_>) {
    if let Some(preference) = at.get("ipPreference") {
        preference.lost("addresses are taken as DNS gives them");
    }
}

fn settings(listener: &Cursor<'_>) -> Map<String, Value> {
    let mut settings = Map::new();
    if let Some(pools) = listener.get("connectionPool") {
        put(&mut settings, "connectionPool", pool(&pools));
    }
    if let Some(outliers) = listener.get("outlierDetection") {
        let mut map = Map::new();
        put(&mut map, "consecutive5xxErrors", outliers.number_of("maxServerErrors", 1, 2_147_483_647));
        for (ours, theirs) in [("interval", "interval"), ("baseEjectionTime", "baseEjectionDuration")] {
            let time =
                outliers.get(theirs).filter(|at| at.dig(&["value"]).is_some_and(|v| v.peek() != &json!(0)));
            put(&mut map, ours, time.and_then(|at| duration(&at)));
        }
        put(&mut map, "maxEjectionPercent", outliers.number_of("maxEjectionPercent", 0, 100));
        put(&mut settings, "outlierDetection", filled(map));
    }
    if let Some(check) = listener.get("healthCheck") {
        check.lost("hosts are judged by their registration and by outlier detection");
    }
    if let Some(timeout) = listener.get("timeout") {
        timeout.changed(
            "the callee's own limit: here the caller's holds, that of the route, and 15s where a route has none",
        );
    }
    settings
}

/// `connectionPool`: which is given depends on the listener's protocol.
pub(super) fn pool(pools: &Cursor<'_>) -> Option<Value> {
    const NUMBER_MAX: u64 = 2_147_483_647;
    let (mut tcp, mut http) = (Map::new(), Map::new());
    for kind in ["http", "tcp"] {
        let max = pools.dig(&[kind, "maxConnections"]).and_then(|at| at.number(1, NUMBER_MAX));
        put(&mut tcp, "maxConnections", max);
    }
    let pending = pools.dig(&["http", "maxPendingRequests"]).and_then(|at| at.number(1, NUMBER_MAX));
    put(&mut http, "http1MaxPendingRequests", pending);
    for kind in ["http2", "grpc"] {
        let max = pools.dig(&[kind, "maxRequests"]).and_then(|at| at.number(1, NUMBER_MAX));
        put(&mut http, "http2MaxRequests", max);
    }
    let mut pool = Map::new();
    put(&mut pool, "tcp", filled(tcp));
    put(&mut pool, "http", filled(http));
    filled(pool)
}

fn tls(listener: &Cursor<'_>) -> Option<TlsMode> {
    let tls = listener.get("tls")?;
    for part in ["certificate", "validation"] {
        if let Some(at) = tls.get(part) {
            at.changed("certificates and trust are the mesh's own: identities come with registration");
        }
    }
    let mode = tls.word_of("mode", &TLS_MODES)?;
    if let Some(at) = tls.get("mode") {
        match mode {
            TlsMode::Strict => at.note("callers need a certificate of the mesh, and workloads a sidecar"),
            TlsMode::Permissive => at.note("the default here: plaintext and the mesh's TLS"),
            TlsMode::Disabled => {
                at.note("members of the mesh use its TLS all the same where both have a sidecar")
            }
        }
    }
    Some(mode)
}

/// What callers insist on: `clientPolicy.tls` of their backends.
pub(super) fn backends_with_tls(world: &World<'_>) -> NeedTls {
    let mut need = NeedTls::new();
    for item in world.input.all(Kind::Node) {
        let general = item.spec.dig(&["backendDefaults", "clientPolicy", "tls"]);
        let backends = item.spec.items("backends");
        let services = backends.iter().filter_map(|backend| backend.get("virtualService"));
        for service in services {
            let tls = service.dig(&["clientPolicy", "tls"]).or_else(|| general.clone());
            let (Some(tls), Some(name)) = (tls, service.get("virtualServiceName")) else { continue };
            let name = name.peek().as_str().unwrap_or_default();
            insist(world, item.mesh, name, &tls, &mut need);
        }
    }
    need
}

fn insist(world: &World<'_>, mesh: &str, service: &str, tls: &Cursor<'_>, need: &mut NeedTls) {
    for part in ["certificate", "validation"] {
        if let Some(at) = tls.get(part) {
            at.changed("certificates and trust are the mesh's own: identities come with registration");
        }
    }
    // Enforced where nothing is said, which is App Mesh's default.
    if tls.flag_of("enforce") == Some(false) {
        return;
    }
    tls.note("holds for all callers of these backends, not for this one only");
    let ports: Vec<u16> = tls
        .items("ports")
        .iter()
        .filter_map(|at| at.number(1, 65_535).and_then(|port| u16::try_from(port).ok()))
        .collect();
    for node in service::targets(world, mesh, service) {
        let mut add = |port| need.insert((mesh.to_owned(), node.clone(), port));
        if ports.is_empty() {
            add(None);
        }
        for port in &ports {
            add(Some(*port));
        }
    }
}
