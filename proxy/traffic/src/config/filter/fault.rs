//! Fault injection (`envoy.extensions.filters.http.fault.v3`).

use crate::config::{Fraction, HeaderMatch};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Faults put in on purpose: requests are delayed, answered here, or both. Requests that do not meet all conditions pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The request waits.
    pub delay: Option<FaultDelay>,
    /// The request is answered here.
    pub abort: Option<FaultAbort>,
    /// Only requests to this cluster; empty: to any.
    pub upstream_cluster: String,
    /// Only requests that match all of these.
    pub headers: Vec<HeaderMatch>,
    /// Only requests whose `x-envoy-downstream-service-node` is one of these; empty: any.
    pub downstream_nodes: Vec<String>,
    /// The response is slow.
    pub response_rate: Option<FaultRate>,
    /// Most faults at a time on this proxy; `None`: no limit.
    pub max_active_faults: Option<u32>,
}

/// How long requests wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultDelay {
    /// How long; `None`: as the request's `x-envoy-fault-delay-request` says, in milliseconds.
    pub fixed: Option<Duration>,
    /// Share of the requests.
    pub percentage: Fraction,
}

/// How fast the body of the response is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRate {
    /// KiB per second, at least 1; `None`: as the request's `x-envoy-fault-throughput-response` says.
    pub fixed_kbps: Option<u64>,
    /// Share of the requests.
    pub percentage: Fraction,
}

/// What requests are answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultAbort {
    /// This status, 200..=599.
    Http(u16, Fraction),
    /// This gRPC status.
    Grpc(u32, Fraction),
    /// As the request's `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says.
    Header(Fraction),
}
