//! Cross-site request forgery (`envoy.filters.http.csrf`).

use outrigger_traffic::filter::csrf::Source;
use outrigger_traffic::filter::{CsrfPolicy, RouteFilter};

use super::{Answer, Verdict};
use crate::exchange::Exchange;
use crate::http::view::HeadView;

/// Refuses requests that change something and come from a page of another host.
pub(super) fn on_request(x: &Exchange, policy: &CsrfPolicy, settings: Option<&RouteFilter>) -> Verdict {
    let policy = match settings {
        Some(RouteFilter::Csrf(own)) => own,
        _ => policy,
    };
    let worker = x.front.worker();
    let source = policy.source(&HeadView(&x.front.request));
    if source == Source::Harmless {
        return Verdict::Next;
    }
    let enabled = policy.config.enabled.contains(worker.draw_u32());
    if !enabled && !policy.config.shadow.contains(worker.draw_u32()) {
        return Verdict::Next;
    }
    let stats = x.front.serving.stats(worker);
    match source {
        Source::Harmless => return Verdict::Next,
        Source::Same => {
            stats.csrf_request_valid.inc();
            return Verdict::Next;
        }
        Source::Missing => stats.csrf_missing_source_origin.inc(),
        Source::Other => stats.csrf_request_invalid.inc(),
    }
    if enabled {
        Verdict::Answer(Answer::new(403, "Invalid origin", "csrf_origin_mismatch"))
    } else {
        Verdict::Next
    }
}
