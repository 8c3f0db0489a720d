//! Counters of hosts that fail: ejections by cause, panic, waits that a host asked for.

use std::time::Duration;

use outrigger_testkit::Origin;
use outrigger_testkit::client::get;
use outrigger_traffic::config::{
    FailurePercentage, Fraction, OutlierDetection, RateLimitedBackoff, ResetHeader, ResetHeaderFormat,
};

use crate::bed::{Bed, action, cluster_at, eventually, retry_on, to};

#[tokio::test]
async fn ejections_are_counted_by_cause_and_panic_by_pick() {
    let (one, two) = (Origin::h1("one").await, Origin::h1("two").await);
    let mut config = to(&[&one, &two]);
    config.clusters[0].outlier_detection = Some(OutlierDetection {
        consecutive_5xx: 2,
        max_ejection_percent: 100,
        enforcing_consecutive_gateway_failure: Fraction::ZERO,
        ..OutlierDetection::default()
    });
    config.clusters[0].healthy_panic_threshold = Fraction::from_percent(100);
    let bed = Bed::start(config);
    for _ in 0..20 {
        assert_eq!(get(bed.address, "h", "/status/500").await.status, 500);
    }
    let count = |pick: fn(&outrigger_engine::telemetry::ClusterStats) -> u64| bed.cluster_stat("a", pick);
    assert_eq!(count(|stats| stats.ejections_enforced_total.value()), 2);
    assert_eq!(count(|stats| stats.ejections_enforced_consecutive_5xx.value()), 2);
    assert_eq!(count(|stats| stats.ejections_detected_consecutive_5xx.value()), 2);
    assert_eq!(count(|stats| stats.ejections_enforced_consecutive_gateway_failure.value()), 0);
    assert_eq!(count(|stats| stats.ejections_overflow.value()), 0);
    let before = count(|stats| stats.lb_healthy_panic.value());
    assert_eq!(get(bed.address, "h", "/").await.status, 200);
    assert_eq!(count(|stats| stats.lb_healthy_panic.value()), before + 1);
}

#[tokio::test]
async fn ejection_above_the_share_is_counted_as_overflow() {
    let (one, two) = (Origin::h1("one").await, Origin::h1("two").await);
    let mut config = to(&[&one, &two]);
    config.clusters[0].outlier_detection = Some(OutlierDetection {
        consecutive_5xx: 2,
        max_ejection_percent: 50,
        ..OutlierDetection::default()
    });
    config.clusters[0].healthy_panic_threshold = Fraction::ZERO;
    let bed = Bed::start(config);
    for _ in 0..8 {
        get(bed.address, "h", "/status/500").await;
    }
    assert_eq!(bed.cluster_stat("a", |stats| stats.ejections_enforced_total.value()), 1);
    assert!(bed.cluster_stat("a", |stats| stats.ejections_overflow.value()) > 0);
    assert_eq!(bed.cluster_stat("a", |stats| stats.lb_healthy_panic.value()), 0);
}

#[tokio::test]
async fn wait_that_the_host_asked_for_is_counted_apart() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    let mut policy = retry_on(|on| on.server_error = true, 1);
    policy.rate_limited = Some(RateLimitedBackoff {
        reset_headers: vec![ResetHeader { name: "retry-after".into(), format: ResetHeaderFormat::Seconds }],
        max_interval: Duration::from_secs(30),
    });
    action(&mut config, 0).retry_policy = Some(policy);
    let bed = Bed::start(config);
    assert_eq!(get(bed.address, "h", "/retry-after/1").await.status, 503);
    assert_eq!(get(bed.address, "h", "/status/503").await.status, 503);
    let counts = (
        bed.cluster_stat("a", |stats| stats.upstream_rq_retry_backoff_ratelimited.value()),
        bed.cluster_stat("a", |stats| stats.upstream_rq_retry_backoff_exponential.value()),
    );
    assert_eq!(counts, (1, 1));
}

#[tokio::test]
async fn host_that_fails_more_often_than_allowed_goes_at_the_end_of_the_interval() {
    let good = Origin::h1("one").await;
    let dead = {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        gone.local_addr().unwrap()
    };
    let mut config = to(&[&good]);
    config.clusters = vec![cluster_at("a", &[good.address(), dead])];
    config.clusters[0].healthy_panic_threshold = Fraction::ZERO;
    config.clusters[0].outlier_detection = Some(OutlierDetection {
        consecutive_5xx: u32::MAX,
        interval: Duration::from_millis(1),
        max_ejection_percent: 50,
        failure_percentage: FailurePercentage {
            enforcing: Fraction::ONE,
            threshold: 100,
            minimum_hosts: 1,
            request_volume: 1,
            ..FailurePercentage::default()
        },
        ..OutlierDetection::default()
    });
    let bed = Bed::start(config);
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(get(bed.address, "h", "/").await.status);
    }
    assert!(answers.contains(&503), "{answers:?}");
    eventually("the dead host to go", || {
        bed.cluster_stat("a", |stats| stats.ejections_enforced_failure_percentage.value()) == 1
    })
    .await;
    for _ in 0..6 {
        assert_eq!(get(bed.address, "h", "/").await.status, 200);
    }
    assert_eq!(bed.cluster_stat("a", |stats| stats.ejections_detected_success_rate.value()), 0);
}
