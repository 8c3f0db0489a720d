//! WebSocket over HTTP/2 (RFC 8441) towards hosts that know it over HTTP/1.1 only.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request};
use outrigger_testkit::Origin;
use outrigger_testkit::websocket::WebSocket;
use outrigger_traffic::config::{Config, PathMatch, Upgrade};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;

use crate::bed::{Bed, eventually, manager, to, to_h2};

fn allowing(mut config: Config) -> Config {
    manager(&mut config).http2.allow_connect = true;
    manager(&mut config).upgrades.push(Upgrade { upgrade_type: "websocket".into(), enabled: true });
    config
}

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

/// Waits for the server's SETTINGS, which say whether extended CONNECT is known.
async fn settled(send: SendRequest<Bytes>) -> SendRequest<Bytes> {
    let mut send = send.ready().await.unwrap();
    let (response, _) = send.send_request(Request::get("http://h/").body(()).unwrap(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    send
}

fn open(send: &mut SendRequest<Bytes>, protocol: &'static str) -> (ResponseFuture, SendStream<Bytes>) {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://h/ws")
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    send.send_request(request, false).unwrap()
}

/// Makes of a stream of DATA frames one of bytes.
fn bytes_of(mut send: SendStream<Bytes>, mut recv: RecvStream) -> DuplexStream {
    let (near, far) = tokio::io::duplex(4096);
    let (mut from, mut into) = tokio::io::split(far);
    tokio::spawn(async move {
        while let Some(Ok(chunk)) = recv.data().await {
            into.write_all(&chunk).await.unwrap();
            recv.flow_control().release_capacity(chunk.len()).unwrap();
        }
        let _ = into.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            send.send_data(Bytes::copy_from_slice(&buffer[..n]), false).unwrap();
        }
        let _ = send.send_data(Bytes::new(), true);
    });
    near
}

#[tokio::test]
async fn websocket_over_h2_echoes_through_the_proxy() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(allowing(to(&[&origin])));
    let mut send = settled(connect(bed.address).await).await;
    assert!(send.is_extended_connect_protocol_enabled());
    let (response, sink) = open(&mut send, "websocket");
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    for absent in ["upgrade", "connection", "sec-websocket-accept", "content-length"] {
        assert_eq!(response.headers().get(absent), None, "{absent}");
    }
    let mut socket = WebSocket::opened(bytes_of(sink, response.into_body()));
    for text in ["hello", "again", &"x".repeat(60_000)] {
        assert_eq!(socket.round_trip(text).await.unwrap(), text);
    }
    // Other streams of the connection go on beside it.
    let mut send = settled(send).await;
    let (second, second_sink) = open(&mut send, "websocket");
    let second = second.await.unwrap();
    let mut other = WebSocket::opened(bytes_of(second_sink, second.into_body()));
    assert_eq!(other.round_trip("other").await.unwrap(), "other");
    assert_eq!(socket.round_trip("first").await.unwrap(), "first");
    socket.close().await.unwrap();
    other.close().await.unwrap();
    assert_eq!(bed.http_stat(|stats| stats.downstream_cx_upgrades_total.value()), 2);
    eventually("the tunnels to end", || {
        bed.http_stat(|stats| stats.downstream_cx_upgrades_active.value()) == 0
    })
    .await;
}

#[tokio::test]
async fn websocket_over_h2_passes_two_proxies() {
    let origin = Origin::h1("one").await;
    let inner = Bed::start(allowing(to(&[&origin])));
    let mut config = allowing(to_h2(&[&origin]));
    config.clusters[0] = crate::bed::cluster_at("a", &[inner.address]);
    let outer = Bed::start(config);
    let mut send = settled(connect(outer.address).await).await;
    let (response, sink) = open(&mut send, "websocket");
    let response = response.await.unwrap();
    let mut socket = WebSocket::opened(bytes_of(sink, response.into_body()));
    assert_eq!(socket.round_trip("through both").await.unwrap(), "through both");
    socket.close().await.unwrap();
}

#[tokio::test]
async fn extended_connect_that_is_not_allowed_is_refused() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).http2.allow_connect = true;
    let bed = Bed::start(config);
    let mut send = settled(connect(bed.address).await).await;
    for protocol in ["websocket", "connect-udp"] {
        let (response, _sink) = open(&mut send, protocol);
        assert_eq!(response.await.unwrap().status(), 403, "{protocol}");
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn extended_connect_is_not_offered_by_default() {
    let origin = Origin::h1("one").await;
    let mut config = allowing(to(&[&origin]));
    manager(&mut config).http2.allow_connect = false;
    let bed = Bed::start(config);
    let mut send = settled(connect(bed.address).await).await;
    assert!(!send.is_extended_connect_protocol_enabled());
    let (response, _sink) = open(&mut send, "websocket");
    assert!(response.await.is_err());
    settled(send).await;
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn host_that_declines_the_upgrade_is_heard() {
    let origin = Origin::h2c("no websocket here").await;
    let bed = Bed::start(allowing(to(&[&origin])));
    let mut send = connect(bed.address).await.ready().await.unwrap();
    // Never an answer of HTTP/1.1, so the gateway says that there is none.
    let (response, _sink) = open(&mut send, "websocket");
    assert!(response.await.is_ok_and(|response| response.status().is_server_error()));
}

#[tokio::test]
async fn idle_tunnel_is_cut_and_a_reset_one_lets_its_host_go() {
    let origin = Origin::h1("one").await;
    let mut config = allowing(to(&[&origin]));
    manager(&mut config).stream_idle_timeout = Some(Duration::from_millis(60));
    let mut bed = Bed::start(config);
    let mut send = settled(connect(bed.address).await).await;
    let (response, _sink) = open(&mut send, "websocket");
    let mut recv = response.await.unwrap().into_body();
    let end = outrigger_testkit::within("the idle tunnel to end", recv.data()).await;
    assert!(end.is_some_and(|end| end.is_err()));
    bed.change(|config| manager(config).stream_idle_timeout = None);
    let (response, mut sink) = open(&mut send, "websocket");
    let _recv = response.await.unwrap().into_body();
    assert_eq!(bed.http_stat(|stats| stats.downstream_cx_upgrades_active.value()), 1);
    sink.send_reset(h2::Reason::CANCEL);
    eventually("the tunnel to end", || {
        bed.http_stat(|stats| stats.downstream_cx_upgrades_active.value()) == 0
    })
    .await;
    settled(send).await;
}

#[tokio::test]
async fn tunnel_ends_after_the_longest_life_of_a_stream() {
    let origin = Origin::h1("one").await;
    let mut config = allowing(to(&[&origin]));
    manager(&mut config).max_stream_duration = Some(Duration::from_millis(80));
    let bed = Bed::start(config);
    let mut send = settled(connect(bed.address).await).await;
    let (response, _sink) = open(&mut send, "websocket");
    let mut recv = response.await.unwrap().into_body();
    let end = outrigger_testkit::within("the tunnel to end", recv.data()).await;
    assert!(end.is_some_and(|end| end.is_err()));
    let stream = TcpStream::connect(bed.address).await.unwrap();
    let mut socket = WebSocket::open(stream, "h", "/ws").await.unwrap();
    let ended = async { while socket.round_trip("x").await.is_ok() {} };
    outrigger_testkit::within("the tunnel over HTTP/1.1 to end", ended).await;
    eventually("both to be counted", || {
        bed.http_stat(|stats| stats.downstream_rq_max_duration_reached.value()) == 2
    })
    .await;
}

/// Answers CONNECT, and echoes what comes then.
async fn gateway() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"CONNECT target.test:5432 HTTP/1.1\r\n"));
        // The first bytes of the other side come with the answer.
        // They are not a body, even if a length is said.
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nready").await.unwrap();
        let (mut from, mut into) = stream.split();
        tokio::io::copy(&mut from, &mut into).await.unwrap();
        into.shutdown().await.unwrap();
    });
    address
}

#[tokio::test]
async fn plain_connect_on_a_stream_becomes_a_tunnel_where_allowed() {
    let unused = Origin::h1("unused").await;
    for allowed in [true, false] {
        let mut config = to(&[&unused]);
        config.clusters[0] = crate::bed::cluster_at("a", &[gateway().await]);
        crate::bed::host(&mut config).routes[0].matches.path = PathMatch::Connect;
        manager(&mut config).http2.allow_connect = allowed;
        manager(&mut config).upgrades.push(Upgrade { upgrade_type: "CONNECT".into(), enabled: true });
        let bed = Bed::start(config);
        let mut send = connect(bed.address).await.ready().await.unwrap();
        let request = Request::builder().method(Method::CONNECT).uri("target.test:5432").body(()).unwrap();
        let (response, sink) = send.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        if !allowed {
            assert_eq!(response.status(), 403);
            continue;
        }
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().get("content-length"), None);
        let mut stream = bytes_of(sink, response.into_body());
        stream.write_all(b" and back").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "ready and back");
    }
}
