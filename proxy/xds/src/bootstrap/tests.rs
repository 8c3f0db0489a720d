use super::{Bootstrap, DynamicSource, Format, GrpcSource, load_bootstrap, load_bootstrap_with};
use crate::ads::backoff::Bounds;
use crate::translate::files::FileReader;
use outrigger_traffic::config::{
    ClusterChoice, ClusterDiscovery, CodecType, ConfigError, HttpUpstream, MemoryMonitor, OverloadManager,
    Principal, RouteSource, Terminal, TlsVersion, ValidationSource,
};
use std::io;
use std::time::Duration;

/// A disk with two files and one variable.
struct Files;

impl FileReader for Files {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        match path {
            "/c/app.pem" => Ok(b"CHAIN".to_vec()),
            "/c/app.key" => Ok(b"KEY".to_vec()),
            "/c/binary" => Ok(vec![0xff]),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "CA").then(|| "ROOTS".into())
    }
}

fn yaml(text: &str) -> Result<Bootstrap, Vec<ConfigError>> {
    load_bootstrap_with(Some((text, Format::Yaml)), None, &Files)
}

fn refusals(text: &str) -> Vec<String> {
    yaml(text).expect_err("refused").iter().map(ToString::to_string).collect()
}

const T: &str = "type.googleapis.com/envoy.extensions.";

/// The shape of configuration that the benchmark harness writes: JSON, retry, authorization and mutual TLS.
fn mesh_json() -> String {
    serde_json::json!({"static_resources": {
        "clusters": [{
            "name": "b", "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "b", "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
                {"socket_address": {"address": "127.0.0.1", "port_value": 9001}}}}]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{T}upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {"http2_protocol_options": {}}}},
            "outlier_detection": {"consecutive_5xx": 5},
            "circuit_breakers": {"thresholds": [{"max_connections": 100000, "max_retries": 100, "track_remaining": true}]}
        }],
        "listeners": [{
            "name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 9000}},
            "filter_chains": [{
                "filters": [{"name": "hcm", "typed_config": {
                    "@type": format!("{T}filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "in", "codec_type": "HTTP2", "generate_request_id": false,
                    "route_config": {"virtual_hosts": [{"name": "v", "domains": ["Svc-1.mesh"], "routes": [{
                        "match": {"prefix": "/"},
                        "route": {"cluster": "b", "timeout": "15s",
                            "retry_policy": {"retry_on": "5xx,gateway-error,connect-failure,refused-stream", "num_retries": 2}}}]}]},
                    "http_filters": [
                        {"name": "rbac", "typed_config": {"@type": format!("{T}filters.http.rbac.v3.RBAC"),
                            "rules": {"policies": {"p": {"permissions": [{"any": true}],
                                "principals": [{"authenticated": {"principal_name": {"exact": "spiffe://mesh/client"}}}]}}}}},
                        {"name": "router", "typed_config": {"@type": format!("{T}filters.http.router.v3.Router"),
                            "suppress_envoy_headers": true, "dynamic_stats": false}}]}}],
                "transport_socket": {"name": "tls", "typed_config": {
                    "@type": format!("{T}transport_sockets.tls.v3.DownstreamTlsContext"),
                    "require_client_certificate": true,
                    "common_tls_context": {
                        "tls_certificates": [{"certificate_chain": {"filename": "/c/app.pem"}, "private_key": {"filename": "/c/app.key"}}],
                        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                        "validation_context": {"trusted_ca": {"environment_variable": "CA"}},
                        "alpn_protocols": ["h2"]}}}
            }]
        }]},
        "stats_config": {"stats_matcher": {"reject_all": true}}
    })
    .to_string()
}

#[test]
fn a_mesh_configuration_in_json_is_translated_whole() {
    let loaded = load_bootstrap_with(Some((&mesh_json(), Format::Json)), None, &Files).expect("accepted");
    let noticed: Vec<&str> = loaded.notices.iter().map(|n| n.path.as_str()).collect();
    let router =
        "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[1].typed_config";
    assert_eq!(noticed, [format!("{router}.dynamic_stats").as_str(), "stats_config"]);
    let cluster = &loaded.config.clusters[0];
    assert_eq!(cluster.http.protocol, HttpUpstream::Http2);
    assert_eq!(cluster.circuit_breakers.default.max_connections, 100_000);
    assert_eq!(cluster.circuit_breakers.high.max_connections, 1024);
    assert!(
        matches!(&cluster.discovery, ClusterDiscovery::Static(e) if e.localities[0].endpoints.len() == 1)
    );
    let chain = &loaded.config.listeners[0].filter_chains[0];
    let tls = chain.tls.as_ref().expect("tls");
    assert!(tls.require_client_certificate);
    assert_eq!(tls.params.min, Some(TlsVersion::V1_3));
    assert!(matches!(&tls.validation,
        Some(ValidationSource::Inline(v)) if v.trusted_ca_pem.as_deref() == Some("ROOTS")));
    let Terminal::Http(http) = &chain.terminal else { panic!("http") };
    assert_eq!(http.codec_type, CodecType::Http2);
    assert!(!http.generate_request_id);
    let RouteSource::Inline(table) = &http.routes else { panic!("inline") };
    assert!(table.validate_clusters);
    assert_eq!(table.virtual_hosts[0].domains, ["svc-1.mesh"]);
    let outrigger_traffic::config::Action::Forward(forward) = &table.virtual_hosts[0].routes[0].action else {
        panic!("forward")
    };
    assert_eq!(forward.cluster, ClusterChoice::Single("b".into()));
    let retry = forward.retry_policy.as_ref().expect("retry");
    assert!(retry.retry_on.server_error && retry.retry_on.refused_stream && !retry.retry_on.reset);
    assert_eq!(retry.num_retries, 2);
    let rbac = http.http_filters[0].as_rbac().expect("rules");
    let principals = &rbac.rules.as_ref().expect("rules").policies[0].1.principals;
    assert!(matches!(&principals[0], Principal::Authenticated(Some(_))));
}

#[test]
fn every_problem_is_reported_with_path_and_line() {
    let text = "\
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 99999}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: x
          cluster: a
          max_connect_attempts: 0
      transport_socket:
        name: tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates:
            - certificate_chain: {filename: /missing.pem}
              private_key: {filename: /c/binary}
  clusters:
  - {name: a, connect_timeout: 0s}
  - {name: a}
";
    assert_eq!(
        refusals(text),
        [
            "listener/in: static_resources.listeners[0].address.socket_address.port_value: 99999 is not a port (line 4)",
            "listener/in: static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.common_tls_context.tls_certificates[0].certificate_chain.filename: cannot read `/missing.pem`: no such file (line 19)",
            "listener/in: static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.common_tls_context.tls_certificates[0].private_key: is not UTF-8 (line 20)",
            "listener/in: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.max_connect_attempts: must be greater than 0 (line 12)",
            "cluster/a: static_resources.clusters[0].connect_timeout: must be greater than 0s (line 22)",
        ]
    );
}

#[test]
fn names_given_twice_are_refused() {
    let found = refusals("static_resources: {clusters: [{name: a}, {name: a}]}");
    assert_eq!(found, ["static_resources.clusters: `a` is given twice"]);
}

const ADS: &str = "
node: {id: n1, cluster: c1, locality: {zone: z}}
admin: {address: {socket_address: {address: '::1', port_value: 9901}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services:
    - envoy_grpc: {cluster_name: control, authority: xds, retry_policy: {retry_back_off: {base_interval: 1s}}}
      initial_metadata: [{key: X-Token, value: t}]
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {api_config_source: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: control}}]}}
static_resources:
  clusters:
  - name: control
    type: STRICT_DNS
    http2_protocol_options: {}
    load_assignment: {cluster_name: control, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: control.local, port_value: 15012}}}}]}]}
layered_runtime: {layers: [{name: a, admin_layer: {}}, {name: s, static_layer: {envoy.reloadable_features.x: true, re2: {max_program_size: {error_level: 100}}}}]}
";

#[test]
fn dynamic_sources_node_and_admin_are_read() {
    let loaded = yaml(ADS).expect("accepted");
    assert_eq!(loaded.node.id, "n1");
    assert_eq!(loaded.node.locality.expect("locality").zone, "z");
    assert_eq!(loaded.admin.map(|a| a.to_string()).as_deref(), Some("[::1]:9901"));
    let ads = loaded.dynamic.ads.expect("ads");
    assert_eq!(
        ads,
        GrpcSource {
            delta: true,
            cluster: "control".into(),
            authority: "xds".into(),
            metadata: vec![("x-token".into(), "t".into())],
            backoff: Bounds { base: Duration::from_secs(1), max: Duration::from_secs(10) },
            node_once: false,
        }
    );
    assert_eq!(loaded.dynamic.listeners, Some(DynamicSource::Ads));
    assert!(
        matches!(loaded.dynamic.clusters, Some(DynamicSource::Own(own)) if !own.delta && own.backoff == Bounds::default())
    );
    assert_eq!(loaded.notices.len(), 2);
}

#[test]
fn dynamic_sources_that_cannot_work_are_refused() {
    let found = refusals(
        "dynamic_resources: {lds_config: {ads: {}}, cds_config: {api_config_source: {api_type: AGGREGATED_GRPC, grpc_services: [{envoy_grpc: {cluster_name: nowhere}}]}}}",
    );
    assert_eq!(
        found,
        [
            "dynamic_resources.lds_config.ads: needs `ads_config` (line 1)",
            "dynamic_resources.cds_config.api_config_source.api_type: needs xdstp names, which are not supported; use GRPC or DELTA_GRPC (line 1)",
            "dynamic_resources.cds_config.api_config_source.grpc_services[0].envoy_grpc.cluster_name: there is no static cluster `nowhere` (line 1)",
        ]
    );
    let found = refusals(
        "{dynamic_resources: {ads_config: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: c, retry_policy: {retry_back_off: {base_interval: 2s, max_interval: 1s}}}}]}}, static_resources: {clusters: [{name: c}]}}",
    );
    assert_eq!(
        found,
        [
            "dynamic_resources.ads_config.grpc_services[0].envoy_grpc.retry_policy.retry_back_off.max_interval: must not be below `base_interval` (line 1)"
        ]
    );
    let found = refusals("dynamic_resources: {lds_config: {path_config_source: {path: /nowhere.yaml}}}");
    assert_eq!(found.len(), 1);
    let expected = "dynamic_resources.lds_config.path_config_source.path: cannot read `/nowhere.yaml`";
    assert!(found[0].starts_with(expected), "{}", found[0]);
}

#[test]
fn runtime_values_without_effect_are_refused_and_others_are_there() {
    let found = refusals("layered_runtime: {layers: [{name: s, static_layer: {upstream: {use_retry: 5}}}]}");
    assert_eq!(
        found,
        [
            "layered_runtime.layers[0].static_layer.upstream.use_retry: this runtime value is not supported (line 1)"
        ]
    );
    let loaded = yaml(
        "{layered_runtime: {layers: [{name: s, static_layer: {mine: 30}}, {name: a, admin_layer: {}}]}, static_resources: {clusters: [{name: c, common_lb_config: {healthy_panic_threshold: {value: 10}}}]}}",
    );
    assert_eq!(loaded.expect("accepted").runtime.whole("mine", 0), 30);
}

#[test]
fn an_overlay_replaces_values_and_appends_to_lists() {
    let over = "node: {id: n2}\nstatic_resources: {clusters: [{name: extra}]}";
    let loaded = load_bootstrap_with(Some((ADS, Format::Yaml)), Some(over), &Files).expect("accepted");
    assert_eq!((loaded.node.id.as_str(), loaded.node.cluster.as_str()), ("n2", "c1"));
    let names: Vec<&str> = loaded.config.clusters.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["control", "extra"]);
    let alone = load_bootstrap_with(None, Some("node: {id: x}"), &Files).expect("accepted");
    assert_eq!(alone.node.id, "x");
}

#[test]
fn nothing_is_a_bootstrap_of_nothing() {
    let loaded = load_bootstrap("{}", Format::Json).expect("accepted");
    assert_eq!(loaded.config, outrigger_traffic::config::Config::default());
}

#[test]
fn overload_manager_is_read_and_absent_means_the_default() {
    let manager = |actions: &str| {
        format!(
            "overload_manager:\n  refresh_interval: 0.25s\n  resource_monitors:\n  - name: envoy.resource_monitors.fixed_heap\n    typed_config: {{'@type': {T}resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 1000}}\n  - name: envoy.resource_monitors.cgroup_memory\n    typed_config: {{'@type': {T}resource_monitors.cgroup_memory.v3.CgroupMemoryConfig, max_memory_bytes: 7}}\n  actions:\n{actions}"
        )
    };
    let action = |name: &str, trigger: &str| {
        format!("  - name: envoy.overload_actions.{name}\n    triggers: [{trigger}]\n")
    };
    let heap = "{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.951}}";
    let group = "{name: envoy.resource_monitors.cgroup_memory, threshold: {value: 1}}";
    let text = [
        action("stop_accepting_requests", heap),
        action("stop_accepting_connections", group),
        action("reject_incoming_connections", &format!("{heap}, {group}")),
        action("disable_http_keepalive", heap),
    ];
    let found = yaml(&manager(&text.concat())).expect("accepted").overload;
    assert_eq!(found.refresh_interval, Duration::from_millis(250));
    assert_eq!((found.fixed_heap_bytes, found.cgroup_memory.unwrap().max_bytes), (Some(1000), Some(7)));
    assert_eq!(found.stop_accepting_requests[0].threshold.millionths(), 951_000);
    assert_eq!(found.stop_accepting_connections[0].monitor, MemoryMonitor::CgroupMemory);
    assert_eq!((found.reject_incoming_connections.len(), found.disable_http_keepalive.len()), (2, 1));
    assert_eq!(yaml("{}").expect("accepted").overload, OverloadManager::default());

    let text = [
        action("scale_heap", heap),
        action("stop_accepting_requests", "{name: envoy.resource_monitors.global, threshold: {value: 0.5}}"),
        action(
            "stop_accepting_connections",
            "{name: envoy.resource_monitors.fixed_heap, threshold: {value: 1.5}}",
        ),
    ];
    let found = refusals(&manager(&text.concat()));
    assert_eq!(found.len(), 3, "{found:#?}");
    for (found, expected) in
        found.iter().zip(["scale_heap` is not supported", "there is no monitor", "between 0 and 1"])
    {
        assert!(found.contains(expected), "{found}");
    }
    let scaled = "{name: envoy.resource_monitors.fixed_heap, scaled: {scaling_threshold: 0.5, saturation_threshold: 1}}";
    let found = refusals(&manager(&action("stop_accepting_requests", scaled)));
    assert!(found[0].contains("scaled: not supported by Outrigger"), "{found:#?}");
    let other = "overload_manager: {resource_monitors: [{name: envoy.resource_monitors.cpu_utilization}]}";
    assert!(
        refusals(other)[0].contains("the monitor `envoy.resource_monitors.cpu_utilization` is not supported")
    );
}

#[test]
fn local_cluster_is_where_the_node_is_and_must_be_static() {
    let text = "{node: {locality: {zone: z}}, cluster_manager: {local_cluster_name: a}, static_resources: {clusters: [{name: a}]}}";
    let local = yaml(text).expect("accepted").config.local_cluster.expect("local");
    assert_eq!((local.name.as_str(), local.locality.expect("place").zone.as_str()), ("a", "z"));
    let found = refusals("cluster_manager: {local_cluster_name: b}");
    assert_eq!(found, ["cluster_manager.local_cluster_name: is not among the static clusters"]);
}
