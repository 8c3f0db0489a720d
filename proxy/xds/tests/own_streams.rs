//! Listeners from a server of their own, beside the aggregated stream; and how fast a lost server is found again.

mod support;

use outrigger_api::envoy::config::cluster::v3::Cluster;
use outrigger_api::envoy::config::core::v3::Node;
use outrigger_api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_api::envoy::config::listener::v3::Listener;
use outrigger_api::envoy::config::route::v3::RouteConfiguration;
use outrigger_api::envoy::service::listener::v3::listener_discovery_service_server::ListenerDiscoveryServiceServer;
use outrigger_channel::{Transport, TransportError};
use outrigger_traffic::config::Config;
use outrigger_xds::ads::Kind;
use outrigger_xds::ads::backoff;
use outrigger_xds::ads::session::Variant;
use outrigger_xds::ads::stream::{self, Service, StreamOptions, StreamStatus};
use outrigger_xds::feed::Feed;
use outrigger_xds::feed::links::{LinkId, LinkPlan};
use outrigger_xds::source::Source;
use outrigger_xds::translate::CameFrom;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Bed, Delta, Recorder, control_address, delta, eds_cluster, endpoints, resource, url, yaml};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;

fn listener(config_source: &str) -> Listener {
    yaml(&format!(
        "name: in
address: {{socket_address: {{address: 127.0.0.1, port_value: 1000}}}}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: in
      rds: {{route_config_name: table, config_source: {config_source}}}
      http_filters:
      - name: envoy.filters.http.router
        typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"
    ))
}

fn plan(kinds: &[Kind], came_from: CameFrom) -> LinkPlan {
    let source = Source::Aggregated;
    LinkPlan { variant: Variant::Delta, kinds: kinds.iter().copied().collect(), came_from, source }
}

/// Adds the client and the server of listeners to a bed whose second stream carries them.
async fn listener_stream(bed: &Bed) -> Delta {
    let (sender, mut streams) = mpsc::channel(4);
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(ListenerDiscoveryServiceServer::new(support::ListenerServer(sender)))
            .serve_with_incoming(TcpListenerStream::new(socket).filter(Result::is_ok)),
    );
    let node = Node { id: "test-node".into(), ..Node::default() };
    let options = StreamOptions {
        link: LinkId(1),
        service: Service::Own(Kind::Listener),
        ..StreamOptions::aggregated(Variant::Delta, node)
    };
    let transport = Arc::new(control_address(address));
    tokio::spawn(stream::run(bed.feed.clone(), transport, options, Arc::new(StreamStatus::default())));
    tokio::time::timeout(Duration::from_secs(10), streams.recv()).await.expect("in time").expect("a stream")
}

#[tokio::test]
async fn listener_of_another_server_gets_its_routes_over_the_aggregated_stream() {
    let rest = [Kind::Cluster, Kind::Endpoints, Kind::Secret, Kind::RouteConfig];
    let links = vec![plan(&rest, CameFrom::Aggregated), plan(&[Kind::Listener], CameFrom::OwnStream)];
    let mut bed = Bed::start_with(links, None).await;
    let mut ads = bed.delta_stream().await;
    assert_eq!(ads.request().await.type_url, url::<Cluster>());
    ads.expect_silence().await;
    let mut lds = listener_stream(&bed).await;
    let first = lds.request().await;
    assert_eq!((first.type_url.as_str(), first.node.is_some()), (url::<Listener>().as_str(), true));
    // What came here cannot mean "from here": no route table travels on this stream.
    let from_self = resource("in", "1", &listener("{self: {}}"));
    lds.respond(delta::<Listener>("l1", vec![from_self], &[])).await;
    let text = lds.request().await.error_detail.expect("a NACK").message;
    assert!(text.contains("rds.config_source.self"), "{text}");
    let from_ads = resource("in", "2", &listener("{ads: {}, resource_api_version: V3}"));
    lds.respond(delta::<Listener>("l2", vec![from_ads], &[])).await;
    assert_eq!(lds.request().await.error_detail, None);
    // The listener changed what is wanted on the other stream.
    let wants = ads.request().await;
    assert_eq!(
        (wants.type_url, wants.resource_names_subscribe),
        (url::<RouteConfiguration>(), vec!["table".to_owned()])
    );
    lds.expect_silence().await;
    // A kind that a stream does not carry is not taken from it.
    lds.respond(delta::<Cluster>("c1", vec![resource("x", "1", &eds_cluster("x"))], &[])).await;
    lds.expect_silence().await;
    ads.respond(delta::<Cluster>("c1", vec![resource("a", "1", &eds_cluster("a"))], &[])).await;
    assert_eq!(ads.request().await.response_nonce, "c1");
    assert_eq!(ads.request().await.resource_names_subscribe, ["a"]);
    let one = vec![resource("a", "1", &endpoints("a", &[1]))];
    ads.respond(delta::<ClusterLoadAssignment>("e1", one, &[])).await;
    assert_eq!(ads.request().await.response_nonce, "e1");
    let table: RouteConfiguration = yaml(
        "{name: table, virtual_hosts: [{name: all, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: a}}]}]}",
    );
    ads.respond(delta::<RouteConfiguration>("r1", vec![resource("table", "1", &table)], &[])).await;
    assert_eq!(ads.request().await.response_nonce, "r1");
    let config =
        bed.recorder.until("all of it", |c| c.listeners.len() == 1 && c.route_configs.len() == 1).await;
    assert!(config.clusters.iter().all(|cluster| cluster.name == "a"));
    // The listener goes, and with it the subscription on the other stream.
    lds.respond(delta::<Listener>("l3", vec![], &["in"])).await;
    assert_eq!(lds.request().await.response_nonce, "l3");
    assert_eq!(ads.request().await.resource_names_unsubscribe, ["table"]);
    bed.recorder.until("nothing to listen on", |c| c.listeners.is_empty()).await;
}

#[tokio::test]
async fn resource_that_needs_a_stream_that_is_not_there_is_refused() {
    let mut bed = Bed::start_with(vec![plan(&[Kind::Cluster], CameFrom::OwnStream)], None).await;
    let mut stream = bed.delta_stream().await;
    assert_eq!(stream.request().await.type_url, url::<Cluster>());
    let plain: Cluster = yaml("{name: plain, type: STATIC}");
    let both = vec![resource("a", "1", &eds_cluster("a")), resource("plain", "1", &plain)];
    stream.respond(delta::<Cluster>("c1", both, &[])).await;
    let text = stream.request().await.error_detail.expect("a NACK").message;
    assert_eq!(text, "cluster/a: takes endpoints `a` from `ads`, and there is no `ads_config`");
    bed.recorder.until("the other one", |c| c.clusters.len() == 1 && c.clusters[0].name == "plain").await;
}

/// A server that is away; notes when it was looked for.
struct Away(Mutex<Vec<Instant>>);

impl Transport for Away {
    fn channel(&self) -> Pin<Box<dyn Future<Output = Result<Channel, TransportError>> + Send + '_>> {
        self.0.lock().unwrap().push(Instant::now());
        Box::pin(async { Err(TransportError::Address("away".into())) })
    }
}

#[tokio::test(start_paused = true)]
async fn lost_server_is_looked_for_every_few_seconds_however_long_it_is_away() {
    let feed = Feed::new(Variant::Delta, Config::default(), Arc::new(Recorder::default()), None);
    let away = Arc::new(Away(Mutex::default()));
    let options = StreamOptions::aggregated(Variant::Delta, Node::default());
    let status = Arc::new(StreamStatus::default());
    let looking = stream::run(Arc::new(Mutex::new(feed)), away.clone(), options, status);
    tokio::time::timeout(Duration::from_secs(3600), looking).await.unwrap_err();
    let looked = away.0.lock().unwrap();
    let gaps: Vec<Duration> = looked.windows(2).map(|two| two[1] - two[0]).collect();
    let longest = gaps.iter().max().unwrap();
    assert!(*longest <= backoff::MAX + Duration::from_millis(1), "{longest:?}");
    // Half the bound on the average, and never in a tight loop.
    assert!((1000..2200).contains(&looked.len()), "{}", looked.len());
}
