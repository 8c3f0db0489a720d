//! Configurations built in code, certificates, small origins.

use outrigger_engine::proxy::{Proxy, ProxyHandle, ProxyOptions};
use outrigger_engine::telemetry::{ClusterStats, ListenerStats, TcpStats};
use outrigger_testkit::certs::{self, Authority, Leaf};
use outrigger_testkit::within;
use outrigger_traffic::config::{
    CertificateSource, Cluster, ClusterChoice, ClusterDiscovery, Config, DownstreamTls, Endpoint, Endpoints,
    FilterChain, FilterChainMatch, Listener, LocalityEndpoints, SanMatch, SanType, Secret, SecretValue,
    StringMatch, StringPattern, TcpProxy, Terminal, TlsCertificate, TlsParams, ValidationContext,
    ValidationSource,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

/// The identity that listeners of these tests admit.
pub const CLIENT: &str = "spiffe://mesh.test/ns/default/sa/client";

/// A proxy with two workers and a configuration that must be accepted.
pub fn start(config: Config) -> ProxyHandle {
    let proxy = Proxy::start(ProxyOptions { concurrency: 2, ..ProxyOptions::default() }).unwrap();
    proxy.apply(config).unwrap();
    proxy
}

/// The address of listener `in`.
pub fn address(proxy: &ProxyHandle) -> SocketAddr {
    proxy.listener_addrs("in")[0]
}

pub fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    let localities = vec![LocalityEndpoints {
        endpoints: addresses.iter().copied().map(Endpoint::at).collect(),
        ..LocalityEndpoints::default()
    }];
    let endpoints = Endpoints { cluster_name: name.into(), localities, overprovisioning_factor: None };
    Cluster::new(name, ClusterDiscovery::Static(endpoints))
}

pub fn tcp_to(cluster: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: "tcp".into(),
        cluster: ClusterChoice::Single(cluster.into()),
        idle_timeout: Some(Duration::from_secs(3600)),
        max_downstream_connection_duration: None,
        max_connect_attempts: 1,
        tunnel: None,
        access_log: Vec::new(),
    }
}

pub fn chain(proxy: TcpProxy, tls: Option<DownstreamTls>) -> FilterChain {
    FilterChain {
        name: String::new(),
        matches: FilterChainMatch::default(),
        tls,
        transport_socket_connect_timeout: Duration::from_secs(15),
        network_filters: Vec::new(),
        terminal: Terminal::Tcp(Box::new(proxy)),
    }
}

pub fn listener(chains: Vec<FilterChain>) -> Listener {
    let mut listener = Listener::new("in", "127.0.0.1:0".parse().unwrap());
    listener.filter_chains = chains;
    listener
}

pub fn config(listener: Listener, clusters: Vec<Cluster>) -> Config {
    Config { listeners: vec![listener], clusters, ..Config::default() }
}

/// One plain TCP chain to one cluster `a`.
pub fn simple(address: SocketAddr, change: impl FnOnce(&mut TcpProxy)) -> Config {
    let mut proxy = tcp_to("a");
    change(&mut proxy);
    config(listener(vec![chain(proxy, None)]), vec![cluster("a", &[address])])
}

pub fn certificate(leaf: &Leaf) -> TlsCertificate {
    TlsCertificate { chain_pem: leaf.cert_pem.clone(), key_pem: leaf.key_pem.clone() }
}

pub fn trust(authority: &Authority, uris: &[&str]) -> ValidationContext {
    let sans = uris.iter().map(|uri| SanMatch { kind: SanType::Uri, text: StringMatch::exact(*uri) });
    ValidationContext { trusted_ca_pem: Some(authority.pem()), system_roots: false, sans: sans.collect() }
}

pub fn san(kind: SanType, pattern: StringPattern) -> SanMatch {
    SanMatch { kind, text: StringMatch { pattern, ignore_case: false } }
}

/// TLS with a certificate written inline and, with `clients`, mutual.
pub fn tls(leaf: &Leaf, clients: Option<ValidationContext>) -> DownstreamTls {
    DownstreamTls {
        certificates: vec![CertificateSource::Inline(certificate(leaf))],
        require_client_certificate: clients.is_some(),
        validation: clients.map(ValidationSource::Inline),
        alpn: Vec::new(),
        params: TlsParams::default(),
        disable_stateless_session_resumption: false,
    }
}

pub fn secret(name: &str, leaf: &Leaf) -> Secret {
    Secret { name: name.into(), value: SecretValue::Certificate(certificate(leaf)) }
}

pub fn roots_secret(name: &str, context: ValidationContext) -> Secret {
    Secret { name: name.into(), value: SecretValue::Validation(context) }
}

/// Connects by TLS and sees whether an echo comes back: what a TLS 1.3 client learns of a refusal comes after its
/// handshake.
pub async fn echo_over_tls(
    address: SocketAddr,
    name: &str,
    config: Arc<rustls::ClientConfig>,
) -> std::io::Result<Vec<u8>> {
    let mut stream = certs_tls(address, name, config).await?;
    echo(&mut stream, b"hello").await?;
    let (_, connection) = stream.get_ref();
    Ok(connection.peer_certificates().unwrap()[0].to_vec())
}

pub async fn certs_tls(
    address: SocketAddr,
    name: &str,
    config: Arc<rustls::ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    within("a TLS handshake", outrigger_testkit::client::tls(address, name, config)).await
}

/// Sends and expects the same back.
pub async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    within("an echo", async {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).await?;
        assert_eq!(back, bytes);
        Ok(())
    })
    .await
}

/// Reads to the end; an error counts as the end.
pub async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    within("the connection to be closed", async {
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    all
}

pub fn client(servers: &Authority, leaf: Option<&Leaf>) -> Arc<rustls::ClientConfig> {
    certs::client_config(servers, leaf, &[])
}

/// An origin that says its name and closes.
pub async fn greeter(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(name.as_bytes()).await;
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    address
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub fn listener_count(proxy: &ProxyHandle, pick: impl Fn(&ListenerStats) -> u64) -> u64 {
    proxy.shared().live.load().listeners["in"].stats.total(pick)
}

pub fn tcp_count(proxy: &ProxyHandle, pick: impl Fn(&TcpStats) -> u64) -> u64 {
    proxy.shared().live.load().listeners["in"].chains[0].tcp_stats.total(pick)
}

pub fn cluster_count(proxy: &ProxyHandle, name: &str, pick: impl Fn(&ClusterStats) -> u64) -> u64 {
    let live = proxy.shared().live.load();
    let id = live.snapshot.cluster_named(name).unwrap();
    live.cluster(id).unwrap().stats.total(pick)
}

/// Looks again until `is_it`, at most for the patience of the testkit.
pub async fn eventually(what: &str, is_it: impl Fn() -> bool) {
    within(what, async {
        while !is_it() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
