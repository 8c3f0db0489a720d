//! Failures in a row.

use super::ejection::Record;
use super::statistics::{Window, are_counted};
use crate::cluster::HostLive;
use crate::config::OutlierDetection;
use crate::outcome::Outcome;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Why a host is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// 5xx in a row.
    Consecutive5xx,
    /// 502, 503, 504 in a row.
    ConsecutiveGatewayFailure,
    /// Connect failures, resets, timeouts in a row, where they are counted apart.
    ConsecutiveLocalOriginFailure,
    /// A success rate far below the mean of all hosts.
    SuccessRate,
    /// The same of local failures, where they are counted apart.
    LocalOriginSuccessRate,
    /// Too large a share of failures.
    FailurePercentage,
    /// The same of local failures, where they are counted apart.
    LocalOriginFailurePercentage,
}

/// What is remembered of a host.
#[derive(Debug, Default)]
pub struct HostState {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local: AtomicU32,
    /// Answers of the interval.
    pub(super) external: Window,
    /// Ways to the host in the interval, where local failures are counted apart.
    pub(super) local: Window,
    /// Touched only when the host goes out or comes back.
    pub(super) record: Mutex<Record>,
}

impl HostState {
    pub(super) fn reset(&self, cause: Cause) {
        if let Some(counter) = self.counter(cause) {
            counter.store(0, Relaxed);
        }
    }

    pub(crate) fn success_rate(&self) -> Option<f64> {
        self.external.rate()
    }

    pub(crate) fn local_origin_success_rate(&self) -> Option<f64> {
        self.local.rate()
    }

    pub(super) fn reset_all(&self) {
        for counter in [&self.consecutive_5xx, &self.consecutive_gateway, &self.consecutive_local] {
            counter.store(0, Relaxed);
        }
        self.external.forget();
        self.local.forget();
    }

    fn counter(&self, cause: Cause) -> Option<&AtomicU32> {
        match cause {
            Cause::Consecutive5xx => Some(&self.consecutive_5xx),
            Cause::ConsecutiveGatewayFailure => Some(&self.consecutive_gateway),
            Cause::ConsecutiveLocalOriginFailure => Some(&self.consecutive_local),
            Cause::SuccessRate
            | Cause::LocalOriginSuccessRate
            | Cause::FailurePercentage
            | Cause::LocalOriginFailurePercentage => None,
        }
    }

    fn count(&self, cause: Cause, failed: bool, threshold: u32) -> Option<Cause> {
        let counter = self.counter(cause)?;
        if !failed {
            // Read first: successes are the rule, and a store would bounce the cache line between workers.
            if counter.load(Relaxed) != 0 {
                counter.store(0, Relaxed);
            }
            return None;
        }
        // `>=`: a threshold that could not be acted upon is found again by the next failure.
        // A threshold of 0 never fires, as in Envoy, whose counter starts at 1.
        let reached = counter.fetch_add(1, Relaxed).saturating_add(1) >= threshold;
        (reached && threshold > 0).then_some(cause)
    }
}

/// The rules of counting, with what follows from them.
#[derive(Clone, Debug)]
pub(super) struct Counting {
    /// Answers are counted for the statistics.
    external: bool,
    /// Ways to the host are.
    local: bool,
}

impl Counting {
    pub(super) fn new(rules: &OutlierDetection) -> Self {
        let (external, local) = are_counted(rules);
        Self { external, local }
    }
}

/// Counts an outcome and says which thresholds are reached. A host that is out is not counted.
pub(super) fn observe(
    rules: &OutlierDetection,
    counting: &Counting,
    live: &HostLive,
    outcome: Outcome,
) -> [Option<Cause>; 2] {
    if live.ejected.load(Relaxed) {
        return [None, None];
    }
    let state = &live.outlier;
    let split = rules.split_external_local_origin_errors;
    let local = |failed: bool| {
        if counting.local {
            state.local.count(!failed);
        }
        state.count(Cause::ConsecutiveLocalOriginFailure, failed, rules.consecutive_local_origin_failure)
    };
    // Not apart, a local failure counts as the status that the client is answered with.
    // Source: Envoy: outlier detection, "locally originated vs externally originated errors".
    let status = match outcome {
        Outcome::Response(status) => {
            if split {
                local(false);
            }
            status
        }
        Outcome::Connected if split => return [local(false), None],
        Outcome::Connected => return [None, None],
        Outcome::ConnectFailed | Outcome::Timeout | Outcome::Reset if split => return [local(true), None],
        Outcome::ConnectFailed | Outcome::Reset => 503,
        Outcome::Timeout => 504,
    };
    if counting.external {
        state.external.count(status < 500);
    }
    [
        state.count(Cause::Consecutive5xx, status >= 500, rules.consecutive_5xx),
        state.count(
            Cause::ConsecutiveGatewayFailure,
            matches!(status, 502..=504),
            rules.consecutive_gateway_failure,
        ),
    ]
}
