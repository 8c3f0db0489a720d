//! The decision.
//!
//! Order: what can never be retried, whether the policy's conditions name this failure, whether sending the request
//! again is safe, how many retries were made, and last whether the breaker has room.
//!
//! Safe means: the method is idempotent (RFC 9110 §9.2.2), or no byte of the request can have reached the application,
//! or the operator said `retry_non_idempotent`. Envoy leaves this to the operator; here it is the default.

use super::backoff;
use crate::breaker::{Breaker, Permit};
use crate::config;
use crate::route::HeaderMatcher;
use crate::view::{FieldView, RequestView};
use std::time::Duration;

/// A compiled [`config::RetryPolicy`].
#[derive(Debug)]
pub struct RetryPolicy {
    /// What was asked for: times and limits of attempts.
    pub config: config::RetryPolicy,
    retriable_headers: Box<[HeaderMatcher]>,
    retriable_request_headers: Box<[HeaderMatcher]>,
}

/// How an attempt failed, and what is known about it.
pub struct AttemptResult<'a> {
    /// The request.
    pub request: &'a dyn RequestView,
    /// How the attempt ended.
    pub ended: Ended<'a>,
    /// Whether the application may have seen the request.
    pub reached: Reached,
    /// Part of the response was sent downstream: nothing can be taken back.
    pub response_started: bool,
    /// Retries made before this one.
    pub retries_made: u32,
    /// Time since 1970, for `X-RateLimit-Reset`.
    pub unix_now: Duration,
    /// Uniformly random.
    pub draw: u64,
}

/// How an attempt ended.
#[derive(Clone, Copy)]
pub enum Ended<'a> {
    /// By a response head.
    Response {
        /// HTTP status.
        status: u16,
        /// Its fields. In a gRPC response without body, `grpc-status` is among them.
        fields: &'a dyn FieldView,
    },
    /// Without one.
    Reset(ResetKind),
}

/// Ways to end without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetKind {
    /// No connection: refused, unreachable, TLS failure, connect timeout.
    ConnectFailed,
    /// REFUSED_STREAM, or a GOAWAY below the stream's number: by RFC 9113 §8.7 nothing was processed.
    Refused,
    /// Reset by the upstream, or its connection was closed.
    Remote,
    /// The attempt took longer than `per_try_timeout` or `per_try_idle_timeout`.
    PerTryTimeout,
    /// The upstream spoke nonsense.
    Protocol,
    /// A circuit breaker or pool limit was full: a retry would only add to it.
    Overflow,
}

/// How far the request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reached {
    /// No byte left this proxy.
    No,
    /// Bytes were sent; the application may have seen them.
    Maybe,
    /// The application answered.
    Yes,
}

/// What to do.
#[derive(Debug)]
#[must_use]
pub enum Decision {
    /// Send it again after this time. The permit is held until the new attempt ends.
    Retry {
        /// Wait.
        after: Duration,
        /// Leave of the circuit breaker.
        permit: Permit,
        /// The wait is the one that the upstream asked for.
        rate_limited: bool,
    },
    /// Do not.
    No(RefusedBecause),
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusedBecause {
    /// The attempt did not fail in a way the policy names.
    NotRetriable,
    /// Part of the response was sent.
    ResponseStarted,
    /// The request is not idempotent and may have reached the application.
    NotIdempotent,
    /// `num_retries` were made.
    LimitReached,
    /// Too many retries are under way (`upstream_rq_retry_overflow`).
    Overflow,
}

impl RefusedBecause {
    /// For logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRetriable => "not a condition of the retry policy",
            Self::ResponseStarted => "the response has begun",
            Self::NotIdempotent => "not idempotent, and bytes may have reached the upstream application",
            Self::LimitReached => "the number of retries is used up",
            Self::Overflow => "too many retries are under way",
        }
    }
}

impl RetryPolicy {
    /// Makes a policy ready.
    ///
    /// # Errors
    /// Paths and reasons of everything wrong.
    pub fn new(from: &config::RetryPolicy) -> Result<Self, Vec<(String, String)>> {
        let mut errors = Vec::new();
        let mut refuse = |path: String, reason: String| errors.push((path, reason));
        let mut matchers =
            |name: &str, list: &[config::HeaderMatch], response: bool| -> Box<[HeaderMatcher]> {
                let make = if response { HeaderMatcher::for_response } else { HeaderMatcher::for_request };
                let made = list.iter().enumerate().filter_map(|(i, m)| {
                    make(m).map_err(|reason| refuse(format!("{name}[{i}]"), reason)).ok()
                });
                made.collect()
            };
        let retriable_headers = matchers("retriable_headers", &from.retriable_headers, true);
        let retriable_request_headers =
            matchers("retriable_request_headers", &from.retriable_request_headers, false);
        if from.base_interval.is_zero() {
            refuse("retry_back_off.base_interval".into(), "must be above 0".into());
        }
        if from.max_interval < from.base_interval {
            refuse("retry_back_off.max_interval".into(), "must not be below base_interval".into());
        }
        if let Some(rule) = &from.rate_limited
            && rule.reset_headers.is_empty()
        {
            refuse("rate_limited_retry_back_off.reset_headers".into(), "must not be empty".into());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { config: from.clone(), retriable_headers, retriable_request_headers })
    }

    /// Whether an attempt may be made again. Takes the permit of `breaker` when it may.
    pub fn decide(&self, result: &AttemptResult<'_>, breaker: &Breaker) -> Decision {
        match self.refusal(result) {
            Some(why) => Decision::No(why),
            None => match breaker.try_retry() {
                Ok(permit) => {
                    let (after, rate_limited) = self.wait(result);
                    Decision::Retry { after, permit, rate_limited }
                }
                Err(_) => Decision::No(RefusedBecause::Overflow),
            },
        }
    }

    fn refusal(&self, result: &AttemptResult<'_>) -> Option<RefusedBecause> {
        let named = match result.ended {
            Ended::Response { status, fields } => self.names_response(status, fields),
            Ended::Reset(kind) => self.names_reset(kind, result.reached),
        };
        if !named || !self.is_eligible(result.request) {
            return Some(RefusedBecause::NotRetriable);
        }
        if result.response_started {
            return Some(RefusedBecause::ResponseStarted);
        }
        let untouched = match result.ended {
            Ended::Reset(ResetKind::ConnectFailed | ResetKind::Refused) => true,
            Ended::Reset(_) => result.reached == Reached::No,
            // A response is a proof of arrival, whatever the caller believes.
            Ended::Response { .. } => false,
        };
        if !untouched && !self.config.retry_non_idempotent && !is_idempotent(result.request.method()) {
            return Some(RefusedBecause::NotIdempotent);
        }
        (result.retries_made >= self.config.num_retries).then_some(RefusedBecause::LimitReached)
    }

    /// Whether the request is one that may be retried at all. Asked once, it saves keeping the body of others.
    pub fn is_eligible<V: RequestView + ?Sized>(&self, request: &V) -> bool {
        self.retriable_request_headers.is_empty()
            || self.retriable_request_headers.iter().any(|m| m.matches(request))
    }

    fn names_reset(&self, kind: ResetKind, reached: Reached) -> bool {
        let on = &self.config.retry_on;
        if kind == ResetKind::Overflow {
            return false;
        }
        // A reset is answered with 502, 503 or 504, so both conditions hold for it. Source: Envoy: x-envoy-retry-on.
        let any = on.reset || on.server_error || on.gateway_error;
        let untouched = on.reset_before_request && reached == Reached::No;
        any || untouched
            || (on.connect_failure && kind == ResetKind::ConnectFailed)
            || (on.refused_stream && kind == ResetKind::Refused)
    }

    fn names_response(&self, status: u16, fields: &dyn FieldView) -> bool {
        let on = &self.config.retry_on;
        let named = self.names_status(status, fields);
        // Nearly every response: none of its fields could change that.
        if !named && !on.envoy_ratelimited {
            return false;
        }
        if fields.header(b"x-envoy-ratelimited").is_some() {
            return on.envoy_ratelimited;
        }
        named
    }

    fn names_status(&self, status: u16, fields: &dyn FieldView) -> bool {
        let on = &self.config.retry_on;
        let grpc = on.grpc_cancelled
            || on.grpc_deadline_exceeded
            || on.grpc_internal
            || on.grpc_resource_exhausted
            || on.grpc_unavailable;
        (on.server_error && (500..=599).contains(&status))
            || (on.gateway_error && matches!(status, 502..=504))
            || (on.retriable_4xx && status == 409)
            || (on.retriable_status_codes && self.config.retriable_status_codes.contains(&status))
            || (on.retriable_headers
                && self.retriable_headers.iter().any(|m| m.matches_response(status, fields)))
            || (grpc && self.names_grpc(fields))
    }

    fn names_grpc(&self, fields: &dyn FieldView) -> bool {
        let on = &self.config.retry_on;
        match fields.header(b"grpc-status") {
            Some(b"1") => on.grpc_cancelled,
            Some(b"4") => on.grpc_deadline_exceeded,
            Some(b"8") => on.grpc_resource_exhausted,
            Some(b"13") => on.grpc_internal,
            Some(b"14") => on.grpc_unavailable,
            _ => false,
        }
    }

    /// How long, and whether the upstream said so.
    fn wait(&self, result: &AttemptResult<'_>) -> (Duration, bool) {
        if let (Some(rule), Ended::Response { fields, .. }) = (&self.config.rate_limited, result.ended)
            && let Some(wait) = backoff::rate_limited(rule, fields, result.unix_now, result.draw)
        {
            return (wait, true);
        }
        let config = &self.config;
        let wait =
            backoff::exponential(config.base_interval, config.max_interval, result.retries_made, result.draw);
        (wait, false)
    }
}

/// Whether sending a request twice means the same as sending it once. Source: RFC 9110 §9.2.2.
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
}

#[cfg(test)]
mod tests;
