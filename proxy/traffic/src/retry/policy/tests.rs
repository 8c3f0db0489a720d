//! The decision table.

use super::{AttemptResult, Decision, Ended, Reached, RefusedBecause, ResetKind, RetryPolicy};
use crate::breaker::{Breaker, Limited};
use crate::config::{
    self, HeaderMatch, HeaderValueMatch, RateLimitedBackoff, ResetHeader, ResetHeaderFormat, RetryOn,
    StringMatch, Thresholds,
};
use crate::route::tests::Head;
use proptest::prelude::*;
use std::time::Duration;

fn policy(retry_on: RetryOn) -> config::RetryPolicy {
    config::RetryPolicy { retry_on, ..config::RetryPolicy::default() }
}

fn all_conditions() -> RetryOn {
    RetryOn {
        server_error: true,
        gateway_error: true,
        reset: true,
        reset_before_request: true,
        connect_failure: true,
        refused_stream: true,
        retriable_4xx: true,
        grpc_unavailable: true,
        ..RetryOn::default()
    }
}

fn head(method: &str) -> Head {
    Head { method: method.into(), ..Head::get("h", "/") }
}

fn attempt<'a>(request: &'a Head, ended: Ended<'a>, reached: Reached) -> AttemptResult<'a> {
    AttemptResult {
        request,
        ended,
        reached,
        response_started: false,
        retries_made: 0,
        unix_now: Duration::ZERO,
        draw: 0,
    }
}

fn why(config: &config::RetryPolicy, result: &AttemptResult<'_>) -> Option<RefusedBecause> {
    let breaker = Breaker::new(&Thresholds::default());
    match RetryPolicy::new(config).unwrap().decide(result, &breaker) {
        Decision::Retry { .. } => None,
        Decision::No(why) => Some(why),
    }
}

#[test]
fn each_condition_names_its_failures_and_no_others() {
    type On = fn(&mut RetryOn);
    let statuses: &[(On, u16, bool)] = &[
        (|o| o.server_error = true, 500, true),
        (|o| o.server_error = true, 599, true),
        (|o| o.server_error = true, 499, false),
        (|o| o.gateway_error = true, 502, true),
        (|o| o.gateway_error = true, 504, true),
        (|o| o.gateway_error = true, 500, false),
        (|o| o.gateway_error = true, 501, false),
        (|o| o.retriable_4xx = true, 409, true),
        (|o| o.retriable_4xx = true, 404, false),
        (|o| o.retriable_status_codes = true, 418, true),
        (|o| o.retriable_status_codes = true, 417, false),
        (|_| {}, 418, false),
        (|o| o.reset = true, 503, false),
        (|o| o.connect_failure = true, 503, false),
    ];
    let get = head("GET");
    let empty = Head::get("", "");
    for (on, status, expected) in statuses {
        let mut conditions = RetryOn::default();
        on(&mut conditions);
        let config = config::RetryPolicy { retriable_status_codes: vec![418], ..policy(conditions) };
        let result = attempt(&get, Ended::Response { status: *status, fields: &empty }, Reached::Yes);
        assert_eq!(why(&config, &result).is_none(), *expected, "{conditions:?} {status}");
    }
    use ResetKind as K;
    let resets: &[(On, K, Reached, bool)] = &[
        (|o| o.server_error = true, K::Remote, Reached::Maybe, true),
        (|o| o.gateway_error = true, K::Remote, Reached::Maybe, true),
        (|o| o.server_error = true, K::PerTryTimeout, Reached::Maybe, true),
        (|o| o.reset = true, K::Remote, Reached::Maybe, true),
        (|o| o.reset = true, K::Protocol, Reached::Maybe, true),
        (|o| o.reset = true, K::Overflow, Reached::No, false),
        (|o| o.server_error = true, K::Overflow, Reached::No, false),
        (|o| o.connect_failure = true, K::ConnectFailed, Reached::No, true),
        (|o| o.connect_failure = true, K::Remote, Reached::Maybe, false),
        (|o| o.refused_stream = true, K::Refused, Reached::Maybe, true),
        (|o| o.refused_stream = true, K::Remote, Reached::Maybe, false),
        (|o| o.reset_before_request = true, K::Remote, Reached::No, true),
        (|o| o.reset_before_request = true, K::Remote, Reached::Maybe, false),
        (|o| o.retriable_4xx = true, K::Remote, Reached::No, false),
    ];
    for (on, kind, reached, expected) in resets {
        let mut conditions = RetryOn::default();
        on(&mut conditions);
        let result = attempt(&get, Ended::Reset(*kind), *reached);
        assert_eq!(
            why(&policy(conditions), &result).is_none(),
            *expected,
            "{conditions:?} {kind:?} {reached:?}"
        );
    }
}

#[test]
fn grpc_conditions_look_at_the_status_of_trailers_only_responses() {
    type On = fn(&mut RetryOn);
    let table: &[(On, &str)] = &[
        (|o| o.grpc_cancelled = true, "1"),
        (|o| o.grpc_deadline_exceeded = true, "4"),
        (|o| o.grpc_resource_exhausted = true, "8"),
        (|o| o.grpc_internal = true, "13"),
        (|o| o.grpc_unavailable = true, "14"),
    ];
    let post = head("POST");
    for (on, status) in table {
        for other in ["0", "1", "4", "8", "13", "14", "2", "", "x"] {
            let fields = Head::get("", "").with("grpc-status", other);
            let mut conditions = RetryOn::default();
            on(&mut conditions);
            let mut config = policy(conditions);
            let ended = Ended::Response { status: 200, fields: &fields };
            if other == *status {
                assert_eq!(
                    why(&config, &attempt(&post, ended, Reached::Yes)),
                    Some(RefusedBecause::NotIdempotent)
                );
            }
            config.retry_non_idempotent = true;
            assert_eq!(why(&config, &attempt(&post, ended, Reached::Yes)).is_none(), other == *status);
        }
    }
}

#[test]
fn non_idempotent_requests_are_sent_again_only_when_nothing_can_have_arrived() {
    let config = policy(all_conditions());
    let empty = Head::get("", "");
    let response = Ended::Response { status: 503, fields: &empty };
    use ResetKind as K;
    for method in ["POST", "PATCH", "CONNECT", "PROPFIND", "get"] {
        let request = head(method);
        let table = [
            (Ended::Reset(K::ConnectFailed), Reached::No, true),
            // What the wire says counts more than what the caller believes, in both directions.
            (Ended::Reset(K::ConnectFailed), Reached::Maybe, true),
            (Ended::Reset(K::Refused), Reached::Maybe, true),
            (Ended::Reset(K::Remote), Reached::No, true),
            (Ended::Reset(K::Remote), Reached::Maybe, false),
            (Ended::Reset(K::PerTryTimeout), Reached::No, true),
            (Ended::Reset(K::PerTryTimeout), Reached::Maybe, false),
            (Ended::Reset(K::Protocol), Reached::Yes, false),
            (response, Reached::No, false),
            (response, Reached::Yes, false),
        ];
        for (ended, reached, expected) in table {
            let got = why(&config, &attempt(&request, ended, reached));
            let wanted = (!expected).then_some(RefusedBecause::NotIdempotent);
            assert_eq!(got, wanted, "{method} {reached:?}");
        }
        let allowed = config::RetryPolicy { retry_non_idempotent: true, ..config.clone() };
        assert_eq!(why(&allowed, &attempt(&request, response, Reached::Yes)), None);
    }
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        assert_eq!(why(&config, &attempt(&head(method), response, Reached::Yes)), None);
    }
}

#[test]
fn limits_are_granted_up_to_their_number_and_not_one_more() {
    let config = config::RetryPolicy { num_retries: 2, ..policy(all_conditions()) };
    let get = head("GET");
    let mut result = attempt(&get, Ended::Reset(ResetKind::Remote), Reached::Maybe);
    for (made, expected) in [(0, None), (1, None), (2, Some(RefusedBecause::LimitReached))] {
        result.retries_made = made;
        assert_eq!(why(&config, &result), expected);
    }
    result.retries_made = 0;
    result.response_started = true;
    assert_eq!(why(&config, &result), Some(RefusedBecause::ResponseStarted));
    result.response_started = false;
    let breaker = Breaker::new(&Thresholds { max_retries: 1, ..Thresholds::default() });
    let compiled = RetryPolicy::new(&config).unwrap();
    let first = compiled.decide(&result, &breaker);
    assert!(matches!(first, Decision::Retry { .. }));
    assert!(matches!(compiled.decide(&result, &breaker), Decision::No(RefusedBecause::Overflow)));
    drop(first);
    assert!(matches!(compiled.decide(&result, &breaker), Decision::Retry { .. }));
}

#[test]
fn rate_limited_upstreams_are_left_alone() {
    let get = head("GET");
    let of = |config: &config::RetryPolicy, name: &str| {
        let fields = Head::get("", "").with(name, "true");
        why(config, &attempt(&get, Ended::Response { status: 503, fields: &fields }, Reached::Yes))
    };
    let mut config = policy(all_conditions());
    assert_eq!(of(&config, "x-other"), None);
    // The documentation of Envoy says that this keeps it from retrying; it does not.
    assert_eq!(of(&config, "x-envoy-overloaded"), None);
    assert_eq!(of(&config, "x-envoy-ratelimited"), Some(RefusedBecause::NotRetriable));
    config.retry_on.envoy_ratelimited = true;
    assert_eq!(of(&config, "x-envoy-ratelimited"), None);
}

fn header(name: &str, value: &str) -> HeaderMatch {
    HeaderMatch {
        name: name.into(),
        value: HeaderValueMatch::Text(StringMatch::exact(value)),
        invert: false,
        treat_missing_as_empty: false,
    }
}

#[test]
fn header_conditions_of_request_and_response_hold() {
    let config = config::RetryPolicy {
        retriable_headers: vec![header("x-again", "yes")],
        retriable_request_headers: vec![header(":method", "GET")],
        ..policy(RetryOn { retriable_headers: true, ..RetryOn::default() })
    };
    let (yes, no) = (Head::get("", "").with("x-again", "yes"), Head::get("", ""));
    let of = |method: &str, fields: &Head| {
        why(&config, &attempt(&head(method), Ended::Response { status: 200, fields }, Reached::Yes))
    };
    assert_eq!(of("GET", &yes), None);
    assert_eq!(of("GET", &no), Some(RefusedBecause::NotRetriable));
    assert_eq!(of("PUT", &yes), Some(RefusedBecause::NotRetriable));
}

#[test]
fn the_wait_is_the_upstreams_where_it_gives_one() {
    let rule = RateLimitedBackoff {
        reset_headers: vec![ResetHeader { name: "retry-after".into(), format: ResetHeaderFormat::Seconds }],
        max_interval: Duration::from_secs(300),
    };
    let config = config::RetryPolicy { rate_limited: Some(rule), ..policy(all_conditions()) };
    let compiled = RetryPolicy::new(&config).unwrap();
    let breaker = Breaker::new(&Thresholds::default());
    let get = head("GET");
    let wait = |fields: &Head| match compiled
        .decide(&attempt(&get, Ended::Response { status: 503, fields }, Reached::Yes), &breaker)
    {
        Decision::Retry { after, permit, .. } => {
            drop(permit);
            after
        }
        Decision::No(why) => panic!("{why:?}"),
    };
    assert_eq!(wait(&Head::get("", "").with("retry-after", "3")), Duration::from_secs(3));
    assert_eq!(wait(&Head::get("", "")), Duration::ZERO, "a draw of 0 is the shortest exponential wait");
    assert_eq!(breaker.active(Limited::Retries), 0);
}

#[test]
fn bad_policies_are_refused_with_their_paths() {
    let config = config::RetryPolicy {
        base_interval: Duration::from_secs(1),
        max_interval: Duration::from_millis(1),
        retriable_headers: vec![header(":path", "x")],
        rate_limited: Some(RateLimitedBackoff { reset_headers: Vec::new(), max_interval: Duration::ZERO }),
        ..config::RetryPolicy::default()
    };
    let paths: Vec<_> = RetryPolicy::new(&config).unwrap_err().into_iter().map(|(p, _)| p).collect();
    assert_eq!(
        paths,
        ["retriable_headers[0]", "retry_back_off.max_interval", "rate_limited_retry_back_off.reset_headers"]
    );
}

proptest! {
    /// The one promise that no combination may break.
    #[test]
    fn a_non_idempotent_request_is_never_repeated_after_it_may_have_arrived(
        status in 100u16..600,
        kind in prop::sample::select(vec![ResetKind::Remote, ResetKind::PerTryTimeout, ResetKind::Protocol, ResetKind::Overflow]),
        is_response: bool,
        reached in prop::sample::select(vec![Reached::Maybe, Reached::Yes]),
        bits: u16,
        method in prop::sample::select(vec!["POST", "PATCH", "CONNECT", "LOCK"]),
    ) {
        let bit = |n: u16| bits >> n & 1 == 1;
        let retry_on = RetryOn {
            server_error: bit(0), gateway_error: bit(1), reset: bit(2), reset_before_request: bit(3),
            connect_failure: bit(4), refused_stream: bit(5), retriable_4xx: bit(6), retriable_status_codes: bit(7),
            retriable_headers: bit(8), envoy_ratelimited: bit(9), grpc_cancelled: bit(10), grpc_deadline_exceeded: bit(11),
            grpc_internal: bit(12), grpc_resource_exhausted: bit(13), grpc_unavailable: bit(14),
        };
        let config = config::RetryPolicy { retriable_status_codes: vec![status], ..policy(retry_on) };
        let fields = Head::get("", "").with("grpc-status", "14").with("x-envoy-ratelimited", "true");
        let ended = if is_response { Ended::Response { status, fields: &fields } } else { Ended::Reset(kind) };
        let request = head(method);
        prop_assert!(why(&config, &attempt(&request, ended, reached)).is_some());
    }
}
