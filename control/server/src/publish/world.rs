//! Everything a plan is made from, at one revision. Immutable; a change makes a new one that shares the
//! rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::source::register::Workloads;
use crate::store::{Key, Record};

/// Kinds of our own records begin with this; they are no resources.
pub const INTERNAL_PREFIX: char = '~';

/// An operator's resource as it is stored: the object as written, and its history in numbers.
#[derive(Clone, PartialEq, Debug)]
pub struct Resource {
    /// Kind, namespace, name.
    pub key: Key,
    /// The whole object: `apiVersion`, `kind`, `metadata`, `spec`.
    pub object: Value,
    /// The revision that wrote it.
    pub resource_version: u64,
    /// How many times it has changed.
    pub generation: u64,
    /// Milliseconds since 1970.
    pub created_unix_ms: i64,
    /// Milliseconds since 1970.
    pub updated_unix_ms: i64,
}

impl From<Record> for Resource {
    fn from(record: Record) -> Self {
        Self {
            key: record.key,
            object: record.value,
            resource_version: record.resource_version,
            generation: record.generation,
            created_unix_ms: record.created_unix_ms,
            updated_unix_ms: record.updated_unix_ms,
        }
    }
}

impl Resource {
    /// The object with the numbers in its metadata, as the operator API shows it. Kubernetes' names.
    pub fn shown(&self) -> Value {
        let mut object = redacted(self.object.clone());
        let metadata = object.as_object_mut().map(|object| object.entry("metadata").or_insert_with(empty));
        if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!(self.resource_version.to_string()));
            metadata.insert("generation".to_owned(), json!(self.generation));
            metadata.insert("creationTimestamp".to_owned(), json!(clock::rfc3339(self.created_unix_ms)));
        }
        object
    }
}

/// A resource without what must not leave this service: the values of a `Secret`.
pub fn redacted(mut object: Value) -> Value {
    if object.get("kind").and_then(Value::as_str) == Some("Secret") {
        for field in ["data", "stringData"] {
            if let Some(values) = object.get_mut(field).and_then(Value::as_object_mut) {
                values.values_mut().for_each(|value| *value = json!("[redacted]"));
            }
        }
    }
    object
}

fn empty() -> Value {
    Value::Object(Map::new())
}

/// See the module.
#[derive(Clone, Default)]
pub struct World {
    /// The store's revision the resources are of.
    pub revision: u64,
    /// Resources by their keys.
    pub resources: Arc<BTreeMap<Key, Arc<Resource>>>,
    /// Workloads under a lease.
    pub workloads: Workloads,
}

impl World {
    /// The resources of a store's listing, without our own records.
    pub fn resources_of(records: Vec<Record>) -> BTreeMap<Key, Arc<Resource>> {
        records
            .into_iter()
            .filter(|record| !record.key.kind.starts_with(INTERNAL_PREFIX))
            .map(|record| (record.key.clone(), Arc::new(Resource::from(record))))
            .collect()
    }
}

/// What a listing of workloads shows of one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadLine<'a> {
    /// The workload.
    #[serde(flatten)]
    pub workload: &'a crate::source::Workload,
    /// Whether its proxy is connected.
    pub proxy_connected: bool,
}
