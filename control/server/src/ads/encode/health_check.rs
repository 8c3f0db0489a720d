//! `HealthCheck`.

use super::value::{duration, string_match};
use outrigger_api::any;
use outrigger_api::envoy::config::core::v3 as core;
use outrigger_api::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use outrigger_api::envoy::config::core::v3::health_check as ph;
use outrigger_api::envoy::extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink;
use outrigger_api::envoy::r#type::v3::{CodecClientType, Int64Range};
use outrigger_traffic::config::{HealthCheck, HttpProbe, Probe, TcpProbe};

/// How hosts are probed.
pub(super) fn health_check(value: &HealthCheck) -> core::HealthCheck {
    let logger = |path: &String| core::TypedExtensionConfig {
        name: "envoy.health_check.event_sinks.file".to_owned(),
        typed_config: Some(any(&HealthCheckEventFileSink { event_log_path: path.clone() })),
    };
    core::HealthCheck {
        timeout: Some(duration(value.timeout)),
        interval: Some(duration(value.interval)),
        interval_jitter: Some(duration(value.interval_jitter)),
        unhealthy_threshold: Some(value.unhealthy_threshold),
        healthy_threshold: Some(value.healthy_threshold),
        reuse_connection: Some(value.reuse_connection),
        no_traffic_interval: Some(duration(value.no_traffic_interval)),
        unhealthy_interval: value.unhealthy_interval.map(duration),
        unhealthy_edge_interval: value.unhealthy_edge_interval.map(duration),
        healthy_edge_interval: value.healthy_edge_interval.map(duration),
        event_log_path: String::new(),
        interval_jitter_percent: value.interval_jitter_percent,
        always_log_health_check_failures: value.log_all_failures,
        initial_jitter: Some(duration(value.initial_jitter)),
        tls_options: (!value.alpn.is_empty()).then(|| ph::TlsOptions { alpn_protocols: value.alpn.clone() }),
        no_traffic_healthy_interval: value.no_traffic_healthy_interval.map(duration),
        event_logger: value.event_logs.iter().map(logger).collect(),
        always_log_health_check_success: value.log_all_successes,
        health_checker: Some(match &value.probe {
            Probe::Http(probe) => ph::HealthChecker::HttpHealthCheck(http(probe)),
            Probe::Tcp(probe) => ph::HealthChecker::TcpHealthCheck(tcp(probe)),
            Probe::Grpc(probe) => ph::HealthChecker::GrpcHealthCheck(ph::GrpcHealthCheck {
                service_name: probe.service_name.clone(),
                authority: probe.authority.clone(),
                initial_metadata: headers(&probe.metadata),
            }),
        }),
    }
}

fn http(value: &HttpProbe) -> ph::HttpHealthCheck {
    let statuses = |ranges: &[(u16, u16)]| {
        ranges
            .iter()
            .map(|(from, until)| Int64Range { start: (*from).into(), end: (*until).into() })
            .collect()
    };
    ph::HttpHealthCheck {
        host: value.host.clone(),
        path: value.path.clone(),
        send: payload(&value.send),
        receive: value.receive.iter().filter_map(|text| payload(text)).collect(),
        request_headers_to_add: headers(&value.headers_add),
        request_headers_to_remove: value.headers_remove.clone(),
        expected_statuses: statuses(&value.expected_statuses),
        codec_client_type: if value.http2 { CodecClientType::Http2 } else { CodecClientType::Http1 }.into(),
        service_name_matcher: value.service_name.as_ref().map(string_match),
        retriable_statuses: statuses(&value.retriable_statuses),
        method: core::RequestMethod::from_str_name(&value.method).unwrap_or_default().into(),
        response_buffer_size: Some(value.response_buffer_size),
    }
}

fn tcp(value: &TcpProbe) -> ph::TcpHealthCheck {
    ph::TcpHealthCheck {
        send: payload(&value.send),
        receive: value.receive.iter().filter_map(|text| payload(text)).collect(),
    }
}

fn payload(bytes: &[u8]) -> Option<ph::Payload> {
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    (!bytes.is_empty()).then_some(ph::Payload { payload: Some(ph::payload::Payload::Text(text)) })
}

fn headers(edits: &[(String, String, bool)]) -> Vec<core::HeaderValueOption> {
    let one = |(name, value, beside): &(String, String, bool)| core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: name.clone(),
            // A percent sign begins a command operator.
            value: value.replace('%', "%%"),
            raw_value: Vec::new(),
        }),
        append_action: if *beside {
            HeaderAppendAction::AppendIfExistsOrAdd
        } else {
            HeaderAppendAction::OverwriteIfExistsOrAdd
        }
        .into(),
        ..Default::default()
    };
    edits.iter().map(one).collect()
}
