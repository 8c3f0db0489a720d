//! One ADS stream: requests in, changes of plan and certificates in, responses out.

use std::sync::Arc;
use std::time::Duration;

use outrigger_api::envoy::config::core::v3::ControlPlane;
use outrigger_api::envoy::config::core::v3::Node;
use outrigger_api::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use outrigger_api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use outrigger_plan::{NodeConfig, ProxyNode};
use outrigger_traffic::config::{Secret, SecretValue, TlsCertificate, ValidationContext};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::catalog::{Catalog, Kind};
use super::node::proxy_node;
use super::session::{self, Event, Session, Variant};
use crate::clock::{self, UnixMs};
use crate::grpc::peer;
use crate::identity::ca::TrustBundle;
use crate::identity::svid::{SvidSource, SvidWatch};
use crate::identity::{Identity, Standing};
use crate::publish::{ConnectError, Publisher, Subscription};

/// Secrets that are made for whoever asks for them, instead of planned (see `outrigger_plan::assemble::tls`).
const OWN_CERTIFICATE: &str = outrigger_plan::assemble::tls::OWN_CERTIFICATE;
const MESH_ROOTS: &str = outrigger_plan::assemble::tls::MESH_ROOTS;

/// Time for a client to introduce itself.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long listeners and routes wait for a client that does not ask for the endpoints of its clusters, or does not
/// answer. Long enough for a slow host, short enough that one bad cluster does not hold up a route for long.
const HOLD_UP_MAX: Duration = Duration::from_secs(2);

/// A stream lives this long at least, and ends when the certificate it began with has expired as well: a client that
/// was not given another one does not stay for ever.
const STREAM_LIFE: Duration = Duration::from_secs(30 * 60);

/// Responses on their way to the transport. The session keeps one of each type unanswered, so this is not the limit.
const OUT: usize = 8;

/// Largest request. A reconnecting client names everything it holds.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// What is sent on a stream.
type Responses<T> = ReceiverStream<Result<T, Status>>;

/// The service.
pub struct Ads {
    publisher: Arc<Publisher>,
    svids: Arc<SvidSource>,
    roots: watch::Receiver<Arc<TrustBundle>>,
}

impl Ads {
    /// Serves the plans of `publisher`, and over SDS certificates of `svids` and the trust bundle.
    pub fn service(
        publisher: Arc<Publisher>,
        svids: Arc<SvidSource>,
        roots: watch::Receiver<Arc<TrustBundle>>,
    ) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(Self { publisher, svids, roots })
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }

    fn open<W: Wire>(
        &self,
        request: Request<Streaming<W::In>>,
    ) -> Result<Response<Responses<W::Out>>, Box<Status>> {
        let peer = peer::of(&request)?;
        let identity = peer::member(&peer, clock::unix_ms())?.clone();
        let (sender, receiver) = mpsc::channel(OUT);
        let opened = Opened {
            publisher: Arc::clone(&self.publisher),
            svids: Arc::clone(&self.svids),
            roots: self.roots.clone(),
            identity,
            expires_at: peer.expires_at,
            host: peer.host,
        };
        tokio::spawn(opened.run::<W>(request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<World>(request).map_err(|status| *status)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<Delta>(request).map_err(|status| *status)
    }
}

/// One of the two forms of the protocol.
trait Wire: 'static {
    type In: Send + 'static;
    type Out: Send + 'static;
    const VARIANT: Variant;

    fn node(request: &Self::In) -> Option<&Node>;
    fn type_url(request: &Self::In) -> &str;
    fn request(kind: Kind, request: Self::In) -> session::Request;
    fn response(response: session::Response) -> Self::Out;
}

struct World;

impl Wire for World {
    type In = DiscoveryRequest;
    type Out = DiscoveryResponse;
    const VARIANT: Variant = Variant::StateOfTheWorld;

    fn node(request: &Self::In) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &Self::In) -> &str {
        &request.type_url
    }

    fn request(kind: Kind, request: Self::In) -> session::Request {
        session::Request {
            names: request.resource_names,
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
            ..session::Request::new(kind)
        }
    }

    fn response(response: session::Response) -> Self::Out {
        DiscoveryResponse {
            version_info: response.version,
            resources: response.resources.into_iter().map(|(_, entry)| entry.resource).collect(),
            type_url: response.kind.type_url().to_owned(),
            nonce: response.nonce,
            control_plane: Some(control_plane()),
            ..DiscoveryResponse::default()
        }
    }
}

struct Delta;

impl Wire for Delta {
    type In = DeltaDiscoveryRequest;
    type Out = DeltaDiscoveryResponse;
    const VARIANT: Variant = Variant::Delta;

    fn node(request: &Self::In) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &Self::In) -> &str {
        &request.type_url
    }

    fn request(kind: Kind, request: Self::In) -> session::Request {
        session::Request {
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            held: request.initial_resource_versions,
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
            ..session::Request::new(kind)
        }
    }

    fn response(response: session::Response) -> Self::Out {
        let resource = |(name, entry): (String, super::catalog::Entry)| Resource {
            version: entry.version,
            resource: Some(entry.resource),
            name,
            ..Resource::default()
        };
        DeltaDiscoveryResponse {
            system_version_info: response.version,
            resources: response.resources.into_iter().map(resource).collect(),
            type_url: response.kind.type_url().to_owned(),
            nonce: response.nonce,
            removed_resources: response.removed,
            control_plane: Some(control_plane()),
        }
    }
}

fn control_plane() -> ControlPlane {
    ControlPlane { identifier: concat!("outrigger-control/", env!("CARGO_PKG_VERSION")).to_owned() }
}

/// A stream whose client has proved who it is.
struct Opened {
    publisher: Arc<Publisher>,
    svids: Arc<SvidSource>,
    roots: watch::Receiver<Arc<TrustBundle>>,
    identity: Identity,
    expires_at: UnixMs,
    host: Option<Standing>,
}

impl Opened {
    async fn run<W: Wire>(self, mut inbound: Streaming<W::In>, out: mpsc::Sender<Result<W::Out, Status>>) {
        let end = self.serve::<W>(&mut inbound, &out).await;
        if let Err(status) = end {
            tracing::info!(identity = %self.identity, reason = status.message(), "configuration stream ended");
            // A client that is gone is told nothing.
            let _ = out.send(Err(*status)).await;
        }
    }

    /// How long the stream may go on.
    fn life(&self) -> Duration {
        let left = self.expires_at.saturating_sub(clock::unix_ms());
        Duration::from_millis(u64::try_from(left).unwrap_or(0)).max(STREAM_LIFE)
    }

    async fn serve<W: Wire>(
        &self,
        inbound: &mut Streaming<W::In>,
        out: &mpsc::Sender<Result<W::Out, Status>>,
    ) -> Result<(), Box<Status>> {
        let ends = tokio::time::sleep(self.life());
        tokio::pin!(ends);
        let first = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, inbound.message()).await;
        let Some(first) = first.map_err(|_| Status::deadline_exceeded("no request came"))?? else {
            return Ok(());
        };
        let node = W::node(&first)
            .ok_or_else(|| Status::invalid_argument("the first request must say which node it is from"))?;
        let proxy = proxy_node(node, &self.identity)?;
        self.check_grant(&proxy).await?;
        let user_agent = user_agent(node);
        tracing::info!(node = proxy.id, identity = %self.identity, user_agent, "proxy connected");
        let mut subscription =
            self.publisher.connect(proxy, &user_agent).map_err(|error| Status::from(&error))?;
        let mut state =
            State { session: Session::new(W::VARIANT), planned: None, own: None, roots: self.roots.clone() };
        state.take_plan(subscription.configs().borrow_and_update().clone());
        self.take::<W>(first, &mut state)?;
        let mut held_up: Option<tokio::time::Instant> = None;
        loop {
            for response in state.session.responses() {
                if out.send(Ok(W::response(response))).await.is_err() {
                    return Ok(());
                }
            }
            report(&mut state.session, &subscription);
            held_up = match (state.session.is_held_up(), held_up) {
                (false, _) => None,
                (true, Some(since)) => Some(since),
                (true, None) => tokio::time::Instant::now().checked_add(HOLD_UP_MAX),
            };
            tokio::select! {
                message = inbound.message() => match message? {
                    Some(request) => self.take::<W>(request, &mut state)?,
                    None => return Ok(()),
                },
                changed = subscription.configs().changed() => {
                    changed.map_err(|_| Status::unavailable("this service is stopping"))?;
                    let planned = subscription.configs().borrow_and_update().clone();
                    state.take_plan(planned);
                }
                () = state.secrets_changed() => state.refresh(),
                () = until(held_up) => {
                    held_up = None;
                    state.session.release();
                }
                () = revoked(self.host.as_ref()) => return Err(Box::new(peer::revoked())),
                () = &mut ends => return Err(Box::new(Status::unavailable(
                    "this stream has reached its age limit: reconnect with the current certificate",
                ))),
            }
        }
    }

    /// A proxy is no gateway, and has no labels, that its service account was not granted: those decide which Gateway's
    /// certificate and key it is sent.
    async fn check_grant(&self, proxy: &ProxyNode) -> Result<(), Box<Status>> {
        let excess = self.publisher.excess_of(proxy).await.map_err(|error| {
            tracing::error!(%error, "grant not read");
            Status::unavailable("the grant of this service account could not be read")
        })?;
        if excess.is_empty() {
            return Ok(());
        }
        let text = format!("{} may not say this of a proxy: {}", self.identity, excess.join("; "));
        tracing::warn!(node = proxy.id, identity = %self.identity, ?excess, "proxy refused");
        Err(Box::new(Status::permission_denied(text)))
    }

    fn take<W: Wire>(&self, request: W::In, state: &mut State) -> Result<(), Box<Status>> {
        let Some(kind) = Kind::from_type_url(W::type_url(&request)) else {
            // A type that is not served is answered with silence, as other servers do: the client goes on without.
            tracing::debug!(type_url = W::type_url(&request), "type not served");
            return Ok(());
        };
        let request = W::request(kind, request);
        state.session.request(request).map_err(|error| Status::resource_exhausted(error.to_string()))?;
        if state.own.is_none() && state.session.is_subscribed(Kind::Secret, OWN_CERTIFICATE) {
            let made = self.svids.watch(&self.identity, self.host.as_ref().map(|host| &host.mark)).map_err(
                |error| {
                    tracing::error!(identity = %self.identity, %error, "certificate not made");
                    Status::internal("the certificate could not be made")
                },
            )?;
            state.own = Some(made);
            state.refresh();
        }
        Ok(())
    }
}

/// Waits until an instant, or for ever.
/// Ends when the host of the client is revoked; never for a client that is bound to none.
async fn revoked(host: Option<&Standing>) {
    match host {
        Some(host) => host.revoked().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn user_agent(node: &Node) -> String {
    use outrigger_api::envoy::config::core::v3::node::UserAgentVersionType;
    match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => {
            format!("{} {version}", node.user_agent_name)
        }
        None => node.user_agent_name.clone(),
    }
}

fn report(session: &mut Session, subscription: &Subscription) {
    for event in session.take_events() {
        match event {
            Event::Acknowledged { version } => subscription.acknowledged(&version),
            Event::Rejected { version, kind, error } => {
                subscription.rejected(&version, kind.type_url(), &error)
            }
        }
    }
}

impl From<&ConnectError> for Status {
    fn from(error: &ConnectError) -> Self {
        match error {
            ConnectError::Full | ConnectError::IdentityFull => Self::resource_exhausted(error.to_string()),
        }
    }
}

struct State {
    session: Session,
    planned: Option<Catalog>,
    own: Option<SvidWatch>,
    roots: watch::Receiver<Arc<TrustBundle>>,
}

impl State {
    fn take_plan(&mut self, planned: Option<Arc<NodeConfig>>) {
        if let Some(planned) = planned {
            self.planned = Some(Catalog::of(&planned));
            self.refresh();
        }
    }

    /// Gives the session the plan with the newest secrets.
    fn refresh(&mut self) {
        let Some(planned) = self.planned.clone() else { return };
        let mut secrets = Vec::new();
        if let Some(own) = &mut self.own {
            let made = own.receiver.borrow_and_update().clone();
            let pair =
                TlsCertificate { chain_pem: made.svid.chain_pem.clone(), key_pem: made.key_pem.clone() };
            secrets.push(Secret { name: OWN_CERTIFICATE.into(), value: SecretValue::Certificate(pair) });
        }
        // The roots are no secret; only who asks for them is sent them.
        let pem = self.roots.borrow_and_update().pem.clone();
        let context = ValidationContext { trusted_ca_pem: Some(pem), ..ValidationContext::default() };
        secrets.push(Secret { name: MESH_ROOTS.into(), value: SecretValue::Validation(context) });
        self.session.set_catalog(planned.with_secrets(&secrets));
    }

    /// A certificate was renewed, or the trust bundle changed. Cancel safe: both are watch channels.
    async fn secrets_changed(&mut self) {
        let own = async {
            match &mut self.own {
                // Its renewals cannot end while it is held.
                Some(own) => drop(own.receiver.changed().await),
                None => std::future::pending().await,
            }
        };
        let roots = &mut self.roots;
        let roots = async {
            if roots.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = own => {}
            () = roots => {}
        }
    }
}
