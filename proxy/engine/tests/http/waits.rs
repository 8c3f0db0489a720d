//! Whatever waits has an end: for a connection, for the upload, for a client that does not read, before another attempt.

use std::time::Duration;

use bytes::Bytes;
use outrigger_testkit::client::{get, send_raw};
use outrigger_testkit::{Origin, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bed::{Bed, action, cluster_at, eventually, forward, host, manager, retry_on, to};

#[tokio::test]
async fn route_timeout_runs_while_a_request_waits_for_a_connection() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    config.clusters[0].circuit_breakers.default.max_connections = 1;
    host(&mut config).routes.insert(0, forward("/hang", "a"));
    action(&mut config, 0).timeout = None;
    action(&mut config, 1).timeout = Some(Duration::from_millis(80));
    let bed = Bed::start(config);
    let mut first = bed.h1().await;
    first.send(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    origin.wait_for_requests(1).await;
    let response = within("the second answer", get(bed.address, "h", "/")).await;
    assert_eq!((response.status, response.text().as_str()), (504, "upstream request timeout"));
    let stream = bed.h2().await;
    let response = within("the third answer", stream.get("h", "/")).await.unwrap();
    assert_eq!(response.status, 504);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn per_try_timeout_begins_with_the_connection() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    config.clusters[0].circuit_breakers.default.max_connections = 1;
    host(&mut config).routes.insert(0, forward("/delay", "a"));
    let mut policy = retry_on(|on| on.reset = true, 0);
    policy.per_try_timeout = Some(Duration::from_millis(100));
    policy.per_try_idle_timeout = Some(Duration::from_millis(100));
    action(&mut config, 1).retry_policy = Some(policy);
    let bed = Bed::start(config);
    let mut first = bed.h1().await;
    first.send(b"GET /delay/300 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    origin.wait_for_requests(1).await;
    assert_eq!(get(bed.address, "h", "/").await.status, 200, "waited longer than an attempt may take");
    assert_eq!(get(bed.address, "h", "/hang").await.status, 504);
}

#[tokio::test]
async fn per_try_timeout_begins_with_the_end_of_the_upload() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    host(&mut config).routes.insert(0, forward("/delay", "a"));
    let mut policy = retry_on(|on| on.reset = true, 0);
    policy.per_try_timeout = Some(Duration::from_millis(80));
    action(&mut config, 1).retry_policy = Some(policy);
    let bed = Bed::start(config);
    for (path, status) in [("/body", 200), ("/hang", 504)] {
        let mut client = bed.h1().await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\na");
        client.send(head.as_bytes()).await.unwrap();
        // Meanwhile, time passes.
        assert_eq!(get(bed.address, "h", "/delay/250").await.status, 200);
        client.send(b"b").await.unwrap();
        assert_eq!(client.response("POST").await.unwrap().status, status, "{path}");
    }
}

#[tokio::test]
async fn client_that_does_not_read_is_cut_off_when_its_response_breaks_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        // Without end.
        while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
    });
    let origin = Origin::h1("unused").await;
    let mut config = to(&[&origin]);
    config.clusters[0] = cluster_at("a", &[address]);
    action(&mut config, 0).timeout = Some(Duration::from_millis(200));
    manager(&mut config).stream_idle_timeout = None;
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    eventually("the response to break off", || {
        bed.http_stat(|stats| stats.rq_reset_after_downstream_response_started.value()) == 1
    })
    .await;
    eventually("the connection to end", || bed.http_stat(|stats| stats.downstream_cx_active.value()) == 0)
        .await;
    drop(client);
}

#[tokio::test]
async fn client_that_leaves_between_attempts_ends_the_request() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    let mut policy = retry_on(|on| on.server_error = true, 1);
    policy.base_interval = Duration::from_secs(3000);
    policy.max_interval = Duration::from_secs(3000);
    action(&mut config, 0).retry_policy = Some(policy);
    action(&mut config, 0).timeout = None;
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    client.send(b"GET /status/503 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    eventually("the wait", || bed.cluster_stat("a", |stats| stats.upstream_rq_retry.value()) == 1).await;
    drop(client);
    eventually("the connection to end", || bed.http_stat(|stats| stats.downstream_cx_active.value()) == 0)
        .await;
    assert_eq!((origin.requests(), bed.http_stat(|stats| stats.downstream_rq_rx_reset.value())), (1, 1));
}

/// A host that answers one request with these bytes.
async fn says(answer: String) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read(&mut head).await;
    });
    address
}

#[tokio::test]
async fn interim_responses_at_the_limit_pass_and_one_past_is_502() {
    for (count, status) in [(16, "200"), (17, "502")] {
        let interim =
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n".repeat(count);
        let address = says(format!("{interim}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")).await;
        let origin = Origin::h1("unused").await;
        let mut config = to(&[&origin]);
        config.clusters[0] = cluster_at("a", &[address]);
        let bed = Bed::start(config);
        let answer = send_raw(bed.address, b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(answer.matches("HTTP/1.1 103 ").count(), 16, "{answer}");
        assert_eq!(answer.matches("link: x").count(), 16, "{answer}");
        assert!(answer.contains(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(!answer.contains("x-hop"), "{answer}");
    }
}

#[tokio::test]
async fn switch_of_protocols_over_h2_is_502() {
    // SETTINGS, then on stream 1 HEADERS with `:status: 101`.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut seen = Vec::new();
        // The request's HEADERS frame: type 1 on stream 1.
        while !seen.windows(6).any(|part: &[u8]| part[0] == 1 && part[2..6] == [0, 0, 0, 1]) {
            let mut part = [0; 4096];
            let n = stream.read(&mut part).await.unwrap();
            seen.extend_from_slice(&part[..n]);
        }
        let head = [&[0, 0, 5, 1, 4, 0, 0, 0, 1][..], &[0x08, 3], b"101"].concat();
        stream.write_all(&head).await.unwrap();
        let _ = stream.read_to_end(&mut seen).await;
    });
    let origin = Origin::h2c("unused").await;
    let mut config = crate::bed::to_h2(&[&origin]);
    config.clusters[0].discovery = cluster_at("a", &[address]).discovery;
    let bed = Bed::start(config);
    let response = within("the answer", get(bed.address, "h", "/")).await;
    assert_eq!(response.status, 502, "{}", response.text());
}

/// Reads HTTP/2 frames until one of this type; returns its payload.
async fn frame(stream: &mut TcpStream, kind: u8) -> Vec<u8> {
    let read = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.unwrap();
            if head[3] == kind {
                return payload;
            }
        }
    };
    within("a frame", read).await
}

#[tokio::test]
async fn stream_that_races_with_the_end_of_an_idle_h2_connection_is_served() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).idle_timeout = Some(Duration::from_millis(60));
    manager(&mut config).drain_timeout = Duration::from_secs(5);
    let bed = Bed::start(config);
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    stream.write_all(&hello).await.unwrap();
    const GOAWAY: u8 = 7;
    assert_eq!(
        frame(&mut stream, GOAWAY).await[..4],
        [0x7f, 0xff, 0xff, 0xff],
        "every stream is welcome yet"
    );
    // GET http://h/ as a client sends it that has not seen the GOAWAY.
    let block = Bytes::from_static(&[0x82, 0x86, 0x84, 0x41, 1, b'h']);
    stream.write_all(&[&[0, 0, 6, 1, 5, 0, 0, 0, 1][..], &block].concat()).await.unwrap();
    const DATA: u8 = 0;
    assert_eq!(frame(&mut stream, DATA).await, b"OK");
    assert_eq!(bed.http_stat(|stats| stats.downstream_cx_idle_timeout.value()), 1);
}
