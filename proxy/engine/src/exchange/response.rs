//! A response of an upstream: its head is edited and sent, its end is counted.

use std::time::Duration;

use outrigger_traffic::outcome::Outcome;
use outrigger_wire::Known;
use outrigger_wire::h1::{BodyLength, ResponseFraming};
use tokio::time::Instant;

use super::attempt::{Call, End, report};
use super::forward::Plan;
use super::notes::Notes;
use super::{Exchange, Front, respond};
use crate::error::ProxyError;
use crate::http::{hop_by_hop, view};
use crate::text::Digits;
use crate::upstream::pool::UpstreamStream;

/// Edits the response head and sends it (HTTP/2) or gathers it (HTTP/1.1).
pub(super) fn begin(
    x: &mut Front,
    notes: &mut Notes,
    plan: &Plan,
    framing: ResponseFraming,
    now: Instant,
) -> Result<(), ProxyError> {
    notes.status = x.response.status;
    notes.details = "via_upstream";
    if notes.is_grpc {
        notes.grpc_status = view::grpc_status(&x.response.fields);
    }
    hop_by_hop::strip_response(&mut x.response, false).map_err(|_| ProxyError::BadResponse)?;
    x.response.fields.join_repeated(view::JOINED_IN_RESPONSES);
    if !x.serving.config().suppress_envoy_headers {
        let took =
            notes.timeline.upstream_start.map_or(Duration::ZERO, |sent| now.saturating_duration_since(sent));
        let mut digits = Digits::default();
        let text = digits.write(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        x.response.fields.put(Known::XEnvoyUpstreamServiceTime, text);
    }
    for cookie in &plan.set_cookies {
        x.response.fields.append(b"set-cookie", cookie);
    }
    respond::edit_response(x, notes, &plan.response_edits);
    notes.has_body = !framing.body.is_empty() && !x.responder.is_bodiless(x.response.status);
    respond::decorate(x, notes, now);
    let as_long = notes.stages.iter().all(|stage| stage.keeps_length());
    let body = if as_long { framing.body } else { BodyLength::Chunked };
    x.responder.head(&x.response, body).map_err(|_| ProxyError::ClientGone)
}

/// Counts a response and tells outlier detection.
pub(super) fn count(x: &Front, notes: &Notes, call: &Call<'_>, now: Instant) {
    let plan = call.plan;
    let stats = plan.cluster.stats.at(x.worker().id);
    let status = x.response.status;
    stats.count_status(status);
    let outcome = match notes.grpc_status {
        Some(code) if notes.is_grpc => Outcome::grpc(code),
        _ => Outcome::Response(status),
    };
    report(x, plan, call.host, outcome, now);
    if plan.cluster.cluster.config.health_check.is_some()
        && x.response.fields.get(b"x-envoy-immediate-health-check-fail").is_some()
    {
        call.host.live.fail_passively();
    }
}

/// The response was passed on, or broke.
pub(super) fn finish(
    x: &mut Exchange,
    notes: &mut Notes,
    call: &Call<'_>,
    mut stream: UpstreamStream,
    framing: ResponseFraming,
    passed: Result<(), ProxyError>,
    now: Instant,
) -> End {
    let Call { plan, host, .. } = *call;
    let worker = x.front.worker().clone();
    let stats = plan.cluster.stats.at(worker.id);
    notes.timeline.response_end = Some(now);
    if let Some(trailers) = stream.halves.reader.take_trailers() {
        if notes.is_grpc {
            notes.grpc_status = view::grpc_status(&trailers).or(notes.grpc_status);
        }
        notes.trailers = Some(trailers);
    }
    if let Some(sent) = notes.timeline.upstream_start {
        stats.upstream_rq_time.record(now.saturating_duration_since(sent));
    }
    match passed {
        Ok(()) => {
            count(&x.front, notes, call, now);
            // Nothing follows but the telling.
            notes.timeline.end = Some(now);
            if !x.reader.is_over() {
                x.front.serving.stats(&worker).downstream_rq_response_before_rq_complete.inc();
            }
            stream.give_back(&worker, framing.keep_alive, now);
            End::Done
        }
        Err(error) => {
            if error.row().counts_against_host {
                report(&x.front, plan, host, Outcome::Reset, now);
            }
            stream.give_back(&worker, false, now);
            End::Failed(error)
        }
    }
}
