//! Waiting between tries: exponential, with full jitter.
//!
//! Full jitter (a random share of the whole step, not of its end) spreads many callers that failed together over the
//! whole step, so that they do not come back together.

use std::time::Duration;

/// First step.
const STEP_MIN: Duration = Duration::from_millis(200);

/// Largest step: a source that is away for an hour is tried three times a minute.
const STEP_MAX: Duration = Duration::from_secs(20);

/// How often something failed in a row, and how long to wait because of it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure; how long to wait before the next try. `random` is uniform in 0..1.
    pub fn after_failure(&mut self, random: f64) -> Duration {
        let step = STEP_MIN.saturating_mul(1u32 << self.failures.min(10)).min(STEP_MAX);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(random.clamp(0.0, 1.0))
    }

    /// It worked: the next wait is short again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_doubles_to_its_limit_and_starts_over_after_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..12).map(|_| backoff.after_failure(1.0).as_millis()).collect();
        assert_eq!(waits[..4], [200, 400, 800, 1_600]);
        assert_eq!(waits[7..], [20_000; 5], "25.6 s would be the next step");
        assert_eq!(backoff.after_failure(0.0), Duration::ZERO, "full jitter: from nothing on");
        backoff.reset();
        assert_eq!(backoff.after_failure(0.5), Duration::from_millis(100));
        let mut long = Backoff { failures: u32::MAX };
        assert_eq!(long.after_failure(1.0), STEP_MAX);
    }
}
