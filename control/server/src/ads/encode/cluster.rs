//! `Cluster`.

use outrigger_api::envoy::config::cluster::v3 as proto;
use outrigger_api::envoy::config::core::v3 as core;
use outrigger_api::envoy::extensions::upstreams::http::v3 as upstreams;
use outrigger_api::{any, metadata};
use outrigger_traffic::config::{
    CircuitBreakers, Cluster, ClusterDiscovery, DnsFamily, Hashing, HttpUpstream, LbPolicy, LocalityLb,
    OutlierDetection, RingFunction, SlowStart, Thresholds, UpstreamHttp, ZoneAware,
};
use proto::cluster as pc;

use super::value::{ads, duration, limit, percent, socket_address, whole_percent};
use super::{endpoint, health_check, http, subset, tls};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster.
pub fn cluster(value: &Cluster) -> proto::Cluster {
    use pc::common_lb_config::LocalityConfigSpecifier as L;
    let weighted = L::LocalityWeightedLbConfig(pc::common_lb_config::LocalityWeightedLbConfig {});
    let (policy, lb_config, hashing) = balancing(value);
    let keepalive = value.tcp_keepalive.map(|k| proto::UpstreamConnectionOptions {
        tcp_keepalive: Some(core::TcpKeepalive {
            keepalive_probes: k.probes,
            keepalive_time: k.time.map(seconds),
            keepalive_interval: k.interval.map(seconds),
        }),
    });
    let mut cluster = proto::Cluster {
        name: value.name.clone(),
        alt_stat_name: value.alt_stat_name.clone(),
        connect_timeout: Some(duration(value.connect_timeout)),
        per_connection_buffer_limit_bytes: Some(value.per_connection_buffer_limit_bytes),
        lb_policy: policy.into(),
        lb_config,
        circuit_breakers: Some(proto::CircuitBreakers {
            thresholds: vec![
                thresholds(&value.circuit_breakers.default, core::RoutingPriority::Default),
                thresholds(&value.circuit_breakers.high, core::RoutingPriority::High),
            ],
            per_host_thresholds: per_host(&value.circuit_breakers),
        }),
        lb_subset_config: value.subsets.as_ref().map(subset::subsets),
        health_checks: value.health_check.iter().map(health_check::health_check).collect(),
        outlier_detection: value.outlier_detection.as_ref().map(outlier_detection),
        transport_socket: match value.proxy_protocol {
            Some(version) => Some(tls::proxied(version, value.tls.as_ref())),
            None => value.tls.as_ref().map(tls::upstream),
        },
        upstream_bind_config: value
            .source_address
            .map(|source| core::BindConfig { source_address: Some(socket_address(source)) }),
        metadata: metadata::of(
            &value.labels,
            &[(metadata::CLOSE_ON_HOST_REMOVAL, value.close_connections_on_host_removal)],
        ),
        common_lb_config: Some(pc::CommonLbConfig {
            healthy_panic_threshold: Some(percent(value.healthy_panic_threshold)),
            ignore_new_hosts_until_first_hc: value.ignore_new_hosts_until_first_hc,
            consistent_hashing_lb_config: hashing.filter(|hashing| **hashing != Hashing::default()).map(
                |hashing| pc::common_lb_config::ConsistentHashingLbConfig {
                    use_hostname_for_hashing: hashing.use_hostname,
                    hash_balance_factor: hashing.balance_factor,
                },
            ),
            override_host_status: (!value.override_host_status.is_empty()).then(|| core::HealthStatusSet {
                statuses: value
                    .override_host_status
                    .iter()
                    .map(|one| endpoint::health(*one).into())
                    .collect(),
            }),
            locality_config_specifier: match value.locality_lb {
                LocalityLb::Weighted => Some(weighted),
                LocalityLb::None => {
                    (value.zone_aware != ZoneAware::default()).then(|| zones(&value.zone_aware))
                }
            },
        }),
        upstream_connection_options: keepalive,
        ..Default::default()
    };
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), any(&http_options(&value.http)));
    discovery(&value.discovery, &mut cluster);
    cluster
}

/// How hosts are picked, and what the policies by hash have in common.
fn balancing(value: &Cluster) -> (pc::LbPolicy, Option<pc::LbConfig>, Option<&Hashing>) {
    let slow_start = value.slow_start.as_ref().map(slow_start);
    let mut hashing = None;
    let (policy, lb_config) = match &value.lb_policy {
        _ if matches!(value.discovery, ClusterDiscovery::OriginalDst(_)) => {
            (pc::LbPolicy::ClusterProvided, original_dst(&value.discovery))
        }
        LbPolicy::RoundRobin => {
            let config = slow_start.map(|slow| pc::RoundRobinLbConfig { slow_start_config: Some(slow) });
            (pc::LbPolicy::RoundRobin, config.map(pc::LbConfig::RoundRobinLbConfig))
        }
        LbPolicy::Random => (pc::LbPolicy::Random, None),
        LbPolicy::LeastRequest(least) => {
            let config = pc::LeastRequestLbConfig {
                choice_count: Some(least.choice_count),
                active_request_bias: real(least.active_request_bias, 1.0),
                slow_start_config: slow_start,
            };
            (pc::LbPolicy::LeastRequest, Some(pc::LbConfig::LeastRequestLbConfig(config)))
        }
        LbPolicy::RingHash(ring) => {
            hashing = Some(&ring.hashing);
            let function = match ring.function {
                RingFunction::XxHash => pc::ring_hash_lb_config::HashFunction::XxHash,
                RingFunction::Murmur2 => pc::ring_hash_lb_config::HashFunction::MurmurHash2,
            };
            let config = pc::RingHashLbConfig {
                minimum_ring_size: Some(ring.minimum_ring_size),
                hash_function: function.into(),
                maximum_ring_size: Some(ring.maximum_ring_size),
            };
            (pc::LbPolicy::RingHash, Some(pc::LbConfig::RingHashLbConfig(config)))
        }
        LbPolicy::Maglev(maglev) => {
            hashing = Some(&maglev.hashing);
            let config = pc::MaglevLbConfig { table_size: Some(maglev.table_size) };
            (pc::LbPolicy::Maglev, Some(pc::LbConfig::MaglevLbConfig(config)))
        }
        // Of an embedding program: it is never planned and has no form on the wire, and this one is refused there.
        LbPolicy::Registered(_) => (pc::LbPolicy::LoadBalancingPolicyConfig, None),
    };
    (policy, lb_config, hashing)
}

fn zones(value: &ZoneAware) -> pc::common_lb_config::LocalityConfigSpecifier {
    pc::common_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig(
        pc::common_lb_config::ZoneAwareLbConfig {
            routing_enabled: Some(outrigger_api::envoy::r#type::v3::Percent {
                value: value.routing_enabled.into(),
            }),
            min_cluster_size: Some(value.min_cluster_size),
            fail_traffic_on_panic: value.fail_traffic_on_panic,
        },
    )
}

fn real(value: f64, default: f64) -> Option<core::RuntimeDouble> {
    ((value - default).abs() > f64::EPSILON)
        .then(|| core::RuntimeDouble { default_value: value, runtime_key: String::new() })
}

fn slow_start(value: &SlowStart) -> pc::SlowStartConfig {
    pc::SlowStartConfig {
        slow_start_window: Some(duration(value.window)),
        aggression: real(value.aggression, 1.0),
        min_weight_percent: Some(percent(value.min_weight)),
    }
}

fn per_host(value: &CircuitBreakers) -> Vec<proto::circuit_breakers::Thresholds> {
    use core::RoutingPriority as P;
    let limits =
        [(P::Default, value.max_connections_per_host), (P::High, value.high_max_connections_per_host)];
    limits
        .into_iter()
        .filter_map(|(priority, limit)| {
            Some(proto::circuit_breakers::Thresholds {
                priority: priority.into(),
                max_connections: Some(limit?),
                ..Default::default()
            })
        })
        .collect()
}

fn original_dst(value: &ClusterDiscovery) -> Option<pc::LbConfig> {
    let ClusterDiscovery::OriginalDst(original) = value else { return None };
    (original.header.is_some() || original.port_override.is_some()).then(|| {
        pc::LbConfig::OriginalDstLbConfig(pc::OriginalDstLbConfig {
            use_http_header: original.header.is_some(),
            http_header_name: original.header.clone().unwrap_or_default(),
            upstream_port_override: original.port_override.map(u32::from),
        })
    })
}

fn seconds(value: std::time::Duration) -> u32 {
    u32::try_from(value.as_secs()).unwrap_or(u32::MAX)
}

fn discovery(value: &ClusterDiscovery, cluster: &mut proto::Cluster) {
    use pc::DiscoveryType as D;
    let mut dns = |refresh_rate, respect_ttl, family| {
        cluster.dns_refresh_rate = Some(duration(refresh_rate));
        cluster.respect_dns_ttl = respect_ttl;
        cluster.dns_lookup_family = match family {
            DnsFamily::Auto => pc::DnsLookupFamily::Auto,
            DnsFamily::V4Only => pc::DnsLookupFamily::V4Only,
            DnsFamily::V6Only => pc::DnsLookupFamily::V6Only,
            DnsFamily::V4Preferred => pc::DnsLookupFamily::V4Preferred,
            DnsFamily::All => pc::DnsLookupFamily::All,
        }
        .into();
    };
    let kind = match value {
        ClusterDiscovery::Static(endpoints) => {
            cluster.load_assignment = Some(endpoint::endpoints(endpoints));
            D::Static
        }
        ClusterDiscovery::StrictDns { endpoints, refresh_rate, respect_ttl, family } => {
            dns(*refresh_rate, *respect_ttl, *family);
            cluster.load_assignment = Some(endpoint::endpoints(endpoints));
            D::StrictDns
        }
        ClusterDiscovery::LogicalDns { endpoints, refresh_rate, respect_ttl, family } => {
            dns(*refresh_rate, *respect_ttl, *family);
            cluster.load_assignment = Some(endpoint::endpoints(endpoints));
            D::LogicalDns
        }
        ClusterDiscovery::Eds { service_name } => {
            cluster.eds_cluster_config =
                Some(pc::EdsClusterConfig { eds_config: Some(ads()), service_name: service_name.clone() });
            D::Eds
        }
        ClusterDiscovery::OriginalDst(original) => {
            cluster.cleanup_interval = Some(duration(original.cleanup_interval));
            D::OriginalDst
        }
    };
    cluster.cluster_discovery_type = Some(pc::ClusterDiscoveryType::Type(kind.into()));
}

fn thresholds(value: &Thresholds, priority: core::RoutingPriority) -> proto::circuit_breakers::Thresholds {
    proto::circuit_breakers::Thresholds {
        priority: priority.into(),
        max_connections: Some(value.max_connections),
        max_pending_requests: Some(value.max_pending_requests),
        max_requests: Some(value.max_requests),
        max_retries: Some(value.max_retries),
        track_remaining: value.track_remaining,
        retry_budget: value.retry_budget.map(|budget| proto::circuit_breakers::thresholds::RetryBudget {
            budget_percent: Some(percent(budget.budget)),
            min_retry_concurrency: Some(budget.min_retry_concurrency),
        }),
    }
}

fn outlier_detection(value: &OutlierDetection) -> proto::OutlierDetection {
    proto::OutlierDetection {
        consecutive_5xx: Some(value.consecutive_5xx),
        interval: Some(duration(value.interval)),
        base_ejection_time: Some(duration(value.base_ejection_time)),
        max_ejection_percent: Some(value.max_ejection_percent),
        enforcing_consecutive_5xx: Some(whole_percent(value.enforcing_consecutive_5xx)),
        enforcing_success_rate: Some(whole_percent(value.success_rate.enforcing)),
        success_rate_minimum_hosts: Some(value.success_rate.minimum_hosts),
        success_rate_request_volume: Some(value.success_rate.request_volume),
        success_rate_stdev_factor: Some(value.success_rate.stdev_factor_thousandths),
        consecutive_gateway_failure: Some(value.consecutive_gateway_failure),
        enforcing_consecutive_gateway_failure: Some(whole_percent(
            value.enforcing_consecutive_gateway_failure,
        )),
        split_external_local_origin_errors: value.split_external_local_origin_errors,
        consecutive_local_origin_failure: Some(value.consecutive_local_origin_failure),
        enforcing_consecutive_local_origin_failure: Some(whole_percent(
            value.enforcing_consecutive_local_origin_failure,
        )),
        enforcing_local_origin_success_rate: Some(whole_percent(value.success_rate.enforcing_local_origin)),
        failure_percentage_threshold: Some(value.failure_percentage.threshold),
        enforcing_failure_percentage: Some(whole_percent(value.failure_percentage.enforcing)),
        enforcing_failure_percentage_local_origin: Some(whole_percent(
            value.failure_percentage.enforcing_local_origin,
        )),
        failure_percentage_minimum_hosts: Some(value.failure_percentage.minimum_hosts),
        failure_percentage_request_volume: Some(value.failure_percentage.request_volume),
        max_ejection_time: Some(duration(value.max_ejection_time)),
        max_ejection_time_jitter: Some(duration(value.max_ejection_time_jitter)),
        always_eject_one_host: Some(value.always_eject_one_host),
        successful_active_health_check_uneject_host: Some(value.successful_active_health_check_uneject_host),
    }
}

fn http_options(value: &UpstreamHttp) -> upstreams::HttpProtocolOptions {
    use upstreams::http_protocol_options as o;
    let (one, two) = (http::http1(&value.http1), http::http2(&value.http2));
    let protocol = match value.protocol {
        HttpUpstream::Http1 => o::UpstreamProtocolOptions::ExplicitHttpConfig(o::ExplicitHttpConfig {
            protocol_config: Some(o::explicit_http_config::ProtocolConfig::HttpProtocolOptions(one)),
        }),
        HttpUpstream::Http2 => o::UpstreamProtocolOptions::ExplicitHttpConfig(o::ExplicitHttpConfig {
            protocol_config: Some(o::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(two)),
        }),
        HttpUpstream::Downstream => {
            o::UpstreamProtocolOptions::UseDownstreamProtocolConfig(o::UseDownstreamHttpConfig {
                http_protocol_options: Some(one),
                http2_protocol_options: Some(two),
            })
        }
        HttpUpstream::Auto => o::UpstreamProtocolOptions::AutoConfig(o::AutoHttpConfig {
            http_protocol_options: Some(one),
            http2_protocol_options: Some(two),
        }),
    };
    let names = (value.auto_sni || value.auto_san_validation).then_some(core::UpstreamHttpProtocolOptions {
        auto_sni: value.auto_sni,
        auto_san_validation: value.auto_san_validation,
    });
    upstreams::HttpProtocolOptions {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: limit(value.idle_timeout),
            max_headers_count: None,
            max_connection_duration: value.max_connection_duration.map(duration),
            max_stream_duration: None,
            max_requests_per_connection: value.max_requests_per_connection,
            ..Default::default()
        }),
        upstream_http_protocol_options: names,
        upstream_protocol_options: Some(protocol),
    }
}
