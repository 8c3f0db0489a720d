//! Bodies that take their time (`envoy.extensions.filters.http.bandwidth_limit.v3`).

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How fast bodies may be, all requests of the filter (or of a route, where it has one of its own) together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BandwidthLimit {
    /// Bodies of requests are limited.
    pub request: bool,
    /// Bodies of responses are limited.
    pub response: bool,
    /// KiB per second, at least 1; `None`: no limit here, routes have theirs.
    pub limit_kbps: Option<u64>,
    /// How often more may pass, 20 ms to 1 s. Default 50 ms.
    pub fill_interval: Duration,
    /// It is on at all. Default true.
    pub enabled: bool,
}
