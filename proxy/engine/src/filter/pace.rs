//! Bodies that take their time: the bandwidth limit (`envoy.filters.http.bandwidth_limit`), and the stage of every body that
//! passes at a pace. What may not pass yet is not read: back-pressure reaches the sender.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use outrigger_traffic::filter::fault::ActiveFault;
use outrigger_traffic::filter::{BandwidthLimit, Pace, RouteFilter};
use outrigger_wire::Trailers;
use tokio::time::{Instant, Sleep};

use super::{After, Verdict, compression};
use crate::exchange::{Exchange, Front, Notes};
use crate::http::body::BodyError;
use crate::http::staged::BodyStage;
use crate::telemetry::{Counter, HttpStats, Raised, Sharded};
use crate::worker::Worker;

/// Added to the time since the proxy began: paces look back.
const HEAD_START: u64 = 1 << 40;

/// A body passes no faster than it may.
pub(super) struct Paced {
    pace: Arc<Pace>,
    worker: Rc<Worker>,
    /// Until when it waits.
    sleep: Option<Pin<Box<Sleep>>>,
    books: Option<Books>,
    _active: Option<ActiveFault>,
}

/// What a bandwidth limit counts.
struct Books {
    stats: Arc<Sharded<HttpStats>>,
    is_request: bool,
    _pending: Raised<HttpStats>,
}

impl std::fmt::Debug for Paced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paced").field("pace", &self.pace).finish_non_exhaustive()
    }
}

impl Books {
    fn new(x: &Front, is_request: bool) -> Self {
        let (stats, worker) = (x.serving.chain.stats.clone(), x.worker().id);
        let pending = if is_request {
            Raised::new(stats.clone(), worker, |s: &HttpStats| &s.bandwidth_limit_request_pending)
        } else {
            Raised::new(stats.clone(), worker, |s: &HttpStats| &s.bandwidth_limit_response_pending)
        };
        Self { stats, is_request, _pending: pending }
    }

    /// One of two counters.
    fn count(
        &self,
        worker: &Worker,
        request: fn(&HttpStats) -> &Counter,
        response: fn(&HttpStats) -> &Counter,
        by: u64,
    ) {
        let pick = if self.is_request { request } else { response };
        pick(self.stats.at(worker.id)).add(by);
    }
}

impl BodyStage for Paced {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        if let Some(books) = &self.books {
            books.count(
                &self.worker,
                |s| &s.bandwidth_limit_request_allowed_total_size,
                |s| &s.bandwidth_limit_response_allowed_total_size,
                piece.len() as u64,
            );
        }
        out.extend_from_slice(piece);
        Ok(())
    }

    fn end(&mut self, _out: &mut Vec<u8>, _trailers: &mut Option<Trailers>) -> Result<(), BodyError> {
        Ok(())
    }

    fn keeps_length(&self) -> bool {
        true
    }

    fn poll_allowance(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            let since = Instant::now().into_std().saturating_duration_since(self.worker.shared.started);
            let now = HEAD_START.saturating_add(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
            match self.pace.take(now, wanted) {
                Ok(taken) => return Poll::Ready(taken),
                Err(wait) => {
                    if let Some(books) = &self.books {
                        books.count(
                            &self.worker,
                            |s| &s.bandwidth_limit_request_enforced,
                            |s| &s.bandwidth_limit_response_enforced,
                            1,
                        );
                    }
                    self.sleep = Some(Box::pin(tokio::time::sleep(wait)));
                }
            }
        }
    }
}

/// Limits the bodies of a request and of its response.
pub(super) fn on_request(
    x: &mut Exchange,
    notes: &mut Notes,
    limit: &Arc<BandwidthLimit>,
    settings: Option<&RouteFilter>,
) -> Verdict {
    let limit = match settings {
        Some(RouteFilter::BandwidthLimit(own)) => own,
        _ => limit,
    };
    let Some(pace) = limit.pace.as_ref().filter(|_| limit.config.enabled) else { return Verdict::Next };
    let worker = x.front.worker().clone();
    if limit.config.request {
        x.front.serving.stats(&worker).bandwidth_limit_request_enabled.inc();
        if compression::has_body(x) {
            let books = Some(Books::new(&x.front, true));
            let paced =
                Paced { pace: pace.clone(), worker: worker.clone(), sleep: None, books, _active: None };
            x.stage_request_as_long(Box::new(paced));
        }
    }
    if limit.config.response {
        notes.after.push(After::Pace(pace.clone()));
        notes.shapes_response = true;
    }
    Verdict::Next
}

/// Limits the body of a response.
pub(super) fn on_response(x: &Front, notes: &mut Notes, pace: Arc<Pace>) {
    let worker = x.worker().clone();
    x.serving.stats(&worker).bandwidth_limit_response_enabled.inc();
    if notes.has_body {
        let books = Some(Books::new(x, false));
        notes.stages.push(Box::new(Paced { pace, worker, sleep: None, books, _active: None }));
    }
}

/// Slows the body of a response down, because a fault says so.
pub(super) fn by_fault(x: &Front, notes: &mut Notes, pace: Pace, active: ActiveFault) {
    if notes.has_body {
        let (pace, worker) = (Arc::new(pace), x.worker().clone());
        notes.stages.push(Box::new(Paced { pace, worker, sleep: None, books: None, _active: Some(active) }));
    }
}
