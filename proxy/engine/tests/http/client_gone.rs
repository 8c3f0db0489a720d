//! Clients that do not wait for their answer.

use outrigger_testkit::Origin;

use crate::bed::{Bed, action, eventually, manager, to, to_h2};

#[tokio::test]
async fn client_that_leaves_while_it_waits_cancels_the_request() {
    for h2 in [false, true] {
        let origin = if h2 { Origin::h2c("one").await } else { Origin::h1("one").await };
        let mut config = if h2 { to_h2(&[&origin]) } else { to(&[&origin]) };
        action(&mut config, 0).timeout = None;
        manager(&mut config).stream_idle_timeout = None;
        let bed = Bed::start(config);
        let mut client = bed.h1().await;
        client.send(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        origin.wait_for_requests(1).await;
        assert_eq!(bed.cluster_stat("a", |stats| stats.upstream_rq_active.value()), 1);
        drop(client);
        eventually("the request to be cancelled", || {
            bed.cluster_stat("a", |stats| stats.upstream_rq_active.value()) == 0
        })
        .await;
        eventually("the connection to end", || {
            bed.http_stat(|stats| stats.downstream_cx_active.value()) == 0
        })
        .await;
        assert_eq!(bed.http_stat(|stats| stats.downstream_rq_rx_reset.value()), 1);
        assert_eq!(bed.cluster_stat("a", |stats| stats.upstream_rq_tx_reset.value()), 1);
    }
}

#[tokio::test]
async fn client_that_leaves_in_the_middle_of_a_response_cancels_it() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    action(&mut config, 0).timeout = None;
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    // The next piece comes in a minute: only the client's own leaving can end this within the test.
    client.send(b"GET /slow/2/60000 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    origin.wait_for_requests(1).await;
    drop(client);
    eventually("the upstream connection to be closed", || {
        bed.cluster_stat("a", |stats| stats.upstream_cx_active.value()) == 0
    })
    .await;
}

#[tokio::test]
async fn client_that_sends_its_next_request_early_is_not_taken_for_gone() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let mut client = bed.h1().await;
    client.send(b"GET /delay/60 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    origin.wait_for_requests(1).await;
    client.send(b"GET /bytes/3 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    assert_eq!(client.response("GET").await.unwrap().status, 200);
    assert_eq!(client.response("GET").await.unwrap().body.len(), 3);
}
