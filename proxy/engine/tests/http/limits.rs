//! Limits: at them and one past.

use std::time::Duration;

use outrigger_testkit::Origin;
use outrigger_testkit::client::{get, send_raw};

use crate::bed::{Bed, action, manager, to};

#[tokio::test]
async fn head_at_the_limit_passes_and_one_byte_past_is_431() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).max_request_headers_kb = 4;
    let bed = Bed::start(config);
    let frame = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-fill: \r\n\r\n".len();
    for (size, status) in [(4096, "200"), (4097, "431")] {
        let fill = "f".repeat(size - frame);
        let raw = format!("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-fill: {fill}\r\n\r\n");
        assert_eq!(raw.len(), size);
        let answer = send_raw(bed.address, raw.as_bytes()).await;
        assert!(
            answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()),
            "{size}: {:?}",
            String::from_utf8_lossy(&answer)
        );
    }
}

#[tokio::test]
async fn fields_at_the_limit_pass_and_one_past_is_431() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    for (count, status) in [(99, "200"), (100, "431")] {
        let mut raw = String::from("GET / HTTP/1.1\r\nconnection: close\r\n");
        for i in 0..count - 1 {
            raw.push_str(&format!("x-{i}: v\r\n"));
        }
        raw.push_str("host: h\r\n\r\n");
        let answer = send_raw(bed.address, raw.as_bytes()).await;
        assert!(
            answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()),
            "{count}: {:?}",
            String::from_utf8_lossy(&answer)
        );
    }
}

#[tokio::test]
async fn route_timeout_is_504() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    action(&mut config, 0).timeout = Some(Duration::from_millis(50));
    let bed = Bed::start(config);
    let response = get(bed.address, "h", "/hang").await;
    assert_eq!((response.status, response.text().as_str()), (504, "upstream request timeout"));
    assert_eq!(bed.cluster_stat("a", |stats| stats.upstream_rq_timeout.value()), 1);
    assert_eq!(get(bed.address, "h", "/").await.status, 200);
}

#[tokio::test]
async fn stream_idle_timeout_blames_the_slow_side() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).stream_idle_timeout = Some(Duration::from_millis(60));
    action(&mut config, 0).timeout = None;
    let bed = Bed::start(config);
    assert_eq!(get(bed.address, "h", "/hang").await.status, 504);
    let mut client = bed.h1().await;
    client.send(b"POST /body HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nab").await.unwrap();
    assert_eq!(client.response("POST").await.unwrap().status, 408);
    let response = get(bed.address, "h", "/slow/5/30").await;
    assert_eq!((response.status, response.text().len()), (200, 25), "what moves is not idle");
}

#[tokio::test]
async fn head_that_never_ends_is_408() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).request_headers_timeout = Some(Duration::from_millis(50));
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    client.send(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    assert_eq!(client.response("GET").await.unwrap().status, 408);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn idle_connection_is_closed() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).idle_timeout = Some(Duration::from_millis(50));
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    assert_eq!(client.request("GET", "/", &[("host", "h")], b"").await.unwrap().status, 200);
    assert!(client.is_closed().await);
    assert_eq!(
        bed.http_stat(|stats| stats.downstream_cx_idle_timeout.value()),
        1,
        "counted before it is closed"
    );
}

#[tokio::test]
async fn connection_ends_after_its_last_request() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).max_requests_per_connection = Some(2);
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    let first = client.request("GET", "/", &[("host", "h")], b"").await.unwrap();
    let second = client.request("GET", "/", &[("host", "h")], b"").await.unwrap();
    assert_eq!((first.field("connection"), second.field("connection")), (None, Some("close")));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn requests_at_the_breakers_limit_pass_and_one_past_is_503() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    config.clusters[0].circuit_breakers.default.max_requests = 1;
    let bed = Bed::start(config);
    let mut slow = bed.h1().await;
    slow.send(b"GET /delay/300 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    // The origin counts a request once it is read: from then on the one permit is taken.
    origin.wait_for_requests(1).await;
    let response = get(bed.address, "h", "/").await;
    assert_eq!((response.status, response.field("x-envoy-overloaded")), (503, Some("true")));
    assert_eq!(slow.response("GET").await.unwrap().status, 200);
    assert_eq!(get(bed.address, "h", "/").await.status, 200);
}

#[tokio::test]
async fn request_above_the_connection_limit_waits_for_a_connection() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    config.clusters[0].circuit_breakers.default.max_connections = 1;
    let bed = Bed::start(config);
    let mut slow = bed.h1().await;
    slow.send(b"GET /delay/100 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    origin.wait_for_requests(1).await;
    assert_eq!(get(bed.address, "h", "/").await.status, 200);
    assert_eq!(slow.response("GET").await.unwrap().status, 200);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn no_host_is_503() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    config.clusters[0] = crate::bed::cluster_at("a", &[]);
    let bed = Bed::start(config);
    let response = get(bed.address, "h", "/").await;
    assert_eq!((response.status, response.text().as_str()), (503, "no healthy upstream"));
}
