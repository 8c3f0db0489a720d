//! Fault injection (`envoy.filters.http.fault`).

use outrigger_traffic::filter::fault::{Abort, ActiveFault};
use outrigger_traffic::filter::{Fault, RouteFilter};
use std::time::Duration;

use super::{After, Answer, Pending, Place, Verdict};
use crate::error::ProxyError;
use crate::exchange::{Exchange, Notes};
use crate::http::view::HeadView;
use crate::telemetry::ResponseFlags;

/// A request that is delayed.
#[derive(Debug)]
pub(crate) struct Delayed {
    after: Duration,
    /// What it is answered with afterwards.
    abort: Option<Abort>,
    _active: ActiveFault,
}

/// Puts the faults in that fall on this request.
pub(super) fn on_request(
    x: &Exchange,
    notes: &mut Notes,
    place: &Place<'_>,
    rules: &Fault,
    settings: Option<&RouteFilter>,
) -> Verdict {
    let rules = match settings {
        Some(RouteFilter::Fault(own)) => own,
        _ => rules,
    };
    let view = HeadView(&x.front.request);
    let worker = x.front.worker();
    if !rules.concerns(&view, place.cluster(x)) {
        return Verdict::Next;
    }
    let stats = x.front.serving.stats(worker);
    if let Some(rate) = rules.response_rate(&view, worker.draw_u32()) {
        let Some(active) = rules.begin() else {
            stats.fault_faults_overflow.inc();
            return Verdict::Next;
        };
        stats.fault_response_rl_injected.inc();
        notes.after.push(After::Slow(rate, active));
        notes.shapes_response = true;
    }
    let delay = rules.delay(&view, worker.draw_u32());
    let abort = rules.abort(&view, worker.draw_u32());
    if delay.is_none() && abort.is_none() {
        return Verdict::Next;
    }
    let Some(active) = rules.begin() else {
        stats.fault_faults_overflow.inc();
        return Verdict::Next;
    };
    if let Some(after) = delay {
        stats.fault_delays_injected.inc();
        notes.flags |= ResponseFlags::FAULT_DELAY;
        return Verdict::Wait(Pending::Fault(Box::new(Delayed { after, abort, _active: active })));
    }
    answered(x, abort)
}

/// Waits, and answers where the request is to be answered too.
pub(super) async fn wait(x: &mut Exchange, delayed: Delayed) -> Result<Verdict, ProxyError> {
    // Exact, because people measure it.
    super::guarded(x, tokio::time::sleep(delayed.after)).await?;
    Ok(answered(x, delayed.abort))
}

fn answered(x: &Exchange, abort: Option<Abort>) -> Verdict {
    let Some(abort) = abort else { return Verdict::Next };
    x.front.serving.stats(x.front.worker()).fault_aborts_injected.inc();
    let mut answer =
        Answer::new(200, "fault filter abort", "fault_filter_abort").flagged(ResponseFlags::FAULT_ABORT);
    match abort {
        Abort::Http(status) => answer.status = status,
        // To a request that is not gRPC Envoy answers 200 then.
        Abort::Grpc(status) => answer.grpc_status = Some(status),
    }
    Verdict::Answer(answer)
}
