//! How long to wait before a stream is opened again.
//!
//! A random time between zero and a bound that doubles with every stream that failed: proxies that lost their control
//! service together do not come back together. Source: Envoy: `JitteredExponentialBackOffStrategy`. Envoy's largest bound
//! is 30 s; ours is [`MAX`]: the control service of a mesh comes back on the same host within seconds, and proxies that
//! stay away longer run on old endpoints, while a few hundred connection attempts a second cost it nothing.

use std::time::Duration;

/// First bound, unless the bootstrap says otherwise. Envoy's.
pub const BASE: Duration = Duration::from_millis(500);
/// Largest bound, unless the bootstrap says otherwise.
pub const MAX: Duration = Duration::from_secs(5);
/// A stream that lived so long was a good one: the next wait is as after the first failure.
pub const GOOD: Duration = Duration::from_secs(5);

/// Bounds of the wait (`retry_back_off`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bounds {
    /// Of the first wait.
    pub base: Duration,
    /// Of every later wait; at least `base`.
    pub max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { base: BASE, max: MAX }
    }
}

/// The waits between streams.
#[derive(Debug)]
pub(super) struct Backoff {
    bounds: Bounds,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, next: bounds.base }
    }

    /// How long to wait after a stream that lived so long (`None`: it was never open). `draw` is in `0.0..1.0`.
    pub(super) fn after(&mut self, lived: Option<Duration>, draw: f64) -> Duration {
        if lived.is_some_and(|lived| lived >= GOOD) {
            self.next = self.bounds.base;
        }
        let wait = self.next.mul_f64(draw.clamp(0.0, 1.0));
        self.next = self.next.saturating_mul(2).min(self.bounds.max).max(self.bounds.base);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_doubles_up_to_the_largest_and_a_good_stream_resets_it() {
        let mut backoff = Backoff::new(Bounds::default());
        let mut bounds = |lived: Option<Duration>, times: usize| -> Vec<u64> {
            (0..times).map(|_| backoff.after(lived, 1.0).as_millis() as u64).collect()
        };
        assert_eq!(bounds(None, 6), [500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(bounds(Some(GOOD - Duration::from_millis(1)), 1), [5000], "it flaps");
        assert_eq!(bounds(Some(GOOD), 1), [500]);
        assert_eq!(bounds(None, 1), [1000]);
    }

    #[test]
    fn wait_is_anything_below_the_bound_and_the_bootstrap_may_set_it() {
        let bounds = Bounds { base: Duration::from_secs(2), max: Duration::from_secs(60) };
        let mut backoff = Backoff::new(bounds);
        let waits: Vec<u64> =
            [0.0, 0.5, 1.0, 1.0, 1.0, 1.0].map(|draw| backoff.after(None, draw).as_secs()).into();
        assert_eq!(waits, [0, 2, 8, 16, 32, 60]);
    }
}
