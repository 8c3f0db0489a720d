//! Retry policies.

use super::matches::header_match;
use crate::translate::At;
use crate::translate::value::{header_name, limit_or, positive, positive_or};
use outrigger_api::envoy::config::route::v3::retry_policy::{
    RateLimitedRetryBackOff, ResetHeaderFormat as ProtoFormat, RetryHostPredicate, retry_host_predicate,
};
use outrigger_api::envoy::config::route::v3::{HeaderMatcher, RetryPolicy as ProtoPolicy};
use outrigger_api::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use outrigger_traffic::config::{
    HeaderMatch, RateLimitedBackoff, ResetHeader, ResetHeaderFormat, RetryOn, RetryPolicy,
};
use std::time::Duration;

/// Envoy's default of the longest wait that an upstream can ask for.
const RATE_LIMITED_MAX: Duration = Duration::from_secs(300);
/// The cap of the back-off, in first intervals, where none is given.
const MAX_INTERVAL_FACTOR: u32 = 10;

/// A retry policy.
pub(super) fn retry_policy(message: &ProtoPolicy, retry_non_idempotent: bool, at: &At<'_>) -> RetryPolicy {
    let mut policy = RetryPolicy { retry_non_idempotent, ..RetryPolicy::default() };
    policy.retry_on = retry_on(&message.retry_on, &at.field("retry_on"));
    policy.num_retries = message.num_retries.unwrap_or(policy.num_retries);
    policy.per_try_timeout = limit_or(message.per_try_timeout.as_ref(), None, &at.field("per_try_timeout"));
    policy.per_try_idle_timeout =
        limit_or(message.per_try_idle_timeout.as_ref(), None, &at.field("per_try_idle_timeout"));
    for (i, code) in message.retriable_status_codes.iter().enumerate() {
        match u16::try_from(*code) {
            Ok(code @ 100..=599) => policy.retriable_status_codes.push(code),
            _ => at.item("retriable_status_codes", i).refuse(format!("{code} is not a status")),
        }
    }
    policy.retriable_headers = matchers(&message.retriable_headers, "retriable_headers", at);
    policy.retriable_request_headers =
        matchers(&message.retriable_request_headers, "retriable_request_headers", at);
    if let Some(back_off) = &message.retry_back_off {
        let at = at.field("retry_back_off");
        let at_base = at.field("base_interval");
        if let Some(base) = at_base.need(back_off.base_interval.as_ref()).and_then(|b| positive(b, &at_base))
        {
            policy.base_interval = base;
            policy.max_interval = base.saturating_mul(MAX_INTERVAL_FACTOR);
        }
        if let Some(max) = &back_off.max_interval {
            let at_max = at.field("max_interval");
            policy.max_interval = positive_or(Some(max), policy.max_interval, &at_max);
            if policy.max_interval < policy.base_interval {
                at_max.refuse("must not be below `base_interval`");
            }
        }
    }
    policy.rate_limited = message
        .rate_limited_retry_back_off
        .as_ref()
        .map(|b| rate_limited(b, &at.field("rate_limited_retry_back_off")));
    for (i, predicate) in message.retry_host_predicate.iter().enumerate() {
        policy.avoid_previous_hosts |= previous_hosts(predicate, &at.item("retry_host_predicate", i));
    }
    // 0 means "not given" on the wire; Envoy makes one pick then.
    match u32::try_from(message.host_selection_retry_max_attempts) {
        Ok(0) => {}
        Ok(attempts) => policy.host_selection_max_attempts = attempts,
        Err(_) => at.field("host_selection_retry_max_attempts").refuse("is out of range"),
    }
    policy
}

fn retry_on(names: &str, at: &At<'_>) -> RetryOn {
    let mut on = RetryOn::default();
    for name in names.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        let flag = match name {
            "5xx" => &mut on.server_error,
            "gateway-error" => &mut on.gateway_error,
            "reset" => &mut on.reset,
            "reset-before-request" => &mut on.reset_before_request,
            "connect-failure" => &mut on.connect_failure,
            "refused-stream" => &mut on.refused_stream,
            "retriable-4xx" => &mut on.retriable_4xx,
            "retriable-status-codes" => &mut on.retriable_status_codes,
            "retriable-headers" => &mut on.retriable_headers,
            "envoy-ratelimited" => &mut on.envoy_ratelimited,
            "cancelled" => &mut on.grpc_cancelled,
            "deadline-exceeded" => &mut on.grpc_deadline_exceeded,
            "internal" => &mut on.grpc_internal,
            "resource-exhausted" => &mut on.grpc_resource_exhausted,
            "unavailable" => &mut on.grpc_unavailable,
            other => {
                // As in Envoy, which says nothing; a typing error would switch a retry off unseen.
                at.notice(format!("`{other}` is not a retry condition"));
                continue;
            }
        };
        *flag = true;
    }
    on
}

fn matchers(from: &[HeaderMatcher], field: &str, at: &At<'_>) -> Vec<HeaderMatch> {
    from.iter().enumerate().filter_map(|(i, m)| header_match(m, &at.item(field, i))).collect()
}

fn rate_limited(message: &RateLimitedRetryBackOff, at: &At<'_>) -> RateLimitedBackoff {
    if message.reset_headers.is_empty() {
        at.field("reset_headers").refuse("at least one is required");
    }
    let mut reset_headers = Vec::with_capacity(message.reset_headers.len());
    for (i, header) in message.reset_headers.iter().enumerate() {
        let at = at.item("reset_headers", i);
        let format = match ProtoFormat::try_from(header.format) {
            Ok(ProtoFormat::Seconds) => ResetHeaderFormat::Seconds,
            Ok(ProtoFormat::UnixTimestamp) => ResetHeaderFormat::UnixTimestamp,
            Err(_) => {
                at.field("format").refuse("is not known");
                continue;
            }
        };
        reset_headers.push(ResetHeader { name: header_name(&header.name, false, &at.field("name")), format });
    }
    let max_interval =
        positive_or(message.max_interval.as_ref(), RATE_LIMITED_MAX, &at.field("max_interval"));
    RateLimitedBackoff { reset_headers, max_interval }
}

/// Whether a predicate is the one that avoids hosts already tried.
fn previous_hosts(predicate: &RetryHostPredicate, at: &At<'_>) -> bool {
    at.field("name").need_text(&predicate.name);
    let at = at.field("typed_config");
    match &predicate.config_type {
        Some(retry_host_predicate::ConfigType::TypedConfig(any)) => {
            let known = at.unpack::<PreviousHostsPredicate>(any).is_some();
            if !known {
                at.refuse_type(any);
            }
            known
        }
        None if predicate.name == "envoy.retry_host_predicates.previous_hosts" => true,
        None => {
            at.refuse("is required");
            false
        }
    }
}
