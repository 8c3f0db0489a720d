//! Listeners, connection managers, TLS, TCP proxies, access logs, tracing.

use super::*;
use config::{
    AccessLogFormat, AccessLogSink, EscapedSlashes, ForwardClientCert, NetworkFilter, RouteSource,
    ServerHeader, Terminal, TlsVersion, TrafficDirection, ValidationSource,
};
use std::time::Duration;

pub(super) const PLAIN: &str = r#"
name: in
address: {socket_address: {address: 127.0.0.1, port_value: 80}}
filter_chains:
- filters:
  - name: tcp
    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}
"#;

fn listener(text: &str) -> Result<config::Listener, Vec<ConfigError>> {
    translate_listener(&message(text))
}

/// A listener with one connection manager, given as the fields behind its type.
fn manager(fields: &str) -> Result<config::HttpConnectionManager, Vec<ConfigError>> {
    let text = format!(
        r#"{{name: in, address: {{socket_address: {{address: "::", port_value: 80}}}}, filter_chains: [{{filters: [{{name: h,
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
        stat_prefix: h, {fields}}}}}]}}]}}"#
    );
    let mut listener = listener(&text)?;
    match listener.filter_chains.remove(0).terminal {
        Terminal::Http(manager) => Ok(*manager),
        Terminal::Tcp(_) => panic!("a connection manager"),
    }
}

const ROUTER: &str = r#"http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]"#;
const ROUTES: &str = "route_config: {virtual_hosts: []}";

#[test]
fn disabled_filter_is_checked_and_runs_only_where_a_route_says_so() {
    let rbac = |rules: &str| {
        format!(
            r#"{ROUTES}, http_filters: [{{name: guard, disabled: true, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, {rules}}}}},
            {{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}}}]"#
        )
    };
    let everyone =
        "rules: {action: DENY, policies: {all: {permissions: [{any: true}], principals: [{any: true}]}}}";
    let found = manager(&rbac(everyone)).expect("accepted");
    let guard = &found.http_filters[0];
    assert!(guard.disabled && guard.name == "guard" && guard.as_rbac().is_some_and(|r| r.rules.is_some()));
    assert!(found.suppress_envoy_headers);
    let bad = reasons(manager(&rbac("rules: {policies: {none: {}}}")));
    assert!(bad.iter().all(|reason| reason.contains("http_filters[0].typed_config.rules")), "{bad:?}");
}

fn with(fields: &str) -> String {
    format!("{ROUTER}, {ROUTES}, {fields}")
}

/// The path of a connection manager's fields.
fn inside(reason: &str) -> String {
    format!("filter_chains[0].filters[0].typed_config.{reason}")
}

#[test]
fn plain_listener_has_envoys_defaults() {
    let found = listener(PLAIN).expect("accepted");
    let mut expected = config::Listener::new("in", "127.0.0.1:80".parse().expect("address"));
    expected.filter_chains = found.filter_chains.clone();
    assert_eq!(found, expected);
    let chain = &found.filter_chains[0];
    assert_eq!(chain.transport_socket_connect_timeout, Duration::from_secs(15));
    let Terminal::Tcp(tcp) = &chain.terminal else { panic!("tcp") };
    assert_eq!(tcp.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(tcp.max_connect_attempts, 1);
}

#[test]
fn nameless_listener_is_named_by_its_address() {
    let found = listener(&PLAIN.replace("name: in\n", "")).expect("accepted");
    assert_eq!(found.name, "127.0.0.1:80");
}

#[test]
fn listener_settings_are_taken_over() {
    let text = format!(
        "{PLAIN}additional_addresses: [{{address: {{socket_address: {{address: '::1', port_value: 81}}}}}}]
listener_filters_timeout: 0s
continue_on_listener_filters_timeout: true
per_connection_buffer_limit_bytes: 4096
tcp_backlog_size: 7
traffic_direction: OUTBOUND
enable_reuse_port: true
bind_to_port: true
access_log: [{{typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog}}}}]
listener_filters: [{{name: t, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}]
"
    );
    let found = listener(&text).expect("accepted");
    assert_eq!(found.additional_addresses[0].port(), 81);
    assert_eq!(found.listener_filters_timeout, None);
    assert!(found.continue_on_listener_filters_timeout && found.tls_inspector);
    assert_eq!((found.per_connection_buffer_limit_bytes, found.tcp_backlog_size), (4096, 7));
    assert_eq!(found.traffic_direction, TrafficDirection::Outbound);
    assert_eq!(found.access_log[0].sink, AccessLogSink::Stderr);
}

#[test]
fn impossible_listeners_are_refused() {
    for (text, expected) in [
        ("name: a", "address: is required"),
        ("name: a", "filter_chains: at least one is required"),
        (
            "address: {socket_address: {address: localhost, port_value: 1}}",
            "address.socket_address.address: `localhost` is not an IP address",
        ),
        ("address: {socket_address: {address: 1.2.3.4}}", "address.socket_address.port_value: is required"),
        ("api_listener: {}", "api_listener: is for clients without a proxy"),
        (
            "enable_reuse_port: false",
            "enable_reuse_port: every worker has its own socket; it cannot be switched off",
        ),
        ("filter_chains: [{}]", "filter_chains[0].filters: at least one is required"),
        ("filter_chains: [{filters: [{name: a}]}]", "filter_chains[0].filters[0].typed_config: is required"),
        (
            "filter_chains: [{filter_chain_match: {transport_protocol: quic}}]",
            "filter_chains[0].filter_chain_match.transport_protocol: `quic` is neither `tls` nor `raw_buffer`",
        ),
        (
            "filter_chains: [{filter_chain_match: {server_names: ['a*.b']}}]",
            "filter_chains[0].filter_chain_match.server_names[0]: `a*.b`: only a whole first label can be a wildcard",
        ),
        (
            "filter_chains: [{filter_chain_match: {destination_port: 0}}]",
            "filter_chains[0].filter_chain_match.destination_port: must be between 1 and 65535",
        ),
        (
            "filter_chains: [{filter_chain_match: {prefix_ranges: [{address_prefix: 1.2.3.4, prefix_len: 33}]}}]",
            "filter_chains[0].filter_chain_match.prefix_ranges[0].prefix_len: must be at most 32",
        ),
        (
            "filter_chains: [{transport_socket_connect_timeout: -1s}]",
            "filter_chains[0].transport_socket_connect_timeout: must not be negative",
        ),
    ] {
        let found = reasons(listener(text));
        assert!(found.iter().any(|f| f == expected), "{text}\n{found:#?}");
    }
}

#[test]
fn chains_that_match_on_the_client_hello_switch_the_inspector_on() {
    for (matches, expected) in [
        ("{server_names: [A.example]}", true),
        ("{application_protocols: [h2]}", true),
        ("{transport_protocol: tls}", true),
        ("{transport_protocol: raw_buffer, application_protocols: [h2]}", false),
        ("{destination_port: 80}", false),
    ] {
        let text = PLAIN.replace("- filters:", &format!("- filter_chain_match: {matches}\n  filters:"));
        let found = listener(&text).expect("accepted");
        assert_eq!(found.tls_inspector, expected, "{matches}");
    }
}

#[test]
fn terminal_filters_come_last_and_rbac_before() {
    let rbac = r#"{name: rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: p, rules: {action: DENY, policies: {x: {permissions: [{destination_port_range: {start: 1, end: 9}}], principals: [{not_id: {remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}}]}}}}}"#;
    let tcp = r#"{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 3}]}, idle_timeout: 0s}}"#;
    let chain = |filters: &str| {
        listener(&format!(
            "{{address: {{socket_address: {{address: 1.1.1.1, port_value: 0}}}}, filter_chains: [{{filters: [{filters}]}}]}}"
        ))
    };
    let found = chain(&format!("{rbac}, {tcp}")).expect("accepted");
    let NetworkFilter::Rbac(filter) = &found.filter_chains[0].network_filters[0];
    assert_eq!(filter.rules.as_ref().map(|r| r.action), Some(config::RbacAction::Deny));
    let Terminal::Tcp(tcp_found) = &found.filter_chains[0].terminal else { panic!("tcp") };
    assert_eq!(tcp_found.idle_timeout, None);
    assert!(matches!(&tcp_found.cluster, config::ClusterChoice::Weighted(shares) if shares[1].weight == 3));
    assert_eq!(
        reasons(chain(rbac)),
        [
            "filter_chains[0].filters[0].typed_config: the last filter must be the HTTP connection manager or the TCP proxy"
        ]
    );
    assert_eq!(
        reasons(chain(&format!("{tcp}, {rbac}"))),
        [
            "filter_chains[0].filters[0].typed_config: must be the last filter of its chain",
            "filter_chains[0].filters[1].typed_config: the last filter must be the HTTP connection manager or the TCP proxy",
        ]
    );
}

#[test]
fn connection_manager_has_envoys_defaults() {
    let found = manager(&format!("{ROUTER}, {ROUTES}")).expect("accepted");
    let table = config::RouteConfig { validate_clusters: true, ..config::RouteConfig::default() };
    assert_eq!(found, config::HttpConnectionManager::new("h", RouteSource::Inline(table)));
    assert_eq!(manager(ROUTES).expect("the router is implied"), found);
}

#[test]
fn connection_manager_settings_are_taken_over() {
    let found = manager(&format!(
        "{ROUTER}, rds: {{route_config_name: r, config_source: {{ads: {{}}, resource_api_version: V3}}}}, codec_type: http1,
        common_http_protocol_options: {{idle_timeout: 0s, max_headers_count: 7, max_requests_per_connection: 0, max_stream_duration: 9s, max_connection_duration: 8s}},
        http_protocol_options: {{accept_http_10: true, default_host_for_http_10: d, enable_trailers: true, allow_absolute_url: true}},
        http2_protocol_options: {{max_concurrent_streams: 5, initial_stream_window_size: 65535, connection_keepalive: {{interval: 30s, timeout: 5s}}, allow_connect: true}},
        server_name: s, server_header_transformation: APPEND_IF_ABSENT, scheme_header_transformation: {{scheme_to_overwrite: https}},
        max_request_headers_kb: 96, stream_idle_timeout: 0s, request_timeout: 4s, request_headers_timeout: 3s, drain_timeout: 2s,
        use_remote_address: true, xff_num_trusted_hops: 2, skip_xff_append: true, via: v, generate_request_id: false, preserve_external_request_id: true,
        always_set_request_id_in_response: true, forward_client_cert_details: SANITIZE_SET, set_current_client_cert_details: {{subject: true, uri: true}},
        upgrade_configs: [{{upgrade_type: websocket}}, {{upgrade_type: x, enabled: false}}], normalize_path: true, merge_slashes: true,
        path_with_escaped_slashes_action: REJECT_REQUEST, strip_any_host_port: true, stream_error_on_invalid_http_message: true"
    ))
    .expect("accepted");
    assert_eq!(found.routes, RouteSource::Named("r".into()));
    assert_eq!(found.codec_type, config::CodecType::Http1);
    assert_eq!(
        (found.idle_timeout, found.max_headers_count, found.max_requests_per_connection),
        (None, 7, None)
    );
    assert_eq!(found.max_stream_duration, Some(Duration::from_secs(9)));
    assert_eq!(found.max_connection_duration, Some(Duration::from_secs(8)));
    assert!(found.http1.accept_http_10 && found.http1.enable_trailers);
    assert_eq!(found.http2.max_concurrent_streams, 5);
    assert_eq!(found.http2.keepalive_interval, Some(Duration::from_secs(30)));
    assert_eq!(found.http2.keepalive_timeout, Duration::from_secs(5));
    assert_eq!((found.server_name.as_str(), found.server_header), ("s", ServerHeader::AppendIfAbsent));
    assert_eq!(found.scheme_override.as_deref(), Some("https"));
    assert_eq!((found.max_request_headers_kb, found.stream_idle_timeout), (96, None));
    assert_eq!(found.request_timeout, Some(Duration::from_secs(4)));
    assert_eq!(found.request_headers_timeout, Some(Duration::from_secs(3)));
    assert_eq!(found.drain_timeout, Duration::from_secs(2));
    assert!(found.use_remote_address && found.skip_xff_append && !found.generate_request_id);
    assert_eq!((found.xff_num_trusted_hops, found.via.as_str()), (2, "v"));
    assert_eq!(found.forward_client_cert, ForwardClientCert::SanitizeSet);
    assert!(found.set_client_cert_details.subject && !found.set_client_cert_details.dns);
    assert!(found.upgrades[0].enabled && !found.upgrades[1].enabled);
    assert!(found.normalize_path && found.merge_slashes && found.strip_any_host_port);
    assert_eq!(found.escaped_slashes, EscapedSlashes::RejectRequest);
    assert!(found.stream_error_on_invalid_http_message);
}

#[test]
fn impossible_connection_managers_are_refused() {
    for (fields, expected) in [
        (ROUTER.to_owned(), "`route_config`, `rds` or `scoped_routes` is required".to_owned()),
        (
            format!(
                r#"{ROUTES}, http_filters: [{{name: r, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}}}}]"#
            ),
            inside("http_filters: the last filter must be the router"),
        ),
        (
            format!("{ROUTER}, rds: {{config_source: {{ads: {{}}}}}}"),
            inside("rds.route_config_name: must not be empty"),
        ),
        (format!("{ROUTER}, rds: {{route_config_name: r}}"), inside("rds.config_source: is required")),
        (
            format!(
                "{ROUTER}, rds: {{route_config_name: r, config_source: {{api_config_source: {{api_type: GRPC}}}}}}"
            ),
            inside("rds.config_source.api_config_source.grpc_services: exactly one is supported, found 0"),
        ),
        (with("max_request_headers_kb: 8193"), inside("max_request_headers_kb: must be between 1 and 8192")),
        (
            with("http_protocol_options: {allow_absolute_url: false}"),
            inside(
                "http_protocol_options.allow_absolute_url: absolute-form targets must be accepted (RFC 9112 section 3.2.2)",
            ),
        ),
        (
            with("http2_protocol_options: {initial_stream_window_size: 65534}"),
            inside("http2_protocol_options.initial_stream_window_size: must be between 65535 and 2147483647"),
        ),
        (
            with("http2_protocol_options: {max_concurrent_streams: 0}"),
            inside("http2_protocol_options.max_concurrent_streams: must be between 1 and 2147483647"),
        ),
        (
            with("http2_protocol_options: {connection_keepalive: {interval: 1s}}"),
            inside("http2_protocol_options.connection_keepalive.timeout: is required"),
        ),
        (
            with("upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: WebSocket}]"),
            inside("upgrade_configs[1].upgrade_type: `WebSocket` is given twice"),
        ),
        (with("tracing: {}"), inside("tracing.provider: is required")),
        (with("access_log: [{name: a}]"), inside("access_log[0].typed_config: is required")),
        (
            with("scheme_header_transformation: {scheme_to_overwrite: ftp}"),
            inside("scheme_header_transformation.scheme_to_overwrite: must be `http` or `https`"),
        ),
        (
            format!("{ROUTES}, http_filters: [{{name: envoy.filters.http.router, disabled: true}}]"),
            inside("http_filters[0].disabled: the router cannot be disabled"),
        ),
    ] {
        let found = reasons(manager(&fields));
        assert!(found.iter().any(|f| f.ends_with(&expected)), "{fields}\n{found:#?}");
    }
}

#[test]
fn access_logs_and_tracing_are_translated() {
    let found = manager(&with(
        r#"access_log: [
        {name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /x, log_format: {text_format_source: {inline_string: "%PROTOCOL%\n"}}}},
        {name: b, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, log_format: {json_format: {b: "%RESPONSE_CODE%", a: {n: 1, f: 1.5}}}}},
        {name: c, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /y, format: "t"}}],
        tracing: {random_sampling: {value: 12.5}, provider: {name: o, typed_config: {"@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: s, grpc_service: {envoy_grpc: {cluster_name: otel}}}}}"#,
    ))
    .expect("accepted");
    assert_eq!(found.access_log[0].sink, AccessLogSink::File("/x".into()));
    assert_eq!(found.access_log[0].format, AccessLogFormat::Text("%PROTOCOL%\n".into()));
    let AccessLogFormat::Json(map) = &found.access_log[1].format else { panic!("json") };
    assert_eq!(
        serde_json::Value::Object(map.clone()),
        serde_json::json!({"a": {"f": 1.5, "n": 1}, "b": "%RESPONSE_CODE%"})
    );
    assert_eq!(found.access_log[2].format, AccessLogFormat::Text("t".into()));
    let tracing = found.tracing.expect("tracing");
    assert_eq!(tracing.random_sampling.millionths(), 125_000);
    assert_eq!(tracing.client_sampling, config::Fraction::ONE);
    assert_eq!((tracing.service_name.as_str(), tracing.collector_cluster.as_str()), ("s", "otel"));
}

#[test]
fn log_filters_and_span_options_are_translated_or_refused() {
    use config::{Comparison, LogFilter, LogKind, Order, SpanExport};
    let log = |filter: &str| {
        format!(
            r#"access_log: [{{name: a, filter: {{{filter}}}, typed_config: {{"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}}}}]"#
        )
    };
    let ge = "comparison: {op: GE, value: {default_value: 500, runtime_key: k}}";
    let at_least = Comparison { is: Order::AtLeast, than: 500 };
    for (filter, expected) in [
        (format!("status_code_filter: {{{ge}}}"), LogFilter::Status(at_least)),
        (format!("duration_filter: {{{ge}}}"), LogFilter::Duration(at_least)),
        ("not_health_check_filter: {}".into(), LogFilter::NotHealthCheck),
        (
            "runtime_filter: {runtime_key: k, percent_sampled: {numerator: 3}}".into(),
            LogFilter::Share(config::Fraction::from_percent(3)),
        ),
        (
            "or_filter: {filters: [{not_health_check_filter: {}}, {not_health_check_filter: {}}]}".into(),
            LogFilter::Or(vec![LogFilter::NotHealthCheck, LogFilter::NotHealthCheck]),
        ),
        ("response_flag_filter: {flags: [UF, LH]}".into(), LogFilter::Flags(vec!["UF".into()])),
        (
            "grpc_status_filter: {statuses: [UNAVAILABLE], exclude: true}".into(),
            LogFilter::GrpcStatus { statuses: vec![14], exclude: true },
        ),
        (
            "log_type_filter: {types: [DownstreamEnd, TcpConnectionEnd, UpstreamEnd]}".into(),
            LogFilter::Kind {
                kinds: vec![LogKind::Request, LogKind::Connection, LogKind::Other],
                exclude: false,
            },
        ),
    ] {
        let found = manager(&with(&log(&filter))).expect("accepted");
        assert_eq!(found.access_log[0].filter.as_ref(), Some(&expected), "{filter}");
    }
    for (filter, expected) in [
        (
            "and_filter: {filters: [{not_health_check_filter: {}}]}",
            "filter.and_filter.filters: needs at least two",
        ),
        ("response_flag_filter: {flags: [XX]}", "flags[0]: `XX` is not a response flag"),
        ("response_flag_filter: {flags: [LH]}", "flags: none of these flags is ever set here"),
        ("status_code_filter: {}", "filter.status_code_filter.comparison: is required"),
    ] {
        let found = reasons(manager(&with(&log(filter))));
        assert!(found.iter().any(|f| f.ends_with(expected)), "{filter}\n{found:#?}");
    }
    let traced = |options: &str, provider: &str| {
        manager(&with(&format!(
            r#"tracing: {{{options} provider: {{name: p, typed_config: {{"@type": type.googleapis.com/envoy.config.trace.v3.{provider}}}}}}}"#
        )))
    };
    let zipkin =
        "ZipkinConfig, collector_cluster: z, collector_endpoint: /api, collector_endpoint_version: HTTP_JSON";
    let options = "max_path_tag_length: 9, verbose: true, spawn_upstream_span: false, operation: o, custom_tags: [{tag: a, literal: {value: 5%}}, {tag: b, environment: {name: B, default_value: d}}],";
    let found = traced(options, zipkin).expect("accepted").tracing.expect("tracing");
    assert_eq!(found.export, SpanExport::Zipkin { host: "z".into(), path: "/api".into() });
    assert!(found.always_b3 && !found.wide_trace_ids && found.spans.verbose && !found.spans.attempts);
    let tags: Vec<_> =
        found.spans.tags.iter().map(|t| (t.value.as_str(), t.default_value.as_str())).collect();
    assert_eq!((found.spans.path_bytes_max, tags), (9, vec![("5%%", ""), ("%ENVIRONMENT(B)%", "d")]));
    let http = "OpenTelemetryConfig, http_service: {http_uri: {uri: 'http://c.test:4318/v1/traces', cluster: c, timeout: 1s}, request_headers_to_add: [{header: {key: X-K, value: v}}]}";
    let found = traced("", http).expect("accepted").tracing.expect("tracing");
    let expected = SpanExport::OtlpHttp {
        host: "c.test:4318".into(),
        path: "/v1/traces".into(),
        headers: vec![("x-k".into(), "v".into())],
    };
    assert_eq!((found.export, found.collector_cluster.as_str()), (expected, "c"));
    for (provider, expected) in [
        (
            format!("{zipkin}, shared_span_context: true"),
            "shared_span_context: every proxy has spans of its own here",
        ),
        (
            "ZipkinConfig, collector_cluster: z, collector_endpoint: x".into(),
            "collector_endpoint_version: must be HTTP_JSON",
        ),
    ] {
        let found = reasons(traced("", &provider));
        assert!(found.iter().any(|f| f.ends_with(expected)), "{provider}\n{found:#?}");
    }
}

/// A disk where every file holds its own path.
struct Paths;

impl FileReader for Paths {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        Ok(path.as_bytes().to_vec())
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

fn tls(context: &str) -> Result<config::DownstreamTls, Vec<ConfigError>> {
    let socket = format!(
        "  transport_socket: {{name: tls, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, {context}}}}}\n"
    );
    let found = translate_listener_with(
        &message(&format!("{PLAIN}{socket}")),
        &Surroundings { files: &Paths, ..Surroundings::default() },
    )?;
    Ok(found.filter_chains[0].tls.clone().expect("tls"))
}

#[test]
fn downstream_tls_is_translated() {
    let found = tls(
        "require_client_certificate: true, disable_stateless_session_resumption: true, common_tls_context: {
        tls_certificate_sds_secret_configs: [{name: own, sds_config: {ads: {}}}], alpn_protocols: [h2, http/1.1],
        tls_params: {tls_minimum_protocol_version: TLSv1_3},
        combined_validation_context: {default_validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: 'spiffe://a/'}}]},
          validation_context_sds_secret_config: {name: roots}}}",
    )
    .expect("accepted");
    assert_eq!(found.certificates, [config::CertificateSource::Sds("own".into())]);
    assert!(found.require_client_certificate && found.disable_stateless_session_resumption);
    assert_eq!(found.alpn, ["h2", "http/1.1"]);
    assert_eq!((found.params.min, found.params.max), (Some(TlsVersion::V1_3), None));
    let Some(ValidationSource::Combined { default, sds }) = found.validation else { panic!("combined") };
    assert_eq!((default.sans[0].kind, sds.as_str()), (config::SanType::Uri, "roots"));
}

#[test]
fn impossible_tls_is_refused() {
    let certificate = "tls_certificates: [{certificate_chain: {filename: a}, private_key: {filename: b}}]";
    for (context, expected) in [
        ("require_client_certificate: false".to_owned(), "common_tls_context: is required"),
        (
            "common_tls_context: {}".into(),
            "common_tls_context: `tls_certificates` or `tls_certificate_sds_secret_configs` is required",
        ),
        (
            format!("require_client_certificate: true, common_tls_context: {{{certificate}}}"),
            "require_client_certificate: needs a validation context, else any certificate would do",
        ),
        (
            format!(
                "common_tls_context: {{{certificate}, tls_certificate_sds_secret_configs: [{{name: x}}]}}"
            ),
            "common_tls_context.tls_certificate_sds_secret_configs: cannot be given together with `tls_certificates`",
        ),
        (
            format!("common_tls_context: {{{certificate}, alpn_protocols: ['']}}"),
            "common_tls_context.alpn_protocols[0]: must have 1 to 255 bytes",
        ),
        (
            format!(
                "common_tls_context: {{{certificate}, tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_2}}}}"
            ),
            "common_tls_context.tls_params: the minimum version is above the maximum",
        ),
        (
            format!(
                "common_tls_context: {{{certificate}, validation_context: {{match_typed_subject_alt_names: [{{matcher: {{exact: a}}}}]}}}}"
            ),
            "common_tls_context.validation_context.match_typed_subject_alt_names[0].san_type: is required",
        ),
        (
            format!(
                "common_tls_context: {{{certificate}, validation_context: {{trusted_ca: {{environment_variable: NONE}}}}}}"
            ),
            "common_tls_context.validation_context.trusted_ca.environment_variable: the variable `NONE` is not set",
        ),
    ] {
        let found = reasons(tls(&context));
        let expected = format!("filter_chains[0].transport_socket.typed_config.{expected}");
        assert!(found.contains(&expected), "{context}\n{found:#?}");
    }
}

#[test]
fn tunnel_of_a_tcp_proxy_is_translated() {
    let with = |tunnel: &str| PLAIN.replace("cluster: c", &format!("cluster: c, tunneling_config: {tunnel}"));
    assert!(with("{}").contains("tunneling_config"), "{PLAIN}");
    let found =
        listener(&with("{hostname: 'h:1', use_post: true, headers_to_add: [{header: {key: A, value: b}}]}"));
    let Terminal::Tcp(tcp) = &found.expect("accepted").filter_chains[0].terminal else { panic!("tcp") };
    let tunnel = tcp.tunnel.as_ref().expect("a tunnel");
    assert_eq!((&*tunnel.hostname, tunnel.post_path.as_deref()), ("h:1", Some("/")));
    assert_eq!((&*tunnel.headers[0].name, &*tunnel.headers[0].value), ("a", "b"));
    for (tunnel, expected) in [
        ("{}", "tunneling_config.hostname: must not be empty"),
        ("{hostname: h, post_path: /a}", "tunneling_config.post_path: is for requests with `use_post`"),
    ] {
        let found = reasons(listener(&with(tunnel))).join("; ");
        assert!(found.contains(expected), "{tunnel}: {found}");
    }
}
