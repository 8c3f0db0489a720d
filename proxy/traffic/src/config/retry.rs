//! Retry policies (`envoy.config.route.v3.RetryPolicy`).

use super::HeaderMatch;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When and how a failed attempt is made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Conditions, any of which allows a retry.
    pub retry_on: RetryOn,
    /// Retries after the first attempt. Default 1.
    pub num_retries: u32,
    /// Time for each attempt; `None` leaves the route's timeout alone.
    pub per_try_timeout: Option<Duration>,
    /// An attempt without bytes from the upstream for this long fails.
    pub per_try_idle_timeout: Option<Duration>,
    /// Statuses for `retriable-status-codes`.
    pub retriable_status_codes: Vec<u16>,
    /// Response headers for `retriable-headers`.
    pub retriable_headers: Vec<HeaderMatch>,
    /// A request must match one of these to be retried at all; empty: every request.
    pub retriable_request_headers: Vec<HeaderMatch>,
    /// First back-off interval; default 25 ms. The n-th wait is random in [0, base·2ⁿ), capped.
    pub base_interval: Duration,
    /// Cap of the interval; default 10 × base.
    pub max_interval: Duration,
    /// Waits told by the upstream.
    pub rate_limited: Option<RateLimitedBackoff>,
    /// `envoy.retry_host_predicates.previous_hosts`: do not pick a host twice.
    pub avoid_previous_hosts: bool,
    /// Picks made in search of another host. Default 1.
    pub host_selection_max_attempts: u32,
    /// Outrigger: non-idempotent requests may be re-sent after bytes may have reached the application.
    /// Default false. Set where the operator's policy names a condition that cannot hold otherwise.
    pub retry_non_idempotent: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retry_on: RetryOn::default(),
            num_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            retriable_status_codes: Vec::new(),
            retriable_headers: Vec::new(),
            retriable_request_headers: Vec::new(),
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_millis(250),
            rate_limited: None,
            avoid_previous_hosts: false,
            host_selection_max_attempts: 1,
            retry_non_idempotent: false,
        }
    }
}

/// The names of `retry_on` and `retry_grpc_on`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a name that stands or does not stand in a list")]
pub struct RetryOn {
    /// `5xx`.
    pub server_error: bool,
    /// `gateway-error`: 502, 503, 504.
    pub gateway_error: bool,
    /// `reset`.
    pub reset: bool,
    /// `reset-before-request`.
    pub reset_before_request: bool,
    /// `connect-failure`.
    pub connect_failure: bool,
    /// `refused-stream`.
    pub refused_stream: bool,
    /// `retriable-4xx`: 409.
    pub retriable_4xx: bool,
    /// `retriable-status-codes`.
    pub retriable_status_codes: bool,
    /// `retriable-headers`.
    pub retriable_headers: bool,
    /// `http3-post-connect-failure` has no meaning here and is refused; `envoy-ratelimited`.
    pub envoy_ratelimited: bool,
    /// gRPC `cancelled`.
    pub grpc_cancelled: bool,
    /// gRPC `deadline-exceeded`.
    pub grpc_deadline_exceeded: bool,
    /// gRPC `internal`.
    pub grpc_internal: bool,
    /// gRPC `resource-exhausted`.
    pub grpc_resource_exhausted: bool,
    /// gRPC `unavailable`.
    pub grpc_unavailable: bool,
}

/// `rate_limited_retry_back_off`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimitedBackoff {
    /// Headers to look for, in order.
    pub reset_headers: Vec<ResetHeader>,
    /// Longer waits are not made. Default 300 s.
    pub max_interval: Duration,
}

/// A response header that says when to come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetHeader {
    /// Its name, lower case.
    pub name: String,
    /// How to read it.
    pub format: ResetHeaderFormat,
}

/// `ResetHeaderFormat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetHeaderFormat {
    /// Seconds from now.
    Seconds,
    /// Unix time in seconds.
    UnixTimestamp,
}
