//! A configuration changes while requests are under way.

use outrigger_testkit::Origin;
use outrigger_traffic::config::{HttpFilter, Permission, Policy, Principal, Rbac, RbacAction, Rules};

use crate::bed::{Bed, action, cluster, manager, to};
use outrigger_traffic::config::ClusterChoice;

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
    let nobody = Rules {
        action: RbacAction::Deny,
        policies: vec![(
            "all".into(),
            Policy { permissions: vec![Permission::Any], principals: vec![Principal::Any] },
        )],
    };
    bed.change(|config| {
        let rbac = Rbac { rules: Some(nobody), shadow_rules: None, stat_prefix: String::new() };
        manager(config).http_filters.push(HttpFilter::rbac(rbac));
    });
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
