//! HTTP filters between the connection manager and the router, in the order of the configuration.
//!
//! A filter sees the request head and says what follows ([`Verdict`]): go on, answer here, or wait. Most never wait, and
//! so the chain is an ordinary call ([`run`]) that costs a request on a connection manager without filters one branch.
//! A filter that has to wait says what for ([`Pending`]); the request then goes on in a task ([`resume`]), the filters
//! behind it included. What a filter has to do to the response it leaves in the notes ([`After`]); it is done, last
//! filter first, before the response head goes out, whoever made the response ([`on_response`]).
//!
//! What a filter decides stands in `outrigger_traffic::filter`, one file per filter; here, one file per filter, it is
//! done. A filter of the embedding program is a [`RequestFilter`].

mod after;
mod answer;
mod buffer;
mod call;
mod compression;
mod cors;
mod csrf;
mod ext_authz;
mod fault;
mod grpc_web;
mod header_mutation;
mod header_to_metadata;
mod health_check;
mod jwt;
mod local_rate_limit;
mod pace;
mod place;
mod protobuf;
mod rate_limit;
mod rbac;
mod registered;
mod set_metadata;
mod stateful_session;

pub(crate) use after::{After, on_response};
pub(crate) use answer::Answer;
pub(crate) use jwt::keep_ahead as keep_keys_ahead;
pub(crate) use place::Place;
pub use registered::{LocalReply, RegisteredFilters, RequestFilter, Said};

use outrigger_traffic::config::BufferLimit;
use outrigger_traffic::filter::{Filter, HttpFilter, Override};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use crate::error::ProxyError;
use crate::exchange::{Exchange, Front, Notes};
use crate::http::Serving;
use crate::telemetry::ResponseFlags;
use registered::Waiting;

/// What a filter says of a request.
pub(crate) enum Verdict {
    /// The next filter.
    Next,
    /// It is answered here.
    Answer(Box<Answer>),
    /// It has to wait.
    Wait(Pending),
}

/// What a filter waits for.
#[derive(Debug)]
pub(crate) enum Pending {
    /// A delay that was put in.
    Fault(Box<fault::Delayed>),
    /// What a service says of it.
    ExtAuthz(Box<ext_authz::Asking>),
    /// What a rate limit service says of it.
    RateLimit(Box<rate_limit::Asking>),
    /// Keys for a token.
    Jwt(Box<jwt::Missing>),
    /// The whole request.
    Buffer(BufferLimit),
    /// A filter of the embedding program.
    Registered(Waiting),
}

/// A request that waits for a filter.
#[derive(Debug)]
pub(crate) struct Paused {
    /// The filter.
    index: usize,
    pending: Pending,
    draw: u64,
}

/// How a request came through the chain.
pub(crate) enum Passed<'s> {
    /// It goes on, by the route that it has now.
    Through(Place<'s>),
    /// It is answered here.
    Answer(Box<Answer>),
    /// It waits.
    Wait(Box<Paused>),
}

/// Runs the chain from its beginning.
pub(crate) fn run<'s>(x: &mut Exchange, notes: &mut Notes, place: Place<'s>) -> Passed<'s> {
    from(x, notes, place, 0)
}

/// Waits for what `paused` waits for, and runs the rest of the chain, waiting again where it has to.
///
/// *Errors*: the client went away, or a time limit of the request was over.
pub(crate) async fn resume<'s>(
    x: &mut Exchange,
    notes: &mut Notes,
    serving: &'s Rc<Serving>,
    mut paused: Box<Paused>,
) -> Result<Passed<'s>, ProxyError> {
    loop {
        let index = paused.index;
        let mut place = Place::find(x, notes, serving, paused.draw);
        let verdict = match paused.pending {
            Pending::Fault(delayed) => fault::wait(x, *delayed).await?,
            Pending::Jwt(missing) => jwt::wait(x, notes, &place, index, *missing).await?,
            Pending::RateLimit(asking) => match place.filter(index) {
                Some(Filter::RateLimit(limit)) => rate_limit::wait(x, notes, limit, *asking).await?,
                _ => return Err(ProxyError::Defect),
            },
            Pending::ExtAuthz(asking) => match place.filter(index) {
                Some(Filter::ExtAuthz(authz)) => ext_authz::wait(x, notes, authz, *asking).await?,
                _ => return Err(ProxyError::Defect),
            },
            Pending::Buffer(limit) => buffer::wait(x, limit).await?,
            Pending::Registered(waiting) => registered::wait(x, notes, waiting).await?,
        };
        match settle(x, notes, &mut place, index, verdict) {
            None => {}
            Some(Passed::Wait(again)) => {
                paused = again;
                continue;
            }
            Some(passed) => return Ok(passed),
        }
        match from(x, notes, place, index + 1) {
            Passed::Wait(again) => paused = again,
            passed => return Ok(passed),
        }
    }
}

fn from<'s>(x: &mut Exchange, notes: &mut Notes, mut place: Place<'s>, first: usize) -> Passed<'s> {
    let serving = place.serving;
    for (index, filter) in serving.filters().iter().enumerate().skip(first) {
        let own = place.filters.and_then(|filters| filters.of(filter.slot));
        if !filter.runs(own) {
            continue;
        }
        let verdict = on_request(x, notes, &place, index, filter, own);
        if let Some(passed) = settle(x, notes, &mut place, index, verdict) {
            return passed;
        }
    }
    Passed::Through(place)
}

/// What follows from a verdict; `None`: the next filter.
fn settle<'s>(
    x: &mut Exchange,
    notes: &mut Notes,
    place: &mut Place<'s>,
    index: usize,
    verdict: Verdict,
) -> Option<Passed<'s>> {
    match verdict {
        Verdict::Next => {
            if std::mem::take(&mut notes.reroute) {
                *place = Place::find(x, notes, place.serving, place.draw);
                notes.route = place.matched.map(|matched| matched.route.clone());
            }
            None
        }
        Verdict::Answer(answer) => {
            for filter in place.serving.filters().iter().skip(index + 1) {
                let own = place.filters.and_then(|filters| filters.of(filter.slot));
                if filter.runs(own) {
                    after::of_unreached(notes, filter, own);
                }
            }
            Some(Passed::Answer(answer))
        }
        Verdict::Wait(pending) => Some(Passed::Wait(Box::new(Paused { index, pending, draw: place.draw }))),
    }
}

/// Waits for `work` for as long as the client is there and the request's time limits let it.
async fn guarded<T>(x: &mut Exchange, work: impl Future<Output = T>) -> Result<T, ProxyError> {
    let mut work = pin!(work);
    let Front { responder, clock, .. } = &mut x.front;
    let either = std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        responder.writer.poll_gone(cx).map(|_| None)
    });
    clock.guard(either).await?.ok_or(ProxyError::ClientGone)
}

fn on_request(
    x: &mut Exchange,
    notes: &mut Notes,
    place: &Place<'_>,
    index: usize,
    filter: &HttpFilter,
    own: Option<&Override>,
) -> Verdict {
    let settings = own.and_then(Override::settings);
    match &filter.rules {
        Filter::Rbac(rules) => rbac::check(x, notes, rules, settings),
        Filter::Fault(rules) => fault::on_request(x, notes, place, rules, settings),
        Filter::BandwidthLimit(limit) => pace::on_request(x, notes, limit, settings),
        Filter::Cors => cors::on_request(x, notes, own),
        Filter::Csrf(policy) => csrf::on_request(x, policy, settings),
        Filter::HeaderMutation(edits) => header_mutation::on_request(x, notes, edits, own),
        Filter::Jwt(authn) => jwt::on_request(x, notes, place, authn, settings),
        Filter::LocalRateLimit(limit) => local_rate_limit::on_request(x, notes, place, limit, settings),
        Filter::RateLimit(limit) => rate_limit::on_request(x, notes, place, limit, settings),
        Filter::ExtAuthz(authz) => ext_authz::on_request(x, notes, place, authz, own),
        Filter::HeaderToMetadata(rules) => header_to_metadata::on_request(x, notes, rules, settings),
        Filter::SetMetadata(values) => set_metadata::on_request(x, notes, values),
        Filter::Missing => Verdict::Answer(Answer::new(500, "", "").flagged(ResponseFlags::NO_FILTER_CONFIG)),
        Filter::Compressor(of) => compression::on_request(x, notes, place, of, settings),
        Filter::Decompressor(of) => compression::decompress_request(x, notes, of),
        Filter::Buffer(limit) => buffer::on_request(x, *limit, settings),
        Filter::HealthCheck(checks) => health_check::on_request(x, notes, place, index, checks),
        Filter::GrpcWeb => grpc_web::on_request(x, notes),
        Filter::StatefulSession(session) => stateful_session::on_request(x, notes, session, settings),
        Filter::Registered(_) => registered::on_request(x, notes, index),
    }
}
