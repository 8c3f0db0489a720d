//! Virtual gateways and their routes.
//!
//! A gateway route leads to a virtual service, whose own routes come after it. Here both are one route, so they are
//! combined: its requests are those that the gateway route takes and, after its rewrite, the route behind it takes too.

use outrigger_plan::Kind as Made_;
use serde_json::{Map, Value, json};

use super::matching::{self, Match, Path};
use super::node::{TLS_MODES, TlsMode, pool};
use super::route::Rule;
use super::{Item, Kind, World, port_mapping, service};
use crate::import::resource::{self, Made, filled, put};
use crate::import::trace::Cursor;

/// Makes the ports of a gateway and the routes behind them.
pub(super) fn make(world: &World<'_>, item: &Item<'_>, made: &mut Made) {
    let namespace = world.namespace(item.mesh);
    let from = format!("App Mesh virtual gateway {}", item.name);
    let servers: Vec<Value> = item.spec.items("listeners").iter().filter_map(|at| server(item, at)).collect();
    if let Some(logging) = item.spec.get("logging") {
        logging.lost("access logs are a setting of the proxy, not of resources");
    }
    if let Some(defaults) = item.spec.get("backendDefaults") {
        defaults.changed("TLS to services is that of the mesh; identities come with registration");
    }
    if servers.is_empty() {
        item.cursor.lost("left out: no listener that is understood");
        return;
    }
    let selector = json!({"app": resource::label(item.name)});
    let spec = json!({"selector": selector, "servers": servers});
    made.add(Made_::Gateway, &namespace, item.name, &from, &item.cursor, spec);
    let mut routes = Vec::new();
    for route in world.input.routes(Kind::GatewayRoute, item.mesh, item.name) {
        match expand(world, route) {
            Ok(found) => routes.extend(found),
            Err(reason) => route.cursor.lost(format!("the route is left out: {reason}")),
        }
    }
    if !routes.is_empty() {
        let spec = json!({"hosts": ["*"], "gateways": [resource::label(item.name)], "http": routes});
        let name = format!("{}-routes", item.name);
        made.add(Made_::VirtualService, &namespace, &name, &from, &item.cursor, spec);
    }
}

fn server(item: &Item<'_>, at: &Cursor<'_>) -> Option<Value> {
    let Some((port, spoken)) = port_mapping(at) else {
        at.lost("has no port that is understood");
        return None;
    };
    for (field, reason) in [
        ("healthCheck", "gateways are not checked through this port; their admin port tells readiness"),
        ("timeout", "the limits of the routes hold"),
    ] {
        if let Some(at) = at.get(field) {
            at.lost(reason);
        }
    }
    if let Some(pools) = at.get("connectionPool") {
        // Read so that what is said of it is the same whether or not it is well formed.
        let _ = pool(&pools);
        pools.lost("limits hold per service called (DestinationRule), not per port of a gateway");
    }
    let mut server = Map::new();
    server.insert("hosts".to_owned(), json!(["*"]));
    let mode = at.get("tls").and_then(|tls| tls.word_of("mode", &TLS_MODES));
    let tls = at.get("tls").filter(|_| mode != Some(TlsMode::Disabled));
    let protocol = if tls.is_some() { "HTTPS" } else { spoken };
    let name = format!("{}-{port}", protocol.to_ascii_lowercase());
    server.insert("port".to_owned(), json!({"number": port, "name": name, "protocol": protocol}));
    if let Some(tls) = tls {
        let secret = format!("{}-{port}", resource::label(item.name));
        if let Some(certificate) = tls.get("certificate") {
            certificate.changed(format!("put the certificate and its key into the Secret {secret:?}"));
        }
        let clients = tls.get("validation");
        if let Some(validation) = &clients {
            validation.changed(format!("put the clients' roots as ca.crt into the Secret {secret:?}"));
        }
        if mode == Some(TlsMode::Permissive)
            && let Some(at) = tls.get("mode")
        {
            at.note("a port cannot take both: this one takes TLS only; add another port for plaintext");
        }
        let mode = if clients.is_some() { "MUTUAL" } else { "SIMPLE" };
        server.insert("tls".to_owned(), json!({"mode": mode, "credentialName": secret}));
    } else if let Some(tls) = at.get("tls") {
        for part in ["certificate", "validation"] {
            if let Some(at) = tls.get(part) {
                at.record("TLS is disabled here");
            }
        }
    }
    Some(Value::Object(server))
}

/// A gateway route, combined with each route of the service behind it.
fn expand(world: &World<'_>, item: &Item<'_>) -> Result<Vec<Value>, String> {
    let kinds = ["httpRoute", "http2Route", "grpcRoute"];
    let Some((kind, at)) = kinds.iter().find_map(|kind| Some((*kind, item.spec.get(kind)?))) else {
        return Err("none of httpRoute, http2Route and grpcRoute is given".to_owned());
    };
    let is_grpc = kind == "grpcRoute";
    let outer = matching::read(at.get("match").as_ref(), is_grpc)?;
    let target = at.dig(&["action", "target"]).ok_or("it has no target")?;
    let name = target.dig(&["virtualService", "virtualServiceName"]);
    let name = name.and_then(|at| at.text()).ok_or("it has no virtual service")?;
    let behind = world.input.find(Kind::Service, item.mesh, name);
    let behind = behind.ok_or_else(|| format!("virtual service {name:?} is not in the input"))?;
    let port = match target.get("port") {
        None => service::ports(world, behind).first().map(|(port, _)| *port),
        Some(_) => Some(target.port_of("port").ok_or("the target's port is not understood")?),
    };
    let (path, authority) = rewrites(&at, &outer, is_grpc, name)?;
    let mut found = Vec::new();
    for (inner_name, rule) in service::rules(world, behind) {
        let Rule::Http(rule) = rule else { continue };
        if rule.matched.port.is_some() && port.is_some() && rule.matched.port != port {
            continue;
        }
        let Some((outside, inside)) = combine(&outer.path, path.as_deref(), &rule.matched.path)? else {
            continue;
        };
        let Some(both) = outer.and(&rule.matched, outside)? else { continue };
        if rule.matched.authority.is_some() {
            return Err("the route behind it matches the host, which the gateway rewrites".to_owned());
        }
        let mut rewrite = Map::new();
        put(&mut rewrite, "uri", inside);
        put(&mut rewrite, "authority", authority.clone());
        let value = rule.value(&format!("{}.{inner_name}", item.name), &both, filled(rewrite));
        if let Some(reason) = resource::refusal("http", &value) {
            return Err(reason);
        }
        found.push(value);
    }
    if found.is_empty() {
        return Err("no route of the virtual service behind it takes any of its requests".to_owned());
    }
    Ok(found)
}

/// What takes the place of the matched path (none: it stays), and of the host.
fn rewrites(
    at: &Cursor<'_>,
    outer: &Match,
    is_grpc: bool,
    service: &str,
) -> Result<(Option<String>, Option<String>), String> {
    let switch = [("ENABLED", true), ("DISABLED", false)];
    let rewrite = at.dig(&["action", "rewrite"]);
    let field = |keys: &[&str]| rewrite.as_ref().and_then(|at| at.dig(keys));
    // Both are rewritten unless the route says otherwise.
    let host = match field(&["hostname", "defaultTargetHostname"]) {
        None => true,
        Some(at) => at.word(&switch).ok_or("the rewrite of the host is not understood")?,
    };
    let authority = if host { resource::host(service) } else { None };
    if is_grpc {
        return Ok((None, authority));
    }
    let exact = field(&["path", "exact"]);
    let value = field(&["prefix", "value"]);
    let default = match field(&["prefix", "defaultPrefix"]) {
        None => true,
        Some(at) => at.word(&switch).ok_or("the rewrite of the prefix is not understood")?,
    };
    let path = match (&outer.path, exact, value) {
        (Path::Prefix(_), None, Some(value)) => {
            Some(value.text().ok_or("the rewrite of the prefix is not understood")?.to_owned())
        }
        (Path::Prefix(prefix), None, None) => (default && prefix != "/").then(|| "/".to_owned()),
        (Path::Exact(_), Some(exact), None) => {
            Some(exact.text().ok_or("the rewrite of the path is not understood")?.to_owned())
        }
        (Path::Exact(_) | Path::Regex(_), None, None) => None,
        _ => return Err("this rewrite does not fit to its match".to_owned()),
    };
    Ok((path, authority))
}

/// The paths that come in from outside and, rewritten, fulfil `inner`; and what then takes their place.
///
/// *Errors*: they cannot be expressed.
fn combine(
    outer: &Path,
    rewrite: Option<&str>,
    inner: &Path,
) -> Result<Option<(Path, Option<String>)>, String> {
    let kept = |text: &str| rewrite.map(|_| text.to_owned());
    Ok(match (outer, inner) {
        (Path::Prefix(prefix), Path::Prefix(wanted)) => {
            let inside = rewrite.unwrap_or(prefix);
            if inside.starts_with(wanted.as_str()) {
                Some((outer.clone(), kept(inside)))
            } else {
                narrowed(prefix, inside, wanted).map(|outside| (Path::Prefix(outside), kept(wanted)))
            }
        }
        (Path::Prefix(prefix), Path::Exact(wanted)) => {
            let inside = rewrite.unwrap_or(prefix);
            narrowed(prefix, inside, wanted).map(|outside| (Path::Exact(outside), kept(wanted)))
        }
        (Path::Prefix(prefix), Path::Regex(_)) if prefix == "/" && rewrite.is_none_or(|to| to == "/") => {
            Some((inner.clone(), None))
        }
        (Path::Exact(path), Path::Prefix(wanted)) => {
            let inside = rewrite.unwrap_or(path);
            inside.starts_with(wanted.as_str()).then(|| (outer.clone(), kept(inside)))
        }
        (Path::Exact(path), Path::Exact(wanted)) => {
            let inside = rewrite.unwrap_or(path);
            (inside == wanted).then(|| (outer.clone(), kept(inside)))
        }
        (Path::Regex(_), Path::Prefix(wanted)) if wanted == "/" => Some((outer.clone(), None)),
        _ => {
            return Err(
                "its path and the path of a route behind it cannot both be matched, as one is a pattern"
                    .to_owned(),
            );
        }
    })
}

/// The outside path of `wanted`, when `inside` stands for `prefix`.
fn narrowed(prefix: &str, inside: &str, wanted: &str) -> Option<String> {
    let rest = wanted.strip_prefix(inside)?;
    // `/api` stands for `/`: what is `/x` inside is `/api/x` outside.
    let slash = if inside.ends_with('/') && !prefix.ends_with('/') && !rest.is_empty() { "/" } else { "" };
    Some(format!("{prefix}{slash}{rest}"))
}

/// Gateway routes whose gateway is not there.
pub(super) fn leftovers(world: &World<'_>) {
    for route in world.input.all(Kind::GatewayRoute) {
        if world.input.find(Kind::Gateway, route.mesh, route.parent).is_none() {
            route.cursor.lost("its virtual gateway is not in the input");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_both_routes_become_one() {
        let prefix = |text: &str| Path::Prefix(text.to_owned());
        let exact = |text: &str| Path::Exact(text.to_owned());
        let regex = |text: &str| Path::Regex(text.to_owned());
        for (outer, rewrite, inner, expected) in [
            (prefix("/"), None, prefix("/"), Some((prefix("/"), None))),
            (prefix("/shop"), Some("/"), prefix("/"), Some((prefix("/shop"), Some("/")))),
            (prefix("/shop/"), Some("/"), prefix("/v1"), Some((prefix("/shop/v1"), Some("/v1")))),
            (prefix("/shop"), Some("/"), prefix("/v1"), Some((prefix("/shop/v1"), Some("/v1")))),
            (prefix("/shop"), None, prefix("/v1"), None),
            (prefix("/shop"), None, prefix("/shop/v1"), Some((prefix("/shop/v1"), None))),
            (prefix("/shop"), Some("/v1/x"), prefix("/v1"), Some((prefix("/shop"), Some("/v1/x")))),
            (prefix("/shop/"), Some("/"), exact("/cart"), Some((exact("/shop/cart"), Some("/cart")))),
            (prefix("/"), None, regex("/[a-z]+"), Some((regex("/[a-z]+"), None))),
            (exact("/a"), None, prefix("/"), Some((exact("/a"), None))),
            (exact("/a"), Some("/b"), exact("/b"), Some((exact("/a"), Some("/b")))),
            (exact("/a"), Some("/b"), exact("/a"), None),
            (exact("/a"), None, prefix("/b"), None),
            (regex("/.*"), None, prefix("/"), Some((regex("/.*"), None))),
        ] {
            let expected = expected.map(|(path, to)| (path, to.map(str::to_owned)));
            assert_eq!(combine(&outer, rewrite, &inner), Ok(expected), "{outer:?} {rewrite:?} {inner:?}");
        }
        for (outer, inner) in [
            (prefix("/shop"), regex("/.*")),
            (exact("/a"), regex("/.*")),
            (regex("/.*"), prefix("/a")),
            (regex("/.*"), regex("/.*")),
        ] {
            assert!(combine(&outer, None, &inner).is_err(), "{outer:?} {inner:?}");
        }
    }
}
