//! Rate limits that need no service (`envoy.filters.http.local_ratelimit`).

use outrigger_traffic::filter::rate_limit::{OwnBuckets, Subject};
use outrigger_traffic::filter::token_bucket::TokenBucket;
use outrigger_traffic::filter::{LocalRateLimit, RouteFilter};

use super::{After, Answer, Place, Verdict};
use crate::exchange::{self, Exchange, Notes};
use crate::http::view::HeadView;
use crate::telemetry::ResponseFlags;

/// Refuses requests above a rate.
pub(super) fn on_request(
    x: &mut Exchange,
    notes: &mut Notes,
    place: &Place<'_>,
    limit: &LocalRateLimit,
    settings: Option<&RouteFilter>,
) -> Verdict {
    let limit = match settings {
        Some(RouteFilter::LocalRateLimit(own)) => own,
        _ => limit,
    };
    let worker = x.front.worker().clone();
    if !limit.is_enabled(worker.draw_u32()) {
        return Verdict::Next;
    }
    let stats = place.serving.stats(&worker);
    stats.local_rate_limit_enabled.inc();
    let subject = Subject {
        view: &HeadView(&x.front.request),
        remote: notes.remote.ip(),
        cluster: place.cluster(x),
        source: &worker.shared.telemetry.node.cluster,
        metadata: notes.metadata.as_deref(),
    };
    let since = x.front.arrived.into_std().saturating_duration_since(worker.shared.started);
    let now = TokenBucket::HEAD_START.saturating_add(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    let rules = place.matched.map(|matched| &matched.route.rate_limits);
    let own = |take: &mut dyn FnMut(&mut OwnBuckets)| {
        let own = x.front.connection.facts.buckets.get_or_init(Default::default);
        take(&mut own.borrow_mut());
    };
    let taken = limit.take(rules, &subject, now, own);
    if let Some(taken) = taken.filter(|_| limit.config.rate_limit_headers) {
        notes.after.push(After::RateLimit(taken));
    }
    if taken.is_none_or(|taken| taken.allowed) {
        stats.local_rate_limit_ok.inc();
        return Verdict::Next;
    }
    stats.local_rate_limit_rate_limited.inc();
    if !limit.is_enforced(worker.draw_u32()) {
        exchange::edit_request(&mut x.front, notes, &limit.request_edits);
        return Verdict::Next;
    }
    stats.local_rate_limit_enforced.inc();
    notes.after.push(After::Edits(limit.response_edits.clone()));
    let answer = Answer::new(limit.config.status, "local_rate_limited", "local_rate_limited");
    let mut answer = answer.flagged(ResponseFlags::RATE_LIMITED);
    answer.grpc_status = limit.config.as_resource_exhausted.then_some(8);
    Verdict::Answer(answer)
}
