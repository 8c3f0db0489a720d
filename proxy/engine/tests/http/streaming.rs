//! Both directions at once: bidirectional streams, answers that come before the request has ended, deadlines of gRPC.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use outrigger_testkit::{Origin, within};
use outrigger_traffic::config::HttpUpstream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bed::{Bed, action, cluster_at, to, to_h2};

/// Answers at once and sends every piece back when it comes, then trailers.
async fn talker() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut server = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = server.accept().await {
                    tokio::spawn(async move {
                        let head = Response::builder().header("content-type", "application/grpc");
                        let mut out = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        let mut body = request.into_body();
                        while let Some(Ok(piece)) = body.data().await {
                            body.flow_control().release_capacity(piece.len()).unwrap();
                            out.send_data(piece, false).unwrap();
                        }
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        out.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    address
}

async fn h2(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send.ready().await.unwrap()
}

async fn towards(address: SocketAddr) -> Bed {
    let unused = Origin::h1("unused").await;
    let mut config = to_h2(&[&unused]);
    config.clusters[0] = cluster_at("a", &[address]);
    config.clusters[0].http.protocol = HttpUpstream::Http2;
    Bed::start(config)
}

async fn converse(address: SocketAddr) {
    let mut send = h2(address).await;
    let request = Request::post("http://h/talk").header("content-type", "application/grpc");
    let request = request.header("te", "trailers").body(()).unwrap();
    let (response, mut out) = send.send_request(request, false).unwrap();
    let mut body = response.await.unwrap().into_body();
    for round in 0..50_usize {
        // Each piece waits for the answer to the one before: nothing may be held back for more.
        let piece = vec![round as u8; 1 + round * 400];
        out.send_data(Bytes::from(piece.clone()), false).unwrap();
        let mut back = Vec::new();
        while back.len() < piece.len() {
            let data = body.data().await.unwrap().unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            back.extend_from_slice(&data);
        }
        assert_eq!(back, piece);
    }
    out.send_data(Bytes::new(), true).unwrap();
    assert!(body.data().await.is_none());
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
}

#[tokio::test]
async fn bidirectional_stream_passes_one_proxy_and_two() {
    let inner = towards(talker().await).await;
    within("the conversation", converse(inner.address)).await;
    let outer = towards(inner.address).await;
    within("the conversation through two", converse(outer.address)).await;
}

/// Reads a request head, answers 413 and reads nothing more.
async fn impatient_h1() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer =
                b"HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: 4\r\n\r\nmuch";
            stream.write_all(answer).await.unwrap();
            // Not closed: the proxy must not depend on that to stop sending.
            open.push(stream);
        }
    });
    address
}

/// As above over HTTP/2, resetting the request when it has answered (RFC 9113 §8.1).
async fn impatient_h2() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut server = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_request, mut respond))) = server.accept().await {
                    let head = Response::builder().status(413).body(()).unwrap();
                    let mut out = respond.send_response(head, false).unwrap();
                    out.send_data(Bytes::from_static(b"much"), true).unwrap();
                }
            });
        }
    });
    address
}

const UPLOAD: usize = 64 << 20;

#[tokio::test]
async fn answer_to_an_unfinished_upload_arrives_over_h1() {
    for h2_host in [false, true] {
        let host = if h2_host { impatient_h2().await } else { impatient_h1().await };
        let mut bed = towards(host).await;
        bed.change(|config| {
            config.clusters[0].http.protocol =
                if h2_host { HttpUpstream::Http2 } else { HttpUpstream::Http1 };
        });
        let stream = TcpStream::connect(bed.address).await.unwrap();
        let (mut from, mut into) = stream.into_split();
        let upload = tokio::spawn(async move {
            let head = format!("POST /up HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", u64::MAX >> 8);
            let piece = vec![0; 64 * 1024];
            into.write_all(head.as_bytes()).await.unwrap();
            while into.write_all(&piece).await.is_ok() {}
        });
        let mut answer = Vec::new();
        within("the answer", async {
            while !answer.ends_with(b"much") {
                answer.push(from.read_u8().await.unwrap());
            }
        })
        .await;
        assert!(answer.starts_with(b"HTTP/1.1 413 "), "{:?}", String::from_utf8_lossy(&answer));
        // The client is not left sending for ever: the connection ends under it.
        within("the upload to end", upload).await.unwrap();
    }
}

#[tokio::test]
async fn answer_to_an_unfinished_upload_arrives_over_h2_and_others_go_on() {
    for h2_host in [false, true] {
        let host = if h2_host { impatient_h2().await } else { impatient_h1().await };
        let mut bed = towards(host).await;
        bed.change(|config| {
            config.clusters[0].http.protocol =
                if h2_host { HttpUpstream::Http2 } else { HttpUpstream::Http1 };
        });
        let mut send = h2(bed.address).await;
        for _ in 0..2 {
            let request = Request::post("http://h/up").body(()).unwrap();
            let (response, mut out) = send.send_request(request, false).unwrap();
            // More than the windows let through: most of it can never be sent.
            out.send_data(Bytes::from(vec![0; UPLOAD]), false).unwrap();
            let response = within("the answer", response).await.unwrap();
            assert_eq!(response.status(), 413);
            let mut body = response.into_body();
            assert_eq!(within("the body", body.data()).await.unwrap().unwrap(), "much");
        }
    }
}

#[tokio::test]
async fn deadline_of_grpc_is_honoured_where_the_route_allows() {
    let origin = Origin::h2c("two").await;
    let mut config = to_h2(&[&origin]);
    action(&mut config, 0).grpc_timeout_header_max = Some(Duration::from_millis(80));
    let bed = Bed::start(config);
    let client = bed.h2().await;
    for asked in ["50m", "1H"] {
        let request = Request::post("http://h/hang")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", asked)
            .body(Bytes::new())
            .unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!((response.status, response.field("grpc-status")), (200, Some("4")), "{asked}");
    }
    assert_eq!(bed.cluster_stat("a", |stats| stats.upstream_rq_timeout.value()), 2);
    let plain = Origin::h1("one").await;
    let bed = Bed::start(to(&[&plain]));
    let mut client = bed.h1().await;
    let fields = [("host", "h"), ("grpc-timeout", "1m")];
    let response = client.request("GET", "/delay/50", &fields, b"").await.unwrap();
    assert_eq!(response.status, 200, "not gRPC");
}
