//! Two proxies with mutual TLS between them, as in a mesh.

use std::time::Duration;

use outrigger_testkit::certs::{Authority, Leaf};
use outrigger_testkit::{H1Client, Origin, within};
use outrigger_traffic::config::{
    CertificateSource, ClusterChoice, Config, DownstreamTls, HttpUpstream, RetryOn, RetryPolicy,
    TlsCertificate, TlsParams, TrafficDirection, UpstreamTls, ValidationContext, ValidationSource,
};

use crate::bed::{Bed, action, cluster, cluster_at, to};

const REQUESTS: usize = 10_000;
const CLIENTS: usize = 10;

fn pair(leaf: &Leaf) -> CertificateSource {
    CertificateSource::Inline(TlsCertificate {
        chain_pem: leaf.cert_pem.clone(),
        key_pem: leaf.key_pem.clone(),
    })
}

fn trust(authority: &Authority) -> Option<ValidationSource> {
    let context = ValidationContext { trusted_ca_pem: Some(authority.pem()), ..ValidationContext::default() };
    Some(ValidationSource::Inline(context))
}

/// The proxy beside the application: mutual TLS in, plain HTTP/1.1 out.
fn inner(authority: &Authority, origins: &[&Origin; 2]) -> Config {
    let mut config = to(&[origins[0]]);
    config.clusters.push(cluster("b", &[origins[1]]));
    config.listeners[0].filter_chains[0].tls = Some(DownstreamTls {
        certificates: vec![pair(&authority.leaf(&["inner.test"]))],
        validation: trust(authority),
        require_client_certificate: true,
        alpn: vec!["h2".into()],
        params: TlsParams::default(),
        disable_stateless_session_resumption: false,
    });
    config
}

/// The proxy beside the client: plain in, mutual TLS and HTTP/2 out, by two clusters to the same place.
fn outer(authority: &Authority, towards: std::net::SocketAddr, unused: &Origin) -> Config {
    let mut config = to(&[unused]);
    config.clusters = ["a", "b"]
        .map(|name| {
            let mut cluster = cluster_at(name, &[towards]);
            cluster.http.protocol = HttpUpstream::Http2;
            cluster.tls = Some(UpstreamTls {
                sni: "inner.test".into(),
                certificate: Some(pair(&authority.leaf(&["outer.test"]))),
                validation: trust(authority),
                alpn: Vec::new(),
                params: TlsParams::default(),
                max_session_keys: 1,
            });
            cluster
        })
        .into();
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_survive_swaps_of_both_configurations() {
    let authority = Authority::new("mesh");
    let (one, two) = (Origin::h1("one").await, Origin::h1("two").await);
    let mut inner = Bed::start(inner(&authority, &[&one, &two]));
    let mut outer = Bed::start(outer(&authority, inner.address, &one));
    let address = outer.address;
    let load = tokio::spawn(async move {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                tokio::spawn(async move {
                    let mut client = H1Client::connect(address).await;
                    for n in 0..REQUESTS / CLIENTS {
                        let body = format!("{number}-{n}");
                        let path = if n % 10 == 0 { "/chunked/3" } else { "/body" };
                        let answer = client.request("POST", path, &[("host", "h")], body.as_bytes()).await;
                        let response = answer.unwrap();
                        assert_eq!(response.status, 200, "{number}-{n}: {response:?}");
                        let wanted = if n % 10 == 0 { "chunkchunkchunk" } else { &body };
                        assert_eq!(response.text(), wanted);
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
    });
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut swaps = 0;
    while !load.is_finished() {
        ticks.tick().await;
        let target = if swaps % 2 == 0 { "b" } else { "a" };
        let choice = || ClusterChoice::Single(target.into());
        outer.change(|config| action(config, 0).cluster = choice());
        inner.change(|config| action(config, 0).cluster = choice());
        swaps += 1;
    }
    within("the last client", load).await.unwrap();
    assert!(swaps > 20, "{swaps}");
    assert_eq!(one.requests() + two.requests(), REQUESTS);
    assert!(one.requests() > 0 && two.requests() > 0);
    assert_eq!(inner.http_stat(|stats| stats.downstream_rq_5xx.value()), 0);
    assert_eq!(outer.http_stat(|stats| stats.downstream_rq_5xx.value()), 0);
}

/// An address where nobody listens.
async fn nobody() -> std::net::SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Statuses of so many POST requests through an outer proxy to inner ones of this direction, of whose applications one is gone.
async fn posts_while_one_application_is_gone(direction: TrafficDirection, times: usize) -> Vec<u16> {
    let authority = Authority::new("mesh");
    let alive = Origin::h1("alive").await;
    let mut beside = [inner(&authority, &[&alive, &alive]), inner(&authority, &[&alive, &alive])];
    let gone = nobody().await;
    beside[1].clusters = ["a", "b"].map(|name| cluster_at(name, &[gone])).into();
    let beside = beside.map(|mut config| {
        config.listeners[0].traffic_direction = direction;
        Bed::start(config)
    });
    let mut config = outer(&authority, beside[0].address, &alive);
    for cluster in &mut config.clusters {
        let both = cluster_at(&cluster.name, &[beside[0].address, beside[1].address]);
        cluster.discovery = both.discovery;
    }
    // What a mesh retries without being told.
    let retry_on = RetryOn { refused_stream: true, connect_failure: true, ..RetryOn::default() };
    action(&mut config, 0).retry_policy =
        Some(RetryPolicy { retry_on, num_retries: 2, ..RetryPolicy::default() });
    let outer = Bed::start(config);
    let mut statuses = Vec::new();
    for _ in 0..times {
        let mut client = H1Client::connect(outer.address).await;
        statuses.push(client.request("POST", "/body", &[("host", "h")], b"once").await.unwrap().status);
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_an_applications_proxy_could_not_hand_over_goes_to_another_instance() {
    let statuses = posts_while_one_application_is_gone(TrafficDirection::Inbound, 20).await;
    assert_eq!(statuses, [200; 20]);
    // Without its direction the proxy answers for itself, and nobody may send a POST again.
    let statuses = posts_while_one_application_is_gone(TrafficDirection::Unspecified, 20).await;
    assert!(statuses.contains(&503) && statuses.contains(&200), "{statuses:?}");
}
