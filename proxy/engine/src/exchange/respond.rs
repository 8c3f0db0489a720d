//! Responses: those made here, and what is done to those of an upstream before they leave.

use std::borrow::Cow;
use std::time::Duration;

use outrigger_traffic::config::TrafficDirection;
use outrigger_traffic::route::{Action, Edits, Redirect, Route};
use outrigger_wire::h1::BodyLength;
use outrigger_wire::{FieldBlock, Known, Method, Version};
use tokio::time::Instant;

use super::notes::Notes;
use super::{Exchange, Front, edits};
use crate::error::{ProxyError, grpc_of};
use crate::filter::{self, Answer};
use crate::http::body::{BodyError, discard, poll_now};
use crate::http::view::{self, HeadView};
use crate::http::{forwarded, staged};
use crate::telemetry;

/// Time to pass on what is left of a response that broke off, or an answer to what took too long. A client that does not
/// read it is cut off without.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// Sends a filter's answer.
pub(super) async fn answer(x: &mut Exchange, notes: &mut Notes, answer: &Answer) -> Result<(), ProxyError> {
    notes.flags |= answer.flags;
    match &answer.details {
        Cow::Borrowed(details) => notes.details = details,
        Cow::Owned(details) => notes.details_named.clone_from(details),
    }
    x.front.response.clear();
    let made = Made {
        status: answer.status,
        grpc_status: answer.grpc_status,
        body: &answer.body,
        content_type: answer.content_type.as_deref(),
    };
    let made = made.begin(&mut x.front, notes);
    notes.hides_status = !answer.edited;
    for (name, value) in &answer.fields {
        x.front.response.fields.append(name, value);
    }
    if let Some(route) = notes.route.clone().filter(|_| answer.edited) {
        edit_response(&mut x.front, notes, &route.response_edits);
    }
    send_local(x, notes, made).await.map_err(|_| ProxyError::ClientGone)
}

/// Ends a request that failed: answers from the error table, or breaks off a response that had begun.
pub(super) async fn fail(x: &mut Exchange, notes: &mut Notes, error: ProxyError) {
    let started = x.front.responder.is_started();
    notes.blame(error, started);
    let stats = x.front.serving.stats(x.front.worker());
    match error {
        ProxyError::StreamIdle(_) => stats.downstream_rq_idle_timeout.inc(),
        ProxyError::MaxDuration(_) => stats.downstream_rq_max_duration_reached.inc(),
        ProxyError::RequestTimeout => stats.downstream_rq_timeout.inc(),
        ProxyError::BadPath => stats.downstream_rq_failed_path_normalization.inc(),
        ProxyError::ClientGone => stats.downstream_rq_rx_reset.inc(),
        ProxyError::Overloaded => stats.downstream_rq_overload_close.inc(),
        _ => {}
    }
    if error == ProxyError::ClientGone {
        x.front.responder.abort();
        return;
    }
    x.front.clock.answer_within(LAST_FLUSH);
    if started {
        stats.rq_reset_after_downstream_response_started.inc();
        stats.downstream_rq_tx_reset.inc();
        // What the upstream sent so far is passed on before the connection is cut.
        let flush = x.front.clock.guard(x.front.responder.writer.flush());
        let _ = x.front.connection.worker.wheel.timeout(Some(LAST_FLUSH), flush).await;
        x.front.responder.abort();
        return;
    }
    let row = error.row();
    if matches!(error, ProxyError::BadRequest("http2.unexpected_underscore", _)) {
        // Source: Envoy: the stream is reset.
        stats.downstream_rq_tx_reset.inc();
        x.front.responder.abort();
        return;
    }
    if is_another_proxys_to_repeat(x, notes, error) && x.front.responder.refuse() {
        stats.downstream_rq_tx_reset.inc();
        notes.status = row.status;
        return;
    }
    let closes = match error {
        ProxyError::BadBody | ProxyError::RequestTimeout => true,
        // The framing of such a request is known, or the connection is to be closed already.
        ProxyError::BadRequest(..) => !x.front.serving.config().stream_error_on_invalid_http_message,
        _ => false,
    };
    if closes {
        x.front.responder.close_after();
    }
    // Source: Envoy, whose HTTP/1 reader answers by itself, with the name of the status.
    let is_readers = matches!(error, ProxyError::BadRequest("http1.unexpected_underscore", _));
    let body = if is_readers { "Bad Request" } else { row.body };
    if local(x, notes, row.status, row.grpc_status, body.as_bytes(), None, error).await.is_err() {
        x.front.responder.abort();
    }
}

/// Whether another proxy is to be told that its request was not looked at, rather than be answered: the application beside
/// this one takes no connections, as one that was told to end does, and others may. An answer would have to be passed on; of
/// a stream that was refused the other proxy knows that it may send it to another instance, whatever it is.
fn is_another_proxys_to_repeat(x: &Exchange, notes: &Notes, error: ProxyError) -> bool {
    let unreached = matches!(error, ProxyError::ConnectFailed | ProxyError::ConnectTimeout);
    // What an earlier attempt may have reached is safe to repeat only for some methods.
    unreached
        && (notes.attempts <= 1 || x.front.request.is_idempotent())
        && x.front.serving.chain.direction == TrafficDirection::Inbound
        && x.front
            .connection
            .facts
            .tls
            .as_ref()
            .is_some_and(|tls| tls.peer.as_ref().is_some_and(|p| p.verified))
}

/// Sends a response made here.
async fn local(
    x: &mut Exchange,
    notes: &mut Notes,
    status: u16,
    grpc_status: u8,
    body: &[u8],
    content_type: Option<&str>,
    error: ProxyError,
) -> Result<(), BodyError> {
    x.front.response.clear();
    let grpc_status = (grpc_status != grpc_of(status)).then_some(grpc_status.into());
    let made = Made { status, grpc_status, body, content_type }.begin(&mut x.front, notes);
    match error {
        ProxyError::Overflow if !x.front.serving.config().suppress_envoy_headers => {
            x.front.response.fields.set(b"x-envoy-overloaded", b"true");
        }
        ProxyError::LowVersion => {
            x.front.response.fields.set(b"upgrade", b"HTTP/1.1");
        }
        _ => {}
    }
    if let Some(route) = notes.route.clone() {
        edit_response(&mut x.front, notes, &route.response_edits);
    }
    send_local(x, notes, made).await
}

/// A response made here, as it is meant.
struct Made<'b> {
    status: u16,
    /// `None`: the one that fits the status.
    grpc_status: Option<u32>,
    body: &'b [u8],
    /// `None`: `text/plain`.
    content_type: Option<&'b str>,
}

impl Made<'_> {
    /// Before the edits of routes, to which `%RESPONSE_CODE%` is not known yet (Envoy).
    fn begin(self, x: &mut Front, notes: &mut Notes) -> Self {
        (x.response.status, notes.status) = (self.status, 0);
        self
    }
}

/// The last that is done to a response made here, after the edits (Envoy): it is changed as `local_reply_config` has it, made
/// one of gRPC where the request is one, and gets its type. Gives its body.
fn dress<'b>(x: &mut Front, notes: &mut Notes, made: Made<'b>) -> Cow<'b, [u8]> {
    let Made { mut status, grpc_status, body, content_type } = made;
    let mut body = Cow::Borrowed(body);
    // Edits of filters see what was meant, also where gRPC hides it; of an answer to a preflight they see nothing (Envoy).
    (x.response.status, notes.status) = (status, if notes.hides_status { 0 } else { status });
    let serving = x.serving.clone();
    let mut content_type = Cow::Borrowed(content_type.unwrap_or("text/plain"));
    if let Some(replies) = &serving.chain.replies {
        let mapped = {
            let record = notes.record(&x.connection, &x.serving, &x.request, Some(&x.response), (0, 0));
            replies.find(&x.connection.worker, &record)
        };
        if let Some(mapped) = mapped {
            edit_response(x, notes, mapped.edits);
            status = mapped.status.unwrap_or(status);
            (x.response.status, notes.status) = (status, status);
            if let Some(new) = mapped.body {
                body = Cow::Owned(new.to_vec());
            }
        }
        notes.local_body = Some(body.to_vec());
        let record = notes.record(&x.connection, &x.serving, &x.request, Some(&x.response), (0, 0));
        let written = replies.write(&x.connection.worker, &record, mapped.map(|mapped| mapped.index()));
        if let Some((new, kind)) = written {
            body = Cow::Owned(new);
            content_type = Cow::Owned(kind.to_owned());
        }
        notes.local_body = None;
    }
    if notes.is_grpc {
        if !notes.is_grpc_web {
            x.response.status = 200;
        }
        let code = grpc_status.unwrap_or_else(|| grpc_of(status).into());
        notes.grpc_status = Some(code);
        let message = if x.request.method() == Method::Head { &[] } else { body.trim_ascii_end() };
        grpc_fields(&mut x.response.fields, code, message);
        return Cow::Borrowed(&[]);
    }
    if body.is_empty() {
        x.response.fields.remove_known(Known::ContentType);
    } else {
        x.response.fields.set(b"content-type", content_type.as_bytes());
    }
    body
}

fn grpc_fields(fields: &mut FieldBlock, status: u32, message: &[u8]) {
    fields.set(b"content-type", b"application/grpc");
    fields.set(b"grpc-status", itoa(status.into()).as_bytes());
    if !message.is_empty() {
        fields.set(b"grpc-message", &percent_encoded(message));
    }
}

/// Sends the head in `x.response` and a whole body.
async fn send_local(x: &mut Exchange, notes: &mut Notes, made: Made<'_>) -> Result<(), BodyError> {
    let body = dress(&mut x.front, notes, made);
    let body = &*body;
    // A request that was not read may be dropped if it is here already; otherwise this connection ends.
    if !x.reader.is_over() {
        let mut rest = std::pin::pin!(discard(&mut x.reader, 64 * 1024));
        if poll_now(|cx| rest.as_mut().poll(cx)).await != Some(true) {
            x.front.responder.close_after();
        }
    }
    let length = body.len() as u64;
    if !matches!(x.front.response.status, 204 | 304) {
        x.front.response.fields.set(b"content-length", itoa(length).as_bytes());
    }
    notes.has_body = length > 0 && !x.front.responder.is_bodiless(x.front.response.status);
    decorate(&mut x.front, notes, Instant::now());
    notes.status = x.front.response.status;
    let staged = match std::mem::take(&mut notes.stages) {
        stages if stages.is_empty() => None,
        stages => Some(staged::whole(stages, body)?),
    };
    let body = staged.as_ref().map_or(body, |(body, _)| body);
    let framing = if staged.is_some() { BodyLength::Chunked } else { BodyLength::Length(length) };
    x.front.responder.head(&x.front.response, framing)?;
    let is_last = staged.as_ref().is_none_or(|(_, trailers)| trailers.is_none());
    let mut rest = body;
    while !rest.is_empty() && !x.front.responder.writer.is_finished() {
        let n = x
            .front
            .clock
            .guard(x.front.responder.writer.send(rest, is_last))
            .await
            .map_err(|_| BodyError::Closed)??;
        rest = rest.get(n..).unwrap_or_default();
    }
    if !x.front.responder.writer.is_finished() {
        x.front.responder.writer.finish(staged.as_ref().and_then(|(_, trailers)| trailers.as_ref()))?;
    }
    x.front.clock.guard(x.front.responder.writer.flush()).await.map_err(|_| BodyError::Closed)?
}

/// What is no printable ASCII, and the percent sign, as %XX (gRPC over HTTP/2, "Status-Message").
fn percent_encoded(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    for byte in message {
        match byte {
            b' '..=b'~' if *byte != b'%' => out.push(*byte),
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    out
}

fn itoa(number: u64) -> String {
    number.to_string()
}

/// Answers a route's redirect.
pub(super) async fn redirect(x: &mut Exchange, notes: &mut Notes, route: &Route) -> Result<(), ProxyError> {
    let Action::Redirect(Redirect { status, .. }) = route.action else { return Err(ProxyError::Defect) };
    x.front.serving.stats(x.front.worker()).rq_redirect.inc();
    notes.details = "direct_response";
    x.front.response.clear();
    let made = Made { status, grpc_status: None, body: &[], content_type: None }.begin(&mut x.front, notes);
    let mut location = Vec::new();
    route.location(&HeadView(&x.front.request), &mut location);
    if !x.front.response.fields.set(b"location", &location) {
        return Err(ProxyError::BadPath);
    }
    edit_response(&mut x.front, notes, &route.response_edits);
    send_local(x, notes, made).await.map_err(|_| ProxyError::ClientGone)
}

/// Redirects to the path as it is after normalisation (`UNESCAPE_AND_REDIRECT`).
pub(super) async fn redirect_to_path(x: &mut Exchange, notes: &mut Notes) -> Result<(), ProxyError> {
    x.front.serving.stats(x.front.worker()).downstream_rq_redirected_with_normalized_path.inc();
    notes.details = "path_normalization_failed";
    x.front.response.clear();
    let made = Made { status: 307, grpc_status: None, body: &[], content_type: None };
    let made = made.begin(&mut x.front, notes);
    x.front.response.fields.set(b"location", x.front.request.path());
    if let Some(route) = notes.route.clone() {
        edit_response(&mut x.front, notes, &route.response_edits);
    }
    send_local(x, notes, made).await.map_err(|_| ProxyError::ClientGone)
}

/// Answers a route's direct response.
pub(super) async fn direct(x: &mut Exchange, notes: &mut Notes, route: &Route) -> Result<(), ProxyError> {
    let Action::Direct(direct) = &route.action else { return Err(ProxyError::Defect) };
    x.front.serving.stats(x.front.worker()).rq_direct_response.inc();
    notes.details = "direct_response";
    x.front.response.clear();
    let content_type = direct.content_type.as_deref();
    let made = Made { status: direct.status, grpc_status: None, body: &direct.body, content_type };
    let made = made.begin(&mut x.front, notes);
    if direct.status == 201 || (300..400).contains(&direct.status) {
        // Source: Envoy, by behaviour: where it is, as there is nowhere else to go.
        let request = &x.front.request;
        let parts = [request.scheme().as_bytes(), b"://", request.authority(), request.path()];
        x.front.response.fields.set_parts(b"location", &parts);
    }
    edit_response(&mut x.front, notes, &route.response_edits);
    send_local(x, notes, made).await.map_err(|_| ProxyError::ClientGone)
}

/// What every response gets, whoever made it: what filters have to do to it, then server, date, via, request id.
pub(super) fn decorate(x: &mut Front, notes: &mut Notes, now: Instant) {
    if !notes.after.is_empty() {
        filter::on_response(x, notes);
    }
    if x.request.version() != Version::Http2 && x.connection.drain.is_draining() && x.responder.keeps_alive()
    {
        // Draining began after the request did: say so now, or the client's next request meets a closed connection.
        x.serving.stats(x.worker()).downstream_cx_drain_close.inc();
        x.responder.close_after();
    }
    let id = x.request.fields.get_known(Known::XRequestId);
    forwarded::response(&mut x.response, x.serving.config(), id);
    if notes.trace.is_some()
        && let Some(operation) = notes.route.as_ref().and_then(|route| route.decorator.as_deref())
        && x.serving.chain.direction != TrafficDirection::Outbound
    {
        x.response.fields.set(b"x-envoy-decorator-operation", operation.as_bytes());
    }
    let fields = &mut x.response.fields;
    x.connection.worker.dates.fill(fields, now);
    if notes.tell_attempts && notes.attempts > 0 {
        fields.set(b"x-envoy-attempt-count", itoa(notes.attempts.into()).as_bytes());
    }
}

/// Applies header edits to the response in `x.response`.
pub(crate) fn edit_response(x: &mut Front, notes: &Notes, edits: &Edits) {
    for step in edits.steps() {
        let made = edits::made(step, &x.response.fields, |template, out| {
            let record = notes.record(&x.connection, &x.serving, &x.request, Some(&x.response), (0, 0));
            telemetry::render(&x.connection.worker, &record, template, out);
        });
        edits::apply(&mut x.response.fields, step, made);
    }
    x.response.fields.join_repeated(view::JOINED_IN_RESPONSES);
}

/// Applies header edits to the request.
pub(crate) fn edit_request(x: &mut Front, notes: &Notes, edits: &Edits) {
    for step in edits.steps() {
        let made = edits::made(step, &x.request.fields, |template, out| {
            let record = notes.record(&x.connection, &x.serving, &x.request, None, (0, 0));
            telemetry::render(&x.connection.worker, &record, template, out);
        });
        edits::apply(&mut x.request.fields, step, made);
    }
    x.request.fields.join_repeated(view::JOINED_IN_REQUESTS);
}
