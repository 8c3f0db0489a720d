use crate::bed::*;
use outrigger_engine::proxy::{Proxy, ProxyOptions};
use outrigger_testkit::Origin;
use outrigger_testkit::certs::Authority;
use outrigger_traffic::config::{
    Config, NetworkFilter, Permission, Policy, Principal, Rbac, RbacAction, Rules, StringMatch,
};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn listeners_come_and_go_while_others_stay() {
    let origin = Origin::tcp_echo("a").await;
    let mut config = simple(origin.address(), |_| {});
    let proxy = start(config.clone());
    let first = address(&proxy);
    let mut living = TcpStream::connect(first).await.unwrap();
    echo(&mut living, b"x").await.unwrap();
    let mut second = config.listeners[0].clone();
    second.name = "second".into();
    config.listeners.push(second);
    proxy.apply(config.clone()).unwrap();
    assert_eq!(address(&proxy), first, "an unchanged listener keeps its port");
    let added = proxy.listener_addrs("second")[0];
    echo(&mut TcpStream::connect(added).await.unwrap(), b"x").await.unwrap();
    config.listeners.pop();
    proxy.apply(config).unwrap();
    assert!(proxy.listener_addrs("second").is_empty());
    outrigger_testkit::within("the port to be closed", async {
        while TcpStream::connect(added).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    echo(&mut living, b"still here").await.unwrap();
}

#[tokio::test]
async fn every_worker_and_every_address_serves() {
    let origin = Origin::tcp_echo("a").await;
    let mut config = simple(origin.address(), |_| {});
    config.listeners[0].additional_addresses = vec!["127.0.0.2:0".parse().unwrap()];
    let proxy = start(config);
    let addresses = proxy.listener_addrs("in");
    assert_eq!(addresses.len(), 2);
    for round in 0..32 {
        let mut stream = TcpStream::connect(addresses[round % 2]).await.unwrap();
        echo(&mut stream, b"x").await.unwrap();
    }
    let live = proxy.shared().live.load();
    let stats = &live.listeners["in"].stats;
    let by_worker = [0, 1].map(|worker| stats.at(worker).downstream_cx_total.value());
    assert_eq!(by_worker.iter().sum::<u64>(), 32);
    // The kernel spreads by a hash of the addresses: 32 on one worker would be a chance of 2^-31.
    assert!(by_worker.iter().all(|n| *n > 0), "{by_worker:?}");
}

#[tokio::test]
async fn address_in_use_is_an_error_of_its_listener_and_changes_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin::tcp_echo("a").await;
    let mut config = simple(origin.address(), |_| {});
    let proxy = start(config.clone());
    let version = proxy.version();
    let mut second = config.listeners[0].clone();
    second.name = "second".into();
    second.address = taken.local_addr().unwrap();
    config.listeners.push(second);
    let errors = proxy.apply(config).unwrap_err();
    assert_eq!((errors.len(), &*errors[0].resource, &*errors[0].path), (1, "listener/second", "address"));
    assert_eq!(proxy.version(), version);
    echo(&mut TcpStream::connect(address(&proxy)).await.unwrap(), b"x").await.unwrap();
}

/// A listener that looks at first bytes, with a short patience.
fn inspecting(origin: SocketAddr, go_on: bool) -> Config {
    let mut config = simple(origin, |_| {});
    config.listeners[0].tls_inspector = true;
    config.listeners[0].listener_filters_timeout = Some(Duration::from_millis(60));
    config.listeners[0].continue_on_listener_filters_timeout = go_on;
    config
}

#[tokio::test]
async fn client_that_says_nothing_is_closed_or_passed_on_as_configured() {
    let greeting = greeter("hello").await;
    let proxy = start(inspecting(greeting, false));
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    assert!(until_closed(&mut stream).await.is_empty());
    assert_eq!(listener_count(&proxy, |s| s.downstream_pre_cx_timeout.value()), 1);
    assert_eq!(listener_count(&proxy, |s| s.downstream_pre_cx_active.value()), 0);
    let proxy = start(inspecting(greeting, true));
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    assert_eq!(until_closed(&mut stream).await, b"hello");
    assert_eq!(listener_count(&proxy, |s| s.downstream_pre_cx_timeout.value()), 1);
}

#[tokio::test]
async fn bytes_looked_at_are_passed_on_even_in_small_pieces() {
    let origin = Origin::tcp_echo("a").await;
    let proxy = start(inspecting(origin.address(), false));
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    // The first byte alone may begin TLS.
    for byte in [&b"\x16"[..], b"\x01", b"rest"] {
        stream.write_all(byte).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut back = [0; 6];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"\x16\x01rest");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_room_is_given_back() {
    let origin = Origin::tcp_echo("a").await;
    let proxy = Proxy::start(ProxyOptions { connections_max: 2, ..ProxyOptions::default() }).unwrap();
    proxy.apply(simple(origin.address(), |_| {})).unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
        echo(&mut stream, b"x").await.unwrap();
        held.push(stream);
    }
    let mut third = TcpStream::connect(address(&proxy)).await.unwrap();
    assert!(echo(&mut third, b"x").await.is_err());
    assert_eq!(listener_count(&proxy, |s| s.downstream_global_cx_overflow.value()), 1);
    held.pop();
    eventually("room", || listener_count(&proxy, |s| s.downstream_cx_active.value()) == 1).await;
    let mut fourth = TcpStream::connect(address(&proxy)).await.unwrap();
    echo(&mut fourth, b"x").await.unwrap();
}

#[tokio::test]
async fn network_rules_admit_by_identity() {
    let authority = Authority::new("root");
    let origin = Origin::tcp_echo("a").await;
    let server = authority.leaf(&["localhost"]);
    let rules = |id: &str| {
        let policy = Policy {
            permissions: vec![Permission::Any],
            principals: vec![Principal::Authenticated(Some(StringMatch::exact(id)))],
        };
        let rules = Rules { action: RbacAction::Allow, policies: vec![("only".into(), policy)] };
        NetworkFilter::Rbac(Rbac { rules: Some(rules), shadow_rules: None, stat_prefix: String::new() })
    };
    let me = authority.spiffe(CLIENT);
    for (id, admitted) in [(CLIENT, true), ("spiffe://mesh.test/ns/default/sa/other", false)] {
        let mut only = chain(tcp_to("a"), Some(tls(&server, Some(trust(&authority, &[])))));
        only.network_filters = vec![rules(id)];
        let proxy = start(config(listener(vec![only]), vec![cluster("a", &[origin.address()])]));
        let got = echo_over_tls(address(&proxy), "localhost", client(&authority, Some(&me))).await;
        assert_eq!(got.is_ok(), admitted, "{id}: {got:?}");
        let counts = (
            listener_count(&proxy, |s| s.rbac_allowed.value()),
            listener_count(&proxy, |s| s.rbac_denied.value()),
        );
        assert_eq!(counts, if admitted { (1, 0) } else { (0, 1) });
    }
}

#[tokio::test]
async fn draining_proxy_takes_no_connection_and_lets_the_open_one_end() {
    let origin = Origin::tcp_echo("a").await;
    let proxy = start(simple(origin.address(), |_| {}));
    let at = address(&proxy);
    let mut stream = TcpStream::connect(at).await.unwrap();
    echo(&mut stream, b"x").await.unwrap();
    let ending = tokio::spawn({
        let proxy = proxy.clone();
        async move { proxy.drain_within(Duration::from_secs(20)).await }
    });
    outrigger_testkit::within("the port to be closed", async {
        while TcpStream::connect(at).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    echo(&mut stream, b"still served").await.unwrap();
    drop(stream);
    assert_eq!(ending.await.unwrap(), 0, "nothing was cut off");
}

#[tokio::test]
async fn listener_that_comes_back_at_once_gets_its_port_again() {
    let origin = Origin::tcp_echo("a").await;
    let mut config = simple(origin.address(), |_| {});
    config.listeners[0].address = nobody().await;
    let proxy = start(config.clone());
    let without = Config { listeners: Vec::new(), ..config.clone() };
    for _ in 0..5 {
        proxy.apply(without.clone()).unwrap();
        proxy.apply(config.clone()).unwrap();
        outrigger_testkit::within("an echo", async {
            // A connection that the old socket took in its last moment is served as well, or not at all; never another's.
            loop {
                let Ok(mut stream) = TcpStream::connect(address(&proxy)).await else { continue };
                if echo(&mut stream, b"x").await.is_ok() {
                    break;
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn refused_connections_are_logged_by_their_listener() {
    use outrigger_traffic::config::{AccessLog, AccessLogFormat, AccessLogSink};
    let path = std::env::temp_dir().join(format!("outrigger-refused-{}.log", std::process::id()));
    let mut config = inspecting(nobody().await, false);
    config.listeners[0].filter_chains[0].matches.server_names = vec!["only.test".into()];
    config.listeners[0].access_log = vec![AccessLog {
        sink: AccessLogSink::File(path.to_str().unwrap().into()),
        format: AccessLogFormat::Text("%RESPONSE_FLAGS% %REQUESTED_SERVER_NAME%\n".into()),
        filter: None,
    }];
    let proxy = start(config);
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    stream.write_all(b"not tls").await.unwrap();
    until_closed(&mut stream).await;
    eventually("the line", || std::fs::read_to_string(&path).is_ok_and(|text| text == "NR -\n")).await;
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn connections_refused_by_tls_are_logged_by_their_listener() {
    use outrigger_traffic::config::{AccessLog, AccessLogFormat, AccessLogSink};
    let path = std::env::temp_dir().join(format!("outrigger-untrusted-{}.log", std::process::id()));
    let authority = Authority::new("mesh");
    let tls = tls(&authority.leaf(&["edge.test"]), Some(trust(&authority, &[CLIENT])));
    let mut config =
        config(listener(vec![chain(tcp_to("a"), Some(tls))]), vec![cluster("a", &[nobody().await])]);
    config.listeners[0].access_log = vec![AccessLog {
        sink: AccessLogSink::File(path.to_str().unwrap().into()),
        format: AccessLogFormat::Text("%RESPONSE_FLAGS% %REQUESTED_SERVER_NAME%\n".into()),
        filter: None,
    }];
    let proxy = start(config);
    let clients = outrigger_testkit::certs::client_config(&authority, None, &[]);
    // TLS 1.3: a client without a certificate learns of the refusal after its own handshake.
    let _ = outrigger_testkit::client::tls(address(&proxy), "edge.test", clients).await;
    eventually("the line", || std::fs::read_to_string(&path).is_ok_and(|text| text == "DPE edge.test\n"))
        .await;
    std::fs::remove_file(path).unwrap();
}
