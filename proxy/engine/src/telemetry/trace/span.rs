//! Spans, with the attribute names of OpenTelemetry's HTTP conventions, and where they go.

use super::plan::Wishes;
use super::{RequestTrace, unix_nanos};
use crate::telemetry::record::RequestRecord;
use crate::telemetry::{ResponseFlags, Telemetry};
use outrigger_traffic::template::Moment;
use std::borrow::Cow;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What a span stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A request as we received it.
    Server,
    /// One attempt to have it answered.
    Client,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanValue {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
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
    pub attributes: Vec<(Cow<'static, str>, SpanValue)>,
    /// What happened meanwhile: name, and nanoseconds since 1970.
    pub events: Vec<(&'static str, u64)>,
}

/// Takes finished spans from the data path.
pub trait SpanSink: Send + Sync + std::fmt::Debug {
    /// Takes a span, or returns false at once where there is no room for it. Must not block.
    fn accept(&self, span: Span) -> bool;
}

/// A bounded queue as a [`SpanSink`].
#[derive(Clone, Debug)]
pub struct SpanQueue(mpsc::Sender<Span>);

impl SpanSink for SpanQueue {
    fn accept(&self, span: Span) -> bool {
        self.0.try_send(span).is_ok()
    }
}

/// A queue for at most `spans_max` spans and the end an exporter reads from.
pub fn span_queue(spans_max: usize) -> (SpanQueue, mpsc::Receiver<Span>) {
    let (sender, receiver) = mpsc::channel(spans_max.max(1));
    (SpanQueue(sender), receiver)
}

/// The span of a request that is over.
pub(crate) fn server_span(telemetry: &Telemetry, trace: &RequestTrace, record: &RequestRecord<'_>) -> Span {
    let mut attributes = Vec::with_capacity(16);
    let wishes = Wishes::new(record, telemetry);
    let whole = record.original_path.unwrap_or_else(|| record.request.path());
    let (path, query) = split_query(wishes.cut(whole));
    let text = |bytes: &[u8]| SpanValue::Text(String::from_utf8_lossy(bytes).into_owned());
    attributes.push(("http.request.method".into(), text(record.request.method_bytes())));
    attributes.push(("url.path".into(), text(path)));
    if let Some(query) = query {
        attributes.push(("url.query".into(), text(query)));
    }
    attributes.push(("url.scheme".into(), SpanValue::Text(record.request.scheme().as_str().into())));
    attributes.push(("server.address".into(), text(record.request.authority())));
    attributes
        .push(("network.protocol.version".into(), SpanValue::Text(version(record.request.version()).into())));
    attributes
        .push(("network.peer.address".into(), SpanValue::Text(record.connection.peer.ip().to_string())));
    attributes.push(("network.peer.port".into(), SpanValue::Number(record.connection.peer.port().into())));
    attributes.push(("client.address".into(), SpanValue::Text(record.remote.ip().to_string())));
    if let Some(agent) = record.request.fields.get(b"user-agent") {
        attributes.push(("user_agent.original".into(), text(agent)));
    }
    push_outcome(&mut attributes, record.status, record.flags, record);
    attributes.push(("http.request.body.size".into(), number(record.request_body_bytes)));
    attributes.push(("http.response.body.size".into(), number(record.response_body_bytes)));
    if let Some(code) = record.grpc_status {
        attributes.push(("rpc.grpc.status_code".into(), SpanValue::Number(code.into())));
    }
    if record.attempts > 1 {
        attributes.push(("outrigger.attempts".into(), SpanValue::Number(record.attempts.into())));
    }
    if !record.connection.principal.is_empty() {
        attributes.push((
            "outrigger.peer.principal".into(),
            SpanValue::Text(record.connection.principal.to_string()),
        ));
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
    let mut attributes = Vec::with_capacity(12);
    let text = |bytes: &[u8]| SpanValue::Text(String::from_utf8_lossy(bytes).into_owned());
    attributes.push(("http.request.method".into(), text(record.request.method_bytes())));
    attributes.push(("server.address".into(), text(record.request.authority())));
    let wishes = Wishes::new(record, telemetry);
    attributes.push(("url.path".into(), text(wishes.cut(record.request.path_only()))));
    if let Some(upstream) = record.upstream {
        attributes
            .push(("network.peer.address".into(), SpanValue::Text(upstream.host.address.ip().to_string())));
        attributes.push(("network.peer.port".into(), SpanValue::Number(upstream.host.address.port().into())));
        attributes
            .push(("network.protocol.version".into(), SpanValue::Text(version(upstream.protocol).into())));
    }
    if record.attempts > 1 {
        attributes
            .push(("http.request.resend_count".into(), SpanValue::Number(i64::from(record.attempts) - 1)));
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

fn push_outcome(
    attributes: &mut Vec<(Cow<'static, str>, SpanValue)>,
    status: u16,
    flags: ResponseFlags,
    record: &RequestRecord<'_>,
) {
    if status != 0 {
        attributes.push(("http.response.status_code".into(), SpanValue::Number(status.into())));
    }
    if !flags.is_empty() {
        attributes.push(("error.type".into(), SpanValue::Text(flags.to_string())));
    } else if status >= 500 {
        attributes.push(("error.type".into(), SpanValue::Text(status.to_string())));
    }
    if let Some(cluster) = record.cluster {
        attributes.push(("outrigger.cluster".into(), SpanValue::Text(cluster.name.to_string())));
    }
    if !record.route.is_empty() {
        attributes.push(("http.route".into(), SpanValue::Text(record.route.into())));
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

fn number(value: u64) -> SpanValue {
    SpanValue::Number(i64::try_from(value).unwrap_or(i64::MAX))
}

/// `network.protocol.version` of a protocol.
const fn version(version: outrigger_wire::Version) -> &'static str {
    match version {
        outrigger_wire::Version::Http10 => "1.0",
        outrigger_wire::Version::Http11 => "1.1",
        outrigger_wire::Version::Http2 => "2",
    }
}
