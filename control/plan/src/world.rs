//! Everything a plan is made from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use outrigger_traffic::config::{AccessLog, EndpointAddress, Fraction, Locality};

use crate::protocol::Protocol;
use crate::resource::Object;

/// Resources, workloads and settings at one moment. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// What operators applied.
    pub resources: Vec<Arc<Object>>,
    /// What registered.
    pub workloads: Vec<Arc<Workload>>,
    /// What the mesh was started with.
    pub settings: Arc<Settings>,
}

/// Settings of the whole mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Trust domain of identities. Default `cluster.local`.
    pub trust_domain: String,
    /// Last part of the mesh's own host names: `SERVICE.NAMESPACE.mesh`. Default `mesh`.
    pub mesh_domain: String,
    /// Namespace whose policies hold for the whole mesh. Default `outrigger-system`.
    pub root_namespace: String,
    /// Access log of every proxy. Default none.
    pub access_log: Vec<AccessLog>,
    /// Tracing of every proxy. Default none.
    pub tracing: Option<MeshTracing>,
}

/// Traces of a whole mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshTracing {
    /// Collector that takes OTLP over gRPC, in plaintext, as the proxies reach it.
    pub collector: EndpointAddress,
    /// Share of the requests that are sampled when their caller has not decided it.
    pub sampling: Fraction,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".into(),
            mesh_domain: "mesh".into(),
            root_namespace: "outrigger-system".into(),
            access_log: Vec::new(),
            tracing: None,
        }
    }
}

impl Settings {
    /// The identity of a service account.
    pub fn spiffe_id(&self, namespace: &str, service_account: &str) -> String {
        format!("spiffe://{}/ns/{namespace}/sa/{service_account}", self.trust_domain)
    }
}

/// A running instance of an application, as it registered.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Unique within the namespace.
    pub instance_id: String,
    /// Where it belongs.
    pub namespace: String,
    /// Whose identity it has.
    pub service_account: String,
    /// The service it is an instance of; empty: none.
    pub service: String,
    /// For selectors and subsets. Has `app` and `version` when they are known.
    pub labels: BTreeMap<String, String>,
    /// Where other hosts reach it.
    pub address: IpAddr,
    /// What it offers.
    pub ports: Vec<WorkloadPort>,
    /// `node.id` of its proxy.
    pub node_id: String,
    /// Where it is.
    pub locality: Locality,
    /// Port at `address` at which its proxy accepts the mesh's traffic; `None`: it has no proxy.
    pub inbound_port: Option<u16>,
    /// Port at which its proxy takes the application's calls.
    pub outbound_port: Option<u16>,
    /// Address of the above to bind: the loopback address, unless the application has a network namespace of its own.
    pub outbound_address: IpAddr,
    /// Share relative to its siblings, at least 1.
    pub weight: u32,
    /// As announced.
    pub health: Health,
    /// A gateway, and no instance of a service.
    pub gateway: bool,
}

/// A port of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadPort {
    /// Unique within the workload.
    pub name: String,
    /// Port callers name.
    pub number: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// Where the proxy reaches the application.
    pub target_address: IpAddr,
    /// Port of the application.
    pub target_port: u16,
    /// Where the proxy accepts traffic for this port alone; `None`: the workload's.
    pub inbound_port: Option<u16>,
}

/// Health as announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Takes requests.
    #[default]
    Healthy,
    /// Not to be sent requests.
    Unhealthy,
    /// Finishes what it has.
    Draining,
}

/// Label of a workload that restricts who sees its service, as the annotation of that name does in Istio: namespaces
/// separated by commas, `.` for its own, `*` for all (the default), `~` for none.
pub const EXPORT_TO_LABEL: &str = "networking.istio.io/exportTo";

/// Label of a workload that says what it may reach where its connections are redirected: `allow-any` (the default), or
/// `registry-only` for services of the mesh alone.
pub const OUTBOUND_POLICY_LABEL: &str = "outrigger.dev/outbound-policy";

/// Label of a workload that opens loopback ports for services that do not speak HTTP:
/// `15432=db.demo:5432;16379=cache:6379` (a comma will do as well). A call to the port on the left reaches the service on the right.
pub const TCP_OUTBOUND_LABEL: &str = "outrigger.dev/tcp-outbound";
