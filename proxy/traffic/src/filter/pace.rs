//! How fast bytes may pass: a bucket of bytes in one number that all workers share.
//!
//! As [`TokenBucket`](super::token_bucket::TokenBucket) it keeps the time at which it was, or would have been, empty; but it
//! gives as many bytes as there are, up to what is asked for. It holds a second's bytes at most, and those of one interval
//! at first. Source: Envoy: bandwidth limit filter, and the response rate limit of its fault filter.

use crate::config;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Most that is saved up.
const SAVED: u64 = NANOS_PER_SECOND;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Envoy's interval where nobody says otherwise.
const INTERVAL: Duration = Duration::from_millis(50);
/// Above this a limit is none, and its arithmetic stays far from its ends: a TiB per second.
const KBPS_MAX: u64 = 1 << 30;

/// Bytes that may pass over time.
#[derive(Debug)]
pub struct Pace {
    /// Nanoseconds; 0: nothing has passed yet.
    empty_at: AtomicU64,
    bytes_per_second: u64,
    interval: Duration,
}

impl Pace {
    /// So many KiB per second, at least one.
    pub fn new(kbps: u64, interval: Duration) -> Self {
        let bytes_per_second = kbps.clamp(1, KBPS_MAX) * 1024;
        Self { empty_at: AtomicU64::new(0), bytes_per_second, interval }
    }

    /// As many of `wanted` bytes as may pass now, at least one.
    ///
    /// `now` is in nanoseconds of a clock that only grows and is above a second.
    ///
    /// # Errors
    /// None may: after how long to ask again.
    pub fn take(&self, now: u64, wanted: usize) -> Result<usize, Duration> {
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(SAVED);
        let mut taken = 0;
        let after = |empty_at: u64| {
            let begun = if empty_at == 0 { now.saturating_sub(interval) } else { empty_at };
            let begun = begun.max(now.saturating_sub(SAVED));
            let saved = u128::from(now.saturating_sub(begun));
            let there = saved * u128::from(self.bytes_per_second) / u128::from(NANOS_PER_SECOND);
            taken = wanted.min(u64::try_from(there).unwrap_or(u64::MAX));
            let cost = u128::from(taken) * u128::from(NANOS_PER_SECOND);
            let cost = cost.div_ceil(u128::from(self.bytes_per_second));
            (taken > 0).then(|| begun.saturating_add(u64::try_from(cost).unwrap_or(SAVED)).max(1))
        };
        match self.empty_at.fetch_update(Relaxed, Relaxed, after) {
            Ok(_) => Ok(usize::try_from(taken).unwrap_or(usize::MAX)),
            Err(_) => Err(self.interval),
        }
    }
}

/// A bandwidth limit, compiled.
#[derive(Debug)]
pub struct BandwidthLimit {
    /// What was asked for.
    pub config: config::BandwidthLimit,
    /// Of all requests and responses together; `None`: there is no limit here.
    pub pace: Option<std::sync::Arc<Pace>>,
}

impl BandwidthLimit {
    /// Makes it ready; `refuse` is told path and reason of everything wrong. A route `needs_limit`.
    pub(crate) fn new(
        from: &config::BandwidthLimit,
        needs_limit: bool,
        refuse: &mut dyn FnMut(String, String),
    ) -> Self {
        if from.limit_kbps == Some(0) {
            refuse("limit_kbps".into(), "must be at least 1".into());
        }
        if from.limit_kbps.is_none() && needs_limit {
            refuse("limit_kbps".into(), "is required on a route".into());
        }
        if !(Duration::from_millis(20)..=Duration::from_secs(1)).contains(&from.fill_interval) {
            refuse("fill_interval".into(), "must be between 0.02s and 1s".into());
        }
        let pace = from.limit_kbps.map(|kbps| std::sync::Arc::new(Pace::new(kbps, from.fill_interval)));
        Self { config: from.clone(), pace }
    }
}

/// The pace of one response that a fault slows down.
pub fn of_fault(kbps: u64) -> Pace {
    Pace::new(kbps, INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: u64 = 1_000 * NANOS_PER_SECOND;
    const MS: u64 = 1_000_000;

    #[test]
    fn an_interval_is_there_at_first_and_a_second_at_most() {
        let pace = Pace::new(20, INTERVAL);
        assert_eq!(pace.take(START, 10_000), Ok(1024));
        assert_eq!(pace.take(START, 1), Err(INTERVAL));
        assert_eq!(pace.take(START + 50 * MS, 10_000), Ok(1024));
        assert_eq!(pace.take(START + 5 * NANOS_PER_SECOND, 1 << 20), Ok(20 * 1024));
        assert_eq!(pace.take(START + 5 * NANOS_PER_SECOND, 1), Err(INTERVAL));
    }

    #[test]
    fn what_is_not_asked_for_stays() {
        let pace = Pace::new(20, INTERVAL);
        assert_eq!(pace.take(START, 1000), Ok(1000));
        assert_eq!(pace.take(START, 1000), Ok(24));
    }

    #[test]
    fn the_greatest_limit_does_not_overflow() {
        let pace = Pace::new(u64::MAX, INTERVAL);
        assert_eq!(pace.take(START, 1 << 30), Ok(1 << 30));
    }

    proptest! {
        /// However it is asked, no more passes than the rate allows, and one who always asks gets nearly that.
        #[test]
        fn as_much_passes_as_the_rate_allows(kbps in 1..100_000u64, steps in prop::collection::vec(1..200u64, 1..60)) {
            let pace = Pace::new(kbps, INTERVAL);
            let (mut now, mut passed) = (START, 0);
            for step in steps {
                while let Ok(taken) = pace.take(now, 1 << 24) {
                    prop_assert!(taken > 0);
                    passed += taken as u64;
                }
                now += step * MS;
            }
            while let Ok(taken) = pace.take(now, 1 << 24) {
                passed += taken as u64;
            }
            let allowed = (now - START + 50 * MS) as u128 * u128::from(kbps * 1024) / u128::from(NANOS_PER_SECOND);
            let allowed = u64::try_from(allowed).unwrap_or(u64::MAX);
            prop_assert!(passed <= allowed, "{passed} of {allowed}");
            prop_assert!(passed + 200 >= allowed, "{passed} of {allowed}");
        }
    }
}
