//! What the proxy tells about itself.
//!
//! * [`stats`], [`sets`]: counters per worker, with Envoy's names.
//! * [`flags`], [`record`]: what is known when a request or connection is over.
//! * [`finish`], [`finish_connection`]: where the data path hands that over; counters, metrics, logs and spans follow.
//! * [`series`]: Istio's standard metrics, labelled with both ends' identity.
//! * [`trace`]: trace context and spans.
//! * [`access_log`]: lines per request.
//! * [`collect`], [`process`], [`names`], [`prometheus`]: what a scrape shows.

pub mod access_log;
pub mod collect;
mod facts;
pub mod flags;
pub mod labels;
pub mod local_reply;
pub mod names;
pub mod process;
pub mod prometheus;
pub mod record;
pub mod reference;
pub mod series;
pub mod sets;
pub mod stats;
pub mod trace;

pub use flags::ResponseFlags;
pub use labels::{NodeIdentity, WorkloadLabels};
pub use record::{ConnectionRecord, RequestRecord, Timeline, UpstreamFacts};
pub use series::WorkerMetrics;
pub use sets::{
    ClusterStats, DnsStats, HttpStats, ListenerFilterStats, ListenerStats, ServerStats, TcpStats,
};
pub use stats::{Counter, Gauge, Histogram, Raised, Sharded, StatSet};
pub use trace::{RequestTrace, Sampling, Span, SpanSink};

use crate::worker::Worker;
use outrigger_traffic::template::Template;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::Instant;

/// What telemetry needs of a proxy as a whole; a part of [`crate::worker::Shared`].
#[derive(Debug)]
pub struct Telemetry {
    /// Who this proxy is, in labels.
    pub node: NodeIdentity,
    /// Where spans go; `None`: nowhere.
    pub spans: Option<Arc<dyn SpanSink>>,
    /// Istio's series of every worker.
    pub series: series::Registry,
    /// Where log lines go.
    pub access_log: access_log::LogChannel,
    /// Name of this machine (`%HOSTNAME%`).
    pub hostname: String,
    started: Instant,
    started_at: SystemTime,
}

impl Telemetry {
    /// For a proxy that starts now.
    pub fn new(
        node: NodeIdentity,
        spans: Option<Arc<dyn SpanSink>>,
        access_log: access_log::LogChannel,
        workers: usize,
    ) -> Self {
        Self {
            node,
            spans,
            series: series::Registry::new(workers),
            access_log,
            hostname: hostname(),
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }

    /// The calendar time of an instant: the start of the proxy plus what has passed, so that it never jumps.
    pub fn calendar(&self, at: Instant) -> SystemTime {
        match at.checked_duration_since(self.started) {
            Some(since) => self.started_at.checked_add(since),
            None => self.started_at.checked_sub(self.started.saturating_duration_since(at)),
        }
        .unwrap_or(self.started_at)
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

/// Counts a request whose head was understood. Pairs with [`finish`], which counts it down.
pub fn begin(worker: &Worker, stats: &Sharded<HttpStats>, is_http2: bool) {
    let stats = stats.at(worker.id);
    stats.downstream_rq_total.inc();
    stats.downstream_rq_active.inc();
    if is_http2 { stats.downstream_rq_http2_total.inc() } else { stats.downstream_rq_http1_total.inc() }
}

/// Counts, logs and traces a request that is over. Called once for every request that [`begin`] counted.
///
/// *Cost*: no allocation and no formatting unless the request is logged, sampled, or the first of its labels.
pub fn finish(worker: &Worker, record: &RequestRecord<'_>) {
    let stats = record.chain.stats.at(worker.id);
    stats.downstream_rq_active.dec();
    match record.status / 100 {
        1 => stats.downstream_rq_1xx.inc(),
        2 => stats.downstream_rq_2xx.inc(),
        3 => stats.downstream_rq_3xx.inc(),
        4 => stats.downstream_rq_4xx.inc(),
        5 => stats.downstream_rq_5xx.inc(),
        _ => {}
    }
    let broken = ResponseFlags::DOWNSTREAM_TERMINATION | ResponseFlags::DOWNSTREAM_REMOTE_RESET;
    if record.status != 0 && (record.flags.bits() & broken.bits()) == 0 {
        stats.downstream_rq_completed.inc();
    }
    let total = record.timeline.total();
    stats.downstream_rq_time.record(total);
    worker.metrics.count_request(worker, record, total);
    let telemetry = &worker.shared.telemetry;
    for log in record.chain.logs.iter() {
        access_log::write_request(worker, log, record, total);
    }
    if let (Some(trace), Some(sink)) = (record.trace, &telemetry.spans)
        && trace.sampled
    {
        trace::send(worker, sink, trace::server_span(telemetry, trace, record));
    }
}

/// Renders a text with command operators for a request under way, as header values need it: what is not known (yet) is
/// the empty text.
pub fn render(worker: &Worker, record: &RequestRecord<'_>, template: &Template, out: &mut Vec<u8>) {
    render_with(worker, record, template, b"", out);
}

/// As [`render`], with another text for what is not known.
pub fn render_with(
    worker: &Worker,
    record: &RequestRecord<'_>,
    template: &Template,
    absent: &[u8],
    out: &mut Vec<u8>,
) {
    let total = record.timeline.total();
    let view = facts::RequestView { record, total, telemetry: &worker.shared.telemetry, is_logged: false };
    template.render_with(&view, absent, out);
}

/// As [`render_with`], for a connection under way.
pub fn render_connection(
    worker: &Worker,
    record: &ConnectionRecord<'_>,
    template: &Template,
    absent: &[u8],
    out: &mut Vec<u8>,
) {
    let view = facts::ConnectionView { record, telemetry: &worker.shared.telemetry };
    template.render_with(&view, absent, out);
}

/// Records an attempt of a sampled request as a client span; `span_id` is the one given to [`RequestTrace::inject`].
/// `status` is 0 where no response came.
pub fn finish_attempt(
    worker: &Worker,
    trace: &RequestTrace,
    span_id: u64,
    record: &RequestRecord<'_>,
    started: Instant,
    status: u16,
) {
    let telemetry = &worker.shared.telemetry;
    if let (true, Some(sink)) = (trace.sampled && trace::spans_of_attempts(record), &telemetry.spans) {
        trace::send(worker, sink, trace::attempt_span(telemetry, trace, span_id, record, started, status));
    }
}

/// Counts a TCP connection that a host was found for.
pub fn begin_connection(worker: &Worker, record: &ConnectionRecord<'_>) {
    worker.metrics.count_opened(worker, record);
}

/// Logs a connection that never came in to the log of its listener. Where no chain was found, `record` names any chain.
pub fn log_refused(worker: &Worker, logs: &[Arc<access_log::AccessLogger>], record: &ConnectionRecord<'_>) {
    for log in logs {
        access_log::write_connection(worker, log, record);
    }
}

/// Counts and logs a TCP proxy connection that is over. `opened`: [`begin_connection`] was called for it.
pub fn finish_connection(worker: &Worker, record: &ConnectionRecord<'_>, opened: bool) {
    if opened {
        worker.metrics.count_closed(worker, record);
    }
    for log in record.chain.logs.iter() {
        access_log::write_connection(worker, log, record);
    }
}
