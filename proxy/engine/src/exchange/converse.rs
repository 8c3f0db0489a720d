//! The conversation of one attempt: the request goes out and the response comes back at the same time; neither waits for
//! the other.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use outrigger_traffic::breaker::Permit;
use outrigger_traffic::outcome::Outcome;
use outrigger_traffic::retry::Reached;
use outrigger_wire::Version;
use outrigger_wire::h1::ResponseFraming;
use tokio::time::Instant;

use super::attempt::{Call, End, Lost, report, timed_out};
use super::internal_redirect::{Redirection, followed};
use super::notes::Notes;
use super::retry::{Attempts, wants_response};
use super::timeout::Clock;
use super::upload::Upload;
use super::{Exchange, Front, response, upgrade};
use crate::error::ProxyError;
use crate::http::body::{BodyError, BodyReader, BodyWriter, Failed, discard, poll_now, pump};
use crate::http::hop_by_hop;
use crate::io::turn;
use crate::upstream::pool::UpstreamStream;

/// Interim responses (100, 102, 103) before the final one that are passed on; a host that sends more means no good.
const INTERIM_MAX: u32 = 16;

/// What ended the wait for a response head.
enum Heard {
    Lost(BodyError),
    Downstream(ProxyError),
    Expired(ProxyError),
}

/// What a response head led to.
enum Answer {
    Passed(ResponseFraming, Result<(), ProxyError>),
    Again(ResponseFraming, Duration, Permit),
    Redirected(ResponseFraming, Box<Redirection>),
    Switch,
}

/// An upload under way; polled until it is done, and never again.
struct Uploading<'p, F> {
    future: Pin<&'p mut F>,
    running: bool,
    clock: &'p Clock,
    /// The route's timeout.
    timeout: Option<Duration>,
}

impl<F: Future<Output = Result<(), Failed>>> Uploading<'_, F> {
    /// Goes on with it; an error when the downstream's side of it failed. An upstream that takes no more may have
    /// answered already: its response decides then, and the time for it runs from here.
    fn poll(&mut self, cx: &mut Context<'_>) -> Option<ProxyError> {
        if !self.running {
            return None;
        }
        let Poll::Ready(done) = self.future.as_mut().poll(cx) else { return None };
        self.running = false;
        match done {
            Err(Failed::Source(error)) => Some(downstream_error(error)),
            Err(Failed::Sink(_)) => {
                self.clock.request_complete(Instant::now(), self.timeout);
                None
            }
            Ok(()) => None,
        }
    }
}

/// Sends the request, reads the response and passes it on. With `sent`, the whole request was sent before.
pub(super) async fn converse(
    x: &mut Exchange,
    notes: &mut Notes,
    shared: &mut Attempts,
    call: &Call<'_>,
    mut stream: UpstreamStream,
    sent: bool,
) -> End {
    let plan = call.plan;
    let up_h1 = matches!(stream.halves.writer, BodyWriter::H1(_));
    let up_trailers = !up_h1 || plan.cluster.cluster.config.http.http1.enable_trailers;
    let request_end = Cell::new(None);
    let replay = RefCell::new(std::mem::take(&mut shared.replay));
    let clock = x.front.clock.clone();
    let up_trailers_too = plan.request_trailers_down && up_trailers;
    // Nearly every request: nothing to upload beside the response, so that nothing has to be polled for it.
    let whole = sent || (x.reader.is_over() && !plan.tunnel && replay.borrow().kept.is_empty());
    if sent {
        request_end.set(Some(call.sent));
    } else if whole {
        replay.borrow_mut().ended = true;
        request_end.set(Some(call.sent));
        clock.request_complete(call.sent, plan.timeout);
        if let Some(mirrors) = &plan.mirrors {
            mirrors.launch(&[], x.body, x.reader.trailers());
        }
        let trailers = x.reader.trailers().filter(|section| up_trailers_too && !section.is_empty());
        if let Err(heard) = send_whole(&mut x.front, &mut stream.halves.writer, trailers).await {
            notes.timeline.request_end = notes.timeline.request_end.or(request_end.get());
            shared.replay = replay.into_inner();
            return conclude(x, notes, call, stream, Err(heard)).await;
        }
    }
    let end = {
        let upload = Upload {
            clock: &clock,
            timeout: plan.timeout,
            started: call.sent,
            trailers: up_trailers_too,
            tunnel: plan.tunnel && x.front.request.version() == Version::Http2,
            end: &request_end,
            mirrors: plan.mirrors.as_deref().map(|mirrors| (mirrors, x.body)),
        };
        let upload = pin!(upload.run(&mut x.reader, &mut stream.halves.writer, &replay));
        let mut uploading =
            Uploading { future: upload, running: !whole, clock: &clock, timeout: plan.timeout };
        match hear(&mut x.front, &mut stream.halves.reader, &mut uploading).await {
            Err(heard) => Err(heard),
            Ok(framing) if framing.switching => Ok(Answer::Switch),
            Ok(framing) => {
                let now = Instant::now();
                notes.timeline.response_start = Some(now);
                x.front.clock.end_attempt();
                x.front.clock.moved_at(now);
                shared.replay.lost = replay.borrow().lost;
                match wants_response(&x.front, notes, plan, shared) {
                    Some((after, permit)) => Ok(Answer::Again(framing, after, permit)),
                    None if let Some(to) = followed(&x.front, notes, plan, &replay.borrow()) => {
                        Ok(Answer::Redirected(framing, to))
                    }
                    None => {
                        let passed = match response::begin(&mut x.front, notes, plan, framing, now) {
                            Ok(()) => {
                                if !notes.stages.is_empty() {
                                    stage(&mut stream.halves.reader, notes);
                                }
                                pass_on(&mut x.front, &mut stream.halves.reader, up_trailers, &mut uploading)
                                    .await
                            }
                            Err(error) => Err(error),
                        };
                        Ok(Answer::Passed(framing, passed))
                    }
                }
            }
        }
    };
    notes.timeline.request_end = notes.timeline.request_end.or(request_end.get());
    notes.timeline.upstream_request_end = request_end.get();
    shared.replay = replay.into_inner();
    conclude(x, notes, call, stream, end).await
}

/// Sends a request whose end is known. An upstream that takes no more may have answered already: its response decides then.
async fn send_whole(
    x: &mut Front,
    writer: &mut BodyWriter,
    trailers: Option<&outrigger_wire::Trailers>,
) -> Result<(), Heard> {
    if writer.finish(trailers).is_err() {
        return Ok(());
    }
    if writer.has_gathered() {
        turn().await;
    }
    std::future::poll_fn(|cx| {
        if writer.poll_flush(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if x.responder.writer.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Heard::Downstream(ProxyError::ClientGone)));
        }
        x.clock.poll_expired(cx).map(|error| Err(Heard::Expired(error)))
    })
    .await
}

/// Waits for the final response head, sending meanwhile; interim ones are passed on.
async fn hear<F: Future<Output = Result<(), Failed>>>(
    x: &mut Front,
    reader: &mut BodyReader,
    uploading: &mut Uploading<'_, F>,
) -> Result<ResponseFraming, Heard> {
    let mut interim = 0;
    loop {
        let framing = std::future::poll_fn(|cx| {
            if let Some(error) = uploading.poll(cx) {
                return Poll::Ready(Err(Heard::Downstream(error)));
            }
            if let Poll::Ready(result) =
                UpstreamStream::poll_response(reader, cx, &x.request, &mut x.response)
            {
                return Poll::Ready(result.map_err(Heard::Lost));
            }
            if x.responder.writer.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Heard::Downstream(ProxyError::ClientGone)));
            }
            x.clock.poll_expired(cx).map(|error| Err(Heard::Expired(error)))
        })
        .await?;
        if !framing.informational {
            return Ok(framing);
        }
        interim += 1;
        if interim > INTERIM_MAX || hop_by_hop::strip_response(&mut x.response, false).is_err() {
            return Err(Heard::Lost(BodyError::Protocol));
        }
        match x.clock.guard(x.responder.interim(&x.response)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Heard::Downstream(ProxyError::ClientGone)),
            Err(error) => return Err(Heard::Expired(error)),
        }
    }
}

/// Puts the response through what filters want.
#[cold]
fn stage(reader: &mut BodyReader, notes: &mut Notes) {
    let body = std::mem::replace(reader, BodyReader::Staged(Box::default()));
    *reader = body.stage(std::mem::take(&mut notes.stages));
}

/// Passes the response body on, still sending where the request is not through.
async fn pass_on<F: Future<Output = Result<(), Failed>>>(
    x: &mut Front,
    reader: &mut BodyReader,
    up_trailers: bool,
    uploading: &mut Uploading<'_, F>,
) -> Result<(), ProxyError> {
    let down_h2 = x.request.version() == Version::Http2;
    let trailers = up_trailers && (down_h2 || x.serving.config().http1.enable_trailers);
    let mut download = pin!(pump(reader, &mut x.responder.writer, trailers, &*x.clock));
    std::future::poll_fn(|cx| {
        if let Some(error) = uploading.poll(cx) {
            return Poll::Ready(Err(error));
        }
        if let Poll::Ready(done) = download.as_mut().poll(cx) {
            return Poll::Ready(done.map_err(|failed| match failed {
                Failed::Source(error) => upstream_error(error),
                Failed::Sink(_) => ProxyError::ClientGone,
            }));
        }
        x.clock.poll_expired(cx).map(Err)
    })
    .await
}

/// Both directions are done with, or given up: what follows for the connection and the exchange.
async fn conclude(
    x: &mut Exchange,
    notes: &mut Notes,
    call: &Call<'_>,
    mut stream: UpstreamStream,
    end: Result<Answer, Heard>,
) -> End {
    let worker = x.front.worker().clone();
    match end {
        Ok(Answer::Passed(framing, passed)) => {
            response::finish(x, notes, call, stream, framing, passed, Instant::now())
        }
        Ok(Answer::Again(framing, after, permit)) => {
            give_up(x, notes, call, stream, framing).await;
            End::Again(permit, after)
        }
        Ok(Answer::Redirected(framing, to)) => {
            give_up(x, notes, call, stream, framing).await;
            End::Redirected(to)
        }
        Ok(Answer::Switch) if call.plan.tunnel => {
            response::count(&x.front, notes, call, Instant::now());
            Box::pin(upgrade::tunnel(x, notes, call.plan, stream)).await
        }
        Ok(Answer::Switch) => {
            let now = Instant::now();
            stream.give_back(&worker, false, now);
            call.plan.cluster.stats.at(worker.id).upstream_cx_protocol_error.inc();
            report(&x.front, call.plan, call.host, Outcome::Reset, now);
            End::Lost(Lost {
                error: ProxyError::BadResponse,
                reached: Reached::Yes,
                reused: false,
                refused: false,
            })
        }
        Err(heard) => {
            let sent = match &mut stream.halves.writer {
                BodyWriter::H1(writer) => writer.take_wire_bytes() > 0,
                BodyWriter::H2(_) => true,
            };
            stream.give_back(&worker, false, Instant::now());
            lose(&x.front, call, heard, sent)
        }
    }
}

/// The response is counted and not passed on.
async fn give_up(
    x: &Exchange,
    notes: &Notes,
    call: &Call<'_>,
    mut stream: UpstreamStream,
    framing: ResponseFraming,
) {
    response::count(&x.front, notes, call, Instant::now());
    let clean = {
        let mut rest = pin!(discard(&mut stream.halves.reader, 64 * 1024));
        poll_now(|cx| rest.as_mut().poll(cx)).await == Some(true)
    };
    stream.give_back(x.front.worker(), clean && framing.keep_alive, Instant::now());
}

/// No response head came.
fn lose(x: &Front, call: &Call<'_>, heard: Heard, sent: bool) -> End {
    let Call { plan, host, reused, .. } = *call;
    let stats = plan.cluster.stats.at(x.worker().id);
    match heard {
        Heard::Downstream(error) => {
            stats.upstream_rq_tx_reset.inc();
            End::Failed(error)
        }
        Heard::Expired(error) => {
            stats.upstream_rq_tx_reset.inc();
            timed_out(x, plan, host, error, sent)
        }
        Heard::Lost(cause) => {
            let error = upstream_error(cause);
            let refused = cause == BodyError::Refused;
            match error {
                ProxyError::BadResponse => stats.upstream_cx_protocol_error.inc(),
                ProxyError::UpstreamClosed => stats.upstream_cx_destroy_with_active_rq.inc(),
                _ => stats.upstream_rq_rx_reset.inc(),
            }
            // A kept connection that was closed meanwhile says nothing about the host.
            if !refused && (!reused || error != ProxyError::UpstreamClosed) {
                report(x, plan, host, Outcome::Reset, Instant::now());
            }
            let reached = if sent && !refused { Reached::Maybe } else { Reached::No };
            End::Lost(Lost { error, reached, reused, refused })
        }
    }
}

fn upstream_error(error: BodyError) -> ProxyError {
    match error {
        BodyError::Closed => ProxyError::UpstreamClosed,
        BodyError::Reset => ProxyError::UpstreamReset,
        BodyError::Refused => ProxyError::UpstreamRefused,
        BodyError::Framing(_) | BodyError::Protocol => ProxyError::BadResponse,
    }
}

fn downstream_error(error: BodyError) -> ProxyError {
    match error {
        BodyError::Framing(_) | BodyError::Protocol => ProxyError::BadBody,
        BodyError::Closed | BodyError::Reset | BodyError::Refused => ProxyError::ClientGone,
    }
}
