//! New hosts, biased least request.

use super::{cluster, endpoint, near, place};
use crate::balance::PickContext;
use crate::cluster::Cluster;
use crate::config::{Endpoints, Fraction, HealthStatus, LbPolicy, LeastRequest, SlowStart};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn shares_at(cluster: &Cluster, picks: u32, now: Instant) -> BTreeMap<u16, u32> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut draw = move || rng.u64(..);
    let mut counts = BTreeMap::new();
    for _ in 0..picks {
        let host = cluster.pick(&mut PickContext::new(now, &mut draw)).unwrap();
        *counts.entry(host.address.port()).or_insert(0) += 1;
    }
    counts
}

fn endpoints(ports: std::ops::RangeInclusive<u16>) -> Endpoints {
    let hosts = ports.map(|port| endpoint(port, 1, HealthStatus::Unknown)).collect();
    Endpoints {
        cluster_name: "c".into(),
        localities: vec![place("", 0, None, hosts)],
        overprovisioning_factor: None,
    }
}

fn slow(policy: LbPolicy, aggression: f64) -> Arc<Cluster> {
    cluster(endpoints(1..=4).localities, |c| {
        c.lb_policy = policy;
        c.slow_start = Some(SlowStart {
            window: Duration::from_secs(100),
            aggression,
            min_weight: Fraction::from_percent(10),
        });
    })
}

#[test]
fn share_of_a_new_host_grows_over_the_window() {
    for policy in [LbPolicy::RoundRobin, LbPolicy::least_request()] {
        for (aggression, age, factor) in [(1.0, 0, 0.1), (1.0, 30, 0.3), (1.0, 100, 1.0), (2.0, 25, 0.5)] {
            let cluster = slow(policy.clone(), aggression);
            let begin = Instant::now();
            shares_at(&cluster, 100, begin);
            let later = begin + Duration::from_secs(1_000);
            assert!(near(shares_at(&cluster, 10_000, later)[&1], 2_500), "all are old");
            cluster.set_endpoints(&endpoints(1..=5)).unwrap();
            // The first pick that meets the new host begins its age.
            while !shares_at(&cluster, 100, later).contains_key(&5) {}
            let counts = shares_at(&cluster, 10_000, later + Duration::from_secs(age));
            let expected = 10_000.0 * factor / (4.0 + factor);
            let got = f64::from(counts[&5]);
            assert!(
                (got - expected).abs() < expected * 0.15 + 60.0,
                "{policy:?} {aggression} {age}: {got} {expected}"
            );
        }
    }
}

#[test]
fn new_hosts_alone_share_evenly() {
    let counts = shares_at(&slow(LbPolicy::RoundRobin, 1.0), 40_000, Instant::now());
    assert!(counts.values().all(|n| near(*n, 10_000)), "{counts:?}");
}

fn biased(bias: f64) -> Arc<Cluster> {
    let hosts = vec![endpoint(1, 1, HealthStatus::Unknown), endpoint(2, 3, HealthStatus::Unknown)];
    cluster(vec![place("", 0, None, hosts)], |c| {
        c.lb_policy =
            LbPolicy::LeastRequest(LeastRequest { active_request_bias: bias, ..LeastRequest::default() });
    })
}

#[test]
fn bias_says_how_much_requests_under_way_count() {
    // Host 2 weighs 3 and has 2 requests: its share is 3 / 3^bias.
    for (bias, expected) in [(0.0, 30_000.0), (0.5, 25_359.0), (2.0, 10_000.0)] {
        let cluster = biased(bias);
        let heavy = cluster.hosts().hosts()[1].clone();
        let _busy = [heavy.start_request(), heavy.start_request()];
        let got = f64::from(shares_at(&cluster, 40_000, Instant::now())[&2]);
        assert!((got - expected).abs() < 1_500.0, "{bias}: {got} {expected}");
    }
}

#[test]
fn full_scan_takes_the_least_loaded_of_all() {
    let cluster = cluster(endpoints(1..=20).localities, |c| {
        c.lb_policy = LbPolicy::LeastRequest(LeastRequest { full_scan: true, ..LeastRequest::default() });
    });
    let hosts = cluster.hosts().hosts().to_vec();
    let _busy: Vec<_> = hosts.iter().skip(2).map(|host| host.start_request()).collect();
    let counts = shares_at(&cluster, 2_000, Instant::now());
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert!(near(counts[&1], 1_000), "{counts:?}");
}
