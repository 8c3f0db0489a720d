//! Rate limits that a service keeps (`envoy.extensions.filters.http.ratelimit.v3`).

use super::local_rate_limit::{RateLimitRule, VirtualHostRules};
use crate::config::{Fraction, GrpcTarget, HeaderEdit};
use serde::{Deserialize, Serialize};

/// Requests are refused when a service says that there were too many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Tells the service whose limits they are.
    pub domain: String,
    /// The service (`envoy.service.ratelimit.v3.RateLimitService`).
    pub target: GrpcTarget,
    /// Which of the levels' rules count. Default 0.
    pub stage: u32,
    /// Which requests are asked about.
    pub requests: RateLimited,
    /// Share of the requests that are refused when the service does not answer. Default none.
    pub failure_deny: Fraction,
    /// gRPC requests are refused with RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub as_resource_exhausted: bool,
    /// Send `x-ratelimit-limit`, `-remaining` and `-reset`.
    pub rate_limit_headers: bool,
    /// Send `x-envoy-ratelimited` with a refusal. Default true.
    pub ratelimited_header: bool,
    /// Status of a refusal, at least 400. Default 429.
    pub status: u16,
    /// Status when the service does not answer. Default 500.
    pub status_on_error: u16,
    /// Edits of the refusals.
    pub response_add: Vec<HeaderEdit>,
    /// Share of the requests that are asked about. Default all.
    pub enabled: Fraction,
    /// Share of those above the rate that are refused. Default all.
    pub enforced: Fraction,
    /// Rules in place of those of the levels; empty: those of the levels.
    pub rules: Vec<RateLimitRule>,
}

/// Which requests are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RateLimited {
    /// All.
    All,
    /// Those from inside (`x-envoy-internal`).
    Internal,
    /// The others.
    External,
}

/// What a route says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateLimitRoute {
    /// Whether the rules of the virtual host count beside those of the route.
    pub virtual_host: VirtualHostRules,
    /// Rules in place of those of the levels; empty: those of the levels.
    pub rules: Vec<RateLimitRule>,
    /// In place of the filter's; empty: the filter's.
    pub domain: String,
}
