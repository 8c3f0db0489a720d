//! Where spans of a mesh go. Access logs need nothing but their format and stand in the listeners.

use std::time::Duration;

use outrigger_traffic::config::{
    Cluster, ClusterDiscovery, Config, DnsFamily, Endpoint, EndpointAddress, Endpoints, Fraction,
    HttpUpstream, LocalityEndpoints, Tracing,
};

use crate::node::NodeKind;
use crate::scope::Scope;

/// Cluster of the collector. No service can have this name: names of theirs have bars in them.
pub const COLLECTOR: &str = "trace-collector";

/// The name of a collector is looked up again after this, where its answer says nothing.
const REFRESH: Duration = Duration::from_secs(30);

/// What connection managers say of tracing.
pub fn tracing(scope: &Scope<'_>) -> Option<Tracing> {
    let told = scope.world.settings.tracing.as_ref()?;
    Some(Tracing {
        client_sampling: Fraction::ONE,
        random_sampling: told.sampling,
        overall_sampling: Fraction::ONE,
        service_name: service_name(scope),
        collector_cluster: COLLECTOR.to_owned(),
        ..Tracing::default()
    })
}

/// `SERVICE.NAMESPACE`, as in Istio's traces; what is no service has its service account's name there.
fn service_name(scope: &Scope<'_>) -> String {
    let node = scope.node;
    let service = node.workload.as_ref().map(|workload| workload.service.as_str());
    let name = service.filter(|name| !name.is_empty()).unwrap_or(&node.service_account);
    format!("{name}.{}", node.namespace)
}

/// Adds the collector to what a proxy knows.
pub fn assemble(scope: &Scope<'_>, config: &mut Config) {
    let Some(told) = scope.world.settings.tracing.as_ref() else { return };
    if scope.node.kind == NodeKind::Proxyless {
        return;
    }
    let mut endpoint = Endpoint::at(([127, 0, 0, 1], 0).into());
    endpoint.address = told.collector.clone();
    let endpoints = Endpoints {
        cluster_name: COLLECTOR.to_owned(),
        localities: vec![LocalityEndpoints { endpoints: vec![endpoint], ..LocalityEndpoints::default() }],
        overprovisioning_factor: None,
    };
    let discovery = match &told.collector {
        EndpointAddress::Socket(_) => ClusterDiscovery::Static(endpoints),
        EndpointAddress::Name(..) => ClusterDiscovery::StrictDns {
            endpoints,
            refresh_rate: REFRESH,
            respect_ttl: true,
            family: DnsFamily::Auto,
        },
    };
    let mut cluster = Cluster::new(COLLECTOR, discovery);
    cluster.http.protocol = HttpUpstream::Http2;
    cluster.http.http1 = Default::default();
    config.clusters.push(cluster);
}
