//! The event log: one line of JSON per event, with the fields of `envoy.data.core.v3.HealthCheckEvent`.

use crate::live::LiveCluster;
use crate::telemetry::access_log::LogChannel;
use jiff::Timestamp;
use outrigger_traffic::cluster::Host;
use outrigger_traffic::config::{AccessLogSink, HealthCheck, Probe};
use outrigger_traffic::health::{Event, Found};
use serde_json::{Value, json};
use std::sync::Arc;

/// Hands events to the writer of logs; where that is too far behind they are lost, with a warning.
pub(super) fn write(
    log: &LogChannel,
    cluster: &LiveCluster,
    rules: &HealthCheck,
    host: &Host,
    found: Found,
    events: &[Event],
) {
    let mut lines = Vec::new();
    for event in events {
        lines.extend_from_slice(line(cluster, rules, host, found, *event).to_string().as_bytes());
        lines.push(b'\n');
    }
    for path in &rules.event_logs {
        let sink = Arc::new(AccessLogSink::File(path.clone()));
        if log.write(&sink, lines.clone()).is_err() {
            tracing::warn!(
                cluster = &*cluster.name,
                path,
                "health check events are lost: the writer is behind"
            );
        }
    }
}

fn line(cluster: &LiveCluster, rules: &HealthCheck, host: &Host, found: Found, event: Event) -> Value {
    let kind = match &rules.probe {
        Probe::Http(_) => "HTTP",
        Probe::Tcp(_) => "TCP",
        Probe::Grpc(_) => "GRPC",
    };
    let cause = match found {
        Found::Unreachable => "NETWORK",
        Found::TimedOut => "NETWORK_TIMEOUT",
        Found::Passive => "PASSIVE",
        Found::Healthy | Found::Degraded | Found::Wrong { .. } => "ACTIVE",
    };
    let (name, what) = match event {
        Event::EjectUnhealthy => ("eject_unhealthy_event", json!({"failure_type": cause})),
        Event::AddHealthy { first } => ("add_healthy_event", json!({"first_check": first})),
        Event::Success => ("successful_health_check_event", json!({})),
        Event::Failure { first } => {
            ("health_check_failure_event", json!({"failure_type": cause, "first_check": first}))
        }
        Event::Degraded => ("degraded_healthy_host", json!({})),
        Event::NoLongerDegraded => ("no_longer_degraded_host", json!({})),
    };
    let address = json!({
        "protocol": "TCP",
        "address": host.address.ip(),
        "port_value": host.address.port(),
    });
    let locality = json!({
        "region": host.locality.region,
        "zone": host.locality.zone,
        "sub_zone": host.locality.sub_zone,
    });
    json!({
        "health_checker_type": kind,
        "host": {"socket_address": address},
        "cluster_name": &*cluster.name,
        "timestamp": Timestamp::now().to_string(),
        "locality": locality,
        name: what,
    })
}
