//! The limits of a port: at them, and one past them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use outrigger_control::serve::{Limits, Port};
use outrigger_control::telemetry::Metrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

struct Running {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    shutdown: watch::Sender<bool>,
    job: tokio::task::JoinHandle<()>,
}

async fn start(limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Arc::new(Metrics::default());
    let router = Router::new().route("/", get(|| async { "here" }));
    let port = Port { listener, tls: None, router, limits, metrics: Arc::clone(&metrics) };
    let shutdown = watch::Sender::new(false);
    let job = tokio::spawn(port.serve(shutdown.subscribe()));
    Running { address, metrics, shutdown, job }
}

/// What comes back for these bytes, up to the first silence after the answer or the end.
async fn answer(stream: &mut TcpStream, bytes: &[u8]) -> String {
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
