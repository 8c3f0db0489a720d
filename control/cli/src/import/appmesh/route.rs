//! What is done with requests: targets, timeouts and retries of routes.

use serde_json::{Map, Value, json};

use super::matching::{self, Match};
use super::{Item, Kind, World, duration, node};
use crate::import::resource::put;
use crate::import::trace::Cursor;

/// App Mesh's limit for requests of routes that give none.
pub(super) const TIMEOUT_DEFAULT: &str = "15s";

/// A route, read.
pub(super) enum Rule {
    Http(Box<HttpRule>),
    /// As in a VirtualService.
    Tcp(Value),
}

/// For requests.
pub(super) struct HttpRule {
    pub(super) matched: Match,
    pub(super) destinations: Vec<Value>,
    pub(super) timeout: String,
    pub(super) retries: Option<Value>,
}

impl HttpRule {
    /// As in a VirtualService, with another match where the gateway asks for one.
    pub(super) fn value(&self, name: &str, matched: &Match, rewrite: Option<Value>) -> Value {
        let mut map = Map::new();
        map.insert("name".to_owned(), json!(name));
        put(&mut map, "match", matched.value().map(|one| json!([one])));
        put(&mut map, "rewrite", rewrite);
        map.insert("route".to_owned(), json!(self.destinations));
        map.insert("timeout".to_owned(), json!(self.timeout));
        put(&mut map, "retries", self.retries.clone());
        Value::Object(map)
    }
}

/// Reads a route.
///
/// *Errors*: why it cannot be expressed.
pub(super) fn read(world: &World<'_>, item: &Item<'_>) -> Result<Rule, String> {
    let kinds = ["httpRoute", "http2Route", "grpcRoute", "tcpRoute"];
    let mut given = kinds.iter().filter_map(|kind| Some((*kind, item.spec.get(kind)?)));
    let Some((kind, at)) = given.next() else {
        return Err("none of httpRoute, http2Route, grpcRoute and tcpRoute is given".to_owned());
    };
    if given.next().is_some() {
        return Err("only one of httpRoute, http2Route, grpcRoute and tcpRoute can be given".to_owned());
    }
    let destinations = destinations(world, item.mesh, &at)?;
    for family in ["http", "http2", "grpc", "tcp"] {
        if let Some(idle) = at.dig(&["timeout", family, "idle"]).or_else(|| at.dig(&["timeout", "idle"])) {
            idle.lost("there is no limit for the idle time of a single request or connection");
        }
    }
    if kind == "tcpRoute" {
        let mut map = Map::new();
        if let Some(matched) = at.get("match") {
            if let Some((key, _)) = matched.fields().iter().find(|(key, _)| *key != "port") {
                return Err(format!("the condition {key:?} is not known"));
            }
            if matched.get("port").is_some() {
                let port = matched.port_of("port").ok_or("the port is not understood")?;
                map.insert("match".to_owned(), json!([{"port": port}]));
            }
        }
        map.insert("route".to_owned(), json!(destinations));
        return Ok(Rule::Tcp(Value::Object(map)));
    }
    Ok(Rule::Http(Box::new(HttpRule {
        matched: matching::read(at.get("match").as_ref(), kind == "grpcRoute")?,
        destinations,
        timeout: timeout(&at).unwrap_or_else(|| TIMEOUT_DEFAULT.to_owned()),
        retries: at.get("retryPolicy").map(|at| retries(&at)),
    })))
}

/// `timeout.perRequest`, as the API has it, or below the protocol's name as in a listener.
fn timeout(at: &Cursor<'_>) -> Option<String> {
    let timeout = at.get("timeout")?;
    let family = ["http", "http2", "grpc"].iter().find_map(|family| timeout.dig(&[family, "perRequest"]));
    duration(&timeout.get("perRequest").or(family)?)
}

fn destinations(world: &World<'_>, mesh: &str, at: &Cursor<'_>) -> Result<Vec<Value>, String> {
    let targets = at.dig(&["action", "weightedTargets"]).map(|at| at.list()).unwrap_or_default();
    let mut found = Vec::new();
    let mut sum = 0;
    for target in &targets {
        let name = target.text_of("virtualNode").ok_or("a target has no virtual node")?;
        let weight = target.number_of("weight", 0, 1_000_000).ok_or("a target's weight is not understood")?;
        let given = match target.get("port") {
            None => None,
            Some(_) => Some(target.port_of("port").ok_or("a target's port is not understood")?),
        };
        sum += weight;
        found.push((destination(world, mesh, name, given, target), weight));
    }
    if found.is_empty() {
        return Err("it has no target".to_owned());
    }
    if sum == 0 {
        return Err("its weights add up to 0".to_owned());
    }
    if let ([(destination, _)], [target]) = (found.as_slice(), targets.as_slice()) {
        if let Some(weight) = target.get("weight").filter(|_| sum != 100) {
            weight.note("a single target takes all, whatever its weight");
        }
        return Ok(vec![json!({"destination": destination, "weight": sum})]);
    }
    let weighted =
        found.into_iter().map(|(destination, weight)| json!({"destination": destination, "weight": weight}));
    Ok(weighted.collect())
}

/// A virtual node as a destination. Without a port it is the one of its only, or first, listener.
pub(super) fn destination(
    world: &World<'_>,
    mesh: &str,
    name: &str,
    port: Option<u16>,
    at: &Cursor<'_>,
) -> Value {
    let mut map = Map::new();
    map.insert("host".to_owned(), json!(world.node_host(mesh, name)));
    let known = world.input.find(Kind::Node, mesh, name);
    if known.is_none() {
        at.note(format!("virtual node {name:?} is not in the input: its tasks must register"));
    }
    let port = port.or_else(|| known.and_then(|item| node::ports(item).first().map(|(port, _)| *port)));
    put(&mut map, "port", port.map(|port| json!({"number": port})));
    Value::Object(map)
}

/// What App Mesh retries on, and what that is here. `stream-error` is a refused stream, `client-error` a 409.
const EVENTS: [(&str, &[(&str, &str)]); 3] = [
    (
        "httpRetryEvents",
        &[
            ("server-error", "5xx"),
            ("gateway-error", "gateway-error"),
            ("client-error", "retriable-4xx"),
            ("stream-error", "refused-stream"),
        ],
    ),
    ("tcpRetryEvents", &[("connection-error", "connect-failure")]),
    (
        "grpcRetryEvents",
        &[
            ("cancelled", "cancelled"),
            ("deadline-exceeded", "deadline-exceeded"),
            ("internal", "internal"),
            ("resource-exhausted", "resource-exhausted"),
            ("unavailable", "unavailable"),
        ],
    ),
];

fn retries(at: &Cursor<'_>) -> Value {
    let mut map = Map::new();
    put(&mut map, "attempts", at.number_of("maxRetries", 0, 100));
    put(&mut map, "perTryTimeout", at.get("perRetryTimeout").and_then(|at| duration(&at)));
    let mut words = Vec::new();
    for (field, events) in EVENTS {
        words.extend(at.items(field).iter().filter_map(|event| event.word(events)));
    }
    put(&mut map, "retryOn", (!words.is_empty()).then(|| words.join(",")));
    Value::Object(map)
}
