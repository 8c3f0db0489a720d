//! `/listeners`: names and bound addresses.

use super::server::{Context, Reply};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// Text (`name::address` lines), or `format=json` with Envoy's fields.
pub(super) fn listeners(context: &Context<'_>) -> Reply {
    let mut by_name: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
    for (name, address) in context.steering.applier().all_addrs() {
        by_name.entry(name).or_default().push(address);
    }
    if context.wants_json() {
        let statuses: Vec<Value> = by_name
            .iter()
            .map(|(name, addresses)| {
                let mut all = addresses.iter().map(address_json);
                let first = all.next();
                let further: Vec<Value> = all.collect();
                let mut status = json!({"name": name, "local_address": first});
                if let (false, Some(status)) = (further.is_empty(), status.as_object_mut()) {
                    status.insert("additional_local_addresses".into(), Value::Array(further));
                }
                status
            })
            .collect();
        return Reply::json(&json!({"listener_statuses": statuses}));
    }
    let mut body = String::new();
    for (name, addresses) in by_name {
        for address in addresses {
            // Writing to a String cannot fail.
            let _ = writeln!(body, "{name}::{address}");
        }
    }
    Reply::text(body)
}

fn address_json(address: &SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}})
}
