//! Upstream connections: shared, negotiated, given up.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use outrigger_testkit::certs::{Authority, client_config, server_config};
use outrigger_testkit::client::{get, tls};
use outrigger_testkit::websocket::WebSocket;
use outrigger_testkit::{H1Client, H2Client, Origin};
use outrigger_traffic::config::{
    CertificateSource, DownstreamTls, HttpUpstream, TlsCertificate, TlsParams, Upgrade, UpstreamTls,
    ValidationContext, ValidationSource,
};

use crate::bed::{Bed, cluster, eventually, manager, to, to_h2};

fn upstream_tls(authority: &Authority) -> UpstreamTls {
    let context = ValidationContext { trusted_ca_pem: Some(authority.pem()), ..ValidationContext::default() };
    UpstreamTls {
        sni: "origin.test".into(),
        certificate: None,
        validation: Some(ValidationSource::Inline(context)),
        alpn: Vec::new(),
        params: TlsParams::default(),
        max_session_keys: 1,
    }
}

#[tokio::test]
async fn alpn_chooses_the_upstream_protocol() {
    let authority = Authority::new("test");
    let leaf = authority.leaf(&["origin.test"]);
    for (offered, version) in
        [(&["h2", "http/1.1"][..], "HTTP/2"), (&["http/1.1"], "HTTP/1.1"), (&[], "HTTP/1.1")]
    {
        let origin = Origin::tls("tls", server_config(&leaf, None, offered)).await;
        let mut config = to(&[&origin]);
        config.clusters[0].tls = Some(upstream_tls(&authority));
        config.clusters[0].http.protocol = HttpUpstream::Auto;
        let bed = Bed::start(config);
        for _ in 0..3 {
            let response = get(bed.address, "h", "/bytes/5").await;
            assert_eq!((response.status, response.body.len()), (200, 5), "{offered:?}");
        }
        assert!(origin.seen().iter().all(|seen| seen.version == version), "{offered:?}");
        assert_eq!(origin.connections(), 1, "{offered:?}");
    }
}

#[tokio::test]
async fn alpn_chooses_the_downstream_protocol() {
    let authority = Authority::new("test");
    let leaf = authority.leaf(&["edge.test"]);
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    let pair = TlsCertificate { chain_pem: leaf.cert_pem.clone(), key_pem: leaf.key_pem.clone() };
    config.listeners[0].filter_chains[0].tls = Some(DownstreamTls {
        certificates: vec![CertificateSource::Inline(pair)],
        validation: None,
        require_client_certificate: false,
        alpn: vec!["h2".into(), "http/1.1".into()],
        params: TlsParams::default(),
        disable_stateless_session_resumption: false,
    });
    let bed = Bed::start(config);
    let h2 = tls(bed.address, "edge.test", client_config(&authority, None, &["h2"])).await.unwrap();
    let body = Bytes::from(vec![b'u'; 100_000]);
    let request = Request::post("https://edge.test/body").body(body.clone()).unwrap();
    let response = H2Client::over(h2).await.request(request).await.unwrap();
    assert_eq!((response.status, response.body == body), (200, true));
    let h1 = tls(bed.address, "edge.test", client_config(&authority, None, &[])).await.unwrap();
    let mut client = H1Client::over(h1);
    for size in [0, 1, 100_000] {
        let response =
            client.request("POST", "/body", &[("host", "edge.test")], &vec![b'u'; size]).await.unwrap();
        assert_eq!((response.status, response.body.len()), (200, size));
    }
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| seen.field("x-forwarded-proto") == Some("https")));
}

#[tokio::test]
async fn stream_that_the_client_gives_up_is_given_up_upstream() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let client = bed.h2().await;
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.get("h", "/hang").await }
    });
    origin.wait_for_requests(1).await;
    assert_eq!(bed.cluster_stat("a", |stats| stats.upstream_cx_active.value()), 1);
    hanging.abort();
    // A hanging origin does not look at its socket; the proxy's books tell.
    eventually("the upstream connection to close", || {
        bed.cluster_stat("a", |stats| stats.upstream_cx_active.value()) == 0
    })
    .await;
    // The request is counted a moment after its connection.
    eventually("the reset to be counted", || {
        bed.http_stat(|stats| stats.downstream_rq_rx_reset.value()) == 1
    })
    .await;
    assert_eq!(client.get("h", "/").await.unwrap().status, 200, "the connection goes on");
}

#[tokio::test]
async fn connections_to_a_host_that_left_are_closed() {
    let (one, two) = (Origin::h1("one").await, Origin::h2c("two").await);
    for (first, h2) in [(&one, false), (&two, true)] {
        let other = if h2 { Origin::h2c("other").await } else { Origin::h1("other").await };
        let config = if h2 { to_h2(&[first]) } else { to(&[first]) };
        let mut bed = Bed::start(config);
        assert_eq!(get(bed.address, "h", "/").await.status, 200);
        assert_eq!(first.connections_open(), 1);
        bed.change(|config| {
            let http = config.clusters[0].http.clone();
            config.clusters[0] = cluster("a", &[&other]);
            config.clusters[0].http = http;
        });
        eventually("the old connection to close", || first.connections_open() == 0).await;
        assert_eq!(get(bed.address, "h", "/").await.origin(), "other");
    }
}

#[tokio::test]
async fn streams_beyond_the_peers_limit_take_another_connection() {
    let origin = Origin::h2c("two").await;
    let mut config = to_h2(&[&origin]);
    config.clusters[0].http.http2.max_concurrent_streams = 2;
    let bed = Bed::start(config);
    let client = Arc::new(bed.h2().await);
    let slow: Vec<_> = (0..5)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("h", "/delay/200").await.unwrap().status })
        })
        .collect();
    for one in slow {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!(origin.connections(), 3);
}

#[tokio::test]
async fn upgrade_speaks_http1_to_a_host_that_is_otherwise_spoken_to_in_http2() {
    let authority = Authority::new("test");
    let leaf = authority.leaf(&["origin.test"]);
    let origin = Origin::tls("tls", server_config(&leaf, None, &["h2", "http/1.1"])).await;
    let mut config = to_h2(&[&origin]);
    config.clusters[0].tls = Some(UpstreamTls { alpn: vec!["h2".into()], ..upstream_tls(&authority) });
    manager(&mut config).upgrades.push(Upgrade { upgrade_type: "websocket".into(), enabled: true });
    let bed = Bed::start(config);
    assert_eq!(get(bed.address, "h", "/").await.status, 200);
    let stream = tokio::net::TcpStream::connect(bed.address).await.unwrap();
    let mut socket = WebSocket::open(stream, "h", "/ws").await.unwrap();
    assert_eq!(socket.round_trip("hello").await.unwrap(), "hello");
    assert_eq!(origin.seen()[0].version, "HTTP/2");
}

#[tokio::test]
async fn request_on_a_host_that_left_ends_where_that_is_wanted_and_goes_on_otherwise() {
    for wanted in [false, true] {
        let (old, new) = (Origin::h1("old").await, Origin::h1("new").await);
        let mut config = to(&[&old]);
        config.clusters[0].close_connections_on_host_removal = wanted;
        crate::bed::action(&mut config, 0).timeout = None;
        let mut bed = Bed::start(config);
        let mut client = bed.h1().await;
        client.send(b"GET /delay/1200 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        old.wait_for_requests(1).await;
        bed.change(|config| config.clusters[0].discovery = cluster("a", &[&new]).discovery);
        let response = client.response("GET").await.unwrap();
        assert_eq!(response.status, if wanted { 503 } else { 200 });
        assert_eq!(get(bed.address, "h", "/").await.origin(), "new");
    }
}

/// INITIAL_WINDOW_SIZE in the first SETTINGS frame that a host is sent.
async fn window_offered(limit: u32) -> u32 {
    use tokio::io::AsyncReadExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = Origin::h1("unused").await;
    let mut config = to_h2(&[&host]);
    config.clusters[0] = crate::bed::cluster_at("a", &[listener.local_addr().unwrap()]);
    config.clusters[0].http.protocol = HttpUpstream::Http2;
    config.clusters[0].per_connection_buffer_limit_bytes = limit;
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = [0; 24 + 9];
    stream.read_exact(&mut head).await.unwrap();
    let mut settings = vec![0; usize::from(u16::from_be_bytes([head[25], head[26]]))];
    stream.read_exact(&mut settings).await.unwrap();
    let found = settings.chunks(6).find(|setting| setting[..2] == [0, 4]);
    found.map_or(65_535, |setting| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]))
}

#[tokio::test]
async fn buffer_limit_of_a_cluster_bounds_what_a_response_may_have_in_flight() {
    for (limit, window) in [(1, 65_535), (65_535, 65_535), (100_000, 100_000), (1 << 30, 16 << 20)] {
        assert_eq!(window_offered(limit).await, window, "{limit}");
    }
}

#[tokio::test]
async fn upgrade_does_not_decide_what_other_requests_speak() {
    let authority = Authority::new("test");
    let leaf = authority.leaf(&["origin.test"]);
    let origin = Origin::tls("tls", server_config(&leaf, None, &["h2", "http/1.1"])).await;
    let mut config = to(&[&origin]);
    config.clusters[0].http.protocol = HttpUpstream::Auto;
    config.clusters[0].tls =
        Some(UpstreamTls { alpn: vec!["h2".into(), "http/1.1".into()], ..upstream_tls(&authority) });
    manager(&mut config).upgrades.push(Upgrade { upgrade_type: "websocket".into(), enabled: true });
    let bed = Bed::start(config);
    let stream = tokio::net::TcpStream::connect(bed.address).await.unwrap();
    let mut socket = WebSocket::open(stream, "h", "/ws").await.unwrap();
    assert_eq!(socket.round_trip("hello").await.unwrap(), "hello");
    assert_eq!(get(bed.address, "h", "/").await.status, 200);
    assert_eq!(origin.seen().last().unwrap().version, "HTTP/2");
}
