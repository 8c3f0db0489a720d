//! CONNECT that ends at this proxy (`connect_config`): a host gets the bytes, not the request. And requests with a target in
//! absolute form, as clients of a forward proxy send them.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use outrigger_testkit::{Origin, within};
use outrigger_traffic::config::{Config, PathMatch, Upgrade};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bed::{Bed, action, cluster_at, eventually, host, manager, to};

fn ending(at: SocketAddr) -> Config {
    let mut config = to(&[]);
    config.clusters = vec![cluster_at("a", &[at])];
    manager(&mut config).http2.allow_connect = true;
    host(&mut config).routes[0].matches.path = PathMatch::Connect;
    let action = action(&mut config, 0);
    action.upgrades = vec![Upgrade { upgrade_type: "CONNECT".into(), enabled: true }];
    action.connect_ends = true;
    config
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    within("an answer", async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    })
    .await;
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn bytes_of_a_tunnel_over_http1_reach_the_host_as_they_are() {
    let origin = Origin::tcp_echo("a").await;
    let bed = Bed::start(ending(origin.address()));
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    // What comes with the request belongs to the tunnel.
    stream.write_all(b"CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\n\r\nearly ").await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
    stream.write_all(b"and late").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = String::new();
    within("the end", stream.read_to_string(&mut all)).await.unwrap();
    assert_eq!(all, "early and late");
    eventually("the connection to be over", || bed.cluster_stat("a", |s| s.upstream_cx_active.value()) == 0)
        .await;
    assert_eq!(bed.cluster_stat("a", |s| s.upstream_cx_total.value()), 1);
    assert_eq!(bed.http_stat(|s| s.downstream_cx_upgrades_total.value()), 1);
    assert_eq!(bed.http_stat(|s| s.downstream_cx_upgrades_active.value()), 0);
}

#[tokio::test]
async fn bytes_of_a_tunnel_over_http2_reach_the_host_as_they_are() {
    let origin = Origin::tcp_echo("a").await;
    let bed = Bed::start(ending(origin.address()));
    let stream = TcpStream::connect(bed.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let request = Request::builder().method(Method::CONNECT).uri("db.test:5432").body(()).unwrap();
    let (response, mut sink) = send.send_request(request, false).unwrap();
    let response = within("an answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    sink.send_data(Bytes::from_static(b"to and fro"), true).unwrap();
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(chunk) = within("data", body.data()).await {
        all.extend(chunk.unwrap());
    }
    assert_eq!(all, b"to and fro");
}

#[tokio::test]
async fn bytes_of_a_post_are_those_of_the_host_where_that_is_allowed() {
    let origin = Origin::tcp_echo("a").await;
    let mut config = ending(origin.address());
    host(&mut config).routes[0].matches.path = PathMatch::Prefix("/".into());
    action(&mut config, 0).post_ends = true;
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    let answer = client.request("POST", "/any", &[("host", "h")], b"to and fro").await.unwrap();
    assert_eq!((answer.status, &*answer.body), (200, &b"to and fro"[..]));
    // The next request of the connection is one like others.
    let again = client.request("POST", "/any", &[("host", "h")], b"again").await.unwrap();
    assert_eq!((again.status, &*again.body), (200, &b"again"[..]));
    let request = Request::post("http://h/any").body(Bytes::from_static(b"over http/2")).unwrap();
    let answer = bed.h2().await.request(request).await.unwrap();
    assert_eq!((answer.status, &*answer.body), (200, &b"over http/2"[..]));
    assert_eq!(bed.cluster_stat("a", |s| s.upstream_cx_total.value()), 3);
}

#[tokio::test]
async fn host_that_cannot_be_reached_is_told_before_the_tunnel_begins() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let bed = Bed::start(ending(nobody));
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    stream.write_all(b"CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\n\r\n").await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 503 "));
    assert_eq!(bed.cluster_stat("a", |s| s.upstream_cx_connect_fail.value()), 1);
}

#[tokio::test]
async fn tunnel_beyond_the_breaker_is_refused() {
    let origin = Origin::tcp_echo("a").await;
    let mut config = ending(origin.address());
    config.clusters[0].circuit_breakers.default.max_connections = 1;
    let bed = Bed::start(config);
    let connect = b"CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\n\r\n";
    let mut first = TcpStream::connect(bed.address).await.unwrap();
    first.write_all(connect).await.unwrap();
    assert!(answer(&mut first).await.starts_with("HTTP/1.1 200 "));
    let mut second = TcpStream::connect(bed.address).await.unwrap();
    second.write_all(connect).await.unwrap();
    assert!(answer(&mut second).await.starts_with("HTTP/1.1 503 "));
    drop(first);
    eventually("room", || bed.cluster_stat("a", |s| s.upstream_cx_active.value()) == 0).await;
    let mut third = TcpStream::connect(bed.address).await.unwrap();
    third.write_all(connect).await.unwrap();
    assert!(answer(&mut third).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn absolute_target_is_routed_by_its_host() {
    let origin = Origin::h1("a").await;
    let mut config = to(&[&origin]);
    host(&mut config).domains = vec!["b.demo.mesh".into()];
    let bed = Bed::start(config);
    for (target, host, status) in [
        ("http://b.demo.mesh/x?y", "b.demo.mesh", "200"),
        // The target goes before the field (RFC 9112 section 3.2.2).
        ("http://b.demo.mesh/x", "other.test", "200"),
        ("http://other.test/x", "b.demo.mesh", "404"),
    ] {
        let mut stream = TcpStream::connect(bed.address).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = answer(&mut stream).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {head}");
    }
}
