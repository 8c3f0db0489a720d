//! Answers to health checks (`envoy.filters.http.health_check`).

use std::sync::Arc;

use outrigger_traffic::filter::{Filter, HealthChecks};
use outrigger_wire::Known;

use super::{After, Answer, Place, Verdict};
use crate::exchange::{Exchange, Front, Notes};
use crate::http::view::HeadView;

/// A health check that went on to the upstream.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The filter's place in the chain.
    index: usize,
}

/// Answers health checks, or sees to the answer.
pub(super) fn on_request(
    x: &Exchange,
    notes: &mut Notes,
    place: &Place<'_>,
    index: usize,
    checks: &HealthChecks,
) -> Verdict {
    if !checks.concerns(&HeadView(&x.front.request)) {
        return Verdict::Next;
    }
    notes.is_health_check = true;
    notes.after.push(After::HealthCheck(Checked { index }));
    let drain = &x.front.worker().shared.drain;
    let answer = |status: u16, details: &'static str| Verdict::Answer(Answer::new(status, "", details));
    if checks.config.pass_through {
        if drain.is_health_failed() {
            return answer(503, "health_check_failed");
        }
        return match checks.cached(now_ms(&x.front)) {
            Some(200) => answer(200, "health_check_cached"),
            Some(status) => answer(status, "health_check_cached"),
            None => Verdict::Next,
        };
    }
    if drain.is_health_failed() || !clusters_are_healthy(place, checks) {
        return answer(503, "health_check_failed");
    }
    answer(200, "health_check_ok")
}

/// Milliseconds since the start of the proxy.
fn now_ms(x: &Front) -> u64 {
    let since = x.arrived.into_std().saturating_duration_since(x.worker().shared.started);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn clusters_are_healthy(place: &Place<'_>, checks: &HealthChecks) -> bool {
    let live = &place.serving.live;
    checks.config.cluster_min_healthy.iter().all(|(name, least)| {
        let found = live.clusters.iter().flatten().find(|cluster| *cluster.name == **name);
        let Some(cluster) = found.map(Arc::as_ref) else { return false };
        let hosts = cluster.cluster.hosts();
        let hosts = hosts.hosts();
        if hosts.is_empty() {
            return *least == 0;
        }
        let good = hosts.iter().filter(|host| host.is_healthy() || host.is_degraded()).count() as u64;
        good * 100 >= hosts.len() as u64 * u64::from(*least)
    })
}

/// Says on whose behalf it was checked, and keeps what was said.
pub(super) fn on_response(x: &mut Front, checked: &Checked) {
    let serving = x.serving.clone();
    if let Some(Filter::HealthCheck(checks)) =
        serving.filters().get(checked.index).map(|filter| &filter.rules)
        && checks.config.pass_through
    {
        checks.keep(x.response.status, now_ms(x));
    }
    let cluster = x.worker().shared.telemetry.node.cluster.clone();
    x.response.fields.set(Known::XEnvoyUpstreamHealthCheckedCluster.name(), cluster.as_bytes());
}
