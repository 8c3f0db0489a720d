//! Attempts until one succeeds or nothing more may be tried.
//!
//! The route's policy decides ([`outrigger_traffic::retry`]). Beside it there is one repetition that needs no policy,
//! because it cannot be told from the first try: of a request that the upstream provably did not look at (a stream
//! refused or above GOAWAY's last id), or of an idempotent one lost on a kept connection that the upstream closed at the
//! same moment (RFC 9110 §9.2.2, RFC 9112 §9.3.1, RFC 9113 §8.7). It is made once, on a new connection.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_traffic::breaker::Permit;
use outrigger_traffic::cluster::HostId;
use outrigger_traffic::retry::{AttemptResult, Decision, Ended, Reached, RefusedBecause, ResetKind};
use outrigger_wire::Version;
use smallvec::SmallVec;

use super::attempt::{self, End, First, Lost, until_gone};
use super::forward::Plan;
use super::internal_redirect::Redirection;
use super::notes::Notes;
use super::{Exchange, Front};
use crate::error::ProxyError;
use crate::http::view::{FieldsView, HeadView};
use crate::telemetry::ResponseFlags;
use crate::upstream::pool::breaker;

/// The body kept for another attempt.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Bytes taken from the downstream so far, from the first one.
    pub(super) kept: Vec<u8>,
    /// Most that is kept.
    pub(super) limit: usize,
    /// More came than is kept: there is no second attempt.
    pub(super) lost: bool,
    /// The body is over (and in `kept` as a whole).
    pub(super) ended: bool,
}

impl Replay {
    /// Keeps a piece of the body, or nothing of it any more when it is too large.
    pub(super) fn keep(&mut self, piece: &[u8]) {
        if self.lost || self.kept.len() + piece.len() > self.limit {
            // From here on there is no second attempt.
            self.lost = true;
            self.kept = Vec::new();
        } else {
            self.kept.extend_from_slice(piece);
        }
    }
}

/// What the attempts of a request share.
#[derive(Debug)]
pub(super) struct Attempts {
    pub(super) replay: Replay,
    /// Hosts tried, where they are avoided.
    pub(super) tried: SmallVec<[HostId; 4]>,
    /// Retries made by the policy.
    pub(super) retries: u32,
    /// The next attempt takes a new connection.
    pub(super) fresh: bool,
    repeated: bool,
    permit: Option<Permit>,
    /// The upstream sent the request somewhere else, and it is to go there.
    pub(super) redirect: Option<Box<Redirection>>,
}

impl Attempts {
    /// Before the first one.
    pub(super) fn new(x: &Front, plan: &Plan) -> Self {
        let policy = plan.forward.retry.as_deref().filter(|policy| policy.is_eligible(&HeadView(&x.request)));
        let keeps = (policy.is_some() || plan.keeps_body()) && !plan.tunnel;
        let limit = if keeps { plan.replay_limit } else { 0 };
        Self {
            replay: Replay { limit, ..Replay::default() },
            tried: SmallVec::new(),
            retries: 0,
            fresh: false,
            repeated: false,
            permit: None,
            redirect: None,
        }
    }

    /// Whether an attempt was made before, at the same place.
    pub(super) const fn is_another(&self) -> bool {
        self.retries > 0 || self.repeated
    }

    /// Of a request that was sent before, to another place: its body is here.
    pub(super) fn again(x: &Front, plan: &Plan, replay: Replay) -> Self {
        let fresh = Self::new(x, plan);
        let limit = fresh.replay.limit;
        Self { replay: Replay { limit, ..replay }, ..fresh }
    }
}

/// Makes attempts; of the `first` one, what has not been done yet.
pub(super) async fn attempts(
    x: &mut Exchange,
    notes: &mut Notes,
    plan: &Plan,
    shared: &mut Attempts,
    first: &mut First,
) -> Result<(), ProxyError> {
    let on_stream = x.front.request.version() == Version::Http2;
    if x.reader.is_over() || x.reader.ends_after_data() || (plan.tunnel && on_stream) {
        // The request is here as a whole. Its time runs also while it waits for a connection.
        x.front.clock.request_complete(x.front.arrived, plan.timeout);
    }
    loop {
        let end = attempt::run(x, notes, plan, shared, first).await;
        x.front.clock.end_attempt();
        shared.permit = match end {
            End::Done => {
                if shared.retries > 0 {
                    plan.cluster.stats.at(x.front.worker().id).upstream_rq_retry_success.inc();
                }
                return Ok(());
            }
            End::Failed(error) => return Err(error),
            End::Redirected(to) => {
                shared.redirect = Some(to);
                return Ok(());
            }
            End::Again(permit, after) => {
                wait(&mut x.front, after).await?;
                Some(permit)
            }
            End::Lost(lost) => match after_loss(&x.front, notes, plan, shared, &lost) {
                Next::Repeat => None,
                Next::Retry(after, permit) => {
                    wait(&mut x.front, after).await?;
                    Some(permit)
                }
                Next::GiveUp => return Err(lost.error),
            },
        };
    }
}

/// Waits before another attempt, unless the client is gone or the request's time is over first.
async fn wait(x: &mut Front, after: Duration) -> Result<(), ProxyError> {
    if after.is_zero() {
        return Ok(());
    }
    let worker = x.worker().clone();
    let gone = std::future::poll_fn(|cx| x.responder.writer.poll_gone(cx));
    match x.clock.guard(until_gone(worker.wheel.sleep(after), gone)).await? {
        Some(()) => Ok(()),
        None => Err(ProxyError::ClientGone),
    }
}

enum Next {
    Repeat,
    Retry(Duration, Permit),
    GiveUp,
}

fn after_loss(x: &Front, notes: &mut Notes, plan: &Plan, shared: &mut Attempts, lost: &Lost) -> Next {
    if shared.replay.lost {
        if plan.forward.retry.is_some() {
            x.serving.stats(x.worker()).rq_retry_skipped_request_not_complete.inc();
        }
        tracing::debug!(cluster = %plan.cluster.name, "no retry: the request body is larger than what is kept");
        return Next::GiveUp;
    }
    let untouched = lost.refused || (lost.reached == Reached::No && lost.reused);
    let stale = lost.reused && lost.error == ProxyError::UpstreamClosed && x.request.is_idempotent();
    if !shared.repeated && (untouched || stale) {
        shared.repeated = true;
        shared.fresh = true;
        return Next::Repeat;
    }
    let kind = match lost.error {
        ProxyError::ConnectFailed | ProxyError::ConnectTimeout => ResetKind::ConnectFailed,
        ProxyError::UpstreamRefused => ResetKind::Refused,
        ProxyError::UpstreamReset | ProxyError::UpstreamClosed => ResetKind::Remote,
        ProxyError::PerTryTimeout | ProxyError::PerTryIdleTimeout => ResetKind::PerTryTimeout,
        ProxyError::BadResponse => ResetKind::Protocol,
        ProxyError::Overflow => ResetKind::Overflow,
        _ => return Next::GiveUp,
    };
    match decide(x, notes, plan, shared, Ended::Reset(kind), lost.reached) {
        Some((after, permit)) => Next::Retry(after, permit),
        None => Next::GiveUp,
    }
}

/// Asks the policy; counts and logs a refusal that operators should know of.
pub(super) fn decide(
    x: &Front,
    notes: &mut Notes,
    plan: &Plan,
    shared: &mut Attempts,
    ended: Ended<'_>,
    reached: Reached,
) -> Option<(Duration, Permit)> {
    let policy = plan.forward.retry.as_deref()?;
    let stats = plan.cluster.stats.at(x.worker().id);
    // The calendar matters only where a response may name the second to come back at.
    let unix_now = policy.config.rate_limited.as_ref().map(|_| SystemTime::now());
    let result = AttemptResult {
        request: &HeadView(&x.request),
        ended,
        reached,
        response_started: x.responder.is_started(),
        retries_made: shared.retries,
        unix_now: unix_now.and_then(|now| now.duration_since(UNIX_EPOCH).ok()).unwrap_or_default(),
        draw: x.worker().draw(),
    };
    match policy.decide(&result, breaker(&plan.cluster.cluster, plan.forward.high_priority)) {
        Decision::Retry { after, permit, rate_limited } => {
            if shared.replay.lost {
                x.serving.stats(x.worker()).rq_retry_skipped_request_not_complete.inc();
                return None;
            }
            shared.retries += 1;
            shared.fresh = false;
            stats.upstream_rq_retry.inc();
            if rate_limited {
                stats.upstream_rq_retry_backoff_ratelimited.inc();
            } else {
                stats.upstream_rq_retry_backoff_exponential.inc();
            }
            Some((after, permit))
        }
        Decision::No(why) => {
            match why {
                RefusedBecause::NotRetriable | RefusedBecause::ResponseStarted => return None,
                RefusedBecause::NotIdempotent => {
                    x.serving.stats(x.worker()).rq_retry_refused_not_idempotent.inc();
                }
                RefusedBecause::LimitReached => {
                    stats.upstream_rq_retry_limit_exceeded.inc();
                    notes.flags |= ResponseFlags::UPSTREAM_RETRY_LIMIT;
                }
                RefusedBecause::Overflow => stats.upstream_rq_retry_overflow.inc(),
            }
            tracing::debug!(cluster = %plan.cluster.name, reason = why.as_str(), "no retry");
            None
        }
    }
}

/// Fields of a response, for [`decide`].
pub(super) fn wants_response(
    x: &Front,
    notes: &mut Notes,
    plan: &Plan,
    shared: &mut Attempts,
) -> Option<(Duration, Permit)> {
    plan.forward.retry.as_ref()?;
    let fields = FieldsView(&x.response.fields);
    let ended = Ended::Response { status: x.response.status, fields: &fields };
    decide(x, notes, plan, shared, ended, Reached::Yes)
}
