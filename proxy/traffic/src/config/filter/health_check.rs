//! Answers to health checks of whoever sends requests here (`envoy.extensions.filters.http.health_check.v3`).

use crate::config::HeaderMatch;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Requests that match all criteria are health checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthCheckFilter {
    /// They go on to the upstream, and are answered here only from what it said before. Otherwise they are answered here.
    pub pass_through: bool,
    /// How long an upstream's answer is good for; `None`: every check goes on.
    pub cache_time: Option<Duration>,
    /// Clusters that must have at least so many whole percents of their hosts healthy or degraded for a 200.
    pub cluster_min_healthy: Vec<(String, u32)>,
    /// Criteria.
    pub headers: Vec<HeaderMatch>,
}
