//! A token bucket in one number that all workers share.
//!
//! Instead of tokens it keeps the time at which the bucket was, or would have been, empty: taking a token moves that
//! time by what a token takes to come back. Tokens come back continuously, as in Envoy's bucket.

use crate::config;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Tokens that come back over time. Time is in nanoseconds of any clock that begins at or above zero and only grows.
#[derive(Debug)]
pub struct TokenBucket {
    /// When it was empty.
    empty_at: AtomicU64,
    per_token: u64,
    max_tokens: u32,
}

/// What was found in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// A token was there, and was taken.
    pub allowed: bool,
    /// Whole tokens left.
    pub remaining: u32,
    /// Most tokens.
    pub limit: u32,
    /// Until a whole token is there, seconds, rounded up.
    pub reset: u64,
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl TokenBucket {
    /// Makes it ready, and full.
    ///
    /// # Errors
    /// No tokens, or an interval that is too short.
    pub fn new(from: &config::TokenBucket) -> Result<Self, (&'static str, &'static str)> {
        if from.max_tokens == 0 {
            return Err(("max_tokens", "must be greater than 0"));
        }
        if from.tokens_per_fill == 0 {
            return Err(("tokens_per_fill", "must be greater than 0"));
        }
        if from.fill_interval.as_millis() < 50 {
            return Err(("fill_interval", "must be at least 0.05s"));
        }
        let interval = u64::try_from(from.fill_interval.as_nanos()).unwrap_or(u64::MAX);
        let per_token = (interval / u64::from(from.tokens_per_fill)).max(1);
        Ok(Self { empty_at: AtomicU64::new(0), per_token, max_tokens: from.max_tokens })
    }

    /// Takes a token, where there is one. `now` must be at least `max_tokens` tokens' time after the clock's beginning for
    /// the bucket to be full at first: callers add [`TokenBucket::HEAD_START`].
    /// `tokens` that are more than fit are never there.
    pub fn take(&self, now: u64, tokens: u64) -> Taken {
        let room = self.per_token.saturating_mul(self.max_tokens.into());
        let floor = now.saturating_sub(room);
        let price = self.per_token.saturating_mul(tokens);
        let after = |empty_at: u64| {
            let next = empty_at.max(floor).saturating_add(price);
            (next <= now).then_some(next)
        };
        let taken = self.empty_at.fetch_update(Relaxed, Relaxed, after);
        let empty_at = match taken {
            Ok(before) => before.max(floor).saturating_add(price),
            Err(before) => before.max(floor),
        };
        let left = now.saturating_sub(empty_at);
        let remaining = u32::try_from(left / self.per_token).unwrap_or(self.max_tokens);
        let until = if remaining > 0 { 0 } else { self.per_token - left % self.per_token };
        Taken {
            allowed: taken.is_ok(),
            remaining,
            limit: self.max_tokens,
            reset: until.div_ceil(NANOS_PER_SECOND),
        }
    }

    /// Nanoseconds to be added to a clock that begins with the process: so long ago that every bucket is full. 100 years.
    pub const HEAD_START: u64 = 100 * 365 * 86_400 * NANOS_PER_SECOND;

    /// Tokens per second, for comparison.
    pub(crate) fn period(&self) -> u64 {
        self.per_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn bucket(max_tokens: u32, tokens_per_fill: u32, millis: u64) -> TokenBucket {
        let fill_interval = Duration::from_millis(millis);
        TokenBucket::new(&config::TokenBucket { max_tokens, tokens_per_fill, fill_interval }).unwrap()
    }

    #[test]
    fn tokens_go_and_come_back_one_by_one_and_no_more_than_fit() {
        let bucket = bucket(3, 1, 1000);
        let at = |millis: u64| TokenBucket::HEAD_START + millis * 1_000_000;
        let seen: Vec<_> = [0, 0, 0, 0, 999, 1000, 1001]
            .map(|t| bucket.take(at(t), 1))
            .map(|t| (t.allowed, t.remaining))
            .into();
        let expected = [(true, 2), (true, 1), (true, 0), (false, 0), (false, 0), (true, 0), (false, 0)];
        assert_eq!(seen, expected);
        let seen: Vec<_> = (0..4).map(|_| bucket.take(at(60_000), 1).allowed).collect();
        assert_eq!(seen, [true, true, true, false]);
        assert_eq!(bucket.take(at(60_500), 1).reset, 1);
    }

    #[test]
    fn random_takes_agree_with_a_slow_bucket() {
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..200 {
            let (max, fill, millis) = (rng.u32(1..20), rng.u32(1..5), rng.u64(50..2000));
            let fast = bucket(max, fill, millis);
            let per_token = millis * 1_000_000 / u64::from(fill);
            let (mut units, mut last) = (per_token * u64::from(max), TokenBucket::HEAD_START);
            let mut now = last;
            for _ in 0..200 {
                now += rng.u64(0..per_token * 2);
                units = (units + (now - last)).min(per_token * u64::from(max));
                last = now;
                let allowed = units >= per_token;
                if allowed {
                    units -= per_token;
                }
                let taken = fast.take(now, 1);
                assert_eq!((taken.allowed, u64::from(taken.remaining)), (allowed, units / per_token));
            }
        }
    }

    #[test]
    fn mistakes_are_refused() {
        let of = |max_tokens, tokens_per_fill, millis| {
            let fill_interval = Duration::from_millis(millis);
            TokenBucket::new(&config::TokenBucket { max_tokens, tokens_per_fill, fill_interval })
                .err()
                .map(|e| e.0)
        };
        assert_eq!(of(1, 1, 50), None);
        assert_eq!(of(0, 1, 50), Some("max_tokens"));
        assert_eq!(of(1, 0, 50), Some("tokens_per_fill"));
        assert_eq!(of(1, 1, 49), Some("fill_interval"));
    }
}
