//! Waits between attempts.

use crate::config::{RateLimitedBackoff, ResetHeaderFormat};
use crate::view::FieldView;
use std::time::Duration;

/// A random wait before retry number `retry` (from 0): uniform in [0, base × 2^retry), capped ("full jitter").
///
/// Source: Envoy: retry back-off; "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
pub fn exponential(base: Duration, cap: Duration, retry: u32, draw: u64) -> Duration {
    let interval = base.saturating_mul(1u32.checked_shl(retry).unwrap_or(u32::MAX)).min(cap);
    scaled(interval, draw)
}

/// The wait that an upstream asked for in a response header, plus up to half of it at random, so that all clients do
/// not come back at the same moment. `None` where no header is there, readable and within the limit.
///
/// `unix_now` is the time since 1970.
pub fn rate_limited(
    rule: &RateLimitedBackoff,
    fields: &dyn FieldView,
    unix_now: Duration,
    draw: u64,
) -> Option<Duration> {
    rule.reset_headers.iter().find_map(|header| {
        let text = std::str::from_utf8(fields.header(header.name.as_bytes())?).ok()?;
        let seconds = Duration::from_secs(text.trim().parse().ok()?);
        let wait = match header.format {
            ResetHeaderFormat::Seconds => seconds,
            ResetHeaderFormat::UnixTimestamp => seconds.checked_sub(unix_now)?,
        };
        (wait <= rule.max_interval).then(|| wait + scaled(wait / 2, draw))
    })
}

fn scaled(interval: Duration, draw: u64) -> Duration {
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(((u128::from(nanos) * u128::from(draw)) >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ResetHeader;
    use crate::route::tests::Head;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    proptest! {
        #[test]
        fn exponential_waits_stay_below_their_interval(retry in 0u32..100, draw: u64) {
            let wait = exponential(MS(25), MS(250), retry, draw);
            let interval = MS(25 * (1 << retry.min(10))).min(MS(250));
            prop_assert!(wait < interval);
        }
    }

    #[test]
    fn exponential_waits_double_until_the_cap() {
        let longest: Vec<_> = (0..6).map(|n| exponential(MS(25), MS(250), n, u64::MAX).as_millis()).collect();
        assert_eq!(longest, [24, 49, 99, 199, 249, 249]);
        assert_eq!(exponential(MS(25), MS(250), 3, 0), Duration::ZERO);
    }

    #[test]
    fn upstream_waits_are_read_within_their_limit() {
        let header = |name: &str, format| ResetHeader { name: name.into(), format };
        let rule = RateLimitedBackoff {
            reset_headers: vec![
                header("retry-after", ResetHeaderFormat::Seconds),
                header("x-reset", ResetHeaderFormat::UnixTimestamp),
            ],
            max_interval: Duration::from_secs(300),
        };
        let now = Duration::from_secs(1000);
        let of = |head: &Head| rate_limited(&rule, head, now, 0);
        let head = Head::get("h", "/");
        assert_eq!(of(&head), None);
        assert_eq!(of(&head.clone().with("retry-after", "7")), Some(Duration::from_secs(7)));
        assert_eq!(of(&head.clone().with("retry-after", "300")), Some(Duration::from_secs(300)));
        assert_eq!(of(&head.clone().with("retry-after", "301")), None);
        assert_eq!(
            of(&head.clone().with("retry-after", "soon").with("x-reset", "1002")),
            Some(Duration::from_secs(2))
        );
        assert_eq!(of(&head.clone().with("x-reset", "999")), None);
        let late = rate_limited(&rule, &head.with("retry-after", "10"), now, u64::MAX).unwrap();
        assert!(late > Duration::from_millis(14_900) && late < Duration::from_secs(15));
    }
}
