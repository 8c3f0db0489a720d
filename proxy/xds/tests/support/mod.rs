//! A control service of the test's own: the test reads each request and writes each response itself.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "shared by test crates, each of which is a root and uses a part"
)]

use outrigger_api::envoy::config::cluster::v3::Cluster;
use outrigger_api::envoy::config::core::v3::address::Address as AddressKind;
use outrigger_api::envoy::config::core::v3::socket_address::PortSpecifier;
use outrigger_api::envoy::config::core::v3::{Address, Node, SocketAddress};
use outrigger_api::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use outrigger_api::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use outrigger_api::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use outrigger_api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use outrigger_api::envoy::service::listener::v3::listener_discovery_service_server::ListenerDiscoveryService;
use outrigger_channel::ControlAddress;
use outrigger_traffic::config::{Config, ConfigError, Endpoints};
use outrigger_xds::ads::session::Variant;
use outrigger_xds::ads::stream::{self, StreamOptions, StreamStatus};
use outrigger_xds::feed::links::LinkPlan;
use outrigger_xds::feed::{Feed, Sink};
use outrigger_xds::last_good::LastGood;
use prost::{Message, Name};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

pub const PATIENCE: Duration = Duration::from_secs(10);

/// One stream as the server sees it.
pub struct Conversation<Req, Resp> {
    requests: Streaming<Req>,
    responses: mpsc::Sender<Result<Resp, Status>>,
}

pub type Delta = Conversation<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;
pub type Sotw = Conversation<DiscoveryRequest, DiscoveryResponse>;

impl<Req: std::fmt::Debug, Resp> Conversation<Req, Resp> {
    /// The next request; the test fails when none comes.
    pub async fn request(&mut self) -> Req {
        tokio::time::timeout(PATIENCE, self.requests.message())
            .await
            .expect("a request in time")
            .unwrap()
            .expect("a request")
    }

    pub async fn respond(&self, response: Resp) {
        self.responses.send(Ok(response)).await.expect("the client listens");
    }

    /// Nothing is said for a while.
    pub async fn expect_silence(&mut self) {
        let quiet = tokio::time::timeout(Duration::from_millis(150), self.requests.message()).await;
        assert!(quiet.is_err(), "unexpected: {quiet:?}");
    }

    /// Resets the stream.
    pub async fn reset(self) {
        let _ = self.responses.send(Err(Status::unavailable("reset by the test"))).await;
    }
}

#[derive(Clone)]
struct Service {
    delta: mpsc::Sender<Delta>,
    sotw: mpsc::Sender<Sotw>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let (tx, rx) = mpsc::channel(16);
        let _ = self.sotw.send(Conversation { requests: request.into_inner(), responses: tx }).await;
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (tx, rx) = mpsc::channel(16);
        let _ = self.delta.send(Conversation { requests: request.into_inner(), responses: tx }).await;
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}

/// What the feed has put in force, compiled as the engine would.
#[derive(Default)]
pub struct Recorder {
    pub configs: Mutex<Vec<Config>>,
    pub endpoints: Mutex<Vec<Endpoints>>,
}

impl Sink for Recorder {
    fn apply(&self, config: Config) -> Result<u64, Vec<ConfigError>> {
        outrigger_traffic::compile(&config, None)?;
        let mut all = self.configs.lock().unwrap();
        all.push(config);
        Ok(all.len() as u64)
    }

    fn apply_endpoints(&self, endpoints: &Endpoints) -> Result<(), Vec<ConfigError>> {
        self.endpoints.lock().unwrap().push(endpoints.clone());
        Ok(())
    }
}

impl Recorder {
    /// Waits until the configuration in force is as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Config) -> bool) -> Config {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let last = self.configs.lock().unwrap().last().cloned();
            if let Some(config) = last.filter(&wanted) {
                return config;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what}: not in time; in force: {:#?}", self.configs.lock().unwrap().last());
    }
}

/// A listeners' server of its own: it hands over each stream.
pub struct ListenerServer(pub mpsc::Sender<Delta>);

#[tonic::async_trait]
impl ListenerDiscoveryService for ListenerServer {
    type DeltaListenersStream = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;
    type StreamListenersStream = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

    async fn delta_listeners(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaListenersStream>, Status> {
        let (tx, rx) = mpsc::channel(16);
        let _ = self.0.send(Conversation { requests: request.into_inner(), responses: tx }).await;
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn stream_listeners(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamListenersStream>, Status> {
        Err(Status::unimplemented("the tests use delta"))
    }
}

/// How a client reaches a server on loopback.
pub fn control_address(address: std::net::SocketAddr) -> ControlAddress {
    ControlAddress {
        addresses: vec![address.to_string()],
        tls: None,
        server_name: String::new(),
        connect_timeout: Duration::from_secs(2),
    }
}

/// A server and a client connected to it.
pub struct Bed {
    pub delta: mpsc::Receiver<Delta>,
    pub sotw: mpsc::Receiver<Sotw>,
    pub recorder: Arc<Recorder>,
    pub feed: Arc<Mutex<Feed>>,
    pub client: tokio::task::JoinHandle<()>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.client.abort();
        self.server.abort();
    }
}

impl Bed {
    pub async fn start(variant: Variant, last_good: Option<LastGood>) -> Self {
        Self::start_with(vec![LinkPlan::everything(variant)], last_good).await
    }

    /// With these streams, of which the client of the first is started.
    pub async fn start_with(links: Vec<LinkPlan>, last_good: Option<LastGood>) -> Self {
        let variant = links[0].variant;
        let (delta, delta_rx) = mpsc::channel(4);
        let (sotw, sotw_rx) = mpsc::channel(4);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = AggregatedDiscoveryServiceServer::new(Service { delta, sotw });
        let incoming = TcpListenerStream::new(listener).filter(Result::is_ok);
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        let recorder = Arc::new(Recorder::default());
        let mut feed = Feed::with_links(links, Config::default(), recorder.clone(), last_good);
        feed.start(Instant::now()).unwrap();
        let feed = Arc::new(Mutex::new(feed));
        let transport = Arc::new(control_address(address));
        let node = Node { id: "test-node".into(), ..Node::default() };
        let client = tokio::spawn(stream::run(
            feed.clone(),
            transport,
            StreamOptions::aggregated(variant, node),
            Arc::new(StreamStatus::default()),
        ));
        Self { delta: delta_rx, sotw: sotw_rx, recorder, feed, client, server }
    }

    pub async fn delta_stream(&mut self) -> Delta {
        tokio::time::timeout(PATIENCE, self.delta.recv()).await.expect("a stream in time").expect("a stream")
    }

    pub async fn sotw_stream(&mut self) -> Sotw {
        tokio::time::timeout(PATIENCE, self.sotw.recv()).await.expect("a stream in time").expect("a stream")
    }
}

pub fn url<M: Name>() -> String {
    format!("type.googleapis.com/{}", M::full_name())
}

/// A delta resource.
pub fn resource<M: Message + Name>(name: &str, version: &str, message: &M) -> Resource {
    Resource {
        name: name.into(),
        version: version.into(),
        resource: Some(outrigger_api::any(message)),
        ..Resource::default()
    }
}

/// A delta response of one type.
pub fn delta<M: Name>(nonce: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: url::<M>(),
        nonce: nonce.into(),
        resources,
        removed_resources: removed.iter().map(|s| (*s).into()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

pub fn endpoints(name: &str, ports: &[u16]) -> ClusterLoadAssignment {
    let endpoint = |port: &u16| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(Address {
                address: Some(AddressKind::SocketAddress(SocketAddress {
                    address: "127.0.0.1".into(),
                    port_specifier: Some(PortSpecifier::PortValue(u32::from(*port))),
                    ..SocketAddress::default()
                })),
            }),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: ports.iter().map(endpoint).collect(),
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

/// A message written as YAML, as its documentation does.
pub fn yaml<M: Message + Name + Default>(text: &str) -> M {
    let checked = outrigger_api::strict::from_text::<M>(text, outrigger_api::strict::Format::Yaml);
    checked.unwrap_or_else(|p| panic!("{p:?}")).into_typed().unwrap()
}

pub fn eds_cluster(name: &str) -> Cluster {
    yaml(&format!(
        "{{name: {name}, type: EDS, eds_cluster_config: {{eds_config: {{ads: {{}}, resource_api_version: V3}}}}}}"
    ))
}
