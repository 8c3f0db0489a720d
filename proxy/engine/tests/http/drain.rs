//! Going away: what is under way ends well.

use std::time::Duration;

use outrigger_testkit::Origin;

use crate::bed::{Bed, manager, to};

#[tokio::test]
async fn request_under_way_is_finished_and_told_to_close() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let mut client = bed.h1().await;
    client.send(b"GET /delay/200 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    origin.wait_for_requests(1).await;
    let handle = bed.handle.clone();
    let drained = tokio::spawn(async move { handle.drain_within(Duration::from_secs(10)).await });
    let response = client.response("GET").await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "late"));
    drop(client);
    assert_eq!(drained.await.unwrap(), 0);
}

#[tokio::test]
async fn idle_connection_is_closed_when_draining() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).drain_timeout = Duration::from_millis(100);
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    assert_eq!(client.request("GET", "/", &[("host", "h")], b"").await.unwrap().status, 200);
    let handle = bed.handle.clone();
    let drained = tokio::spawn(async move { handle.drain_within(Duration::from_secs(10)).await });
    assert!(client.is_closed().await);
    assert_eq!(drained.await.unwrap(), 0);
}

#[tokio::test]
async fn h2_streams_under_way_are_finished() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let client = bed.h2().await;
    let slow = client.get("h", "/delay/200");
    let handle = bed.handle.clone();
    let drain = async {
        origin.wait_for_requests(1).await;
        handle.drain_within(Duration::from_secs(10)).await
    };
    let (response, cut) = tokio::join!(slow, drain);
    assert_eq!((response.unwrap().text().as_str(), cut), ("late", 0));
}
