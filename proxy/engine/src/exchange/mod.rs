//! One request from head to last byte. [`serve`] is the table of contents of the data path:
//!
//! 1. prepare the head ([`crate::http::prepare`]): normalise the path, drop hop-by-hop fields, set forwarding fields,
//!    join the trace;
//! 2. find the route;
//! 3. run the filters in their order ([`crate::filter`]);
//! 4. answer here ([`respond`]), or
//! 5. choose the cluster, edit, rewrite, set the time limits ([`forward`]);
//! 6. make attempts ([`retry`]), with copies to other clusters ([`mirror`]) and redirects followed ([`internal_redirect`]); in each, pick a host, take permits and a connection ([`set_out`], [`attempt`]), send ([`upload`]) and
//!    read ([`converse`]), and pass the response on ([`response`]) or become a tunnel ([`upgrade`], [`connect`]);
//! 7. count, log, trace ([`finish`]).
//!
//! Between two HTTP/2 connections most requests take the same steps without a task of their own: see [`express`].

mod affinity;
mod attempt;
mod connect;
mod converse;
pub(crate) mod edits;
pub mod express;
mod finish;
mod forward;
mod internal_redirect;
mod mirror;
pub mod notes;
mod respond;
mod response;
mod retry;
mod set_out;
pub mod slot;
pub(crate) mod stream_tunnel;
mod upgrade;
mod upload;

pub mod timeout;

use std::rc::Rc;
use std::sync::Arc;

use outrigger_traffic::route::{Action, Route};
use outrigger_wire::h1::BodyLength;
use outrigger_wire::{Known, RequestHead, ResponseHead, Version};
use tokio::time::Instant;

use crate::error::ProxyError;
use crate::filter::{self, Answer, Passed, Paused, Place};
use crate::http::body::BodyReader;
use crate::http::prepare::{self, Prepared};
use crate::http::respond::Responder;
use crate::http::staged::BodyStage;
use crate::http::{Connection, Serving, view};
use crate::overload;
use crate::telemetry;
use crate::worker::Worker;

pub(crate) use affinity::set_cookie;
pub use notes::Notes;
pub(crate) use respond::{edit_request, edit_response};

use attempt::First;
use express::Express;
use forward::Plan;
use internal_redirect::Redirection;
use retry::{Attempts, Replay};
use timeout::Clock;

/// One request, its stream, and the memory it is worked on in, which a connection uses again for its next request.
#[derive(Debug)]
pub struct Exchange {
    /// All but the request's body.
    pub front: Front,
    /// Its body: apart, because it streams while the rest is worked on.
    pub reader: BodyReader,
    /// How its body is delimited.
    pub body: BodyLength,
    /// It asks to change protocols.
    pub upgrade: bool,
}

impl Exchange {
    /// Puts the request's body through a stage, behind those it goes through already.
    pub(crate) fn stage_request(&mut self, stage: Box<dyn BodyStage>) {
        let body = std::mem::replace(&mut self.reader, BodyReader::Staged(Box::default()));
        self.reader = body.stage(vec![stage]);
        self.request_length_changes();
    }

    /// As [`stage_request`](Self::stage_request), for a stage that changes nothing of the body.
    pub(crate) fn stage_request_as_long(&mut self, stage: Box<dyn BodyStage>) {
        let body = std::mem::replace(&mut self.reader, BodyReader::Staged(Box::default()));
        self.reader = body.stage(vec![stage]);
    }

    /// The length of the request's body is not known any more.
    pub(crate) fn request_length_changes(&mut self) {
        self.front.request.fields.remove_known(Known::ContentLength);
        self.body = BodyLength::Chunked;
    }
}

/// A request without its body.
#[derive(Debug)]
pub struct Front {
    /// The connection it came on.
    pub connection: Rc<Connection>,
    /// The configuration it is served by, from its start to its end.
    pub serving: Rc<Serving>,
    /// Its head; edited on the way.
    pub request: RequestHead,
    /// Room for the response head.
    pub response: ResponseHead,
    /// Where the response goes.
    pub responder: Responder,
    /// Its time limits.
    pub clock: Rc<Clock>,
    /// When its first byte arrived.
    pub start: Instant,
    /// When its head was complete.
    pub arrived: Instant,
}

impl Front {
    /// The thread.
    pub fn worker(&self) -> &Rc<Worker> {
        &self.connection.worker
    }
}

/// A request to be served.
#[derive(Debug)]
pub enum Start {
    /// From its beginning.
    New(Box<Exchange>),
    /// From where the express lane left it.
    Express(Box<Express>),
}

/// Serves a request. Whatever happens, a response was sent, begun and broken off, or there was nobody left to send it
/// to; and it was counted and logged once. Returns the time of its end, and the memory for the next request.
pub async fn serve(start: Start) -> (Instant, Box<Exchange>) {
    match start {
        Start::New(mut x) => {
            let mut notes = begin(&mut x);
            if x.front.request.fields.contains_known(Known::Expect) {
                Box::pin(bid_continue(&mut x)).await;
            }
            let mut decided = decide(&mut x, &mut notes);
            if let Ok(Decided::Wait(_)) = decided {
                decided = Box::pin(wait(&mut x, &mut notes, decided)).await;
            }
            if let Err(error) = act(&mut x, &mut notes, &decided).await {
                // Boxed like everything that few requests come by: its room would be taken from every request.
                Box::pin(respond::fail(&mut x, &mut notes, error)).await;
            }
            (finish::finish(&mut x, &mut notes), x)
        }
        Start::Express(mut express) => {
            let Express { x, notes, plan, shared, first, .. } = &mut *express;
            if let Err(error) = retry::attempts(x, notes, plan, shared, first).await {
                Box::pin(respond::fail(x, notes, error)).await;
            }
            (finish::finish(x, notes), express.x)
        }
    }
}

/// Tells a client that waits for it to go on with its body, at once, and not the upstream (Envoy: `proxy_100_continue`).
async fn bid_continue(x: &mut Exchange) {
    let front = &mut x.front;
    let asked = front.request.fields.get_known(Known::Expect);
    if front.serving.config().proxy_100_continue
        || !asked.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
    {
        return;
    }
    front.request.fields.remove_known(Known::Expect);
    front.response.clear();
    front.response.status = 100;
    // A client that is gone is found out when it is read from.
    let _ = front.clock.guard(front.responder.interim(&front.response)).await;
}

/// Goes on with a request of which [`express`] has only decided what is to become of it; otherwise as [`serve`].
async fn go_on(
    mut x: Box<Exchange>,
    mut notes: Notes,
    mut decided: Result<Decided, ProxyError>,
) -> Box<Exchange> {
    if let Ok(Decided::Wait(_)) = decided {
        decided = Box::pin(wait(&mut x, &mut notes, decided)).await;
    }
    if let Err(error) = act(&mut x, &mut notes, &decided).await {
        Box::pin(respond::fail(&mut x, &mut notes, error)).await;
    }
    finish::finish(&mut x, &mut notes);
    x
}

/// Serves a request of an HTTP/2 stream in a task of its own.
pub(crate) fn serve_apart(x: Box<Exchange>) {
    let worker = x.front.worker().clone();
    worker.jobs.clone().spawn(async move {
        let (_, x) = worker.slots.run(Start::New(x)).await;
        recycle(x);
    });
}

/// Gives the memory of an HTTP/2 exchange that is over to the next one.
pub(crate) fn recycle(mut x: Box<Exchange>) {
    let memory = x.front.worker().memory.clone();
    memory.keep_request(std::mem::take(&mut x.front.request));
    memory.keep_response(std::mem::take(&mut x.front.response));
    let clock = x.front.clock.clone();
    drop(x);
    memory.keep_clock(clock);
}

/// Answers a request that cannot be served at all, such as one whose head is malformed. Returns as [`serve`] does.
///
/// `framed` tells that it is known where the message ends, so that an HTTP/1.1 connection may go on where the
/// configuration lets it.
pub async fn refuse(mut x: Box<Exchange>, error: ProxyError, framed: bool) -> (Instant, Box<Exchange>) {
    let mut notes = begin(&mut x);
    if !(framed && x.front.serving.config().stream_error_on_invalid_http_message) {
        x.front.responder.close_after();
    }
    respond::fail(&mut x, &mut notes, error).await;
    (finish::finish(&mut x, &mut notes), x)
}

fn begin(x: &mut Exchange) -> Notes {
    let config = x.front.serving.config();
    telemetry::begin(
        x.front.worker(),
        &x.front.serving.chain.stats,
        x.front.request.version() == Version::Http2,
    );
    x.front.clock.start(
        x.front.arrived,
        config.stream_idle_timeout,
        config.request_timeout,
        config.max_stream_duration,
    );
    let mut notes = Notes::new(x.front.start, x.front.connection.facts.remote);
    x.front.request.fields.join_repeated(view::JOINED_IN_REQUESTS);
    notes.is_grpc = view::is_grpc(&x.front.request.fields);
    notes
}

/// What is to become of a request.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every request is the large one")]
enum Decided {
    /// It goes to a cluster. Nearly every request does; boxed, each of them would allocate.
    Forward(Plan),
    /// It is answered with a redirect.
    Redirect(Arc<Route>),
    /// It is answered here.
    Direct(Arc<Route>),
    /// It is sent to its own path as it is after normalisation.
    RedirectToPath,
    /// A filter answers it.
    Answer(Box<Answer>),
    /// A filter waits. [`wait`] decides the rest.
    Wait(Box<Paused>),
}

/// Steps 1 to 5: everything that is decided before the request leaves.
fn decide(x: &mut Exchange, notes: &mut Notes) -> Result<Decided, ProxyError> {
    if x.front.worker().shared.overload.is_active(overload::Action::StopRequests) {
        return Err(ProxyError::Overloaded);
    }
    match prepare::request(&x.front.connection, &x.front.serving, &mut x.front.request, x.upgrade, notes) {
        Ok(Prepared::Go) => {}
        refused => return settle_path(x, notes, refused),
    }
    if let Some(table) = x.front.serving.clone().table(&view::HeadView(&x.front.request)) {
        for name in &table.config.internal_only_headers {
            x.front.request.fields.remove(name.as_bytes());
        }
    }
    decide_where(x, notes)
}

/// A request that is not to go on with its path: what its route says of responses holds for the answer too.
#[cold]
fn settle_path(
    x: &mut Exchange,
    notes: &mut Notes,
    refused: Result<Prepared, ProxyError>,
) -> Result<Decided, ProxyError> {
    // Envoy finds no route without this field, which it has not set yet.
    let has_scheme = x.front.request.fields.contains_known(Known::XForwardedProto);
    if has_scheme && !matches!(refused, Err(error) if error != ProxyError::BadPath) {
        let serving = x.front.serving.clone();
        let place = Place::find(x, notes, &serving, x.front.worker().draw());
        // Those of routes that answer themselves do not (Envoy).
        let matched = place.matched.filter(|matched| matches!(matched.route.action, Action::Forward(_)));
        notes.route = matched.map(|matched| matched.route.clone());
    }
    refused.map(|_| Decided::RedirectToPath)
}

/// Steps 2 to 5, for a request that is prepared.
fn decide_where(x: &mut Exchange, notes: &mut Notes) -> Result<Decided, ProxyError> {
    let serving = x.front.serving.clone();
    let place = Place::find(x, notes, &serving, x.front.worker().draw());
    notes.route = place.matched.map(|matched| matched.route.clone());
    sample_by_route(x, &place, notes);
    if serving.filters().is_empty() {
        return settle(x, notes, &place);
    }
    let passed = filter::run(x, notes, place);
    pass(x, notes, passed)
}

/// The route may have a word about whether the request is traced.
fn sample_by_route(x: &Exchange, place: &Place<'_>, notes: &mut Notes) {
    if let (Some(of_route), Some(of_chain), Some(trace)) = (
        place.matched.and_then(|matched| matched.route.tracing.as_ref()),
        &place.serving.config().tracing,
        &mut notes.trace,
    ) {
        let worker = x.front.worker();
        trace.sample_by_route(&x.front.request, of_chain, of_route, &mut || worker.draw());
    }
}

/// Waits for the filters, and decides the rest.
async fn wait(
    x: &mut Exchange,
    notes: &mut Notes,
    decided: Result<Decided, ProxyError>,
) -> Result<Decided, ProxyError> {
    let Ok(Decided::Wait(paused)) = decided else { return decided };
    let serving = x.front.serving.clone();
    let passed = filter::resume(x, notes, &serving, paused).await?;
    pass(x, notes, passed)
}

/// What follows from the filters.
fn pass(x: &mut Exchange, notes: &mut Notes, passed: Passed<'_>) -> Result<Decided, ProxyError> {
    match passed {
        Passed::Through(place) => settle(x, notes, &place),
        Passed::Answer(answer) => Ok(Decided::Answer(answer)),
        Passed::Wait(paused) => Ok(Decided::Wait(paused)),
    }
}

/// What the route says, once the filters let the request pass.
///
/// *Errors*: there is no route, or its table (RDS) has not arrived yet.
fn settle(x: &mut Exchange, notes: &mut Notes, place: &Place<'_>) -> Result<Decided, ProxyError> {
    let Some(matched) = place.matched else {
        place.serving.stats(x.front.worker()).no_route.inc();
        return Err(ProxyError::NoRoute);
    };
    Ok(match &matched.route.action {
        Action::Forward(forward) => Decided::Forward(forward::plan(x, notes, place, matched, forward)?),
        Action::Redirect(_) => Decided::Redirect(matched.route.clone()),
        Action::Direct(_) => Decided::Direct(matched.route.clone()),
    })
}

/// Steps 4 and 6.
async fn act(
    x: &mut Exchange,
    notes: &mut Notes,
    decided: &Result<Decided, ProxyError>,
) -> Result<(), ProxyError> {
    match decided.as_ref().map_err(|error| *error)? {
        Decided::Forward(plan) => {
            if plan.connect_ends {
                return Box::pin(connect::terminate(x, notes, plan)).await;
            }
            let mut shared = Attempts::new(&x.front, plan);
            retry::attempts(x, notes, plan, &mut shared, &mut First::Fresh).await?;
            match shared.redirect.take() {
                None => Ok(()),
                Some(to) => Box::pin(go_elsewhere(x, notes, *to, shared.replay)).await,
            }
        }
        Decided::Redirect(route) => Box::pin(respond::redirect(x, notes, route)).await,
        Decided::Direct(route) => Box::pin(respond::direct(x, notes, route)).await,
        Decided::RedirectToPath => Box::pin(respond::redirect_to_path(x, notes)).await,
        Decided::Answer(answer) => Box::pin(respond::answer(x, notes, answer)).await,
        // It was waited for before.
        Decided::Wait(_) => Err(ProxyError::Defect),
    }
}

/// Follows redirects of upstreams, until a response is passed on.
async fn go_elsewhere(
    x: &mut Exchange,
    notes: &mut Notes,
    mut to: Redirection,
    mut replay: Replay,
) -> Result<(), ProxyError> {
    loop {
        internal_redirect::follow(x, &to, &mut replay)?;
        notes.wanted = None;
        let decided = decide_where(x, notes);
        let plan = match wait(x, notes, decided).await? {
            Decided::Forward(plan) => plan,
            Decided::Redirect(route) => return respond::redirect(x, notes, &route).await,
            Decided::Direct(route) => return respond::direct(x, notes, &route).await,
            Decided::Answer(answer) => return respond::answer(x, notes, &answer).await,
            Decided::RedirectToPath | Decided::Wait(_) => return Err(ProxyError::Defect),
        };
        let mut shared = Attempts::again(&x.front, &plan, replay);
        retry::attempts(x, notes, &plan, &mut shared, &mut First::Fresh).await?;
        replay = shared.replay;
        match shared.redirect {
            None => return Ok(()),
            Some(next) => to = *next,
        }
    }
}
