//! Distributions, health and failover.

use super::locality::{LoadPlan, Tally};
use super::{PickContext, PickError};
use crate::cluster::{Cluster, HostId};
use crate::config::{
    self, ClusterDiscovery, Config, Endpoint, Endpoints, Fraction, HealthStatus, LbPolicy, Locality,
    LocalityEndpoints, LocalityLb,
};
use crate::outcome::Outcome;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

fn endpoint(port: u16, weight: u32, health: HealthStatus) -> Endpoint {
    Endpoint { weight, health, ..Endpoint::at(([10, 0, 0, 1], port).into()) }
}

fn healthy(port: u16) -> Endpoint {
    endpoint(port, 1, HealthStatus::Healthy)
}

fn place(zone: &str, priority: u32, weight: Option<u32>, endpoints: Vec<Endpoint>) -> LocalityEndpoints {
    let locality = Locality { zone: zone.into(), ..Locality::default() };
    LocalityEndpoints { locality, weight, priority, endpoints }
}

fn cluster(localities: Vec<LocalityEndpoints>, change: impl FnOnce(&mut config::Cluster)) -> Arc<Cluster> {
    let endpoints = Endpoints { cluster_name: "c".into(), localities, overprovisioning_factor: None };
    let mut cluster = config::Cluster::new("c", ClusterDiscovery::Static(endpoints));
    change(&mut cluster);
    let snapshot = crate::compile(&Config { clusters: vec![cluster], ..Config::default() }, None).unwrap();
    snapshot.clusters().next().unwrap().1.clone()
}

fn shares(cluster: &Cluster, picks: u32) -> BTreeMap<u16, u32> {
    let mut rng = fastrand::Rng::with_seed(42);
    let mut draw = move || rng.u64(..);
    let mut counts = BTreeMap::new();
    for _ in 0..picks {
        let host = cluster.pick(&mut PickContext::new(Instant::now(), &mut draw)).unwrap();
        *counts.entry(host.address.port()).or_insert(0) += 1;
    }
    counts
}

fn near(got: u32, expected: u32) -> bool {
    got.abs_diff(expected) <= expected / 20 + 30
}

#[test]
fn round_robin_gives_every_host_its_turn() {
    let c = cluster(vec![place("", 0, None, (1..=7).map(healthy).collect())], |_| {});
    assert!(shares(&c, 700).values().all(|n| *n == 100));
}

proptest! {
    #[test]
    fn weighted_round_robin_is_exact_over_a_whole_turn(weights in prop::collection::vec(1u32..9, 1..8)) {
        let endpoints = weights.iter().zip(1..).map(|(w, p)| endpoint(p, *w, HealthStatus::Unknown)).collect();
        let c = cluster(vec![place("", 0, None, endpoints)], |_| {});
        // Weights that are all the same are plain turns.
        let even = weights.iter().all(|w| *w == weights[0]);
        let sum: u32 = if even { weights.len() as u32 } else { weights.iter().sum() };
        let counts = shares(&c, sum * 3);
        for (weight, port) in weights.iter().zip(1u16..) {
            let expected = if even { 3 } else { weight * 3 };
            prop_assert_eq!(counts.get(&port).copied().unwrap_or(0), expected);
        }
    }
}

#[test]
fn least_request_shares_by_weight_and_random_does_not() {
    for (policy, first) in [(LbPolicy::Random, 20_000), (LbPolicy::least_request(), 10_000)] {
        let endpoints = vec![endpoint(1, 1, HealthStatus::Unknown), endpoint(2, 3, HealthStatus::Unknown)];
        let c = cluster(vec![place("", 0, None, endpoints)], |c| c.lb_policy = policy.clone());
        let counts = shares(&c, 40_000);
        assert!(near(counts[&1], first) && near(counts[&2], 40_000 - first), "{policy:?} {counts:?}");
    }
}

#[test]
fn least_request_avoids_the_busy_host() {
    let c = cluster(vec![place("", 0, None, (1..=2).map(healthy).collect())], |c| {
        c.lb_policy = LbPolicy::least_request();
    });
    let busy = c.hosts().hosts()[0].clone();
    let request = busy.start_request();
    let counts = shares(&c, 10_000);
    // Both draws fall on the busy host a quarter of the time.
    assert!(near(counts[&1], 2_500), "{counts:?}");
    drop(request);
    assert!(near(shares(&c, 10_000)[&1], 5_000));
}

#[test]
fn least_request_compares_load_by_weight() {
    let endpoints = vec![endpoint(1, 1, HealthStatus::Unknown), endpoint(2, 4, HealthStatus::Unknown)];
    let c = cluster(vec![place("", 0, None, endpoints)], |c| c.lb_policy = LbPolicy::least_request());
    let heavy = c.hosts().hosts()[1].clone();
    let busy: Vec<_> = (0..4).map(|_| heavy.start_request()).collect();
    let light = c.hosts().hosts()[0].start_request();
    // 4 of weight 4 is as much as 1 of weight 1.
    assert!(near(shares(&c, 10_000)[&2], 8_000));
    drop((busy, light));
}

#[test]
fn empty_and_unhealthy_clusters_say_which_they_are() {
    let mut draw = || 0;
    let mut pick = |c: &Cluster| c.pick(&mut PickContext::new(Instant::now(), &mut draw)).err();
    assert_eq!(pick(&cluster(Vec::new(), |_| {})), Some(PickError::NoHosts));
    let sick = || vec![place("", 0, None, vec![endpoint(1, 1, HealthStatus::Unhealthy)])];
    assert_eq!(
        pick(&cluster(sick(), |c| c.healthy_panic_threshold = Fraction::ZERO)),
        Some(PickError::NoHealthy)
    );
    assert_eq!(pick(&cluster(sick(), |_| {})), None, "panic uses it");
}

#[test]
fn draining_unhealthy_and_timed_out_hosts_are_not_picked() {
    use HealthStatus as H;
    let all = [H::Unknown, H::Healthy, H::Unhealthy, H::Draining, H::Timeout, H::Degraded];
    let endpoints = all.iter().zip(1..).map(|(h, p)| endpoint(p, 1, *h)).collect();
    let c = cluster(vec![place("", 0, None, endpoints)], |c| {
        c.healthy_panic_threshold = Fraction::from_percent(20)
    });
    let counts = shares(&c, 10_000);
    // 2 of 6 healthy: credited with 46 %; 1 degraded: 23 %; together 69 %: healthy gets 66 %.
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [1, 2, 6]);
    assert!(near(counts[&6], 3_300), "{counts:?}");
}

#[test]
fn priorities_take_over_as_health_goes() {
    let tally = |healthy: u64| Tally { hosts: 100, healthy, degraded: 0 };
    // Source: Envoy: load balancing, priority levels, the tables of two and three levels.
    let table: &[(&[u64], &[u32])] = &[
        (&[100, 100], &[100, 0]),
        (&[72, 72], &[100, 0]),
        (&[71, 71], &[99, 1]),
        (&[50, 50], &[70, 30]),
        (&[25, 100], &[35, 65]),
        (&[0, 100], &[0, 100]),
        (&[25, 25], &[50, 50]),
        (&[100, 100, 100], &[100, 0, 0]),
        (&[25, 25, 100], &[35, 35, 30]),
    ];
    for (healthy, expected) in table {
        let tallies: Vec<_> = healthy.iter().map(|h| tally(*h)).collect();
        let plan = LoadPlan::new(&tallies, 140, 0);
        assert_eq!(&*plan.healthy, *expected, "{healthy:?}");
    }
}

#[test]
fn degraded_hosts_fill_what_healthy_ones_lack() {
    let of = |healthy, degraded| LoadPlan::new(&[Tally { hosts: 100, healthy, degraded }], 140, 500_000);
    for (healthy, degraded, expected) in
        [(100, 0, (100, 0)), (71, 29, (99, 1)), (50, 50, (70, 30)), (25, 75, (35, 65)), (0, 100, (0, 100))]
    {
        let plan = of(healthy, degraded);
        assert_eq!((plan.healthy[0], plan.degraded[0]), expected, "{healthy} {degraded}");
        assert!(!plan.panic[0]);
    }
}

#[test]
fn panic_begins_below_the_threshold_and_only_when_nobody_makes_up_for_it() {
    let of = |list: &[(u64, u64)]| {
        let tallies: Vec<_> = list
            .iter()
            .map(|(hosts, healthy)| Tally { hosts: *hosts, healthy: *healthy, degraded: 0 })
            .collect();
        LoadPlan::new(&tallies, 140, 500_000)
    };
    assert!(!of(&[(10, 5)]).panic[0]);
    assert!(of(&[(10, 4)]).panic[0]);
    assert_eq!(*of(&[(10, 4), (10, 10)]).panic, [false, false]);
    let both = of(&[(30, 0), (10, 0)]);
    assert_eq!((&*both.panic, &*both.healthy), (&[true, true][..], &[75, 25][..]));
    let one = of(&[(10, 1), (10, 6)]);
    assert_eq!(*one.panic, [true, false]);
    assert!(of(&[]).healthy.is_empty());
}

proptest! {
    #[test]
    fn priority_loads_always_sum_to_a_hundred(
        tallies in prop::collection::vec((1u64..50, 0.0f64..1.0, 0.0f64..1.0), 1..6),
        factor in 100u64..300,
        threshold in 0u32..1_000_000,
    ) {
        let tallies: Vec<_> = tallies
            .into_iter()
            .map(|(hosts, a, b)| {
                let healthy = (hosts as f64 * a) as u64;
                Tally { hosts, healthy, degraded: ((hosts - healthy) as f64 * b) as u64 }
            })
            .collect();
        let plan = LoadPlan::new(&tallies, factor, threshold);
        prop_assert_eq!(plan.healthy.iter().sum::<u32>() + plan.degraded.iter().sum::<u32>(), 100);
    }
}

#[test]
fn localities_share_by_weight_and_lose_it_with_their_health() {
    let b = |sick: u16| {
        (11..=20)
            .map(|p| {
                endpoint(p, 1, if p <= 10 + sick { HealthStatus::Unhealthy } else { HealthStatus::Healthy })
            })
            .collect()
    };
    let with = |sick| {
        cluster(
            vec![
                place("a", 0, Some(1), (1..=2).map(healthy).collect()),
                place("b", 0, Some(3), b(sick)),
                place("c", 0, None, vec![healthy(30)]),
            ],
            |c| {
                c.locality_lb = LocalityLb::Weighted;
            },
        )
    };
    let of_a = |c: &Cluster| shares(c, 20_000).range(..=2).map(|(_, n)| n).sum::<u32>();
    assert!(near(of_a(&with(0)), 5_000));
    assert!(near(of_a(&with(2)), 5_000), "80 % healthy is enough");
    // 5 of 10: 70 % of weight 3 against weight 1.
    assert!(near(of_a(&with(5)), 20_000 * 10 / 31));
    assert!(!shares(&with(0), 5_000).contains_key(&30), "a locality without weight gets nothing");
}

#[test]
fn localities_without_any_weight_count_as_one() {
    let c =
        cluster(vec![place("a", 0, None, vec![healthy(1)]), place("b", 0, Some(0), vec![healthy(2)])], |c| {
            c.locality_lb = LocalityLb::Weighted;
        });
    assert_eq!(shares(&c, 100), BTreeMap::from([(1, 50), (2, 50)]));
}

#[test]
fn priorities_fail_over_when_hosts_are_ejected_and_back() {
    let places =
        vec![place("a", 0, None, (1..=2).map(healthy).collect()), place("b", 1, None, vec![healthy(9)])];
    let c = cluster(places, |c| {
        c.outlier_detection = Some(config::OutlierDetection {
            consecutive_5xx: 1,
            max_ejection_percent: 100,
            ..config::OutlierDetection::default()
        });
    });
    assert!(!shares(&c, 1_000).contains_key(&9));
    let now = Instant::now();
    for host in &c.hosts().hosts()[..2] {
        c.report(host, Outcome::Response(503), now, 0);
    }
    assert_eq!(shares(&c, 1_000), BTreeMap::from([(9, 1_000)]));
    c.sweep(now + std::time::Duration::from_secs(31), &mut || 0);
    assert!(!shares(&c, 1_000).contains_key(&9));
}

#[test]
fn retry_finds_the_other_host_although_least_request_prefers_the_failing_one() {
    let c = cluster(vec![place("", 0, None, (1..=2).map(healthy).collect())], |c| {
        c.lb_policy = LbPolicy::least_request();
    });
    let hosts = c.hosts().hosts().to_vec();
    let _busy: Vec<_> = (0..10).map(|_| hosts[1].start_request()).collect();
    let failing = [hosts[0].id];
    let mut rng = fastrand::Rng::with_seed(7);
    let mut draw = || rng.u64(..);
    for _ in 0..200 {
        let mut context = PickContext::new(Instant::now(), &mut draw);
        (context.avoid, context.attempts_max) = (&failing, 1);
        assert_eq!(c.pick(&mut context).unwrap().id, hosts[1].id);
    }
}

#[test]
fn hosts_of_earlier_attempts_are_avoided_while_there_are_others() {
    let c = cluster(vec![place("", 0, None, (1..=3).map(healthy).collect())], |_| {});
    let ids: Vec<HostId> = c.hosts().hosts().iter().map(|h| h.id).collect();
    let mut draw = || 0;
    for _ in 0..20 {
        let mut context = PickContext::new(Instant::now(), &mut draw);
        (context.avoid, context.attempts_max) = (&ids[..2], 3);
        assert_eq!(c.pick(&mut context).unwrap().id, ids[2]);
    }
    let mut context = PickContext::new(Instant::now(), &mut draw);
    (context.avoid, context.attempts_max) = (&ids, 3);
    assert!(c.pick(&mut context).is_ok(), "the last choice is taken though it is to be avoided");
}

mod hashing;
mod slow_start;
mod subset;
mod zone;
