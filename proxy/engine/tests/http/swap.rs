//! A configuration changes while requests are under way.

use std::time::{Duration, Instant};

use outrigger_engine::proxy::ProxyOptions;
use outrigger_testkit::Origin;
use outrigger_traffic::config::{
    HttpFilter, NetworkFilter, Permission, Policy, Principal, Rbac, RbacAction, Rules,
};

use crate::bed::{Bed, action, cluster, eventually, manager, to};
use outrigger_traffic::config::ClusterChoice;

/// Rules that deny everyone.
fn nobody() -> Rbac {
    let everyone = Policy { permissions: vec![Permission::Any], principals: vec![Principal::Any] };
    let rules = Rules { action: RbacAction::Deny, policies: vec![("all".into(), everyone)] };
    Rbac { rules: Some(rules), ..Rbac::default() }
}

#[tokio::test]
async fn new_route_holds_for_the_next_request_on_an_open_connection() {
    let (one, two) = (Origin::h1("one").await, Origin::h1("two").await);
    let mut config = to(&[&one]);
    config.clusters.push(cluster("b", &[&two]));
    let mut bed = Bed::start(config);
    let mut client = bed.h1().await;
    for (target, name) in [("a", "one"), ("b", "two"), ("a", "one")] {
        bed.change(|config| action(config, 0).cluster = ClusterChoice::Single(target.into()));
        let response = client.request("GET", "/", &[("host", "h")], b"").await.unwrap();
        assert_eq!((response.origin(), response.field("connection")), (name, None));
    }
}

#[tokio::test]
async fn new_rule_holds_for_the_next_request_and_not_for_the_one_under_way() {
    let origin = Origin::h1("one").await;
    let mut bed = Bed::start(to(&[&origin]));
    let mut client = bed.h1().await;
    client.send(b"GET /delay/100 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    origin.wait_for_requests(1).await;
    bed.change(|config| manager(config).http_filters.push(HttpFilter::rbac(nobody())));
    assert_eq!(client.response("GET").await.unwrap().status, 200);
    assert_eq!(client.request("GET", "/", &[("host", "h")], b"").await.unwrap().status, 403);
}

#[tokio::test]
async fn requests_under_load_survive_constant_swaps() {
    let (one, two) = (Origin::h1("one").await, Origin::h1("two").await);
    let mut config = to(&[&one]);
    config.clusters.push(cluster("b", &[&two]));
    let mut bed = Bed::start(config);
    let address = bed.address;
    let load = tokio::spawn(async move {
        let mut client = outrigger_testkit::H1Client::connect(address).await;
        let mut good = 0;
        for _ in 0..1000 {
            let response = client.request("POST", "/body", &[("host", "h")], b"abc").await.unwrap();
            assert_eq!((response.status, response.text().as_str()), (200, "abc"));
            good += 1;
        }
        good
    });
    let mut swaps = 0;
    while !load.is_finished() {
        let target = if swaps % 2 == 0 { "b" } else { "a" };
        bed.change(|config| action(config, 0).cluster = ClusterChoice::Single(target.into()));
        swaps += 1;
        tokio::task::yield_now().await;
    }
    assert_eq!(load.await.unwrap(), 1000);
    assert!(swaps > 1, "{swaps}");
}

#[tokio::test]
async fn connection_that_changed_network_rules_deny_is_cut_also_in_a_request() {
    let origin = Origin::h1("one").await;
    let mut bed = Bed::start(to(&[&origin]));
    let (mut busy, mut idle, h2) = (bed.h1().await, bed.h1().await, bed.h2().await);
    assert_eq!(idle.request("GET", "/", &[("host", "h")], b"").await.unwrap().status, 200);
    assert_eq!(h2.get("h", "/").await.unwrap().status, 200);
    busy.send(b"GET /delay/60000 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    origin.wait_for_requests(3).await;
    let stats = bed.handle.shared().live.load().listeners["edge"].stats.clone();
    bed.change(|config| {
        config.listeners[0].filter_chains[0].network_filters.push(NetworkFilter::Rbac(nobody()));
    });
    assert!(idle.is_closed().await && busy.is_closed().await);
    assert!(h2.get("h", "/").await.is_err());
    eventually("all to be counted", || stats.total(|s| s.rbac_evicted.value()) == 3).await;
    eventually("all to be gone", || stats.total(|s| s.downstream_cx_active.value()) == 0).await;
    eventually("the requests to be over", || bed.http_stat(|s| s.downstream_rq_active.value()) == 0).await;
}

#[tokio::test]
async fn request_on_a_removed_listener_may_finish_within_the_drain_time() {
    let origin = Origin::h1("one").await;
    let drain_time = Duration::from_millis(600);
    let mut bed = Bed::start_with(ProxyOptions { drain_time, ..ProxyOptions::default() }, to(&[&origin]));
    let (mut quick, mut slow) = (bed.h1().await, bed.h1().await);
    quick.send(b"GET /delay/100 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    slow.send(b"GET /delay/60000 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    origin.wait_for_requests(2).await;
    let stats = bed.handle.shared().live.load().listeners["edge"].stats.clone();
    let began = Instant::now();
    bed.change(|config| config.listeners.clear());
    let answer = quick.response("GET").await.unwrap();
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("late", Some("close")));
    drop(quick);
    assert!(slow.is_closed().await && began.elapsed() >= drain_time, "{:?}", began.elapsed());
    assert_eq!(stats.total(|s| s.downstream_cx_drain_time_over.value()), 1);
}
