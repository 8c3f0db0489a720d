//! The proxy that is planned for, and what it gets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use outrigger_traffic::config::{Config, HttpConnectionManager};

use crate::world::Workload;

/// A connected proxy. Namespace and service account are those of its proven identity.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyNode {
    /// `node.id`.
    pub id: String,
    /// What it is there for.
    pub kind: NodeKind,
    /// Where it belongs.
    pub namespace: String,
    /// Whose identity it has.
    pub service_account: String,
    /// Of the proxy; those of the workload when it has one.
    pub labels: BTreeMap<String, String>,
    /// The registered workload it stands in front of.
    pub workload: Option<Arc<Workload>>,
    /// What software it is.
    pub flavour: Flavour,
    /// Where the application's calls are taken when the proxy says so itself; else the workload's, without a workload the
    /// IPv4 loopback address.
    pub outbound_address: Option<IpAddr>,
    /// Port of the above when the proxy says so itself; else the workload's.
    pub outbound_port: Option<u16>,
    /// Where the mesh's traffic is accepted, when it is not the workload's address: a container behind mapped ports.
    pub inbound_address: Option<IpAddr>,
    /// Ports to bind instead of registered ones, for mapped ports: registered → bound.
    pub bind_ports: BTreeMap<u16, u16>,
    /// What that leaves its application is redirected to it; `None`: nothing.
    pub capture: Option<Capture>,
}

/// What of an application is redirected to its sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// Connections that go out come to the outbound port, wherever they were going.
    pub outbound: bool,
    /// Port of the loopback address at which its questions for addresses arrive.
    pub dns_port: Option<u16>,
    /// Port of the loopback address at which the application may name destinations itself (HTTP CONNECT, SOCKS5).
    pub forward_proxy_port: Option<u16>,
}

impl ProxyNode {
    /// A sidecar in front of a workload.
    pub fn sidecar(workload: Arc<Workload>) -> Self {
        Self {
            id: workload.node_id.clone(),
            kind: NodeKind::Sidecar,
            namespace: workload.namespace.clone(),
            service_account: workload.service_account.clone(),
            labels: workload.labels.clone(),
            workload: Some(workload),
            flavour: Flavour::Outrigger,
            outbound_address: None,
            outbound_port: None,
            inbound_address: None,
            bind_ports: BTreeMap::new(),
            capture: None,
        }
    }

    /// A proxy without a workload.
    pub fn without_workload(
        id: impl Into<String>,
        kind: NodeKind,
        namespace: impl Into<String>,
        service_account: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            kind,
            namespace: namespace.into(),
            service_account: service_account.into(),
            labels: BTreeMap::new(),
            workload: None,
            flavour: Flavour::Outrigger,
            outbound_address: None,
            outbound_port: None,
            inbound_address: None,
            bind_ports: BTreeMap::new(),
            capture: None,
        }
    }
}

/// What a proxy is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Beside an application.
    Sidecar,
    /// At the mesh's edge.
    Gateway,
    /// Inside an application: a gRPC client that speaks xDS itself.
    Proxyless,
}

/// What software a proxy is, where plans differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// Ours.
    Outrigger,
    /// Envoy: it does not protect non-idempotent requests from being sent again, so it gets fewer retry conditions.
    Envoy,
    /// A gRPC library: no listeners with addresses, no SDS, localities need weights.
    Grpc,
}

/// What a node is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// Digest of the content: equal contents have equal versions.
    pub version: String,
    /// For proxies.
    pub config: Config,
    /// For gRPC clients: listeners without an address, by target name. Their route tables are in `config`.
    pub api_listeners: Vec<ApiListener>,
    /// What an operator should know about this plan: references to things that are not there, and the like.
    pub notices: Vec<Notice>,
}

/// A listener of a gRPC client.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiListener {
    /// The target name, as in `b.demo.mesh:8080`.
    pub name: String,
    /// How it is called.
    pub http: HttpConnectionManager,
}

/// Something that is allowed and probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// The resource, as in `VirtualService/demo/b`.
    pub resource: String,
    /// What about it.
    pub text: String,
}
