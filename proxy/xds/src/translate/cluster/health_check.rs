//! `health_checks`.

use crate::translate::At;
use crate::translate::value::{duration, header_name, positive, string_match};
use outrigger_api::envoy::config::core::v3 as core;
use outrigger_api::envoy::config::core::v3::header_value_option::HeaderAppendAction as A;
use outrigger_api::envoy::config::core::v3::health_check as ph;
use outrigger_api::envoy::extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink;
use outrigger_api::envoy::r#type::v3::{CodecClientType, Int64Range};
use outrigger_traffic::config::{GrpcProbe, HealthCheck, HttpProbe, Probe, TcpProbe};
use prost_types::Duration as ProtoDuration;
use std::time::Duration;

/// Envoy takes a single one as well.
pub(super) fn health_check(messages: &[core::HealthCheck], at: &At<'_>) -> Option<HealthCheck> {
    if messages.len() > 1 {
        at.field("health_checks").refuse("only one health check is supported");
    }
    let at = at.item("health_checks", 0);
    one(messages.first()?, &at)
}

fn one(message: &core::HealthCheck, at: &At<'_>) -> Option<HealthCheck> {
    let time = |value: Option<&ProtoDuration>, name| value.and_then(|v| positive(v, &at.field(name)));
    let needed = |value: Option<&ProtoDuration>, name| {
        time(at.field(name).need(value), name).unwrap_or(Duration::from_secs(1))
    };
    let threshold = |value: Option<u32>, name| match at.field(name).need(value) {
        Some(0) => {
            at.field(name).refuse("must be greater than 0");
            1
        }
        value => value.unwrap_or(1),
    };
    let jitter = |value: Option<&ProtoDuration>, name| {
        value.and_then(|v| duration(v, &at.field(name))).unwrap_or_default()
    };
    let probe = match at.field("health_checker").need(message.health_checker.as_ref())? {
        ph::HealthChecker::HttpHealthCheck(m) => Probe::Http(http(m, &at.field("http_health_check"))),
        ph::HealthChecker::TcpHealthCheck(m) => Probe::Tcp(tcp(m, &at.field("tcp_health_check"))),
        ph::HealthChecker::GrpcHealthCheck(m) => {
            let at = at.field("grpc_health_check");
            Probe::Grpc(GrpcProbe {
                service_name: m.service_name.clone(),
                authority: header_text(&m.authority, &at.field("authority")),
                metadata: added(&m.initial_metadata, "initial_metadata", &at),
            })
        }
    };
    let thresholds = (
        threshold(message.unhealthy_threshold, "unhealthy_threshold"),
        threshold(message.healthy_threshold, "healthy_threshold"),
    );
    let timeout = needed(message.timeout.as_ref(), "timeout");
    let interval = needed(message.interval.as_ref(), "interval");
    let default = HealthCheck::new(timeout, interval, thresholds, probe);
    Some(HealthCheck {
        initial_jitter: jitter(message.initial_jitter.as_ref(), "initial_jitter"),
        interval_jitter: jitter(message.interval_jitter.as_ref(), "interval_jitter"),
        interval_jitter_percent: message.interval_jitter_percent,
        reuse_connection: message.reuse_connection.unwrap_or(true),
        no_traffic_interval: time(message.no_traffic_interval.as_ref(), "no_traffic_interval")
            .unwrap_or(default.no_traffic_interval),
        no_traffic_healthy_interval: time(
            message.no_traffic_healthy_interval.as_ref(),
            "no_traffic_healthy_interval",
        ),
        unhealthy_interval: time(message.unhealthy_interval.as_ref(), "unhealthy_interval"),
        unhealthy_edge_interval: time(message.unhealthy_edge_interval.as_ref(), "unhealthy_edge_interval"),
        healthy_edge_interval: time(message.healthy_edge_interval.as_ref(), "healthy_edge_interval"),
        event_logs: event_logs(message, at),
        log_all_failures: message.always_log_health_check_failures,
        log_all_successes: message.always_log_health_check_success,
        alpn: message.tls_options.as_ref().map(|tls| tls.alpn_protocols.clone()).unwrap_or_default(),
        ..default
    })
}

fn event_logs(message: &core::HealthCheck, at: &At<'_>) -> Vec<String> {
    let mut paths = Vec::new();
    if !message.event_log_path.is_empty() {
        paths.push(message.event_log_path.clone());
    }
    for (i, sink) in message.event_logger.iter().enumerate() {
        let at = at.item("event_logger", i);
        let at = at.field("typed_config");
        let Some(any) = at.need(sink.typed_config.as_ref()) else { continue };
        match at.unpack::<HealthCheckEventFileSink>(any) {
            Some(found) => {
                if let Some(file) = found.message() {
                    at.field("event_log_path").need_text(&file.event_log_path);
                    paths.push(file.event_log_path);
                }
            }
            None => at.refuse_type(any),
        }
    }
    paths
}

fn http(message: &ph::HttpHealthCheck, at: &At<'_>) -> HttpProbe {
    let path = at.field("path");
    path.need_text(&message.path);
    if !message.path.bytes().all(|b| b.is_ascii_graphic()) || !message.path.starts_with('/') {
        path.refuse("must begin with `/` and have no spaces");
    }
    let method = method(message.method, at);
    let send = payload(message.send.as_ref(), &at.field("send"));
    if !send.is_empty() && matches!(method, "GET" | "HEAD" | "DELETE" | "TRACE") {
        at.field("send").refuse(format!("a request of method {method} has no body"));
    }
    let receive = payloads(&message.receive, at);
    let response_buffer_size = message.response_buffer_size.unwrap_or(1024);
    if response_buffer_size != 0 && receive.iter().map(Vec::len).sum::<usize>() as u64 > response_buffer_size
    {
        at.field("receive").refuse("is longer than `response_buffer_size`");
    }
    HttpProbe {
        host: header_text(&message.host, &at.field("host")),
        path: message.path.clone(),
        method: method.to_owned(),
        send,
        receive,
        response_buffer_size,
        headers_add: added(&message.request_headers_to_add, "request_headers_to_add", at),
        headers_remove: message
            .request_headers_to_remove
            .iter()
            .enumerate()
            .map(|(i, name)| header_name(name, false, &at.item("request_headers_to_remove", i)))
            .collect(),
        expected_statuses: statuses(&message.expected_statuses, "expected_statuses", at),
        retriable_statuses: statuses(&message.retriable_statuses, "retriable_statuses", at),
        http2: match CodecClientType::try_from(message.codec_client_type) {
            Ok(CodecClientType::Http1) => false,
            Ok(CodecClientType::Http2) => true,
            Err(_) => {
                at.field("codec_client_type").refuse("is not supported");
                false
            }
        },
        service_name: message
            .service_name_matcher
            .as_ref()
            .and_then(|matcher| string_match(matcher, &at.field("service_name_matcher"))),
    }
}

fn method(value: i32, at: &At<'_>) -> &'static str {
    use core::RequestMethod as M;
    match M::try_from(value) {
        Ok(M::MethodUnspecified | M::Get) => "GET",
        Ok(M::Head) => "HEAD",
        Ok(M::Post) => "POST",
        Ok(M::Put) => "PUT",
        Ok(M::Delete) => "DELETE",
        Ok(M::Options) => "OPTIONS",
        Ok(M::Trace) => "TRACE",
        Ok(M::Patch) => "PATCH",
        Err(_) => {
            at.field("method").refuse("is not supported");
            "GET"
        }
    }
}

fn tcp(message: &ph::TcpHealthCheck, at: &At<'_>) -> TcpProbe {
    TcpProbe {
        send: payload(message.send.as_ref(), &at.field("send")),
        receive: payloads(&message.receive, at),
    }
}

fn payloads(messages: &[ph::Payload], at: &At<'_>) -> Vec<Vec<u8>> {
    messages.iter().enumerate().map(|(i, one)| payload(Some(one), &at.item("receive", i))).collect()
}

fn payload(message: Option<&ph::Payload>, at: &At<'_>) -> Vec<u8> {
    let Some(message) = message else { return Vec::new() };
    match at.need(message.payload.as_ref()) {
        None => Vec::new(),
        Some(ph::payload::Payload::Binary(bytes)) => bytes.clone(),
        Some(ph::payload::Payload::Text(text)) => {
            let at = at.field("text");
            at.need_text(text);
            hex(text).unwrap_or_else(|| {
                at.refuse("is not made of pairs of hexadecimal digits");
                Vec::new()
            })
        }
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits?;
    let pairs = digits.chunks_exact(2);
    pairs
        .remainder()
        .is_empty()
        .then(|| pairs.map(|pair| pair.iter().fold(0, |sum, d| sum << 4 | d)).collect())
}

fn statuses(ranges: &[Int64Range], field: &str, at: &At<'_>) -> Vec<(u16, u16)> {
    let mut all = Vec::with_capacity(ranges.len());
    for (i, range) in ranges.iter().enumerate() {
        let status = |value: i64| u16::try_from(value).ok().filter(|value| (100..=600).contains(value));
        match (status(range.start), status(range.end)) {
            (Some(from), Some(until)) if from < until => all.push((from, until)),
            _ => at.item(field, i).refuse("must be within 100 and 600, the start below the end"),
        }
    }
    all
}

fn header_text(text: &str, at: &At<'_>) -> String {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        at.refuse("is not a host");
    }
    text.to_owned()
}

/// Headers with plain values: there is no request that command operators could look at.
fn added(options: &[core::HeaderValueOption], field: &str, at: &At<'_>) -> Vec<(String, String, bool)> {
    let mut all = Vec::with_capacity(options.len());
    for (i, option) in options.iter().enumerate() {
        let at = at.item(field, i);
        let at_header = at.field("header");
        let Some(header) = at_header.need(option.header.as_ref()) else { continue };
        let name = header_name(&header.key, false, &at_header.field("key"));
        let raw = String::from_utf8_lossy(&header.raw_value);
        let value = if raw.is_empty() { header.value.as_str() } else { &raw };
        let plain = value.replace("%%", "");
        if plain.contains('%') || value.bytes().any(|b| b < b' ' || b == 0x7f) {
            at_header
                .field("value")
                .refuse("must be plain text here: command operators have nothing to look at");
        }
        let beside = match (option.append, A::try_from(option.append_action)) {
            (None | Some(true), Ok(A::AppendIfExistsOrAdd)) => true,
            (Some(false), Ok(A::AppendIfExistsOrAdd)) | (None, Ok(A::OverwriteIfExistsOrAdd)) => false,
            _ => {
                at.field("append_action")
                    .refuse("must be APPEND_IF_EXISTS_OR_ADD or OVERWRITE_IF_EXISTS_OR_ADD here");
                false
            }
        };
        all.push((name, value.replace("%%", "%"), beside));
    }
    all
}
