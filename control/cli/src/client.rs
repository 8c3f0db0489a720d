//! HTTP to the operator API: one connection per request, which is all a command line needs.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::failure::Failure;

/// Largest answer read, in bytes: a whole mesh's configuration dump fits.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for an answer, beyond what was asked to wait for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// One server and how to be let in.
#[derive(Clone)]
pub struct Client {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    token: Option<String>,
}

impl Client {
    /// For `http://HOST[:PORT]` or `https://HOST[:PORT]`; the latter needs a certificate to trust.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a URL that is none, or https without a certificate.
    pub fn new(server: &str, token: Option<String>, trust_pem: Option<&str>) -> Result<Self, Failure> {
        let bad = |reason: &str| Failure::Usage(format!("server {server:?}: {reason}"));
        let uri: Uri = server.parse().map_err(|_| bad("not a URL"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("a URL without a path is needed"));
        }
        let host = uri.host().ok_or_else(|| bad("no host in it"))?.to_owned();
        let (tls, default_port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => {
                let pem =
                    trust_pem.ok_or_else(|| bad("https needs --ca-cert: the mesh's root certificate"))?;
                (Some(Arc::new(tls_config(pem).map_err(|reason| bad(&reason))?)), 443)
            }
            _ => return Err(bad("must begin with http:// or https://")),
        };
        Ok(Self { host, port: uri.port_u16().unwrap_or(default_port), tls, token })
    }

    /// `GET`, answered with JSON.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, "", Duration::ZERO).await
    }

    /// `POST` of JSON, answered with JSON.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::POST, path, &body.to_string(), Duration::ZERO).await
    }

    /// One request; `waits` is added to the time an answer may take.
    ///
    /// # Errors
    /// Every kind but [`Failure::NotAcknowledged`].
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: &str,
        waits: Duration,
    ) -> Result<Value, Failure> {
        let request = self.request(method, path, body)?;
        let (status, bytes) = match tokio::time::timeout(ANSWER_TIMEOUT + waits, self.send(request)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.unreachable("no answer in time")),
        };
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(answer);
        }
        Err(failure(status, &answer))
    }

    fn request(&self, method: Method, path: &str, body: &str) -> Result<Request<Full<Bytes>>, Failure> {
        let media = if body.starts_with('{') { "application/json" } else { "application/yaml" };
        let mut builder = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("{}:{}", self.host, self.port))
            .header("user-agent", concat!("outrigger/", env!("CARGO_PKG_VERSION")))
            .header("content-type", media);
        if let Some(token) = &self.token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        builder
            .body(Full::from(body.to_owned()))
            .map_err(|error| Failure::Usage(format!("not a request: {error}")))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, self.port)));
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(&error.to_string())),
            Err(_) => return Err(self.unreachable("no connection in time")),
        };
        match &self.tls {
            None => self.exchange(stream, request).await,
            Some(config) => {
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|_| self.unreachable("the host is no name a certificate can have"))?;
                let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
                let stream = stream.map_err(|error| self.unreachable(&error.to_string()))?;
                self.exchange(stream, request).await
            }
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let failed = |error: hyper::Error| self.unreachable(&error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| self.unreachable(&error.to_string()))?;
        driver.abort();
        Ok((status, body.to_bytes()))
    }

    fn unreachable(&self, reason: &str) -> Failure {
        Failure::Unreachable(format!("{}:{}: {reason}", self.host, self.port))
    }
}

/// What a status other than success means, with what the server says about it.
fn failure(status: StatusCode, answer: &Value) -> Failure {
    let error = &answer["error"];
    let message =
        error["message"].as_str().map_or_else(|| format!("the server answered {status}"), str::to_owned);
    match status {
        StatusCode::UNAUTHORIZED => Failure::Unauthorized,
        StatusCode::FORBIDDEN => Failure::Forbidden(message),
        StatusCode::NOT_FOUND => Failure::NotFound(message),
        StatusCode::CONFLICT => Failure::Conflict(message),
        StatusCode::UNPROCESSABLE_ENTITY => {
            Failure::Refused(error["problems"].as_array().into_iter().flatten().map(problem_line).collect())
        }
        _ => Failure::Other(message),
    }
}

/// `RESOURCE: PATH: REASON (proxy ID)`, leaving out what is not there.
pub fn problem_line(problem: &Value) -> String {
    let parts = ["resource", "path", "reason"].map(|field| problem[field].as_str().unwrap_or_default());
    let known: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    match problem["proxy"].as_str() {
        Some(proxy) => format!("{} (proxy {proxy})", known.join(": ")),
        None => known.join(": "),
    }
}

/// Makes one segment of a path out of any text (RFC 3986 section 2.1).
pub fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes().fold(String::new(), |mut out, byte| {
        if plain(byte) {
            out.push(char::from(byte))
        } else {
            out.push_str(&format!("%{byte:02X}"))
        }
        out
    })
}

fn tls_config(pem: &str) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(|error| format!("the certificate to trust: {error}"))?;
        roots.add(der).map_err(|error| format!("the certificate to trust: {error}"))?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in the file to trust".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn server_must_be_a_url_without_path() {
        assert!(Client::new("http://127.0.0.1:15080", None, None).is_ok());
        assert!(Client::new("http://[::1]:15080/", None, None).is_ok());
        for bad in ["127.0.0.1:15080", "ftp://x", "http://x/api", "http://x/?a", "https://x", ""] {
            assert!(matches!(Client::new(bad, None, None), Err(Failure::Usage(_))), "{bad}");
        }
        assert!(Client::new("https://x", None, Some("no certificate")).is_err());
    }

    #[test]
    fn statuses_become_exit_codes() {
        let refused = json!({"error": {"problems": [
            {"resource": "VirtualService/demo/b", "path": "spec.http[0]", "reason": "unknown field"},
            {"resource": "", "path": "", "reason": "no", "proxy": "x"},
        ]}});
        let failure = failure(StatusCode::UNPROCESSABLE_ENTITY, &refused);
        assert_eq!(failure.exit_code(), 3);
        let text = failure.to_string();
        assert!(
            text.contains("\n  VirtualService/demo/b: spec.http[0]: unknown field\n  no (proxy x)"),
            "{text}"
        );
        for (status, code) in [(401, 6), (403, 6), (404, 5), (409, 4), (500, 1), (400, 1)] {
            assert_eq!(super::failure(StatusCode::from_u16(status).unwrap(), &Value::Null).exit_code(), code);
        }
    }

    #[test]
    fn any_text_becomes_one_path_segment() {
        assert_eq!(segment("sidecar~10.0.0.1~b-1"), "sidecar~10.0.0.1~b-1");
        assert_eq!(segment("a/b?c%d é"), "a%2Fb%3Fc%25d%20%C3%A9");
    }
}
