//! Copies of requests, and redirects that are followed.

use outrigger_testkit::Origin;
use outrigger_testkit::client::get;
use outrigger_traffic::config::{
    Action, ClusterChoice, Fraction, HostRewrite, InternalRedirect, Mirror, MirrorCluster, PathMatch,
    PathRewrite, TlsMatch, WeightedCluster,
};

use crate::bed::{Bed, action, cluster, eventually, forward, host, to, to_h2};

#[tokio::test]
async fn copy_reaches_the_other_cluster_and_its_fate_touches_nothing() {
    for upstream_h2 in [false, true] {
        let origin = if upstream_h2 { Origin::h2c("one").await } else { Origin::h1("one").await };
        let copy = Origin::h1("copy").await;
        let mut config = if upstream_h2 { to_h2(&[&origin]) } else { to(&[&origin]) };
        config.clusters.push(cluster("b", &[&copy]));
        let mut by_header = Mirror::to("");
        by_header.cluster = MirrorCluster::Header("x-copy".into());
        action(&mut config, 0).mirrors = vec![Mirror::to("b"), by_header];
        let bed = Bed::start(config);
        let mut h1 = bed.h1().await;
        let fields = [("host", "h.test:81"), ("x-copy", "b")];
        assert_eq!(h1.request("POST", "/count", &fields, b"12345").await.unwrap().text(), "5");
        let h2 = bed.h2().await;
        let request = http::Request::post("http://h.test/count").body("123".into()).unwrap();
        assert_eq!(h2.request(request).await.unwrap().text(), "3");
        // The copies fail, the requests do not.
        assert_eq!(get(bed.address, "h", "/echo").await.status, 200);
        eventually("copies", || copy.requests() == 4).await;
        let mut seen = copy.seen();
        seen.sort_by_key(|request| request.body.len());
        let hosts: Vec<_> =
            seen.iter().map(|r| (r.field("host").unwrap().to_owned(), r.body.len())).collect();
        let expected =
            [("h-shadow", 0), ("h.test-shadow", 3), ("h.test-shadow:81", 5), ("h.test-shadow:81", 5)];
        assert_eq!(hosts, expected.map(|(host, length)| (host.to_owned(), length)));
        assert!(seen.iter().all(|request| request.field("x-envoy-internal") == Some("true")));
        assert_eq!(origin.requests(), 3);
    }
}

#[tokio::test]
async fn body_of_the_limit_is_copied_and_one_byte_more_is_not() {
    let (origin, copy) = (Origin::h1("one").await, Origin::h1("copy").await);
    let mut config = to(&[&origin]);
    config.clusters.push(cluster("b", &[&copy]));
    action(&mut config, 0).mirrors = vec![Mirror::to("b")];
    host(&mut config).routes[0].per_request_buffer_limit_bytes = Some(1000);
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    let send = [("host", "h")];
    assert_eq!(client.request("POST", "/count", &send, &[b'x'; 1001]).await.unwrap().text(), "1001");
    let abandoned = || bed.cluster_stat("b", |stats| stats.retry_or_shadow_abandoned.value());
    eventually("an abandoned copy", || abandoned() == 1).await;
    assert_eq!(client.request("POST", "/count", &send, &[b'x'; 1000]).await.unwrap().text(), "1000");
    eventually("a copy", || copy.requests() == 1).await;
    assert_eq!((copy.seen()[0].body.len(), abandoned()), (1000, 1));
}

#[tokio::test]
async fn no_copy_is_made_by_a_share_of_none_or_to_a_cluster_that_is_not_there() {
    let (origin, copy) = (Origin::h1("one").await, Origin::h1("copy").await);
    let mut config = to(&[&origin]);
    config.clusters.push(cluster("b", &[&copy]));
    let none = Mirror { fraction: Fraction::ZERO, ..Mirror::to("b") };
    host(&mut config).mirrors = vec![none, Mirror::to("gone"), Mirror { keep_host: true, ..Mirror::to("b") }];
    let bed = Bed::start(config);
    assert_eq!(get(bed.address, "h", "/").await.status, 200);
    eventually("the one copy", || copy.requests() == 1).await;
    assert_eq!(copy.seen()[0].field("host"), Some("h"));
}

#[tokio::test]
async fn redirect_is_followed_as_often_as_allowed() {
    let (origin, target) = (Origin::h1("one").await, Origin::h1("two").await);
    let mut config = to(&[&origin]);
    config.clusters.push(cluster("b", &[&target]));
    let mut to_target = forward("/target", "b");
    if let Action::Forward(action) = &mut to_target.action {
        action.internal_redirect = Some(InternalRedirect { max: 3, ..InternalRedirect::default() });
    }
    let mut moved = forward("/redirect", "a");
    if let Action::Forward(action) = &mut moved.action {
        action.internal_redirect = Some(InternalRedirect::default());
    }
    host(&mut config).routes = vec![to_target, moved];
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    let response =
        client.request("POST", "/redirect/302/http://h/target/count", &[("host", "h")], b"12345").await;
    let response = response.unwrap();
    assert_eq!((response.status, response.origin()), (200, "two"));
    let seen = &target.seen()[0];
    assert_eq!((seen.target.as_str(), seen.body.len()), ("/target/count", 5));
    assert!(seen.field("x-envoy-original-url").unwrap().starts_with("http://h/"));
    // No route leads there: the client is told.
    let response =
        client.request("GET", "/redirect/302/http://h/nowhere", &[("host", "h")], b"").await.unwrap();
    assert_eq!((response.status, response.field("location")), (302, Some("http://h/nowhere")));
    let counted = |pick: fn(&outrigger_engine::telemetry::ClusterStats) -> u64| bed.cluster_stat("a", pick);
    assert_eq!(counted(|stats| stats.upstream_internal_redirect_succeeded_total.value()), 1);
    assert_eq!(counted(|stats| stats.upstream_internal_redirect_failed_total.value()), 1);
}

#[tokio::test]
async fn templates_texts_headers_and_certificates_choose_and_rewrite() {
    let (origin, other) = (Origin::h1("one").await, Origin::h1("two").await);
    let mut config = to(&[&origin]);
    config.clusters.push(cluster("b", &[&other]));
    let mut template = forward("/", "a");
    template.matches.path = PathMatch::Template("/t/{user}/{rest=**}".into());
    if let Action::Forward(action) = &mut template.action {
        action.path_rewrite = Some(PathRewrite::Template("/{rest}/of/{user}".into()));
        action.host_rewrite = Some(HostRewrite::Format("%REQ(x-one)%.test".into()));
    }
    let mut shown = forward("/", "a");
    shown.matches.tls = Some(TlsMatch { presented: Some(true), validated: None });
    let mut split = forward("/split", "a");
    if let Action::Forward(action) = &mut split.action {
        let share = |name: &str, weight| WeightedCluster {
            name: name.into(),
            cluster_header: None,
            weight,
            headers: Default::default(),
            metadata_match: Vec::new(),
            filters: None,
            host_rewrite: None,
        };
        action.cluster = ClusterChoice::Weighted(vec![share("a", 1), share("b", 9)]);
        action.split_header = Some("x-number".into());
    }
    host(&mut config).routes = vec![template, shown, split];
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    let fields = [("host", "h"), ("x-one", "me")];
    assert_eq!(client.request("GET", "/t/u/a/b?q=1", &fields, b"").await.unwrap().status, 200);
    let seen = origin.seen().pop().unwrap();
    assert_eq!((seen.target.as_str(), seen.field("host")), ("/a/b/of/u?q=1", Some("me.test")));
    assert_eq!(seen.field("x-envoy-original-host"), Some("h"));
    for (number, expected) in [("0", "one"), ("1", "two"), ("9", "two"), ("10", "one")] {
        let fields = [("host", "h"), ("x-number", number)];
        assert_eq!(
            client.request("GET", "/split", &fields, b"").await.unwrap().origin(),
            expected,
            "{number}"
        );
    }
    // Nobody shows a certificate without TLS.
    assert_eq!(client.request("GET", "/x", &[("host", "h")], b"").await.unwrap().status, 404);
}
