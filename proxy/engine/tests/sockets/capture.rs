//! How connections come in that were not going to us: PROXY headers, first bytes, destinations as hosts. Redirection itself
//! needs privileges; `cargo xtask peers capture` has it.

use crate::bed::*;
use outrigger_engine::listener::proxy_header;
use outrigger_engine::proxy::ProxyHandle;
use outrigger_engine::telemetry::ListenerFilterStats;
use outrigger_testkit::Origin;
use outrigger_traffic::config::{
    Cluster, ClusterDiscovery, Config, DnsDomain, DnsServer, FilterChain, FilterChainMatch, ForwardProxy,
    Listener, OriginalDst, PortPredicate, ProxyProtocol, ProxyProtocolVersion,
};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn filter_count(proxy: &ProxyHandle, pick: impl Fn(&ListenerFilterStats) -> u64) -> u64 {
    proxy.shared().listener_filters.total(pick)
}

/// A listener with PROXY protocol that passes everything on to where it was going.
fn passing(rules: ProxyProtocol, original: OriginalDst) -> Config {
    let mut listener = listener(vec![chain(tcp_to("passthrough"), None)]);
    listener.proxy_protocol = Some(rules);
    config(listener, vec![Cluster::new("passthrough", ClusterDiscovery::OriginalDst(original))])
}

fn client() -> SocketAddr {
    "192.0.2.7:4711".parse().unwrap()
}

async fn after_header(proxy: &ProxyHandle, header: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address(proxy)).await.unwrap();
    stream.write_all(header).await.unwrap();
    stream
}

#[tokio::test]
async fn connection_goes_where_its_header_says() {
    let (a, b) = (Origin::tcp_echo("a").await, Origin::tcp_echo("b").await);
    let proxy = start(passing(ProxyProtocol::default(), OriginalDst::default()));
    for version in [ProxyProtocolVersion::V1, ProxyProtocolVersion::V2] {
        for origin in [&a, &b] {
            let header = proxy_header::write(version, Some((client(), origin.address())));
            let mut stream = after_header(&proxy, &header).await;
            echo(&mut stream, b"hello").await.unwrap();
        }
    }
    assert_eq!(filter_count(&proxy, |s| s.proxy_v1_found.value()), 2);
    assert_eq!(filter_count(&proxy, |s| s.proxy_v2_found.value()), 2);
    let live = proxy.shared().live.load();
    let id = live.snapshot.cluster_named("passthrough").unwrap();
    let mut hosts: Vec<_> =
        live.cluster(id).unwrap().cluster.hosts().hosts().iter().map(|h| h.address).collect();
    let mut expected = vec![a.address(), b.address()];
    hosts.sort();
    expected.sort();
    assert_eq!(hosts, expected);
}

#[tokio::test]
async fn connection_without_a_destination_is_closed() {
    let proxy =
        start(passing(ProxyProtocol { allow_without: true, ..Default::default() }, OriginalDst::default()));
    for header in [&b"PROXY UNKNOWN\r\nhello"[..], b"hello"] {
        let mut stream = after_header(&proxy, header).await;
        assert!(until_closed(&mut stream).await.is_empty());
    }
    assert_eq!(cluster_count(&proxy, "passthrough", |s| s.original_dst_host_invalid.value()), 2);
    assert_eq!(filter_count(&proxy, |s| s.proxy_not_found_allowed.value()), 1);
}

#[tokio::test]
async fn unwanted_headers_are_refused_and_counted() {
    let origin = Origin::tcp_echo("a").await;
    let header = |version| proxy_header::write(version, Some((client(), origin.address())));
    type Pick = fn(&ListenerFilterStats) -> u64;
    let only = |v1, v2| ProxyProtocol { disallow_v1: v1, disallow_v2: v2, ..ProxyProtocol::default() };
    let table: [(ProxyProtocol, Vec<u8>, Pick); 5] = [
        (only(false, false), b"GET / HTTP/1.1\r\n".to_vec(), |s| s.proxy_not_found_disallowed.value()),
        (only(true, false), header(ProxyProtocolVersion::V1), |s| s.proxy_v1_disallowed.value()),
        (only(false, true), header(ProxyProtocolVersion::V2), |s| s.proxy_v2_disallowed.value()),
        (only(false, false), b"PROXY TCP9 a b\r\n".to_vec(), |s| s.proxy_v1_error.value()),
        (only(false, false), b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0".to_vec(), |s| s.proxy_v2_error.value()),
    ];
    for (rules, bytes, pick) in table {
        let proxy = start(passing(rules.clone(), OriginalDst::default()));
        let mut stream = after_header(&proxy, &bytes).await;
        assert!(until_closed(&mut stream).await.is_empty());
        assert_eq!(filter_count(&proxy, pick), 1, "{rules:?}");
        assert_eq!(listener_count(&proxy, |s| s.downstream_listener_filter_error.value()), 1);
    }
}

#[tokio::test]
async fn half_a_header_is_not_taken_for_a_silent_client() {
    let greeting = greeter("hello").await;
    let mut config = simple(greeting, |_| {});
    config.listeners[0].proxy_protocol = Some(ProxyProtocol { allow_without: true, ..Default::default() });
    config.listeners[0].listener_filters_timeout = Some(Duration::from_millis(60));
    config.listeners[0].continue_on_listener_filters_timeout = true;
    let proxy = start(config.clone());
    let mut silent = TcpStream::connect(address(&proxy)).await.unwrap();
    assert_eq!(until_closed(&mut silent).await, b"hello");
    let mut half = after_header(&proxy, b"PROXY TCP4 1.2").await;
    assert!(until_closed(&mut half).await.is_empty());
    assert_eq!(listener_count(&proxy, |s| s.downstream_pre_cx_timeout.value()), 2);
    // Where a header is a must, silence is none.
    config.listeners[0].proxy_protocol = Some(ProxyProtocol::default());
    let proxy = start(config);
    let mut silent = TcpStream::connect(address(&proxy)).await.unwrap();
    assert!(until_closed(&mut silent).await.is_empty());
}

/// Chains by destination and source.
fn matched(name: &str, matches: FilterChainMatch) -> FilterChain {
    FilterChain { name: name.into(), matches, ..chain(tcp_to(name), None) }
}

#[tokio::test]
async fn chains_match_the_destination_and_source_that_the_header_says() {
    let (a, b, c) = (greeter("a").await, greeter("b").await, greeter("c").await);
    let port = FilterChainMatch { destination_port: Some(8080), ..Default::default() };
    let range = FilterChainMatch { prefix_ranges: vec![([10, 1, 0, 0].into(), 16)], ..Default::default() };
    let source =
        FilterChainMatch { source_prefix_ranges: vec![([192, 0, 2, 0].into(), 24)], ..Default::default() };
    let mut listener = listener(vec![matched("a", port), matched("b", range), matched("c", source)]);
    listener.proxy_protocol = Some(ProxyProtocol::default());
    let clusters = [("a", a), ("b", b), ("c", c)].map(|(name, at)| cluster(name, &[at]));
    let proxy = start(config(listener, clusters.to_vec()));
    let other = "203.0.113.1:99";
    for (from, to, expected) in [
        (other, "10.1.2.3:8080", "a"),
        (other, "10.1.2.3:80", "b"),
        ("192.0.2.200:1", "10.2.0.1:80", "c"),
        (other, "10.2.0.1:80", ""),
    ] {
        let addresses = Some((from.parse().unwrap(), to.parse().unwrap()));
        let mut stream =
            after_header(&proxy, &proxy_header::write(ProxyProtocolVersion::V2, addresses)).await;
        assert_eq!(until_closed(&mut stream).await, expected.as_bytes(), "{from} {to}");
    }
}

/// Chains for HTTP/1, HTTP/2 and the rest.
async fn sniffing() -> Config {
    let protocols = |name: &str, list: &[&str]| {
        let application_protocols = list.iter().map(|p| (*p).to_owned()).collect();
        matched(name, FilterChainMatch { application_protocols, ..Default::default() })
    };
    let mut listener = listener(vec![protocols("h1", &["http/1.0", "http/1.1"]), protocols("h2", &["h2c"])]);
    listener.default_filter_chain = Some(FilterChain { name: "tcp".into(), ..chain(tcp_to("tcp"), None) });
    listener.http_inspector = true;
    listener.listener_filters_timeout = Some(Duration::from_millis(80));
    listener.continue_on_listener_filters_timeout = true;
    let mut clusters = Vec::new();
    for name in ["h1", "h2", "tcp"] {
        clusters.push(cluster(name, &[greeter(name).await]));
    }
    config(listener, clusters)
}

#[tokio::test]
async fn first_bytes_choose_the_chain_and_silence_is_opaque() {
    let proxy = start(sniffing().await);
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n"[..], "h1"),
        (b"POST /x HTTP/1.0\r\n", "h1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "h2"),
        (b"*1\r\n$4\r\nPING\r\n", "tcp"),
        (b"\x16\x02\x03", "tcp"),
        (b"", "tcp"),
        (b"GET /unfinished", "tcp"),
    ] {
        let mut stream = after_header(&proxy, bytes).await;
        assert_eq!(until_closed(&mut stream).await, expected.as_bytes(), "{bytes:?}");
    }
    assert_eq!(filter_count(&proxy, |s| s.http11_found.value()), 1);
    assert_eq!(filter_count(&proxy, |s| s.http10_found.value()), 1);
    assert_eq!(filter_count(&proxy, |s| s.http2_found.value()), 1);
    assert_eq!(filter_count(&proxy, |s| s.http_not_found.value()), 2);
    assert_eq!(listener_count(&proxy, |s| s.downstream_pre_cx_timeout.value()), 2);
    assert_eq!(listener_count(&proxy, |s| s.downstream_pre_cx_active.value()), 0);
}

#[tokio::test]
async fn declared_ports_are_not_looked_at() {
    let mut config = sniffing().await;
    let all = Some(PortPredicate::Any);
    config.listeners[0].http_inspector_disabled = all.clone();
    config.listeners[0].tls_inspector_disabled = all;
    // Waiting would show: there is no end to it.
    config.listeners[0].listener_filters_timeout = None;
    let proxy = start(config);
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n"] {
        let mut stream = after_header(&proxy, bytes).await;
        assert_eq!(until_closed(&mut stream).await, b"tcp");
    }
}

#[tokio::test]
async fn bytes_that_were_looked_at_reach_the_host() {
    let origin = Origin::tcp_echo("a").await;
    let mut config = simple(origin.address(), |_| {});
    config.listeners[0].http_inspector = true;
    config.listeners[0].proxy_protocol = Some(ProxyProtocol::default());
    let proxy = start(config);
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let header = proxy_header::write(ProxyProtocolVersion::V2, Some((client(), origin.address())));
    let sent = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
    for piece in sent.chunks(3) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut back = [0; 18];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"GET / HTTP/1.1\r\n\r\n");
}

#[tokio::test]
async fn host_is_told_of_the_client() {
    let listening = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listening.local_addr().unwrap();
    for version in [ProxyProtocolVersion::V1, ProxyProtocolVersion::V2] {
        let mut config = simple(origin, |_| {});
        config.clusters[0].proxy_protocol = Some(version);
        config.clusters[0].source_address = Some("127.0.0.9:0".parse().unwrap());
        let proxy = start(config);
        let mut stream = after_header(&proxy, b"body").await;
        let expected = proxy_header::write(version, Some((stream.local_addr().unwrap(), address(&proxy))));
        let (mut host, from) = listening.accept().await.unwrap();
        assert_eq!(from.ip(), std::net::IpAddr::from([127, 0, 0, 9]));
        let mut got = vec![0; expected.len() + 4];
        host.read_exact(&mut got).await.unwrap();
        assert_eq!(got, [&expected[..], b"body"].concat());
        host.shutdown().await.unwrap();
        stream.shutdown().await.unwrap();
        until_closed(&mut stream).await;
    }
}

/// A forward proxy in front of a table of names, a listener of its own for one of them, and pass-through.
async fn forward_proxy(change: impl FnOnce(&mut ForwardProxy)) -> ProxyHandle {
    let mesh = greeter("mesh").await;
    let mut front = listener(vec![chain(tcp_to("passthrough"), None)]);
    let mut rules = ForwardProxy { names_of: "dns".into(), ..ForwardProxy::default() };
    change(&mut rules);
    front.forward_proxy = Some(rules);
    let mut behind = Listener::new("behind", "240.240.0.1:80".parse().unwrap());
    behind.bind_to_port = false;
    behind.filter_chains = vec![chain(tcp_to("mesh"), None)];
    let mut dns = Listener::new("dns", "127.0.0.1:0".parse().unwrap());
    let domain = DnsDomain {
        name: "b.demo.mesh".into(),
        addresses: vec!["240.240.0.1".parse().unwrap()],
        ttl: Duration::from_secs(30),
    };
    dns.dns = Some(Box::new(DnsServer { stat_prefix: "t".into(), domains: vec![domain], forward: None }));
    start(Config {
        listeners: vec![front, behind, dns],
        clusters: vec![
            cluster("mesh", &[mesh]),
            Cluster::new("passthrough", ClusterDiscovery::OriginalDst(OriginalDst::default())),
        ],
        ..Config::default()
    })
}

fn socks(name: &str, port: u16) -> Vec<u8> {
    let mut out = vec![5, 1, 0, 5, 1, 0, 3, name.len() as u8];
    out.extend(name.as_bytes());
    out.extend(port.to_be_bytes());
    out
}

#[tokio::test]
async fn named_destination_is_reached_through_its_listener() {
    let proxy = forward_proxy(|_| {}).await;
    let ok = "HTTP/1.1 200 Connection Established\r\n\r\n";
    let mut stream = after_header(&proxy, b"CONNECT b.demo.mesh:80 HTTP/1.1\r\nhost: b\r\n\r\n").await;
    assert_eq!(until_closed(&mut stream).await, format!("{ok}mesh").as_bytes());
    let mut stream = after_header(&proxy, &socks("B.demo.mesh", 80)).await;
    assert_eq!(until_closed(&mut stream).await, b"\x05\0\x05\0\0\x01\0\0\0\0\0\0mesh");
    assert_eq!(filter_count(&proxy, |s| s.forward_proxy_connect.value()), 1);
    assert_eq!(filter_count(&proxy, |s| s.forward_proxy_socks5.value()), 1);
    let live = proxy.shared().live.load();
    assert_eq!(live.listeners["behind"].stats.total(|s| s.downstream_cx_total.value()), 2);
}

#[tokio::test]
async fn other_named_destinations_are_reached_as_they_are_where_allowed() {
    let elsewhere = Origin::tcp_echo("elsewhere").await;
    let port = elsewhere.address().port();
    let proxy = forward_proxy(|_| {}).await;
    for host in ["127.0.0.1", "localhost"] {
        // The bytes behind the head are the tunnel's.
        let mut stream =
            after_header(&proxy, format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\nhello").as_bytes()).await;
        let mut got = vec![0; 39 + 5];
        stream.read_exact(&mut got).await.unwrap();
        assert!(got.ends_with(b"\r\n\r\nhello"), "{}", String::from_utf8_lossy(&got));
    }
    let proxy = forward_proxy(|rules| rules.allow_unknown = false).await;
    let refused = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n");
    let mut stream = after_header(&proxy, refused.as_bytes()).await;
    assert!(until_closed(&mut stream).await.starts_with(b"HTTP/1.1 403 "));
    let mut stream = after_header(&proxy, &socks("localhost", port)).await;
    assert_eq!(until_closed(&mut stream).await, b"\x05\0\x05\x02\0\x01\0\0\0\0\0\0");
    let mut stream = after_header(&proxy, b"CONNECT b.demo.mesh:80 HTTP/1.1\r\n\r\n").await;
    assert!(until_closed(&mut stream).await.ends_with(b"mesh"));
    assert_eq!(filter_count(&proxy, |s| s.forward_proxy_refused.value()), 2);
}

#[tokio::test]
async fn malformed_and_switched_off_requests_are_not_served() {
    let proxy = forward_proxy(|_| {}).await;
    let mut stream = after_header(&proxy, b"CONNECT nowhere HTTP/1.1\r\n\r\n").await;
    assert!(until_closed(&mut stream).await.starts_with(b"HTTP/1.1 400 "));
    let mut stream = after_header(&proxy, &[5, 1, 2]).await;
    assert_eq!(until_closed(&mut stream).await, b"\x05\xff");
    // What is left to the chains has no destination, and the chain here passes on.
    let proxy = forward_proxy(|rules| rules.socks5 = false).await;
    let mut stream = after_header(&proxy, &[5, 1, 0]).await;
    assert!(until_closed(&mut stream).await.is_empty());
    assert_eq!(cluster_count(&proxy, "passthrough", |s| s.original_dst_host_invalid.value()), 1);
}
