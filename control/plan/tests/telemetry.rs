//! Access logs and traces of a whole mesh.

mod world;

use std::sync::Arc;

use outrigger_plan::{MeshTracing, Settings};
use outrigger_traffic::config::{
    AccessLog, AccessLogFormat, AccessLogSink, ClusterDiscovery, EndpointAddress, Fraction,
};
use world::*;

const COLLECTOR: &str = "trace-collector";

fn observed(collector: EndpointAddress) -> outrigger_plan::World {
    let log = AccessLog { sink: AccessLogSink::Stdout, format: AccessLogFormat::Default, filter: None };
    let settings = Settings {
        access_log: vec![log],
        tracing: Some(MeshTracing { collector, sampling: Fraction::from_percent(5) }),
        ..Settings::default()
    };
    outrigger_plan::World { settings: Arc::new(settings), ..world(demo(), "") }
}

#[test]
fn every_connection_manager_logs_and_traces_under_its_services_name() {
    let world = observed(EndpointAddress::Socket("10.0.0.9:4317".parse().expect("address")));
    let planned = planned(&world, &sidecar(&world, "b-v1-2"));
    let chains = planned.config.listeners.iter().flat_map(|l| &l.filter_chains);
    let managers: Vec<_> = chains.map(http).collect();
    assert!(managers.len() >= 2, "one for each direction at least");
    for manager in managers {
        let tracing = manager.tracing.as_ref().expect("traces");
        assert_eq!(
            (tracing.service_name.as_str(), tracing.collector_cluster.as_str()),
            ("b.demo", COLLECTOR)
        );
        assert_eq!(tracing.random_sampling, Fraction::from_percent(5));
        assert_eq!(manager.access_log.len(), 1);
    }
    assert!(matches!(cluster(&planned.config, COLLECTOR).discovery, ClusterDiscovery::Static(_)));
}

#[test]
fn collector_with_a_name_is_resolved_by_each_proxy() {
    let world = observed(EndpointAddress::Name("otel.internal".into(), 4317));
    for node in [sidecar(&world, "a-v1-1"), gateway("demo")] {
        let planned = planned(&world, &node);
        assert!(matches!(cluster(&planned.config, COLLECTOR).discovery, ClusterDiscovery::StrictDns { .. }));
    }
}

#[test]
fn mesh_that_is_not_observed_has_no_collector() {
    let world = world(demo(), "");
    let planned = planned(&world, &sidecar(&world, "a-v1-1"));
    assert!(!planned.config.clusters.iter().any(|c| c.name == COLLECTOR));
}
