//! A connection carried by a request (`tunneling_config`): CONNECT or POST to a host of the cluster, over HTTP/1.1 or HTTP/2
//! as the cluster says. The request comes from the worker's own pools, as those of HTTP do.
//!
//! ```text
//!  downstream bytes ──▶ body of the request, or what follows CONNECT over HTTP/1.1 ──▶ host
//! ```
//!
//! Source: Envoy: tunneling TCP over HTTP.

use super::{CopyEnd, Progress, Side, copy_both};
use crate::exchange::edits;
use crate::exchange::stream_tunnel::{self, Counts, Stream};
use crate::http::body::{BodyError, BodyReader, BodyWriter};
use crate::io::{Buf, Io};
use crate::live::LiveCluster;
use crate::telemetry::{self, ClusterStats, ConnectionRecord, Raised};
use crate::upstream::pool::{Checked, PoolError, UpstreamStream, Want, breaker};
use crate::worker::Worker;
use outrigger_traffic::breaker::Permit;
use outrigger_traffic::cluster::Host;
use outrigger_traffic::listener::Tunnel;
use outrigger_traffic::outcome::Outcome;
use outrigger_wire::h1::{BodyLength, ConnectionHeader};
use outrigger_wire::{Method, RequestHead, ResponseHead, Scheme, Version};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A request that the host accepted.
pub(super) struct Carrier {
    stream: UpstreamStream,
    /// HTTP/1.1 after CONNECT: the connection itself, and what was read of it behind the answer.
    raw: Option<(Rc<Io>, Option<Buf>)>,
    worker: Rc<Worker>,
    _permit: Permit,
    _active: Raised<ClusterStats>,
}

/// Why a host does not carry the connection.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A circuit breaker is open.
    Overflow,
    /// There is no connection to it.
    Unreachable(String),
    /// It answered otherwise, or not at all.
    Refused,
}

/// The head of the request; `None` where its authority is none.
pub(super) fn head(
    worker: &Worker,
    tunnel: &Tunnel,
    record: &ConnectionRecord<'_>,
    secure: bool,
) -> Option<RequestHead> {
    let mut head = RequestHead::default();
    let mut authority = Vec::new();
    telemetry::render_connection(worker, record, &tunnel.authority, b"-", &mut authority);
    let good = match &tunnel.post_path {
        Some(path) => head.set_method(b"POST") && head.set_path(path),
        None => head.set_method(b"CONNECT"),
    };
    if !good || !head.set_authority(&authority) {
        return None;
    }
    head.set_scheme(if secure { Scheme::Https } else { Scheme::Http });
    for step in tunnel.headers.steps() {
        let made = edits::made(step, &head.fields, |template, out| {
            telemetry::render_connection(worker, record, template, b"", out);
        });
        edits::apply(&mut head.fields, step, made);
    }
    Some(head)
}

/// A stream with the request on it, before its answer.
pub(super) async fn open(
    worker: &Rc<Worker>,
    cluster: &Arc<LiveCluster>,
    host: &Arc<Host>,
    head: &RequestHead,
    connected: impl FnOnce(&Checked),
    patience: Option<Duration>,
) -> Result<Carrier, Refusal> {
    let stats = cluster.stats.at(worker.id);
    let Ok(permit) = breaker(&cluster.cluster, false).try_request() else {
        stats.upstream_rq_pending_overflow.inc();
        return Err(Refusal::Overflow);
    };
    let http = &cluster.cluster.config.http;
    let named = http.auto_sni || http.auto_san_validation;
    let authority = outrigger_wire::syntax::host_of(head.authority());
    let want = Want {
        downstream: Version::Http11,
        sni: named.then(|| std::str::from_utf8(authority).ok()).flatten(),
        high_priority: false,
        upgrade: false,
        // The bytes of a connection cannot be sent twice: none that may have been closed meanwhile.
        fresh: true,
        proxied: None,
    };
    let checked = match worker.pools.checkout(worker, cluster, host, want).await {
        Ok(checked) => checked,
        Err(PoolError::Overflow) => return Err(Refusal::Overflow),
        Err(PoolError::Connect(error)) => return Err(Refusal::Unreachable(error.to_string())),
    };
    connected(&checked);
    let body = match (checked.protocol(), head.method()) {
        (Version::Http2, _) | (_, Method::Post) => BodyLength::Chunked,
        _ => BodyLength::None,
    };
    let mut stream = checked
        .open(head, body, ConnectionHeader::None)
        .map_err(|_| Refusal::Unreachable("the request cannot be written".into()))?;
    stats.upstream_rq_total.inc();
    let active = Raised::new(cluster.stats.clone(), worker.id, |s: &ClusterStats| &s.upstream_rq_active);
    let answer = answer(&mut stream, head);
    let answer = worker.wheel.timeout(patience, answer).await.unwrap_or(Err(BodyError::Closed));
    let now = Instant::now();
    let (status, accepted) = answer.unwrap_or_default();
    let outcome = if status == 0 { Outcome::Reset } else { Outcome::Response(status) };
    cluster.report(worker, host, outcome, now.into_std());
    match status {
        0 => stats.upstream_rq_rx_reset.inc(),
        status => stats.count_status(status),
    }
    if !accepted {
        stream.give_back(worker, false, now);
        return Err(Refusal::Refused);
    }
    let raw = match &mut stream.halves.reader {
        BodyReader::H1(reader) if head.method() == Method::Connect => {
            Some((reader.io().clone(), reader.take_buffered()))
        }
        _ => None,
    };
    Ok(Carrier { stream, raw, worker: worker.clone(), _permit: permit, _active: active })
}

/// Sends the head and reads the answer's: its status, and whether the bytes may follow.
async fn answer(stream: &mut UpstreamStream, head: &RequestHead) -> Result<(u16, bool), BodyError> {
    stream.halves.writer.flush().await?;
    let mut response = ResponseHead::default();
    let reader = &mut stream.halves.reader;
    let framing = loop {
        let framing =
            std::future::poll_fn(|cx| UpstreamStream::poll_response(reader, cx, head, &mut response)).await?;
        if !framing.informational {
            break framing;
        }
    };
    let status = response.status;
    // Source: Envoy: any 2xx over HTTP/1.1, 200 alone over HTTP/2; and an answer without a body accepts nothing.
    let good = match reader {
        BodyReader::H2(_) => status == 200 && !framing.body.is_empty(),
        BodyReader::H1(_) | BodyReader::Staged(_) => {
            (200..300).contains(&status) && (framing.switching || !framing.body.is_empty())
        }
    };
    Ok((status, good))
}

impl Carrier {
    /// Copies between the connection (A) and the host (B).
    pub(super) async fn copy(&mut self, io: &Io, idle: Option<Duration>, progress: &Progress) -> CopyEnd {
        let worker = &self.worker;
        let Some((up, early)) = &mut self.raw else {
            let halves = &mut *self.stream.halves;
            let ends = Stream { reader: &mut halves.reader, writer: &mut halves.writer };
            let counts = Counts { from_stream: &progress.b_to_a, to_stream: &progress.a_to_b };
            let end = stream_tunnel::copy_counted(worker, ends, io, None, idle, counts).await;
            // There the stream is the first one.
            return match end {
                CopyEnd::Failed(Side::A, error) => CopyEnd::Failed(Side::B, error),
                CopyEnd::Failed(Side::B, error) => CopyEnd::Failed(Side::A, error),
                other => other,
            };
        };
        if let Some(early) = early.take() {
            let first = async {
                io.write_all(early.data()).await?;
                io.flush().await
            };
            match worker.wheel.timeout(idle, first).await {
                Some(Ok(())) => progress.b_to_a.set(progress.b_to_a.get() + early.data().len() as u64),
                Some(Err(error)) => return CopyEnd::Failed(Side::A, error),
                None => return CopyEnd::Idle,
            }
        }
        copy_both(worker, io, up, idle, progress).await
    }

    /// Cuts it off: what was said must not be taken for whole.
    pub(super) fn reset(&mut self) {
        match &self.raw {
            Some((io, _)) => io.reset_on_drop(),
            None => {
                if let BodyWriter::H2(writer) = &mut self.stream.halves.writer {
                    writer.cancel();
                }
            }
        }
    }

    /// Gives the stream back; its connection carries others as well where it is HTTP/2.
    pub(super) fn end(self) {
        let Self { stream, worker, .. } = self;
        stream.give_back(&worker, false, Instant::now());
    }
}
