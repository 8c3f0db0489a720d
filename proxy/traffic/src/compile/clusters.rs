//! Clusters and their endpoints.

use super::Compilation;
use crate::balance::maglev::{TABLE_SIZE_MAX, is_prime};
use crate::cluster::{Cluster, Names, check_endpoints};
use crate::config::{
    self, ClusterDiscovery, Config, ConfigError, Endpoints, HttpUpstream, LbPolicy, Probe, RING_SIZE_MAX,
};
use std::collections::HashMap;
use std::sync::Arc;

/// RFC 9113 §6.9.2: windows are 31 bits; below the initial value they cannot be announced before the first data.
const WINDOW_RANGE: std::ops::RangeInclusive<u32> = 65_535..=0x7fff_ffff;

pub(super) fn compile(compilation: &mut Compilation<'_>, config: &Config) {
    let mut seen = HashMap::with_capacity(config.endpoints.len());
    let mut by_service: HashMap<&str, &Endpoints> = HashMap::with_capacity(config.endpoints.len());
    for endpoints in &config.endpoints {
        compilation.admit(&mut seen, "endpoints", &endpoints.cluster_name);
        let resource = format!("endpoints/{}", endpoints.cluster_name);
        if let Err(errors) = check_endpoints(&resource, "", endpoints, Names::Resolved) {
            compilation.errors.extend(errors);
        }
        by_service.insert(&endpoints.cluster_name, endpoints);
    }
    let mut seen = HashMap::with_capacity(config.clusters.len());
    for cluster in &config.clusters {
        if compilation.admit(&mut seen, "cluster", &cluster.name) {
            one(compilation, cluster, &by_service);
        }
    }
}

fn one(compilation: &mut Compilation<'_>, cluster: &config::Cluster, by_service: &HashMap<&str, &Endpoints>) {
    let number = compilation.clusters.number(&cluster.name);
    let delivered = match &cluster.discovery {
        ClusterDiscovery::Eds { service_name } => {
            let name = if service_name.is_empty() { &cluster.name } else { service_name };
            by_service.get(name.as_str()).copied()
        }
        ClusterDiscovery::Static(_)
        | ClusterDiscovery::StrictDns { .. }
        | ClusterDiscovery::LogicalDns { .. }
        | ClusterDiscovery::OriginalDst(_) => None,
    };
    let old = compilation.previous.and_then(|p| p.clusters.named(&cluster.name));
    if let Some(old) = old
        && *old.config == *cluster
        && old.fits(&compilation.around())
    {
        let old = old.clone();
        if let Some(endpoints) = delivered {
            compilation.updates.push((old.clone(), endpoints.clone()));
        }
        compilation.clusters.put(number, old);
        return;
    }
    let errors_before = compilation.errors.len();
    check(cluster, &mut compilation.errors);
    if let LbPolicy::Registered(name) = &cluster.lb_policy
        && !compilation.balancers.contains_key(name)
    {
        let resource = format!("cluster/{}", cluster.name);
        compilation.refuse(&resource, "lb_policy", format!("no policy `{name}` is registered"));
    }
    if compilation.errors.len() > errors_before {
        return;
    }
    let endpoints = match (delivered, &cluster.discovery) {
        (Some(endpoints), _) => Arc::new(endpoints.clone()),
        (None, ClusterDiscovery::Static(endpoints)) => Arc::new(endpoints.clone()),
        // What was discovered before stays until something else is discovered.
        (None, discovery) => match old.filter(|o| o.config.discovery == *discovery) {
            Some(old) => old.endpoints(),
            None => Arc::new(declared(discovery)),
        },
    };
    let new = Cluster::new(cluster.clone(), endpoints, old.map(|o| &**o), &compilation.around());
    compilation.clusters.put(number, Arc::new(new));
}

/// Endpoints written in a cluster; names among them wait for the resolver.
fn declared(discovery: &ClusterDiscovery) -> Endpoints {
    match discovery {
        ClusterDiscovery::Static(endpoints)
        | ClusterDiscovery::StrictDns { endpoints, .. }
        | ClusterDiscovery::LogicalDns { endpoints, .. } => endpoints.clone(),
        ClusterDiscovery::Eds { .. } | ClusterDiscovery::OriginalDst(_) => Endpoints::default(),
    }
}

fn check(cluster: &config::Cluster, errors: &mut Vec<ConfigError>) {
    let resource = format!("cluster/{}", cluster.name);
    let mut refuse = |path: &str, reason: &str| errors.push(ConfigError::new(&resource, path, reason));
    if cluster.connect_timeout.is_zero() {
        refuse("connect_timeout", "must be above 0");
    }
    if cluster.http.protocol == HttpUpstream::Auto && cluster.tls.is_none() {
        refuse(
            "typed_extension_protocol_options.auto_config",
            "needs a TLS transport socket, whose ALPN decides",
        );
    }
    for (name, window) in [
        ("initial_stream_window_size", cluster.http.http2.initial_stream_window_size),
        ("initial_connection_window_size", cluster.http.http2.initial_connection_window_size),
    ] {
        if !WINDOW_RANGE.contains(&window) {
            refuse(&format!("http2_protocol_options.{name}"), "must be between 65535 and 2147483647");
        }
    }
    if cluster.http.max_requests_per_connection == Some(0) {
        refuse("common_http_protocol_options.max_requests_per_connection", "must be at least 1");
    }
    if let Some(outlier) = &cluster.outlier_detection {
        for (name, time) in
            [("interval", outlier.interval), ("base_ejection_time", outlier.base_ejection_time)]
        {
            if time.is_zero() {
                refuse(&format!("outlier_detection.{name}"), "must be above 0");
            }
        }
        if outlier.max_ejection_percent > 100 {
            refuse("outlier_detection.max_ejection_percent", "must be at most 100");
        }
    }
    check_balancing(cluster, &resource, errors);
    check_probes(cluster, &resource, errors);
    check_discovery(cluster, &resource, errors);
}

fn check_balancing(cluster: &config::Cluster, resource: &str, errors: &mut Vec<ConfigError>) {
    let mut refuse = |path: &str, reason: &str| errors.push(ConfigError::new(resource, path, reason));
    let hashing = match &cluster.lb_policy {
        LbPolicy::RoundRobin | LbPolicy::Random | LbPolicy::Registered(_) => None,
        LbPolicy::LeastRequest(least) => {
            if least.choice_count < 2 {
                refuse("least_request_lb_config.choice_count", "must be at least 2");
            }
            if !least.active_request_bias.is_finite() || least.active_request_bias < 0.0 {
                refuse("least_request_lb_config.active_request_bias", "must not be negative");
            }
            None
        }
        LbPolicy::RingHash(ring) => {
            if ring.minimum_ring_size == 0 || ring.maximum_ring_size > RING_SIZE_MAX {
                refuse("ring_hash_lb_config", "the size of a ring is between 1 and 8388608");
            } else if ring.minimum_ring_size > ring.maximum_ring_size {
                refuse("ring_hash_lb_config.minimum_ring_size", "must not be above `maximum_ring_size`");
            }
            Some(&ring.hashing)
        }
        LbPolicy::Maglev(maglev) => {
            if maglev.table_size > TABLE_SIZE_MAX || !is_prime(maglev.table_size) {
                refuse("maglev_lb_config.table_size", "must be a prime number of at most 5000011");
            }
            Some(&maglev.hashing)
        }
    };
    if hashing.is_some_and(|hashing| hashing.balance_factor.is_some_and(|factor| factor < 100)) {
        refuse("consistent_hashing_lb_config.hash_balance_factor", "must be at least 100");
    }
    if cluster.zone_aware.routing_enabled > 100 {
        refuse("zone_aware_lb_config.routing_enabled", "must be at most 100");
    }
    if let Some(slow) = &cluster.slow_start {
        if slow.window.is_zero() {
            refuse("slow_start_config.slow_start_window", "must be above 0");
        }
        if !slow.aggression.is_finite() || slow.aggression <= 0.0 {
            refuse("slow_start_config.aggression", "must be above 0");
        }
        if matches!(cluster.lb_policy, LbPolicy::Random | LbPolicy::Registered(_)) || hashing.is_some() {
            refuse("slow_start_config", "has no effect without round robin or least request");
        }
    }
}

fn check_probes(cluster: &config::Cluster, resource: &str, errors: &mut Vec<ConfigError>) {
    let Some(check) = &cluster.health_check else { return };
    let mut refuse = |path: &str, reason: &str| {
        errors.push(ConfigError::new(resource, format!("health_checks[0].{path}"), reason))
    };
    let times = [("timeout", Some(check.timeout)), ("interval", Some(check.interval))];
    let optional = [
        ("no_traffic_interval", Some(check.no_traffic_interval)),
        ("no_traffic_healthy_interval", check.no_traffic_healthy_interval),
        ("unhealthy_interval", check.unhealthy_interval),
        ("unhealthy_edge_interval", check.unhealthy_edge_interval),
        ("healthy_edge_interval", check.healthy_edge_interval),
    ];
    for (name, time) in times.into_iter().chain(optional) {
        if time.is_some_and(|time| time.is_zero()) {
            refuse(name, "must be above 0");
        }
    }
    for (name, threshold) in
        [("unhealthy_threshold", check.unhealthy_threshold), ("healthy_threshold", check.healthy_threshold)]
    {
        if threshold == 0 {
            refuse(name, "must be above 0");
        }
    }
    if let Probe::Http(probe) = &check.probe {
        for (name, ranges) in [
            ("expected_statuses", &probe.expected_statuses),
            ("retriable_statuses", &probe.retriable_statuses),
        ] {
            if ranges.iter().any(|(from, until)| from >= until || *from < 100 || *until > 600) {
                refuse(
                    &format!("http_health_check.{name}"),
                    "must be within 100 and 600, the start below the end",
                );
            }
        }
        if let Some(name) = &probe.service_name
            && let Err(reason) = crate::text::TextMatcher::new(name)
        {
            refuse("http_health_check.service_name_matcher", &reason);
        }
    }
}

fn check_discovery(cluster: &config::Cluster, resource: &str, errors: &mut Vec<ConfigError>) {
    let (endpoints, names) = match &cluster.discovery {
        ClusterDiscovery::Static(endpoints) => (endpoints, Names::Resolved),
        ClusterDiscovery::StrictDns { endpoints, refresh_rate, .. }
        | ClusterDiscovery::LogicalDns { endpoints, refresh_rate, .. } => {
            if refresh_rate.is_zero() {
                errors.push(ConfigError::new(resource, "dns_refresh_rate", "must be above 0"));
            }
            (endpoints, Names::Allowed)
        }
        ClusterDiscovery::Eds { .. } => return,
        ClusterDiscovery::OriginalDst(original) => {
            if original.cleanup_interval.is_zero() {
                errors.push(ConfigError::new(resource, "cleanup_interval", "must be above 0"));
            }
            if original.port_override == Some(0) {
                let path = "original_dst_lb_config.upstream_port_override";
                errors.push(ConfigError::new(resource, path, "must be between 1 and 65535"));
            }
            return;
        }
    };
    if let ClusterDiscovery::LogicalDns { .. } = cluster.discovery
        && endpoints.localities.iter().map(|l| l.endpoints.len()).sum::<usize>() != 1
    {
        errors.push(ConfigError::new(
            resource,
            "load_assignment",
            "a LOGICAL_DNS cluster has exactly one endpoint",
        ));
    }
    if let Err(found) = check_endpoints(resource, "load_assignment.", endpoints, names) {
        errors.extend(found);
    }
}
