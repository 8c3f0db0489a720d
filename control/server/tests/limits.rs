//! The limits of a port: at them, and one past them.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use outrigger_control::identity::Hosts;
use outrigger_control::serve::{Limits, Port};
use outrigger_control::store::SharedStore;
use outrigger_control::store::memory::MemoryStore;
use outrigger_control::telemetry::Metrics;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;

struct Running {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    shutdown: watch::Sender<bool>,
    job: tokio::task::JoinHandle<()>,
}

async fn hosts() -> Hosts {
    Hosts::open(SharedStore::new(MemoryStore::default())).await.unwrap()
}

async fn start(limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Arc::new(Metrics::default());
    let router = Router::new().route("/", get(|| async { "here" }));
    let port =
        Port { listener, tls: None, router, limits, metrics: Arc::clone(&metrics), hosts: hosts().await };
    let shutdown = watch::Sender::new(false);
    let job = tokio::spawn(port.serve(shutdown.subscribe()));
    Running { address, metrics, shutdown, job }
}

/// What comes back for these bytes, up to the first silence after the answer or the end.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> String {
    // The other end may close before everything is written.
    let _ = stream.write_all(bytes).await;
    let mut buffer = vec![0; 4_096];
    let read = stream.read(&mut buffer).await.unwrap_or(0);
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn connection_past_the_limit_is_closed_and_counted_and_room_is_made_again() {
    let running = start(Limits { connections_max: 2, ..Limits::default() }).await;
    let mut one = TcpStream::connect(running.address).await.unwrap();
    let mut two = TcpStream::connect(running.address).await.unwrap();
    assert!(answer(&mut one, GET).await.starts_with("HTTP/1.1 200"));
    assert!(answer(&mut two, GET).await.starts_with("HTTP/1.1 200"));
    let mut three = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(answer(&mut three, GET).await, "");
    assert_eq!(running.metrics.connections_refused.load(Ordering::Relaxed), 1);
    drop(one);
    // The place is free as soon as the server has seen the end of the first.
    loop {
        let mut next = TcpStream::connect(running.address).await.unwrap();
        if answer(&mut next, GET).await.starts_with("HTTP/1.1 200") {
            break;
        }
    }
    running.shutdown.send_replace(true);
    running.job.await.unwrap();
}

#[tokio::test]
async fn head_that_never_ends_is_cut_off_by_size_and_by_time() {
    let limits = Limits { head_timeout: Duration::from_millis(100), ..Limits::default() };
    let running = start(limits).await;
    let mut large = TcpStream::connect(running.address).await.unwrap();
    let mut bytes = b"GET / HTTP/1.1\r\nhost: x\r\nx: ".to_vec();
    bytes.extend(std::iter::repeat_n(b'a', 200_000));
    let text = answer(&mut large, &bytes).await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431"), "{text}");
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    let text = answer(&mut slow, b"GET / HTTP/1.1\r\nhost:").await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
    running.shutdown.send_replace(true);
    running.job.await.unwrap();
}

#[tokio::test]
async fn shutdown_closes_idle_connections_and_does_not_wait_for_ever() {
    let running = start(Limits { drain: Duration::from_millis(200), ..Limits::default() }).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    assert!(answer(&mut idle, GET).await.starts_with("HTTP/1.1 200"));
    // One that has sent half a head holds the drain up, but not longer than its limit.
    let mut half = TcpStream::connect(running.address).await.unwrap();
    half.write_all(b"GET / HT").await.unwrap();
    running.shutdown.send_replace(true);
    running.job.await.unwrap();
    assert_eq!(idle.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody listens any more");
}

/// A TLS port with these limits, and clients for it, with and without a certificate.
struct Tls {
    running: Running,
    roots: String,
    member: support::Member,
    _dir: tempfile::TempDir,
}

async fn start_tls(limits: Limits) -> Tls {
    use outrigger_control::identity::server_tls::ServerTls;
    use outrigger_control::identity::{Authority, AuthoritySettings, Identity, ServerNames, csr};
    let dir = tempfile::tempdir().unwrap();
    let now = outrigger_control::clock::unix_ms();
    let authority = Arc::new(Authority::open(dir.path(), AuthoritySettings::default(), now).unwrap());
    let own = Identity::new("cluster.local", "outrigger-system", "outrigger-control").unwrap();
    let names = ServerNames { dns: vec!["localhost".to_owned()], ip: Vec::new() };
    let tls = Arc::new(ServerTls::new(Arc::clone(&authority), own, names, now).unwrap());
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let asked = csr::verify(request.der()).unwrap();
    let cart = Identity::new("cluster.local", "shop", "cart").unwrap();
    let svid = authority.sign(&cart, None, &asked, now).unwrap();
    let roots = authority.trust_bundle().borrow().pem.clone();
    let signed = outrigger_api::outrigger::v1::SignResponse {
        certificate_chain_pem: svid.chain_pem,
        ..Default::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Arc::new(Metrics::default());
    let router = Router::new().route("/", get(|| async { "here" }));
    let current: outrigger_control::serve::CurrentTls = Arc::new(move || tls.mesh());
    let port = Port {
        listener,
        tls: Some(current),
        router,
        limits,
        metrics: Arc::clone(&metrics),
        hosts: hosts().await,
    };
    let shutdown = watch::Sender::new(false);
    let job = tokio::spawn(port.serve(shutdown.subscribe()));
    let running = Running { address, metrics, shutdown, job };
    Tls { running, roots, member: support::Member { key, signed }, _dir: dir }
}

impl Tls {
    /// A connection over which a request was answered, or nothing.
    async fn connect(&self, with_certificate: bool) -> Option<TlsStream<TcpStream>> {
        let member = with_certificate.then_some(&self.member);
        let mut stream = support::connect(self.running.address, &self.roots, member).await.ok()?;
        answer(&mut stream, GET).await.starts_with("HTTP/1.1 200").then_some(stream)
    }
}

#[tokio::test]
async fn connection_without_a_certificate_past_its_limit_is_closed_and_members_are_not() {
    use outrigger_control::quota::Share;
    for (share, who) in [
        (Share { total: 2, of_one_source: 9 }, "in all"),
        (Share { total: 9, of_one_source: 2 }, "of one source"),
    ] {
        let tls = start_tls(Limits { anonymous: share, ..Limits::mesh() }).await;
        let one = tls.connect(false).await.expect(who);
        let _two = tls.connect(false).await.expect(who);
        assert!(tls.connect(false).await.is_none(), "one past the limit {who}");
        assert_eq!(tls.running.metrics.anonymous_refused.load(Ordering::Relaxed), 1);
        let mut members = Vec::new();
        for _ in 0..4 {
            members.push(tls.connect(true).await.expect("a member is not counted"));
        }
        drop(one);
        // The place is free as soon as the server has seen the end of the first.
        while tls.connect(false).await.is_none() {}
        tls.running.shutdown.send_replace(true);
        tls.running.job.await.unwrap();
    }
}

#[tokio::test]
async fn connection_without_a_certificate_ends_when_its_time_is_over() {
    let life = Some(Duration::from_millis(50));
    let limits = Limits { anonymous_life: life, drain: Duration::from_millis(50), ..Limits::mesh() };
    let tls = start_tls(limits).await;
    let mut member = tls.connect(true).await.unwrap();
    // On a slow machine its time may be over before it was answered.
    if let Some(mut anonymous) = tls.connect(false).await {
        assert_eq!(anonymous.read(&mut [0; 16]).await.unwrap_or(0), 0, "closed");
    }
    assert!(answer(&mut member, GET).await.starts_with("HTTP/1.1 200"), "a member stays");
    tls.running.shutdown.send_replace(true);
    tls.running.job.await.unwrap();
}

#[tokio::test]
async fn handshakes_past_their_limit_are_refused_until_the_slow_ones_are_cut() {
    use outrigger_control::quota::Share;
    let limits = Limits {
        handshakes: Share { total: 9, of_one_source: 2 },
        handshake_timeout: Duration::from_millis(300),
        ..Limits::mesh()
    };
    let tls = start_tls(limits).await;
    let metrics = &tls.running.metrics;
    // Whoever connects and says nothing.
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(tls.running.address).await.unwrap());
    }
    let mut end = [0; 1];
    let mut closed = 0;
    for stream in &mut silent {
        // The third is closed at once, the others when their time is over.
        closed += usize::from(matches!(stream.read(&mut end).await, Ok(0) | Err(_)));
    }
    assert_eq!(closed, 3);
    assert_eq!(metrics.handshakes_refused.load(Ordering::Relaxed), 1);
    assert_eq!(metrics.handshakes_failed.load(Ordering::Relaxed), 2);
    assert!(tls.connect(true).await.is_some(), "there is room again");
    tls.running.shutdown.send_replace(true);
    tls.running.job.await.unwrap();
}
