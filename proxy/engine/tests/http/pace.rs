//! Bodies that take their time: the bandwidth limit, and faults that make responses slow.

use std::time::{Duration, Instant};

use outrigger_testkit::Origin;
use outrigger_traffic::config::{
    BandwidthLimit, Fault, FaultRate, FilterConfig, FilterOverride, Fraction, HttpFilter, RouteFilterConfig,
};

use crate::bed::{Bed, eventually, forward, host, manager, to};

fn limit(request: bool, response: bool, kbps: Option<u64>) -> BandwidthLimit {
    let fill_interval = Duration::from_millis(50);
    BandwidthLimit { request, response, limit_kbps: kbps, fill_interval, enabled: true }
}

#[tokio::test]
async fn bodies_of_both_directions_pass_at_the_pace_and_keep_their_length() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    let filter = FilterConfig::BandwidthLimit(Box::new(limit(true, true, Some(100))));
    manager(&mut config).http_filters.push(HttpFilter::new("f", filter));
    let bed = Bed::start(config);
    let begun = Instant::now();
    let response = bed.h1().await.request("GET", "/bytes/20480", &[("host", "h")], b"").await.unwrap();
    assert_eq!((response.status, response.body.len()), (200, 20_480));
    assert_eq!(response.field("content-length"), Some("20480"));
    // 5 KiB are there at first, and the rest takes 150 ms.
    assert!(begun.elapsed() >= Duration::from_millis(145), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let body = vec![b'u'; 20_480];
    assert_eq!(bed.h1().await.request("POST", "/", &[("host", "h")], &body).await.unwrap().status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(145), "{:?}", begun.elapsed());
    assert_eq!(origin.seen().last().unwrap().field("content-length"), Some("20480"));
    assert!(origin.malformed().is_empty(), "{:?}", origin.malformed());
    assert_eq!(bed.http_stat(|s| s.bandwidth_limit_request_enabled.value()), 2);
    assert_eq!(bed.http_stat(|s| s.bandwidth_limit_request_allowed_total_size.value()), 20_480);
    assert!(bed.http_stat(|s| s.bandwidth_limit_response_allowed_total_size.value()) >= 20_480);
    assert!(bed.http_stat(|s| s.bandwidth_limit_request_enforced.value()) > 0);
    eventually("nothing to be under way", || {
        bed.http_stat(|s| {
            s.bandwidth_limit_request_pending.value() + s.bandwidth_limit_response_pending.value()
        }) == 0
    })
    .await;
}

#[tokio::test]
async fn limit_of_a_route_is_its_own() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    let filter = FilterConfig::BandwidthLimit(Box::new(limit(false, true, None)));
    manager(&mut config).http_filters.push(HttpFilter::new("f", filter));
    let mut slow = forward("/bytes/10240", "a");
    let own = RouteFilterConfig::BandwidthLimit(Box::new(limit(false, true, Some(100))));
    slow.filters = Some([("f".into(), FilterOverride::with(own))].into());
    host(&mut config).routes.insert(0, slow);
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    let begun = Instant::now();
    assert_eq!(client.request("GET", "/bytes/10240", &[("host", "h")], b"").await.unwrap().status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(45), "{:?}", begun.elapsed());
    client.request("GET", "/bytes/999", &[("host", "h")], b"").await.unwrap();
    assert_eq!(bed.http_stat(|s| s.bandwidth_limit_response_enabled.value()), 1);
}

#[tokio::test]
async fn fault_makes_responses_slow_as_configured_or_as_the_request_says() {
    let origin = Origin::h1("one").await;
    for fixed_kbps in [Some(100), None] {
        let mut config = to(&[&origin]);
        let response_rate = Some(FaultRate { fixed_kbps, percentage: Fraction::ONE });
        let fault = Fault { response_rate, max_active_faults: Some(1), ..Fault::default() };
        manager(&mut config).http_filters.push(HttpFilter::new("f", FilterConfig::Fault(Box::new(fault))));
        let bed = Bed::start(config);
        let begun = Instant::now();
        let fields = [("host", "h"), ("x-envoy-fault-throughput-response", "100")];
        let response = bed.h1().await.request("GET", "/bytes/10240", &fields, b"").await.unwrap();
        assert_eq!((response.status, response.body.len()), (200, 10_240));
        assert!(begun.elapsed() >= Duration::from_millis(45), "{:?}", begun.elapsed());
        assert_eq!(bed.http_stat(|s| s.fault_response_rl_injected.value()), 1);
        // The fault is over with its response: there is room for another one.
        eventually("no fault", || bed.http_stat(|s| s.downstream_rq_active.value()) == 0).await;
        bed.h1().await.request("GET", "/", &fields, b"").await.unwrap();
        assert_eq!(bed.http_stat(|s| s.fault_response_rl_injected.value()), 2);
    }
}
