//! A downstream HTTP/2 connection: its streams, limits on what a peer can make us do, an orderly end.
//!
//! The limits are those of [`outrigger_wire::h2::limit`]; what they refuse is counted here.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::super::body::{BodyReader, BodyWriter};
use super::super::respond::Responder;
use super::super::{Connection, Serving, websocket};
use super::keepalive::KeepAlive;
use super::link::{Arrived, Link, Over};
use super::rest::Rest;
use super::stream::halves;
use crate::error::ProxyError;
use crate::exchange::{self, Exchange, Front};
use crate::io::Buf;
use crate::telemetry::Raised;
use outrigger_wire::h1::BodyLength;
use outrigger_wire::h2::{Code, H2Error, HeadRefusal, Options, Role, Settings};
use outrigger_wire::{Known, ResponseHead, Version};

/// Time for the preface and first SETTINGS where the idle timeout does not say less.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(15);

/// Serves streams until the connection ends.
pub async fn serve(connection: Rc<Connection>, first: Option<Buf>) {
    let worker = connection.worker.clone();
    let serving = connection.serving();
    let stats = serving.stats(&worker);
    stats.downstream_cx_http2_total.inc();
    let _active =
        Raised::new(serving.chain.stats.clone(), worker.id, |stats| &stats.downstream_cx_http2_active);
    let options = options(&serving, connection.io.is_tls());
    let link = Link::new(&worker, connection.io.clone(), Role::Server, options, first.as_ref());
    drop(first);
    run(&connection, &link).await;
    link.close(&worker, Code::NO_ERROR).await;
}

fn options(serving: &Serving, secure: bool) -> Options {
    let config = serving.config();
    let http2 = &config.http2;
    Options {
        settings: Settings {
            header_table_bytes: http2.hpack_table_size,
            max_concurrent_streams: http2.max_concurrent_streams,
            initial_window: http2.initial_stream_window_size,
            max_header_list_bytes: config.max_request_headers_kb.saturating_mul(1024),
            connect_protocol: http2.allow_connect,
            ..Settings::default()
        },
        connection_window: http2.initial_connection_window_size,
        max_fields: config.max_headers_count as usize,
        secure,
    }
}

/// Why the connection's task woke up.
enum Event {
    Over(Over),
    /// No SETTINGS came.
    Silent,
    Idle,
    Drain,
    Dead,
}

async fn run(connection: &Rc<Connection>, link: &Rc<Link>) {
    let worker = connection.worker.clone();
    let idle = worker.wheel.deadline();
    let greeting = worker.wheel.deadline();
    let patience = connection.serving().config().idle_timeout;
    greeting.set(patience.map_or(PREFACE_TIMEOUT, |idle| idle.min(PREFACE_TIMEOUT)));
    let age = worker.wheel.deadline();
    age.set_opt(connection.serving().config().max_connection_duration);
    let mut keepalive = KeepAlive::new(&worker, &connection.serving().config().http2);
    let mut rest = Rest::new(&worker);
    let mut draining = std::pin::pin!(connection.drain.draining());
    let finishing = Cell::new(false);
    let finish = || {
        idle.clear();
        finishing.set(true);
        link.shut_down();
    };
    let mut accept = |arrived: Arrived| {
        let serving = connection.serving_now();
        if connection.count_request(&serving) && !finishing.get() {
            finishing.set(true);
            link.shut_down();
        }
        start(connection, serving, link, arrived)
    };
    loop {
        let event = std::future::poll_fn(|cx| {
            if let Poll::Ready(over) = link.poll_drive(cx, &mut accept) {
                return Poll::Ready(Event::Over(over));
            }
            rest.poll(cx, link);
            if !link.is_established() {
                if greeting.poll_expired(cx).is_ready() {
                    return Poll::Ready(Event::Silent);
                }
            } else if link.active() > 0 {
                idle.clear();
            } else if !idle.is_armed() && !idle.is_expired() {
                let serving = connection.serving();
                let config = serving.config();
                idle.set_opt(if finishing.get() { Some(config.drain_timeout) } else { config.idle_timeout });
            }
            if idle.poll_expired(cx).is_ready() {
                return Poll::Ready(Event::Idle);
            }
            if !finishing.get() && (draining.as_mut().poll(cx).is_ready() || age.poll_expired(cx).is_ready())
            {
                return Poll::Ready(Event::Drain);
            }
            keepalive.poll_dead(cx, link).map(|()| Event::Dead)
        })
        .await;
        let serving = connection.serving();
        let stats = serving.stats(&worker);
        match event {
            Event::Over(Over::Failed(error)) => {
                tracing::debug!(
                    listener = &*connection.facts.listener,
                    peer = %connection.facts.peer,
                    error = %error,
                    "http/2 connection failed"
                );
                if error == H2Error::RapidReset {
                    stats.downstream_rq_too_many_premature_resets.inc();
                }
                if error.is_flood() {
                    stats.downstream_cx_http2_flood.inc();
                } else {
                    stats.downstream_cx_protocol_error.inc();
                }
                return;
            }
            Event::Idle if finishing.get() => return,
            Event::Over(Over::Closed | Over::Done) | Event::Dead => return,
            Event::Silent => {
                stats.downstream_cx_idle_timeout.inc();
                return;
            }
            Event::Idle => {
                stats.downstream_cx_idle_timeout.inc();
                // A stream may be on its way already and is served. The peer may never close: it is not waited for
                // longer than for a drain.
                finish();
            }
            Event::Drain => {
                stats.downstream_cx_drain_close.inc();
                finish();
            }
        }
    }
}

/// Makes the exchange of a stream; one that cannot be served is answered at once.
fn start(
    connection: &Rc<Connection>,
    serving: Rc<Serving>,
    link: &Rc<Link>,
    arrived: Arrived,
) -> Option<Box<Exchange>> {
    let Arrived { stream, head: mut request, read, at } = arrived;
    let (reader, writer) = halves(link, stream, false);
    let worker = &connection.worker;
    // No other HTTP/2 request has this field.
    let upgrade = read.is_ok() && request.fields.contains_known(Known::Upgrade);
    if upgrade && websocket::is_wanted(&request.fields) {
        websocket::offer(
            &mut request.fields,
            (u128::from(worker.draw()) << 64 | u128::from(worker.draw())).to_be_bytes(),
        );
    }
    let mut responder = Responder::new(BodyWriter::H2(writer));
    responder.begin(Version::Http2, request.method(), true);
    let x = Box::new(Exchange {
        front: Front {
            connection: connection.clone(),
            serving,
            request,
            response: ResponseHead::default(),
            responder,
            clock: worker.memory.clock(&worker.wheel),
            start: at,
            arrived: at,
        },
        reader: BodyReader::H2(reader),
        body: read.unwrap_or(BodyLength::None),
        upgrade,
    });
    let (details, status) = match read {
        Ok(_) => return Some(x),
        // The codec resets malformed requests itself.
        Err(HeadRefusal::Malformed) => ("http2.violation.of.messaging.rule", 400),
        Err(HeadRefusal::Bad(details)) => (details, 400),
        Err(HeadRefusal::TooMany) => ("http2.too_many_headers", 431),
        Err(HeadRefusal::TooLarge) => ("http2.headers_too_large", 431),
    };
    worker.jobs.spawn(async move {
        let (_, x) = exchange::refuse(x, ProxyError::BadRequest(details, status), true).await;
        exchange::recycle(x);
    });
    None
}
