//! Kubernetes objects: the fields that are used.
//!
//! Source: Kubernetes API reference, `v1.Service`, `discovery.k8s.io/v1.EndpointSlice`, `meta/v1`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A kind of object that is listed and watched.
pub trait Object: DeserializeOwned + Send + 'static {
    /// Path of all of them, in all namespaces.
    const PATH: &'static str;
    /// Its name, for people.
    const KIND: &'static str;
    /// What is said about it.
    fn metadata(&self) -> &Metadata;
}

/// Namespace and name.
pub type Key = (String, String);

/// `meta/v1.ObjectMeta`.
#[derive(Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    pub resource_version: String,
}

impl Metadata {
    /// Its key.
    pub fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    /// A label, or else the annotation of that name.
    pub fn mark(&self, name: &str) -> Option<&str> {
        self.labels.get(name).or_else(|| self.annotations.get(name)).map(String::as_str)
    }
}

/// `v1.Service`.
#[derive(Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Service {
    pub metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceSpec,
}

/// `v1.ServiceSpec`.
#[derive(Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ServicePort>,
    #[serde(deserialize_with = "or_default")]
    pub ip_families: Vec<String>,
}

/// `v1.ServicePort`.
#[derive(Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct ServicePort {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    pub port: i64,
    #[serde(deserialize_with = "or_default")]
    pub protocol: String,
    pub app_protocol: Option<String>,
}

/// `discovery.k8s.io/v1.EndpointSlice`.
#[derive(Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct EndpointSlice {
    pub metadata: Metadata,
    pub address_type: String,
    #[serde(deserialize_with = "or_default")]
    pub endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<EndpointPort>,
}

/// `discovery.k8s.io/v1.Endpoint`.
#[derive(Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Endpoint {
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub conditions: Conditions,
    pub target_ref: Option<Reference>,
    pub zone: Option<String>,
}

/// `discovery.k8s.io/v1.EndpointConditions`.
#[derive(Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Conditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

/// `v1.ObjectReference`.
#[derive(Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Reference {
    pub kind: String,
    pub name: String,
}

/// `discovery.k8s.io/v1.EndpointPort`.
#[derive(Deserialize, Clone, Default, PartialEq, Eq, Debug)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct EndpointPort {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    pub port: Option<i64>,
    #[serde(deserialize_with = "or_default")]
    pub protocol: String,
}

impl Object for Service {
    const PATH: &'static str = "/api/v1/services";
    const KIND: &'static str = "Service";
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Object for EndpointSlice {
    const PATH: &'static str = "/apis/discovery.k8s.io/v1/endpointslices";
    const KIND: &'static str = "EndpointSlice";
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// A page of a list.
#[derive(Deserialize, Debug)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct List<T> {
    /// What is said about it.
    #[serde(default)]
    pub metadata: ListMetadata,
    /// The objects.
    #[serde(default = "Vec::new", deserialize_with = "or_default")]
    pub items: Vec<T>,
}

/// `meta/v1.ListMeta`.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct ListMetadata {
    pub resource_version: String,
    #[serde(rename = "continue", deserialize_with = "or_default")]
    pub token: String,
}

/// A line of a watch.
#[derive(Deserialize, Debug)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The object; of a bookmark only its version, of an error a `Status`.
    #[serde(default)]
    pub object: serde_json::Value,
}

/// `meta/v1.Status`: a failure.
#[derive(Deserialize, Clone, Default, Debug)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Status {
    pub code: u16,
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    #[serde(deserialize_with = "or_default")]
    pub message: String,
}

/// Some servers write `null` for "nothing".
fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
