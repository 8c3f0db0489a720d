//! Connections to a control service or collector: TCP, optionally TLS with certificates that may change between connections.
//!
//! Proxies and host agents open them alike.

#![warn(missing_docs)]

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

/// Longest answer head to a [`ControlAddress::post`] that is read.
const ANSWER_BYTES_MAX: usize = 16 << 10;

impl ControlAddress {
    /// Sends one HTTP/1.1 request with a body on a connection of its own; gives the status of the answer. `head` is
    /// everything from the method to the last field, without the empty line.
    ///
    /// *Errors*: no address could be connected to, or the answer is none. *Limits*: takes as long as it takes: put a
    /// time limit around it.
    pub async fn post(&self, head: &str, body: &[u8]) -> Result<u16, TransportError> {
        let mut last = TransportError::Address(String::new());
        for address in &self.addresses {
            let failed = |error: &io::Error| TransportError::Connect {
                address: address.clone(),
                reason: chain(error),
            };
            let tls = match &self.tls {
                None => None,
                Some(source) => {
                    let name = ServerName::try_from(self.server_name.clone())
                        .map_err(|_| TransportError::Address(address.clone()))?;
                    let mut config = (*source()).clone();
                    config.alpn_protocols = vec![b"http/1.1".to_vec()];
                    Some((Arc::new(config), name))
                }
            };
            let connector = Connector { address: address.clone(), tls, timeout: self.connect_timeout };
            match connector.open().await {
                Ok(stream) => return exchange(stream, head, body).await.map_err(|error| failed(&error)),
                Err(error) => last = failed(&error),
            }
        }
        Err(last)
    }
}

/// Sends a request and reads the status of its answer.
async fn exchange(mut stream: Either, head: &str, body: &[u8]) -> io::Result<u16> {
    let head = format!("{head}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    loop {
        // `HTTP/1.1 200 …`
        let line = answer.split(|b| *b == b'\n').next().filter(|line| line.len() < answer.len());
        if let Some(line) = line {
            let status = line.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            let is_http = line.starts_with(b"HTTP/1.");
            return status.filter(|_| is_http).ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
        if answer.len() > ANSWER_BYTES_MAX || stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
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
        Box::pin(async move { Ok(hyper_util::rt::TokioIo::new(this.open().await?)) })
    }
}

impl Connector {
    async fn open(self) -> io::Result<Either> {
        let connect = async {
            let tcp = TcpStream::connect(&self.address).await?;
            tcp.set_nodelay(true)?;
            match self.tls {
                None => Ok(Either::Plain(tcp)),
                Some((config, name)) => {
                    let tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?;
                    Ok(Either::Tls(Box::new(tls)))
                }
            }
        };
        let timeout = || io::Error::new(io::ErrorKind::TimedOut, "connecting took too long");
        tokio::time::timeout(self.timeout, connect).await.map_err(|_| timeout())?
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
