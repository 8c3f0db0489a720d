//! `WorkloadEntry`: a workload that does not register itself.

use std::collections::BTreeMap;

use outrigger_traffic::config::Locality;

use super::read::Node;
use super::{service_entry, shape};

/// Highest weight of an endpoint. The sum over a locality must fit 32 bits (Envoy: `load_balancing_weight`), which
/// this leaves room for with 65,535 endpoints.
pub const WEIGHT_MAX: u32 = 65_535;

/// One workload, alone or inline in a `ServiceEntry`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WorkloadEntry {
    /// IP address or host name.
    pub address: String,
    /// Its own ports, by name of the service's port.
    pub ports: BTreeMap<String, u16>,
    /// For subsets and selectors.
    pub labels: BTreeMap<String, String>,
    /// Where it is.
    pub locality: Locality,
    /// Share relative to its siblings, at least 1.
    pub weight: u32,
    /// Service account of its identity; empty: not known.
    pub service_account: String,
}

/// Label by which Istio marks workloads that have a mesh proxy in front of them.
const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

impl WorkloadEntry {
    pub(super) fn read(spec: &Node<'_>) -> Option<Self> {
        spec.message(&shape::WORKLOAD_ENTRY, |f| Self {
            address: f.required("address").map(|n| service_entry::check_address(&n)).unwrap_or_default(),
            ports: f
                .field("ports")
                .map(|n| n.entries().into_iter().map(|(name, port)| (name, port.port())).collect())
                .unwrap_or_default(),
            labels: f.texts_by_key("labels"),
            locality: f.field("locality").map(|n| parse_locality(&n.text())).unwrap_or_default(),
            weight: f.field("weight").map_or(1, |n| n.number(0, WEIGHT_MAX)).max(1),
            service_account: f.text("serviceAccount"),
        })
    }

    pub(super) fn read_endpoint(node: &Node<'_>) -> Option<Self> {
        Self::read(node)
    }

    /// Whether a proxy of the mesh takes its traffic, so that callers must use mesh TLS.
    pub fn has_proxy(&self) -> bool {
        self.labels.get(TLS_MODE_LABEL).is_some_and(|mode| mode == "istio")
    }
}

/// Reads `region/zone/sub-zone`; missing parts are empty.
pub fn parse_locality(text: &str) -> Locality {
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Locality { region: next(), zone: next(), sub_zone: next() }
}
