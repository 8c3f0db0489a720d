//! A line as an entry of Envoy's access log service.

use outrigger_api::envoy::config::core::v3::address::Address as AddressKind;
use outrigger_api::envoy::config::core::v3::socket_address::PortSpecifier;
use outrigger_api::envoy::config::core::v3::{Address, Node, RequestMethod, SocketAddress};
use outrigger_api::envoy::data::accesslog::v3::http_access_log_entry::HttpVersion;
use outrigger_api::envoy::data::accesslog::v3::response_flags::{Unauthorized, unauthorized::Reason};
use outrigger_api::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, ConnectionProperties, HttpAccessLogEntry, HttpRequestProperties,
    HttpResponseProperties, ResponseFlags, TcpAccessLogEntry,
};
use outrigger_api::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use outrigger_api::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries,
};
use outrigger_traffic::config::{LogProtocol, LogService};
use prost_types::{Duration, Timestamp};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The entries of some lines; with `node`, the message says who sends.
pub fn message(
    service: &LogService,
    node: Option<&Node>,
    lines: Vec<Map<String, Value>>,
) -> StreamAccessLogsMessage {
    let identifier =
        node.map(|node| Identifier { node: Some(node.clone()), log_name: service.log_name.clone() });
    let entries = if service.protocol == LogProtocol::EnvoyTcp {
        let log_entry = lines.iter().map(|line| tcp(&Line(line))).collect();
        LogEntries::TcpLogs(TcpAccessLogEntries { log_entry })
    } else {
        let log_entry = lines.iter().map(|line| http(&Line(line))).collect();
        LogEntries::HttpLogs(HttpAccessLogEntries { log_entry })
    };
    StreamAccessLogsMessage { identifier, log_entries: Some(entries) }
}

/// What the engine wrote.
struct Line<'l>(&'l Map<String, Value>);

impl Line<'_> {
    fn text(&self, name: &str) -> String {
        self.0.get(name).and_then(Value::as_str).filter(|text| *text != "-").unwrap_or_default().to_owned()
    }

    fn number(&self, name: &str) -> Option<u64> {
        let value = self.0.get(name)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }

    fn nanos(&self, name: &str) -> Option<Duration> {
        let nanos = self.number(name)?;
        let seconds = i64::try_from(nanos / 1_000_000_000).ok()?;
        // Below a thousand million.
        Some(Duration { seconds, nanos: (nanos % 1_000_000_000) as i32 })
    }

    fn address(&self, name: &str) -> Option<Address> {
        let address: SocketAddr = self.text(name).parse().ok()?;
        let address = SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(u32::from(address.port()))),
            ..SocketAddress::default()
        };
        Some(Address { address: Some(AddressKind::SocketAddress(address)) })
    }

    fn fields(&self, name: &str) -> BTreeMap<String, String> {
        let fields = self.0.get(name).and_then(Value::as_object).into_iter().flatten();
        fields.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
    }
}

fn common(line: &Line<'_>, kind: AccessLogType) -> AccessLogCommon {
    let start = line.text("start_time").parse::<u64>().unwrap_or_default();
    AccessLogCommon {
        // Envoy says nothing of it either.
        sample_rate: 0.0,
        downstream_remote_address: line.address("remote"),
        downstream_local_address: line.address("local"),
        downstream_direct_remote_address: line.address("direct_remote"),
        upstream_remote_address: line.address("upstream_remote"),
        upstream_local_address: line.address("upstream_local"),
        start_time: Some(Timestamp {
            seconds: i64::try_from(start / 1_000_000_000).unwrap_or_default(),
            nanos: (start % 1_000_000_000) as i32,
        }),
        time_to_last_rx_byte: line.nanos("to_last_rx"),
        time_to_first_upstream_tx_byte: line.nanos("to_first_upstream_tx"),
        time_to_last_upstream_tx_byte: line.nanos("to_last_upstream_tx"),
        time_to_first_upstream_rx_byte: line.nanos("to_first_upstream_rx"),
        time_to_last_upstream_rx_byte: line.nanos("to_last_upstream_rx"),
        time_to_first_downstream_tx_byte: line.nanos("to_first_downstream_tx"),
        time_to_last_downstream_tx_byte: line.nanos("to_last_downstream_tx"),
        upstream_cluster: line.text("cluster"),
        response_flags: flags(&line.text("flags")),
        upstream_transport_failure_reason: line.text("upstream_failure"),
        downstream_transport_failure_reason: line.text("downstream_failure"),
        route_name: line.text("route"),
        duration: line.number("duration").map(|ms| Duration {
            seconds: i64::try_from(ms / 1000).unwrap_or_default(),
            nanos: (ms % 1000) as i32 * 1_000_000,
        }),
        upstream_request_attempt_count: line
            .number("attempts")
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or_default(),
        connection_termination_details: line.text("termination"),
        stream_id: line.text("stream_id"),
        access_log_type: kind.into(),
    }
}

fn tcp(line: &Line<'_>) -> TcpAccessLogEntry {
    TcpAccessLogEntry {
        common_properties: Some(common(line, AccessLogType::TcpConnectionEnd)),
        connection_properties: Some(ConnectionProperties {
            received_bytes: line.number("received").unwrap_or_default(),
            sent_bytes: line.number("sent").unwrap_or_default(),
        }),
    }
}

fn http(line: &Line<'_>) -> HttpAccessLogEntry {
    let version = match line.text("protocol").as_str() {
        "HTTP/1.0" => HttpVersion::Http10,
        "HTTP/1.1" => HttpVersion::Http11,
        "HTTP/2" => HttpVersion::Http2,
        "HTTP/3" => HttpVersion::Http3,
        _ => HttpVersion::ProtocolUnspecified,
    };
    HttpAccessLogEntry {
        common_properties: Some(common(line, AccessLogType::DownstreamEnd)),
        protocol_version: version.into(),
        request: Some(HttpRequestProperties {
            request_method: RequestMethod::from_str_name(&line.text("method")).unwrap_or_default().into(),
            scheme: line.text("scheme"),
            authority: line.text("authority"),
            port: None,
            path: line.text("path"),
            user_agent: line.text("user_agent"),
            referer: line.text("referer"),
            forwarded_for: line.text("forwarded_for"),
            request_id: line.text("request_id"),
            original_path: line.text("original_path"),
            request_headers_bytes: line.number("request_headers_bytes").unwrap_or_default(),
            request_body_bytes: line.number("received").unwrap_or_default(),
            request_headers: line.fields("REQ"),
        }),
        response: Some(HttpResponseProperties {
            response_code: line.number("code").and_then(|code| u32::try_from(code).ok()),
            response_headers_bytes: line.number("response_headers_bytes").unwrap_or_default(),
            response_body_bytes: line.number("sent").unwrap_or_default(),
            response_headers: line.fields("RESP"),
            response_trailers: line.fields("TRAILER"),
            response_code_details: line.text("details"),
        }),
    }
}

/// The flags by their short codes.
fn flags(text: &str) -> Option<ResponseFlags> {
    let mut flags = ResponseFlags::default();
    for code in text.split(',').filter(|code| !code.is_empty()) {
        let flag = match code {
            "LH" => &mut flags.failed_local_healthcheck,
            "UH" => &mut flags.no_healthy_upstream,
            "UT" => &mut flags.upstream_request_timeout,
            "LR" => &mut flags.local_reset,
            "UR" => &mut flags.upstream_remote_reset,
            "UF" => &mut flags.upstream_connection_failure,
            "UC" => &mut flags.upstream_connection_termination,
            "UO" => &mut flags.upstream_overflow,
            "NR" => &mut flags.no_route_found,
            "DI" => &mut flags.delay_injected,
            "FI" => &mut flags.fault_injected,
            "RL" => &mut flags.rate_limited,
            "RLSE" => &mut flags.rate_limit_service_error,
            "DC" => &mut flags.downstream_connection_termination,
            "URX" => &mut flags.upstream_retry_limit_exceeded,
            "SI" => &mut flags.stream_idle_timeout,
            "IH" => &mut flags.invalid_envoy_request_headers,
            "DPE" => &mut flags.downstream_protocol_error,
            "UMSDR" => &mut flags.upstream_max_stream_duration_reached,
            "RFCF" => &mut flags.response_from_cache_filter,
            "NFCF" => &mut flags.no_filter_config_found,
            "DT" => &mut flags.duration_timeout,
            "UPE" => &mut flags.upstream_protocol_error,
            "NC" => &mut flags.no_cluster_found,
            "OM" => &mut flags.overload_manager,
            "DF" => &mut flags.dns_resolution_failure,
            "DR" => &mut flags.downstream_remote_reset,
            "UAEX" => {
                flags.unauthorized_details = Some(Unauthorized { reason: Reason::ExternalService.into() });
                continue;
            }
            _ => continue,
        };
        *flag = true;
    }
    (flags != ResponseFlags::default()).then_some(flags)
}
