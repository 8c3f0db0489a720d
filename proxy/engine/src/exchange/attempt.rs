//! One attempt: pick a host, take the permits, get a connection, and converse on it.
//!
//! The attempt keeps its permits and guards until it is over, however it ends: they are dropped with it.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use outrigger_traffic::breaker::Permit;
use outrigger_traffic::cluster::Host;
use outrigger_traffic::outcome::Outcome;
use outrigger_traffic::retry::Reached;
use tokio::time::Instant;

use super::converse::converse;
use super::forward::Plan;
use super::internal_redirect::Redirection;
use super::notes::Notes;
use super::retry::Attempts;
use super::set_out::{Begun, Held, Talk, begin, start, want};
use super::{Exchange, Front};
use crate::error::ProxyError;
use crate::http::body::BodyError;
use crate::telemetry;
use crate::upstream::pool::{Checked, PoolError, UpstreamStream};
use crate::upstream::removed;

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum End {
    /// The response was passed on, to its end or to where it broke.
    Done,
    /// The exchange failed, and no other attempt can help.
    Failed(ProxyError),
    /// The upstream's response is one that the policy wants to try again, after this time.
    Again(Permit, Duration),
    /// The upstream's response is a redirect that is followed.
    Redirected(Box<Redirection>),
    /// The attempt was lost before its response began.
    Lost(Lost),
}

/// A lost attempt.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) error: ProxyError,
    /// Whether the application may have seen the request.
    pub(super) reached: Reached,
    /// The connection had carried requests before.
    pub(super) reused: bool,
    /// The upstream said that it did not look at the request.
    pub(super) refused: bool,
}

impl Lost {
    pub(super) const fn unsent(error: ProxyError) -> End {
        End::Lost(Self { error, reached: Reached::No, reused: false, refused: false })
    }
}

/// An attempt that has its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// What stays the same in every attempt.
    pub(super) plan: &'a Plan,
    /// Where it goes.
    pub(super) host: &'a Arc<Host>,
    /// The connection had carried requests before.
    pub(super) reused: bool,
    /// When the request began to be sent.
    pub(super) sent: Instant,
}

/// How far the first attempt has come before [`run`] goes on with it.
#[derive(Debug, Default)]
#[allow(clippy::large_enum_variant)] // it is one place on the way of every request
pub(super) enum First {
    /// Nowhere.
    #[default]
    Fresh,
    /// It has a host.
    Begun(Begun),
    /// It has a connection.
    Ready(Begun, Checked),
    /// The request is on its way; as a whole, when the flag says so.
    Talking(Talk, bool),
    /// It is over.
    Ended(End),
}

/// Makes one attempt, or what is left of it. What it works on stays in `first`, whose room is there once.
pub(super) async fn run(
    x: &mut Exchange,
    notes: &mut Notes,
    plan: &Plan,
    shared: &mut Attempts,
    first: &mut First,
) -> End {
    if let Err(end) = advance(x, notes, plan, shared, first) {
        return end;
    }
    if let First::Begun(begun) = first {
        match connection(x, notes, plan, shared, &begun.host).await {
            Ok(checked) => {
                if let Err(end) = start_with(x, notes, plan, first, checked) {
                    return end;
                }
            }
            Err(end) => {
                *first = First::Fresh;
                return end;
            }
        }
    }
    talking(x, notes, plan, shared, first).await
}

/// Goes as far as can be gone without waiting: to a host, or to a stream.
fn advance(
    x: &mut Exchange,
    notes: &mut Notes,
    plan: &Plan,
    shared: &mut Attempts,
    first: &mut First,
) -> Result<(), End> {
    match std::mem::take(first) {
        First::Fresh => {
            let begun = begin(&mut x.front, notes, plan, shared)?;
            let worker = x.front.worker();
            let want = want(&x.front.request, &x.front.connection.facts, plan, shared);
            let ready = worker.pools.ready(worker, &plan.cluster, &begun.host, &want);
            *first = First::Begun(begun);
            ready.map_or(Ok(()), |checked| start_with(x, notes, plan, first, checked))
        }
        First::Ready(begun, checked) => {
            *first = First::Begun(begun);
            start_with(x, notes, plan, first, checked)
        }
        First::Ended(end) => Err(end),
        waiting => {
            *first = waiting;
            Ok(())
        }
    }
}

/// Starts the request of an attempt that has a host.
fn start_with(
    x: &mut Exchange,
    notes: &mut Notes,
    plan: &Plan,
    first: &mut First,
    checked: Checked,
) -> Result<(), End> {
    let First::Begun(begun) = std::mem::take(first) else { return Err(End::Failed(ProxyError::Defect)) };
    let (held, stream) = start(x, notes, plan, begun, checked, Instant::now())?;
    *first = First::Talking(Talk { held, stream }, false);
    Ok(())
}

/// Converses on the stream.
async fn talking(
    x: &mut Exchange,
    notes: &mut Notes,
    plan: &Plan,
    shared: &mut Attempts,
    first: &mut First,
) -> End {
    let First::Talking(Talk { held, stream }, whole) = std::mem::take(first) else {
        return End::Failed(ProxyError::Defect);
    };
    let call = held.call(plan);
    let end = if plan.cluster.cluster.config.close_connections_on_host_removal {
        Box::pin(while_there(x, notes, shared, &call, stream, whole)).await
    } else {
        converse(x, notes, shared, &call, stream, whole).await
    };
    conclude(&x.front, notes, &held, &end);
    end
}

/// The attempt is over.
pub(super) fn conclude(x: &Front, notes: &Notes, held: &Held, end: &End) {
    trace(x, notes, held.span_id, held.sent, end);
    x.clock.end_attempt();
}

/// Converses for as long as the host belongs to its cluster.
async fn while_there(
    x: &mut Exchange,
    notes: &mut Notes,
    shared: &mut Attempts,
    call: &Call<'_>,
    stream: UpstreamStream,
    whole: bool,
) -> End {
    let worker = x.front.worker().clone();
    let mut leaving = pin!(removed(&worker, &call.plan.cluster, call.host));
    let mut talk = pin!(converse(x, notes, shared, call, stream, whole));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(end) = talk.as_mut().poll(cx) {
            return Poll::Ready(end);
        }
        // The connection, or stream, ends with the conversation.
        leaving.as_mut().poll(cx).map(|()| End::Failed(ProxyError::UpstreamClosed))
    })
    .await
}

/// Records the attempt as a span.
fn trace(x: &Front, notes: &Notes, span_id: u64, started: Instant, end: &End) {
    if let Some(trace) = notes.trace.as_ref().filter(|trace| trace.sampled) {
        let record = notes.record(&x.connection, &x.serving, &x.request, None, (0, 0));
        let status = if matches!(end, End::Lost(_)) { 0 } else { x.response.status };
        telemetry::finish_attempt(x.worker(), trace, span_id, &record, started, status);
    }
}

/// Waits for a connection.
async fn connection(
    x: &mut Exchange,
    notes: &mut Notes,
    plan: &Plan,
    shared: &Attempts,
    host: &Arc<Host>,
) -> Result<Checked, End> {
    let worker = x.front.worker().clone();
    let Front { connection, request, responder, clock, .. } = &mut x.front;
    let gone = std::future::poll_fn(|cx| responder.writer.poll_gone(cx));
    let want = want(request, &connection.facts, plan, shared);
    // Boxed, because making a connection is rare and its future large.
    let checkout = Box::pin(worker.pools.checkout(&worker, &plan.cluster, host, want));
    match clock.guard(until_gone(checkout, gone)).await {
        Ok(Some(Ok(checked))) => Ok(checked),
        Ok(Some(Err(error))) => Err(not_connected(notes, plan, host, &error)),
        Ok(None) => Err(End::Failed(ProxyError::ClientGone)),
        Err(error) => Err(timed_out(&x.front, plan, host, error, false)),
    }
}

/// `None` when the downstream went away first.
pub(super) async fn until_gone<T>(
    work: impl Future<Output = T>,
    gone: impl Future<Output = BodyError>,
) -> Option<T> {
    let (mut work, mut gone) = (pin!(work), pin!(gone));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        gone.as_mut().poll(cx).map(|_| None)
    })
    .await
}

fn not_connected(notes: &mut Notes, plan: &Plan, host: &Host, error: &PoolError) -> End {
    match error {
        PoolError::Overflow => Lost::unsent(ProxyError::Overflow),
        PoolError::Connect(error) => {
            if let Some(upstream) = &mut notes.upstream {
                upstream.failure = error.to_string();
            }
            tracing::debug!(cluster = %plan.cluster.name, endpoint = %host.address, error = %error, "connect failed");
            Lost::unsent(if error.is_timeout() {
                ProxyError::ConnectTimeout
            } else {
                ProxyError::ConnectFailed
            })
        }
    }
}

/// A time limit was over during an attempt. Only an attempt's own limit leaves room for another one.
pub(super) fn timed_out(x: &Front, plan: &Plan, host: &Arc<Host>, error: ProxyError, sent: bool) -> End {
    let stats = plan.cluster.stats.at(x.worker().id);
    match error {
        ProxyError::ResponseTimeout => stats.upstream_rq_timeout.inc(),
        ProxyError::PerTryTimeout | ProxyError::PerTryIdleTimeout => stats.upstream_rq_per_try_timeout.inc(),
        ProxyError::MaxDuration(_) => stats.upstream_rq_max_duration_reached.inc(),
        _ => {}
    }
    if error.row().counts_against_host {
        report(x, plan, host, Outcome::Timeout, Instant::now());
    }
    match error {
        ProxyError::PerTryTimeout | ProxyError::PerTryIdleTimeout => {
            let reached = if sent { Reached::Maybe } else { Reached::No };
            End::Lost(Lost { error, reached, reused: false, refused: false })
        }
        other => End::Failed(other),
    }
}

pub(super) fn report(x: &Front, plan: &Plan, host: &Host, outcome: Outcome, now: Instant) {
    let worker = x.worker();
    plan.cluster.report(worker, host, outcome, now.into_std());
}
