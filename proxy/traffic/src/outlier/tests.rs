//! Tables of what ejects, when, and how many.

use super::{Cause, Ejection};
use crate::cluster::{Cluster, Host};
use crate::config::{
    self, ClusterDiscovery, Config, Endpoint, Endpoints, Fraction, LocalityEndpoints, OutlierDetection,
};
use crate::outcome::Outcome::{self, ConnectFailed, Connected, Reset, Response, Timeout};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn cluster(hosts: u16, rules: OutlierDetection) -> Arc<Cluster> {
    let endpoints = (1..=hosts).map(|p| Endpoint::at(([10, 0, 0, 1], p).into())).collect();
    let localities = vec![LocalityEndpoints { endpoints, ..LocalityEndpoints::default() }];
    let endpoints = Endpoints { cluster_name: "c".into(), localities, overprovisioning_factor: None };
    let mut cluster = config::Cluster::new("c", ClusterDiscovery::Static(endpoints));
    cluster.outlier_detection = Some(rules);
    let snapshot = crate::compile(&Config { clusters: vec![cluster], ..Config::default() }, None).unwrap();
    snapshot.clusters().next().unwrap().1.clone()
}

fn host(cluster: &Cluster, at: usize) -> Arc<Host> {
    cluster.hosts().hosts()[at].clone()
}

/// Reports outcomes of the first of two hosts; gives the last result that was not nothing.
fn after(rules: &OutlierDetection, outcomes: &[Outcome]) -> Ejection {
    let c = cluster(2, rules.clone());
    let h = host(&c, 0);
    let now = Instant::now();
    let mut last = Ejection::None;
    for outcome in outcomes {
        let got = c.report(&h, *outcome, now, 0);
        if got != Ejection::None {
            last = got;
        }
    }
    assert_eq!(h.is_ejected(), matches!(last, Ejection::Ejected(_)));
    last
}

#[test]
fn failures_in_a_row_eject_at_the_threshold_and_not_before() {
    let rules = OutlierDetection { consecutive_5xx: 3, ..OutlierDetection::default() };
    let bad = Response(500);
    let five = Ejection::Ejected(Cause::Consecutive5xx);
    let table: &[(&[Outcome], Ejection)] = &[
        (&[bad, bad], Ejection::None),
        (&[bad, bad, bad], five),
        (&[bad, bad, Response(200), bad, bad], Ejection::None),
        (&[bad, bad, Response(404), bad, bad], Ejection::None),
        (&[bad, bad, Connected, bad], five),
        (&[ConnectFailed, Timeout, Reset], five),
        (&[ConnectFailed, Response(200), Timeout, Reset], Ejection::None),
        (&[Outcome::grpc(14), Outcome::grpc(13), Outcome::grpc(2)], five),
        (&[Outcome::grpc(14), Outcome::grpc(5), Outcome::grpc(2)], Ejection::None),
    ];
    for (outcomes, expected) in table {
        assert_eq!(after(&rules, outcomes), *expected, "{outcomes:?}");
    }
}

#[test]
fn gateway_failures_are_counted_apart() {
    let rules = OutlierDetection {
        consecutive_gateway_failure: 2,
        enforcing_consecutive_gateway_failure: Fraction::ONE,
        ..OutlierDetection::default()
    };
    let cause = Cause::ConsecutiveGatewayFailure;
    assert_eq!(after(&rules, &[Response(502), Response(504)]), Ejection::Ejected(cause));
    assert_eq!(after(&rules, &[Response(502), Response(500), Response(503)]), Ejection::None);
    let by_default = OutlierDetection { consecutive_gateway_failure: 2, ..OutlierDetection::default() };
    assert_eq!(after(&by_default, &[Response(502), Response(504)]), Ejection::NotEnforced(cause));
}

#[test]
fn local_failures_are_counted_apart_where_asked() {
    let rules = OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: 2,
        consecutive_5xx: 2,
        ..OutlierDetection::default()
    };
    let local = Ejection::Ejected(Cause::ConsecutiveLocalOriginFailure);
    assert_eq!(after(&rules, &[ConnectFailed, Reset]), local);
    assert_eq!(after(&rules, &[ConnectFailed, Response(500), Timeout]), Ejection::None);
    assert_eq!(after(&rules, &[ConnectFailed, Connected, Timeout]), Ejection::None);
    assert_eq!(
        after(&rules, &[Response(500), Timeout, Response(500)]),
        Ejection::Ejected(Cause::Consecutive5xx)
    );
}

#[test]
fn a_threshold_of_zero_never_ejects() {
    let rules = OutlierDetection {
        consecutive_5xx: 0,
        consecutive_gateway_failure: 0,
        ..OutlierDetection::default()
    };
    assert_eq!(after(&rules, &[Response(503); 20]), Ejection::None);
}

#[test]
fn partial_enforcing_follows_the_draw() {
    let rules = OutlierDetection {
        consecutive_5xx: 1,
        enforcing_consecutive_5xx: Fraction::from_percent(30),
        ..OutlierDetection::default()
    };
    let c = cluster(2, rules);
    let now = Instant::now();
    let report = |draw| c.report(&host(&c, 0), Response(500), now, draw);
    assert_eq!(report(300_000), Ejection::NotEnforced(Cause::Consecutive5xx));
    assert_eq!(report(299_999), Ejection::Ejected(Cause::Consecutive5xx));
}

#[test]
fn no_more_than_the_largest_share_is_out_but_one_always_may_be() {
    for (hosts, percent, expected) in
        [(10, 10, 1), (10, 0, 1), (1, 10, 1), (10, 50, 5), (3, 50, 1), (4, 50, 2), (10, 100, 10)]
    {
        let rules = OutlierDetection {
            consecutive_5xx: 1,
            max_ejection_percent: percent,
            ..OutlierDetection::default()
        };
        let c = cluster(hosts, rules);
        let now = Instant::now();
        let results: Vec<_> = c.hosts().hosts().iter().map(|h| c.report(h, Response(500), now, 0)).collect();
        let out = c.hosts().hosts().iter().filter(|h| h.is_ejected()).count();
        assert_eq!(out, expected, "{hosts} hosts, {percent} %");
        let overflow = results.iter().filter(|r| **r == Ejection::Overflow(Cause::Consecutive5xx)).count();
        assert_eq!(overflow, usize::from(hosts) - expected);
    }
}

#[test]
fn ejections_grow_longer_each_time_up_to_the_longest_and_are_forgiven() {
    let rules = OutlierDetection {
        consecutive_5xx: 1,
        max_ejection_time: SECOND * 70,
        ..OutlierDetection::default()
    };
    let c = cluster(2, rules);
    let h = host(&c, 0);
    let mut now = Instant::now();
    for expected in [30, 60, 70, 70] {
        c.report(&h, Response(500), now, 0);
        let early = c.sweep(now + SECOND * expected - Duration::from_millis(1), &mut || 0);
        assert!(h.is_ejected() && (early.ejected, early.returned) == (1, 0));
        now += SECOND * expected;
        assert_eq!(c.sweep(now, &mut || 0).returned, 1);
        assert!(!h.is_ejected());
    }
    for _ in 0..4 {
        c.sweep(now, &mut || 0);
    }
    c.report(&h, Response(500), now, 0);
    assert_eq!(c.sweep(now + SECOND * 30, &mut || 0).returned, 1, "four good sweeps forgave four ejections");
}

#[test]
fn jitter_prolongs_an_ejection() {
    let rules = OutlierDetection {
        consecutive_5xx: 1,
        max_ejection_time_jitter: SECOND * 10,
        ..OutlierDetection::default()
    };
    let c = cluster(2, rules);
    let now = Instant::now();
    c.report(&host(&c, 0), Response(500), now, u32::MAX / 2);
    assert_eq!(c.sweep(now + SECOND * 34, &mut || 0).returned, 0);
    assert_eq!(c.sweep(now + SECOND * 36, &mut || 0).returned, 1);
}

#[test]
fn a_host_that_is_out_is_not_counted_and_starts_afresh() {
    let rules = OutlierDetection { consecutive_5xx: 2, ..OutlierDetection::default() };
    let c = cluster(2, rules);
    let h = host(&c, 0);
    let now = Instant::now();
    for _ in 0..5 {
        c.report(&h, Response(500), now, 0);
    }
    c.sweep(now + SECOND * 30, &mut || 0);
    assert_eq!(c.report(&h, Response(500), now, 0), Ejection::None);
    assert_eq!(c.report(&h, Response(500), now, 0), Ejection::Ejected(Cause::Consecutive5xx));
}

#[test]
fn without_rules_nothing_is_ejected_but_errors_are_counted() {
    let mut one = config::Cluster::new("c", ClusterDiscovery::Static(Endpoints::default()));
    one.outlier_detection = None;
    let snapshot = crate::compile(&Config { clusters: vec![one], ..Config::default() }, None).unwrap();
    let c = snapshot.clusters().next().unwrap().1;
    let endpoints = vec![Endpoint::at(([10, 0, 0, 1], 1).into())];
    let localities = vec![LocalityEndpoints { endpoints, ..LocalityEndpoints::default() }];
    c.set_endpoints(&Endpoints { localities, ..Endpoints::default() }).unwrap();
    let h = host(c, 0);
    for outcome in [Response(500), ConnectFailed, Response(404), Reset, Connected] {
        assert_eq!(c.report(&h, outcome, Instant::now(), 0), Ejection::None);
    }
    let load = |a: &std::sync::atomic::AtomicU64| a.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((load(&h.live.requests_error), load(&h.live.connections_failed)), (3, 1));
}
