//! An HTTP/1.1 connection from its first request to its last, strictly in order.
//!
//! ```text
//!   idle ──byte──▶ head ──complete──▶ exchange ──keep-alive──▶ idle
//!    │ timeout,      │ malformed,       │ close
//!    │ drain         │ timeout          ▼
//!    └──────────▶ closed ◀── linger ◀───┘
//! ```

use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use outrigger_traffic::config::HttpConnectionManager;
use outrigger_wire::h1::{BodyLength, RequestFraming};
use outrigger_wire::{RequestHead, ResponseHead, Scheme};
use tokio::time::Instant;

use super::super::Connection;
use super::super::body::{BodyError, BodyReader, BodyWriter, discard};
use super::super::respond::Responder;
use super::reader::answerable;
use super::{H1Reader, H1Writer};
use crate::error::ProxyError;
use crate::exchange::timeout::Clock;
use crate::exchange::{self, Exchange, Front, Start};
use crate::io::{Buf, Deadline};
use crate::telemetry::Raised;

/// A request that was answered before its end is read and dropped up to here, so that the connection can be kept;
/// beyond, it is closed.
const DISCARD: u64 = 64 * 1024;
/// How long a closed connection is read and dropped, so that the client sees our answer and not a reset
/// (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);
/// How long a connection without a request keeps the memory that requests are worked on in: heads, the buffer for the
/// answer, time limits. A busy one never gives it up and allocates nothing; of thousands that idle, none holds any.
const DESK_KEPT: Duration = Duration::from_millis(200);

/// What became of waiting for a request.
enum Arrival {
    /// A head, complete.
    Head(RequestFraming),
    /// A head that cannot be served.
    Bad(ProxyError),
    /// The connection is over.
    Over,
}

/// What became of waiting for its first byte.
enum Wait {
    /// It is there, or the end of the stream.
    Byte,
    /// Nothing came for [`DESK_KEPT`].
    Long,
    /// The connection is to be closed.
    Over,
}

/// Serves requests until the connection ends.
pub async fn serve(connection: Rc<Connection>, first: Option<Buf>) {
    let worker = connection.worker.clone();
    let serving = connection.serving();
    serving.stats(&worker).downstream_cx_http1_total.inc();
    let _active =
        Raised::new(serving.chain.stats.clone(), worker.id, |stats| &stats.downstream_cx_http1_active);
    let mut desk = first.map(|first| desk(&connection, Some(first)));
    drop(serving);
    let timer = worker.wheel.deadline();
    let mut idle_since = connection.opened;
    loop {
        if !desk.as_ref().is_some_and(|x| has_buffered(x)) {
            match first_byte(&connection, &timer, idle_since, desk.is_some()).await {
                Wait::Byte => {}
                Wait::Long => {
                    desk = None;
                    connection.paths.take();
                    continue;
                }
                Wait::Over => break,
            }
        }
        let mut x = desk.take().unwrap_or_else(|| self::desk(&connection, None));
        let BodyReader::H1(h1) = &mut x.reader else { break };
        let (arrival, start, arrived) = next_request(&connection, h1, &mut x.front.request, &timer).await;
        timer.clear();
        let serving = connection.serving_now();
        h1.set_limits(serving.limits());
        let framing = match arrival {
            Arrival::Over => {
                desk = Some(x);
                break;
            }
            Arrival::Head(framing) => Ok(framing),
            Arrival::Bad(error) => Err(error),
        };
        let last = connection.count_request(&serving);
        let keep = framing.is_ok_and(|framing| framing.keep_alive) && !last;
        if last && connection.drain.is_draining() {
            serving.stats(&worker).downstream_cx_drain_close.inc();
        }
        x.body = framing.map_or(BodyLength::None, |framing| framing.body);
        x.upgrade = framing.is_ok_and(|framing| framing.upgrade);
        let front = &mut x.front;
        front.responder.begin(front.request.version(), front.request.method(), keep);
        front.request.set_scheme(if connection.io.is_tls() { Scheme::Https } else { Scheme::Http });
        let checked = framing
            .and_then(|framing| admit(&mut front.request, framing, serving.config()).map(|()| framing));
        (front.start, front.arrived) = (start, arrived);
        front.serving = serving;
        (idle_since, x) = match checked {
            // In a place of the worker, so that the many connections that wait for a request hold no room for one.
            Ok(_) => worker.slots.run(Start::New(x)).await,
            Err(error) => Box::pin(exchange::refuse(x, error, framing.is_ok())).await,
        };
        x.front.clock.stop();
        let goes_on = x.front.responder.keeps_alive() && rest_is_dropped(&mut x.reader).await;
        if let BodyReader::H1(h1) = &mut x.reader {
            h1.release();
        }
        desk = Some(x);
        if !goes_on {
            break;
        }
    }
    // Boxed: few connections are closing at a time.
    Box::pin(close(&connection, desk)).await;
}

/// What a connection works on its requests with: made for the first one, used again for the next, and given up when
/// none comes for a while.
fn desk(connection: &Rc<Connection>, first: Option<Buf>) -> Box<Exchange> {
    let worker = &connection.worker;
    let serving = connection.serving();
    let mut reader = H1Reader::new(worker.clone(), connection.io.clone(), serving.limits());
    if let Some(first) = first {
        reader.prepend(first);
    }
    Box::new(Exchange {
        front: Front {
            connection: connection.clone(),
            serving,
            request: RequestHead::with_capacity(),
            response: ResponseHead::default(),
            responder: Responder::new(BodyWriter::H1(H1Writer::to_client(connection.io.clone()))),
            clock: Rc::new(Clock::new(&worker.wheel)),
            start: connection.opened,
            arrived: connection.opened,
        },
        reader: BodyReader::H1(reader),
        body: BodyLength::None,
        upgrade: false,
    })
}

fn has_buffered(x: &Exchange) -> bool {
    matches!(&x.reader, BodyReader::H1(h1) if !h1.buffered().is_empty())
}

/// Rules for a whole head that are not framing.
fn admit(
    request: &mut RequestHead,
    framing: RequestFraming,
    config: &HttpConnectionManager,
) -> Result<(), ProxyError> {
    if framing.http10 {
        if !config.http1.accept_http_10 {
            return Err(ProxyError::LowVersion);
        }
        if request.authority().is_empty()
            && !request.set_authority(config.http1.default_host_for_http_10.as_bytes())
        {
            return Err(ProxyError::BadRequest("missing_host_header", 400));
        }
    }
    Ok(())
}

/// Waits for a request head whose first byte may be read. Tells when that came and when the head was complete.
async fn next_request(
    connection: &Connection,
    reader: &mut H1Reader,
    head: &mut RequestHead,
    timer: &Deadline,
) -> (Arrival, Instant, Instant) {
    let serving = connection.serving();
    let start = Instant::now();
    let mut waited = false;
    let config = serving.config();
    // Envoy has no limit on the head alone by default; ours is the stream's idle timeout, so that a head that never
    // ends does not hold a connection for ever.
    let limit = config.request_headers_timeout.or(config.request_timeout).or(config.stream_idle_timeout);
    let arrival = std::future::poll_fn(|cx| {
        match reader.poll_request(cx, head) {
            Poll::Ready(Ok(Some(framing))) => return Poll::Ready(Arrival::Head(framing)),
            Poll::Ready(Ok(None)) => return Poll::Ready(Arrival::Over),
            Poll::Ready(Err(error)) => return Poll::Ready(bad_head(error)),
            Poll::Pending => {}
        }
        if !waited {
            waited = true;
            timer.set_opt_from(start, limit);
        }
        timer.poll_expired(cx).map(|()| Arrival::Bad(ProxyError::HeaderTimeout))
    })
    .await;
    let stats = serving.stats(&connection.worker);
    match arrival {
        Arrival::Bad(ProxyError::HeaderTimeout) => stats.downstream_rq_header_timeout.inc(),
        Arrival::Bad(_) => stats.downstream_cx_protocol_error.inc(),
        Arrival::Head(_) | Arrival::Over => {}
    }
    (arrival, start, if waited { Instant::now() } else { start })
}

fn bad_head(error: BodyError) -> Arrival {
    match answerable(error) {
        Some(error) => Arrival::Bad(ProxyError::BadRequest(codec_details(error.status()), error.status())),
        None => Arrival::Over,
    }
}

const fn codec_details(status: u16) -> &'static str {
    match status {
        431 => "http1.headers_too_large",
        414 => "http1.uri_too_long",
        _ => "http1.codec_error",
    }
}

/// Waits for the first byte of the next request, holding no buffer; with `has_desk` no longer than [`DESK_KEPT`] at first.
///
/// A connection that is asked to finish waits a little longer: the next request may be on its way already, and it is
/// better answered with `connection: close` than met by a closed socket.
async fn first_byte(connection: &Connection, timer: &Deadline, idle_since: Instant, has_desk: bool) -> Wait {
    let (idle, drain_timeout) = {
        // Not kept: it would keep the configuration of its time in memory for as long as the connection idles.
        let serving = connection.serving();
        let config = serving.config();
        let age =
            config.max_connection_duration.map(|longest| longest.saturating_sub(connection.opened.elapsed()));
        let idle = config.idle_timeout.map_or(age, |idle| Some(age.map_or(idle, |age| age.min(idle))));
        (idle, config.drain_timeout)
    };
    let mut draining = pin!(connection.drain.draining());
    let mut finishing = false;
    // The desk goes first where it goes before the connection.
    let kept = (has_desk && idle.is_none_or(|idle| idle > DESK_KEPT)).then_some(DESK_KEPT);
    timer.set_opt_from(idle_since, kept.or(idle));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = connection.io.poll_readable(cx) {
            return Poll::Ready(if result.is_ok() { Wait::Byte } else { Wait::Over });
        }
        if !finishing && draining.as_mut().poll(cx).is_ready() {
            finishing = true;
            timer.set(drain_timeout.min(idle.unwrap_or(Duration::MAX)));
        }
        if timer.poll_expired(cx).is_pending() {
            return Poll::Pending;
        }
        if kept.is_some() && !finishing {
            return Poll::Ready(Wait::Long);
        }
        let serving = connection.serving();
        let stats = serving.stats(&connection.worker);
        if finishing { &stats.downstream_cx_drain_close } else { &stats.downstream_cx_idle_timeout }.inc();
        Poll::Ready(Wait::Over)
    })
    .await
}

/// Makes the connection ready for the next request; `false` when too much of this one is still to come.
async fn rest_is_dropped(reader: &mut BodyReader) -> bool {
    if reader.is_over() {
        return true;
    }
    // Only what is here already: waiting for the rest would let a slow client hold its pipeline.
    super::super::body::poll_now(|cx| {
        let mut rest = pin!(discard(reader, DISCARD));
        rest.as_mut().poll(cx)
    })
    .await
    .unwrap_or(false)
}

/// Ends the connection so that the client can read our last answer: FIN first, then what it still sends is dropped for
/// a while.
async fn close(connection: &Connection, desk: Option<Box<Exchange>>) {
    let worker = &connection.worker;
    let is_eof = match desk.map(|x| x.reader) {
        // It became a tunnel, which has ended it.
        Some(BodyReader::H2(_) | BodyReader::Staged(_)) => return,
        Some(BodyReader::H1(h1)) => h1.is_eof(),
        None => false,
    };
    if worker.wheel.timeout(Some(LINGER), connection.io.shutdown()).await.is_none_or(|done| done.is_err())
        || is_eof
    {
        return;
    }
    let mut scratch = worker.buffers.take();
    let drain = async {
        loop {
            scratch.clear();
            match connection.io.read(scratch.space()).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    worker.wheel.timeout(Some(LINGER), drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, F>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// What a request under way costs beside its buffers.
    #[test]
    fn exchange_future_stays_within_its_budget() {
        fn size_of_future<A, F>(_: fn(A) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_future(exchange::serve);
        assert!(size <= 3 * 1024 + 512, "{size} bytes");
    }

    /// What an open connection costs beside its buffers. Idle ones are the many.
    #[test]
    fn connection_future_stays_within_its_budget() {
        let size = size_of_future(serve);
        assert!(size <= 1024, "{size} bytes");
    }
}
