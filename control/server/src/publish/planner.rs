//! The seam to the planner: what the publisher asks of it.
//!
//! The product's is [`super::istio`]; tests bring their own.

use std::sync::Arc;

use outrigger_plan::{NodeConfig, ProxyNode};
use outrigger_traffic::config::ConfigError;
use serde::Serialize;
use serde_json::Value;

use super::world::World;
use crate::store::Key;

/// One thing that is wrong with a resource, or with what follows from it.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Kind, namespace and name, or what could be read of them.
    pub resource: String,
    /// Path of the field; may be empty.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// The proxy that would reject it; empty when the resource is wrong by itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub proxy: String,
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self { resource: error.resource, path: error.path, reason: error.reason, proxy: String::new() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [self.resource.as_str(), self.path.as_str(), self.reason.as_str()];
        let known: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        write!(f, "{}", known.join(": "))?;
        if self.proxy.is_empty() { Ok(()) } else { write!(f, " (proxy {})", self.proxy) }
    }
}

/// A resource that was read.
#[derive(Clone, PartialEq, Debug)]
pub struct Parsed {
    /// Kind, namespace (default `default`) and name.
    pub key: Key,
    /// The object, without what the server adds to metadata.
    pub object: Value,
    /// `metadata.resourceVersion`, when the operator gave it: the change is made only if it still holds.
    pub resource_version: Option<u64>,
}

/// Decides what proxies are sent. Pure: no I/O, no clock; calls may take milliseconds.
pub trait Planner: Send + Sync + 'static {
    /// Reads one or more resources, YAML or JSON.
    ///
    /// *Errors*: everything that is wrong with every one of them.
    fn parse(&self, text: &str) -> Result<Vec<Parsed>, Vec<Problem>>;

    /// Gets ready to plan for the proxies of this world.
    ///
    /// *Errors*: everything that makes its resources unusable.
    fn prepare(&self, world: &World) -> Result<Arc<dyn Plan>, Vec<Problem>>;

    /// Proxies that must accept a change though none like them is connected: they find mistakes in
    /// resources for workloads that come later.
    fn stand_ins(&self, world: &World) -> Vec<ProxyNode>;
}

/// A world made ready.
pub trait Plan: Send + Sync + 'static {
    /// What one proxy is to be sent.
    fn assemble(&self, node: &ProxyNode) -> NodeConfig;

    /// Compiles a configuration as the proxy will.
    ///
    /// *Errors*: everything the proxy would reject.
    fn check(&self, config: &NodeConfig) -> Result<(), Vec<Problem>>;
}
