//! Our client against a control service that behaves as go-control-plane does, well and badly.

mod support;

use outrigger_api::envoy::config::cluster::v3::Cluster;
use outrigger_api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_api::envoy::config::listener::v3::Listener;
use outrigger_api::envoy::config::route::v3::RouteConfiguration;
use outrigger_api::envoy::service::discovery::v3::DiscoveryResponse;
use outrigger_traffic::config::Config;
use outrigger_xds::ads::session::Variant;
use outrigger_xds::last_good::LastGood;
use support::{Bed, Delta, PATIENCE, delta, eds_cluster, endpoints, resource, url, yaml};

fn listener(port: u16) -> Listener {
    yaml(&format!(
        "name: in
address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: in
      rds: {{route_config_name: table, config_source: {{ads: {{}}, resource_api_version: V3}}}}
      http_filters:
      - name: envoy.filters.http.router
        typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"
    ))
}

fn table(cluster: &str) -> RouteConfiguration {
    yaml(&format!(
        "{{name: table, virtual_hosts: [{{name: all, domains: [\"*\"], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]}}"
    ))
}

/// Cluster of the only route in force.
fn routed_to(config: &Config) -> Option<String> {
    use outrigger_traffic::config::{Action, ClusterChoice};
    let route = config.route_configs.first()?.virtual_hosts.first()?.routes.first()?;
    match &route.action {
        Action::Forward(forward) => match &forward.cluster {
            ClusterChoice::Single(name) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn has_endpoints(config: &Config, name: &str) -> bool {
    config.endpoints.iter().any(|e| e.cluster_name == name)
}

/// Brings a client from nothing to a route to cluster `a`, as a well-behaved server does.
async fn settled(bed: &mut Bed) -> Delta {
    let mut stream = bed.delta_stream().await;
    let first = stream.request().await;
    assert_eq!(
        (first.type_url.as_str(), first.node.map(|n| n.id)),
        (url::<Cluster>().as_str(), Some("test-node".into()))
    );
    assert_eq!(stream.request().await.type_url, url::<Listener>());
    stream.respond(delta::<Cluster>("c1", vec![resource("a", "1", &eds_cluster("a"))], &[])).await;
    let ack = stream.request().await;
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("c1", None));
    let wants = stream.request().await;
    assert_eq!(
        (wants.type_url, wants.resource_names_subscribe),
        (url::<ClusterLoadAssignment>(), vec!["a".to_owned()])
    );
    stream
        .respond(delta::<ClusterLoadAssignment>("e1", vec![resource("a", "1", &endpoints("a", &[1]))], &[]))
        .await;
    assert_eq!(stream.request().await.response_nonce, "e1");
    stream.respond(delta::<Listener>("l1", vec![resource("in", "1", &listener(1000))], &[])).await;
    assert_eq!(stream.request().await.response_nonce, "l1");
    let wants = stream.request().await;
    assert_eq!(
        (wants.type_url, wants.resource_names_subscribe),
        (url::<RouteConfiguration>(), vec!["table".to_owned()])
    );
    stream.respond(delta::<RouteConfiguration>("r1", vec![resource("table", "1", &table("a"))], &[])).await;
    assert_eq!(stream.request().await.response_nonce, "r1");
    bed.recorder
        .until("route to a", |c| routed_to(c).as_deref() == Some("a") && c.listeners.len() == 1)
        .await;
    stream
}

#[tokio::test]
async fn listener_takes_effect_only_when_its_routes_are_there() {
    let mut bed = Bed::start(Variant::Delta, None).await;
    settled(&mut bed).await;
    for config in bed.recorder.configs.lock().unwrap().iter() {
        assert!(
            config.listeners.is_empty() || !config.route_configs.is_empty(),
            "a listener without its routes"
        );
    }
}

#[tokio::test]
async fn route_to_a_cluster_without_endpoints_waits_for_them() {
    let mut bed = Bed::start(Variant::Delta, None).await;
    let mut stream = settled(&mut bed).await;
    // Out of order: the route to `b` comes before `b` has endpoints.
    stream.respond(delta::<Cluster>("c2", vec![resource("b", "1", &eds_cluster("b"))], &[])).await;
    assert_eq!(stream.request().await.response_nonce, "c2");
    let wants = stream.request().await;
    assert_eq!(wants.resource_names_subscribe, ["b"]);
    stream.respond(delta::<RouteConfiguration>("r2", vec![resource("table", "2", &table("b"))], &[])).await;
    let ack = stream.request().await;
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("r2", None));
    let now = bed.recorder.until("cluster b is there", |c| c.clusters.len() == 2).await;
    assert_eq!(routed_to(&now).as_deref(), Some("a"), "the old route stays until b is warm");
    stream
        .respond(delta::<ClusterLoadAssignment>("e2", vec![resource("b", "1", &endpoints("b", &[2]))], &[]))
        .await;
    bed.recorder.until("route to b", |c| routed_to(c).as_deref() == Some("b") && has_endpoints(c, "b")).await;
}

#[tokio::test]
async fn cluster_removed_too_early_stays_while_a_route_uses_it() {
    let mut bed = Bed::start(Variant::Delta, None).await;
    let mut stream = settled(&mut bed).await;
    stream.respond(delta::<Cluster>("c2", vec![resource("b", "1", &eds_cluster("b"))], &["a"])).await;
    assert_eq!(stream.request().await.response_nonce, "c2");
    let wants = stream.request().await;
    assert_eq!(
        (wants.resource_names_subscribe, wants.resource_names_unsubscribe),
        (vec!["b".to_owned()], vec!["a".to_owned()])
    );
    let now = bed.recorder.until("b beside a", |c| c.clusters.iter().any(|x| x.name == "b")).await;
    assert!(now.clusters.iter().any(|x| x.name == "a") && has_endpoints(&now, "a"), "a is still used");
    stream
        .respond(delta::<ClusterLoadAssignment>("e2", vec![resource("b", "1", &endpoints("b", &[2]))], &[]))
        .await;
    stream.respond(delta::<RouteConfiguration>("r2", vec![resource("table", "2", &table("b"))], &[])).await;
    bed.recorder.until("only b", |c| routed_to(c).as_deref() == Some("b") && c.clusters.len() == 1).await;
}

#[tokio::test]
async fn one_bad_resource_is_refused_and_the_others_take_effect() {
    let mut bed = Bed::start(Variant::Delta, None).await;
    let mut stream = settled(&mut bed).await;
    let bad: Cluster = Cluster {
        name: "bad".into(),
        connect_timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        ..eds_cluster("bad")
    };
    let both = vec![resource("good", "1", &eds_cluster("good")), resource("bad", "1", &bad)];
    stream.respond(delta::<Cluster>("c2", both, &[])).await;
    let nack = stream.request().await;
    let text = nack.error_detail.expect("a NACK").message;
    assert!(
        nack.response_nonce == "c2" && text.contains("cluster/bad") && text.contains("connect_timeout"),
        "{text}"
    );
    bed.recorder.until("good is there", |c| c.clusters.iter().any(|x| x.name == "good")).await;
    // The server sends it again, mended.
    assert_eq!(stream.request().await.resource_names_subscribe, ["good"]);
    stream.respond(delta::<Cluster>("c3", vec![resource("bad", "2", &eds_cluster("bad"))], &[])).await;
    let ack = stream.request().await;
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("c3", None));
    bed.recorder.until("bad is mended", |c| c.clusters.iter().any(|x| x.name == "bad")).await;
    assert!(bed.feed.lock().unwrap().status.refused.is_empty());
}

#[tokio::test]
async fn unknown_field_number_is_refused_with_its_path() {
    let mut bed = Bed::start(Variant::Delta, None).await;
    let mut stream = settled(&mut bed).await;
    let mut sent = resource("a", "2", &eds_cluster("a"));
    // Field 37 (`health_checks` is 8; 1999 is nobody's): varint 1.
    sent.resource.as_mut().unwrap().value.extend([0xf8, 0x7c, 0x01]);
    stream.respond(delta::<Cluster>("c2", vec![sent], &[])).await;
    let text = stream.request().await.error_detail.expect("a NACK").message;
    assert!(text.contains("cluster/a") && text.contains("1999"), "{text}");
}

#[tokio::test]
async fn duplicate_nonce_is_not_answered() {
    let mut bed = Bed::start(Variant::Delta, None).await;
    let mut stream = settled(&mut bed).await;
    let again = delta::<ClusterLoadAssignment>("e2", vec![resource("a", "2", &endpoints("a", &[3]))], &[]);
    stream.respond(again.clone()).await;
    assert_eq!(stream.request().await.response_nonce, "e2");
    stream.respond(again).await;
    stream.expect_silence().await;
    assert_eq!(bed.recorder.endpoints.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn reset_stream_is_opened_again_with_what_is_held() {
    let mut bed = Bed::start(Variant::Delta, None).await;
    settled(&mut bed).await.reset().await;
    let mut stream = bed.delta_stream().await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let request = stream.request().await;
        assert_eq!(request.response_nonce, "");
        held.push((
            request.type_url,
            request.resource_names_subscribe,
            request.initial_resource_versions.into_iter().collect::<Vec<_>>(),
        ));
    }
    let one = |name: &str| vec![(name.to_owned(), "1".to_owned())];
    assert_eq!(
        held,
        [
            (url::<Cluster>(), vec![], one("a")),
            (url::<ClusterLoadAssignment>(), vec!["a".to_owned()], one("a")),
            (url::<Listener>(), vec![], one("in")),
            (url::<RouteConfiguration>(), vec!["table".to_owned()], one("table")),
        ]
    );
    let before = bed.recorder.configs.lock().unwrap().len();
    stream.expect_silence().await;
    assert_eq!(bed.recorder.configs.lock().unwrap().len(), before, "nothing was lost meanwhile");
}

#[tokio::test]
async fn restart_without_server_is_in_force_at_once_and_reports_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("last-good");
    {
        let mut bed = Bed::start(Variant::Delta, Some(LastGood::new(file.clone()))).await;
        settled(&mut bed).await;
    }
    let mut bed = Bed::start(Variant::Delta, Some(LastGood::new(file))).await;
    let config = bed.recorder.configs.lock().unwrap().last().cloned().unwrap();
    assert_eq!(routed_to(&config).as_deref(), Some("a"));
    let mut stream = bed.delta_stream().await;
    assert_eq!(stream.request().await.initial_resource_versions.len(), 1);
}

#[tokio::test]
async fn endpoint_changes_are_written_together_and_policy_before_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let file = LastGood::new(folder.path().join("last-good"));
    let mut bed = Bed::start(Variant::Delta, Some(file.clone())).await;
    let mut stream = settled(&mut bed).await;
    let version = |kind: String, name: &str| {
        let saved = file.load().into_iter().find(|raw| raw.type_url == kind && raw.name == name);
        saved.map(|raw| raw.version)
    };
    let saves = |bed: &Bed| bed.feed.lock().unwrap().status.saves;
    let began = std::time::Instant::now();
    let before = saves(&bed);
    for n in 1..=40 {
        let changed = resource("a", &format!("e{n}"), &endpoints("a", &[n]));
        stream.respond(delta::<ClusterLoadAssignment>(&n.to_string(), vec![changed], &[])).await;
        assert!(stream.request().await.error_detail.is_none());
    }
    let most = began.elapsed().as_secs() + 1;
    assert!(saves(&bed) - before <= most, "at most one a second");
    // What was not written when the end comes is written then.
    bed.feed.lock().unwrap().flush();
    assert_eq!(version(url::<ClusterLoadAssignment>(), "a").as_deref(), Some("e40"));
    // Policy does not wait, and takes the endpoints along.
    let last = resource("a", "e99", &endpoints("a", &[99]));
    stream.respond(delta::<ClusterLoadAssignment>("e99", vec![last], &[])).await;
    assert_eq!(stream.request().await.response_nonce, "e99");
    stream.respond(delta::<Cluster>("c9", vec![resource("b", "c9", &eds_cluster("b"))], &[])).await;
    assert_eq!(stream.request().await.response_nonce, "c9");
    assert_eq!(version(url::<Cluster>(), "b").as_deref(), Some("c9"));
    assert_eq!(version(url::<ClusterLoadAssignment>(), "a").as_deref(), Some("e99"));
}

#[tokio::test]
async fn endpoint_change_is_on_disk_after_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let file = LastGood::new(folder.path().join("last-good"));
    let mut bed = Bed::start(Variant::Delta, Some(file.clone())).await;
    let mut stream = settled(&mut bed).await;
    let changed = resource("a", "e7", &endpoints("a", &[7]));
    stream.respond(delta::<ClusterLoadAssignment>("e7", vec![changed], &[])).await;
    stream.request().await;
    let began = std::time::Instant::now();
    while !file.load().iter().any(|raw| raw.version == "e7") {
        assert!(began.elapsed() < PATIENCE, "not written");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn damaged_file_of_last_good_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("last-good");
    for content in [&b"OUTRIGGER-LAST-GOOD 1\n\xff\xff"[..], b"something else", b""] {
        std::fs::write(&file, content).unwrap();
        let bed = Bed::start(Variant::Delta, Some(LastGood::new(file.clone()))).await;
        assert_eq!(bed.recorder.configs.lock().unwrap().last(), Some(&Config::default()));
    }
}

#[tokio::test]
async fn state_of_the_world_withholds_and_completes() {
    let mut bed = Bed::start(Variant::StateOfTheWorld, None).await;
    let mut stream = bed.sotw_stream().await;
    assert_eq!(stream.request().await.type_url, url::<Cluster>());
    assert_eq!(stream.request().await.type_url, url::<Listener>());
    let world = |type_url: String, version: &str, resources: Vec<prost_types::Any>| DiscoveryResponse {
        type_url,
        version_info: version.into(),
        nonce: version.into(),
        resources,
        ..DiscoveryResponse::default()
    };
    let clusters = vec![outrigger_api::any(&eds_cluster("a")), outrigger_api::any(&eds_cluster("b"))];
    stream.respond(world(url::<Cluster>(), "c1", clusters)).await;
    assert_eq!(stream.request().await.version_info, "c1");
    // The server answers only when both names were asked for: both are in one request.
    assert_eq!(stream.request().await.resource_names, ["a", "b"]);
    let both = vec![outrigger_api::any(&endpoints("a", &[1])), outrigger_api::any(&endpoints("b", &[2]))];
    stream.respond(world(url::<ClusterLoadAssignment>(), "e1", both)).await;
    assert_eq!(stream.request().await.version_info, "e1");
    bed.recorder.until("both", |c| has_endpoints(c, "a") && has_endpoints(c, "b")).await;
    // A later response without `b` in CDS removes it; its endpoints are no longer asked for.
    stream.respond(world(url::<Cluster>(), "c2", vec![outrigger_api::any(&eds_cluster("a"))])).await;
    assert_eq!(stream.request().await.version_info, "c2");
    assert_eq!(stream.request().await.resource_names, ["a"]);
    bed.recorder.until("only a", |c| c.clusters.len() == 1 && !has_endpoints(c, "b")).await;
    // A refused one keeps the version in force.
    let bad = Cluster {
        name: "a".into(),
        connect_timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        ..eds_cluster("a")
    };
    stream.respond(world(url::<Cluster>(), "c3", vec![outrigger_api::any(&bad)])).await;
    let nack = stream.request().await;
    assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("c2", "c3"));
    assert!(nack.error_detail.is_some());
}
