//! What becomes of open connections when the configuration changes.

use crate::bed::*;
use outrigger_engine::proxy::{Proxy, ProxyHandle, ProxyOptions};
use outrigger_testkit::{Origin, within};
use outrigger_traffic::config::{
    Config, NetworkFilter, Permission, Policy, Principal, Rbac, RbacAction, Rules,
};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A proxy whose connections have `drain_time` to finish.
fn draining_within(drain_time: Duration, config: Config) -> ProxyHandle {
    let options = ProxyOptions { concurrency: 2, drain_time, ..ProxyOptions::default() };
    let proxy = Proxy::start(options).unwrap();
    proxy.apply(config).unwrap();
    proxy
}

/// Rules that deny everybody from loopback, or somebody else.
fn deny(everybody: bool) -> NetworkFilter {
    let from = if everybody { ([127, 0, 0, 0], 8) } else { ([192, 0, 2, 0], 24) };
    let policy = Policy {
        permissions: vec![Permission::Any],
        principals: vec![Principal::DirectRemoteIp(from.0.into(), from.1)],
    };
    let rules = Rules { action: RbacAction::Deny, policies: vec![("locked".into(), policy)] };
    NetworkFilter::Rbac(Rbac { rules: Some(rules), ..Rbac::default() })
}

fn with_rules(origin: SocketAddr, everybody: bool) -> Config {
    let mut config = simple(origin, |_| {});
    config.listeners[0].filter_chains[0].network_filters = vec![deny(everybody)];
    config
}

async fn open(proxy: &ProxyHandle) -> TcpStream {
    let mut stream = TcpStream::connect(address(proxy)).await.unwrap();
    echo(&mut stream, b"open").await.unwrap();
    stream
}

/// The kind of end, which must come while nothing is sent.
async fn end_of(stream: &mut TcpStream) -> std::io::Result<usize> {
    within("the connection to end", stream.read(&mut [0; 16])).await
}

#[tokio::test]
async fn open_connection_that_new_rules_deny_is_closed_and_counted() {
    let origin = Origin::tcp_echo("a").await;
    let proxy = start(with_rules(origin.address(), false));
    let (mut first, mut second) = (open(&proxy).await, open(&proxy).await);
    proxy.apply(with_rules(origin.address(), true)).unwrap();
    for stream in [&mut first, &mut second] {
        let error = end_of(stream).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "cut, not ended");
    }
    eventually("both to be counted", || listener_count(&proxy, |s| s.rbac_evicted.value()) == 2).await;
    eventually("both to be gone", || listener_count(&proxy, |s| s.downstream_cx_active.value()) == 0).await;
    eventually("the host to be free", || cluster_count(&proxy, "a", |s| s.upstream_cx_active.value()) == 0)
        .await;
    assert_eq!(listener_count(&proxy, |s| s.rbac_denied.value()), 0, "that is for connections that come");
}

#[tokio::test]
async fn open_connection_that_new_rules_allow_goes_on() {
    let origin = Origin::tcp_echo("a").await;
    let proxy = draining_within(Duration::from_millis(50), simple(origin.address(), |_| {}));
    let mut kept = open(&proxy).await;
    // Rules where there were none, other rules, and an unrelated change: none of them is against it.
    let mut other = with_rules(origin.address(), false);
    proxy.apply(other.clone()).unwrap();
    other.clusters.push(cluster("b", &[]));
    proxy.apply(other.clone()).unwrap();
    other.listeners[0].filter_chains[0].network_filters.push(deny(false));
    proxy.apply(other.clone()).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(400) {
        echo(&mut kept, b"still here").await.unwrap();
    }
    // Sensitive to the same change when it is against it.
    other.listeners[0].filter_chains[0].network_filters.push(deny(true));
    proxy.apply(other).unwrap();
    end_of(&mut kept).await.unwrap_err();
}

#[tokio::test]
async fn connections_of_a_listener_that_is_gone_end_with_the_drain_time() {
    let origin = Origin::tcp_echo("a").await;
    let config = simple(origin.address(), |_| {});
    let drain = Duration::from_millis(300);
    let proxy = draining_within(drain, config.clone());
    let mut stream = open(&proxy).await;
    let stats = proxy.shared().live.load().listeners["in"].stats.clone();
    let began = Instant::now();
    proxy.apply(Config { listeners: Vec::new(), ..config }).unwrap();
    echo(&mut stream, b"may finish").await.unwrap();
    end_of(&mut stream).await.unwrap_err();
    assert!(began.elapsed() >= drain, "{:?}", began.elapsed());
    assert!(began.elapsed() < drain + Duration::from_secs(5), "{:?}", began.elapsed());
    eventually("it to be counted", || stats.total(|s| s.downstream_cx_drain_time_over.value()) == 1).await;
    assert_eq!(stats.total(|s| s.rbac_evicted.value()), 0);
}

#[tokio::test]
async fn connections_of_a_changed_proxy_end_with_the_drain_time_and_new_ones_are_served() {
    let (old, new) = (Origin::tcp_echo("old").await, Origin::tcp_echo("new").await);
    let mut config = simple(old.address(), |_| {});
    config.clusters.push(cluster("b", &[new.address()]));
    let proxy = draining_within(Duration::from_millis(200), config.clone());
    let mut before = open(&proxy).await;
    config.listeners[0].filter_chains[0].terminal =
        outrigger_traffic::config::Terminal::Tcp(Box::new(tcp_to("b")));
    proxy.apply(config).unwrap();
    let mut after = open(&proxy).await;
    end_of(&mut before).await.unwrap_err();
    echo(&mut after, b"stays").await.unwrap();
    assert_eq!(cluster_count(&proxy, "b", |s| s.upstream_cx_total.value()), 1);
    assert_eq!(listener_count(&proxy, |s| s.downstream_cx_drain_time_over.value()), 1);
}

#[tokio::test]
async fn listener_that_was_gone_for_a_moment_loses_nobody() {
    let origin = Origin::tcp_echo("a").await;
    let mut config = simple(origin.address(), |_| {});
    config.listeners[0].address = nobody().await;
    let proxy = draining_within(Duration::from_millis(400), config.clone());
    let mut stream = open(&proxy).await;
    proxy.apply(Config { listeners: Vec::new(), ..config.clone() }).unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    proxy.apply(config).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(700) {
        echo(&mut stream, b"still here").await.unwrap();
    }
}

#[tokio::test]
async fn client_in_its_handshake_when_the_rules_change_does_not_come_in() {
    let origin = Origin::tcp_echo("a").await;
    let mut open = with_rules(origin.address(), false);
    open.listeners[0].tls_inspector = true;
    let mut closed = with_rules(origin.address(), true);
    closed.listeners[0].tls_inspector = true;
    let proxy = start(open);
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    eventually("its first bytes to be awaited", || {
        listener_count(&proxy, |s| s.downstream_pre_cx_active.value()) == 1
    })
    .await;
    proxy.apply(closed).unwrap();
    // The connection was accepted under the old rules and is admitted under the new ones.
    stream.write_all(b"hello, not tls").await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert!(answer.is_empty(), "{answer:?}");
    eventually("it to be counted", || listener_count(&proxy, |s| s.rbac_evicted.value()) == 1).await;
}
