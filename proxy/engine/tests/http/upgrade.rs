//! WebSocket and other switches of protocol.

use outrigger_testkit::Origin;
use outrigger_testkit::websocket::WebSocket;
use outrigger_traffic::config::Upgrade;
use tokio::net::TcpStream;

use crate::bed::{Bed, manager, to};

fn websocket() -> Upgrade {
    Upgrade { upgrade_type: "websocket".into(), enabled: true }
}

#[tokio::test]
async fn websocket_echoes_through_the_proxy() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).upgrades.push(websocket());
    let bed = Bed::start(config);
    let stream = TcpStream::connect(bed.address).await.unwrap();
    let mut socket = WebSocket::open(stream, "h", "/ws").await.unwrap();
    for text in ["hello", "again", &"x".repeat(60_000)] {
        assert_eq!(socket.round_trip(text).await.unwrap(), text);
    }
    socket.close().await.unwrap();
    assert_eq!(bed.http_stat(|stats| stats.downstream_cx_upgrades_total.value()), 1);
}

#[tokio::test]
async fn websocket_that_is_not_allowed_is_refused() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let mut client = bed.h1().await;
    let fields = [
        ("host", "h"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    assert_eq!(client.request("GET", "/ws", &fields, b"").await.unwrap().status, 403);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn offer_of_h2c_is_ignored() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let mut client = bed.h1().await;
    let fields = [
        ("host", "h"),
        ("connection", "upgrade, http2-settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
    ];
    assert_eq!(client.request("GET", "/", &fields, b"").await.unwrap().status, 200);
    let seen = &origin.seen()[0];
    assert_eq!((seen.field("upgrade"), seen.field("http2-settings")), (None, None));
}
