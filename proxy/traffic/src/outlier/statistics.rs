//! Failures against those of the other hosts, once per interval.
//!
//! Every host counts the requests of an interval and those that succeeded. At its end the hosts with enough requests are
//! compared: by success rate with the mean of all (a host below mean − factor × standard deviation goes), and by share of
//! failures with a fixed threshold. What is local (no connection, reset, timeout) is compared apart where it is counted
//! apart. Source: Envoy: outlier detection, "success rate" and "failure percentage".

use super::Cause;
use crate::cluster::Host;
use crate::config::{Fraction, OutlierDetection};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Requests of the running interval, and the rate of the last one.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Requests in the upper half, successes in the lower: one operation counts both.
    running: AtomicU64,
    /// Success rate of the last interval in hundredths of a percent, plus one; 0: too few requests.
    rate: AtomicU32,
}

/// A finished interval of one host.
#[derive(Clone, Copy)]
struct Tally {
    total: u32,
    /// 0 to 100.
    success_rate: f64,
}

impl Window {
    pub(super) fn count(&self, success: bool) {
        self.running.fetch_add((1 << 32) | u64::from(success), Relaxed);
    }

    pub(super) fn forget(&self) {
        self.running.store(0, Relaxed);
    }

    /// Success rate of the last interval, 0 to 100; `None` where there were too few requests.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate.load(Relaxed).checked_sub(1).map(|hundredths| f64::from(hundredths) / 100.0)
    }

    /// Ends the interval. `None`: there was no request.
    fn take(&self, volume_shown: u32) -> Option<Tally> {
        let both = self.running.swap(0, Relaxed);
        let (total, success) = ((both >> 32) as u32, (both & u64::from(u32::MAX)) as u32);
        let tally =
            (total > 0).then(|| Tally { total, success_rate: f64::from(success) * 100.0 / f64::from(total) });
        let shown = tally.filter(|tally| tally.total >= volume_shown);
        self.rate.store(shown.map_or(0, |tally| (tally.success_rate * 100.0) as u32 + 1), Relaxed);
        tally
    }
}

/// What a comparison is about.
#[derive(Clone, Copy)]
struct Comparison {
    success_rate: Cause,
    enforcing_success_rate: Fraction,
    failure_percentage: Cause,
    enforcing_failure_percentage: Fraction,
    window: fn(&Host) -> &Window,
}

fn comparisons(rules: &OutlierDetection) -> [Comparison; 2] {
    let (rate, percentage) = (&rules.success_rate, &rules.failure_percentage);
    [
        Comparison {
            success_rate: Cause::SuccessRate,
            enforcing_success_rate: rate.enforcing,
            failure_percentage: Cause::FailurePercentage,
            enforcing_failure_percentage: percentage.enforcing,
            window: |host| &host.live.outlier.external,
        },
        Comparison {
            success_rate: Cause::LocalOriginSuccessRate,
            enforcing_success_rate: rate.enforcing_local_origin,
            failure_percentage: Cause::LocalOriginFailurePercentage,
            enforcing_failure_percentage: percentage.enforcing_local_origin,
            window: |host| &host.live.outlier.local,
        },
    ]
}

/// Whether responses, and whether local failures, need to be counted: a comparison that is never enforced is not made.
pub(super) fn are_counted(rules: &OutlierDetection) -> (bool, bool) {
    let [external, local] = comparisons(rules).map(|one| {
        one.enforcing_success_rate != Fraction::ZERO || one.enforcing_failure_percentage != Fraction::ZERO
    });
    (external, local && rules.split_external_local_origin_errors)
}

/// Ends the interval of all hosts and says which deserve to go, and why. Hosts that are out are not compared.
pub(super) fn compare(rules: &OutlierDetection, all: &[Arc<Host>]) -> Vec<(Arc<Host>, Cause)> {
    comparisons(rules).iter().flat_map(|one| compare_one(rules, one, all)).collect()
}

fn compare_one(rules: &OutlierDetection, one: &Comparison, all: &[Arc<Host>]) -> Vec<(Arc<Host>, Cause)> {
    let (rate, percentage) = (&rules.success_rate, &rules.failure_percentage);
    let volume_shown = rate.request_volume.min(percentage.request_volume);
    let tallies: Vec<(&Arc<Host>, Tally)> = all
        .iter()
        .filter_map(|host| (one.window)(host).take(volume_shown).map(|tally| (host, tally)))
        .filter(|(host, _)| !host.is_ejected())
        .collect();
    let enough = |volume: u32, hosts: u32| -> Vec<(&Arc<Host>, Tally)> {
        let valid: Vec<_> = tallies.iter().filter(|(_, tally)| tally.total >= volume).copied().collect();
        if valid.len() >= usize::try_from(hosts).unwrap_or(usize::MAX) { valid } else { Vec::new() }
    };
    let mut found = Vec::new();
    if one.enforcing_success_rate != Fraction::ZERO {
        let valid = enough(rate.request_volume, rate.minimum_hosts);
        let factor = f64::from(rate.stdev_factor_thousandths) / 1000.0;
        let least = threshold(valid.iter().map(|(_, tally)| tally.success_rate), factor);
        let below = valid.iter().filter(|(_, tally)| tally.success_rate < least);
        found.extend(below.map(|(host, _)| (Arc::clone(host), one.success_rate)));
    }
    if one.enforcing_failure_percentage != Fraction::ZERO {
        let valid = enough(percentage.request_volume, percentage.minimum_hosts);
        let most = f64::from(percentage.threshold);
        let above = valid.iter().filter(|(_, tally)| 100.0 - tally.success_rate >= most);
        found.extend(above.map(|(host, _)| (Arc::clone(host), one.failure_percentage)));
    }
    found
}

/// Mean − factor × standard deviation (of the whole population); of nobody, below every rate.
fn threshold(rates: impl Iterator<Item = f64> + Clone, factor: f64) -> f64 {
    let count = rates.clone().count() as f64;
    if count == 0.0 {
        return f64::NEG_INFINITY;
    }
    let mean = rates.clone().sum::<f64>() / count;
    let variance = rates.map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    mean - factor * variance.sqrt()
}

#[cfg(test)]
mod tests;
