//! Passive removal of hosts that fail ("outlier ejection").
//!
//! [`consecutive`] counts failures in a row on the data path; [`statistics`] compares hosts once per interval;
//! [`ejection`] takes hosts out and brings them back. Source: Envoy: outlier detection.

mod consecutive;
mod ejection;
mod statistics;

pub use consecutive::{Cause, HostState};
pub use ejection::Sweep;

use consecutive::Counting;

use crate::cluster::{Host, HostLive};
use crate::config::OutlierDetection;
use crate::outcome::Outcome;
use std::sync::Arc;
use std::time::Instant;

/// What a report led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// Nothing.
    None,
    /// The host was taken out (`outlier_detection.ejections_enforced_…`).
    Ejected(Cause),
    /// It would have been, but the share of enforcing said no (`ejections_detected_…`).
    NotEnforced(Cause),
    /// It would have been, but too many are out (`ejections_overflow`).
    Overflow(Cause),
}

/// The rules of a cluster.
#[derive(Clone, Debug)]
pub struct Detector {
    rules: OutlierDetection,
    counting: Counting,
}

impl Detector {
    /// A detector with these rules.
    pub fn new(rules: &OutlierDetection) -> Self {
        Self { rules: rules.clone(), counting: Counting::new(rules) }
    }

    /// Counts an outcome. Says which thresholds are reached.
    pub(crate) fn observe(&self, live: &HostLive, outcome: Outcome) -> [Option<Cause>; 2] {
        consecutive::observe(&self.rules, &self.counting, live, outcome)
    }

    /// Whether a threshold that was reached is acted upon.
    pub(crate) fn is_enforced(&self, cause: Cause, draw: u32) -> bool {
        let share = match cause {
            Cause::Consecutive5xx => self.rules.enforcing_consecutive_5xx,
            Cause::ConsecutiveGatewayFailure => self.rules.enforcing_consecutive_gateway_failure,
            Cause::ConsecutiveLocalOriginFailure => self.rules.enforcing_consecutive_local_origin_failure,
            Cause::SuccessRate => self.rules.success_rate.enforcing,
            Cause::LocalOriginSuccessRate => self.rules.success_rate.enforcing_local_origin,
            Cause::FailurePercentage => self.rules.failure_percentage.enforcing,
            Cause::LocalOriginFailurePercentage => self.rules.failure_percentage.enforcing_local_origin,
        };
        share.contains(draw)
    }

    /// Starts counting from zero again.
    pub(crate) fn forget(&self, live: &HostLive, cause: Cause) {
        live.outlier.reset(cause);
    }

    /// Takes a host out where the rules allow it. The caller holds the cluster's turn.
    pub(crate) fn eject(&self, host: &Host, all: &[Arc<Host>], now: Instant, draw: u32) -> bool {
        ejection::eject(&self.rules, host, all, now, draw)
    }

    /// Brings a host back that is out. The caller holds the cluster's turn.
    pub(crate) fn uneject(&self, host: &Host) -> bool {
        self.rules.successful_active_health_check_uneject_host && ejection::uneject(host)
    }

    /// Ends an interval: which hosts the statistics speak against.
    pub(crate) fn compare(&self, all: &[Arc<Host>]) -> Vec<(Arc<Host>, Cause)> {
        statistics::compare(&self.rules, all)
    }

    /// Brings hosts back whose time is over. The caller holds the cluster's turn.
    pub(crate) fn sweep(&self, all: &[Arc<Host>], now: Instant) -> Sweep {
        ejection::sweep(&self.rules, all, now)
    }
}

#[cfg(test)]
mod tests;
