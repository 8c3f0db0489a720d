//! Accepting connections and serving HTTP on them; the same for members of the mesh and for operators.
//!
//! Every connection is bounded: how many there are, how long its handshake and its request heads may
//! take, how large those are, and how many streams it has. Who is at the other end is found once per
//! connection and given to each of its requests as a [`Peer`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;

use crate::clock::UnixMs;
use crate::identity::{HostMark, Hosts, Identity, Standing};
use crate::quota::{Quota, Share};
use crate::telemetry::Metrics;

/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: u32 = 16 * 1024;

/// Most requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;

/// How long to wait after an accept that failed because we have no file descriptors left.
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);

/// Who is at the other end of the connection a request came on. A request extension.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub remote: SocketAddr,
    /// Who it proved to be; `None` without a client certificate.
    pub identity: Option<Identity>,
    /// When its certificate ends; a connection may outlive it.
    pub expires_at: UnixMs,
    /// The host its certificate was given to; `None`: to none in particular.
    pub host: Option<Standing>,
}

/// What an operator chooses for one port.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections. Default 20,000.
    pub connections_max: usize,
    /// Longest TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Most TLS handshakes at a time, and of one source. Default 2,048 and 256: a host that restarts brings all its
    /// tasks' proxies at once.
    pub handshakes: Share,
    /// Most connections that have finished the handshake without a client certificate, and of one source. Default
    /// 20,000 and 20,000: on the operator port that is everybody.
    pub anonymous: Share,
    /// How long such a connection may stay. Default: for ever.
    pub anonymous_life: Option<Duration>,
    /// Longest wait for a request head on HTTP/1. Default 10 s.
    pub head_timeout: Duration,
    /// How long requests may go on at shutdown. Default 2 s: what is left then are streams, and
    /// their clients reconnect.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let ten = Duration::from_secs(10);
        Self {
            connections_max: 20_000,
            handshake_timeout: ten,
            handshakes: Share { total: 2_048, of_one_source: 256 },
            anonymous: Share { total: 20_000, of_one_source: 20_000 },
            anonymous_life: None,
            head_timeout: ten,
            drain: Duration::from_secs(2),
        }
    }
}

impl Limits {
    /// Of the port that members of the mesh call. Without a certificate there is one thing to do there, to join, and
    /// that takes a moment: whoever has none must not be able to take the room from those who have.
    pub fn mesh() -> Self {
        Self {
            anonymous: Share { total: 1_024, of_one_source: 64 },
            anonymous_life: Some(Duration::from_secs(60)),
            ..Self::default()
        }
    }
}

/// The TLS configuration of the moment.
pub type CurrentTls = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// One port.
pub struct Port {
    /// Bound.
    pub listener: TcpListener,
    /// `None`: plaintext.
    pub tls: Option<CurrentTls>,
    /// What is served.
    pub router: Router,
    /// Its limits.
    pub limits: Limits,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
    /// What is known of the hosts that certificates were given to.
    pub hosts: Hosts,
}

impl Port {
    /// Serves until `shutdown` turns true, then lets requests finish for a while.
    pub async fn serve(self, shutdown: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(self.limits.connections_max));
        let handshakes = Quota::new(self.limits.handshakes);
        let anonymous = Quota::new(self.limits.anonymous);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = stopped(shutdown.clone()) => break,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                self.metrics.connections_refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let connection = Connection {
                remote,
                tls: self.tls.as_ref().map(|current| current()),
                router: self.router.clone(),
                limits: self.limits,
                metrics: Arc::clone(&self.metrics),
                hosts: self.hosts.clone(),
                handshakes: handshakes.clone(),
                anonymous: anonymous.clone(),
                shutdown: shutdown.clone(),
            };
            connections.spawn(async move {
                connection.metrics.connections_active.fetch_add(1, Ordering::Relaxed);
                connection.serve(stream).await;
                connection.metrics.connections_active.fetch_sub(1, Ordering::Relaxed);
                drop(permit);
            });
        }
        drop(self.listener);
        let finished = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.limits.drain, finished).await.is_err() {
            tracing::info!(connections = connections.len(), "connections cut at shutdown");
        }
    }
}

struct Connection {
    remote: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    hosts: Hosts,
    handshakes: Quota,
    anonymous: Quota,
    shutdown: watch::Receiver<bool>,
}

impl Connection {
    async fn serve(&self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "nodelay not set");
        }
        let mut peer = Peer { remote: self.remote, identity: None, expires_at: 0, host: None };
        let Some(config) = &self.tls else {
            return self.serve_http(stream, peer, None).await;
        };
        let Some(under_way) = self.handshakes.enter(self.remote.ip()) else {
            self.metrics.handshakes_refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let handshake = TlsAcceptor::from(Arc::clone(config)).accept(stream);
        let stream = match tokio::time::timeout(self.limits.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.handshake_failed(&error.to_string()),
            Err(_) => return self.handshake_failed("took too long"),
        };
        drop(under_way);
        if let Some(leaf) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            match identity_of(leaf) {
                Some(shown) => {
                    peer.identity = Some(shown.identity);
                    peer.expires_at = shown.expires_at;
                    peer.host = shown.host.map(|mark| Standing { mark, hosts: self.hosts.clone() });
                }
                None => return self.handshake_failed("the client certificate has no identity of ours"),
            }
            return self.serve_http(stream, peer, None).await;
        }
        let Some(_counted) = self.anonymous.enter(self.remote.ip()) else {
            self.metrics.anonymous_refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.serve_http(stream, peer, self.limits.anonymous_life).await;
    }

    /// Serves until the connection ends, is to end, or has lived for `life`.
    async fn serve_http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        life: Option<Duration>,
    ) {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            router.clone().call(request)
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_buf_size(HEAD_BYTES_MAX as usize * 4);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let stop = stopped(self.shutdown.clone());
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = stop => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = after(life) => {
                connection.as_mut().graceful_shutdown();
                // What is under way may finish, but whoever only stays does not.
                match tokio::time::timeout(self.limits.drain, connection).await {
                    Ok(outcome) => outcome,
                    Err(_) => return tracing::debug!(remote = %self.remote, "connection without a certificate cut"),
                }
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(remote = %self.remote, %error, "connection ended");
        }
    }

    fn handshake_failed(&self, reason: &str) {
        self.metrics.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(remote = %self.remote, reason, "tls handshake failed");
    }
}

/// Ends after a while, or never.
async fn after(life: Option<Duration>) {
    match life {
        Some(life) => tokio::time::sleep(life).await,
        None => std::future::pending().await,
    }
}

/// Ends when the service is to stop, or nobody is left who could say so.
async fn stopped(mut shutdown: watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// What a verified certificate says.
struct Shown {
    identity: Identity,
    expires_at: UnixMs,
    host: Option<HostMark>,
}

/// Reads a verified certificate. A SPIFFE SVID has exactly one URI name (X509-SVID section 2). A subject that is no mark of
/// a host is none of ours and makes the certificate good for nothing: it must not pass for one that is bound to no host.
fn identity_of(leaf: &[u8]) -> Option<Shown> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else { return None };
    let subject = certificate.subject();
    let host = match subject.iter_common_name().next() {
        Some(name) => Some(HostMark::parse(name.as_str().ok()?)?),
        None => None,
    };
    let expires_at = certificate.validity().not_after.timestamp().saturating_mul(1_000);
    Some(Shown { identity: Identity::parse(uri).ok()?, expires_at, host })
}
