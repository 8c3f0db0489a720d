//! Faults that are put in, and what holds for pages of other origins.

use std::time::Duration;

use outrigger_traffic::config::{CorsPolicy, Fault, FaultAbort, FaultDelay, Fraction, StringMatch};

use super::http::percentage;
use crate::resource::read::{Fields, Node};
use crate::resource::shape;

/// The names of gRPC's statuses, by number.
const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// `HTTPFaultInjection`.
pub(super) fn read_fault(node: &Node<'_>) -> Option<Fault> {
    node.message(&shape::FAULT, |f| {
        let delay = f.field("delay").and_then(|n| read_delay(&n));
        let abort = f.field("abort").and_then(|n| read_abort(&n));
        if f.field("delay").is_none() && f.field("abort").is_none() {
            f.problem("", "one of delay and abort is needed");
        }
        Fault { delay, abort, ..Fault::default() }
    })
}

fn read_delay(node: &Node<'_>) -> Option<FaultDelay> {
    node.message(&shape::FAULT_DELAY, |f| {
        let fixed = f.required("fixedDelay").map(|n| {
            let fixed = n.duration();
            if fixed < Duration::from_millis(1) {
                n.problem("must be at least 1ms");
            }
            fixed
        });
        let share = match (f.field("percentage"), f.field("percent")) {
            (Some(node), _) => percentage(&node),
            (None, Some(node)) => Fraction::from_millionths(node.number(0, 100) * 10_000),
            (None, None) => Fraction::ONE,
        };
        FaultDelay { fixed, percentage: share }
    })
}

fn read_abort(node: &Node<'_>) -> Option<FaultAbort> {
    node.message(&shape::FAULT_ABORT, |f| {
        let share = f.field("percentage").map_or(Fraction::ONE, |n| percentage(&n));
        match (f.field("httpStatus"), f.field("grpcStatus")) {
            (Some(node), None) => {
                let status = node.number(200, 599);
                Some(FaultAbort::Http(u16::try_from(status).unwrap_or(500), share))
            }
            (None, Some(node)) => {
                let name = node.text();
                let Some(number) = GRPC_STATUSES.iter().position(|one| *one == name) else {
                    node.problem(format!("{name:?} is no status of gRPC, such as UNAVAILABLE"));
                    return None;
                };
                Some(FaultAbort::Grpc(u32::try_from(number).unwrap_or(2), share))
            }
            _ => {
                f.problem("", "exactly one of httpStatus and grpcStatus is needed");
                None
            }
        }
    })
    .flatten()
}

/// `CorsPolicy`.
pub(super) fn read_cors(node: &Node<'_>) -> Option<CorsPolicy> {
    node.message(&shape::CORS, |f| {
        let mut allow_origin: Vec<StringMatch> =
            f.list("allowOrigins").iter().filter_map(|n| n.string_match(false)).collect();
        allow_origin.extend(f.texts("allowOrigin").into_iter().map(StringMatch::exact));
        CorsPolicy {
            allow_origin,
            allow_methods: list(f, "allowMethods"),
            allow_headers: list(f, "allowHeaders"),
            expose_headers: list(f, "exposeHeaders"),
            max_age: f.field("maxAge").map(|n| n.duration().as_secs().to_string()).unwrap_or_default(),
            allow_credentials: f.field("allowCredentials").map(|n| n.flag()),
            enabled: None,
            shadow: None,
            allow_private_network_access: None,
            forward_not_matching_preflights: f
                .field("unmatchedPreflights")
                .and_then(|n| n.word(&[("UNSPECIFIED", true), ("FORWARD", true), ("IGNORE", false)], &[])),
        }
    })
}

fn list(f: &Fields<'_>, name: &'static str) -> String {
    f.texts(name).join(",")
}
