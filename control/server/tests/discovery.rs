//! ADS of a running service, over real TLS: who is served, what arrives, what the operator sees of it.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use outrigger_api::envoy::config::core::v3::Node;
use outrigger_api::envoy::service::discovery::v3 as xds;
use outrigger_api::google::rpc::Status as RpcStatus;
use outrigger_control::ads::catalog::Kind;
use outrigger_control::service::Service;
use outrigger_traffic::config::{Resource, SecretValue};
use outrigger_xds::translate::translate_any;
use support::{Member, Operator, channel, channel_as, join, registration, root_of, start, workload};
use tokio::sync::mpsc;
use tonic::Code;
use xds::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

type Delta = xds::DeltaDiscoveryRequest;

struct Feed {
    requests: mpsc::Sender<Delta>,
    responses: tonic::Streaming<xds::DeltaDiscoveryResponse>,
    held: BTreeMap<(Kind, String), Resource>,
}

fn node(id: &str) -> Option<Node> {
    Some(Node { id: id.to_owned(), user_agent_name: "outrigger".to_owned(), ..Node::default() })
}

fn subscribe(kind: Kind, names: &[&str]) -> Delta {
    Delta {
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
        ..Delta::default()
    }
}

impl Feed {
    async fn open(service: &Service, member: &Member, id: &str) -> Result<Self, tonic::Status> {
        let (requests, receiver) = mpsc::channel(16);
        let first = Delta { node: node(id), ..subscribe(Kind::Cluster, &[]) };
        requests.send(first).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = AggregatedDiscoveryServiceClient::new(channel_as(service, member).await);
        let responses = client.delta_aggregated_resources(stream).await?.into_inner();
        Ok(Self { requests, responses, held: BTreeMap::new() })
    }

    async fn ask(&self, kind: Kind, names: &[&str]) {
        self.requests.send(subscribe(kind, names)).await.unwrap();
    }

    /// The next response, taken in; acknowledged unless `error` says why not.
    async fn take(&mut self, error: Option<&str>) -> Result<xds::DeltaDiscoveryResponse, tonic::Status> {
        let response = self.responses.message().await?.expect("the stream goes on");
        let kind = Kind::from_type_url(&response.type_url).unwrap();
        for found in &response.resources {
            let any = found.resource.as_ref().unwrap();
            let resource = translate_any(&any.type_url, &any.value).unwrap_or_else(|e| panic!("{e:#?}"));
            assert_eq!(resource.name(), found.name);
            self.held.insert((kind, found.name.clone()), resource);
        }
        for gone in &response.removed_resources {
            self.held.remove(&(kind, gone.clone()));
        }
        let answer = Delta {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(|text| RpcStatus {
                code: 3,
                message: text.to_owned(),
                ..RpcStatus::default()
            }),
            ..Delta::default()
        };
        self.requests.send(answer).await.unwrap();
        Ok(response)
    }

    fn names(&self, kind: Kind) -> BTreeSet<&str> {
        self.held.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name.as_str()).collect()
    }

    /// Goes on until everything that clusters and listeners refer to was asked for and has come.
    async fn settle(&mut self) {
        let mut asked = BTreeSet::new();
        loop {
            let eds: Vec<String> = self
                .names(Kind::Cluster)
                .iter()
                .filter(|n| n.starts_with("outbound|"))
                .map(|n| (*n).to_owned())
                .collect();
            let mut waiting = self.names(Kind::Cluster).is_empty() || self.names(Kind::Listener).is_empty();
            let rds = if self.names(Kind::Listener).contains("outbound") {
                vec!["outbound".to_owned()]
            } else {
                Vec::new()
            };
            for (kind, names) in [(Kind::Endpoints, eds), (Kind::RouteConfig, rds)] {
                for name in names {
                    if asked.insert((kind, name.clone())) {
                        self.ask(kind, &[&name]).await;
                    }
                    waiting |= !self.names(kind).contains(name.as_str());
                }
            }
            if !waiting {
                return;
            }
            self.take(None).await.unwrap();
        }
    }
}

const SPLIT: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec: {hosts: [cart], http: [{name: NAME, route: [{destination: {host: cart}}]}]}
";

async fn shop(service: &Service, operator: &Operator) -> Member {
    let cart = join(service, operator, "cart").await;
    let mut calls = registration(channel_as(service, &cart).await);
    let mut announced = workload("cart-1", "cart");
    announced.node_id = "cart-1".to_owned();
    announced.outbound_port = 15_001;
    let request = outrigger_api::outrigger::v1::RegisterRequest { workload: Some(announced) };
    calls.register(request).await.unwrap();
    cart
}

async fn state_of(operator: &Operator, id: &str) -> String {
    let (_, proxies) = operator.call("GET", "/api/v1/proxies", "").await;
    let list = proxies["items"].as_array().or(proxies["proxies"].as_array()).or(proxies.as_array());
    let found = list.and_then(|all| all.iter().find(|p| p["id"] == id)).cloned();
    found.unwrap_or_else(|| panic!("{proxies}"))["state"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn proxy_is_fed_and_follows_an_apply_and_the_operator_sees_its_answers() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let cart = shop(&service, &operator).await;
    let mut feed = Feed::open(&service, &cart, "cart-1").await.unwrap();
    feed.ask(Kind::Listener, &[]).await;
    feed.settle().await;
    assert!(feed.names(Kind::Listener).contains("outbound"), "{:?}", feed.names(Kind::Listener));
    assert!(feed.names(Kind::Cluster).iter().any(|n| n.ends_with("|cart.shop.mesh")));
    while state_of(&operator, "cart-1").await != "SYNCED" {
        tokio::task::yield_now().await;
    }

    let (status, answer) = operator.call("POST", "/api/v1/apply", &SPLIT.replace("NAME", "first")).await;
    assert_eq!(status, 200, "{answer}");
    let response = feed.take(None).await.unwrap();
    assert_eq!(response.type_url, Kind::RouteConfig.type_url());
    let text = format!("{:?}", feed.held[&(Kind::RouteConfig, "outbound".to_owned())]);
    assert!(text.contains("\"first\""), "{text}");
    while state_of(&operator, "cart-1").await != "SYNCED" {
        tokio::task::yield_now().await;
    }

    let (status, answer) = operator.call("POST", "/api/v1/apply", &SPLIT.replace("NAME", "second")).await;
    assert_eq!(status, 200, "{answer}");
    feed.take(Some("route_config/outbound: not like that")).await.unwrap();
    while state_of(&operator, "cart-1").await != "REJECTED" {
        tokio::task::yield_now().await;
    }
    service.stop().await;
}

#[tokio::test]
async fn stranger_and_impostor_are_turned_away_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let nobody = channel(service.addresses.xds, &root_of(&service), None).await.unwrap();
    let empty = tokio_stream::iter(Vec::<Delta>::new());
    let refused = AggregatedDiscoveryServiceClient::new(nobody).delta_aggregated_resources(empty).await.err();
    assert_eq!(refused.map(|status| status.code()), Some(Code::Unauthenticated));

    let cart = join(&service, &operator, "cart").await;
    let other = join(&service, &operator, "stock").await;
    let mut feed = Feed::open(&service, &cart, "cart-1").await.unwrap();
    feed.take(None).await.unwrap();
    // Another identity under the same node id, while that one is connected: each is its own proxy.
    let mut same = Feed::open(&service, &other, "cart-1").await.unwrap();
    same.take(None).await.unwrap();
    let (status, answer) = operator.call("GET", "/api/v1/proxies/cart-1/config", "").await;
    let text = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 400 && text.contains("shop/cart/cart-1, shop/stock/cart-1"), "{answer}");
    let (status, answer) = operator.call("GET", "/api/v1/proxies/shop%2Fstock%2Fcart-1/config", "").await;
    assert_eq!((status, answer["serviceAccount"].as_str()), (200, Some("stock")), "{answer}");
    // One that says it is a gateway, which it was not granted to be.
    let mut gateway = Feed::open(&service, &other, "router~10.0.0.1~gw.shop~x").await.unwrap();
    let refused = gateway.take(None).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("gateway"), "{refused}");
    let mut nameless = Feed::open(&service, &other, "").await.unwrap();
    assert_eq!(nameless.take(None).await.err().map(|s| s.code()), Some(Code::InvalidArgument));
    service.stop().await;
}

#[tokio::test]
async fn client_that_cannot_make_requests_is_given_its_own_certificate_over_sds() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let cart = shop(&service, &operator).await;
    let mut feed = Feed::open(&service, &cart, "cart-1").await.unwrap();
    feed.ask(Kind::Secret, &["default", "ROOTCA", "no-such-secret"]).await;
    while feed.names(Kind::Secret).len() < 2 {
        feed.take(None).await.unwrap();
    }
    let Resource::Secret(own) = &feed.held[&(Kind::Secret, "default".to_owned())] else { panic!() };
    let SecretValue::Certificate(pair) = &own.value else { panic!() };
    assert!(pair.chain_pem.contains("BEGIN CERTIFICATE") && pair.key_pem.contains("PRIVATE KEY"));
    assert_ne!(pair.chain_pem, cart.signed.certificate_chain_pem, "one made for it, not the one it holds");
    let Resource::Secret(roots) = &feed.held[&(Kind::Secret, "ROOTCA".to_owned())] else { panic!() };
    let SecretValue::Validation(context) = &roots.value else { panic!() };
    assert!(context.trusted_ca_pem.as_ref().is_some_and(|pem| pem.contains("BEGIN CERTIFICATE")));
    service.stop().await;
}

#[tokio::test]
async fn state_of_the_world_client_is_served_alike() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let operator = Operator::of(&service, dir.path());
    let cart = shop(&service, &operator).await;
    let (requests, receiver) = mpsc::channel(16);
    let request =
        |kind: Kind| xds::DiscoveryRequest { type_url: kind.type_url().to_owned(), ..Default::default() };
    requests.send(xds::DiscoveryRequest { node: node("cart-1"), ..request(Kind::Cluster) }).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut client = AggregatedDiscoveryServiceClient::new(channel_as(&service, &cart).await);
    let mut responses = client.stream_aggregated_resources(stream).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    assert_eq!(response.type_url, Kind::Cluster.type_url());
    assert!(
        !response.resources.is_empty() && !response.version_info.is_empty() && !response.nonce.is_empty()
    );
    for any in &response.resources {
        translate_any(&any.type_url, &any.value).unwrap_or_else(|e| panic!("{e:#?}"));
    }
    service.stop().await;
}

const LISTED: &str =
    "workloads: [{namespace: shop, service: db, address: ADDRESS, ports: [{number: 5432, protocol: tcp}]}]";

#[tokio::test]
async fn change_seen_by_a_source_is_at_the_proxies_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("workloads.yaml");
    let put = |address: &str| {
        std::fs::write(dir.path().join("new"), LISTED.replace("ADDRESS", address)).unwrap();
        std::fs::rename(dir.path().join("new"), &list).unwrap();
    };
    put("192.0.2.1");
    let mut settings = support::settings(dir.path());
    let text = format!("sources: [{{name: list, file: {{path: {}}}}}]", list.display());
    settings.sources = outrigger_control::source::settings::SourcesFile::parse(&text).unwrap();
    let service = Service::start(settings).await.unwrap();
    let operator = Operator::of(&service, dir.path());
    let cart = shop(&service, &operator).await;
    let mut feed = Feed::open(&service, &cart, "cart-1").await.unwrap();
    feed.ask(Kind::Listener, &[]).await;
    feed.settle().await;
    let name = (Kind::Endpoints, "outbound|5432||db.shop.mesh".to_owned());
    let shown = |feed: &Feed| format!("{:?}", feed.held.get(&name));
    while !shown(&feed).contains("192.0.2.1") {
        feed.take(None).await.unwrap();
        feed.settle().await;
    }
    for last in 2..7 {
        let address = format!("192.0.2.{last}");
        let began = std::time::Instant::now();
        put(&address);
        while !shown(&feed).contains(&address) {
            feed.take(None).await.unwrap();
        }
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(1), "{took:?}");
    }
    let (_, sources) = operator.call("GET", "/api/v1/sources", "").await;
    assert_eq!(
        (&sources["items"][0]["state"], &sources["items"][0]["workloads"]),
        (&"SYNCED".into(), &1.into())
    );
    let (_, metrics) = operator.call("GET", "/metrics", "").await;
    assert!(
        metrics
            .as_str()
            .unwrap()
            .contains("outrigger_control_source_synced{source=\"list\",kind=\"file\"} 1\n")
    );
    let (_, listed) = operator.call("GET", "/api/v1/workloads", "").await;
    let found = listed["items"].as_array().unwrap().iter().find(|item| item["service"] == "db").cloned();
    assert_eq!(found.map(|item| item["source"].clone()), Some("list".into()), "{listed}");

    // After a restart without the file, what it said last is still there.
    service.stop().await;
    std::fs::remove_file(&list).unwrap();
    let mut settings = support::settings(dir.path());
    settings.sources = outrigger_control::source::settings::SourcesFile::parse(&text).unwrap();
    let service = Service::start(settings).await.unwrap();
    let operator = Operator::of(&service, dir.path());
    let (_, listed) = operator.call("GET", "/api/v1/workloads", "").await;
    assert!(listed.to_string().contains("192.0.2."), "{listed}");
    let (_, sources) = operator.call("GET", "/api/v1/sources", "").await;
    assert_eq!(sources["items"][0]["state"], "STALE", "{sources}");
    service.stop().await;
}
