//! Clusters and endpoints.

use super::*;
use config::{
    ClusterDiscovery, DnsFamily, EndpointAddress, FailurePercentage, Fraction, HealthStatus, HttpUpstream,
    LbPolicy, LeastRequest, LocalityLb, OutlierDetection, SanType, SuccessRate, Thresholds, ValidationSource,
};
use std::time::Duration;

fn cluster(fields: &str) -> Result<config::Cluster, Vec<ConfigError>> {
    translate_cluster(&message(&format!("{{name: c, {fields}}}")))
}

const ENDPOINT: &str = "endpoint: {address: {socket_address: {address: HOST, port_value: 80}}}";

fn assignment(host: &str) -> String {
    let endpoint = ENDPOINT.replace("HOST", host);
    format!("load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{{{endpoint}}}]}}]}}")
}

#[test]
fn empty_cluster_has_envoys_defaults() {
    let found = cluster("").expect("accepted");
    let empty = ClusterDiscovery::Static(config::Endpoints::default());
    assert_eq!(found, config::Cluster::new("c", empty));
}

#[test]
fn every_discovery_type_is_translated() {
    let found = cluster(&format!("type: STATIC, {}", assignment("1.2.3.4"))).expect("accepted");
    let ClusterDiscovery::Static(endpoints) = found.discovery else { panic!("static") };
    assert_eq!(
        endpoints.localities[0].endpoints[0],
        config::Endpoint::at("1.2.3.4:80".parse().expect("address"))
    );
    let dns = "respect_dns_ttl: true, dns_refresh_rate: 2s, dns_lookup_family: V4_PREFERRED";
    let found = cluster(&format!("type: STRICT_DNS, {dns}, {}", assignment("a.b"))).expect("accepted");
    let ClusterDiscovery::StrictDns { endpoints, refresh_rate, respect_ttl, family } = found.discovery else {
        panic!("strict")
    };
    assert_eq!(endpoints.localities[0].endpoints[0].address, EndpointAddress::Name("a.b".into(), 80));
    assert_eq!((refresh_rate, respect_ttl, family), (Duration::from_secs(2), true, DnsFamily::V4Preferred));
    let found = cluster(&format!("type: LOGICAL_DNS, {}", assignment("a.b"))).expect("accepted");
    assert!(
        matches!(found.discovery, ClusterDiscovery::LogicalDns { refresh_rate, .. } if refresh_rate == Duration::from_secs(5))
    );
    for (eds, name) in [("eds_config: {ads: {}}", "c"), ("eds_config: {self: {}}, service_name: s", "s")] {
        let found = cluster(&format!("type: EDS, eds_cluster_config: {{{eds}}}")).expect("accepted");
        assert_eq!(found.discovery, ClusterDiscovery::Eds { service_name: name.into() });
    }
}

#[test]
fn impossible_discovery_is_refused() {
    for (fields, expected) in [
        (
            format!("type: STATIC, {}", assignment("a.b")),
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: `a.b` is not an IP address; names need a cluster of type STRICT_DNS or LOGICAL_DNS",
        ),
        ("type: LOGICAL_DNS".into(), "load_assignment: LOGICAL_DNS needs exactly one endpoint, found 0"),
        ("type: EDS".into(), "eds_cluster_config: is required"),
        ("type: EDS, eds_cluster_config: {}".into(), "eds_cluster_config.eds_config: is required"),
        (
            "type: EDS, eds_cluster_config: {eds_config: {}}".into(),
            "eds_cluster_config.eds_config: names no source; use `ads: {}`",
        ),
        (
            format!(
                "type: EDS, eds_cluster_config: {{eds_config: {{ads: {{}}}}}}, {}",
                assignment("1.1.1.1")
            ),
            "load_assignment: cannot be given together with `type: EDS`",
        ),
        (
            "eds_cluster_config: {eds_config: {ads: {}}}".into(),
            "eds_cluster_config: has no effect without `type: EDS`",
        ),
        ("dns_refresh_rate: 0s, type: STRICT_DNS".into(), "dns_refresh_rate: must be greater than 0s"),
    ] {
        let found = reasons(cluster(&fields));
        assert_eq!(found, [expected], "{fields}");
    }
    assert_eq!(reasons(translate_cluster(&message("{}"))), ["name: must not be empty"]);
}

#[test]
fn balancing_is_translated_from_both_forms() {
    const P: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies";
    let list = |typed: &str| {
        format!(
            "load_balancing_policy: {{policies: [{{typed_extension_config: {{name: x, typed_config: {typed}}}}}]}}"
        )
    };
    let least = |n| LbPolicy::LeastRequest(LeastRequest { choice_count: n, ..LeastRequest::default() });
    let none = LocalityLb::None;
    for (fields, policy, locality) in [
        ("lb_policy: RANDOM".to_owned(), LbPolicy::Random, none),
        ("lb_policy: LEAST_REQUEST".into(), least(2), none),
        ("lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 5}".into(), least(5), none),
        (
            "common_lb_config: {locality_weighted_lb_config: {}}".into(),
            LbPolicy::RoundRobin,
            LocalityLb::Weighted,
        ),
        (list(&format!("{{'@type': {P}.random.v3.Random}}")), LbPolicy::Random, none),
        (
            list(&format!(
                "{{'@type': {P}.least_request.v3.LeastRequest, choice_count: 3, locality_lb_config: {{locality_weighted_lb_config: {{}}}}}}"
            )),
            least(3),
            LocalityLb::Weighted,
        ),
        (
            list(&format!(
                "{{'@type': {P}.wrr_locality.v3.WrrLocality, endpoint_picking_policy: {{policies: [{{typed_extension_config: {{name: y, typed_config: {{'@type': {P}.round_robin.v3.RoundRobin}}}}}}]}}}}"
            )),
            LbPolicy::RoundRobin,
            LocalityLb::Weighted,
        ),
    ] {
        let found = cluster(&fields).expect("accepted");
        assert_eq!((found.lb_policy, found.locality_lb), (policy, locality), "{fields}");
    }
    for (fields, expected) in [
        (
            "lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 1}",
            "least_request_lb_config.choice_count: must be at least 2",
        ),
        (
            "least_request_lb_config: {}",
            "least_request_lb_config: has no effect without `lb_policy: LEAST_REQUEST`",
        ),
        (
            "lb_policy: LOAD_BALANCING_POLICY_CONFIG",
            "load_balancing_policy: is required with LOAD_BALANCING_POLICY_CONFIG",
        ),
        ("load_balancing_policy: {}", "load_balancing_policy.policies: at least one is required"),
        (
            "common_lb_config: {healthy_panic_threshold: {value: 101}}",
            "common_lb_config.healthy_panic_threshold: must be between 0 and 100",
        ),
    ] {
        assert_eq!(reasons(cluster(fields)), [expected], "{fields}");
    }
}

#[test]
fn settings_and_metadata_are_taken_over() {
    let found = cluster(
        "alt_stat_name: s, connect_timeout: 0.25s, per_connection_buffer_limit_bytes: 5, common_lb_config: {healthy_panic_threshold: {value: 0}},
        upstream_connection_options: {tcp_keepalive: {keepalive_probes: 3, keepalive_time: 60}},
        metadata: {filter_metadata: {outrigger: {labels: {b: '2', a: '1'}, close_connections_on_host_removal: true}, istio: {services: []}}}",
    )
    .expect("accepted");
    assert_eq!((found.alt_stat_name.as_str(), found.connect_timeout), ("s", Duration::from_millis(250)));
    assert_eq!((found.per_connection_buffer_limit_bytes, found.healthy_panic_threshold), (5, Fraction::ZERO));
    let keepalive = found.tcp_keepalive.expect("keepalive");
    assert_eq!(
        (keepalive.probes, keepalive.time, keepalive.interval),
        (Some(3), Some(Duration::from_secs(60)), None)
    );
    assert_eq!(found.labels, [("a".into(), "1".into()), ("b".into(), "2".into())]);
    assert!(found.close_connections_on_host_removal);
    let found = reasons(cluster(
        "metadata: {filter_metadata: {outrigger: {labels: {a: 1}, close_connections_on_host_removal: 1, x: 1}}}",
    ));
    let base = "metadata.filter_metadata[outrigger]";
    assert_eq!(
        found,
        [
            format!("{base}.x: is not known"),
            format!("{base}.labels[a]: expected a text"),
            format!("{base}.close_connections_on_host_removal: expected true or false")
        ]
    );
}

#[test]
fn what_metadata_writes_is_what_translation_reads() {
    let labels = vec![("app".to_owned(), "a".to_owned()), ("version".to_owned(), "v1".to_owned())];
    let proto = outrigger_api::envoy::config::cluster::v3::Cluster {
        name: "c".into(),
        metadata: outrigger_api::metadata::of(
            &labels,
            &[(outrigger_api::metadata::CLOSE_ON_HOST_REMOVAL, true)],
        ),
        ..Default::default()
    };
    let found = translate_cluster(&proto).expect("accepted");
    assert_eq!(found.labels, labels);
    assert!(found.close_connections_on_host_removal);
    assert_eq!(outrigger_api::metadata::of(&[], &[("x", false)]), None);
}

#[test]
fn circuit_breakers_and_outlier_detection_are_translated() {
    let found = cluster(
        "circuit_breakers: {thresholds: [{max_requests: 1, track_remaining: true}, {priority: HIGH, max_retries: 9, retry_budget: {budget_percent: {value: 25}}}]},
        outlier_detection: {consecutive_5xx: 0, enforcing_consecutive_5xx: 50, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, split_external_local_origin_errors: true,
          consecutive_local_origin_failure: 4, enforcing_consecutive_local_origin_failure: 0, interval: 1s, base_ejection_time: 400s, max_ejection_percent: 100, max_ejection_time_jitter: 1s,
          success_rate_minimum_hosts: 3, success_rate_request_volume: 10, success_rate_stdev_factor: 500, enforcing_success_rate: 40, enforcing_local_origin_success_rate: 0,
          failure_percentage_threshold: 50, failure_percentage_minimum_hosts: 1, failure_percentage_request_volume: 5, enforcing_failure_percentage: 100,
          enforcing_failure_percentage_local_origin: 20}",
    )
    .expect("accepted");
    let defaults = Thresholds::default();
    assert_eq!(
        found.circuit_breakers.default,
        Thresholds { max_requests: 1, track_remaining: true, ..defaults.clone() }
    );
    let budget = config::RetryBudget { budget: Fraction::from_percent(25), min_retry_concurrency: 3 };
    assert_eq!(
        found.circuit_breakers.high,
        Thresholds { max_retries: 9, retry_budget: Some(budget), ..defaults }
    );
    let expected = OutlierDetection {
        consecutive_5xx: 0,
        enforcing_consecutive_5xx: Fraction::from_percent(50),
        consecutive_gateway_failure: 2,
        enforcing_consecutive_gateway_failure: Fraction::ONE,
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: 4,
        enforcing_consecutive_local_origin_failure: Fraction::ZERO,
        success_rate: SuccessRate {
            minimum_hosts: 3,
            request_volume: 10,
            stdev_factor_thousandths: 500,
            enforcing: Fraction::from_percent(40),
            enforcing_local_origin: Fraction::ZERO,
        },
        failure_percentage: FailurePercentage {
            threshold: 50,
            minimum_hosts: 1,
            request_volume: 5,
            enforcing: Fraction::ONE,
            enforcing_local_origin: Fraction::from_percent(20),
        },
        interval: Duration::from_secs(1),
        base_ejection_time: Duration::from_secs(400),
        // Envoy: the default cap rises to the base.
        max_ejection_time: Duration::from_secs(400),
        max_ejection_time_jitter: Duration::from_secs(1),
        max_ejection_percent: 100,
        always_eject_one_host: false,
        successful_active_health_check_uneject_host: true,
    };
    assert_eq!(found.outlier_detection, Some(expected));
    assert_eq!(
        cluster("outlier_detection: {}").expect("accepted").outlier_detection,
        Some(OutlierDetection { always_eject_one_host: false, ..OutlierDetection::default() })
    );
    for (fields, expected) in [
        (
            "circuit_breakers: {thresholds: [{}, {}]}",
            "circuit_breakers.thresholds[1].priority: the limits of this priority are given twice",
        ),
        (
            "outlier_detection: {failure_percentage_threshold: 101}",
            "outlier_detection.failure_percentage_threshold: must be at most 100",
        ),
        (
            "outlier_detection: {enforcing_consecutive_5xx: 101}",
            "outlier_detection.enforcing_consecutive_5xx: must be at most 100",
        ),
        ("outlier_detection: {interval: 0s}", "outlier_detection.interval: must be greater than 0s"),
        (
            "outlier_detection: {max_ejection_time: 1s}",
            "outlier_detection.max_ejection_time: must not be below `base_ejection_time`",
        ),
    ] {
        assert_eq!(reasons(cluster(fields)), [expected], "{fields}");
    }
}

const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn options(fields: &str) -> String {
    format!("typed_extension_protocol_options: {{{KEY}: {{'@type': type.googleapis.com/{KEY}, {fields}}}}}")
}

#[test]
fn upstream_protocols_are_translated_from_both_forms() {
    let tls = "transport_socket: {name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}}";
    for (fields, expected) in [
        (options("explicit_http_config: {http_protocol_options: {}}"), HttpUpstream::Http1),
        (options("explicit_http_config: {http2_protocol_options: {}}"), HttpUpstream::Http2),
        (options("use_downstream_protocol_config: {}"), HttpUpstream::Downstream),
        (format!("{tls}, {}", options("auto_config: {}")), HttpUpstream::Auto),
        ("http2_protocol_options: {}".into(), HttpUpstream::Http2),
        ("http_protocol_options: {}".into(), HttpUpstream::Http1),
    ] {
        assert_eq!(cluster(&fields).expect("accepted").http.protocol, expected, "{fields}");
    }
    let found = cluster(&options(
        "explicit_http_config: {http_protocol_options: {}}, upstream_http_protocol_options: {auto_sni: true, auto_san_validation: true}, common_http_protocol_options: {idle_timeout: 0s, max_requests_per_connection: 4, max_connection_duration: 3s}",
    ))
    .expect("accepted")
    .http;
    assert!(found.auto_sni && found.auto_san_validation);
    assert_eq!((found.idle_timeout, found.max_requests_per_connection), (None, Some(4)));
    assert_eq!(found.max_connection_duration, Some(Duration::from_secs(3)));
    let base = format!("typed_extension_protocol_options[{KEY}]");
    for (fields, expected) in [
        (
            options("common_http_protocol_options: {}"),
            format!(
                "{base}: `explicit_http_config`, `use_downstream_protocol_config` or `auto_config` is required"
            ),
        ),
        (
            options("explicit_http_config: {}"),
            format!(
                "{base}.explicit_http_config: `http_protocol_options` or `http2_protocol_options` is required"
            ),
        ),
        (
            options("auto_config: {}"),
            format!("{base}.auto_config: needs a TLS transport socket, whose ALPN chooses the protocol"),
        ),
        (
            format!(
                "http2_protocol_options: {{}}, {}",
                options("explicit_http_config: {http_protocol_options: {}}")
            ),
            "http2_protocol_options: cannot be given together with `typed_extension_protocol_options`".into(),
        ),
        (
            options("explicit_http_config: {http_protocol_options: {}}").replacen(KEY, "other", 1),
            format!("typed_extension_protocol_options[other]: the only key is `{KEY}`"),
        ),
        (
            options(
                "explicit_http_config: {http_protocol_options: {}}, common_http_protocol_options: {max_stream_duration: 1s}",
            ),
            format!(
                "{base}.common_http_protocol_options.max_stream_duration: is not supported towards a cluster; routes have it"
            ),
        ),
    ] {
        assert_eq!(reasons(cluster(&fields)), [expected], "{fields}");
    }
}

#[test]
fn upstream_tls_is_translated() {
    let tls = |context: &str| {
        cluster(&format!(
            "transport_socket: {{name: t, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, {context}}}}}"
        ))
    };
    let found = tls("sni: a.b, max_session_keys: 0, common_tls_context: {alpn_protocols: [h2], tls_certificate_sds_secret_configs: [{name: me, sds_config: {ads: {}}}], validation_context: {system_root_certs: {}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: a.b}}]}}")
        .expect("accepted")
        .tls
        .expect("tls");
    assert_eq!((found.sni.as_str(), found.max_session_keys), ("a.b", 0));
    assert_eq!(found.certificate, Some(config::CertificateSource::Sds("me".into())));
    let Some(ValidationSource::Inline(validation)) = found.validation else { panic!("inline") };
    assert!(validation.system_roots && validation.trusted_ca_pem.is_none());
    assert_eq!(validation.sans[0].kind, SanType::Dns);
    let base = "transport_socket.typed_config";
    assert_eq!(
        reasons(tls("common_tls_context: {tls_certificate_sds_secret_configs: [{name: a}, {name: b}]}")),
        [format!("{base}.common_tls_context: towards a cluster one certificate at most is supported")]
    );
    assert_eq!(
        reasons(tls("common_tls_context: {validation_context_sds_secret_config: {}}")),
        [format!("{base}.common_tls_context.validation_context_sds_secret_config.name: must not be empty")]
    );
    assert_eq!(
        reasons(tls(&format!("sni: {}", "a".repeat(256)))),
        [format!("{base}.sni: must be at most 255 bytes")]
    );
    let plain = cluster(
        "transport_socket: {name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}",
    );
    assert_eq!(plain.expect("accepted").tls, None);
    let wrong = cluster(
        "transport_socket: {name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext}}",
    );
    assert_eq!(
        reasons(wrong),
        [format!(
            "{base}: the type `envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext` is not supported here"
        )]
    );
}

#[test]
fn endpoints_are_translated() {
    let endpoint = ENDPOINT.replace("HOST", "10.0.0.1");
    let found = translate_endpoints(&message(&format!(
        "{{cluster_name: e, policy: {{overprovisioning_factor: 100}}, endpoints: [{{locality: {{region: r, zone: z, sub_zone: s}}, priority: 1, load_balancing_weight: 3,
        lb_endpoints: [{{{endpoint}, health_status: DRAINING, load_balancing_weight: 7, metadata: {{filter_metadata: {{outrigger: {{labels: {{version: v1}}}}}}}}}}]}}]}}"
    )))
    .expect("accepted");
    assert_eq!((found.cluster_name.as_str(), found.overprovisioning_factor), ("e", Some(100)));
    let locality = &found.localities[0];
    assert_eq!((locality.locality.sub_zone.as_str(), locality.priority, locality.weight), ("s", 1, Some(3)));
    let endpoint = &locality.endpoints[0];
    assert_eq!((endpoint.weight, endpoint.health), (7, HealthStatus::Draining));
    assert_eq!(endpoint.labels, [("version".into(), "v1".into())]);
    for (text, expected) in [
        ("{}", "cluster_name: must not be empty"),
        (
            "{cluster_name: e, policy: {overprovisioning_factor: 0}}",
            "policy.overprovisioning_factor: must be greater than 0",
        ),
        ("{cluster_name: e, endpoints: [{priority: 129}]}", "endpoints[0].priority: must be at most 128"),
        (
            "{cluster_name: e, endpoints: [{load_balancing_weight: 0}]}",
            "endpoints[0].load_balancing_weight: must be greater than 0",
        ),
        (
            "{cluster_name: e, endpoints: [{lb_endpoints: [{}]}]}",
            "endpoints[0].lb_endpoints[0].endpoint: is required",
        ),
        (
            "{cluster_name: e, endpoints: [{lb_endpoints: [{endpoint: {}}]}]}",
            "endpoints[0].lb_endpoints[0].endpoint.address: is required",
        ),
    ] {
        assert_eq!(reasons(translate_endpoints(&message(text))), [expected], "{text}");
    }
}
