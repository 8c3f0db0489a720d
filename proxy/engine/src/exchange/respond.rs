//! Responses: those made here, and what is done to those of an upstream before they leave.

use std::borrow::Cow;
use std::time::Duration;

use outrigger_traffic::config::{HeaderAppend, TrafficDirection};
use outrigger_traffic::route::{Action, Edit, Edits, Redirect, Route};
use outrigger_wire::h1::BodyLength;
use outrigger_wire::{FieldBlock, Known, Version};
use tokio::time::Instant;

use super::notes::Notes;
use super::{Exchange, Front};
use crate::error::{ProxyError, grpc_of};
use crate::filter::{self, Answer};
use crate::http::body::{BodyError, discard, poll_now};
use crate::http::forwarded;
use crate::http::view::HeadView;
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
    x.front.response.status = answer.status;
    let body: &[u8] = if notes.is_grpc {
        x.front.response.status = 200;
        let status = answer.grpc_status.unwrap_or_else(|| grpc_of(answer.status).into());
        notes.grpc_status = Some(status);
        grpc_fields(&mut x.front.response.fields, status, &answer.body);
        &[]
    } else {
        if !answer.body.is_empty() {
            let kind = answer.content_type.as_deref().unwrap_or("text/plain");
            x.front.response.fields.set(b"content-type", kind.as_bytes());
        }
        &answer.body
    };
    for (name, value) in &answer.fields {
        x.front.response.fields.append(name, value);
    }
    if answer.edited {
        // What edits see; it is what was meant, also where gRPC hides it (Envoy).
        notes.status = answer.status;
    }
    if let Some(route) = notes.route.clone().filter(|_| answer.edited) {
        edit_response(&mut x.front, notes, &route.response_edits);
    }
    send_local(x, notes, body).await.map_err(|_| ProxyError::ClientGone)
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
    if local(x, notes, row.status, row.grpc_status, row.body.as_bytes(), None, error).await.is_err() {
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
    x.front.response.status = status;
    // What edits see; it is what was meant, also where gRPC hides it (Envoy).
    notes.status = status;
    let body = if notes.is_grpc {
        x.front.response.status = 200;
        notes.grpc_status = Some(grpc_status.into());
        grpc_fields(&mut x.front.response.fields, grpc_status.into(), body);
        &[]
    } else {
        if !body.is_empty() {
            x.front.response.fields.set(b"content-type", content_type.unwrap_or("text/plain").as_bytes());
        }
        body
    };
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
    send_local(x, notes, body).await
}

fn grpc_fields(fields: &mut FieldBlock, status: u32, message: &[u8]) {
    fields.set(b"content-type", b"application/grpc");
    fields.set(b"grpc-status", itoa(status.into()).as_bytes());
    if !message.is_empty() {
        fields.set(b"grpc-message", &percent_encoded(message));
    }
}

/// Sends the head in `x.response` and a whole body.
async fn send_local(x: &mut Exchange, notes: &mut Notes, body: &[u8]) -> Result<(), BodyError> {
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
    decorate(&mut x.front, notes, Instant::now());
    notes.status = x.front.response.status;
    x.front.responder.head(&x.front.response, BodyLength::Length(length))?;
    let mut rest = body;
    while !rest.is_empty() && !x.front.responder.writer.is_finished() {
        let n = x
            .front
            .clock
            .guard(x.front.responder.writer.send(rest, true))
            .await
            .map_err(|_| BodyError::Closed)??;
        rest = rest.get(n..).unwrap_or_default();
    }
    x.front.responder.writer.finish(None)?;
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
    x.front.response.status = status;
    notes.status = status;
    let mut location = Vec::new();
    route.location(&HeadView(&x.front.request), &mut location);
    if !x.front.response.fields.set(b"location", &location) {
        return Err(ProxyError::BadPath);
    }
    edit_response(&mut x.front, notes, &route.response_edits);
    send_local(x, notes, &[]).await.map_err(|_| ProxyError::ClientGone)
}

/// Redirects to the path as it is after normalisation (`UNESCAPE_AND_REDIRECT`).
pub(super) async fn redirect_to_path(x: &mut Exchange, notes: &mut Notes) -> Result<(), ProxyError> {
    x.front.serving.stats(x.front.worker()).downstream_rq_redirected_with_normalized_path.inc();
    notes.details = "path_normalization_failed";
    x.front.response.clear();
    x.front.response.status = 307;
    x.front.response.fields.set(b"location", x.front.request.path());
    send_local(x, notes, &[]).await.map_err(|_| ProxyError::ClientGone)
}

/// Answers a route's direct response.
pub(super) async fn direct(x: &mut Exchange, notes: &mut Notes, route: &Route) -> Result<(), ProxyError> {
    let Action::Direct(direct) = &route.action else { return Err(ProxyError::Defect) };
    x.front.serving.stats(x.front.worker()).rq_direct_response.inc();
    notes.details = "direct_response";
    x.front.response.clear();
    x.front.response.status = direct.status;
    notes.status = direct.status;
    if !direct.body.is_empty() {
        let kind = direct.content_type.as_deref().unwrap_or("text/plain");
        x.front.response.fields.set(b"content-type", kind.as_bytes());
    }
    edit_response(&mut x.front, notes, &route.response_edits);
    send_local(x, notes, &direct.body).await.map_err(|_| ProxyError::ClientGone)
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
    let mut value = Vec::new();
    for step in edits.steps() {
        if let Edit::Set { value: template, .. } = step
            && template.literal().is_none()
        {
            value.clear();
            let record = notes.record(&x.connection, &x.serving, &x.request, Some(&x.response), (0, 0));
            telemetry::render(&x.connection.worker, &record, template, &mut value);
        }
        apply(&mut x.response.fields, step, &value);
    }
}

/// Applies header edits to the request.
pub(crate) fn edit_request(x: &mut Front, notes: &Notes, edits: &Edits) {
    let mut value = Vec::new();
    for step in edits.steps() {
        if let Edit::Set { value: template, .. } = step
            && template.literal().is_none()
        {
            value.clear();
            let record = notes.record(&x.connection, &x.serving, &x.request, None, (0, 0));
            telemetry::render(&x.connection.worker, &record, template, &mut value);
        }
        apply(&mut x.request.fields, step, &value);
    }
}

/// One step; `rendered` is the value where it is not a literal.
fn apply(fields: &mut FieldBlock, step: &Edit, rendered: &[u8]) {
    match step {
        Edit::Remove(name) => {
            fields.remove(name.as_bytes());
        }
        Edit::RemoveMatching(matcher) => fields.retain(|name, _| !matcher.is_match(name)),
        Edit::Set { name, value, append, keep_empty } => {
            let value = value.literal().unwrap_or(rendered);
            if value.is_empty() && !keep_empty {
                return;
            }
            let name = name.as_bytes();
            match append {
                HeaderAppend::AppendIfExistsOrAdd => {
                    fields.append(name, value);
                }
                HeaderAppend::AddIfAbsent if !fields.contains(name) => {
                    fields.append(name, value);
                }
                HeaderAppend::OverwriteIfExists if fields.contains(name) => {
                    fields.set(name, value);
                }
                HeaderAppend::OverwriteIfExistsOrAdd => {
                    fields.set(name, value);
                }
                HeaderAppend::AddIfAbsent | HeaderAppend::OverwriteIfExists => {}
            }
        }
    }
}
