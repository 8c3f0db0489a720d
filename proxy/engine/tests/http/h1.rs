//! HTTP/1.1 in, HTTP/1.1 out.

use outrigger_testkit::client::{get, send_raw};
use outrigger_testkit::{H1Client, Origin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bed::{Bed, eventually, manager, to};

#[tokio::test]
async fn get_plain_is_answered_by_the_origin() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let response = get(bed.address, "h", "/bytes/1000").await;
    assert_eq!((response.status, response.body.len(), response.origin()), (200, 1000, "one"));
    assert_eq!(response.field("server"), Some("outrigger"));
    assert!(response.field("date").is_some());
    assert!(response.field("x-envoy-upstream-service-time").is_some());
}

#[tokio::test]
async fn kept_connection_carries_many_requests_over_one_upstream_connection() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let mut client = bed.h1().await;
    for i in 0..50 {
        let response = client.request("GET", &format!("/bytes/{i}"), &[("host", "h")], b"").await.unwrap();
        assert_eq!((response.status, response.body.len()), (200, i));
    }
    assert_eq!((origin.connections(), origin.requests()), (1, 50));
    eventually("the last request to be counted", || {
        bed.http_stat(|stats| stats.downstream_rq_2xx.value()) == 50
    })
    .await;
    assert_eq!(bed.cluster_stat("a", |stats| stats.upstream_rq_total.value()), 50);
}

#[tokio::test]
async fn bodies_of_every_framing_arrive_whole() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let mut client = bed.h1().await;
    for size in [0, 1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 1 << 20] {
        let body = vec![b'b'; size];
        let response = client.request("POST", "/body", &[("host", "h")], &body).await.unwrap();
        assert_eq!((response.status, response.body == body), (200, true), "length {size}");
        if size > 0 {
            let mut chunked = format!("{size:x}\r\n").into_bytes();
            chunked.extend_from_slice(&body);
            chunked.extend_from_slice(b"\r\n0\r\n\r\n");
            let fields = [("host", "h"), ("transfer-encoding", "chunked")];
            let response = client.request("POST", "/body", &fields, &chunked).await.unwrap();
            assert_eq!((response.status, response.body == body), (200, true), "chunked {size}");
        }
    }
    for path in ["/chunked/0", "/chunked/1", "/chunked/1000"] {
        let response = client.request("GET", path, &[("host", "h")], b"").await.unwrap();
        assert_eq!(response.status, 200, "{path}");
    }
    assert!(origin.malformed().is_empty(), "{:?}", origin.malformed());
}

#[tokio::test]
async fn responses_without_body_keep_the_connection() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let mut client = bed.h1().await;
    for (method, path, status) in [
        ("HEAD", "/bytes/10", 200),
        ("GET", "/status/204", 204),
        ("GET", "/status/304", 304),
        ("GET", "/", 200),
    ] {
        let response = client.request(method, path, &[("host", "h")], b"").await.unwrap();
        assert_eq!(response.status, status, "{method} {path}");
        if method == "HEAD" {
            assert_eq!(response.field("content-length"), Some("10"));
        }
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let mut client = bed.h1().await;
    client
        .send(
            b"GET /delay/50 HTTP/1.1\r\nhost: h\r\n\r\nPOST /body HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc\
              GET /bytes/7 HTTP/1.1\r\nhost: h\r\n\r\n",
        )
        .await
        .unwrap();
    assert_eq!(client.response("GET").await.unwrap().text(), "late");
    assert_eq!(client.response("POST").await.unwrap().text(), "abc");
    assert_eq!(client.response("GET").await.unwrap().text(), "xxxxxxx");
}

#[tokio::test]
async fn malformed_requests_are_answered_and_the_connection_closed() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    for (raw, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "400"),
        (
            b"GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (b"GET / HTTP/1.1\r\nhost: h\r\nbad name: x\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip\r\n\r\n", "501"),
        (b"GET / HTTP/3.1\r\nhost: h\r\n\r\n", "505"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "400"),
    ] {
        let answer = send_raw(bed.address, raw).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{raw:?}: {text}");
        assert!(text.contains("connection: close"), "{text}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn malformed_chunk_after_the_head_never_becomes_a_request() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let raw = b"POST /body HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nhost: h\r\n\r\n";
    let answer = send_raw(bed.address, raw).await;
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&answer));
    assert!(origin.seen().iter().all(|seen| seen.target != "/hidden"));
}

#[tokio::test]
async fn hop_by_hop_fields_stay_on_their_hop() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let fields = [
        ("host", "h"),
        ("connection", "x-private, keep-alive"),
        ("x-private", "1"),
        ("keep-alive", "5"),
        ("x-a", "b"),
    ];
    let mut client = bed.h1().await;
    client.request("GET", "/", &fields, b"").await.unwrap();
    let seen = &origin.seen()[0];
    assert_eq!(seen.field("x-a"), Some("b"));
    for gone in ["x-private", "keep-alive", "connection"] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
}

#[tokio::test]
async fn client_that_waits_for_continue_is_told_at_once_and_the_upstream_is_not() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    let head = b"POST /body HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut client = H1Client::over(stream);
    let response = client.response("POST").await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(origin.seen()[0].field("expect"), None);
}

#[tokio::test]
async fn http10_is_refused_unless_accepted() {
    let origin = Origin::h1("one").await;
    let mut bed = Bed::start(to(&[&origin]));
    let answer = send_raw(bed.address, b"GET /bytes/3 HTTP/1.0\r\nhost: h\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 426 "), "{:?}", String::from_utf8_lossy(&answer));
    bed.change(|config| manager(config).http1.accept_http_10 = true);
    let answer = send_raw(bed.address, b"GET /chunked/2 HTTP/1.0\r\nhost: h\r\n\r\n").await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\nchunkchunk"), "{text}");
    assert!(!text.contains("transfer-encoding"), "{text}");
}

#[tokio::test]
async fn client_that_closes_its_half_while_it_waits_is_taken_for_gone() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    stream.write_all(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    outrigger_testkit::within("the end", stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "");
    assert_eq!(bed.http_stat(|stats| stats.downstream_rq_rx_reset.value()), 1);
}

#[tokio::test]
async fn truncated_response_is_not_passed_off_as_whole() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let mut client = bed.h1().await;
    assert!(client.request("GET", "/abort", &[("host", "h")], b"").await.is_err());
}

#[tokio::test]
async fn trailers_travel_only_where_enabled() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    let mut bed = Bed::start(config.clone());
    let response = get(bed.address, "h", "/trailers").await;
    assert_eq!((response.status, response.trailer("x-check")), (200, None));
    manager(&mut config).http1.enable_trailers = true;
    config.clusters[0].http.http1.enable_trailers = true;
    bed.change(|old| *old = config);
    let response = get(bed.address, "h", "/trailers").await;
    assert_eq!(response.trailer("x-check"), Some("done"));
}
