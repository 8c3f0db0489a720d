//! Policies by hash, slow start, health checks, hash policies of routes.

use super::*;
use config::{
    Action, EndpointCheck, Fraction, GrpcProbe, HashCookie, HashPolicy, HashSource, Hashing, HealthCheck,
    HttpProbe, LbPolicy, LeastRequest, LocalityLb, Maglev, Probe, RingFunction, RingHash, SlowStart,
    StringMatch, TcpProbe,
};
use std::time::Duration;

fn cluster(fields: &str) -> Result<config::Cluster, Vec<ConfigError>> {
    translate_cluster(&message(&format!("{{name: c, {fields}}}")))
}

fn list(name: &str, fields: &str) -> String {
    let kind = format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}");
    format!(
        "load_balancing_policy: {{policies: [{{typed_extension_config: {{name: x, typed_config: {{'@type': {kind}{fields}}}}}}}]}}"
    )
}

#[test]
fn policies_by_hash_are_translated_from_both_forms() {
    let hashing = Hashing { use_hostname: true, balance_factor: Some(130) };
    let ring = LbPolicy::RingHash(RingHash {
        minimum_ring_size: 7,
        maximum_ring_size: 70,
        function: RingFunction::Murmur2,
        hashing: hashing.clone(),
    });
    let maglev = LbPolicy::Maglev(Maglev { table_size: 101, hashing });
    let common = "{use_hostname_for_hashing: true, hash_balance_factor: 130}";
    for (fields, policy) in [
        ("lb_policy: RING_HASH".to_owned(), LbPolicy::RingHash(RingHash::default())),
        ("lb_policy: MAGLEV".to_owned(), LbPolicy::Maglev(Maglev::default())),
        (
            format!(
                "lb_policy: RING_HASH, ring_hash_lb_config: {{minimum_ring_size: 7, maximum_ring_size: 70, hash_function: MURMUR_HASH_2}}, common_lb_config: {{consistent_hashing_lb_config: {common}}}"
            ),
            ring.clone(),
        ),
        (
            format!(
                "lb_policy: MAGLEV, maglev_lb_config: {{table_size: 101}}, common_lb_config: {{consistent_hashing_lb_config: {common}}}"
            ),
            maglev.clone(),
        ),
        (
            list(
                "ring_hash.v3.RingHash",
                &format!(
                    ", minimum_ring_size: 7, maximum_ring_size: 70, hash_function: MURMUR_HASH_2, consistent_hashing_lb_config: {common}"
                ),
            ),
            ring.clone(),
        ),
        (
            list(
                "ring_hash.v3.RingHash",
                ", minimum_ring_size: 7, maximum_ring_size: 70, hash_function: MURMUR_HASH_2, use_hostname_for_hashing: true, hash_balance_factor: 130",
            ),
            ring,
        ),
        (
            list("maglev.v3.Maglev", &format!(", table_size: 101, consistent_hashing_lb_config: {common}")),
            maglev,
        ),
    ] {
        assert_eq!(cluster(&fields).expect("accepted").lb_policy, policy, "{fields}");
    }
    let weighted = cluster(&list("maglev.v3.Maglev", ", locality_weighted_lb_config: {}")).expect("accepted");
    assert_eq!(weighted.locality_lb, LocalityLb::Weighted);
}

#[test]
fn slow_start_and_bias_are_translated_from_both_forms() {
    let slow = "slow_start_config: {slow_start_window: 60s, aggression: {default_value: 2.0, runtime_key: r}, min_weight_percent: {value: 5}}";
    let expected = Some(SlowStart {
        window: Duration::from_secs(60),
        aggression: 2.0,
        min_weight: Fraction::from_percent(5),
    });
    let bias = "active_request_bias: {default_value: 0.5, runtime_key: b}";
    let least = |full_scan| {
        LbPolicy::LeastRequest(LeastRequest { choice_count: 2, active_request_bias: 0.5, full_scan })
    };
    for (fields, policy) in [
        (format!("round_robin_lb_config: {{{slow}}}"), LbPolicy::RoundRobin),
        (format!("lb_policy: LEAST_REQUEST, least_request_lb_config: {{{slow}, {bias}}}"), least(false)),
        (list("round_robin.v3.RoundRobin", &format!(", {slow}")), LbPolicy::RoundRobin),
        (
            list("least_request.v3.LeastRequest", &format!(", {slow}, {bias}, enable_full_scan: true")),
            least(true),
        ),
        (
            list("least_request.v3.LeastRequest", &format!(", {slow}, {bias}, selection_method: FULL_SCAN")),
            least(true),
        ),
    ] {
        let found = cluster(&fields).expect("accepted");
        assert_eq!((found.lb_policy, found.slow_start), (policy, expected.clone()), "{fields}");
    }
    let found =
        cluster("round_robin_lb_config: {slow_start_config: {slow_start_window: 1s}}").expect("accepted");
    assert_eq!(found.slow_start.expect("there").min_weight, Fraction::from_percent(10));
}

#[test]
fn mistakes_of_balancing_are_refused_by_their_path() {
    for (fields, expected) in [
        (
            "ring_hash_lb_config: {}".to_owned(),
            "ring_hash_lb_config: has no effect without `lb_policy: RING_HASH`",
        ),
        ("maglev_lb_config: {}".to_owned(), "maglev_lb_config: has no effect without `lb_policy: MAGLEV`"),
        (
            "lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 9, maximum_ring_size: 8}".to_owned(),
            "ring_hash_lb_config.minimum_ring_size: must not be above `maximum_ring_size`",
        ),
        (
            "common_lb_config: {consistent_hashing_lb_config: {}}".to_owned(),
            "common_lb_config.consistent_hashing_lb_config: has no effect without `lb_policy: RING_HASH` or `MAGLEV`",
        ),
        (
            "lb_policy: MAGLEV, common_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 99}}".to_owned(),
            "common_lb_config.consistent_hashing_lb_config.hash_balance_factor: must be at least 100",
        ),
        (
            "round_robin_lb_config: {slow_start_config: {slow_start_window: 1s, aggression: {default_value: 0, runtime_key: r}}}".to_owned(),
            "round_robin_lb_config.slow_start_config.aggression.default_value: must be greater than 0",
        ),
        (
            format!("maglev_lb_config: {{}}, {}", list("random.v3.Random", "")),
            "maglev_lb_config: has no effect together with `load_balancing_policy`",
        ),
        (
            "common_lb_config: {ignore_new_hosts_until_first_hc: true}".to_owned(),
            "common_lb_config.ignore_new_hosts_until_first_hc: has no effect without `health_checks`",
        ),
        (
            "circuit_breakers: {per_host_thresholds: [{max_requests: 1}]}".to_owned(),
            "circuit_breakers.per_host_thresholds[0].max_requests: has no meaning for a single host",
        ),
    ] {
        assert_eq!(reasons(cluster(&fields)), [expected], "{fields}");
    }
}

#[test]
fn limits_of_hosts_are_translated_by_priority() {
    let found = cluster(
        "circuit_breakers: {per_host_thresholds: [{max_connections: 3}, {priority: HIGH, max_connections: 4}, {max_connections: 5}]}",
    );
    let breakers = found.expect("accepted").circuit_breakers;
    assert_eq!(
        (breakers.max_connections_per_host, breakers.high_max_connections_per_host),
        (Some(3), Some(4))
    );
}

const TIMES: &str = "timeout: 1s, interval: 2s, unhealthy_threshold: 3, healthy_threshold: 4";

fn check(fields: &str) -> Result<HealthCheck, Vec<ConfigError>> {
    cluster(&format!("health_checks: [{{{TIMES}, {fields}}}]")).map(|c| c.health_check.expect("there"))
}

fn plain(probe: Probe) -> HealthCheck {
    HealthCheck::new(Duration::from_secs(1), Duration::from_secs(2), (3, 4), probe)
}

#[test]
fn health_checks_are_translated() {
    let found = check("http_health_check: {path: /h}").expect("accepted");
    assert_eq!(found, plain(Probe::Http(HttpProbe::of("/h"))));
    let found = check(
        "initial_jitter: 1s, interval_jitter: 2s, interval_jitter_percent: 5, reuse_connection: false, no_traffic_interval: 3s, no_traffic_healthy_interval: 4s,
        unhealthy_interval: 5s, unhealthy_edge_interval: 6s, healthy_edge_interval: 7s, event_log_path: /a, always_log_health_check_failures: true,
        always_log_health_check_success: true, tls_options: {alpn_protocols: [h2]},
        event_logger: [{name: e, typed_config: {'@type': type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink, event_log_path: /b}}],
        http_health_check: {host: h, path: /h, method: POST, codec_client_type: HTTP2, send: {text: '0aFF'}, receive: [{text: '00'}, {binary: AQI=}], response_buffer_size: 9,
        request_headers_to_add: [{header: {key: X-A, value: '5%%'}}, {header: {key: x-b, value: c}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}], request_headers_to_remove: [User-Agent],
        expected_statuses: [{start: 200, end: 300}], retriable_statuses: [{start: 500, end: 501}], service_name_matcher: {exact: s}}",
    )
    .expect("accepted");
    let seconds = Duration::from_secs;
    let expected = HealthCheck {
        initial_jitter: seconds(1),
        interval_jitter: seconds(2),
        interval_jitter_percent: 5,
        reuse_connection: false,
        no_traffic_interval: seconds(3),
        no_traffic_healthy_interval: Some(seconds(4)),
        unhealthy_interval: Some(seconds(5)),
        unhealthy_edge_interval: Some(seconds(6)),
        healthy_edge_interval: Some(seconds(7)),
        event_logs: vec!["/a".into(), "/b".into()],
        log_all_failures: true,
        log_all_successes: true,
        alpn: vec!["h2".into()],
        ..plain(Probe::Http(HttpProbe {
            host: "h".into(),
            method: "POST".into(),
            send: vec![0x0a, 0xff],
            receive: vec![vec![0], vec![1, 2]],
            response_buffer_size: 9,
            headers_add: vec![("x-a".into(), "5%".into(), true), ("x-b".into(), "c".into(), false)],
            headers_remove: vec!["user-agent".into()],
            expected_statuses: vec![(200, 300)],
            retriable_statuses: vec![(500, 501)],
            http2: true,
            service_name: Some(StringMatch::exact("s")),
            ..HttpProbe::of("/h")
        }))
    };
    assert_eq!(found, expected);
    let found = check("tcp_health_check: {send: {text: '01'}, receive: [{text: '02'}]}").expect("accepted");
    assert_eq!(found.probe, Probe::Tcp(TcpProbe { send: vec![1], receive: vec![vec![2]] }));
    let found = check(
        "grpc_health_check: {service_name: s, authority: a, initial_metadata: [{header: {key: k, value: v}}]}",
    );
    let (service_name, authority) = ("s".into(), "a".into());
    let probe = GrpcProbe { service_name, authority, metadata: vec![("k".into(), "v".into(), true)] };
    assert_eq!(found.expect("accepted").probe, Probe::Grpc(probe));
}

#[test]
fn mistakes_of_health_checks_are_refused_by_their_path() {
    for (fields, expected) in [
        ("interval_jitter: 1s", "health_checks[0].health_checker: is required"),
        (
            "http_health_check: {path: x}",
            "health_checks[0].http_health_check.path: must begin with `/` and have no spaces",
        ),
        (
            "http_health_check: {path: /, send: {text: '00'}}",
            "health_checks[0].http_health_check.send: a request of method GET has no body",
        ),
        (
            "http_health_check: {path: /, receive: [{text: '0'}]}",
            "health_checks[0].http_health_check.receive[0].text: is not made of pairs of hexadecimal digits",
        ),
        (
            "http_health_check: {path: /, expected_statuses: [{start: 300, end: 200}]}",
            "health_checks[0].http_health_check.expected_statuses[0]: must be within 100 and 600, the start below the end",
        ),
        (
            "http_health_check: {path: /, request_headers_to_add: [{header: {key: a, value: '%REQ(b)%'}}]}",
            "health_checks[0].http_health_check.request_headers_to_add[0].header.value: must be plain text here: command operators have nothing to look at",
        ),
        (
            "tcp_health_check: {}, no_traffic_interval: 0s",
            "health_checks[0].no_traffic_interval: must be greater than 0s",
        ),
    ] {
        assert_eq!(reasons(check(fields)), [expected], "{fields}");
    }
    let two = format!("{{{TIMES}, tcp_health_check: {{}}}}");
    assert_eq!(
        reasons(cluster(&format!("health_checks: [{two}, {two}]"))),
        ["health_checks: only one health check is supported"]
    );
    assert_eq!(
        reasons(cluster(
            "health_checks: [{timeout: 1s, interval: 1s, healthy_threshold: 0, tcp_health_check: {}}]"
        )),
        [
            "health_checks[0].unhealthy_threshold: is required",
            "health_checks[0].healthy_threshold: must be greater than 0"
        ]
    );
}

#[test]
fn endpoints_carry_their_check_and_key() {
    let found = translate_endpoints(&message(
        "{cluster_name: e, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}},
        health_check_config: {port_value: 81, hostname: h, address: {socket_address: {address: 10.0.0.2, port_value: 82}}, disable_active_health_check: true}},
        metadata: {filter_metadata: {envoy.lb: {hash_key: k, other: 1}}}}]}]}",
    ))
    .expect("accepted");
    let endpoint = &found.localities[0].endpoints[0];
    assert_eq!(endpoint.hash_key, "k");
    let address = Some("10.0.0.2:82".parse().expect("an address"));
    assert_eq!(
        endpoint.check,
        EndpointCheck { port: Some(81), address, hostname: "h".into(), disabled: true }
    );
    assert_eq!(endpoint.check.target("10.0.0.1:80".parse().expect("an address")).to_string(), "10.0.0.2:81");
}

fn policies(fields: &str) -> Result<Vec<HashPolicy>, Vec<ConfigError>> {
    let text = format!(
        "{{name: t, virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: c, hash_policy: [{fields}]}}}}]}}]}}"
    );
    let mut table = translate_route_config(&message(&text))?;
    match table.virtual_hosts.remove(0).routes.remove(0).action {
        Action::Forward(action) => Ok(action.hash_policy),
        other => panic!("{other:?}"),
    }
}

#[test]
fn hash_policies_are_translated() {
    let found = policies(
        "{header: {header_name: X-User, regex_rewrite: {pattern: {regex: a+}, substitution: b}}, terminal: true},
        {cookie: {name: sid, ttl: 5s, path: /p, attributes: [{name: Secure}, {name: SameSite, value: Lax}]}},
        {connection_properties: {source_ip: true}}, {connection_properties: {}}, {query_parameter: {name: q}}",
    );
    let cookie = HashCookie {
        name: "sid".into(),
        ttl: Some(Duration::from_secs(5)),
        path: "/p".into(),
        attributes: vec![("Secure".into(), String::new()), ("SameSite".into(), "Lax".into())],
    };
    let rest = [HashSource::Cookie(cookie), HashSource::SourceIp, HashSource::Query("q".into())];
    let header = HashSource::Header { name: "x-user".into(), rewrite: Some(("a+".into(), "b".into())) };
    let mut expected = vec![HashPolicy { source: header, terminal: true }];
    expected.extend(rest.map(|source| HashPolicy { source, terminal: false }));
    assert_eq!(found.expect("accepted"), expected);
    const AT: &str = "virtual_hosts[0].routes[0].route.hash_policy[0]";
    for (fields, expected) in [
        ("{terminal: true}", "policy_specifier: is required"),
        ("{cookie: {}}", "cookie.name: must not be empty"),
        ("{cookie: {name: a, path: '/;x'}}", "cookie.path: has a character that a cookie cannot have"),
        ("{query_parameter: {}}", "query_parameter.name: must not be empty"),
    ] {
        assert_eq!(reasons(policies(fields)), [format!("{AT}.{expected}")], "{fields}");
    }
}

#[test]
fn subsets_are_translated_from_both_forms() {
    use config::{LbValue, SubsetFallback, SubsetSelector, Subsets};
    let fields = "fallback_policy: DEFAULT_SUBSET, default_subset: {stage: prod, n: 1}, locality_weight_aware: true, panic_mode_any: true, list_as_any: true,
        subset_selectors: [{keys: [version, stage]}, {keys: [v], fallback_policy: ANY_ENDPOINT}]";
    let selector = |keys: &[&str], fallback| SubsetSelector {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        fallback,
    };
    let expected = Subsets {
        selectors: vec![
            selector(&["version", "stage"], None),
            selector(&["v"], Some(SubsetFallback::AnyEndpoint)),
        ],
        fallback: SubsetFallback::DefaultSubset,
        default_subset: vec![
            ("n".into(), LbValue { text: "1".into(), elements: Vec::new() }),
            ("stage".into(), LbValue::of("prod")),
        ],
        locality_weight_aware: true,
        panic_mode_any: true,
        list_as_any: true,
    };
    let older = cluster(&format!("lb_policy: RANDOM, lb_subset_config: {{{fields}}}")).expect("accepted");
    assert_eq!((older.lb_policy, older.subsets.as_ref()), (LbPolicy::Random, Some(&expected)));
    let kind = "type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random";
    let below = format!(
        "subset_lb_policy: {{policies: [{{typed_extension_config: {{name: y, typed_config: {{'@type': {kind}}}}}}}]}}"
    );
    let newer = cluster(&list("subset.v3.Subset", &format!(", {fields}, {below}"))).expect("accepted");
    assert_eq!((newer.lb_policy, newer.subsets), (LbPolicy::Random, Some(expected)));
    for (fields, expected) in [
        (
            "lb_subset_config: {subset_selectors: [{}]}".to_owned(),
            "lb_subset_config.subset_selectors[0].keys: at least one is required",
        ),
        (
            format!("lb_subset_config: {{}}, {}", list("random.v3.Random", "")),
            "lb_subset_config: has no effect together with `load_balancing_policy`",
        ),
    ] {
        assert_eq!(reasons(cluster(&fields)), [expected], "{fields}");
    }
}

#[test]
fn metadata_of_hosts_and_routes_is_translated_alike() {
    use config::LbValue;
    let metadata = "{filter_metadata: {envoy.lb: {version: '1', tags: [a, 2], deep: {b: true, a: null}}, other: {x: y}}}";
    let expected = vec![
        ("deep".to_owned(), LbValue { text: "{\"a\":null,\"b\":true}".into(), elements: Vec::new() }),
        ("tags".to_owned(), LbValue { text: "[\"a\",2]".into(), elements: vec!["\"a\"".into(), "2".into()] }),
        ("version".to_owned(), LbValue::of("1")),
    ];
    let found = translate_endpoints(&message(&format!(
        "{{cluster_name: e, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 10.0.0.1, port_value: 80}}}}}}, metadata: {metadata}}}]}}]}}"
    )));
    assert_eq!(found.expect("accepted").localities[0].endpoints[0].lb_metadata, expected);
    let text = format!(
        "{{name: t, virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{metadata_match: {metadata}, weighted_clusters: {{clusters: [{{name: c, weight: 1, metadata_match: {metadata}}}]}}}}}}]}}]}}"
    );
    let table = translate_route_config(&message(&text)).expect("accepted");
    match &table.virtual_hosts[0].routes[0].action {
        Action::Forward(action) => {
            assert_eq!(action.metadata_match, expected);
            let config::ClusterChoice::Weighted(shares) = &action.cluster else { panic!() };
            assert_eq!(shares[0].metadata_match, expected);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn zones_are_translated_from_both_forms() {
    use config::ZoneAware;
    let zones = |fields: &str| cluster(fields).map(|c| (c.zone_aware, c.locality_lb));
    let half = ZoneAware {
        routing_enabled: 50,
        min_cluster_size: 3,
        fail_traffic_on_panic: true,
        ..ZoneAware::default()
    };
    let rules = "routing_enabled: {value: 49.6}, min_cluster_size: 3, fail_traffic_on_panic: true";
    assert_eq!(
        zones(&format!("common_lb_config: {{zone_aware_lb_config: {{{rules}}}}}")),
        Ok((half.clone(), LocalityLb::None))
    );
    for policy in ["round_robin.v3.RoundRobin", "least_request.v3.LeastRequest", "random.v3.Random"] {
        let fields = format!(
            ", locality_lb_config: {{zone_aware_lb_config: {{{rules}, force_locality_direct_routing: true}}}}"
        );
        let forced = ZoneAware { force_locality_direct_routing: true, ..half.clone() };
        assert_eq!(zones(&list(policy, &fields)), Ok((forced, LocalityLb::None)));
    }
    for (fields, path) in [
        (
            "lb_policy: MAGLEV, common_lb_config: {zone_aware_lb_config: {}}",
            "common_lb_config.zone_aware_lb_config",
        ),
        (
            "common_lb_config: {zone_aware_lb_config: {routing_enabled: {value: 101}}}",
            "common_lb_config.zone_aware_lb_config.routing_enabled",
        ),
    ] {
        assert_eq!(cluster(fields).unwrap_err()[0].path, path);
    }
}
