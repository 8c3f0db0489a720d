//! After a switch of protocols the exchange is a tunnel: bytes both ways until both ends have closed or nothing moves
//! for the stream idle timeout.

use crate::error::ProxyError;
use crate::http::body::{BodyReader, BodyWriter};
use crate::http::respond::Responder;
use crate::http::{hop_by_hop, websocket};
use crate::io::{Buf, Io};
use crate::tcp::{CopyEnd, Progress, copy_both};
use crate::telemetry::{Raised, ResponseFlags};
use crate::upstream::pool::UpstreamStream;
use outrigger_wire::{Known, Method, Version};
use std::rc::Rc;
use tokio::time::Instant;

use super::attempt::End;
use super::forward::Plan;
use super::notes::Notes;
use super::respond;
use super::{Exchange, Front, stream_tunnel};

/// Answers 101 (or 200 to CONNECT) and copies.
pub(super) async fn tunnel(
    x: &mut Exchange,
    notes: &mut Notes,
    plan: &Plan,
    mut stream: UpstreamStream,
) -> End {
    let worker = x.front.worker().clone();
    let serving = x.front.serving.clone();
    serving.stats(&worker).downstream_cx_upgrades_total.inc();
    let _active =
        Raised::new(serving.chain.stats.clone(), worker.id, |stats| &stats.downstream_cx_upgrades_active);
    notes.details = "via_upstream";
    if hop_by_hop::strip_response(&mut x.front.response, true).is_err() {
        return End::Failed(ProxyError::UpgradeFailed);
    }
    if x.front.request.method() == Method::Connect {
        // What follows is the tunnel's, whatever the host says of a length (RFC 9110 §9.3.6).
        x.front.response.fields.remove_known(Known::ContentLength);
    }
    if x.front.request.version() == Version::Http2 && !answer_for_stream(&mut x.front) {
        return End::Failed(ProxyError::UpgradeFailed);
    }
    notes.status = x.front.response.status;
    respond::edit_response(&mut x.front, notes, &plan.response_edits);
    respond::decorate(&mut x.front, notes, Instant::now());
    if x.front.responder.switch(&x.front.response).is_err() {
        return End::Failed(ProxyError::UpgradeFailed);
    }
    let clock = x.front.clock.clone();
    clock.tunnel();
    let idle =
        plan.forward.idle_timeout.or(serving.config().stream_idle_timeout).filter(|idle| !idle.is_zero());
    let progress = Progress::default();
    let Some(up) = upstream_ends(&mut stream) else { return End::Failed(ProxyError::Defect) };
    if let (BodyReader::H2(_), BodyWriter::H2(_)) = (&x.reader, &x.front.responder.writer) {
        let ends = stream_tunnel::Stream { reader: &mut x.reader, writer: &mut x.front.responder.writer };
        let copying = stream_tunnel::copy(&worker, ends, &up.0, up.1, idle, &progress);
        // Copying has an idle timeout of its own; what is left to the clock is the longest life.
        clock.set_idle(None);
        let end = clock.guard(copying).await;
        if !matches!(end, Ok(CopyEnd::Finished)) {
            x.front.responder.cancel();
        }
        conclude(&x.front, notes, &end, &progress);
        stream.give_back(&worker, false, Instant::now());
        return End::Done;
    }
    let Some(down) = ends(&mut x.reader, &x.front.responder) else {
        return End::Failed(ProxyError::Defect);
    };
    // What was read behind the two heads belongs to the tunnel.
    if let BodyWriter::H1(writer) = &mut x.front.responder.writer {
        if let Some(early) = &up.1 {
            writer.raw(early.data());
        }
        match worker.wheel.timeout(idle, clock.guard(writer.flush())).await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(_))) => return End::Failed(ProxyError::ClientGone),
            Some(Err(error)) => return End::Failed(error),
            None => return End::Failed(ProxyError::StreamIdle(true)),
        }
    }
    if let (BodyWriter::H1(writer), Some(early)) = (&mut stream.halves.writer, &down.1) {
        writer.raw(early.data());
        match worker.wheel.timeout(idle, clock.guard(writer.flush())).await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(_))) => return End::Failed(ProxyError::UpstreamClosed),
            Some(Err(error)) => return End::Failed(error),
            None => return End::Failed(ProxyError::StreamIdle(true)),
        }
    }
    clock.set_idle(None);
    let end = clock.guard(copy_both(&worker, &down.0, &up.0, idle, &progress)).await;
    conclude(&x.front, notes, &end, &progress);
    stream.give_back(&worker, false, Instant::now());
    End::Done
}

/// Makes of an answer to an upgrade the answer to the stream that asked for it (RFC 8441 §5); `false` when the host did
/// not mean it.
fn answer_for_stream(x: &mut Front) -> bool {
    if x.request.method() == Method::Connect {
        return true;
    }
    if websocket::is_wanted(&x.request.fields) {
        if !websocket::is_accepted(&x.request.fields, &x.response.fields) {
            return false;
        }
        websocket::strip_accept(&mut x.response.fields);
    }
    x.response.fields.remove_known(Known::Upgrade);
    x.response.status = 200;
    true
}

/// The books of a tunnel that ended, by itself or by its longest life.
pub(super) fn conclude(x: &Front, notes: &mut Notes, end: &Result<CopyEnd, ProxyError>, progress: &Progress) {
    match end {
        Ok(CopyEnd::Finished) => {
            // A side may have closed without TLS's close_notify.
            if progress.cut.get().is_some() {
                notes.flags |= ResponseFlags::DOWNSTREAM_TERMINATION;
            }
        }
        Ok(CopyEnd::Idle) => {
            notes.flags |= ResponseFlags::STREAM_IDLE_TIMEOUT;
            notes.details = "stream_idle_timeout";
        }
        Ok(CopyEnd::Failed(..)) => notes.flags |= ResponseFlags::DOWNSTREAM_TERMINATION,
        Err(error) => {
            let row = error.row();
            notes.flags |= row.flag;
            notes.details = row.details;
            x.serving.stats(x.worker()).downstream_rq_max_duration_reached.inc();
        }
    }
    notes.tunnelled = (progress.a_to_b.get(), progress.b_to_a.get());
}

pub(super) type Half = (Rc<Io>, Option<Buf>);

/// The connection of an HTTP/1.1 request, and what was read of it already.
pub(super) fn ends(reader: &mut BodyReader, responder: &Responder) -> Option<Half> {
    match (reader, &responder.writer) {
        (BodyReader::H1(reader), BodyWriter::H1(writer)) => {
            Some((writer.io().clone(), reader.take_buffered()))
        }
        _ => None,
    }
}

fn upstream_ends(stream: &mut UpstreamStream) -> Option<Half> {
    match &mut stream.halves.reader {
        BodyReader::H1(reader) => Some((reader.io().clone(), reader.take_buffered())),
        BodyReader::H2(_) | BodyReader::Staged(_) => None,
    }
}
