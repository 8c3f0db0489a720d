//! Copies of a request that go to other clusters; what comes back is thrown away.
//!
//! A copy leaves when the request is here as a whole, with the body that was kept meanwhile (up to the buffer limit: of a
//! larger body there is no copy, and `retry_or_shadow_abandoned` counts it). It is one attempt without retries, under the
//! circuit breakers of its cluster, and nothing that happens to it touches the request.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use outrigger_traffic::balance::PickContext;
use outrigger_traffic::outcome::Outcome;
use outrigger_traffic::route::MirrorTarget;
use outrigger_wire::h1::{BodyLength, ConnectionHeader};
use outrigger_wire::{RequestHead, ResponseHead, Trailers};
use tokio::time::Instant;

use super::Front;
use super::notes::Notes;
use crate::http::Serving;
use crate::http::body::discard;
use crate::http::view::HeadView;
use crate::live::LiveCluster;
use crate::telemetry::{ClusterStats, Raised};
use crate::upstream::pool::{UpstreamStream, Want, breaker};
use crate::worker::Worker;

/// Longest life of a copy whose route has no timeout.
const LIFE_MAX: Duration = Duration::from_secs(300);

/// The copies of one request.
pub(super) struct Mirrors {
    worker: Rc<Worker>,
    timeout: Duration,
    /// Empty when they are on their way: a retry brings no second copy.
    waiting: RefCell<Vec<Copied>>,
}

impl std::fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirrors").field("waiting", &self.waiting.borrow().len()).finish_non_exhaustive()
    }
}

/// One copy.
struct Copied {
    cluster: Arc<LiveCluster>,
    head: RequestHead,
}

/// What follows the head of a copy.
#[derive(Clone)]
struct Content {
    body: bytes::Bytes,
    length: BodyLength,
    trailers: Option<Trailers>,
}

impl Mirrors {
    /// Makes the heads of the copies that chance wants; `None`: there are none.
    pub(super) fn new(
        x: &Front,
        notes: &Notes,
        serving: &Serving,
        targets: &[MirrorTarget],
        timeout: Option<Duration>,
    ) -> Option<Box<Self>> {
        let worker = x.worker();
        let mut waiting = Vec::new();
        for target in targets {
            let draw = worker.draw_u32();
            let chosen = target.choose(&serving.live.snapshot, &HeadView(&x.request), draw);
            let Some(cluster) = chosen.and_then(|cluster| serving.live.cluster(cluster)) else { continue };
            if let Some(head) = copy(x, notes, target) {
                waiting.push(Copied { cluster: cluster.clone(), head });
            }
        }
        let timeout = timeout.unwrap_or(LIFE_MAX);
        (!waiting.is_empty())
            .then(|| Box::new(Self { worker: worker.clone(), timeout, waiting: RefCell::new(waiting) }))
    }

    /// Sends the copies; once.
    pub(super) fn launch(&self, body: &[u8], length: BodyLength, trailers: Option<&Trailers>) {
        let waiting = self.waiting.take();
        if waiting.is_empty() {
            return;
        }
        let content =
            Content { body: bytes::Bytes::copy_from_slice(body), length, trailers: trailers.cloned() };
        for copied in waiting {
            let (worker, content, timeout) = (self.worker.clone(), content.clone(), self.timeout);
            self.worker.jobs.spawn(async move {
                let stats = copied.cluster.stats.clone();
                if worker.wheel.timeout(Some(timeout), copied.send(&worker, content)).await.is_none() {
                    stats.at(worker.id).upstream_rq_timeout.inc();
                }
            });
        }
    }

    /// The body was too large to be kept.
    pub(super) fn abandon(&self) {
        for copied in self.waiting.take() {
            copied.cluster.stats.at(self.worker.id).retry_or_shadow_abandoned.inc();
        }
    }
}

/// The head of a copy; `None` where its authority cannot be written.
fn copy(x: &Front, notes: &Notes, target: &MirrorTarget) -> Option<RequestHead> {
    let mut head = x.request.clone();
    let mut authority = Vec::new();
    target.write_authority(x.request.authority(), &mut authority);
    if authority != x.request.authority() && !head.set_authority(&authority) {
        return None;
    }
    // Source: Envoy: shadowed requests count as made by the proxy itself.
    head.fields.set(b"x-envoy-internal", b"true");
    head.fields.join(b"x-forwarded-for", b",", x.connection.facts.local.ip().to_string().as_bytes());
    if let Some(trace) = &notes.trace {
        let mut trace = *trace;
        trace.sampled = target.trace_sampled.unwrap_or(trace.sampled);
        trace.inject(&mut head, trace.span_id);
    }
    Some(head)
}

impl Copied {
    async fn send(mut self, worker: &Rc<Worker>, content: Content) {
        let cluster = self.cluster.clone();
        let stats = cluster.stats.at(worker.id);
        let now = Instant::now();
        let mut draw = || worker.draw();
        let Ok(host) = cluster.cluster.pick(&mut PickContext::new(now.into_std(), &mut draw)) else {
            return stats.upstream_cx_none_healthy.inc();
        };
        let Ok(_permit) = breaker(&cluster.cluster, false).try_request() else {
            return stats.upstream_rq_pending_overflow.inc();
        };
        let http = &cluster.cluster.config.http;
        let authority = self.head.authority().to_vec();
        let name = (http.auto_sni || http.auto_san_validation)
            .then(|| std::str::from_utf8(outrigger_wire::syntax::host_of(&authority)).ok())
            .flatten();
        let want = Want {
            downstream: self.head.version(),
            sni: name,
            high_priority: false,
            upgrade: false,
            fresh: false,
            proxied: None,
        };
        let Ok(checked) = Box::pin(worker.pools.checkout(worker, &cluster, &host, want)).await else {
            return;
        };
        let Ok(mut stream) = checked.open(&self.head, content.length, ConnectionHeader::None) else { return };
        let _in_flight = host.start_request();
        let _active = Raised::new(cluster.stats.clone(), worker.id, |s: &ClusterStats| &s.upstream_rq_active);
        stats.upstream_rq_total.inc();
        let mut response = ResponseHead::default();
        let kept = self.converse(&mut stream, &content, &mut response).await;
        let now = Instant::now();
        match kept {
            None => {
                stats.upstream_rq_rx_reset.inc();
                cluster.report(worker, &host, Outcome::Reset, now.into_std());
            }
            Some(_) => {
                stats.count_status(response.status);
                cluster.report(worker, &host, Outcome::Response(response.status), now.into_std());
            }
        }
        stream.give_back(worker, kept == Some(true), now);
    }

    /// Sends what follows the head and reads the response. Gives whether the connection may be used again; `None`: there
    /// was no whole response.
    async fn converse(
        &mut self,
        stream: &mut UpstreamStream,
        content: &Content,
        response: &mut ResponseHead,
    ) -> Option<bool> {
        let writer = &mut stream.halves.writer;
        let mut rest: &[u8] = &content.body;
        while !rest.is_empty() && !writer.is_finished() {
            let n = writer.send(rest, content.trailers.is_none()).await.ok()?;
            rest = rest.get(n..).unwrap_or_default();
        }
        if !writer.is_finished() {
            writer.finish(content.trailers.as_ref().filter(|section| !section.is_empty())).ok()?;
        }
        writer.flush().await.ok()?;
        loop {
            let reader = &mut stream.halves.reader;
            let framing = std::future::poll_fn(|cx| {
                match UpstreamStream::poll_response(reader, cx, &self.head, response) {
                    Poll::Ready(result) => Poll::Ready(result.ok()),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await?;
            if framing.switching {
                return None;
            }
            if !framing.informational {
                let complete = discard(&mut stream.halves.reader, u64::MAX).await;
                return complete.then_some(framing.keep_alive);
            }
        }
    }
}
