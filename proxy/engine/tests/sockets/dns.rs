//! DNS listeners of a whole proxy, over UDP and TCP, with a server behind them.

use crate::bed::*;
use outrigger_engine::proxy::ProxyHandle;
use outrigger_engine::telemetry::DnsStats;
use outrigger_testkit::within;
use outrigger_traffic::config::{Config, DnsDomain, DnsForward, DnsServer, Listener};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const A: u16 = 1;
const AAAA: u16 = 28;

/// A question, written by hand.
fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [id, 0x0100, 1, 0, 0, 0] {
        out.extend(word.to_be_bytes());
    }
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(kind.to_be_bytes());
    out.extend(1_u16.to_be_bytes());
    out
}

/// Response code, number of answers, and the last four bytes (the address of a last A record).
fn read(reply: &[u8]) -> (u8, u16, [u8; 4]) {
    let last = reply[reply.len() - 4..].try_into().unwrap();
    (reply[3] & 0x0f, u16::from_be_bytes([reply[6], reply[7]]), last)
}

async fn ask(at: SocketAddr, question: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(at).await.unwrap();
    socket.send(question).await.unwrap();
    let mut reply = vec![0; 2048];
    let length = within("an answer", socket.recv(&mut reply)).await.unwrap();
    reply.truncate(length);
    assert_eq!(reply[..2], question[..2], "the id comes back");
    reply
}

/// A server that knows `known.test` (TTL 60), has no `none.test`, and never answers for anything else.
async fn upstream() -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            let text = String::from_utf8_lossy(&buffer[12..length]).to_ascii_lowercase();
            let known = text.contains("known");
            if !known && !text.contains("none") {
                continue;
            }
            // Header and question alone: what follows is EDNS.
            let end = 12 + buffer[12..length].iter().position(|b| *b == 0).unwrap() + 5;
            let mut reply = buffer[..end].to_vec();
            reply[2..12].copy_from_slice(&[
                0x81,
                if known { 0x80 } else { 0x83 },
                0,
                1,
                0,
                u8::from(known),
                0,
                0,
                0,
                0,
            ]);
            if known {
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 7]);
            }
            let _ = socket.send_to(&reply, from).await;
        }
    });
    (at, asked)
}

fn serving(domains: &[(&str, [u8; 4])], resolver: Option<SocketAddr>) -> Config {
    let mut listener = Listener::new("dns", "127.0.0.1:0".parse().unwrap());
    listener.additional_addresses = vec!["127.0.0.1:0".parse().unwrap()];
    let domain = |(name, address): &(&str, [u8; 4])| DnsDomain {
        name: (*name).into(),
        addresses: vec![(*address).into()],
        ttl: Duration::from_secs(30),
    };
    let forward = resolver.map(|resolver| DnsForward {
        resolvers: vec![resolver],
        timeout: Duration::from_millis(400),
        max_pending: 1,
    });
    let domains = domains.iter().map(domain).collect();
    listener.dns = Some(Box::new(DnsServer { stat_prefix: "mesh".into(), domains, forward }));
    Config { listeners: vec![listener], ..Config::default() }
}

fn count(proxy: &ProxyHandle, pick: impl Fn(&DnsStats) -> u64) -> u64 {
    proxy.shared().live.load().listeners["dns"].dns.as_ref().unwrap().stats.total(pick)
}

#[tokio::test]
async fn names_of_the_mesh_are_answered_over_udp_and_tcp() {
    let proxy = start(serving(&[("b.demo.mesh", [240, 240, 0, 1])], None));
    let addresses = proxy.listener_addrs("dns");
    let (udp, tcp) = (addresses[0], addresses[1]);
    assert_eq!(read(&ask(udp, &question(1, "b.demo.mesh", A)).await), (0, 1, [240, 240, 0, 1]));
    assert_eq!(read(&ask(udp, &question(2, "b.demo.mesh", AAAA)).await).1, 0);
    assert_eq!(read(&ask(udp, &question(3, "other.test", A)).await).0, 3);
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    // Two questions on one connection, the second behind the first.
    for id in [4, 5] {
        let question = question(id, "b.demo.mesh", A);
        stream.write_u16(question.len() as u16).await.unwrap();
        stream.write_all(&question).await.unwrap();
    }
    for id in [4_u16, 5] {
        let length = within("an answer", stream.read_u16()).await.unwrap();
        let mut reply = vec![0; length.into()];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(reply[..2], id.to_be_bytes());
        assert_eq!(read(&reply), (0, 1, [240, 240, 0, 1]));
    }
    assert_eq!(count(&proxy, |s| s.downstream_rx_queries.value()), 5);
}

#[tokio::test]
async fn changed_table_is_answered_from_the_same_socket() {
    let mut config = serving(&[("b.demo.mesh", [240, 240, 0, 1])], None);
    let proxy = start(config.clone());
    let udp = proxy.listener_addrs("dns")[0];
    assert_eq!(read(&ask(udp, &question(1, "c.demo.mesh", A)).await).0, 3);
    config.listeners[0].dns = serving(&[("c.demo.mesh", [240, 240, 0, 2])], None).listeners[0].dns.clone();
    proxy.apply(config).unwrap();
    assert_eq!(proxy.listener_addrs("dns")[0], udp);
    assert_eq!(read(&ask(udp, &question(2, "c.demo.mesh", A)).await), (0, 1, [240, 240, 0, 2]));
    assert_eq!(read(&ask(udp, &question(3, "b.demo.mesh", A)).await).0, 3);
    assert_eq!(count(&proxy, |s| s.downstream_rx_queries.value()), 3, "counters outlive a change");
    proxy.apply(Config::default()).unwrap();
    assert!(proxy.listener_addrs("dns").is_empty());
    eventually("the port to be free", || std::net::UdpSocket::bind(udp).is_ok()).await;
}

#[tokio::test]
async fn other_names_are_asked_of_others_once_per_ttl() {
    let (resolver, asked) = upstream().await;
    let proxy = start(serving(&[("b.demo.mesh", [240, 240, 0, 1])], Some(resolver)));
    let udp = proxy.listener_addrs("dns")[0];
    for id in 1..4 {
        assert_eq!(read(&ask(udp, &question(id, "known.test", A)).await), (0, 1, [198, 51, 100, 7]));
    }
    assert_eq!((asked.load(Ordering::Relaxed), count(&proxy, |s| s.cache_hits.value())), (1, 2));
    assert_eq!(read(&ask(udp, &question(4, "none.test", A)).await).0, 3);
    // The cache survives a change of the table.
    proxy.apply(serving(&[("c.demo.mesh", [240, 240, 0, 2])], Some(resolver))).unwrap();
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(read(&ask(udp, &question(5, "known.test", A)).await), (0, 1, [198, 51, 100, 7]));
    assert_eq!(asked.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn silent_server_is_servfail_and_waiting_questions_are_limited() {
    let (resolver, _) = upstream().await;
    let proxy = start(serving(&[("b.demo.mesh", [240, 240, 0, 1])], Some(resolver)));
    let udp = proxy.listener_addrs("dns")[0];
    let slow = tokio::spawn(async move { read(&ask(udp, &question(1, "slow.test", A)).await).0 });
    eventually("the first to wait", || count(&proxy, |s| s.external_a_record_queries.value()) == 1).await;
    // The second is one too many; the mesh is answered all the same.
    assert_eq!(read(&ask(udp, &question(2, "slower.test", A)).await).0, 2);
    assert_eq!(count(&proxy, |s| s.pending_overflow.value()), 1);
    assert_eq!(read(&ask(udp, &question(3, "b.demo.mesh", A)).await).1, 1);
    assert_eq!(slow.await.unwrap(), 2);
    assert_eq!(count(&proxy, |s| s.unanswered_queries.value()), 2);
}

#[tokio::test]
async fn taken_port_is_an_error_of_its_listener() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = serving(&[("b.demo.mesh", [240, 240, 0, 1])], None);
    config.listeners[0].address = taken.local_addr().unwrap();
    let proxy = start(Config::default());
    let errors = proxy.apply(config).unwrap_err();
    assert_eq!((errors.len(), &*errors[0].resource, &*errors[0].path), (1, "listener/dns", "address"));
}
