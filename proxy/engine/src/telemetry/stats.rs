//! Counters that a request can afford.
//!
//! Every worker writes to its own shard and nobody else does, so a count is a plain load and store (no locked
//! instruction, no shared cache line); whoever reads (a scrape, once in some seconds) adds the shards up. The control
//! runtime has a shard of its own, the last one.
//!
//! A *stat set* is a struct of such counters. [`stat_set!`] declares it together with Envoy's name and a help text for
//! every field, which is all the exporters know about it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only grows. Written by one thread (the owner of its shard), read by any.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`; wraps at 2^64.
    #[inline]
    pub fn add(&self, n: u64) {
        // One writer: no read-modify-write instruction is needed.
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The count of this shard.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that grows and shrinks. Written by one thread, read by any; shards are added up, so what one worker
/// increments the same worker must decrement. See [`Raised`] for a guard that does.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Takes one away.
    #[inline]
    pub fn dec(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// Replaces the value of this shard.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value of this shard, as two's complement: shards may be negative, their sum is not.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of histogram buckets: Envoy's and Istio's defaults, in the unit of the histogram (milliseconds, bytes).
/// In thousandths, because the first is a half.
pub const BUCKET_BOUNDS_THOUSANDTHS: [u64; 19] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// Number of buckets, the one without bound included.
pub const BUCKETS: usize = BUCKET_BOUNDS_THOUSANDTHS.len() + 1;

/// How values are distributed. Written by one thread, read by any. Durations are milliseconds, sizes are bytes.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_thousandths: AtomicU64,
}

impl Histogram {
    /// Counts a duration, with a precision of a microsecond.
    #[inline]
    pub fn record(&self, duration: Duration) {
        self.record_thousandths(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts a size in bytes.
    #[inline]
    pub fn record_bytes(&self, bytes: u64) {
        self.record_thousandths(bytes.saturating_mul(1000));
    }

    fn record_thousandths(&self, value: u64) {
        // Most values are small and the bounds are few: a linear walk beats a binary search here.
        let index = BUCKET_BOUNDS_THOUSANDTHS.iter().position(|bound| value <= *bound).unwrap_or(BUCKETS - 1);
        if let Some(bucket) = self.buckets.get(index) {
            bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
        }
        self.sum_thousandths.store(self.sum_thousandths.load(Relaxed).wrapping_add(value), Relaxed);
    }

    /// Adds this shard to a sum.
    pub fn add_to(&self, sum: &mut Distribution) {
        for (total, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *total = total.wrapping_add(bucket.load(Relaxed));
        }
        sum.sum_thousandths = sum.sum_thousandths.wrapping_add(self.sum_thousandths.load(Relaxed));
    }
}

/// A histogram summed over shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Count per bucket, not cumulated.
    pub buckets: [u64; BUCKETS],
    /// Sum of the values, in thousandths of their unit.
    pub sum_thousandths: u64,
}

impl Distribution {
    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// Adds another.
    pub fn merge(&mut self, other: &Self) {
        for (a, b) in self.buckets.iter_mut().zip(&other.buckets) {
            *a = a.wrapping_add(*b);
        }
        self.sum_thousandths = self.sum_thousandths.wrapping_add(other.sum_thousandths);
    }

    /// An estimate of a quantile (`0.0..=1.0`) by linear interpolation inside its bucket, in the histogram's unit;
    /// `None` while nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * count as f64;
        let mut seen = 0.0;
        let mut lower = 0.0;
        for (index, n) in self.buckets.iter().enumerate() {
            let Some(bound) = BUCKET_BOUNDS_THOUSANDTHS.get(index) else { break };
            let upper = *bound as f64 / 1000.0;
            let here = *n as f64;
            if here > 0.0 && seen + here >= rank {
                return Some(lower + (upper - lower) * ((rank - seen) / here).clamp(0.0, 1.0));
            }
            seen += here;
            lower = upper;
        }
        Some(lower)
    }
}

/// Raises a gauge of a shared stat set for as long as it lives, so that no early return can leave it wrong.
pub struct Raised<T: StatSet> {
    stats: std::sync::Arc<Sharded<T>>,
    shard: usize,
    gauge: fn(&T) -> &Gauge,
}

impl<T: StatSet> Raised<T> {
    /// Raises `gauge` in `shard` now and lowers it on drop. Must be dropped by the same worker.
    pub fn new(stats: std::sync::Arc<Sharded<T>>, shard: usize, gauge: fn(&T) -> &Gauge) -> Self {
        gauge(stats.at(shard)).inc();
        Self { stats, shard, gauge }
    }
}

impl<T: StatSet> Drop for Raised<T> {
    fn drop(&mut self) {
        (self.gauge)(self.stats.at(self.shard)).dec();
    }
}

/// What kind a stat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatKind {
    /// [`Counter`].
    Counter,
    /// [`Gauge`].
    Gauge,
    /// [`Histogram`] of milliseconds.
    Histogram,
}

/// Name and meaning of one field of a stat set.
#[derive(Clone, Copy, Debug)]
pub struct StatField {
    /// Envoy's name below the set's prefix, as in `upstream_rq_total`.
    pub name: &'static str,
    /// What it counts; one sentence without a dot.
    pub help: &'static str,
    /// Its kind.
    pub kind: StatKind,
}

/// One field of one shard.
pub enum StatRef<'a> {
    /// A counter.
    Counter(&'a Counter),
    /// A gauge.
    Gauge(&'a Gauge),
    /// A histogram.
    Histogram(&'a Histogram),
}

/// One field summed over shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatValue {
    /// A counter's.
    Counter(u64),
    /// A gauge's.
    Gauge(u64),
    /// A histogram's.
    Histogram(Box<Distribution>),
}

/// A struct of counters that the exporters can walk. Implemented by [`stat_set!`].
pub trait StatSet: Default + Send + Sync + 'static {
    /// Its fields, in order.
    const FIELDS: &'static [StatField];

    /// The field at an index of [`StatSet::FIELDS`].
    fn field(&self, index: usize) -> Option<StatRef<'_>>;
}

/// A cache line of its own (two, for the adjacent-line prefetcher), so that workers do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// One `T` per worker and one for the control runtime.
#[derive(Debug)]
pub struct Sharded<T> {
    shards: Box<[Padded<T>]>,
}

impl<T: StatSet> Sharded<T> {
    /// For `workers` data threads.
    pub fn new(workers: usize) -> Self {
        Self { shards: (0..=workers).map(|_| Padded::default()).collect() }
    }

    /// The shard of a worker. A number that is out of range means the control runtime's.
    ///
    /// *Panics*: never; there is always at least one shard.
    #[inline]
    #[allow(
        clippy::indexing_slicing,
        reason = "called for every event of every request; in bounds as said below"
    )]
    pub fn at(&self, worker: usize) -> &T {
        // In bounds: `new` makes at least one shard, and the index is clamped to the last.
        &self.shards[worker.min(self.shards.len() - 1)].0
    }

    /// The control runtime's shard.
    pub fn control(&self) -> &T {
        self.at(usize::MAX)
    }

    /// Number of data workers.
    pub fn workers(&self) -> usize {
        self.shards.len() - 1
    }

    /// Sums one field over all shards. `None` where `T` has no such field.
    pub fn sum(&self, index: usize) -> Option<StatValue> {
        let mut total = 0_u64;
        let mut distribution: Option<Box<Distribution>> = None;
        for shard in &self.shards {
            match shard.0.field(index)? {
                StatRef::Counter(c) => total = total.wrapping_add(c.value()),
                StatRef::Gauge(g) => total = total.wrapping_add(g.value()),
                StatRef::Histogram(h) => h.add_to(distribution.get_or_insert_default()),
            }
        }
        Some(match T::FIELDS.get(index)?.kind {
            StatKind::Counter => StatValue::Counter(total),
            // A reader may see the decrement of one shard before the increment of another: below zero is zero.
            StatKind::Gauge => StatValue::Gauge(if total > u64::MAX / 2 { 0 } else { total }),
            StatKind::Histogram => StatValue::Histogram(distribution.unwrap_or_default()),
        })
    }

    /// Sums the field that `pick` chooses, as a number (counters and gauges); for tests and the admin.
    pub fn total(&self, pick: impl Fn(&T) -> u64) -> u64 {
        self.shards.iter().fold(0, |sum, shard| sum.wrapping_add(pick(&shard.0)))
    }
}

/// Declares a [`StatSet`].
macro_rules! stat_set {
    (@type counter) => { $crate::telemetry::stats::Counter };
    (@type gauge) => { $crate::telemetry::stats::Gauge };
    (@type histogram) => { $crate::telemetry::stats::Histogram };
    (@kind counter) => { $crate::telemetry::stats::StatKind::Counter };
    (@kind gauge) => { $crate::telemetry::stats::StatKind::Gauge };
    (@kind histogram) => { $crate::telemetry::stats::StatKind::Histogram };
    (@reference counter $v:expr) => { $crate::telemetry::stats::StatRef::Counter($v) };
    (@reference gauge $v:expr) => { $crate::telemetry::stats::StatRef::Gauge($v) };
    (@reference histogram $v:expr) => { $crate::telemetry::stats::StatRef::Histogram($v) };
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($kind:ident $field:ident = $envoy:literal, $help:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        $vis struct $name { $(#[doc = $help] pub $field: stat_set!(@type $kind),)* }

        impl $crate::telemetry::stats::StatSet for $name {
            const FIELDS: &'static [$crate::telemetry::stats::StatField] = &[
                $($crate::telemetry::stats::StatField { name: $envoy, help: $help, kind: stat_set!(@kind $kind) },)*
            ];

            fn field(&self, index: usize) -> Option<$crate::telemetry::stats::StatRef<'_>> {
                let mut at = 0_usize;
                $(
                    if index == at {
                        return Some(stat_set!(@reference $kind &self.$field));
                    }
                    at += 1;
                )*
                let _ = at;
                None
            }
        }
    };
}
pub(crate) use stat_set;

#[cfg(test)]
mod tests {
    use super::*;

    stat_set! {
        /// For tests.
        pub(super) struct Few {
            counter a = "a", "first";
            gauge b = "b", "second";
            histogram c = "c", "third";
        }
    }

    #[test]
    fn shards_are_summed_and_gauges_may_move_between_them() {
        let stats: Sharded<Few> = Sharded::new(2);
        stats.at(0).a.inc();
        stats.at(1).a.add(2);
        stats.control().a.inc();
        assert_eq!(stats.sum(0), Some(StatValue::Counter(4)));
        stats.at(0).b.inc();
        assert_eq!(stats.sum(1), Some(StatValue::Gauge(1)));
        stats.at(1).b.dec();
        stats.at(1).b.dec();
        assert_eq!(stats.sum(1), Some(StatValue::Gauge(0)), "never below zero");
        assert_eq!(stats.sum(3), None);
    }

    #[test]
    fn histogram_counts_at_a_bound_below_it() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 1_000, 3_600_000_000, 3_600_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        let mut sum = Distribution::default();
        histogram.add_to(&mut sum);
        assert_eq!((sum.buckets[0], sum.buckets[1], sum.buckets[18], sum.buckets[19]), (2, 2, 1, 1));
        assert_eq!(sum.count(), 6);
        assert_eq!(sum.sum_thousandths, 7_200_002_002);
        assert!(sum.quantile(0.5).is_some_and(|q| (0.5..=1.0).contains(&q)));
        assert_eq!(Distribution::default().quantile(0.5), None);
    }

    #[test]
    fn raised_gauge_falls_with_its_guard() {
        let stats: std::sync::Arc<Sharded<Few>> = std::sync::Arc::new(Sharded::new(1));
        let raised = Raised::new(stats.clone(), 0, |s| &s.b);
        assert_eq!(stats.total(|s| s.b.value()), 1);
        drop(raised);
        assert_eq!(stats.total(|s| s.b.value()), 0);
    }
}
