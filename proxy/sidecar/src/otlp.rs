//! Spans to a collector, off the data path: as OTLP over gRPC or HTTP ([`encode`], [`raw`]), or as Zipkin's
//! JSON ([`zipkin`]).
//!
//! Spans come through a bounded queue (full: dropped and counted by the engine), leave in batches of at most
//! [`BATCH_MAX`] or every [`BATCH_WAIT`], and a batch that cannot be delivered is dropped and counted: traces are worth less
//! than the memory they would take while a collector is away.

use outrigger_channel::{ControlAddress, Transport};
use outrigger_engine::telemetry::trace::{Span, SpanReceiver};
use outrigger_traffic::config::SpanExport;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tonic::transport::Channel;

mod encode;
mod raw;
mod zipkin;

/// Spans in a batch, and those that came together with the last.
pub const BATCH_MAX: usize = 512;
/// Longest time a span waits for company.
pub const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Longest time a delivery may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

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
    mut spans: SpanReceiver,
    collector: CollectorSource,
    node: Arc<str>,
    status: Arc<ExportStatus>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut channel: Option<Channel> = None;
    while let Some(first) = spans.recv().await {
        batch.extend(first);
        let full = async {
            while batch.len() < BATCH_MAX {
                match spans.recv().await {
                    Some(more) => batch.extend(more),
                    None => break,
                }
            }
        };
        // Cancel safe: `recv` loses nothing when it is dropped.
        let _ = tokio::time::timeout(BATCH_WAIT, full).await;
        let count = batch.len() as u64;
        let delivered = deliver(&mut channel, &collector, &node, &batch).await;
        batch.clear();
        match delivered {
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
    spans: &[Span],
) -> anyhow::Result<()> {
    let Collector { address, export } =
        collector().ok_or_else(|| anyhow::anyhow!("no collector is configured"))?;
    match export {
        SpanExport::OtlpGrpc => {
            let open = match channel.clone() {
                Some(open) => open,
                None => channel.insert(address.channel().await?).clone(),
            };
            Ok(raw::export(open, encode::request(node, spans), EXPORT_TIMEOUT).await?)
        }
        SpanExport::OtlpHttp { host, path, headers } => {
            let mut head =
                format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-protobuf\r\n");
            for (name, value) in &headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            post(&address, &head, &encode::request(node, spans)).await
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
