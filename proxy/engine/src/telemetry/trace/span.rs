//! Spans, with the attribute names of OpenTelemetry's HTTP conventions, and where they go.

use super::attributes::Attributes;
use super::plan::Wishes;
use super::{RequestTrace, unix_nanos};
use crate::telemetry::record::RequestRecord;
use crate::telemetry::{ResponseFlags, Telemetry};
use outrigger_traffic::template::Moment;
use smallvec::SmallVec;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::Instant;

/// What a span stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A request as we received it.
    Server,
    /// One attempt to have it answered.
    Client,
}

/// A finished span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace_id: u128,
    /// Itself.
    pub span_id: u64,
    /// Its parent; 0: none.
    pub parent_span_id: u64,
    /// Name: the method, and the route's name where it has one.
    pub name: String,
    /// What it stands for.
    pub kind: SpanKind,
    /// `service.name`; empty: the node's.
    pub service_name: Arc<str>,
    /// Nanoseconds since 1970.
    pub start_unix_nanos: u64,
    /// Nanoseconds since 1970.
    pub end_unix_nanos: u64,
    /// Whether it failed: 5xx for a server, 4xx or 5xx or no response for a client.
    pub is_error: bool,
    /// Attributes.
    pub attributes: Attributes,
    /// What happened meanwhile: name, and nanoseconds since 1970.
    pub events: Vec<(&'static str, u64)>,
}

/// Bytes that the attributes of most spans fit into.
const ATTRIBUTES_BYTES: usize = 512;

/// The span of a request that is over.
pub(crate) fn server_span(telemetry: &Telemetry, trace: &RequestTrace, record: &RequestRecord<'_>) -> Span {
    let mut attributes = Attributes::with_capacity(ATTRIBUTES_BYTES);
    let wishes = Wishes::new(record, telemetry);
    let whole = record.original_path.unwrap_or_else(|| record.request.path());
    let (path, query) = split_query(wishes.cut(whole));
    attributes.bytes("http.request.method", record.request.method_bytes());
    attributes.bytes("url.path", path);
    if let Some(query) = query {
        attributes.bytes("url.query", query);
    }
    attributes.text("url.scheme", record.request.scheme().as_str());
    attributes.bytes("server.address", record.request.authority());
    attributes.text("network.protocol.version", version(record.request.version()));
    ip(&mut attributes, "network.peer.address", record.connection.peer.ip());
    attributes.number("network.peer.port", record.connection.peer.port().into());
    ip(&mut attributes, "client.address", record.remote.ip());
    if let Some(agent) = record.request.fields.get(b"user-agent") {
        attributes.bytes("user_agent.original", agent);
    }
    push_outcome(&mut attributes, record.status, record.flags, record);
    attributes.number("http.request.body.size", number(record.request_body_bytes));
    attributes.number("http.response.body.size", number(record.response_body_bytes));
    if let Some(code) = record.grpc_status {
        attributes.number("rpc.grpc.status_code", code.into());
    }
    if record.attempts > 1 {
        attributes.number("outrigger.attempts", record.attempts.into());
    }
    if !record.connection.principal.is_empty() {
        attributes.text("outrigger.peer.principal", &record.connection.principal);
    }
    wishes.tag(&mut attributes);
    let events = if wishes.is_verbose() { phases(telemetry, record) } else { Vec::new() };
    let end = record.timeline.end.unwrap_or_else(Instant::now);
    Span {
        events,
        trace_id: trace.trace_id,
        span_id: trace.span_id,
        parent_span_id: trace.parent_span_id,
        name: wishes.operation().unwrap_or_else(|| span_name(record)),
        kind: SpanKind::Server,
        service_name: record.chain.service_name.clone(),
        start_unix_nanos: unix_nanos(telemetry.calendar(record.timeline.start)),
        end_unix_nanos: unix_nanos(telemetry.calendar(end)),
        is_error: record.status >= 500 || record.status == 0,
        attributes,
    }
}

/// The span of one attempt, which ends now.
pub(crate) fn attempt_span(
    telemetry: &Telemetry,
    trace: &RequestTrace,
    span_id: u64,
    record: &RequestRecord<'_>,
    started: Instant,
    status: u16,
) -> Span {
    let mut attributes = Attributes::with_capacity(ATTRIBUTES_BYTES);
    attributes.bytes("http.request.method", record.request.method_bytes());
    attributes.bytes("server.address", record.request.authority());
    let wishes = Wishes::new(record, telemetry);
    attributes.bytes("url.path", wishes.cut(record.request.path_only()));
    if let Some(upstream) = record.upstream {
        ip(&mut attributes, "network.peer.address", upstream.host.address.ip());
        attributes.number("network.peer.port", upstream.host.address.port().into());
        attributes.text("network.protocol.version", version(upstream.protocol));
    }
    if record.attempts > 1 {
        attributes.number("http.request.resend_count", i64::from(record.attempts) - 1);
    }
    push_outcome(&mut attributes, status, record.flags, record);
    wishes.tag(&mut attributes);
    Span {
        events: Vec::new(),
        trace_id: trace.trace_id,
        span_id,
        parent_span_id: trace.span_id,
        name: wishes.upstream_operation().unwrap_or_else(|| span_name(record)),
        kind: SpanKind::Client,
        service_name: record.chain.service_name.clone(),
        start_unix_nanos: unix_nanos(telemetry.calendar(started)),
        end_unix_nanos: unix_nanos(telemetry.calendar(Instant::now())),
        is_error: status >= 400 || status == 0,
        attributes,
    }
}

/// The phases of a request as events. Names: Envoy's, of `verbose`.
fn phases(telemetry: &Telemetry, record: &RequestRecord<'_>) -> Vec<(&'static str, u64)> {
    let named = [
        ("last_downstream_rx_byte_received", Moment::DownstreamReceiveEnd),
        ("first_upstream_tx_byte_sent", Moment::UpstreamSendBegin),
        ("last_upstream_tx_byte_sent", Moment::UpstreamSendEnd),
        ("first_upstream_rx_byte_received", Moment::UpstreamReceiveBegin),
        ("last_upstream_rx_byte_received", Moment::UpstreamReceiveEnd),
        ("first_downstream_tx_byte_sent", Moment::DownstreamSendBegin),
        ("last_downstream_tx_byte_sent", Moment::DownstreamSendEnd),
    ];
    let at = |moment| Some(unix_nanos(telemetry.calendar(record.timeline.at(moment)?)));
    named.into_iter().filter_map(|(name, moment)| Some((name, at(moment)?))).collect()
}

fn push_outcome(attributes: &mut Attributes, status: u16, flags: ResponseFlags, record: &RequestRecord<'_>) {
    if status != 0 {
        attributes.number("http.response.status_code", status.into());
    }
    if !flags.is_empty() {
        attributes.text("error.type", &flags.to_string());
    } else if status >= 500 {
        attributes.text("error.type", &status.to_string());
    }
    if let Some(cluster) = record.cluster {
        attributes.text("outrigger.cluster", &cluster.name);
    }
    if !record.route.is_empty() {
        attributes.text("http.route", record.route);
    }
}

/// An address as people write it.
fn ip(attributes: &mut Attributes, name: &str, address: IpAddr) {
    match address {
        // Nearly all, and worth to be written without a general formatter.
        IpAddr::V4(v4) => {
            let mut text = SmallVec::<[u8; 16]>::new();
            for (at, octet) in v4.octets().into_iter().enumerate() {
                if at > 0 {
                    text.push(b'.');
                }
                if octet >= 100 {
                    text.push(b'0' + octet / 100);
                }
                if octet >= 10 {
                    text.push(b'0' + octet / 10 % 10);
                }
                text.push(b'0' + octet % 10);
            }
            attributes.bytes(name, &text);
        }
        IpAddr::V6(v6) => attributes.text(name, &v6.to_string()),
    }
}

fn span_name(record: &RequestRecord<'_>) -> String {
    let method = String::from_utf8_lossy(record.request.method_bytes());
    if record.route.is_empty() { method.into_owned() } else { format!("{method} {}", record.route) }
}

fn split_query(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|b| *b == b'?') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..)),
        None => (path, None),
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// `network.protocol.version` of a protocol.
const fn version(version: outrigger_wire::Version) -> &'static str {
    match version {
        outrigger_wire::Version::Http10 => "1.0",
        outrigger_wire::Version::Http11 => "1.1",
        outrigger_wire::Version::Http2 => "2",
    }
}
