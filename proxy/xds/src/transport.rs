//! Connections to a control service: TCP, optionally TLS with certificates that may change between connections.

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

/// Opens gRPC channels to the control service.
pub trait Transport: Send + Sync {
    /// A new connection.
    fn channel(&self) -> Pin<Box<dyn Future<Output = Result<Channel, TransportError>> + Send + '_>>;
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The address is not one.
    #[error("address `{0}` is not usable")]
    Address(String),
    /// TCP, TLS or HTTP/2 failed.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// Where to.
        address: String,
        /// Why.
        reason: String,
    },
}

/// Gives the TLS settings for the next connection.
pub type TlsSource = Arc<dyn Fn() -> Arc<ClientConfig> + Send + Sync>;

/// Addresses tried in order, with the settings of each connection.
#[derive(Clone)]
pub struct ControlAddress {
    /// `host:port` each.
    pub addresses: Vec<String>,
    /// TLS; `None` is plaintext.
    pub tls: Option<TlsSource>,
    /// Name verified in the certificate and sent as SNI.
    pub server_name: String,
    /// Time for TCP and TLS.
    pub connect_timeout: Duration,
}

impl Transport for ControlAddress {
    fn channel(&self) -> Pin<Box<dyn Future<Output = Result<Channel, TransportError>> + Send + '_>> {
        Box::pin(async move {
            let mut last = TransportError::Address(String::new());
            for address in &self.addresses {
                match self.connect(address).await {
                    Ok(channel) => return Ok(channel),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }
}

impl ControlAddress {
    async fn connect(&self, address: &str) -> Result<Channel, TransportError> {
        let bad = || TransportError::Address(address.to_owned());
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| bad())?
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let tls = match &self.tls {
            None => None,
            Some(source) => {
                Some((source(), ServerName::try_from(self.server_name.clone()).map_err(|_| bad())?))
            }
        };
        let connector = Connector { address: address.to_owned(), tls, timeout: self.connect_timeout };
        endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|error| TransportError::Connect { address: address.to_owned(), reason: chain(&error) })
    }
}

/// The whole chain of causes: tonic's own text is `transport error`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[derive(Clone)]
struct Connector {
    address: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    timeout: Duration,
}

type Connected = hyper_util::rt::TokioIo<Either>;

impl tower_service::Service<http::Uri> for Connector {
    type Response = Connected;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Connected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let connect = async {
                let tcp = TcpStream::connect(&this.address).await?;
                tcp.set_nodelay(true)?;
                match this.tls {
                    None => Ok(Either::Plain(tcp)),
                    Some((config, name)) => {
                        let tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?;
                        Ok(Either::Tls(Box::new(tls)))
                    }
                }
            };
            let timeout = || io::Error::new(io::ErrorKind::TimedOut, "connecting took too long");
            let stream: io::Result<Either> =
                tokio::time::timeout(this.timeout, connect).await.map_err(|_| timeout())?;
            Ok(hyper_util::rt::TokioIo::new(stream?))
        })
    }
}

enum Either {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl tokio::io::AsyncRead for Either {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl tokio::io::AsyncWrite for Either {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}
