//! Virtual services and the routers behind them.

use std::collections::BTreeSet;

use outrigger_plan::Kind as Made_;
use serde_json::{Map, Value, json};

use super::matching;
use super::route::{self, HttpRule, Rule, TIMEOUT_DEFAULT};
use super::{Item, Kind, World, node, port_mapping};
use crate::import::resource::{self, Made, put};

/// Who answers for a virtual service.
pub(super) enum Provider<'a> {
    Node(&'a str),
    Router(&'a str),
    Nobody,
}

pub(super) fn provider<'a>(item: &Item<'a>) -> Provider<'a> {
    let name = |kind: &str, field: &str| item.spec.dig(&["provider", kind, field]).and_then(|at| at.text());
    if let Some(node) = name("virtualNode", "virtualNodeName") {
        return Provider::Node(node);
    }
    match name("virtualRouter", "virtualRouterName") {
        Some(router) => Provider::Router(router),
        None => Provider::Nobody,
    }
}

/// The virtual nodes that a virtual service can lead to.
pub(super) fn targets(world: &World<'_>, mesh: &str, service: &str) -> BTreeSet<String> {
    let Some(item) = world.input.find(Kind::Service, mesh, service) else { return BTreeSet::new() };
    match provider(item) {
        Provider::Node(node) => BTreeSet::from([node.to_owned()]),
        Provider::Router(router) => {
            let mut found = BTreeSet::new();
            for route in world.input.routes(Kind::Route, mesh, router) {
                for kind in ["httpRoute", "http2Route", "grpcRoute", "tcpRoute"] {
                    let Some(at) = route.spec.dig(&[kind, "action", "weightedTargets"]) else { continue };
                    let names = at.list().into_iter().filter_map(|t| t.peek().get("virtualNode")?.as_str());
                    found.extend(names.map(str::to_owned));
                }
            }
            found
        }
        Provider::Nobody => BTreeSet::new(),
    }
}

/// `spec` of a ServiceEntry of the mesh.
pub(super) fn entry_spec(
    host: &str,
    ports: &[(u16, &str)],
    resolution: &str,
    endpoints: Vec<Value>,
) -> Value {
    let mut seen = BTreeSet::new();
    let ports: Vec<Value> = ports
        .iter()
        .filter(|(port, _)| seen.insert(*port))
        .map(|(port, protocol)| {
            let name = format!("{}-{port}", protocol.to_ascii_lowercase());
            json!({"number": port, "name": name, "protocol": protocol})
        })
        .collect();
    let mut spec = Map::new();
    spec.insert("hosts".to_owned(), json!([host]));
    spec.insert("ports".to_owned(), json!(ports));
    spec.insert("location".to_owned(), json!("MESH_INTERNAL"));
    spec.insert("resolution".to_owned(), json!(resolution));
    put(&mut spec, "endpoints", (!endpoints.is_empty()).then_some(endpoints));
    Value::Object(spec)
}

/// The rules of a virtual service, in order, each with the name of its route.
pub(super) fn rules(world: &World<'_>, item: &Item<'_>) -> Vec<(String, Rule)> {
    match provider(item) {
        Provider::Node(name) => {
            let node = world.input.find(Kind::Node, item.mesh, name);
            let is_tcp =
                node.is_some_and(|n| node::ports(n).first().is_some_and(|(_, spoken)| *spoken == "TCP"));
            let only = json!({"destination": route::destination(world, item.mesh, name, None, &item.spec)});
            let Ok(matched) = matching::read(None, false) else { return Vec::new() };
            let rule = if is_tcp {
                Rule::Tcp(json!({"route": [only]}))
            } else {
                let timeout = TIMEOUT_DEFAULT.to_owned();
                Rule::Http(Box::new(HttpRule { matched, destinations: vec![only], timeout, retries: None }))
            };
            vec![(name.to_owned(), rule)]
        }
        Provider::Router(router) => {
            let mut rules = Vec::new();
            for item in world.input.routes(Kind::Route, item.mesh, router) {
                match route::read(world, item) {
                    Ok(rule) => rules.push((item.name.to_owned(), rule)),
                    Err(reason) => item.cursor.lost(format!("the route is left out: {reason}")),
                }
            }
            rules
        }
        Provider::Nobody => Vec::new(),
    }
}

/// Ports under which callers use a virtual service.
pub(super) fn ports(world: &World<'_>, item: &Item<'_>) -> Vec<(u16, &'static str)> {
    match provider(item) {
        Provider::Node(name) => {
            world.input.find(Kind::Node, item.mesh, name).map(node::ports).unwrap_or_default()
        }
        Provider::Router(name) => {
            let router = world.input.find(Kind::Router, item.mesh, name);
            let listeners = router.map(|router| router.spec.items("listeners")).unwrap_or_default();
            listeners.iter().filter_map(port_mapping).collect()
        }
        Provider::Nobody => Vec::new(),
    }
}

/// Makes the name that callers use, and its routes.
pub(super) fn make(world: &World<'_>, item: &Item<'_>, made: &mut Made) {
    let Some(host) = resource::host(item.name) else {
        item.cursor.lost("left out: its name is no host name");
        return;
    };
    let ports = ports(world, item);
    if ports.is_empty() {
        item.cursor.lost("left out: its provider is not in the input, or has no listener");
        return;
    }
    let namespace = world.namespace(item.mesh);
    let from = format!("App Mesh virtual service {}", item.name);
    let spec = entry_spec(&host, &ports, "STATIC", Vec::new());
    made.add(Made_::ServiceEntry, &namespace, item.name, &from, &item.cursor, spec);
    let (mut http, mut tcp) = (Vec::new(), Vec::new());
    for (name, rule) in rules(world, item) {
        let (layer, value) = match rule {
            Rule::Http(rule) => ("http", rule.value(&name, &rule.matched, None)),
            Rule::Tcp(value) => ("tcp", value),
        };
        if let Some(reason) = resource::refusal(layer, &value) {
            let route = world.input.all(Kind::Route).iter().find(|r| r.mesh == item.mesh && r.name == name);
            route.unwrap_or(item).cursor.lost(format!("the route is left out: {reason}"));
            continue;
        }
        if layer == "http" { http.push(value) } else { tcp.push(value) }
    }
    if http.is_empty() && tcp.is_empty() {
        item.spec.note("none of its routes could be carried over: requests to it are answered with 503");
        return;
    }
    let mut spec = Map::new();
    spec.insert("hosts".to_owned(), json!([host]));
    put(&mut spec, "http", (!http.is_empty()).then_some(http));
    put(&mut spec, "tcp", (!tcp.is_empty()).then_some(tcp));
    made.add(Made_::VirtualService, &namespace, item.name, &from, &item.cursor, Value::Object(spec));
}

/// Routers and routes that no virtual service leads to.
pub(super) fn leftovers(world: &World<'_>) {
    let used: BTreeSet<(&str, &str)> = world
        .input
        .all(Kind::Service)
        .iter()
        .filter_map(|item| match provider(item) {
            Provider::Router(router) => Some((item.mesh, router)),
            Provider::Node(_) | Provider::Nobody => None,
        })
        .collect();
    for router in world.input.all(Kind::Router).iter().filter(|r| !used.contains(&(r.mesh, r.name))) {
        router.cursor.lost("no virtual service of the input is provided by this router");
    }
    for route in world.input.all(Kind::Route) {
        let has_router = world.input.find(Kind::Router, route.mesh, route.parent).is_some();
        if !used.contains(&(route.mesh, route.parent)) || !has_router {
            route.cursor.lost("its router is not in the input, or no virtual service is provided by it");
        }
    }
}
