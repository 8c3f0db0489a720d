//! One attempt: pick a host, take the permits, get a connection, send, read the head, and pass the response on.
//!
//! Request and response bodies flow at the same time; neither waits for the other. The attempt keeps its permits and
//! guards until it is over, however it ends: they are dropped with it.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use outrigger_traffic::balance::PickContext;
use outrigger_traffic::breaker::Permit;
use outrigger_traffic::cluster::Host;
use outrigger_traffic::outcome::Outcome;
use outrigger_traffic::retry::Reached;
use outrigger_wire::h1::ResponseFraming;
use outrigger_wire::Version;
use std::sync::Arc;
use tokio::time::Instant;

use super::forward::{Digits, Plan};
use super::notes::Notes;
use super::retry::{Attempts, Replay, wants_response};
use super::timeout::Clock;
use super::{Exchange, Front, respond, upgrade};
use crate::error::ProxyError;
use crate::http::body::{BodyError, BodyReader, BodyWriter, Failed, Fill, Progress, discard, fill_or_flush, poll_now, pump};
use crate::http::{hop_by_hop, view};
use crate::telemetry::{self, Raised, UpstreamFacts};
use crate::upstream::pool::{PoolError, UpstreamStream, Want, breaker};

/// How an attempt ended.
pub(super) enum End {
    /// The response was passed on, to its end or to where it broke.
    Done,
    /// The exchange failed, and no other attempt can help.
    Failed(ProxyError),
    /// The upstream's response is one that the policy wants to try again, after this time.
    Again(Cell<Option<Permit>>, Duration),
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
    const fn unsent(error: ProxyError) -> End {
        End::Lost(Self { error, reached: Reached::No, reused: false, refused: false })
    }
}

/// Makes one attempt.
pub(super) async fn run(
    x: &mut Exchange<'_>,
    notes: &mut Notes,
    plan: &Plan<'_>,
    shared: &mut Attempts,
) -> End {
    let worker = x.front.worker().clone();
    let stats = plan.cluster.stats.at(worker.id);
    let host = match pick(&x.front, plan, shared) {
        Ok(host) => host,
        Err(error) => return End::Failed(error),
    };
    notes.upstream = Some(UpstreamFacts {
        host: host.clone(),
        local: None,
        tls: None,
        protocol: Version::Http11,
        failure: String::new(),
    });
    let Ok(_permit) = breaker(&plan.cluster.cluster, plan.forward.high_priority).try_request() else {
        stats.upstream_rq_pending_overflow.inc();
        return Lost::unsent(ProxyError::Overflow);
    };
    let config = plan.forward.retry.as_ref().map(|retry| &retry.config);
    x.front.clock.start_attempt(config.and_then(|c| c.per_try_timeout), config.and_then(|c| c.per_try_idle_timeout));
    let span_id = inject_trace(&mut x.front, notes);
    let (stream, reused) = match open(x, notes, plan, shared, &host).await {
        Ok(opened) => opened,
        Err(end) => return end,
    };
    let _in_flight = host.start_request();
    let _active = Raised::new(plan.cluster.stats.clone(), worker.id, |stats| &stats.upstream_rq_active);
    stats.upstream_rq_total.inc();
    let sent = Instant::now();
    notes.timeline.upstream_start = Some(sent);
    let end = converse(x, notes, plan, shared, stream, reused, &host).await;
    trace(&x.front, notes, span_id, sent, &end);
    x.front.clock.end_attempt();
    end
}

/// Gives the attempt its place in the trace; 0 where nothing is traced.
fn inject_trace(x: &mut Front<'_>, notes: &Notes) -> u64 {
    let Some(trace) = &notes.trace else { return 0 };
    let worker = x.worker().clone();
    let span_id = trace.attempt_span_id(&mut || worker.draw());
    trace.inject(x.request, span_id);
    span_id
}

/// Records the attempt as a span.
fn trace(x: &Front<'_>, notes: &Notes, span_id: u64, started: Instant, end: &End) {
    if let Some(trace) = notes.trace.as_ref().filter(|trace| trace.sampled) {
        let record = notes.record(x.connection, &x.serving, x.request, None, (0, 0));
        let status = if matches!(end, End::Lost(_)) { 0 } else { x.response.status };
        telemetry::finish_attempt(x.worker(), trace, span_id, &record, started, status);
    }
}

fn pick(x: &Front<'_>, plan: &Plan<'_>, shared: &mut Attempts) -> Result<Arc<Host>, ProxyError> {
    let worker = x.worker();
    let mut draw = || worker.draw();
    let mut context = PickContext::new(Instant::now().into_std(), &mut draw);
    if let Some(config) = plan.forward.retry.as_ref().map(|retry| &retry.config)
        && config.avoid_previous_hosts
    {
        context.avoid = &shared.tried;
        context.attempts_max = config.host_selection_max_attempts.max(1);
    }
    let picked = plan.cluster.cluster.pick(&mut context);
    match picked {
        Ok(host) => {
            shared.tried.push(host.id);
            Ok(host)
        }
        Err(_) => {
            plan.cluster.stats.at(worker.id).upstream_cx_none_healthy.inc();
            Err(ProxyError::NoHealthyHost)
        }
    }
}

/// Gets a connection and starts the request on it.
async fn open(
    x: &mut Exchange<'_>,
    notes: &mut Notes,
    plan: &Plan<'_>,
    shared: &Attempts,
    host: &Arc<Host>,
) -> Result<(UpstreamStream, bool), End> {
    let worker = x.front.worker().clone();
    let http = &plan.cluster.cluster.config.http;
    if plan.host_from_pick && !host.hostname.is_empty() {
        x.front.request.set_authority(host.hostname.as_bytes());
    }
    if plan.tell_attempts {
        let mut digits = Digits::default();
        x.front.request.fields.set(b"x-envoy-attempt-count", digits.write(notes.attempts.into()));
    }
    let name = (http.auto_sni || http.auto_san_validation)
        .then(|| std::str::from_utf8(outrigger_wire::syntax::host_of(x.front.request.authority())).ok())
        .flatten();
    let want = Want {
        downstream: x.front.request.version(),
        sni: name,
        high_priority: plan.forward.high_priority,
        upgrade: plan.tunnel,
        fresh: shared.fresh,
    };
    let gone = std::future::poll_fn(|cx| x.front.responder.writer.poll_gone(cx));
    let checkout = worker.pools.checkout(&worker, &plan.cluster, host, want);
    let checked = x.front.clock.guard(until_gone(checkout, gone)).await;
    let checked = match checked {
        Ok(Some(Ok(checked))) => checked,
        Ok(Some(Err(error))) => return Err(not_connected(notes, plan, host, &error)),
        Ok(None) => return Err(End::Failed(ProxyError::ClientGone)),
        Err(error) => return Err(timed_out(&x.front, plan, host, error, false)),
    };
    let reused = checked.is_reused();
    if let Some(upstream) = &mut notes.upstream {
        upstream.local = Some(checked.local_addr());
        upstream.tls = checked.tls_facts();
        upstream.protocol = checked.protocol();
    }
    match checked.open(x.front.request, x.body, plan.connection) {
        Ok(stream) => Ok((stream, reused)),
        Err(BodyError::Refused) => Err(End::Lost(Lost {
            error: ProxyError::UpstreamRefused,
            reached: Reached::No,
            reused,
            refused: true,
        })),
        Err(_) => Err(End::Failed(ProxyError::BadRequest("http2.unwritable_head", 400))),
    }
}

/// `None` when the downstream went away first.
async fn until_gone<T>(work: impl Future<Output = T>, gone: impl Future<Output = BodyError>) -> Option<T> {
    let (mut work, mut gone) = (pin!(work), pin!(gone));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        gone.as_mut().poll(cx).map(|_| None)
    })
    .await
}

fn not_connected(notes: &mut Notes, plan: &Plan<'_>, host: &Host, error: &PoolError) -> End {
    match error {
        PoolError::Overflow => Lost::unsent(ProxyError::Overflow),
        PoolError::Connect(error) => {
            if let Some(upstream) = &mut notes.upstream {
                upstream.failure = error.to_string();
            }
            tracing::debug!(cluster = %plan.cluster.name, endpoint = %host.address, error = %error, "connect failed");
            Lost::unsent(if error.is_timeout() { ProxyError::ConnectTimeout } else { ProxyError::ConnectFailed })
        }
    }
}

/// A time limit was over during an attempt. Only an attempt's own limit leaves room for another one.
fn timed_out(x: &Front<'_>, plan: &Plan<'_>, host: &Arc<Host>, error: ProxyError, sent: bool) -> End {
    let stats = plan.cluster.stats.at(x.worker().id);
    match error {
        ProxyError::ResponseTimeout => stats.upstream_rq_timeout.inc(),
        ProxyError::PerTryTimeout | ProxyError::PerTryIdleTimeout => stats.upstream_rq_per_try_timeout.inc(),
        ProxyError::MaxDuration(_) => stats.upstream_rq_max_duration_reached.inc(),
        _ => {}
    }
    if error.row().counts_against_host {
        report(x, plan, host, Outcome::Timeout);
    }
    match error {
        ProxyError::PerTryTimeout | ProxyError::PerTryIdleTimeout => {
            let reached = if sent { Reached::Maybe } else { Reached::No };
            End::Lost(Lost { error, reached, reused: false, refused: false })
        }
        other => End::Failed(other),
    }
}

fn report(x: &Front<'_>, plan: &Plan<'_>, host: &Host, outcome: Outcome) {
    let worker = x.worker();
    let _ = plan.cluster.cluster.report(host, outcome, Instant::now().into_std(), worker.draw_u32());
}

/// What ended the wait for a response head.
enum Heard {
    Head(ResponseFraming),
    Lost(BodyError),
    Downstream(ProxyError),
    Expired(ProxyError),
}

/// Sends the request, reads the response and passes it on.
async fn converse(
    x: &mut Exchange<'_>,
    notes: &mut Notes,
    plan: &Plan<'_>,
    shared: &mut Attempts,
    mut stream: UpstreamStream,
    reused: bool,
    host: &Arc<Host>,
) -> End {
    let worker = x.front.worker().clone();
    let stats = plan.cluster.stats.at(worker.id);
    let up_h1 = matches!(stream.writer, BodyWriter::H1(_));
    let up_trailers = !up_h1 || plan.cluster.cluster.config.http.http1.enable_trailers;
    let request_end = Cell::new(None);
    let replay = RefCell::new(std::mem::take(&mut shared.replay));
    let end = {
        let upload = Upload {
            clock: x.front.clock,
            timeout: plan.timeout,
            trailers: plan.request_trailers_down && up_trailers,
            end: &request_end,
        };
        let mut upload = pin!(upload.run(x.reader, &mut stream.writer, &replay));
        let mut uploading = true;
        // 1. Wait for the head, sending meanwhile.
        let framing = loop {
            let heard = std::future::poll_fn(|cx| {
                if uploading && let Poll::Ready(done) = upload.as_mut().poll(cx) {
                    uploading = false;
                    if let Err(Failed::Source(error)) = done {
                        return Poll::Ready(Heard::Downstream(downstream_error(error)));
                    }
                    // An upstream that takes no more may have answered already: its response decides.
                }
                if let Poll::Ready(result) =
                    UpstreamStream::poll_response(&mut stream.reader, cx, x.front.request, x.front.response)
                {
                    return Poll::Ready(match result {
                        Ok(framing) => Heard::Head(framing),
                        Err(error) => Heard::Lost(error),
                    });
                }
                if x.front.responder.writer.poll_gone(cx).is_ready() {
                    return Poll::Ready(Heard::Downstream(ProxyError::ClientGone));
                }
                x.front.clock.poll_expired(cx).map(Heard::Expired)
            })
            .await;
            match heard {
                Heard::Head(framing) if framing.informational => {
                    if x.front.responder.interim(x.front.response).await.is_err() {
                        break Err(Heard::Downstream(ProxyError::ClientGone));
                    }
                }
                Heard::Head(framing) => break Ok(framing),
                other => break Err(other),
            }
        };
        match framing {
            Err(heard) => Err(heard),
            Ok(framing) if framing.switching => Ok(Answer::Switch),
            Ok(framing) => {
                // 2. Decide whether to pass it on.
                let now = Instant::now();
                notes.timeline.response_start = Some(now);
                x.front.clock.end_attempt();
                let again = {
                    shared.replay.lost = replay.borrow().lost;
                    wants_response(&x.front, notes, plan, shared)
                };
                if let Some((after, permit)) = again {
                    Ok(Answer::Again(framing, after, permit))
                } else {
                    // 3. Pass it on, still sending where the request is not through.
                    let began = begin_response(&mut x.front, notes, plan, framing, now);
                    let passed = match began {
                        Err(error) => Err(error),
                        Ok(()) => {
                            let trailers = !up_h1 || plan.cluster.cluster.config.http.http1.enable_trailers;
                            let down_h2 = x.front.request.version() == Version::Http2;
                            let trailers = trailers && (down_h2 || x.front.serving.config().http1.enable_trailers);
                            let mut download =
                                pin!(pump(&mut stream.reader, &mut x.front.responder.writer, trailers, x.front.clock));
                            std::future::poll_fn(|cx| {
                                if uploading && let Poll::Ready(done) = upload.as_mut().poll(cx) {
                                    uploading = false;
                                    if let Err(Failed::Source(error)) = done {
                                        return Poll::Ready(Err(downstream_error(error)));
                                    }
                                }
                                if let Poll::Ready(done) = download.as_mut().poll(cx) {
                                    return Poll::Ready(done.map_err(|failed| match failed {
                                        Failed::Source(error) => upstream_error(error),
                                        Failed::Sink(_) => ProxyError::ClientGone,
                                    }));
                                }
                                x.front.clock.poll_expired(cx).map(Err)
                            })
                            .await
                        }
                    };
                    Ok(Answer::Passed(framing, passed))
                }
            }
        }
    };
    notes.timeline.request_end = notes.timeline.request_end.or(request_end.get());
    notes.timeline.upstream_request_end = request_end.get();
    shared.replay = replay.into_inner();
    match end {
        Ok(Answer::Passed(framing, passed)) => {
            finish(x, notes, plan, host, stream, framing, passed)
        }
        Ok(Answer::Again(framing, after, permit)) => {
            count_response(&x.front, notes, plan, host);
            let clean = {
                let mut rest = pin!(discard(&mut stream.reader, 64 * 1024));
                poll_now(|cx| rest.as_mut().poll(cx)).await == Some(true)
            };
            stream.give_back(&worker, clean && framing.keep_alive);
            End::Again(Cell::new(Some(permit)), after)
        }
        Ok(Answer::Switch) if plan.tunnel => {
            count_response(&x.front, notes, plan, host);
            Box::pin(upgrade::tunnel(x, notes, plan, stream)).await
        }
        Ok(Answer::Switch) => {
            stream.give_back(&worker, false);
            stats.upstream_cx_protocol_error.inc();
            report(&x.front, plan, host, Outcome::Reset);
            End::Lost(Lost { error: ProxyError::BadResponse, reached: Reached::Yes, reused: false, refused: false })
        }
        Err(heard) => {
            let sent = match &mut stream.writer {
                BodyWriter::H1(writer) => writer.take_wire_bytes() > 0,
                BodyWriter::H2(_) => true,
            };
            stream.give_back(&worker, false);
            lose(&x.front, plan, host, heard, sent, reused)
        }
    }
}

/// What a response head led to.
enum Answer {
    Passed(ResponseFraming, Result<(), ProxyError>),
    Again(ResponseFraming, Duration, Permit),
    Switch,
}

/// No response head came.
fn lose(x: &Front<'_>, plan: &Plan<'_>, host: &Arc<Host>, heard: Heard, sent: bool, reused: bool) -> End {
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
            if !refused && !(reused && error == ProxyError::UpstreamClosed) {
                report(x, plan, host, Outcome::Reset);
            }
            let reached = if sent && !refused { Reached::Maybe } else { Reached::No };
            End::Lost(Lost { error, reached, reused, refused })
        }
        Heard::Head(_) => End::Failed(ProxyError::Defect),
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

/// Edits the response head and sends it (HTTP/2) or gathers it (HTTP/1.1).
fn begin_response(
    x: &mut Front<'_>,
    notes: &mut Notes,
    plan: &Plan<'_>,
    framing: ResponseFraming,
    now: Instant,
) -> Result<(), ProxyError> {
    notes.status = x.response.status;
    notes.details = "via_upstream";
    if notes.is_grpc {
        notes.grpc_status = view::grpc_status(&x.response.fields);
    }
    hop_by_hop::strip_response(x.response, false).map_err(|_| ProxyError::BadResponse)?;
    let took = notes.timeline.upstream_start.map_or(Duration::ZERO, |sent| now.saturating_duration_since(sent));
    let mut digits = Digits::default();
    let text = digits.write(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    x.response.fields.set(b"x-envoy-upstream-service-time", text);
    respond::edit_response(x, notes, plan.response_edits);
    respond::decorate(x, notes);
    x.responder.head(x.response, framing.body).map_err(|_| ProxyError::ClientGone)
}

fn count_response(x: &Front<'_>, notes: &Notes, plan: &Plan<'_>, host: &Arc<Host>) {
    let stats = plan.cluster.stats.at(x.worker().id);
    stats.upstream_rq_completed.inc();
    let status = x.response.status;
    match status / 100 {
        1 => stats.upstream_rq_1xx.inc(),
        2 => stats.upstream_rq_2xx.inc(),
        3 => stats.upstream_rq_3xx.inc(),
        4 => stats.upstream_rq_4xx.inc(),
        5 => stats.upstream_rq_5xx.inc(),
        _ => {}
    }
    let outcome = match notes.grpc_status {
        Some(code) if notes.is_grpc => Outcome::grpc(code),
        _ => Outcome::Response(status),
    };
    report(x, plan, host, outcome);
}

/// The response was passed on, or broke.
fn finish(
    x: &mut Exchange<'_>,
    notes: &mut Notes,
    plan: &Plan<'_>,
    host: &Arc<Host>,
    stream: UpstreamStream,
    framing: ResponseFraming,
    passed: Result<(), ProxyError>,
) -> End {
    let worker = x.front.worker().clone();
    let stats = plan.cluster.stats.at(worker.id);
    let now = Instant::now();
    notes.timeline.response_end = Some(now);
    if let Some(trailers) = stream.reader.trailers() {
        if notes.is_grpc {
            notes.grpc_status = view::grpc_status(trailers).or(notes.grpc_status);
        }
        notes.trailers = Some(trailers.clone());
    }
    if let Some(sent) = notes.timeline.upstream_start {
        stats.upstream_rq_time.record(now.saturating_duration_since(sent));
    }
    match passed {
        Ok(()) => {
            count_response(&x.front, notes, plan, host);
            if !x.reader.is_over() {
                x.front.serving.stats(&worker).downstream_rq_response_before_rq_complete.inc();
            }
            stream.give_back(&worker, framing.keep_alive);
            End::Done
        }
        Err(error) => {
            if error.row().counts_against_host {
                report(&x.front, plan, host, Outcome::Reset);
            }
            stream.give_back(&worker, false);
            End::Failed(error)
        }
    }
}

/// Sends the request body: first what earlier attempts kept, then what comes.
struct Upload<'a> {
    clock: &'a Clock,
    timeout: Option<Duration>,
    trailers: bool,
    end: &'a Cell<Option<Instant>>,
}

impl Upload<'_> {
    async fn run(
        self,
        reader: &mut BodyReader,
        writer: &mut BodyWriter,
        replay: &RefCell<Replay>,
    ) -> Result<(), Failed> {
        if !replay.borrow().kept.is_empty() {
            let kept = std::mem::take(&mut replay.borrow_mut().kept);
            let sent = send_all(writer, &kept).await;
            replay.borrow_mut().kept = kept;
            sent?;
        }
        loop {
            match fill_or_flush(reader, writer).await? {
                Fill::Data => {
                    self.pass(reader, writer, replay).await?;
                    self.clock.moved();
                }
                Fill::End => {
                    replay.borrow_mut().ended = true;
                    self.complete();
                    let trailers = reader.trailers().filter(|section| self.trailers && !section.is_empty());
                    writer.finish(trailers).map_err(Failed::Sink)?;
                    return writer.flush().await.map_err(Failed::Sink);
                }
            }
        }
    }

    async fn pass(
        &self,
        reader: &mut BodyReader,
        writer: &mut BodyWriter,
        replay: &RefCell<Replay>,
    ) -> Result<(), Failed> {
        let piece = {
            let mut replay = replay.borrow_mut();
            let data = reader.data();
            if replay.lost || replay.kept.len() + data.len() > replay.limit {
                // From here on there is no second attempt.
                replay.lost = true;
                replay.kept = Vec::new();
                None
            } else {
                replay.kept.extend_from_slice(data);
                Some(data.len())
            }
        };
        match piece {
            None => writer.send_from(reader).await.map(|_| ()).map_err(Failed::Sink),
            Some(length) => {
                // Kept already, so it counts as taken even when sending is given up in the middle.
                let bytes = bytes::Bytes::copy_from_slice(reader.data());
                reader.consume(length);
                send_all(writer, &bytes).await
            }
        }
    }

    /// The request arrived: the route's timeout begins.
    fn complete(&self) {
        self.end.set(Some(Instant::now()));
        self.clock.request_complete(self.timeout);
    }
}

async fn send_all(writer: &mut BodyWriter, mut data: &[u8]) -> Result<(), Failed> {
    while !data.is_empty() {
        let n = writer.send(data, false).await.map_err(Failed::Sink)?;
        data = data.get(n..).unwrap_or_default();
    }
    Ok(())
}
