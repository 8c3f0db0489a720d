//! Tables of whom an interval speaks against, and a slow oracle.

use super::super::{Cause, Ejection};
use crate::cluster::{Cluster, Host};
use crate::config::{
    self, ClusterDiscovery, Config, Endpoint, Endpoints, FailurePercentage, Fraction, LocalityEndpoints,
    OutlierDetection, SuccessRate,
};
use crate::outcome::Outcome::{self, ConnectFailed, Connected, Response};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nothing but statistics, and room for everybody to go.
fn rules() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: u32::MAX,
        consecutive_gateway_failure: u32::MAX,
        consecutive_local_origin_failure: u32::MAX,
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    }
}

fn cluster(hosts: usize, rules: &OutlierDetection) -> Arc<Cluster> {
    let endpoints = (0..hosts).map(|n| Endpoint::at(([10, 0, 0, 1], 1 + n as u16).into())).collect();
    let localities = vec![LocalityEndpoints { endpoints, ..LocalityEndpoints::default() }];
    let endpoints = Endpoints { cluster_name: "c".into(), localities, overprovisioning_factor: None };
    let mut cluster = config::Cluster::new("c", ClusterDiscovery::Static(endpoints));
    cluster.outlier_detection = Some(rules.clone());
    let snapshot = crate::compile(&Config { clusters: vec![cluster], ..Config::default() }, None).unwrap();
    snapshot.clusters().next().unwrap().1.clone()
}

fn hosts(cluster: &Cluster) -> Vec<Arc<Host>> {
    cluster.hosts().hosts().to_vec()
}

fn repeat(c: &Cluster, host: &Host, outcome: Outcome, times: u32, now: Instant) {
    for _ in 0..times {
        assert_eq!(c.report(host, outcome, now, 0), Ejection::None);
    }
}

/// Reports so many good and bad ones of each host, ends the interval; who is out then, and what was said.
fn after(
    rules: &OutlierDetection,
    told: &[(u32, u32)],
    (good, bad): (Outcome, Outcome),
) -> (Vec<bool>, Vec<Ejection>) {
    let c = cluster(told.len(), rules);
    let now = Instant::now();
    for (host, (successes, failures)) in hosts(&c).iter().zip(told) {
        repeat(&c, host, good, *successes, now);
        repeat(&c, host, bad, *failures, now);
    }
    let judged = c.sweep(now, &mut || 0).judged;
    (hosts(&c).iter().map(|host| host.is_ejected()).collect(), judged)
}

const STATUS: (Outcome, Outcome) = (Response(200), Response(500));

#[test]
fn host_far_below_the_mean_goes() {
    // Four at 100 % and one at 0 %: mean 80, deviation 40, threshold 80 - 1.9 * 40 = 4.
    let four_good = [(100, 0), (100, 0), (100, 0), (100, 0)];
    let with = |fifth| [four_good.as_slice(), &[fifth]].concat();
    let (out, judged) = after(&rules(), &with((0, 100)), STATUS);
    assert_eq!(out, [false, false, false, false, true]);
    assert_eq!(judged, [Ejection::Ejected(Cause::SuccessRate)]);
    // Below 100 requests it is not judged, and then there are too few that are.
    assert_eq!(after(&rules(), &with((0, 99)), STATUS).1, []);
    assert_eq!(after(&rules(), &[(100, 0), (100, 0), (100, 0), (0, 100)], STATUS).1, []);
    // The same rate for all is nobody's fault.
    assert_eq!(after(&rules(), &[(50, 50); 5], STATUS).1, []);
    // Three times the deviation is further than any of five can be.
    let mut wide = rules();
    wide.success_rate.stdev_factor_thousandths = 3000;
    assert_eq!(after(&wide, &with((0, 100)), STATUS).1, []);
}

#[test]
fn host_at_the_failure_percentage_goes_and_one_below_stays() {
    let mut rules = rules();
    rules.success_rate.enforcing = Fraction::ZERO;
    rules.failure_percentage =
        FailurePercentage { enforcing: Fraction::ONE, minimum_hosts: 2, ..FailurePercentage::default() };
    let told = [(15, 85), (16, 84), (0, 50), (0, 49)];
    let (out, judged) = after(&rules, &told, STATUS);
    assert_eq!(out, [true, false, true, false]);
    assert_eq!(judged, [Ejection::Ejected(Cause::FailurePercentage); 2]);
    assert_eq!(after(&rules, &[(0, 50), (0, 49)], STATUS).1, [], "one alone is not compared");
}

#[test]
fn local_failures_are_compared_apart_where_they_are_counted_apart() {
    let mut rules = rules();
    let told = [(100, 0), (100, 0), (100, 0), (100, 0), (0, 100)];
    let local = (Connected, ConnectFailed);
    let (_, judged) = after(&rules, &told, local);
    assert_eq!(judged, [], "connections say nothing of the application, and only one host has failures");
    rules.split_external_local_origin_errors = true;
    assert_eq!(after(&rules, &told, local).1, [Ejection::Ejected(Cause::LocalOriginSuccessRate)]);
    rules.success_rate = SuccessRate { enforcing_local_origin: Fraction::ZERO, ..rules.success_rate };
    rules.failure_percentage.enforcing_local_origin = Fraction::ONE;
    assert_eq!(after(&rules, &told, local).1, [Ejection::Ejected(Cause::LocalOriginFailurePercentage)]);
}

#[test]
fn share_of_enforcing_and_of_hosts_out_hold_for_statistics_too() {
    let told = [(100, 0), (100, 0), (100, 0), (100, 0), (0, 100)];
    let mut rules = rules();
    rules.success_rate.enforcing = Fraction::from_percent(1);
    let c = cluster(5, &rules);
    let now = Instant::now();
    for (host, (successes, failures)) in hosts(&c).iter().zip(told) {
        repeat(&c, host, Response(200), successes, now);
        repeat(&c, host, Response(500), failures, now);
    }
    let judged = c.sweep(now, &mut || 999_999).judged;
    assert_eq!(judged, [Ejection::NotEnforced(Cause::SuccessRate)]);
    rules.success_rate.enforcing = Fraction::ZERO;
    rules.failure_percentage = FailurePercentage { enforcing: Fraction::ONE, ..FailurePercentage::default() };
    rules.max_ejection_percent = 20;
    let judged = after(&rules, &[(0, 100); 5], STATUS).1;
    let full = Ejection::Overflow(Cause::FailurePercentage);
    assert_eq!(judged, [Ejection::Ejected(Cause::FailurePercentage), full, full, full, full]);
}

#[test]
fn interval_ends_with_the_sweep_and_the_rate_is_shown() {
    let c = cluster(1, &rules());
    let host = hosts(&c).remove(0);
    let now = Instant::now();
    assert_eq!(host.success_rate(), None);
    repeat(&c, &host, Response(200), 75, now);
    repeat(&c, &host, Response(503), 25, now);
    c.sweep(now, &mut || 0);
    assert_eq!((host.success_rate(), host.local_origin_success_rate()), (Some(75.0), None));
    c.sweep(now, &mut || 0);
    assert_eq!(host.success_rate(), None, "nothing came in this interval");
    // What came back starts anew.
    let mut rules = rules();
    rules.failure_percentage = FailurePercentage {
        enforcing: Fraction::ONE,
        minimum_hosts: 1,
        request_volume: 1,
        ..FailurePercentage::default()
    };
    let c = cluster(1, &rules);
    let host = hosts(&c).remove(0);
    c.report(&host, Response(500), now, 0);
    assert_eq!(c.sweep(now, &mut || 0).ejected, 1);
    let later = c.sweep(now + Duration::from_secs(31), &mut || 0);
    assert_eq!((later.returned, later.ejected, later.judged), (1, 0, Vec::new()));
}

/// Who is below the threshold, in the plainest words.
fn oracle(rules: &SuccessRate, told: &[(u32, u32)]) -> Vec<bool> {
    let rate = |(good, bad): &(u32, u32)| f64::from(*good) * 100.0 / f64::from(good + bad);
    let judged: Vec<f64> = told
        .iter()
        .filter(|(good, bad)| good + bad >= rules.request_volume && good + bad > 0)
        .map(rate)
        .collect();
    let mean = judged.iter().sum::<f64>() / judged.len() as f64;
    let variance = judged.iter().map(|rate| (rate - mean) * (rate - mean)).sum::<f64>() / judged.len() as f64;
    let least = mean - f64::from(rules.stdev_factor_thousandths) / 1000.0 * variance.sqrt();
    let enough = !judged.is_empty() && judged.len() >= rules.minimum_hosts as usize;
    told.iter()
        .map(|one| enough && one.0 + one.1 > 0 && one.0 + one.1 >= rules.request_volume && rate(one) < least)
        .collect()
}

proptest! {
    #[test]
    fn success_rate_agrees_with_the_oracle(
        told in prop::collection::vec((0_u32..40, 0_u32..40), 1..12),
        minimum_hosts in 0_u32..8,
        request_volume in 0_u32..50,
        stdev_factor_thousandths in 0_u32..2500,
    ) {
        let mut rules = rules();
        rules.success_rate =
            SuccessRate { minimum_hosts, request_volume, stdev_factor_thousandths, ..SuccessRate::default() };
        let expected = oracle(&rules.success_rate, &told);
        prop_assert_eq!(after(&rules, &told, STATUS).0, expected);
    }
}
