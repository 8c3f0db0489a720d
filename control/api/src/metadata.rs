//! What travels in the metadata of Envoy's resources because Envoy has no field for it.
//!
//! All of it sits under one namespace, so that other receivers pass it by:
//! `metadata.filter_metadata["outrigger"]`, a `Struct` with the keys below. Clusters and endpoints carry [`LABELS`];
//! clusters [`CLOSE_ON_HOST_REMOVAL`]; virtual hosts and routes [`RETRY_NON_IDEMPOTENT`], which speaks of the retry policy
//! beside it. The proxy refuses other keys in the namespace.

use crate::envoy::config::core::v3::Metadata;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

/// The key in `filter_metadata`.
pub const NAMESPACE: &str = "outrigger";
/// A mapping of texts: labels for metrics and logs.
pub const LABELS: &str = "labels";
/// A boolean: close the connections of a host as soon as it leaves its cluster.
pub const CLOSE_ON_HOST_REMOVAL: &str = "close_connections_on_host_removal";
/// A boolean: requests that are not idempotent may be sent again although the application may have seen them.
pub const RETRY_NON_IDEMPOTENT: &str = "retry_non_idempotent";

/// Metadata with the given labels and switches, or `None` when there is nothing to say.
pub fn of(labels: &[(String, String)], switches: &[(&str, bool)]) -> Option<Metadata> {
    let mut ours = Struct::default();
    if !labels.is_empty() {
        let fields = labels.iter().map(|(k, v)| (k.clone(), value(Kind::StringValue(v.clone())))).collect();
        ours.fields.insert(LABELS.to_owned(), value(Kind::StructValue(Struct { fields })));
    }
    for (name, _) in switches.iter().filter(|(_, on)| *on) {
        ours.fields.insert((*name).to_owned(), value(Kind::BoolValue(true)));
    }
    let mut metadata = Metadata::default();
    if !ours.fields.is_empty() {
        metadata.filter_metadata.insert(NAMESPACE.to_owned(), ours);
        return Some(metadata);
    }
    None
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}
