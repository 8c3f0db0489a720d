//! The origin answers as its script says, to each of our clients.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use outrigger_testkit::websocket::WebSocket;
use outrigger_testkit::{Authority, H1Client, H2Client, Origin, certs, client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn h1_scripts_answer_on_one_connection() {
    let origin = Origin::h1("o").await;
    let mut client = H1Client::connect(origin.address()).await;
    let host = [("host", "h")];
    assert_eq!(client.request("GET", "/status/503", &host, b"").await.unwrap().status, 503);
    assert_eq!(client.request("GET", "/status/204", &host, b"").await.unwrap().body, b"");
    assert_eq!(client.request("GET", "/bytes/70000", &host, b"").await.unwrap().body.len(), 70_000);
    assert_eq!(
        client.request("HEAD", "/bytes/7", &host, b"").await.unwrap().field("content-length"),
        Some("7")
    );
    assert_eq!(client.request("GET", "/chunked/3", &host, b"").await.unwrap().text(), "chunkchunkchunk");
    let trailers = client.request("GET", "/trailers", &host, b"").await.unwrap();
    assert_eq!(trailers.trailer("x-check"), Some("done"));
    let echo = client.request("POST", "/echo?q", &[("host", "h"), ("X-A", "\"1\"")], b"hi").await.unwrap();
    assert!(echo.text().starts_with(
        r#"{"method":"POST","target":"/echo?q","version":"HTTP/1.1","headers":[["host","h"],["x-a","\"1\""]"#
    ));
    assert_eq!(client.request("POST", "/body", &host, b"abc").await.unwrap().text(), "abc");
    let chunked = [("host", "h"), ("transfer-encoding", "chunked")];
    assert_eq!(
        client.request("POST", "/count", &chunked, b"3\r\nabc\r\n0\r\n\r\n").await.unwrap().text(),
        "3"
    );
    for expected in [502, 502, 200] {
        assert_eq!(client.request("GET", "/flaky/k/2/502", &host, b"").await.unwrap().status, expected);
    }
    let continued = [("host", "h"), ("expect", "100-continue"), ("content-length", "1")];
    assert_eq!(client.request("POST", "/body", &continued, b"x").await.unwrap().informational, [100]);
    assert_eq!((origin.connections(), origin.requests()), (1, 13));
    assert_eq!(origin.seen()[0].field("host"), Some("h"));
    let last = client.request("GET", "/close", &host, b"").await.unwrap();
    assert_eq!((last.origin(), last.field("connection")), ("o", Some("close")));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn h1_failures_end_the_connection() {
    let origin = Origin::h1("o").await;
    let half = client::send_raw(origin.address(), b"GET /abort HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(half.ends_with(b"half"));
    assert_eq!(client::send_raw(origin.address(), b"GET /reset HTTP/1.1\r\nhost: h\r\n\r\n").await, b"");
    let refused = client::send_raw(origin.address(), b"GET / HTTP/1.1\nhost: h\n\n").await;
    assert!(refused.starts_with(b"HTTP/1.1 400"));
    assert_eq!(origin.malformed(), ["bare LF"]);
}

#[tokio::test]
async fn h2_scripts_answer_over_tls_and_in_the_clear() {
    let authority = Authority::new("mesh");
    let server = certs::server_config(
        &authority.spiffe("spiffe://t/ns/a/sa/b"),
        Some(&authority),
        &["h2", "http/1.1"],
    );
    let secure = Origin::tls("s", server).await;
    let config = certs::client_config(&authority, Some(&authority.spiffe("spiffe://t/ns/a/sa/c")), &["h2"]);
    let stream = client::tls(secure.address(), "any.example", config).await.unwrap();
    let clear = Origin::h2c("c").await;
    for client in [H2Client::over(stream).await, H2Client::connect(clear.address()).await] {
        assert_eq!(client.get("h", "/bytes/3000000").await.unwrap().body.len(), 3_000_000);
        let trailers = client.get("h", "/grpc/7").await.unwrap();
        assert_eq!((trailers.trailer("grpc-status"), trailers.body.len()), (Some("7"), 5));
        assert_eq!(client.get("h", "/grpc-only/5").await.unwrap().field("grpc-status"), Some("5"));
        let post = Request::post("http://h/body").body(Bytes::from(vec![b'y'; 200_000])).unwrap();
        let echoed = client.request_with_trailers(post, &[("x-t", "1")]).await.unwrap();
        assert_eq!((echoed.body.len(), echoed.trailer("x-t")), (200_000, Some("1")));
        assert!(client.get("h", "/reset").await.unwrap_err().is_reset());
        assert_eq!(client.get("h", "/refuse").await.unwrap_err().reason(), Some(h2::Reason::REFUSED_STREAM));
        assert!(client.get("h", "/abort").await.is_err());
        assert_eq!(client.get("h", "/close").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn tls_client_without_certificate_is_refused() {
    let authority = Authority::new("mesh");
    let server = certs::server_config(&authority.leaf(&["o.example", "127.0.0.1"]), Some(&authority), &[]);
    let origin = Origin::tls("s", server).await;
    let stream =
        client::tls(origin.address(), "o.example", certs::client_config(&authority, None, &[])).await;
    // TLS 1.3: the client learns of it with its first read.
    if let Ok(stream) = stream {
        assert!(H1Client::over(stream).request("GET", "/", &[("host", "h")], b"").await.is_err());
    }
    let other = Authority::new("other");
    let stranger = certs::client_config(&other, None, &[]);
    assert!(client::tls(origin.address(), "o.example", stranger).await.is_err());
}

#[tokio::test]
async fn expired_leaf_is_refused_by_the_client() {
    let authority = Authority::new("mesh");
    let hour = Duration::from_secs(3600);
    let now = SystemTime::now();
    let leaf = authority.leaf_valid(&["o.example"], now - 2 * hour, now - hour);
    let origin = Origin::tls("s", certs::server_config(&leaf, None, &[])).await;
    let config = certs::client_config(&authority, None, &[]);
    assert!(client::tls(origin.address(), "o.example", config).await.is_err());
}

#[tokio::test]
async fn websocket_echoes_and_closes() {
    let origin = Origin::h1("o").await;
    let stream = TcpStream::connect(origin.address()).await.unwrap();
    let mut socket = WebSocket::open(stream, "h", "/ws").await.unwrap();
    assert_eq!(socket.round_trip("hello").await.unwrap(), "hello");
    let long = "x".repeat(60_000);
    assert_eq!(socket.round_trip(&long).await.unwrap(), long);
    socket.close().await.unwrap();
}

#[tokio::test]
async fn stopped_origin_closes_its_connections() {
    let origin = Origin::h1("o").await;
    let mut client = H1Client::connect(origin.address()).await;
    client.request("GET", "/", &[("host", "h")], b"").await.unwrap();
    origin.stop();
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn tcp_echo_returns_bytes_until_half_close() {
    let origin = Origin::tcp_echo("t").await;
    let mut stream = TcpStream::connect(origin.address()).await.unwrap();
    stream.write_all(b"abc").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"abc");
}
