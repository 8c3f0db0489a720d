//! Spans to a collector, off the data path: as OTLP over gRPC or HTTP, or as Zipkin's JSON ([`zipkin`]).
//!
//! Spans come through a bounded queue (full: dropped and counted by the engine), leave in batches of at most
//! [`BATCH_MAX`] or every [`BATCH_WAIT`], and a batch that cannot be delivered is dropped and counted: traces are worth less
//! than the memory they would take while a collector is away.

use outrigger_api::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use outrigger_api::opentelemetry::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use outrigger_api::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use outrigger_api::opentelemetry::proto::resource::v1::Resource;
use outrigger_api::opentelemetry::proto::trace::v1 as proto;
use outrigger_engine::telemetry::trace::{Span, SpanKind, SpanValue};
use outrigger_traffic::config::SpanExport;
use outrigger_xds::transport::{ControlAddress, Transport};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::transport::Channel;

mod zipkin;

/// Spans in a batch.
pub const BATCH_MAX: usize = 512;
/// Longest time a span waits for company.
pub const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Longest time a delivery may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// W3C trace flag "sampled".
const FLAG_SAMPLED: u32 = 1;

/// Spans delivered and lost.
#[derive(Debug, Default)]
pub struct ExportStatus {
    /// Accepted by the collector.
    pub delivered: AtomicU64,
    /// Lost because there was no collector or it refused.
    pub lost: AtomicU64,
}

/// Where spans go and in which form.
#[derive(Clone)]
pub struct Collector {
    /// Where.
    pub address: ControlAddress,
    /// In which form.
    pub export: SpanExport,
}

/// Where the collector is at the moment; `None`: tracing is not configured.
pub type CollectorSource = Arc<dyn Fn() -> Option<Collector> + Send + Sync>;

/// Exports until the queue's other end is gone.
pub async fn export(
    mut spans: mpsc::Receiver<Span>,
    collector: CollectorSource,
    node: Arc<str>,
    status: Arc<ExportStatus>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut channel: Option<Channel> = None;
    while let Some(first) = spans.recv().await {
        batch.push(first);
        let full = async {
            while batch.len() < BATCH_MAX {
                match spans.recv().await {
                    Some(span) => batch.push(span),
                    None => break,
                }
            }
        };
        // Cancel safe: `recv` loses nothing when it is dropped.
        let _ = tokio::time::timeout(BATCH_WAIT, full).await;
        let count = batch.len() as u64;
        match deliver(&mut channel, &collector, &node, batch.drain(..)).await {
            Ok(()) => status.delivered.fetch_add(count, Ordering::Relaxed),
            Err(error) => {
                channel = None;
                tracing::debug!(error = format!("{error:#}"), spans = count, "spans were not delivered");
                status.lost.fetch_add(count, Ordering::Relaxed)
            }
        };
    }
}

async fn deliver(
    channel: &mut Option<Channel>,
    collector: &CollectorSource,
    node: &str,
    spans: impl Iterator<Item = Span>,
) -> anyhow::Result<()> {
    let Collector { address, export } =
        collector().ok_or_else(|| anyhow::anyhow!("no collector is configured"))?;
    match export {
        SpanExport::OtlpGrpc => {
            let open = match channel.clone() {
                Some(open) => open,
                None => channel.insert(address.channel().await?).clone(),
            };
            let mut request = tonic::Request::new(request(node, spans));
            request.set_timeout(EXPORT_TIMEOUT);
            TraceServiceClient::new(open).export(request).await?;
            Ok(())
        }
        SpanExport::OtlpHttp { host, path, headers } => {
            let mut head =
                format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-protobuf\r\n");
            for (name, value) in &headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            post(&address, &head, &request(node, spans).encode_to_vec()).await
        }
        SpanExport::Zipkin { host, path } => {
            let head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n");
            post(&address, &head, &serde_json::to_vec(&zipkin::spans(spans))?).await
        }
    }
}

async fn post(address: &ControlAddress, head: &str, body: &[u8]) -> anyhow::Result<()> {
    let status = tokio::time::timeout(EXPORT_TIMEOUT, address.post(head, body)).await??;
    anyhow::ensure!((200..300).contains(&status), "the collector answered {status}");
    Ok(())
}

/// One `ResourceSpans` per service name.
fn request(node: &str, spans: impl Iterator<Item = Span>) -> ExportTraceServiceRequest {
    let mut by_service: BTreeMap<Arc<str>, Vec<proto::Span>> = BTreeMap::new();
    for span in spans {
        by_service.entry(span.service_name.clone()).or_default().push(message(span));
    }
    let resource_spans = by_service
        .into_iter()
        .map(|(service, spans)| proto::ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", &service), text("service.instance.id", node)],
                ..Resource::default()
            }),
            scope_spans: vec![proto::ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "outrigger".into(),
                    version: env!("CARGO_PKG_VERSION").into(),
                    ..InstrumentationScope::default()
                }),
                spans,
                ..proto::ScopeSpans::default()
            }],
            ..proto::ResourceSpans::default()
        })
        .collect();
    ExportTraceServiceRequest { resource_spans }
}

fn message(span: Span) -> proto::Span {
    let kind = match span.kind {
        SpanKind::Server => proto::span::SpanKind::Server,
        SpanKind::Client => proto::span::SpanKind::Client,
    };
    let code =
        if span.is_error { proto::status::StatusCode::Error } else { proto::status::StatusCode::Unset };
    proto::Span {
        trace_id: span.trace_id.to_be_bytes().to_vec(),
        span_id: span.span_id.to_be_bytes().to_vec(),
        parent_span_id: if span.parent_span_id == 0 {
            Vec::new()
        } else {
            span.parent_span_id.to_be_bytes().to_vec()
        },
        name: span.name,
        kind: kind.into(),
        start_time_unix_nano: span.start_unix_nanos,
        end_time_unix_nano: span.end_unix_nanos,
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(&key, value)).collect(),
        events: span
            .events
            .into_iter()
            .map(|(name, at)| proto::span::Event {
                time_unix_nano: at,
                name: name.into(),
                ..proto::span::Event::default()
            })
            .collect(),
        status: Some(proto::Status { code: code.into(), ..proto::Status::default() }),
        flags: FLAG_SAMPLED,
        ..proto::Span::default()
    }
}

fn attribute(key: &str, value: SpanValue) -> KeyValue {
    let value = match value {
        SpanValue::Text(text) => any_value::Value::StringValue(text),
        SpanValue::Number(number) => any_value::Value::IntValue(number),
    };
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }) }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, SpanValue::Text(value.into()))
}
