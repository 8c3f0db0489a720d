//! Connections that a TCP proxy carries in requests (`tunneling_config`), to a proxy that takes the bytes out again
//! (`connect_config`).

use crate::bed::*;
use outrigger_engine::proxy::ProxyHandle;
use outrigger_testkit::Origin;
use outrigger_traffic::config::{
    Action, Config, FilterChain, HeaderAppend, HeaderEdit, HeaderEdits, HttpConnectionManager, HttpUpstream,
    PathMatch, Route, RouteAction, RouteConfig, RouteMatch, RouteSource, Terminal, Tunnel, Upgrade,
    VirtualHost,
};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A proxy that ends CONNECT and POST at an echo.
fn far_end(echo: SocketAddr) -> Config {
    let mut action = RouteAction::to("echo");
    action.upgrades = vec![Upgrade { upgrade_type: "CONNECT".into(), enabled: true }];
    (action.connect_ends, action.post_ends) = (true, true);
    let post = Route {
        name: String::new(),
        matches: RouteMatch::prefix("/in"),
        action: Action::Forward(Box::new(action)),
        headers: HeaderEdits::default(),
        filters: None,
        per_request_buffer_limit_bytes: None,
        decorator: None,
        tracing: None,
    };
    let mut connect = post.clone();
    connect.matches.path = PathMatch::Connect;
    let host = VirtualHost {
        name: "all".into(),
        domains: vec!["echo.test:7".into()],
        routes: vec![connect, post],
        ..VirtualHost::default()
    };
    let table = RouteConfig { virtual_hosts: vec![host.into()], ..RouteConfig::default() };
    let mut manager = HttpConnectionManager::new("far", RouteSource::Inline(table));
    manager.http2.allow_connect = true;
    let plain = chain(tcp_to("echo"), None);
    let chain = FilterChain { terminal: Terminal::Http(Box::new(manager)), ..plain };
    config(listener(vec![chain]), vec![cluster("echo", &[echo])])
}

fn tunnel(post: bool) -> Tunnel {
    let header = |name: &str, value: &str| HeaderEdit {
        name: name.into(),
        value: value.into(),
        append: HeaderAppend::AppendIfExistsOrAdd,
        keep_empty_value: false,
    };
    Tunnel {
        hostname: "echo.test:7".into(),
        post_path: post.then(|| "/in".into()),
        headers: vec![header("x-from", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")],
    }
}

fn near_end(far: SocketAddr, protocol: HttpUpstream, tunnel: Tunnel) -> ProxyHandle {
    let mut config = simple(far, |tcp| tcp.tunnel = Some(Box::new(tunnel)));
    config.clusters[0].http.protocol = protocol;
    start(config)
}

#[tokio::test]
async fn bytes_are_carried_by_connect_and_post_over_both_protocols() {
    let origin = Origin::tcp_echo("echo").await;
    let far = start(far_end(origin.address()));
    for protocol in [HttpUpstream::Http1, HttpUpstream::Http2] {
        for post in [false, true] {
            let near = near_end(address(&far), protocol, tunnel(post));
            let mut stream = TcpStream::connect(address(&near)).await.unwrap();
            for size in [1, 100, 300_000, 1] {
                echo(&mut stream, &vec![size as u8; size]).await.unwrap();
            }
            stream.write_all(b"last words").await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(until_closed(&mut stream).await, b"last words", "{protocol:?} {post}");
            eventually("the connection to be over", || {
                cluster_count(&near, "a", |s| s.upstream_rq_active.value()) == 0
                    && tcp_count(&near, |s| s.downstream_cx_tx_bytes_total.value()) == 300_112
            })
            .await;
            assert_eq!(cluster_count(&near, "a", |s| s.upstream_rq_total.value()), 1);
            assert_eq!(cluster_count(&near, "a", |s| s.upstream_rq_2xx.value()), 1);
        }
    }
}

#[tokio::test]
async fn connections_share_an_http2_connection() {
    let origin = Origin::tcp_echo("echo").await;
    let far = start(far_end(origin.address()));
    let near = near_end(address(&far), HttpUpstream::Http2, tunnel(false));
    let mut open = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(address(&near)).await.unwrap();
        echo(&mut stream, b"hello").await.unwrap();
        open.push(stream);
    }
    // Each of the two workers has one at most.
    assert!(cluster_count(&near, "a", |s| s.upstream_cx_total.value()) <= 2);
    assert_eq!(cluster_count(&near, "a", |s| s.upstream_rq_active.value()), 6);
    drop(open);
    eventually("streams to end", || cluster_count(&near, "a", |s| s.upstream_rq_active.value()) == 0).await;
}

#[tokio::test]
async fn host_that_refuses_ends_the_connection() {
    let origin = Origin::tcp_echo("echo").await;
    let far = start(far_end(origin.address()));
    for protocol in [HttpUpstream::Http1, HttpUpstream::Http2] {
        let elsewhere = Tunnel { hostname: "other.test:7".into(), ..tunnel(false) };
        let near = near_end(address(&far), protocol, elsewhere);
        let mut stream = TcpStream::connect(address(&near)).await.unwrap();
        assert!(until_closed(&mut stream).await.is_empty());
        assert_eq!(cluster_count(&near, "a", |s| s.upstream_rq_4xx.value()), 1, "{protocol:?}");
        assert_eq!(cluster_count(&near, "a", |s| s.upstream_cx_connect_attempts_exceeded.value()), 1);
    }
}

#[tokio::test]
async fn host_that_never_answers_is_waited_for_no_longer_than_for_a_silent_one() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = simple(silent.local_addr().unwrap(), |tcp| {
        tcp.tunnel = Some(Box::new(tunnel(false)));
        tcp.idle_timeout = Some(Duration::from_millis(80));
    });
    config.clusters[0].http.protocol = HttpUpstream::Http1;
    let near = start(config);
    let mut stream = TcpStream::connect(address(&near)).await.unwrap();
    assert!(until_closed(&mut stream).await.is_empty());
}

#[tokio::test]
async fn request_says_what_is_configured_and_what_follows_the_answer_belongs_to_the_connection() {
    let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = near_end(host.local_addr().unwrap(), HttpUpstream::Http1, tunnel(false));
    let mut stream = TcpStream::connect(address(&near)).await.unwrap();
    let (mut far, _) = host.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(far.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("CONNECT echo.test:7 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: echo.test:7\r\n") && head.contains("x-from: 127.0.0.1\r\n"), "{head}");
    far.write_all(b"HTTP/1.1 200 fine\r\n\r\n220 ready").await.unwrap();
    let mut first = [0; 9];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"220 ready");
    // A host that breaks off is not one that has said all.
    socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    let end = stream.read(&mut first).await;
    assert!(end.is_err(), "{end:?}");
}
