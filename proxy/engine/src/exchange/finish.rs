//! The end of a request: what was learned goes to counters, log and span, once.

use tokio::time::Instant;

use super::Exchange;
use super::notes::Notes;
use crate::telemetry;

/// Tells telemetry; returns the time of the end.
pub(super) fn finish(x: &mut Exchange, notes: &mut Notes) -> Instant {
    x.reader.unstage();
    let end = *notes.timeline.end.get_or_insert_with(Instant::now);
    if notes.timeline.request_end.is_none() && x.reader.is_over() {
        // It was answered without having been asked for.
        notes.timeline.request_end = Some(x.front.arrived);
    }
    let (received, sent) = notes.tunnelled;
    let bytes = (x.reader.received() + received, x.front.responder.writer.sent() + sent);
    let started = x.front.responder.is_started();
    let response = started.then_some(&x.front.response);
    let record = notes.record(&x.front.connection, &x.front.serving, &x.front.request, response, bytes);
    telemetry::finish(&x.front.connection.worker, &record);
    end
}
