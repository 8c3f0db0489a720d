//! ADS over one gRPC stream, again and again.
//!
//! The stream carries [`super::session::Session`]'s requests and the server's responses. When it ends it is opened again
//! after a wait ([`super::backoff`]).

use super::Kind;
use super::backoff::{Backoff, Bounds};
use super::session::{Request, Response, Variant};
use crate::feed::links::LinkId;
use crate::feed::{Feed, Raw};
use crate::last_good;
use outrigger_api::envoy::config::core::v3::Node;
use outrigger_api::envoy::service::discovery::v3::Resource as Wrapper;
use outrigger_api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use outrigger_api::google::rpc::Status;
use outrigger_channel::Transport;
use prost::{Message, Name};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::metadata::AsciiMetadataKey;
use tonic::transport::Channel;

/// Requests waiting to be written. The session sends at most one per kind and response.
const REQUESTS_MAX: usize = 64;
/// How often waiting resources are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Largest response decoded, bytes.
const RESPONSE_MAX: usize = 128 << 20;
/// gRPC `INVALID_ARGUMENT`, as NACKs carry it.
const INVALID_ARGUMENT: i32 = 3;

/// How a stream is opened.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Which stream of the feed it is.
    pub link: LinkId,
    /// Which service carries it.
    pub service: Service,
    /// Delta or state of the world.
    pub variant: Variant,
    /// Who this proxy is.
    pub node: Node,
    /// Metadata of the call (`initial_metadata`), lower-case names.
    pub metadata: Vec<(String, String)>,
    /// Waits between streams.
    pub backoff: Bounds,
    /// The node goes with the first request of a stream only; otherwise with every one.
    pub node_once: bool,
}

impl StreamOptions {
    /// The only stream of a feed, aggregated, without metadata.
    pub fn aggregated(variant: Variant, node: Node) -> Self {
        Self {
            link: LinkId::default(),
            service: Service::Aggregated,
            variant,
            node,
            metadata: Vec::new(),
            backoff: Bounds::default(),
            node_once: true,
        }
    }
}

/// The service that carries a stream, and so the kinds on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// All kinds (ADS).
    Aggregated,
    /// One kind alone (CDS, LDS, RDS, EDS, SDS).
    Own(Kind),
}

impl Service {
    /// The method of the protocol's variant.
    const fn path(self, variant: Variant) -> &'static str {
        let delta = matches!(variant, Variant::Delta);
        match (self, delta) {
            (Self::Aggregated, true) => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
            }
            (Self::Aggregated, false) => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
            }
            (Self::Own(Kind::Cluster), true) => {
                "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"
            }
            (Self::Own(Kind::Cluster), false) => {
                "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"
            }
            (Self::Own(Kind::Endpoints), true) => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"
            }
            (Self::Own(Kind::Endpoints), false) => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
            }
            (Self::Own(Kind::Secret), true) => "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
            (Self::Own(Kind::Secret), false) => {
                "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
            }
            (Self::Own(Kind::Runtime), true) => {
                "/envoy.service.runtime.v3.RuntimeDiscoveryService/DeltaRuntime"
            }
            (Self::Own(Kind::Runtime), false) => {
                "/envoy.service.runtime.v3.RuntimeDiscoveryService/StreamRuntime"
            }
            (Self::Own(Kind::Extension), true) => {
                "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs"
            }
            (Self::Own(Kind::Extension), false) => {
                "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs"
            }
            (Self::Own(Kind::Scope), true) => {
                "/envoy.service.route.v3.ScopedRoutesDiscoveryService/DeltaScopedRoutes"
            }
            (Self::Own(Kind::Scope), false) => {
                "/envoy.service.route.v3.ScopedRoutesDiscoveryService/StreamScopedRoutes"
            }
            (Self::Own(Kind::Listener), true) => {
                "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners"
            }
            (Self::Own(Kind::Listener), false) => {
                "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"
            }
            (Self::Own(Kind::RouteConfig), true) => {
                "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes"
            }
            (Self::Own(Kind::RouteConfig), false) => {
                "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes"
            }
        }
    }
}

/// State of the connection to the control service, for metrics and the admin interface.
#[derive(Debug, Default)]
pub struct StreamStatus {
    /// A stream is open and has brought a response (`control_plane.connected_state`).
    pub connected: AtomicBool,
    /// Streams opened.
    pub streams: AtomicU64,
    /// Streams that could not be opened or ended.
    pub failures: AtomicU64,
}

/// Runs the feed until the task is dropped. Every stream begins with what the feed holds.
///
/// Cancel safety: dropping it closes the stream; the feed stays consistent, because it is changed between awaits only.
pub async fn run(
    feed: Arc<Mutex<Feed>>,
    transport: Arc<dyn Transport>,
    options: StreamOptions,
    status: Arc<StreamStatus>,
) {
    tokio::select! {
        () = follow(&feed, transport, options, &status) => {}
        () = last_good::keep(feed.clone()) => {}
    }
}

/// Stream after stream, for ever.
async fn follow(
    feed: &Mutex<Feed>,
    transport: Arc<dyn Transport>,
    options: StreamOptions,
    status: &StreamStatus,
) {
    let mut backoff = Backoff::new(options.backoff);
    loop {
        let mut opened = None;
        let outcome = one_stream(feed, transport.as_ref(), &options, status, &mut opened).await;
        let lived = opened.map(|at: tokio::time::Instant| at.elapsed());
        status.connected.store(false, Ordering::Relaxed);
        status.failures.fetch_add(1, Ordering::Relaxed);
        locked(feed, |f| f.disconnected(options.link));
        let error = outcome.err().map_or_else(|| "closed by the server".to_owned(), |e| e.to_string());
        if locked(feed, |f| f.is_over(options.link)) {
            return;
        }
        let wait = backoff.after(lived, fastrand::f64());
        tracing::warn!(
            error,
            wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "control service stream ended"
        );
        let until = tokio::time::Instant::now() + wait;
        while tokio::time::Instant::now() < until {
            tokio::time::sleep_until(until.min(tokio::time::Instant::now() + TICK)).await;
            locked(feed, |f| f.tick(Instant::now()));
        }
    }
}

/// A panic while the lock was held is a defect that was reported then; the feed itself is replaced as a whole or not at all.
fn locked<T>(feed: &Mutex<Feed>, f: impl FnOnce(&mut Feed) -> T) -> T {
    f(&mut feed.lock().unwrap_or_else(PoisonError::into_inner))
}

enum Sender {
    Delta(mpsc::Sender<DeltaDiscoveryRequest>),
    StateOfTheWorld(mpsc::Sender<DiscoveryRequest>),
}

enum Receiver {
    Delta(Streaming<DeltaDiscoveryResponse>),
    StateOfTheWorld(Streaming<DiscoveryResponse>),
}

async fn one_stream(
    feed: &Mutex<Feed>,
    transport: &dyn Transport,
    options: &StreamOptions,
    status: &StreamStatus,
    opened: &mut Option<tokio::time::Instant>,
) -> Result<(), tonic::Status> {
    let channel = transport.channel().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let (first, bell) = locked(feed, |f| (f.connected(options.link), f.bell(options.link)));
    let mut node = Introduction { node: options.node.clone(), said: false, once: options.node_once };
    let (sender, mut receiver) = match options.variant {
        Variant::Delta => {
            let (tx, rx) = mpsc::channel(REQUESTS_MAX);
            let sender = Sender::Delta(tx);
            send(&sender, first, &mut node).await?;
            let requests = call(ReceiverStream::new(rx), options)?;
            (sender, Receiver::Delta(open(channel, options, requests).await?))
        }
        Variant::StateOfTheWorld => {
            let (tx, rx) = mpsc::channel(REQUESTS_MAX);
            let sender = Sender::StateOfTheWorld(tx);
            send(&sender, first, &mut node).await?;
            let requests = call(ReceiverStream::new(rx), options)?;
            (sender, Receiver::StateOfTheWorld(open(channel, options, requests).await?))
        }
    };
    *opened = Some(tokio::time::Instant::now());
    status.streams.fetch_add(1, Ordering::Relaxed);
    tracing::info!(service = ?options.service, variant = ?options.variant, "control service stream opened");
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let arrived = tokio::select! {
            message = receive(&mut receiver) => message?,
            () = bell.notified() => {
                if locked(feed, |f| f.is_over(options.link)) {
                    return Ok(());
                }
                let requests = locked(feed, |f| f.outgoing(options.link));
                send(&sender, requests, &mut node).await?;
                continue;
            }
            _ = tick.tick() => { locked(feed, |f| f.tick(Instant::now())); continue }
        };
        let Some((response, raws)) = arrived else { return Ok(()) };
        status.connected.store(true, Ordering::Relaxed);
        let requests = locked(feed, |f| f.received(options.link, response, raws, Instant::now()));
        send(&sender, requests, &mut node).await?;
    }
}

type Requests<T> = tonic::Request<ReceiverStream<T>>;

/// Opens the stream of a service. The methods of all kinds have the same messages.
async fn open<Req, Resp>(
    channel: Channel,
    options: &StreamOptions,
    requests: Requests<Req>,
) -> Result<Streaming<Resp>, tonic::Status>
where
    Req: Message + Send + Sync + 'static,
    Resp: Message + Default + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(RESPONSE_MAX);
    client.ready().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(options.service.path(options.variant));
    let codec = tonic_prost::ProstCodec::<Req, Resp>::default();
    client.streaming(requests, path, codec).await.map(tonic::Response::into_inner)
}

/// The call with its metadata.
fn call<T>(requests: T, options: &StreamOptions) -> Result<tonic::Request<T>, tonic::Status> {
    let mut request = tonic::Request::new(requests);
    for (name, value) in &options.metadata {
        let bad = || tonic::Status::invalid_argument(format!("initial metadata `{name}` cannot be sent"));
        let key = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        request.metadata_mut().append(key, value.parse().map_err(|_| bad())?);
    }
    Ok(request)
}

/// Who asks, as often as it is to be said.
struct Introduction {
    node: Node,
    said: bool,
    once: bool,
}

impl Introduction {
    fn next(&mut self) -> Option<Node> {
        let needed = !(self.said && self.once);
        self.said = true;
        needed.then(|| self.node.clone())
    }
}

async fn send(sender: &Sender, requests: Vec<Request>, node: &mut Introduction) -> Result<(), tonic::Status> {
    let gone = || tonic::Status::unavailable("stream is closed");
    for request in requests {
        let Some(kind) = request.kind else { continue };
        let error_detail =
            request.error.map(|message| Status { code: INVALID_ARGUMENT, message, ..Status::default() });
        let type_url = kind.type_url().to_owned();
        match sender {
            Sender::Delta(tx) => {
                let message = DeltaDiscoveryRequest {
                    node: node.next(),
                    type_url,
                    resource_names_subscribe: request.subscribe,
                    resource_names_unsubscribe: request.unsubscribe,
                    initial_resource_versions: request.held.into_iter().collect(),
                    response_nonce: request.nonce,
                    error_detail,
                };
                tx.send(message).await.map_err(|_| gone())?;
            }
            Sender::StateOfTheWorld(tx) => {
                let message = DiscoveryRequest {
                    version_info: request.version,
                    node: node.next(),
                    resource_names: request.names,
                    type_url,
                    response_nonce: request.nonce,
                    error_detail,
                };
                tx.send(message).await.map_err(|_| gone())?;
            }
        }
    }
    Ok(())
}

/// Cancel safe: `Streaming::message` keeps partial messages.
async fn receive(receiver: &mut Receiver) -> Result<Option<(Response, Vec<Raw>)>, tonic::Status> {
    Ok(match receiver {
        Receiver::Delta(stream) => stream.message().await?.map(from_delta),
        Receiver::StateOfTheWorld(stream) => stream.message().await?.map(from_state_of_the_world),
    })
}

fn from_delta(message: DeltaDiscoveryResponse) -> (Response, Vec<Raw>) {
    let raws = message
        .resources
        .into_iter()
        .map(|r| {
            let any = r.resource.unwrap_or_default();
            Raw { name: r.name, version: r.version, type_url: any.type_url, bytes: Arc::from(any.value) }
        })
        .collect();
    let response = Response {
        type_url: message.type_url,
        nonce: message.nonce,
        removed: message.removed_resources,
        version: message.system_version_info,
        resources: Vec::new(),
    };
    (response, raws)
}

pub(crate) fn from_state_of_the_world(message: DiscoveryResponse) -> (Response, Vec<Raw>) {
    let version = message.version_info;
    let raws = message.resources.into_iter().map(|any| unwrapped(any, &version)).collect();
    let response =
        Response { type_url: message.type_url, nonce: message.nonce, version, ..Response::default() };
    (response, raws)
}

/// A resource that may lie in an envelope with its name and version.
fn unwrapped(any: prost_types::Any, version: &str) -> Raw {
    let is_wrapped = any.type_url.rsplit('/').next() == Some(Wrapper::full_name().as_str());
    if let Some(wrapper) = is_wrapped.then(|| Wrapper::decode(any.value.as_slice()).ok()).flatten()
        && let Some(inner) = wrapper.resource
    {
        let version = if wrapper.version.is_empty() { version.to_owned() } else { wrapper.version };
        return Raw { name: wrapper.name, version, type_url: inner.type_url, bytes: Arc::from(inner.value) };
    }
    Raw {
        name: String::new(),
        version: version.to_owned(),
        type_url: any.type_url,
        bytes: Arc::from(any.value),
    }
}
