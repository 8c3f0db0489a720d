//! A downstream HTTP/2 connection: one task per stream, limits on what a peer can make us do, an orderly end.
//!
//! The limits of the `h2` crate are set here (header list, streams, resets, DATA frames); beside them, a connection
//! whose streams mostly end before they were answered is closed (Envoy: `premature_reset_*`).

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection as Server, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::Request;
use outrigger_wire::h1::BodyLength;
use outrigger_wire::{Known, RequestHead, ResponseHead, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::super::body::{BodyReader, BodyWriter};
use super::super::respond::Responder;
use super::super::{Connection, Serving, websocket};
use super::guard::FrameGuard;
use super::head::{self, HeadRefusal};
use super::{H2Reader, H2Writer};
use crate::error::ProxyError;
use crate::exchange::timeout::Clock;
use crate::exchange::{self, Exchange, Front};
use crate::io::{Buf, IoStream};
use crate::telemetry::Raised;

/// Time for the preface and first SETTINGS where the idle timeout does not say less.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(15);
/// Streams that the peer reset and that still occupy memory here.
const RESETS_PENDING: usize = 20;
/// Resets of ours that a peer may provoke (MadeYouReset, CVE-2025-8671) before the connection is closed.
const LOCAL_ERROR_RESETS: usize = 256;
/// From so many streams on, the share of those reset before their answer is looked at
/// (Envoy: `overload.premature_reset_total_stream_count`, 500; ours is lower, because nothing good does this).
const RESET_SAMPLE: u32 = 200;
/// Bytes waiting to be sent per stream before its body is no longer read from the upstream.
const SEND_BUFFER: usize = 256 * 1024;

/// What the streams of a connection report back to it.
#[derive(Debug, Default)]
struct Tally {
    active: Cell<u32>,
    started: Cell<u32>,
    reset_early: Cell<u32>,
}

impl Tally {
    fn is_abused(&self) -> bool {
        let (started, early) = (self.started.get(), self.reset_early.get());
        started >= RESET_SAMPLE && early > started / 2
    }
}

/// One stream less, however it ends.
struct Leave(Rc<Tally>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
    }
}

/// Serves streams until the connection ends.
pub async fn serve(connection: Rc<Connection>, first: Option<Buf>) {
    let worker = connection.worker.clone();
    let serving = connection.serving();
    let stats = serving.stats(&worker);
    stats.downstream_cx_http2_total.inc();
    let _active =
        Raised::new(serving.chain.stats.clone(), worker.id, |stats| &stats.downstream_cx_http2_active);
    let stream = Prefixed { first, io: IoStream(connection.io.clone()), guard: FrameGuard::new() };
    let limit = serving.config().idle_timeout.map_or(PREFACE_TIMEOUT, |idle| idle.min(PREFACE_TIMEOUT));
    let handshake = builder(&serving).handshake::<_, Bytes>(stream);
    let mut server = match worker.wheel.timeout(Some(limit), handshake).await {
        Some(Ok(server)) => server,
        Some(Err(_)) => {
            stats.downstream_cx_protocol_error.inc();
            return;
        }
        None => {
            stats.downstream_cx_idle_timeout.inc();
            return;
        }
    };
    let pings = server.ping_pong();
    run(&connection, &mut server, pings).await;
}

fn builder(serving: &Serving) -> Builder {
    let config = serving.config();
    let options = &config.http2;
    let mut builder = Builder::new();
    builder
        .header_table_size(options.hpack_table_size)
        .max_concurrent_streams(options.max_concurrent_streams)
        .initial_window_size(options.initial_stream_window_size)
        .initial_connection_window_size(options.initial_connection_window_size)
        .max_header_list_size(config.max_request_headers_kb.saturating_mul(1024))
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESETS_PENDING)
        .max_pending_accept_reset_streams(RESETS_PENDING)
        .max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS));
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    builder
}

/// Why the accept loop woke up.
enum Event {
    Stream(Box<(Request<RecvStream>, SendResponse<Bytes>)>),
    Over(bool),
    Idle,
    Drain,
    Dead,
}

async fn run(connection: &Rc<Connection>, server: &mut Server<Prefixed, Bytes>, pings: Option<PingPong>) {
    let worker = connection.worker.clone();
    let tally = Rc::new(Tally::default());
    let idle = worker.wheel.deadline();
    let age = worker.wheel.deadline();
    age.set_opt(connection.serving().config().max_connection_duration);
    let options = connection.serving().config().http2.clone();
    let mut keepalive =
        Box::pin(keep_alive(&worker, pings, options.keepalive_interval, options.keepalive_timeout));
    let mut draining = std::pin::pin!(connection.drain.draining());
    let mut finishing = false;
    loop {
        let serving = connection.serving();
        let stats = serving.stats(&worker);
        let event = std::future::poll_fn(|cx| {
            match server.poll_accept(cx) {
                Poll::Ready(Some(Ok(stream))) => return Poll::Ready(Event::Stream(Box::new(stream))),
                Poll::Ready(Some(Err(error))) => {
                    let flooded =
                        error.get_io().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData);
                    return Poll::Ready(Event::Over(flooded || !error.is_io()));
                }
                Poll::Ready(None) => return Poll::Ready(Event::Over(false)),
                Poll::Pending => {}
            }
            if tally.active.get() > 0 {
                idle.clear();
            } else if !idle.is_armed() && !idle.is_expired() {
                let config = serving.config();
                idle.set_opt(if finishing { Some(config.drain_timeout) } else { config.idle_timeout });
            }
            if idle.poll_expired(cx).is_ready() {
                return Poll::Ready(Event::Idle);
            }
            if !finishing && (draining.as_mut().poll(cx).is_ready() || age.poll_expired(cx).is_ready()) {
                return Poll::Ready(Event::Drain);
            }
            keepalive.as_mut().poll(cx).map(|()| Event::Dead)
        })
        .await;
        match event {
            Event::Stream(stream) => {
                let serving = connection.serving_now();
                if connection.count_request(&serving) && !finishing {
                    finishing = true;
                    server.graceful_shutdown();
                }
                let (request, respond) = *stream;
                start(connection, serving, request, respond, &tally);
                if tally.is_abused() {
                    stats.downstream_rq_too_many_premature_resets.inc();
                    server.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
            }
            Event::Over(protocol) => {
                if protocol {
                    stats.downstream_cx_protocol_error.inc();
                }
                return;
            }
            Event::Idle => {
                if finishing {
                    return;
                }
                stats.downstream_cx_idle_timeout.inc();
                // A stream may be on its way already and is served. The peer may never close: it is not waited for
                // longer than for a drain.
                idle.clear();
                finishing = true;
                server.graceful_shutdown();
            }
            Event::Drain => {
                stats.downstream_cx_drain_close.inc();
                idle.clear();
                finishing = true;
                server.graceful_shutdown();
            }
            Event::Dead => return,
        }
    }
}

/// Runs a stream as a task of its own.
fn start(
    connection: &Rc<Connection>,
    serving: Rc<Serving>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    tally: &Rc<Tally>,
) {
    tally.active.set(tally.active.get() + 1);
    tally.started.set(tally.started.get().saturating_add(1));
    let leave = Leave(tally.clone());
    let connection = connection.clone();
    let jobs = connection.worker.jobs.clone();
    jobs.spawn(async move {
        let early = exchange(&connection, serving, request, respond).await;
        if early {
            leave.0.reset_early.set(leave.0.reset_early.get().saturating_add(1));
        }
    });
}

/// Serves one stream; `true` when the peer reset it before it was answered.
async fn exchange(
    connection: &Connection,
    serving: Rc<Serving>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> bool {
    let start = Instant::now();
    let config = serving.config();
    let max_fields = config.max_headers_count as usize;
    let (parts, recv) = request.into_parts();
    let mut head = RequestHead::with_capacity();
    let parts = Request::from_parts(parts, ());
    let read =
        head::read_request(&parts, recv.is_end_stream(), connection.io.is_tls(), max_fields, &mut head);
    // No other HTTP/2 request has this field.
    let upgrade = read.is_ok() && head.fields.contains_known(Known::Upgrade);
    if upgrade && websocket::is_wanted(&head.fields) {
        let draw = || connection.worker.draw();
        websocket::offer(&mut head.fields, (u128::from(draw()) << 64 | u128::from(draw())).to_be_bytes());
    }
    let mut reader = BodyReader::H2(H2Reader::request(recv, max_fields));
    let mut responder = Responder::new(BodyWriter::H2(H2Writer::response(respond)));
    responder.begin(Version::Http2, head.method(), true);
    let mut response = ResponseHead::default();
    let clock = Clock::new(&connection.worker.wheel);
    let exchange = Exchange {
        front: Front {
            connection,
            serving,
            request: &mut head,
            response: &mut response,
            responder: &mut responder,
            clock: &clock,
            start,
            arrived: start,
        },
        reader: &mut reader,
        body: read.unwrap_or(BodyLength::None),
        upgrade,
    };
    match read {
        Ok(_) => {
            exchange::serve(exchange).await;
        }
        Err(HeadRefusal::Bad(details)) => {
            exchange::refuse(exchange, ProxyError::BadRequest(details, 400), true).await;
        }
        Err(HeadRefusal::TooMany) => {
            exchange::refuse(exchange, ProxyError::BadRequest("http2.too_many_headers", 431), true).await;
        }
    }
    !responder.is_started()
}

/// Returns when a PING was not answered in time; never where none are sent.
async fn keep_alive(
    worker: &crate::worker::Worker,
    pings: Option<PingPong>,
    interval: Option<Duration>,
    timeout: Duration,
) {
    let (Some(mut pings), Some(interval)) = (pings, interval) else { return std::future::pending().await };
    loop {
        worker.wheel.sleep(interval).await;
        match worker.wheel.timeout(Some(timeout), pings.ping(Ping::opaque())).await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// The connection, with bytes in front that were read to find the protocol.
struct Prefixed {
    first: Option<Buf>,
    io: IoStream,
    guard: FrameGuard,
}

impl Prefixed {
    fn look(&mut self, out: &ReadBuf<'_>, from: usize) -> io::Result<()> {
        let arrived = out.filled().get(from..).unwrap_or_default();
        if self.guard.pass(arrived) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let from = out.filled().len();
        if let Some(first) = &mut self.first {
            let data = first.data();
            let n = data.len().min(out.remaining());
            out.put_slice(data.get(..n).unwrap_or_default());
            first.consume(n);
            if first.is_empty() {
                self.first = None;
            }
            return Poll::Ready(self.look(out, from));
        }
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        Poll::Ready(self.look(out, from))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
