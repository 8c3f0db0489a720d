//! One connection to one host: TCP, then TLS where the cluster has it, within the cluster's connect timeout.

use crate::identity::{TlsOptions, negotiated};
use crate::io::Io;
use crate::listener::proxy_header;
use crate::live::LiveCluster;
use crate::worker::Worker;
use outrigger_traffic::cluster::Host;
use outrigger_traffic::config;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

/// How far an attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectPhase {
    /// TCP.
    Connect,
    /// TLS.
    Handshake,
    /// HTTP/2 preface and settings.
    Settings,
}

/// Why a host could not be connected to.
#[derive(Debug)]
pub struct ConnectError {
    /// How far it came.
    pub phase: ConnectPhase,
    /// `TimedOut` when the cluster's connect timeout was over.
    pub source: io::Error,
}

impl ConnectError {
    /// A failure of TCP.
    pub fn tcp(source: io::Error) -> Self {
        Self { phase: ConnectPhase::Connect, source }
    }

    /// A failure of TLS.
    pub fn handshake(source: io::Error) -> Self {
        Self { phase: ConnectPhase::Handshake, source }
    }

    /// A failure of the HTTP/2 preface.
    pub fn settings(source: io::Error) -> Self {
        Self { phase: ConnectPhase::Settings, source }
    }

    /// Whether it took too long (as opposed to: was refused).
    pub fn is_timeout(&self) -> bool {
        self.source.kind() == io::ErrorKind::TimedOut
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.phase {
            ConnectPhase::Connect => "tcp connection failed",
            ConnectPhase::Handshake => "tls handshake failed",
            ConnectPhase::Settings => "http/2 settings failed",
        })?;
        // One line for `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, hence with the source.
        write!(f, ": {}", self.source)
    }
}

impl std::error::Error for ConnectError {}

/// What differs from connection to connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectOptions<'a> {
    /// ALPN to offer where the cluster's TLS context has none of its own.
    pub alpn: &'a [&'a [u8]],
    /// Server name in place of the configured one (`auto_sni`).
    pub sni: Option<&'a str>,
    /// Where the downstream connection comes from and goes to, for clusters whose hosts are told (PROXY protocol).
    pub proxied: Option<(SocketAddr, SocketAddr)>,
}

/// Connects to a host. Counts failures and how long success took; connections themselves are counted by who keeps them.
///
/// *Errors*: see [`ConnectError`]; `TimedOut` after the cluster's `connect_timeout`, which covers TCP and TLS together.
///
/// *Cancel safety*: safe; a half-made connection is dropped.
pub async fn connect(
    worker: &Rc<Worker>,
    cluster: &Arc<LiveCluster>,
    host: &Arc<Host>,
    options: ConnectOptions<'_>,
) -> Result<Rc<Io>, ConnectError> {
    let stats = cluster.stats.at(worker.id);
    let started = Instant::now();
    let config = &cluster.cluster.config;
    let phase = std::cell::Cell::new(ConnectPhase::Connect);
    let attempt = async {
        let mut tcp = connect_tcp(host.address, config).await.map_err(ConnectError::tcp)?;
        if let Some(version) = config.proxy_protocol {
            let header = proxy_header::write(version, options.proxied);
            tcp.write_all(&header).await.map_err(ConnectError::tcp)?;
        }
        phase.set(ConnectPhase::Handshake);
        secure(worker, cluster, tcp, options).await
    };
    let made = match worker.wheel.timeout(Some(config.connect_timeout), attempt).await {
        Some(made) => made,
        None => {
            stats.upstream_cx_connect_timeout.inc();
            Err(ConnectError { phase: phase.get(), source: io::ErrorKind::TimedOut.into() })
        }
    };
    match &made {
        Ok(io) => {
            io.limit_buffers(config.per_connection_buffer_limit_bytes);
            stats.upstream_cx_connect.record(started.elapsed());
        }
        Err(_) => stats.upstream_cx_connect_fail.inc(),
    }
    made
}

/// A TCP connection with the cluster's socket options.
pub(crate) async fn connect_tcp(address: SocketAddr, config: &config::Cluster) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Answers are small and waited for; and what we write is already gathered.
    socket.set_nodelay(true)?;
    if let Some(source) = config.source_address.filter(|source| source.is_ipv4() == address.is_ipv4()) {
        socket.bind(source)?;
    }
    if let Some(keepalive) = &config.tcp_keepalive {
        let mut parameters = socket2::TcpKeepalive::new();
        if let Some(time) = keepalive.time {
            parameters = parameters.with_time(time);
        }
        if let Some(interval) = keepalive.interval {
            parameters = parameters.with_interval(interval);
        }
        if let Some(probes) = keepalive.probes {
            parameters = parameters.with_retries(probes);
        }
        socket2::SockRef::from(&socket).set_tcp_keepalive(&parameters)?;
    }
    socket.connect(address).await
}

/// Whether the configured names say no more than which HTTP is spoken, which is decided per connection: an upgrade needs
/// HTTP/1.1 to a host that is otherwise spoken to in HTTP/2. Other names (`istio`) are sent as configured.
fn is_http(configured: &[String]) -> bool {
    configured.iter().all(|name| matches!(name.as_str(), "h2" | "http/1.1"))
}

async fn secure(
    worker: &Rc<Worker>,
    cluster: &Arc<LiveCluster>,
    tcp: TcpStream,
    options: ConnectOptions<'_>,
) -> Result<Rc<Io>, ConnectError> {
    let buffers = worker.buffers.clone();
    let Some(tls) = &cluster.tls else {
        return Io::plain(tcp, None, buffers).map(Rc::new).map_err(ConnectError::tcp);
    };
    let address = tcp.peer_addr().map_err(ConnectError::tcp)?;
    let wanted = TlsOptions {
        alpn: Some(options.alpn).filter(|wanted| !wanted.is_empty() && is_http(tls.alpn())),
        server_name: options.sni,
    };
    let stats = cluster.stats.at(worker.id);
    if !tls.missing().is_empty() {
        stats.ssl_secret_missing.inc();
    }
    let connection = tls
        .connection(address.ip(), &wanted)
        .map_err(|reason| ConnectError::handshake(io::Error::other(reason)))?;
    let io = Io::tls(tcp, None, buffers, connection.into()).map_err(ConnectError::tcp)?;
    let shaken = io.handshake().await;
    if let Err(source) = shaken {
        count_failure(stats, &source);
        return Err(ConnectError::handshake(source));
    }
    let sni = options.sni.map(Arc::from).or_else(|| tls.sni());
    let facts = io.with_tls(|connection| {
        negotiated(connection, tls.verifies_hosts(), sni, &mut worker.peers.borrow_mut())
    });
    if let Some(facts) = facts {
        stats.ssl_handshake.inc();
        if facts.resumed {
            stats.ssl_session_reused.inc();
        }
        io.set_tls_facts(Arc::new(facts));
    }
    Ok(Rc::new(io))
}

fn count_failure(stats: &crate::telemetry::ClusterStats, error: &io::Error) {
    use rustls::{CertificateError, Error};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure
            | CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. },
        )) => stats.ssl_fail_verify_san.inc(),
        Some(Error::InvalidCertificate(_)) => stats.ssl_fail_verify_error.inc(),
        _ => stats.ssl_connection_error.inc(),
    }
}
