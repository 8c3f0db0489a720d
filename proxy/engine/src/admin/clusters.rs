//! `/clusters`: clusters, hosts and their live state.

use super::server::{Context, Reply};
use crate::live::LiveCluster;
use outrigger_traffic::cluster::Host;
use outrigger_traffic::config::{ClusterDiscovery, HealthStatus, Thresholds};
use outrigger_traffic::health::Flag;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Text, or `format=json` with Envoy's fields.
pub(super) fn clusters(context: &Context<'_>) -> Reply {
    let live = context.steering.shared.live.load_full();
    let mut all: Vec<_> = live.clusters.iter().flatten().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    if context.wants_json() {
        let statuses: Vec<Value> = all.into_iter().map(cluster_json).collect();
        return Reply::json(&json!({"cluster_statuses": statuses}));
    }
    let mut body = String::new();
    for cluster in all {
        write_cluster(cluster, &mut body);
    }
    Reply::text(body)
}

fn write_cluster(cluster: &LiveCluster, out: &mut String) {
    let name = &cluster.name;
    let config = &cluster.cluster.config;
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{name}::observability_name::{}", observability_name(cluster));
    for (priority, limits) in
        [("default", &config.circuit_breakers.default), ("high", &config.circuit_breakers.high)]
    {
        let _ = writeln!(out, "{name}::{priority}_priority::max_connections::{}", limits.max_connections);
        let _ = writeln!(
            out,
            "{name}::{priority}_priority::max_pending_requests::{}",
            limits.max_pending_requests
        );
        let _ = writeln!(out, "{name}::{priority}_priority::max_requests::{}", limits.max_requests);
        let _ = writeln!(out, "{name}::{priority}_priority::max_retries::{}", limits.max_retries);
    }
    let _ = writeln!(out, "{name}::added_via_api::{}", is_dynamic(cluster));
    for host in cluster.cluster.hosts().hosts() {
        let at = format!("{name}::{}", host.address);
        for (field, value) in numbers(host) {
            let _ = writeln!(out, "{at}::{field}::{value}");
        }
        let _ = writeln!(out, "{at}::hostname::{}", host.hostname);
        let _ = writeln!(out, "{at}::health_flags::{}", health_flags(host));
        let _ = writeln!(out, "{at}::weight::{}", host.weight);
        let _ = writeln!(out, "{at}::region::{}", host.locality.region);
        let _ = writeln!(out, "{at}::zone::{}", host.locality.zone);
        let _ = writeln!(out, "{at}::sub_zone::{}", host.locality.sub_zone);
        let _ = writeln!(out, "{at}::canary::false");
        let _ = writeln!(out, "{at}::priority::{}", host.priority);
        // Envoy's word for "not known".
        let _ = writeln!(out, "{at}::success_rate::{}", host.success_rate().unwrap_or(-1.0));
        let _ = writeln!(
            out,
            "{at}::local_origin_success_rate::{}",
            host.local_origin_success_rate().unwrap_or(-1.0)
        );
    }
}

fn observability_name(cluster: &LiveCluster) -> &str {
    let config = &cluster.cluster.config;
    if config.alt_stat_name.is_empty() { &config.name } else { &config.alt_stat_name }
}

fn is_dynamic(cluster: &LiveCluster) -> bool {
    matches!(cluster.cluster.config.discovery, ClusterDiscovery::Eds { .. })
}

/// Envoy's host stats; counters and gauges by name.
fn numbers(host: &Host) -> [(&'static str, u64); 7] {
    let live = &host.live;
    let (total, error) = (live.requests_total.load(Relaxed), live.requests_error.load(Relaxed));
    [
        ("cx_active", live.connections_active.load(Relaxed).into()),
        ("cx_connect_fail", live.connections_failed.load(Relaxed)),
        ("cx_total", live.connections_total.load(Relaxed)),
        ("rq_active", live.requests_active.load(Relaxed).into()),
        ("rq_error", error),
        ("rq_success", total.saturating_sub(error).saturating_sub(live.requests_active.load(Relaxed).into())),
        ("rq_total", total),
    ]
}

fn health_flags(host: &Host) -> String {
    let probed = &host.live.probed;
    let flags = [
        (probed.has(Flag::Failed), "/failed_active_hc"),
        (host.is_ejected(), "/failed_outlier_check"),
        (matches!(host.health, HealthStatus::Unhealthy | HealthStatus::Timeout), "/failed_eds_health"),
        (probed.has(Flag::Degraded), "/degraded_active_hc"),
        (host.health == HealthStatus::Degraded, "/degraded_eds_health"),
        (probed.has(Flag::Pending), "/pending_active_hc"),
        (probed.has(Flag::Excluded), "/excluded_via_immediate_hc_fail"),
        (probed.has(Flag::TimedOut), "/active_hc_timeout"),
        (host.health == HealthStatus::Timeout, "/eds_status_timeout"),
        (host.health == HealthStatus::Draining, "/eds_status_draining"),
    ];
    let text: String = flags.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name).collect();
    if text.is_empty() { "healthy".into() } else { text }
}

fn cluster_json(cluster: &Arc<LiveCluster>) -> Value {
    let config = &cluster.cluster.config;
    let breakers = &config.circuit_breakers;
    let hosts: Vec<Value> = cluster.cluster.hosts().hosts().iter().map(|host| host_json(host)).collect();
    let mut status = json!({
        "name": &*cluster.name,
        "added_via_api": is_dynamic(cluster),
        "host_statuses": hosts,
        "circuit_breakers": {"thresholds": [
            threshold_json("DEFAULT", &breakers.default),
            threshold_json("HIGH", &breakers.high),
        ]},
        "observability_name": observability_name(cluster),
    });
    if let (ClusterDiscovery::Eds { service_name }, Some(status)) =
        (&config.discovery, status.as_object_mut())
    {
        let name = if service_name.is_empty() { &config.name } else { service_name };
        status.insert("eds_service_name".into(), json!(name));
    }
    status
}

fn threshold_json(priority: &str, limits: &Thresholds) -> Value {
    json!({
        "priority": priority,
        "max_connections": limits.max_connections,
        "max_pending_requests": limits.max_pending_requests,
        "max_requests": limits.max_requests,
        "max_retries": limits.max_retries,
    })
}

fn host_json(host: &Host) -> Value {
    // 64-bit integers are strings in protobuf's JSON mapping.
    let stats: Vec<Value> = numbers(host)
        .into_iter()
        .map(|(name, value)| {
            let kind = if name.ends_with("_active") { "GAUGE" } else { "COUNTER" };
            json!({"name": name, "value": value.to_string(), "type": kind})
        })
        .collect();
    let eds = match host.health {
        HealthStatus::Unknown | HealthStatus::Healthy => "HEALTHY",
        HealthStatus::Unhealthy => "UNHEALTHY",
        HealthStatus::Draining => "DRAINING",
        HealthStatus::Timeout => "TIMEOUT",
        HealthStatus::Degraded => "DEGRADED",
    };
    let mut health = json!({"eds_health_status": eds});
    let probed = &host.live.probed;
    for (holds, name) in [
        (probed.has(Flag::Failed), "failed_active_health_check"),
        (host.is_ejected(), "failed_outlier_check"),
        (probed.has(Flag::Degraded), "failed_active_degraded_check"),
        (probed.has(Flag::Pending), "pending_active_hc"),
        (probed.has(Flag::Excluded), "excluded_via_immediate_hc_fail"),
        (probed.has(Flag::TimedOut), "active_hc_timeout"),
    ] {
        if let (true, Some(health)) = (holds, health.as_object_mut()) {
            health.insert(name.into(), json!(true));
        }
    }
    let address =
        json!({"socket_address": {"address": host.address.ip(), "port_value": host.address.port()}});
    let mut status = json!({
        "address": address,
        "stats": stats,
        "health_status": health,
        "hostname": &*host.hostname,
        "weight": host.weight,
        "priority": host.priority,
        "locality": {
            "region": host.locality.region,
            "zone": host.locality.zone,
            "sub_zone": host.locality.sub_zone,
        },
    });
    let rates = [
        ("success_rate", host.success_rate()),
        ("local_origin_success_rate", host.local_origin_success_rate()),
    ];
    for (field, rate) in rates {
        if let (Some(rate), Some(status)) = (rate, status.as_object_mut()) {
            status.insert(field.into(), json!({"value": rate}));
        }
    }
    status
}
