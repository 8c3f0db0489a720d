//! HTTP calls this service makes itself: to AWS, to Kubernetes.
//!
//! HTTP/1.1, one connection for each call: they are few, and a connection that is new cannot be a dead one. Everything
//! is bounded: the time to connect, the time to an answer, the size of an answer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Time for TCP and TLS.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time to the head of an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not an `http` or `https` URL, or one with a user, query or fragment.
    #[error("{0:?} is not a URL of the form http[s]://HOST[:PORT][/PATH]")]
    Url(String),
    /// The URL asks for TLS and no trust was given, or a certificate or key cannot be used.
    #[error("TLS settings: {0}")]
    Tls(String),
    /// No connection.
    #[error("connecting to {authority}")]
    Connect {
        /// Where to.
        authority: String,
        /// Why.
        source: std::io::Error,
    },
    /// The exchange broke.
    #[error("talking to {authority}: {source}")]
    Http {
        /// With whom.
        authority: String,
        /// Why.
        source: hyper::Error,
    },
    /// It took too long.
    #[error("{authority} did not answer in time")]
    Timeout {
        /// Who.
        authority: String,
    },
    /// More than the caller takes.
    #[error("{authority} answered with more than {limit} bytes")]
    TooLarge {
        /// Who.
        authority: String,
        /// The limit.
        limit: usize,
    },
}

/// Where calls go: scheme, host and port.
#[derive(Clone)]
pub struct Origin {
    authority: String,
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// An answer, all of it.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Origin {
    /// Of a URL, and the path it has, without a slash at the end. `tls` is asked for only when the scheme is `https`.
    ///
    /// *Errors*: [`CallError::Url`], [`CallError::Tls`].
    pub fn parse(
        url: &str,
        tls: impl FnOnce() -> Result<Arc<ClientConfig>, CallError>,
    ) -> Result<(Self, String), CallError> {
        let bad = || CallError::Url(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(bad());
        }
        let (default_port, with_tls) = match uri.scheme_str() {
            Some("http") => (80, false),
            Some("https") => (443, true),
            _ => return Err(bad()),
        };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
        let origin = Self {
            authority: authority.as_str().to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            tls: if with_tls { Some((tls()?, name)) } else { None },
            host,
        };
        Ok((origin, uri.path().trim_end_matches('/').to_owned()))
    }

    /// What the `Host` header says.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether the connection is protected.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The whole answer to a request.
    ///
    /// *Errors*: [`CallError`]; a status that says "failed" is an answer.
    pub async fn call(&self, request: Request<Full<Bytes>>, bytes_max: usize) -> Result<Answer, CallError> {
        let whole = async {
            let (head, body) = self.open(request).await?.into_parts();
            let body = Limited::new(body, bytes_max).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    CallError::TooLarge { authority: self.authority.clone(), limit: bytes_max }
                } else {
                    match error.downcast::<hyper::Error>() {
                        Ok(source) => CallError::Http { authority: self.authority.clone(), source: *source },
                        Err(_) => CallError::Timeout { authority: self.authority.clone() },
                    }
                }
            })?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        self.within(ANSWER_TIMEOUT, whole).await
    }

    /// An answer whose body the caller reads. Dropping it ends the connection.
    ///
    /// *Errors*: [`CallError`].
    pub async fn open(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, CallError> {
        if let Ok(host) = http::HeaderValue::from_str(&self.authority) {
            request.headers_mut().entry(http::header::HOST).or_insert(host);
        }
        let connect = self.within(CONNECT_TIMEOUT, async {
            let failed = |source| CallError::Connect { authority: self.authority.clone(), source };
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            let stream: Box<dyn Stream> = match &self.tls {
                None => Box::new(stream),
                Some((config, name)) => {
                    let connector = TlsConnector::from(Arc::clone(config));
                    Box::new(connector.connect(name.clone(), stream).await.map_err(failed)?)
                }
            };
            Ok(stream)
        });
        let stream = connect.await?;
        let exchange = async {
            let failed = |source| CallError::Http { authority: self.authority.clone(), source };
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
            // Ends with the body of the only answer, or with the future or body being dropped.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::trace!(%error, "connection ended");
                }
            });
            sender.send_request(request).await.map_err(failed)
        };
        self.within(ANSWER_TIMEOUT, exchange).await
    }

    async fn within<T>(
        &self,
        time: Duration,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let late = |_| CallError::Timeout { authority: self.authority.clone() };
        tokio::time::timeout(time, work).await.map_err(late)?
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// TLS as a client, trusting the roots of the web.
///
/// *Errors*: [`CallError::Tls`].
pub fn tls_of_the_web() -> Result<Arc<ClientConfig>, CallError> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    tls_with(roots, None)
}

/// TLS as a client, trusting the certificates of a PEM text, and showing a certificate when one is given.
///
/// *Errors*: [`CallError::Tls`].
pub fn tls_trusting(pem: &[u8], own: Option<(&[u8], &[u8])>) -> Result<Arc<ClientConfig>, CallError> {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(pem) {
        let der = der.map_err(|error| CallError::Tls(error.to_string()))?;
        roots.add(der).map_err(|error| CallError::Tls(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(CallError::Tls("no certificate to trust".into()));
    }
    tls_with(roots, own)
}

/// As [`tls_trusting`], of a file; without one the roots of the web.
///
/// *Errors*: [`CallError::Tls`].
pub fn tls_of_file(path: Option<&Path>) -> Result<Arc<ClientConfig>, CallError> {
    match path {
        None => tls_of_the_web(),
        Some(path) => {
            let pem = std::fs::read(path);
            let pem = pem.map_err(|error| CallError::Tls(format!("{}: {error}", path.display())))?;
            tls_trusting(&pem, None)
        }
    }
}

/// As [`tls_trusting`], of roots.
///
/// *Errors*: [`CallError::Tls`].
pub fn tls_with(roots: RootCertStore, own: Option<(&[u8], &[u8])>) -> Result<Arc<ClientConfig>, CallError> {
    let failed = |error: &dyn std::fmt::Display| CallError::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| failed(&error))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| failed(&error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| failed(&error))?
        }
    };
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_taken_apart_or_refused() {
        let parse = |url| Origin::parse(url, tls_of_the_web);
        let (origin, path) = parse("http://127.0.0.1:5000/").unwrap();
        assert_eq!((origin.authority(), origin.port, path.as_str()), ("127.0.0.1:5000", 5_000, ""));
        let (origin, path) = parse("https://[::1]/api/v1/").unwrap();
        assert_eq!(
            (origin.host.as_str(), origin.port, origin.has_tls(), path.as_str()),
            ("::1", 443, true, "/api/v1")
        );
        for bad in ["", "/x", "ftp://a", "http://u@a/", "http://a/?q", "https://"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(matches!(tls_trusting(b"", None), Err(CallError::Tls(_))));
    }

    #[tokio::test]
    async fn answer_at_the_limit_passes_and_one_byte_more_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(|| async { "x".repeat(1_000) });
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let (origin, _) = Origin::parse(&url, tls_of_the_web).unwrap();
        let request = || Request::get("/").body(Full::default()).unwrap();
        assert_eq!(origin.call(request(), 1_000).await.unwrap().body.len(), 1_000);
        assert!(matches!(origin.call(request(), 999).await, Err(CallError::TooLarge { limit: 999, .. })));
        server.abort();
        let nobody = Origin::parse("http://127.0.0.1:1", tls_of_the_web).unwrap().0;
        assert!(matches!(nobody.call(request(), 1).await, Err(CallError::Connect { .. })));
    }
}
