//! One node's configuration, put together by kind of output.
//!
//! [`inbound`] and [`outbound`] make a sidecar (with [`capture`] one whose application is redirected to it), [`gateway`] an edge proxy, [`proxyless`] what a gRPC client needs. They
//! share [`routes`] (rules of VirtualServices), [`clusters`] with [`endpoints`] and [`tls`], [`authentication`], [`security`], and [`telemetry`].

pub mod authentication;
pub mod capture;
pub mod claims;
pub mod clusters;
pub mod endpoints;
mod filters;
pub mod gateway;
pub mod inbound;
pub mod outbound;
pub mod proxyless;
pub mod routes;
pub mod security;
pub mod telemetry;
pub mod tls;

use outrigger_traffic::config::{Config, ConfigError};
use sha2::{Digest, Sha256};

use crate::check;
use crate::inventory::Inventory;
use crate::node::{ApiListener, NodeConfig, NodeKind, ProxyNode};
use crate::scope::{Index, Scope};
use crate::vip::VirtualIps;
use crate::world::World;

/// Plans for one world. Joining the facts is done once, for all nodes.
#[derive(Debug)]
pub struct Planner {
    world: World,
    inventory: Inventory,
    index: Index,
}

impl Planner {
    /// Joins the facts of a world.
    pub fn new(world: World) -> Self {
        Self::with_virtual_ips(world, &VirtualIps::default())
    }

    /// As above; services that had a virtual address in `held` keep it.
    pub fn with_virtual_ips(world: World, held: &VirtualIps) -> Self {
        let inventory = Inventory::with_virtual_ips(&world, held);
        let index = Index::of(&world, &inventory);
        Self { world, inventory, index }
    }

    /// The world planned for.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Services by host.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The configuration of a node, tried with the proxy's own compiler.
    ///
    /// *Errors*: every reason why the proxy would refuse it.
    pub fn plan(&self, node: &ProxyNode) -> Result<NodeConfig, Vec<ConfigError>> {
        let planned = self.assemble(node);
        check::check(&planned.config)?;
        Ok(planned)
    }

    /// The configuration of a node, not tried.
    pub fn assemble(&self, node: &ProxyNode) -> NodeConfig {
        let scope = Scope::new(&self.world, &self.inventory, &self.index, node);
        let mut config = Config::default();
        let mut api_listeners = Vec::new();
        match node.kind {
            NodeKind::Sidecar => {
                inbound::assemble(&scope, &mut config);
                outbound::assemble(&scope, &mut config);
                if let Some(capture) = &node.capture {
                    capture::assemble(&scope, capture, &mut config);
                }
            }
            NodeKind::Gateway => gateway::assemble(&scope, &mut config),
            NodeKind::Proxyless => api_listeners = proxyless::assemble(&scope, &mut config),
        }
        authentication::assemble(&mut config);
        filters::complete(&scope, &mut config, &mut api_listeners);
        clusters::assemble(&scope, &mut config);
        telemetry::assemble(&scope, &mut config);
        sort(&mut config);
        let notices = scope.into_notices();
        NodeConfig { version: version(&config, &api_listeners), config, api_listeners, notices }
    }
}

/// The configuration of a node in a world. For many nodes, make a [`Planner`].
///
/// *Errors*: every reason why the proxy would refuse it.
pub fn plan(world: &World, node: &ProxyNode) -> Result<NodeConfig, Vec<ConfigError>> {
    Planner::new(world.clone()).plan(node)
}

/// Order by name, so that equal contents are equal.
fn sort(config: &mut Config) {
    config.listeners.sort_by(|a, b| a.name.cmp(&b.name));
    config.route_configs.sort_by(|a, b| a.name.cmp(&b.name));
    config.clusters.sort_by(|a, b| a.name.cmp(&b.name));
    config.endpoints.sort_by(|a, b| a.cluster_name.cmp(&b.cluster_name));
    config.secrets.sort_by(|a, b| a.name.cmp(&b.name));
}

/// The first half of a SHA-256 over the content as JSON, in hexadecimal digits.
fn version(config: &Config, api_listeners: &[ApiListener]) -> String {
    let mut digest = Sha256::new();
    // Writing to a digest cannot fail, and every type of the model has a JSON form.
    let write = |value: serde_json::Result<Vec<u8>>| value.unwrap_or_default();
    digest.update(write(serde_json::to_vec(config)));
    for listener in api_listeners {
        digest.update(&listener.name);
        digest.update(write(serde_json::to_vec(&listener.http)));
    }
    digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
