//! Whether the service of a data directory is ready, asked from outside the process: `outrigger-control health`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::service::{ADDRESSES_FILE, Addresses};

/// Most read of an answer, bytes.
const ANSWER_BYTES_MAX: u64 = 4 * 1024;

/// Why a service is not ready.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// It has not said where it listens: not started yet, or on another directory.
    #[error("{path}: the service has not started")]
    NotStarted {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of its directory makes no sense.
    #[error("{path} cannot be used: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It does not answer.
    #[error("{address} does not answer")]
    NoAnswer {
        /// Where it should listen.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// It answered that it is not ready.
    #[error("{address} is not ready: {answer:?}")]
    NotReady {
        /// Where it listens.
        address: SocketAddr,
        /// The first line of the answer.
        answer: String,
    },
}

/// Asks the operator port for its readiness.
///
/// *Errors*: [`HealthError`]: everything but "ready" within `timeout`.
pub async fn check(data_dir: &Path, timeout: Duration) -> Result<(), HealthError> {
    let path = data_dir.join(ADDRESSES_FILE);
    let text = std::fs::read_to_string(&path)
        .map_err(|source| HealthError::NotStarted { path: path.clone(), source })?;
    let unusable = |reason: String| HealthError::File { path: path.clone(), reason };
    let addresses: Addresses = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    let (scheme, address) =
        addresses.api.split_once("://").ok_or_else(|| unusable("api is no URL".to_owned()))?;
    let address: SocketAddr = address.parse().map_err(|_| unusable("api has no address".to_owned()))?;
    let address = SocketAddr::new(reachable(address.ip()), address.port());
    let tls = match scheme {
        "https" => Some(tls(&addresses.root_certificate, &addresses.server_name)?),
        _ => None,
    };
    let answer = tokio::time::timeout(timeout, ask(address, tls)).await;
    let answer = answer
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|source| HealthError::NoAnswer { address, source })?;
    if answer.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    Err(HealthError::NotReady { address, answer })
}

/// A service that listens everywhere is asked on loopback.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn tls(root: &Path, name: &str) -> Result<(TlsConnector, ServerName<'static>), HealthError> {
    let unusable = |reason: String| HealthError::File { path: root.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(root).map_err(|error| unusable(error.to_string()))?;
    for certificate in certificates {
        let added = certificate.map_err(|error| error.to_string());
        added
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()))
            .map_err(unusable)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).map_err(|error| unusable(error.to_string()))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

async fn ask(
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
) -> std::io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    match tls {
        None => exchange(stream).await,
        Some((connector, name)) => exchange(connector.connect(name, stream).await?).await,
    }
}

/// The status line of the answer.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    let mut limited = stream.take(ANSWER_BYTES_MAX);
    // An answer that was read counts, however the connection ends after it.
    let ended = limited.read_to_end(&mut answer).await;
    if answer.is_empty() {
        ended?;
    }
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A directory whose service is at `address` and answers with `answer`.
    async fn served(answer: &'static str) -> (tempfile::TempDir, tokio::task::JoinHandle<()>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = Addresses {
            xds: listener.local_addr().unwrap(),
            api: format!("http://{}", listener.local_addr().unwrap()),
            root_certificate: dir.path().join("root.crt"),
            server_name: "localhost".to_owned(),
            pid: 1,
        };
        let text = serde_json::to_string(&addresses).unwrap();
        std::fs::write(dir.path().join(ADDRESSES_FILE), text).unwrap();
        let job = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 256];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        (dir, job)
    }

    #[tokio::test]
    async fn only_a_200_is_ready() {
        let (dir, _job) = served("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        check(dir.path(), PATIENCE).await.unwrap();
        for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "nonsense", ""] {
            let (dir, _job) = served(answer).await;
            let error = check(dir.path(), PATIENCE).await.unwrap_err();
            assert!(matches!(error, HealthError::NotReady { .. } | HealthError::NoAnswer { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn service_that_has_not_started_or_is_gone_is_not_ready() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(check(dir.path(), PATIENCE).await, Err(HealthError::NotStarted { .. })));
        std::fs::write(dir.path().join(ADDRESSES_FILE), "{}").unwrap();
        assert!(matches!(check(dir.path(), PATIENCE).await, Err(HealthError::File { .. })));
        let (dir, job) = served("").await;
        job.abort();
        let _ = job.await;
        assert!(matches!(check(dir.path(), PATIENCE).await, Err(HealthError::NoAnswer { .. })));
    }

    #[test]
    fn service_on_all_addresses_is_asked_on_loopback() {
        for (bound, asked) in [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.1", "192.0.2.1")] {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), asked);
        }
    }
}
