//! All of a node's resources, encoded, by type and name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

pub use outrigger_api::Kind;
use outrigger_api::{any, envoy};
use outrigger_plan::NodeConfig;
use outrigger_traffic::config::{ClusterDiscovery, Secret};
use prost::{Message, Name};
use prost_types::Any;
use sha2::{Digest, Sha256};

use super::encode;

/// One resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Digest of the content.
    pub version: String,
    /// The message.
    pub resource: Any,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Version of the plan it was made from.
    pub version: String,
    kinds: [Arc<BTreeMap<String, Entry>>; 5],
    /// EDS names that its clusters refer to.
    endpoints_of: Arc<BTreeMap<String, String>>,
}

impl Catalog {
    /// Encodes a plan.
    pub fn of(node: &NodeConfig) -> Self {
        let config = &node.config;
        let mut listeners: BTreeMap<String, Entry> =
            config.listeners.iter().map(|v| (v.name.clone(), entry(&encode::listener(v)))).collect();
        listeners
            .extend(node.api_listeners.iter().map(|v| (v.name.clone(), entry(&encode::api_listener(v)))));
        let referred = config.clusters.iter().filter_map(|cluster| match &cluster.discovery {
            ClusterDiscovery::Eds { service_name } => Some((cluster.name.clone(), service_name.clone())),
            ClusterDiscovery::Static(_)
            | ClusterDiscovery::StrictDns { .. }
            | ClusterDiscovery::LogicalDns { .. }
            | ClusterDiscovery::OriginalDst(_) => None,
        });
        let kinds = [
            config.clusters.iter().map(|v| (v.name.clone(), entry(&encode::cluster(v)))).collect(),
            config.endpoints.iter().map(|v| (v.cluster_name.clone(), entry(&encode::endpoints(v)))).collect(),
            config.secrets.iter().map(secret_entry).collect(),
            listeners,
            config.route_configs.iter().map(|v| (v.name.clone(), entry(&encode::route_config(v)))).collect(),
        ];
        Self {
            version: node.version.clone(),
            kinds: kinds.map(Arc::new),
            endpoints_of: Arc::new(referred.collect()),
        }
    }

    /// The same, with further secrets.
    pub fn with_secrets(mut self, secrets: &[Secret]) -> Self {
        if !secrets.is_empty() {
            let [_, _, held, ..] = &mut self.kinds;
            Arc::make_mut(held).extend(secrets.iter().map(secret_entry));
        }
        self
    }

    /// All resources of a type.
    pub fn of_kind(&self, kind: Kind) -> &BTreeMap<String, Entry> {
        let [clusters, endpoints, secrets, listeners, route_configs] = &self.kinds;
        match kind {
            Kind::Cluster => clusters,
            Kind::Endpoints => endpoints,
            Kind::Secret => secrets,
            Kind::Listener => listeners,
            Kind::RouteConfig => route_configs,
        }
    }

    /// The EDS name of a cluster.
    pub fn endpoints_of(&self, cluster: &str) -> Option<&str> {
        self.endpoints_of.get(cluster).map(String::as_str)
    }
}

fn secret_entry(value: &Secret) -> (String, Entry) {
    (
        value.name.clone(),
        entry::<envoy::extensions::transport_sockets::tls::v3::Secret>(&encode::secret(value)),
    )
}

fn entry<M: Message + Name>(message: &M) -> Entry {
    let resource = any(message);
    Entry { version: digest([resource.value.as_slice()]), resource }
}

/// The first half of a SHA-256, in hexadecimal digits.
pub(super) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let mut text = String::with_capacity(32);
    for byte in digest.finalize().iter().take(16) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
