//! After a switch of protocols the exchange is a tunnel: bytes both ways until both ends have closed or nothing moves
//! for the stream idle timeout.

use crate::error::ProxyError;
use crate::http::body::{BodyReader, BodyWriter};
use crate::http::hop_by_hop;
use crate::http::respond::Responder;
use crate::io::{Buf, Io};
use crate::tcp::{CopyEnd, Progress, copy_both};
use crate::telemetry::{Raised, ResponseFlags};
use crate::upstream::pool::UpstreamStream;
use std::rc::Rc;

use super::Exchange;
use super::attempt::End;
use super::forward::Plan;
use super::notes::Notes;
use super::respond;

/// Answers 101 (or 200 to CONNECT) and copies.
pub(super) async fn tunnel(
    x: &mut Exchange<'_>,
    notes: &mut Notes,
    plan: &Plan<'_>,
    mut stream: UpstreamStream,
) -> End {
    let worker = x.front.worker().clone();
    let serving = x.front.serving.clone();
    serving.stats(&worker).downstream_cx_upgrades_total.inc();
    let _active =
        Raised::new(serving.chain.stats.clone(), worker.id, |stats| &stats.downstream_cx_upgrades_active);
    notes.status = x.front.response.status;
    notes.details = "via_upstream";
    if hop_by_hop::strip_response(x.front.response, true).is_err() {
        return End::Failed(ProxyError::UpgradeFailed);
    }
    respond::edit_response(&mut x.front, notes, plan.response_edits);
    respond::decorate(&mut x.front, notes);
    if x.front.responder.switch(x.front.response).is_err() {
        return End::Failed(ProxyError::UpgradeFailed);
    }
    x.front.clock.tunnel();
    let (Some(down), Some(up)) = (ends(x.reader, x.front.responder), upstream_ends(&mut stream)) else {
        return End::Failed(ProxyError::Defect);
    };
    // What was read behind the two heads belongs to the tunnel.
    if let BodyWriter::H1(writer) = &mut x.front.responder.writer {
        if let Some(early) = &up.1 {
            writer.raw(early.data());
        }
        if writer.flush().await.is_err() {
            return End::Failed(ProxyError::ClientGone);
        }
    }
    if let (BodyWriter::H1(writer), Some(early)) = (&mut stream.writer, &down.1) {
        writer.raw(early.data());
        if writer.flush().await.is_err() {
            return End::Failed(ProxyError::UpstreamClosed);
        }
    }
    let idle =
        plan.forward.idle_timeout.or(serving.config().stream_idle_timeout).filter(|idle| !idle.is_zero());
    let progress = Progress::default();
    match copy_both(&worker, &down.0, &up.0, idle, &progress).await {
        CopyEnd::Finished => {}
        CopyEnd::Idle => {
            notes.flags |= ResponseFlags::STREAM_IDLE_TIMEOUT;
            notes.details = "stream_idle_timeout";
        }
        CopyEnd::Failed(..) => {
            notes.flags |= ResponseFlags::DOWNSTREAM_TERMINATION;
        }
    }
    notes.tunnelled = (progress.a_to_b.get(), progress.b_to_a.get());
    stream.give_back(&worker, false);
    End::Done
}

type Half = (Rc<Io>, Option<Buf>);

fn ends(reader: &mut BodyReader, responder: &Responder) -> Option<Half> {
    match (reader, &responder.writer) {
        (BodyReader::H1(reader), BodyWriter::H1(writer)) => {
            Some((writer.io().clone(), reader.take_buffered()))
        }
        _ => None,
    }
}

fn upstream_ends(stream: &mut UpstreamStream) -> Option<Half> {
    match &mut stream.reader {
        BodyReader::H1(reader) => Some((reader.io().clone(), reader.take_buffered())),
        BodyReader::H2(_) => None,
    }
}
