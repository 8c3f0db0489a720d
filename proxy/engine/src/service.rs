//! A proxy as a [`tower_service::Service`]: requests of the embedding program go through a listener's filter chain, routes
//! and clusters, and come back as responses.
//!
//! The service and the proxy talk HTTP/2 over a loopback connection that only these two can reach, so that everything of
//! the data path holds: limits, timeouts, retries, metrics, logs, trailers. The client of these requests is the loopback
//! address; where another one is to be known, set `x-forwarded-for` and `use_remote_address: false`.

use crate::listener::NotServed;
use crate::proxy::ProxyHandle;
use http::{Request, Response, Uri, header, uri};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Time for the loopback connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Somebody else's connections that are turned away before giving up.
const STRANGERS_MAX: usize = 64;

/// Sends requests through a listener of a proxy. Clones share one connection.
///
/// *Cost*: a request crosses the loopback twice; a connection is made for the first one, and whenever it was lost.
pub struct ProxyService<B> {
    inner: Arc<Inner<B>>,
}

struct Inner<B> {
    proxy: ProxyHandle,
    listener: Arc<str>,
    sender: Mutex<Option<SendRequest<B>>>,
}

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The proxy does not take connections.
    #[error("not served")]
    NotServed(#[from] NotServed),
    /// The loopback connection cannot be made.
    #[error("no connection to the proxy")]
    Connect(#[source] io::Error),
    /// The request has no authority: neither in its URI nor in `host`.
    #[error("the request has no authority")]
    NoAuthority,
    /// The exchange with the proxy broke.
    #[error("the exchange with the proxy broke")]
    Exchange(#[from] hyper::Error),
}

impl<B> ProxyService<B> {
    /// Requests through the listener of this name, which need not be bound and must not have TLS.
    pub fn new(proxy: ProxyHandle, listener: impl Into<Arc<str>>) -> Self {
        Self { inner: Arc::new(Inner { proxy, listener: listener.into(), sender: Mutex::new(None) }) }
    }
}

impl<B> Clone for ProxyService<B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<B> fmt::Debug for ProxyService<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyService").field("listener", &self.inner.listener).finish_non_exhaustive()
    }
}

impl<B> tower_service::Service<Request<B>> for ProxyService<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<Incoming>;
    type Error = ServiceError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ServiceError>> + Send>>;

    /// Always ready: limits are those of the proxy.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ServiceError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = self.inner.clone();
        Box::pin(async move {
            let request = with_authority(request)?;
            let mut sender = inner.sender().await?;
            sender.ready().await?;
            Ok(sender.send_request(request).await?)
        })
    }
}

impl<B> Inner<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    async fn sender(&self) -> Result<SendRequest<B>, ServiceError> {
        let held = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(sender) = held.filter(|sender| !sender.is_closed()) {
            return Ok(sender);
        }
        let (near, far) = tokio::time::timeout(CONNECT_TIMEOUT, pair())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(ServiceError::Connect)?;
        self.proxy.serve(&self.listener, far.into_std().map_err(ServiceError::Connect)?)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(near)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "connection of a service ended");
            }
        });
        // Two that came here at once make a connection each; the one that is not kept ends with its request.
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
        Ok(sender)
    }
}

/// Two ends of a connection that nobody else can have.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let own = near.local_addr()?;
    for _ in 0..STRANGERS_MAX {
        // The port is open for a moment: whoever else comes is turned away.
        let (far, peer) = listener.accept().await?;
        if peer == own {
            near.set_nodelay(true)?;
            return Ok((near, far));
        }
    }
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// HTTP/2 wants scheme and authority, which requests of a server often have in `host` alone.
fn with_authority<B>(mut request: Request<B>) -> Result<Request<B>, ServiceError> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if parts.authority.is_none() {
        let host = request.headers().get(header::HOST).ok_or(ServiceError::NoAuthority)?;
        parts.authority = Some(host.as_bytes().try_into().map_err(|_| ServiceError::NoAuthority)?);
    }
    parts.scheme = parts.scheme.or(Some(uri::Scheme::HTTP));
    parts.path_and_query = parts.path_and_query.or_else(|| Some(uri::PathAndQuery::from_static("/")));
    request.headers_mut().remove(header::HOST);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| ServiceError::NoAuthority)?;
    *request.version_mut() = http::Version::HTTP_2;
    Ok(request)
}
