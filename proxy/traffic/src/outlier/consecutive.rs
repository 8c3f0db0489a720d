//! Failures in a row.

use super::ejection::Record;
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
}

/// What is remembered of a host.
#[derive(Debug, Default)]
pub struct HostState {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local: AtomicU32,
    /// Touched only when the host goes out or comes back.
    pub(super) record: Mutex<Record>,
}

impl HostState {
    pub(super) fn reset(&self, cause: Cause) {
        self.counter(cause).store(0, Relaxed);
    }

    pub(super) fn reset_all(&self) {
        for counter in [&self.consecutive_5xx, &self.consecutive_gateway, &self.consecutive_local] {
            counter.store(0, Relaxed);
        }
    }

    fn counter(&self, cause: Cause) -> &AtomicU32 {
        match cause {
            Cause::Consecutive5xx => &self.consecutive_5xx,
            Cause::ConsecutiveGatewayFailure => &self.consecutive_gateway,
            Cause::ConsecutiveLocalOriginFailure => &self.consecutive_local,
        }
    }

    fn count(&self, cause: Cause, failed: bool, threshold: u32) -> Option<Cause> {
        let counter = self.counter(cause);
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

/// Counts an outcome and says which thresholds are reached. A host that is out is not counted.
pub(super) fn observe(rules: &OutlierDetection, live: &HostLive, outcome: Outcome) -> [Option<Cause>; 2] {
    if live.ejected.load(Relaxed) {
        return [None, None];
    }
    let state = &live.outlier;
    let split = rules.split_external_local_origin_errors;
    let local = |failed| {
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
    [
        state.count(Cause::Consecutive5xx, status >= 500, rules.consecutive_5xx),
        state.count(
            Cause::ConsecutiveGatewayFailure,
            matches!(status, 502..=504),
            rules.consecutive_gateway_failure,
        ),
    ]
}
