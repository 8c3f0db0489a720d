//! One request from head to last byte. [`serve`] is the table of contents of the data path:
//!
//! 1. prepare the head ([`crate::http::prepare`]): normalise the path, drop hop-by-hop fields, set forwarding fields,
//!    join the trace;
//! 2. find the route ([`route`]);
//! 3. run the filters, authorization first ([`crate::filter`]);
//! 4. answer here ([`respond`]), or
//! 5. choose the cluster, edit, rewrite, set the time limits ([`forward`]);
//! 6. make attempts ([`retry`]); in each, pick a host, take permits and a connection ([`attempt`]), send ([`upload`]) and
//!    read ([`converse`]), and pass the response on ([`response`]) or become a tunnel ([`upgrade`]);
//! 7. count, log, trace ([`finish`]).

mod attempt;
mod converse;
mod finish;
mod forward;
pub mod notes;
mod respond;
mod response;
mod retry;
mod route;
mod stream_tunnel;
mod upgrade;
mod upload;

pub mod timeout;

use std::rc::Rc;

use outrigger_traffic::route::Action;
use outrigger_wire::h1::BodyLength;
use outrigger_wire::{RequestHead, ResponseHead, Version};
use tokio::time::Instant;

use crate::error::ProxyError;
use crate::filter;
use crate::http::body::BodyReader;
use crate::http::prepare::{self, Prepared};
use crate::http::respond::Responder;
use crate::http::{Connection, Serving, view};
use crate::telemetry;
use crate::worker::Worker;

pub use notes::Notes;
use timeout::Clock;

/// One request, its stream, and what its connection lends it.
#[derive(Debug)]
pub struct Exchange<'c> {
    /// All but the request's body.
    pub front: Front<'c>,
    /// Its body: apart, because it streams while the rest is worked on.
    pub reader: &'c mut BodyReader,
    /// How its body is delimited.
    pub body: BodyLength,
    /// It asks to change protocols.
    pub upgrade: bool,
}

/// A request without its body.
#[derive(Debug)]
pub struct Front<'c> {
    /// The connection it came on.
    pub connection: &'c Connection,
    /// The configuration it is served by, from its start to its end.
    pub serving: Rc<Serving>,
    /// Its head; edited on the way.
    pub request: &'c mut RequestHead,
    /// Room for the response head.
    pub response: &'c mut ResponseHead,
    /// Where the response goes.
    pub responder: &'c mut Responder,
    /// Its time limits.
    pub clock: &'c Clock,
    /// When its first byte arrived.
    pub start: Instant,
    /// When its head was complete.
    pub arrived: Instant,
}

impl Front<'_> {
    /// The thread.
    pub fn worker(&self) -> &Rc<Worker> {
        &self.connection.worker
    }
}

/// Serves a request. Whatever happens, a response was sent, begun and broken off, or there was nobody left to send it
/// to; and it was counted and logged once. Returns the time of its end.
pub async fn serve(mut x: Exchange<'_>) -> Instant {
    let mut notes = begin(&mut x);
    if let Err(error) = run(&mut x, &mut notes).await {
        respond::fail(&mut x, &mut notes, error).await;
    }
    finish::finish(&mut x, &mut notes)
}

/// Answers a request that cannot be served at all, such as one whose head is malformed. Returns the time of its end.
///
/// `framed` tells that it is known where the message ends, so that an HTTP/1.1 connection may go on where the
/// configuration lets it.
pub async fn refuse(mut x: Exchange<'_>, error: ProxyError, framed: bool) -> Instant {
    let mut notes = begin(&mut x);
    if !(framed && x.front.serving.config().stream_error_on_invalid_http_message) {
        x.front.responder.close_after();
    }
    respond::fail(&mut x, &mut notes, error).await;
    finish::finish(&mut x, &mut notes)
}

fn begin(x: &mut Exchange<'_>) -> Notes {
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
    let mut notes = Notes::new(x.front.start, x.front.connection.facts.peer);
    notes.is_grpc = view::is_grpc(&x.front.request.fields);
    notes
}

async fn run(x: &mut Exchange<'_>, notes: &mut Notes) -> Result<(), ProxyError> {
    match prepare::request(x.front.connection, &x.front.serving, x.front.request, x.upgrade, notes)? {
        Prepared::Go => {}
        Prepared::RedirectToPath => return respond::redirect_to_path(x, notes).await,
    }
    let serving = x.front.serving.clone();
    if let Some(table) = serving.table() {
        for name in &table.config.internal_only_headers {
            x.front.request.fields.remove(name.as_bytes());
        }
    }
    let matched = route::find(&x.front, &serving, notes)?;
    notes.route = Some(matched.route.clone());
    filter::on_request(x.front.connection, &serving, x.front.request, matched.route, notes)?;
    match &matched.route.action {
        Action::Forward(forward) => forward::run(x, notes, &serving, matched, forward).await,
        Action::Redirect(redirect) => respond::redirect(x, notes, matched.route, redirect.status).await,
        Action::Direct(direct) => respond::direct(x, notes, matched.route, direct).await,
    }
}
