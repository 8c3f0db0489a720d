//! `HealthCheck`.

use super::super::At;
use super::super::route::matches::header_match;
use super::super::value::positive;
use outrigger_api::envoy::extensions::filters::http::health_check::v3 as proto;
use outrigger_traffic::config::HealthCheckFilter;

pub(super) fn filter(message: &proto::HealthCheck, at: &At<'_>) -> HealthCheckFilter {
    let pass_through = at.field("pass_through_mode").need(message.pass_through_mode).unwrap_or(false);
    let cache_time = message.cache_time.as_ref().and_then(|time| positive(time, &at.field("cache_time")));
    if !pass_through && cache_time.is_some() {
        at.field("cache_time").refuse("needs pass_through_mode");
    }
    if pass_through && !message.cluster_min_healthy_percentages.is_empty() {
        at.field("cluster_min_healthy_percentages").refuse("excludes pass_through_mode");
    }
    let least = message.cluster_min_healthy_percentages.iter().map(|(name, percent)| {
        if !(0.0..=100.0).contains(&percent.value) {
            at.key("cluster_min_healthy_percentages", name).refuse("must be between 0 and 100");
        }
        // Truncated, as in Envoy.
        (name.clone(), percent.value.clamp(0.0, 100.0) as u32)
    });
    HealthCheckFilter {
        pass_through,
        cache_time,
        cluster_min_healthy: least.collect(),
        headers: message
            .headers
            .iter()
            .enumerate()
            .filter_map(|(i, header)| header_match(header, &at.item("headers", i)))
            .collect(),
    }
}
