//! Requests that are held until they are here as a whole (`envoy.filters.http.buffer`).

use std::pin::pin;
use std::task::Poll;

use outrigger_traffic::config::BufferLimit;
use outrigger_traffic::filter::RouteFilter;
use outrigger_wire::Known;
use outrigger_wire::h1::BodyLength;

use super::{Answer, Pending, Verdict, compression};
use crate::error::ProxyError;
use crate::exchange::{Exchange, Front};
use crate::http::body::{BodyError, BodyReader};
use crate::text::Digits;

/// Has the request held where it has a body.
pub(super) fn on_request(x: &Exchange, limit: BufferLimit, settings: Option<&RouteFilter>) -> Verdict {
    let limit = match settings {
        Some(RouteFilter::Buffer(None)) => return Verdict::Next,
        Some(RouteFilter::Buffer(Some(own))) => *own,
        _ => limit,
    };
    if compression::has_body(x) {
        return Verdict::Wait(Pending::Buffer(limit));
    }
    Verdict::Next
}

/// Waits for the whole request.
pub(super) async fn wait(x: &mut Exchange, limit: BufferLimit) -> Result<Verdict, ProxyError> {
    match collect(x, limit.max_request_bytes as usize).await? {
        Some(length) => {
            let length = length as u64;
            x.body = BodyLength::Length(length);
            let fields = &mut x.front.request.fields;
            if !fields.contains_known(Known::ContentLength) {
                fields.put(Known::ContentLength, Digits::default().write(length));
            }
            Ok(Verdict::Next)
        }
        None => {
            x.front.serving.stats(x.front.worker()).buffer_rq_too_large.inc();
            Ok(too_large())
        }
    }
}

/// What a request that does not fit is answered with.
pub(super) fn too_large() -> Verdict {
    Verdict::Answer(Answer::new(413, "Payload Too Large", "request_payload_too_large"))
}

/// Holds the request until it is here as a whole, and gives its length; `None`: it has more than `most` bytes. What is
/// held is the reader's data.
pub(super) async fn collect(x: &mut Exchange, most: usize) -> Result<Option<usize>, ProxyError> {
    let body = std::mem::replace(&mut x.reader, BodyReader::Staged(Box::default()));
    x.reader = body.stage(Vec::new());
    let BodyReader::Staged(staged) = &mut x.reader else { return Err(ProxyError::Defect) };
    let clock = x.front.clock.clone();
    let Front { responder, .. } = &mut x.front;
    let mut held = 0;
    let whole = std::future::poll_fn(|cx| {
        if let Poll::Ready(whole) = staged.poll_whole(cx, most) {
            return Poll::Ready(whole.map_err(|error| match error {
                BodyError::Framing(_) | BodyError::Protocol => ProxyError::BadBody,
                BodyError::Closed | BodyError::Reset | BodyError::Refused => ProxyError::ClientGone,
            }));
        }
        // Bytes that arrive are a sign of life.
        if staged.held() > held {
            held = staged.held();
            clock.moved_at(tokio::time::Instant::now());
        }
        responder.writer.poll_gone(cx).map(|_| Err(ProxyError::ClientGone))
    });
    let whole = pin!(whole);
    clock.guard(whole).await?
}
