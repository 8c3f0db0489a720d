//! Thresholds, flags, intervals.

use super::*;
use crate::config::{HttpProbe, Probe};
use proptest::prelude::*;

fn rules(unhealthy: u32, healthy: u32) -> HealthCheck {
    let second = Duration::from_secs(1);
    HealthCheck::new(second, second, (unhealthy, healthy), Probe::Http(HttpProbe::of("/")))
}

/// A host that is being probed for the first time.
fn fresh() -> HostLive {
    let live = HostLive::default();
    live.probed.set(Flag::Failed, true);
    live
}

const WRONG: Found = Found::Wrong { retriable: false, exclude: false };
const RETRIABLE: Found = Found::Wrong { retriable: true, exclude: false };

#[test]
fn first_success_is_enough_and_later_ones_need_the_threshold() {
    let (rules, live, mut watch) = (rules(2, 3), fresh(), Watch::default());
    let verdict = watch.take(&rules, &live, Found::Healthy);
    assert_eq!(verdict.events, [Event::AddHealthy { first: true }]);
    assert!(live.probed.is_clear());
    assert_eq!(watch.take(&rules, &live, WRONG).transition, Transition::Changed);
    assert!(live.probed.has(Flag::Failed), "a wrong answer decides at once");
    for expected in [Transition::Pending, Transition::Pending, Transition::Changed, Transition::Unchanged] {
        assert_eq!(watch.take(&rules, &live, Found::Healthy).transition, expected);
    }
    assert!(live.probed.is_clear());
}

#[test]
fn missing_and_retriable_answers_count_against_the_threshold() {
    for (found, timed_out) in [(Found::Unreachable, false), (Found::TimedOut, true), (RETRIABLE, false)] {
        let (rules, live, mut watch) = (rules(3, 1), fresh(), Watch::default());
        watch.take(&rules, &live, Found::Healthy);
        for _ in 0..2 {
            assert_eq!(watch.take(&rules, &live, found).transition, Transition::Pending);
        }
        watch.take(&rules, &live, Found::Healthy);
        for expected in [Transition::Pending, Transition::Pending, Transition::Changed] {
            assert!(!live.probed.has(Flag::TimedOut));
            assert_eq!(watch.take(&rules, &live, found).transition, expected, "{found:?}");
        }
        assert!(live.probed.has(Flag::Failed));
        assert_eq!(live.probed.has(Flag::TimedOut), timed_out);
    }
}

#[test]
fn failed_first_probe_leaves_the_host_out_and_says_so_once() {
    let (rules, live, mut watch) = (rules(3, 1), fresh(), Watch::default());
    let verdict = watch.take(&rules, &live, Found::Unreachable);
    assert_eq!(
        (verdict.transition, verdict.events),
        (Transition::Unchanged, vec![Event::Failure { first: true }])
    );
    assert!(watch.take(&rules, &live, Found::Unreachable).events.is_empty());
}

#[test]
fn pending_host_counts_after_its_first_probe_whatever_was_found() {
    for found in [Found::Healthy, Found::Unreachable] {
        let (rules, live, mut watch) = (rules(3, 1), fresh(), Watch::default());
        live.probed.set(Flag::Pending, true);
        assert_eq!(watch.take(&rules, &live, found).transition, Transition::Changed);
        assert!(!live.probed.has(Flag::Pending));
    }
}

#[test]
fn degraded_comes_and_goes_with_the_answers() {
    let (rules, live, mut watch) = (rules(3, 1), fresh(), Watch::default());
    let verdict = watch.take(&rules, &live, Found::Degraded);
    assert_eq!(verdict.events, [Event::AddHealthy { first: true }, Event::Degraded]);
    assert!(live.probed.has(Flag::Degraded));
    let verdict = watch.take(&rules, &live, Found::Healthy);
    assert_eq!((verdict.transition, verdict.events), (Transition::Changed, vec![Event::NoLongerDegraded]));
}

#[test]
fn host_that_asks_to_be_left_out_is_until_it_passes() {
    let (rules, live, mut watch) = (rules(3, 1), fresh(), Watch::default());
    watch.take(&rules, &live, Found::Healthy);
    watch.take(&rules, &live, Found::Passive);
    assert!(live.probed.has(Flag::Excluded) && live.probed.has(Flag::Failed));
    watch.take(&rules, &live, Found::Healthy);
    assert!(live.probed.is_clear());
}

#[test]
fn interval_follows_traffic_result_and_edge() {
    let seconds = Duration::from_secs;
    let mut rules = rules(2, 2);
    rules.interval = seconds(10);
    rules.no_traffic_healthy_interval = Some(seconds(90));
    rules.unhealthy_interval = Some(seconds(20));
    rules.unhealthy_edge_interval = Some(seconds(3));
    rules.healthy_edge_interval = Some(seconds(4));
    for (traffic, passed, transition, expected) in [
        (true, true, Transition::Unchanged, 10),
        (true, true, Transition::Pending, 4),
        (true, false, Transition::Unchanged, 20),
        (true, false, Transition::Changed, 20),
        (true, false, Transition::Pending, 3),
        (false, true, Transition::Unchanged, 90),
        (false, true, Transition::Pending, 60),
        (false, false, Transition::Unchanged, 60),
    ] {
        let verdict = Verdict { transition, passed, events: Vec::new() };
        assert_eq!(
            interval(&rules, &verdict, traffic, &mut || 0),
            seconds(expected),
            "{traffic} {verdict:?}"
        );
    }
    rules.interval_jitter = seconds(5);
    rules.interval_jitter_percent = 50;
    let verdict = Verdict { transition: Transition::Unchanged, passed: true, events: Vec::new() };
    assert_eq!(interval(&rules, &verdict, true, &mut || u64::MAX), seconds(20));
}

proptest! {
    /// The host's state is that of a slow look at the whole history.
    #[test]
    fn state_is_what_the_history_says(
        results in prop::collection::vec(0u8..4, 1..60),
        unhealthy in 1u32..4,
        healthy in 1u32..4,
    ) {
        let (rules, live, mut watch) = (rules(unhealthy, healthy), fresh(), Watch::default());
        let mut is_healthy = false;
        let (mut good, mut bad) = (0, 0);
        for (i, result) in results.iter().enumerate() {
            let found = [Found::Healthy, Found::Unreachable, RETRIABLE, WRONG][*result as usize];
            watch.take(&rules, &live, found);
            (good, bad) = if found == Found::Healthy { (good + 1, 0) } else { (0, bad + u32::from(found != WRONG)) };
            match is_healthy {
                true if found == WRONG || bad >= unhealthy => (is_healthy, good, bad) = (false, 0, 0),
                false if found == Found::Healthy && (i == 0 || good >= healthy) => (is_healthy, good) = (true, 0),
                // Failures of an unhealthy host are not counted.
                false => bad = 0,
                true => {}
            }
            prop_assert_eq!(!live.probed.has(Flag::Failed), is_healthy, "after {}", i);
        }
    }
}
