//! Who asks: a client's `Node`, held against the identity it proved.
//!
//! Namespace and service account are those of the certificate, whatever the node says; saying something else is refused.
//! Further facts come from `node.metadata`, all optional:
//!
//! | key | meaning |
//! |---|---|
//! | `NAMESPACE`, `SERVICE_ACCOUNT` | must be the certificate's |
//! | `KIND` | `sidecar` (default), `gateway` or `proxyless` |
//! | `LABELS` | labels of a proxy without a registered workload |
//! | `OUTBOUND_ADDRESS`, `OUTBOUND_PORT` | where the application's calls are taken; each goes before what the workload registered |
//! | `INBOUND_ADDRESS` | where the mesh's calls are taken, when ports are mapped |
//! | `CAPTURE` | what of the application is redirected: `outbound` (TCP connections) and `dns` with the ports where they arrive, `forward-proxy` with a port where destinations are named |
//! | `BIND_PORTS` | registered port → port to bind, when ports are mapped |
//!
//! An id of Istio's form says the kind as well: `router~…` is a gateway, `sidecar~…` a sidecar.

use std::collections::BTreeMap;

use outrigger_api::envoy::config::core::v3::Node;
use outrigger_plan::{Capture, Flavour, NodeKind, ProxyNode};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::Status;

use crate::identity::Identity;

/// Longest id, bytes.
const ID_BYTES_MAX: usize = 253;

/// Most labels and mapped ports.
const ENTRIES_MAX: usize = 64;

/// The node as the planner knows it.
///
/// *Errors*: `INVALID_ARGUMENT` for what cannot be read, `PERMISSION_DENIED` for another's namespace or service account.
#[allow(clippy::result_large_err, reason = "the gRPC library's error type")]
pub fn proxy_node(node: &Node, identity: &Identity) -> Result<ProxyNode, Status> {
    if node.id.is_empty() || node.id.len() > ID_BYTES_MAX {
        return Err(Status::invalid_argument(format!("node.id must have 1 to {ID_BYTES_MAX} bytes")));
    }
    let facts = Facts { metadata: node.metadata.as_ref() };
    for (key, own) in [("NAMESPACE", identity.namespace()), ("SERVICE_ACCOUNT", identity.service_account())] {
        if facts.text(key)?.is_some_and(|said| said != own) {
            let text = format!("node.metadata.{key} is not that of the client certificate, {own:?}");
            return Err(Status::permission_denied(text));
        }
    }
    let flavour = flavour(&node.user_agent_name);
    let by_id = match node.id.split('~').next() {
        Some("router") => NodeKind::Gateway,
        _ if flavour == Flavour::Grpc => NodeKind::Proxyless,
        _ => NodeKind::Sidecar,
    };
    let kind = match facts.text("KIND")? {
        None => by_id,
        Some("sidecar") => NodeKind::Sidecar,
        Some("gateway") => NodeKind::Gateway,
        Some("proxyless") => NodeKind::Proxyless,
        Some(other) => {
            let text = format!("node.metadata.KIND: {other:?} is none of sidecar, gateway, proxyless");
            return Err(Status::invalid_argument(text));
        }
    };
    let mut proxy =
        ProxyNode::without_workload(&node.id, kind, identity.namespace(), identity.service_account());
    proxy.flavour = flavour;
    proxy.labels = facts.map("LABELS", |value| match value {
        Kind::StringValue(text) => Some(text.clone()),
        _ => None,
    })?;
    proxy.outbound_port = facts.one("OUTBOUND_PORT", port)?;
    proxy.outbound_address = facts.one("OUTBOUND_ADDRESS", parsed)?;
    proxy.inbound_address = facts.one("INBOUND_ADDRESS", parsed)?;
    let mapped: BTreeMap<String, u16> = facts.map("BIND_PORTS", port)?;
    for (from, to) in mapped {
        let from = from.parse().map_err(|_| refused("BIND_PORTS"))?;
        proxy.bind_ports.insert(from, to);
    }
    let captured: BTreeMap<String, u16> = facts.map("CAPTURE", port)?;
    if !captured.is_empty() {
        let mut capture = Capture::default();
        for (what, port) in captured {
            match what.as_str() {
                "outbound" => {
                    capture.outbound = true;
                    proxy.outbound_port = Some(port);
                }
                "dns" => capture.dns_port = Some(port),
                "forward-proxy" => capture.forward_proxy_port = Some(port),
                _ => return Err(refused("CAPTURE")),
            }
        }
        proxy.capture = Some(capture);
    }
    Ok(proxy)
}

fn flavour(user_agent: &str) -> Flavour {
    let lower = user_agent.to_ascii_lowercase();
    if lower.starts_with("grpc") {
        Flavour::Grpc
    } else if lower.starts_with("envoy") {
        Flavour::Envoy
    } else {
        Flavour::Outrigger
    }
}

struct Facts<'a> {
    metadata: Option<&'a Struct>,
}

impl<'a> Facts<'a> {
    fn value(&self, key: &str) -> Option<&'a Kind> {
        self.metadata?.fields.get(key)?.kind.as_ref()
    }

    #[allow(clippy::result_large_err, reason = "the gRPC library's error type")]
    fn text(&self, key: &str) -> Result<Option<&'a str>, Status> {
        match self.value(key) {
            None => Ok(None),
            Some(Kind::StringValue(text)) => Ok(Some(text)),
            Some(_) => Err(refused(key)),
        }
    }

    #[allow(clippy::result_large_err, reason = "the gRPC library's error type")]
    fn one<T>(&self, key: &str, read: impl Fn(&Kind) -> Option<T>) -> Result<Option<T>, Status> {
        self.value(key).map(|value| read(value).ok_or_else(|| refused(key))).transpose()
    }

    #[allow(clippy::result_large_err, reason = "the gRPC library's error type")]
    fn map<T>(&self, key: &str, read: impl Fn(&Kind) -> Option<T>) -> Result<BTreeMap<String, T>, Status> {
        let entries = match self.value(key) {
            None => return Ok(BTreeMap::new()),
            Some(Kind::StructValue(entries)) if entries.fields.len() <= ENTRIES_MAX => entries,
            Some(_) => return Err(refused(key)),
        };
        let read = |(name, value): (&String, &Value)| {
            let value = value.kind.as_ref().and_then(&read).ok_or_else(|| refused(key))?;
            Ok((name.clone(), value))
        };
        entries.fields.iter().map(read).collect()
    }
}

fn refused(key: &str) -> Status {
    Status::invalid_argument(format!("node.metadata.{key} cannot be read"))
}

/// A port, as a number or a text.
fn port(value: &Kind) -> Option<u16> {
    match value {
        Kind::NumberValue(number) if number.fract() == 0.0 && (1.0..=65_535.0).contains(number) => {
            // In range by the line above.
            Some(*number as u16)
        }
        Kind::StringValue(text) => text.parse().ok().filter(|port| *port > 0),
        _ => None,
    }
}

fn parsed<T: std::str::FromStr>(value: &Kind) -> Option<T> {
    match value {
        Kind::StringValue(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value { kind: Some(Kind::StringValue(value.to_owned())) }
    }

    fn node(id: &str, facts: &[(&str, Value)]) -> Node {
        let fields = facts.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        Node { id: id.to_owned(), metadata: Some(Struct { fields }), ..Node::default() }
    }

    fn identity() -> Identity {
        Identity::new("cluster.local", "demo", "a").unwrap()
    }

    #[test]
    fn namespace_of_another_is_refused_and_the_own_is_taken_from_the_certificate() {
        let found = proxy_node(&node("a-1", &[("NAMESPACE", text("demo"))]), &identity()).unwrap();
        assert_eq!((found.namespace.as_str(), found.service_account.as_str()), ("demo", "a"));
        for (key, value) in [("NAMESPACE", "bank"), ("SERVICE_ACCOUNT", "root")] {
            let refused = proxy_node(&node("a-1", &[(key, text(value))]), &identity()).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        }
        assert!(proxy_node(&node("", &[]), &identity()).is_err());
    }

    #[test]
    fn facts_of_the_metadata_are_read_and_bad_ones_refused() {
        let ports = Struct { fields: [("15008".to_owned(), text("8443"))].into() };
        let ports = Value { kind: Some(Kind::StructValue(ports)) };
        let facts = [
            ("OUTBOUND_PORT", Value { kind: Some(Kind::NumberValue(15001.0)) }),
            ("BIND_PORTS", ports),
            ("OUTBOUND_ADDRESS", text("0.0.0.0")),
        ];
        let found = proxy_node(&node("router~10.0.0.1~gw.demo~x", &facts), &identity()).unwrap();
        assert_eq!(found.kind, NodeKind::Gateway);
        assert_eq!(found.outbound_port, Some(15_001));
        assert_eq!(found.outbound_address, Some([0, 0, 0, 0].into()));
        assert_eq!(found.bind_ports.get(&15_008), Some(&8_443));
        for bad in [
            ("OUTBOUND_PORT", text("0")),
            ("OUTBOUND_ADDRESS", text("mesh")),
            ("KIND", text("king")),
            ("LABELS", text("a=b")),
        ] {
            let refused = proxy_node(&node("a-1", &[bad]), &identity()).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        }
    }

    #[test]
    fn capture_is_read_and_what_is_not_known_of_it_refused() {
        let parts = |parts: &[(&str, f64)]| {
            let number = |n: f64| Value { kind: Some(Kind::NumberValue(n)) };
            let fields = parts.iter().map(|(what, port)| ((*what).to_owned(), number(*port))).collect();
            Value { kind: Some(Kind::StructValue(Struct { fields })) }
        };
        let read = |value| proxy_node(&node("a-1", &[("CAPTURE", value)]), &identity());
        let found = read(parts(&[("outbound", 15_001.0), ("dns", 15_053.0)])).unwrap();
        let expected = Capture { outbound: true, dns_port: Some(15_053), forward_proxy_port: None };
        assert_eq!((found.capture, found.outbound_port), (Some(expected), Some(15_001)));
        assert_eq!(read(parts(&[])).unwrap().capture, None);
        for bad in [parts(&[("inbound", 15_006.0)]), parts(&[("dns", 0.0)]), text("all")] {
            assert_eq!(read(bad).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }

    #[test]
    fn grpc_clients_are_known_by_their_user_agent() {
        let mut node = node("c-1", &[]);
        node.user_agent_name = "gRPC C-core linux".into();
        let found = proxy_node(&node, &identity()).unwrap();
        assert_eq!((found.flavour, found.kind), (Flavour::Grpc, NodeKind::Proxyless));
    }
}
