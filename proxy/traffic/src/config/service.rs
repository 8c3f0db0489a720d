//! Services that filters ask: where they are, and how long they have.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where an HTTP service is (`envoy.config.core.v3.HttpUri`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpTarget {
    /// The cluster that reaches it.
    pub cluster: String,
    /// The scheme is `https`; whether TLS is spoken is the cluster's.
    pub https: bool,
    /// Host and port, as requests have them.
    pub authority: String,
    /// Path and query; begins with a slash.
    pub path: String,
    /// For the whole answer; zero: no limit.
    pub timeout: Duration,
}

/// Where a gRPC service is (`envoy.config.core.v3.GrpcService`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrpcTarget {
    /// The cluster that reaches it.
    pub cluster: String,
    /// Authority of the calls; empty: the cluster's name.
    pub authority: String,
    /// For a call; zero: no limit.
    pub timeout: Duration,
    /// Header fields of the calls: lower-case name, value.
    pub metadata: Vec<(String, String)>,
}

/// How often a failed call is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRetry {
    /// Calls after the first one.
    pub retries: u32,
    /// The n-th wait is random in [0, base·2ⁿ), capped by the next.
    pub base_interval: Duration,
    /// Longest interval.
    pub max_interval: Duration,
}
