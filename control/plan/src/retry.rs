//! Retry conditions: the words of `retryOn`, and the mesh's default.

use outrigger_traffic::config::{RetryOn, RetryPolicy};

/// Retries after the first attempt where a VirtualService says nothing (Istio's default).
pub const ATTEMPTS: u32 = 2;

/// Sets one condition of a policy.
pub type Set = fn(&mut RetryOn);

/// The words of `retryOn` and what they switch on.
pub static CONDITIONS: &[(&str, Set)] = &[
    ("5xx", |on| on.server_error = true),
    ("gateway-error", |on| on.gateway_error = true),
    ("reset", |on| on.reset = true),
    ("reset-before-request", |on| on.reset_before_request = true),
    ("connect-failure", |on| on.connect_failure = true),
    ("refused-stream", |on| on.refused_stream = true),
    ("retriable-4xx", |on| on.retriable_4xx = true),
    ("retriable-status-codes", |on| on.retriable_status_codes = true),
    ("envoy-ratelimited", |on| on.envoy_ratelimited = true),
    ("cancelled", |on| on.grpc_cancelled = true),
    ("deadline-exceeded", |on| on.grpc_deadline_exceeded = true),
    ("internal", |on| on.grpc_internal = true),
    ("resource-exhausted", |on| on.grpc_resource_exhausted = true),
    ("unavailable", |on| on.grpc_unavailable = true),
];

/// One word of `retryOn`, as an edit of a policy. A status code stands for itself.
///
/// *Errors*: why the word is refused.
pub fn condition(word: &str) -> Result<Set, String> {
    if let Some((_, set)) = CONDITIONS.iter().find(|(name, _)| *name == word) {
        return Ok(*set);
    }
    match word {
        "retriable-headers" | "http3-post-connect-failure" => {
            Err(format!("condition {word:?} is not supported yet"))
        }
        _ if status(word).is_some() => Ok(|on| on.retriable_status_codes = true),
        _ => Err(format!("unknown retry condition {word:?}")),
    }
}

/// A word that is a status code.
pub fn status(word: &str) -> Option<u16> {
    word.parse().ok().filter(|status| (100..=599).contains(status))
}

/// The policy of routes that name none: Istio's default conditions, and `reset-before-request`, which like connect failures
/// and refused streams says that the application has not seen the request. Other hosts are tried first. Whatever the
/// condition, the proxy never sends a non-idempotent request again that may have reached the application.
pub fn default_policy() -> RetryPolicy {
    RetryPolicy {
        retry_on: RetryOn {
            connect_failure: true,
            refused_stream: true,
            reset_before_request: true,
            grpc_unavailable: true,
            grpc_cancelled: true,
            ..RetryOn::default()
        },
        num_retries: ATTEMPTS,
        avoid_previous_hosts: true,
        host_selection_max_attempts: 5,
        ..RetryPolicy::default()
    }
}
