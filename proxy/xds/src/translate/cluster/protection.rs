//! Circuit breakers and outlier detection.

use crate::translate::At;
use crate::translate::value::{duration, percent, percent_u32, positive_or};
use outrigger_api::envoy::config::cluster::v3 as proto;
use outrigger_api::envoy::config::core::v3::RoutingPriority;
use outrigger_traffic::config::{
    CircuitBreakers, FailurePercentage, Fraction, OutlierDetection, RetryBudget, SuccessRate, Thresholds,
};

/// Limits by priority.
pub(super) fn circuit_breakers(message: &proto::CircuitBreakers, at: &At<'_>) -> CircuitBreakers {
    let mut breakers = CircuitBreakers::default();
    let mut given = [false; 2];
    for (i, thresholds) in message.thresholds.iter().enumerate() {
        let at = at.item("thresholds", i);
        let [default_given, high_given] = &mut given;
        let (seen, slot) = match RoutingPriority::try_from(thresholds.priority) {
            Ok(RoutingPriority::Default) => (default_given, &mut breakers.default),
            Ok(RoutingPriority::High) => (high_given, &mut breakers.high),
            Err(_) => {
                at.field("priority").refuse("is not known");
                continue;
            }
        };
        if std::mem::replace(seen, true) {
            at.field("priority").refuse("the limits of this priority are given twice");
        }
        *slot = limits(thresholds, &at);
    }
    per_host(message, &mut breakers, at);
    breakers
}

/// Runtime values that replace limits: `circuit_breakers.CLUSTER.PRIORITY.LIMIT`.
pub(super) fn by_runtime(cluster: &str, breakers: &mut CircuitBreakers, at: &At<'_>) {
    let runtime = at.runtime();
    if !runtime.keys().any(|(key, _)| key.starts_with("circuit_breakers.")) {
        return;
    }
    for (priority, limits) in [("default", &mut breakers.default), ("high", &mut breakers.high)] {
        for (name, limit) in [
            ("max_connections", &mut limits.max_connections),
            ("max_pending_requests", &mut limits.max_pending_requests),
            ("max_requests", &mut limits.max_requests),
            ("max_retries", &mut limits.max_retries),
        ] {
            *limit = runtime.whole_u32(&format!("circuit_breakers.{cluster}.{priority}.{name}"), *limit);
        }
    }
}

/// Of the limits of single hosts, Envoy has the one of connections.
fn per_host(message: &proto::CircuitBreakers, breakers: &mut CircuitBreakers, at: &At<'_>) {
    for (i, limits) in message.per_host_thresholds.iter().enumerate() {
        let at = at.item("per_host_thresholds", i);
        let slot = match RoutingPriority::try_from(limits.priority) {
            Ok(RoutingPriority::Default) => &mut breakers.max_connections_per_host,
            Ok(RoutingPriority::High) => &mut breakers.high_max_connections_per_host,
            Err(_) => {
                at.field("priority").refuse("is not known");
                continue;
            }
        };
        for (name, given) in [
            ("max_pending_requests", limits.max_pending_requests.is_some()),
            ("max_requests", limits.max_requests.is_some()),
            ("max_retries", limits.max_retries.is_some()),
            ("retry_budget", limits.retry_budget.is_some()),
            ("track_remaining", limits.track_remaining),
        ] {
            if given {
                at.field(name).refuse("has no meaning for a single host");
            }
        }
        // Of two for the same priority the first counts, as in Envoy.
        *slot = slot.or(limits.max_connections);
    }
}

fn limits(message: &proto::circuit_breakers::Thresholds, at: &At<'_>) -> Thresholds {
    let default = Thresholds::default();
    Thresholds {
        max_connections: message.max_connections.unwrap_or(default.max_connections),
        max_pending_requests: message.max_pending_requests.unwrap_or(default.max_pending_requests),
        max_requests: message.max_requests.unwrap_or(default.max_requests),
        max_retries: message.max_retries.unwrap_or(default.max_retries),
        retry_budget: message.retry_budget.as_ref().map(|b| retry_budget(b, &at.field("retry_budget"))),
        track_remaining: message.track_remaining,
    }
}

fn retry_budget(message: &proto::circuit_breakers::thresholds::RetryBudget, at: &At<'_>) -> RetryBudget {
    let budget = match message.budget_percent {
        Some(value) => percent(value, &at.field("budget_percent")),
        None => Fraction::from_percent(20),
    };
    RetryBudget { budget, min_retry_concurrency: message.min_retry_concurrency.unwrap_or(3) }
}

/// When hosts are set aside.
pub(super) fn outlier_detection(message: &proto::OutlierDetection, at: &At<'_>) -> OutlierDetection {
    let default = OutlierDetection::default();
    let share = |value: Option<u32>, default: Fraction, field: &str| match value {
        Some(value) => Fraction::from_percent(percent_u32(value, &at.field(field))),
        None => default,
    };
    let (rate, percentage) = (SuccessRate::default(), FailurePercentage::default());
    let success_rate = SuccessRate {
        minimum_hosts: message.success_rate_minimum_hosts.unwrap_or(rate.minimum_hosts),
        request_volume: message.success_rate_request_volume.unwrap_or(rate.request_volume),
        stdev_factor_thousandths: message.success_rate_stdev_factor.unwrap_or(rate.stdev_factor_thousandths),
        enforcing: share(message.enforcing_success_rate, rate.enforcing, "enforcing_success_rate"),
        enforcing_local_origin: share(
            message.enforcing_local_origin_success_rate,
            rate.enforcing_local_origin,
            "enforcing_local_origin_success_rate",
        ),
    };
    let failure_percentage = FailurePercentage {
        threshold: match message.failure_percentage_threshold {
            Some(value) => percent_u32(value, &at.field("failure_percentage_threshold")),
            None => percentage.threshold,
        },
        minimum_hosts: message.failure_percentage_minimum_hosts.unwrap_or(percentage.minimum_hosts),
        request_volume: message.failure_percentage_request_volume.unwrap_or(percentage.request_volume),
        enforcing: share(
            message.enforcing_failure_percentage,
            percentage.enforcing,
            "enforcing_failure_percentage",
        ),
        enforcing_local_origin: share(
            message.enforcing_failure_percentage_local_origin,
            percentage.enforcing_local_origin,
            "enforcing_failure_percentage_local_origin",
        ),
    };
    let base_ejection_time = positive_or(
        message.base_ejection_time.as_ref(),
        default.base_ejection_time,
        &at.field("base_ejection_time"),
    );
    let max_ejection_time = positive_or(
        message.max_ejection_time.as_ref(),
        default.max_ejection_time.max(base_ejection_time),
        &at.field("max_ejection_time"),
    );
    if max_ejection_time < base_ejection_time {
        at.field("max_ejection_time").refuse("must not be below `base_ejection_time`");
    }
    OutlierDetection {
        always_eject_one_host: message.always_eject_one_host == Some(true),
        successful_active_health_check_uneject_host: message.successful_active_health_check_uneject_host
            != Some(false),
        consecutive_5xx: message.consecutive_5xx.unwrap_or(default.consecutive_5xx),
        enforcing_consecutive_5xx: share(
            message.enforcing_consecutive_5xx,
            default.enforcing_consecutive_5xx,
            "enforcing_consecutive_5xx",
        ),
        consecutive_gateway_failure: message
            .consecutive_gateway_failure
            .unwrap_or(default.consecutive_gateway_failure),
        enforcing_consecutive_gateway_failure: share(
            message.enforcing_consecutive_gateway_failure,
            default.enforcing_consecutive_gateway_failure,
            "enforcing_consecutive_gateway_failure",
        ),
        split_external_local_origin_errors: message.split_external_local_origin_errors,
        consecutive_local_origin_failure: message
            .consecutive_local_origin_failure
            .unwrap_or(default.consecutive_local_origin_failure),
        enforcing_consecutive_local_origin_failure: share(
            message.enforcing_consecutive_local_origin_failure,
            default.enforcing_consecutive_local_origin_failure,
            "enforcing_consecutive_local_origin_failure",
        ),
        success_rate,
        failure_percentage,
        interval: positive_or(message.interval.as_ref(), default.interval, &at.field("interval")),
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter: message
            .max_ejection_time_jitter
            .as_ref()
            .and_then(|v| duration(v, &at.field("max_ejection_time_jitter")))
            .unwrap_or(default.max_ejection_time_jitter),
        max_ejection_percent: match message.max_ejection_percent {
            Some(value) => percent_u32(value, &at.field("max_ejection_percent")),
            None => default.max_ejection_percent,
        },
    }
}
