//! Taking hosts out and bringing them back.

use super::Ejection;
use crate::cluster::Host;
use crate::config::OutlierDetection;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When a host went out, and how often it did.
#[derive(Debug, Default)]
pub(super) struct Record {
    ejected_at: Option<Instant>,
    /// Random addition to this ejection.
    jitter: Duration,
    /// Multiplies the base time; goes down by one with every sweep that finds the host in.
    multiplier: u32,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Hosts brought back.
    pub returned: u32,
    /// Hosts out now (`outlier_detection.ejections_active`).
    pub ejected: u32,
    /// What the statistics of the interval led to.
    pub judged: Vec<Ejection>,
}

/// Takes a host out, unless it is out or too many are. One host may always be taken out.
pub(super) fn eject(
    rules: &OutlierDetection,
    host: &Host,
    all: &[Arc<Host>],
    now: Instant,
    draw: u32,
) -> bool {
    if host.is_ejected() {
        return false;
    }
    let out = all.iter().filter(|h| h.is_ejected()).count() as u64;
    let most = u64::from(rules.max_ejection_percent) * all.len() as u64;
    if (out > 0 || !rules.always_eject_one_host) && (out + 1) * 100 > most {
        return false;
    }
    let mut record = lock(host);
    record.ejected_at = Some(now);
    record.multiplier = record.multiplier.saturating_add(1);
    record.jitter = rules.max_ejection_time_jitter.mul_f64(f64::from(draw) / (f64::from(u32::MAX) + 1.0));
    host.live.ejected.store(true, Relaxed);
    true
}

/// Brings a host back before its time. Returns whether it was out.
pub(super) fn uneject(host: &Host) -> bool {
    let mut record = lock(host);
    if !host.is_ejected() {
        return false;
    }
    record.ejected_at = None;
    host.live.outlier.reset_all();
    host.live.ejected.store(false, Relaxed);
    true
}

/// Brings back hosts whose time is over, and forgives those that are in.
pub(super) fn sweep(rules: &OutlierDetection, all: &[Arc<Host>], now: Instant) -> Sweep {
    let longest = rules.max_ejection_time.max(rules.base_ejection_time);
    let mut found = Sweep::default();
    for host in all {
        let mut record = lock(host);
        if !host.is_ejected() {
            record.multiplier = record.multiplier.saturating_sub(1);
            continue;
        }
        let time = rules.base_ejection_time.saturating_mul(record.multiplier).min(longest) + record.jitter;
        let over = record.ejected_at.is_none_or(|at| now.saturating_duration_since(at) >= time);
        if over {
            record.ejected_at = None;
            host.live.outlier.reset_all();
            host.live.ejected.store(false, Relaxed);
            found.returned += 1;
        } else {
            found.ejected += 1;
        }
    }
    found
}

fn lock(host: &Host) -> MutexGuard<'_, Record> {
    host.live.outlier.record.lock().unwrap_or_else(PoisonError::into_inner)
}
