//! Clients that send exactly what a test says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::message::{Message, Reader, find};
use crate::origin::h2::{map, pairs, send};
use crate::within;

/// A response as a client saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Fields in order.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
    /// Statuses of the 1xx responses before it (HTTP/1.1).
    pub informational: Vec<u16>,
}

impl Response {
    /// First field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        find(&self.fields, name)
    }

    /// First trailer of this name.
    #[must_use]
    pub fn trailer(&self, name: &str) -> Option<&str> {
        find(&self.trailers, name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The origin that answered.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.field("x-origin").unwrap_or_default()
    }
}

/// A TLS connection; `name` is sent as SNI.
///
/// # Errors
/// The connection or the handshake failed.
pub async fn tls(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

/// Sends bytes as they are and returns everything that comes until the peer closes. A reset ends the
/// answer like a close.
///
/// # Panics
/// When the address refuses, or the peer keeps the connection open too long.
pub async fn send_raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("a listening address");
    let mut answer = Vec::new();
    within("the peer to close", async {
        let _ = stream.write_all(bytes).await;
        let mut buffer = [0u8; 16 * 1024];
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..n]);
        }
    })
    .await;
    answer
}

/// One `GET` on a connection of its own.
///
/// # Panics
/// When there is no proper response.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Response {
    let mut client = H1Client::connect(address).await;
    client.request("GET", path, &[("host", host)], b"").await.expect("a response")
}

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub struct H1Client<S = TcpStream> {
    reader: Reader<S>,
}

impl H1Client<TcpStream> {
    /// Connects.
    ///
    /// # Panics
    /// When the address refuses.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a listening address");
        stream.set_nodelay(true).expect("a TCP socket");
        Self::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> H1Client<S> {
    /// Speaks over a stream that is there already, such as one of [`tls`].
    pub const fn over(stream: S) -> Self {
        Self { reader: Reader::new(stream) }
    }

    /// Sends a request with these fields and the body, and reads the response. `content-length` is
    /// added when there is a body and the fields name no framing.
    ///
    /// # Errors
    /// The connection failed or the response was malformed.
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let framed = fields.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        });
        if !body.is_empty() && !framed {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes).await?;
        self.response(method).await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.stream.write_all(bytes).await?;
        self.reader.stream.flush().await
    }

    /// Reads the response to a request of this method, 1xx responses before it included.
    ///
    /// # Errors
    /// The connection ended or the response was malformed.
    pub async fn response(&mut self, method: &str) -> io::Result<Response> {
        within("a response", async {
            let mut informational = Vec::new();
            loop {
                let mut message = self.reader.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let status = status(&message)?;
                if (100..200).contains(&status) && status != 101 {
                    informational.push(status);
                    continue;
                }
                if method != "HEAD" && !matches!(status, 101 | 204 | 304) {
                    let framed =
                        message.field("content-length").or_else(|| message.field("transfer-encoding"));
                    let until_close = framed.is_none();
                    self.reader.body(&mut message, until_close).await?;
                }
                let Message { fields, body, trailers, .. } = message;
                return Ok(Response { status, fields, body, trailers, informational });
            }
        })
        .await
    }

    /// Whether the peer closes the connection without another byte.
    pub async fn is_closed(&mut self) -> bool {
        within("the peer to close", self.reader.exactly(1)).await.is_err()
    }

    /// The stream, and bytes read beyond the last response.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.reader.stream, self.reader.ahead)
    }
}

fn status(message: &Message) -> io::Result<u16> {
    let rest = message.start.strip_prefix("HTTP/1.1 ").or_else(|| message.start.strip_prefix("HTTP/1.0 "));
    rest.and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("status line {:?}", message.start)))
}

/// An HTTP/2 connection; clones share it.
#[derive(Clone, Debug)]
pub struct H2Client {
    sender: h2::client::SendRequest<Bytes>,
}

impl H2Client {
    /// Connects in the clear, with prior knowledge.
    ///
    /// # Panics
    /// When the address refuses or the handshake fails.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a listening address");
        stream.set_nodelay(true).expect("a TCP socket");
        Self::over(stream).await
    }

    /// Speaks over a stream that is there already, such as one of [`tls`].
    ///
    /// # Panics
    /// When the handshake fails.
    pub async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) = h2::client::handshake(stream).await.expect("an HTTP/2 handshake");
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { sender }
    }

    /// Sends a request and reads the response. The request's URI needs scheme and authority.
    ///
    /// # Errors
    /// The stream was reset or the connection failed.
    pub async fn request(&self, request: Request<Bytes>) -> Result<Response, h2::Error> {
        self.request_with_trailers(request, &[]).await
    }

    /// Like [`request`](Self::request), with trailers after the body.
    ///
    /// # Errors
    /// The stream was reset or the connection failed.
    pub async fn request_with_trailers(
        &self,
        request: Request<Bytes>,
        trailers: &[(&str, &str)],
    ) -> Result<Response, h2::Error> {
        within("a response", async {
            let mut sender = self.sender.clone().ready().await?;
            let (parts, body) = request.into_parts();
            let ends = body.is_empty() && trailers.is_empty();
            let (response, mut stream) = sender.send_request(Request::from_parts(parts, ()), ends)?;
            if !ends {
                // A server may answer, and stop reading, before it has the whole body.
                let _ = send(&mut stream, body, trailers.is_empty()).await;
                if !trailers.is_empty() {
                    let trailers: Vec<_> =
                        trailers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
                    stream.send_trailers(map(&trailers))?;
                }
            }
            let (parts, mut stream) = response.await?.into_parts();
            let mut body = Vec::new();
            while let Some(data) = stream.data().await {
                let data = data?;
                stream.flow_control().release_capacity(data.len())?;
                body.extend_from_slice(&data);
            }
            let trailers = stream.trailers().await?.map(|trailers| pairs(&trailers)).unwrap_or_default();
            Ok(Response {
                status: parts.status.as_u16(),
                fields: pairs(&parts.headers),
                body,
                trailers,
                informational: Vec::new(),
            })
        })
        .await
    }

    /// A `GET` of `http://HOST/PATH`.
    ///
    /// # Errors
    /// The stream was reset or the connection failed.
    ///
    /// # Panics
    /// When host and path make no URI.
    pub async fn get(&self, host: &str, path: &str) -> Result<Response, h2::Error> {
        self.request(Request::get(format!("http://{host}{path}")).body(Bytes::new()).expect("a URI")).await
    }
}
