//! Access logs to services, off the data path: Envoy's access log service and OpenTelemetry's log records.
//!
//! The engine's log writer hands over lines, each a JSON object, through a bounded queue (full: dropped and counted there).
//! Every service has a task and a queue of its own, so that one that is away holds up no other. Lines leave when enough are
//! there or the oldest has waited for the configured time. What cannot be delivered is dropped and counted: lines are
//! worth less than the memory they would take while a service is away.

use outrigger_api::envoy::config::core::v3::Node;
use outrigger_api::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use outrigger_api::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use outrigger_api::opentelemetry::proto::collector::logs::v1::logs_service_client::LogsServiceClient;
use outrigger_channel::{ControlAddress, Transport};
use outrigger_traffic::config::{AccessLogSink, LogProtocol, LogService};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

mod entry;
mod record;

/// Buffers that wait for one service.
const WAITING_MAX: usize = 64;
/// Most lines in one message.
const LINES_MAX: usize = 1000;
/// Most services at a time. Lines of further ones are dropped and counted.
const SERVICES_MAX: usize = 64;
/// Messages on their way to Envoy's service.
const MESSAGES_MAX: usize = 4;
/// Longest time a delivery may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Lines delivered and lost.
#[derive(Debug, Default)]
pub struct LogStatus {
    /// Written to the service's stream, or accepted by the collector.
    pub delivered: AtomicU64,
    /// Lost because the service was away, refused or too slow.
    pub lost: AtomicU64,
}

/// How a cluster is reached at the moment.
pub type Reach = Arc<dyn Fn(&LogService) -> Option<ControlAddress> + Send + Sync>;

/// Lines from the engine, for whom.
pub type Lines = mpsc::Receiver<(Arc<AccessLogSink>, Vec<u8>)>;

/// Hands lines to the task of their service until the queue's other end is gone.
pub async fn export(mut lines: Lines, reach: Reach, node: Node, status: Arc<LogStatus>) {
    let mut services: HashMap<LogService, mpsc::Sender<Vec<u8>>> = HashMap::new();
    while let Some((sink, lines)) = lines.recv().await {
        let AccessLogSink::Service(service) = &*sink else { continue };
        services.retain(|_, queue| !queue.is_closed());
        if !services.contains_key(service) && services.len() < SERVICES_MAX {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            let task = Task {
                service: (**service).clone(),
                reach: reach.clone(),
                node: node.clone(),
                status: status.clone(),
            };
            tokio::spawn(task.run(receiver));
            services.insert((**service).clone(), sender);
        }
        let count = count(&lines);
        let taken = services.get(service).is_some_and(|queue| queue.try_send(lines).is_ok());
        if !taken {
            status.lost.fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// A service that has had no line for so long is forgotten, with its connection.
const IDLE: Duration = Duration::from_secs(300);

/// One service.
struct Task {
    service: LogService,
    reach: Reach,
    node: Node,
    status: Arc<LogStatus>,
}

/// An open way to a service.
enum Open {
    /// Envoy's: a stream of messages, the first of which says who sends.
    Envoy(mpsc::Sender<StreamAccessLogsMessage>),
    /// OpenTelemetry's: a call each.
    Otlp(LogsServiceClient<tonic::transport::Channel>),
}

impl Task {
    async fn run(self, mut lines: mpsc::Receiver<Vec<u8>>) {
        let mut open = None;
        while let Ok(Some(first)) = tokio::time::timeout(IDLE, lines.recv()).await {
            let mut bytes = first.len();
            let mut batch = parsed(&first);
            let company = async {
                while bytes < self.service.buffer_bytes as usize && batch.len() < LINES_MAX {
                    let Some(more) = lines.recv().await else { break };
                    bytes += more.len();
                    batch.extend(parsed(&more));
                }
            };
            // Cancel safe: `recv` loses nothing when it is dropped.
            let _ = tokio::time::timeout(self.service.flush_interval, company).await;
            let count = batch.len() as u64;
            let delivered = match tokio::time::timeout(EXPORT_TIMEOUT, self.deliver(&mut open, batch)).await {
                Ok(result) => result,
                Err(_) => Err(anyhow::anyhow!("it took too long")),
            };
            match delivered {
                Ok(()) => self.status.delivered.fetch_add(count, Ordering::Relaxed),
                Err(error) => {
                    open = None;
                    let (cluster, error) = (&self.service.cluster, format!("{error:#}"));
                    tracing::debug!(cluster, error, lines = count, "access log lines were not delivered");
                    self.status.lost.fetch_add(count, Ordering::Relaxed)
                }
            };
        }
    }

    async fn deliver(&self, open: &mut Option<Open>, batch: Vec<Map<String, Value>>) -> anyhow::Result<()> {
        let (way, is_first) = match open {
            Some(way) => (way, false),
            None => (open.insert(self.open().await?), true),
        };
        match way {
            Open::Otlp(client) => {
                client.export(record::request(&self.service, &self.node, batch)).await?;
                Ok(())
            }
            Open::Envoy(stream) => {
                let node = is_first.then_some(&self.node);
                stream
                    .send(entry::message(&self.service, node, batch))
                    .await
                    .map_err(|_| anyhow::anyhow!("the stream ended"))
            }
        }
    }

    async fn open(&self) -> anyhow::Result<Open> {
        let address = (self.reach)(&self.service)
            .ok_or_else(|| anyhow::anyhow!("the cluster `{}` cannot be used", self.service.cluster))?;
        let channel = address.channel().await?;
        Ok(match self.service.protocol {
            LogProtocol::Otlp => Open::Otlp(LogsServiceClient::new(channel)),
            LogProtocol::EnvoyHttp | LogProtocol::EnvoyTcp => {
                let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
                // Its end closes the queue, which the next message finds out.
                tokio::spawn(async move {
                    let mut client = AccessLogServiceClient::new(channel);
                    if let Err(error) = client.stream_access_logs(ReceiverStream::new(receiver)).await {
                        tracing::debug!(%error, "access log stream ended");
                    }
                });
                Open::Envoy(sender)
            }
        })
    }
}

fn parsed(lines: &[u8]) -> Vec<Map<String, Value>> {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    // The engine wrote them: one that does not parse is a defect, and lost.
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

#[cfg(test)]
mod tests;
