//! Exchanges between two HTTP/2 connections: those that go through without a task, and those that leave the lane on the
//! way. What a client, a host and the counters see is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use outrigger_testkit::Origin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bed::{Bed, action, eventually, host, manager, retry_on, to_h2};

fn post(path: &str, body: &'static [u8]) -> Request<Bytes> {
    Request::post(format!("http://h{path}")).body(Bytes::from_static(body)).unwrap()
}

/// Counters of a request that ended well, and the gauges of one that is over.
async fn counted(bed: &Bed, requests: u64) {
    eventually("the request to be counted", || {
        bed.cluster_stat("a", |stats| stats.upstream_rq_completed.value()) == requests
    })
    .await;
    eventually("nothing to be under way", || {
        bed.cluster_stat("a", |stats| stats.upstream_rq_active.value()) == 0
            && bed.http_stat(|stats| stats.downstream_rq_active.value()) == 0
    })
    .await;
}

#[tokio::test]
async fn request_without_body_with_body_and_with_trailers_of_the_response_goes_through() {
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    let client = bed.h2().await;
    // The first makes the connection, and so is none for the lane.
    assert_eq!(client.get("h", "/").await.unwrap().status, 200);
    let response = client.get("h", "/bytes/1000").await.unwrap();
    assert_eq!((response.status, response.body.len()), (200, 1000));
    let response = client.request(post("/body", b"hello")).await.unwrap();
    assert_eq!(response.text(), "hello");
    let response = client.request(post("/grpc/7", b"\0\0\0\0\0")).await.unwrap();
    assert_eq!(response.trailer("grpc-status"), Some("7"));
    let response = client.request(post("/grpc-only/7", b"\0\0\0\0\0")).await.unwrap();
    assert_eq!(response.field("grpc-status"), Some("7"));
    let head = Request::head("http://h/bytes/10").body(Bytes::new()).unwrap();
    let response = client.request(head).await.unwrap();
    assert_eq!(
        (response.status, response.body.len(), response.field("content-length")),
        (200, 0, Some("10"))
    );
    assert_eq!(client.get("h", "/status/204").await.unwrap().status, 204);
    counted(&bed, 7).await;
    assert!(origin.malformed().is_empty(), "{:?}", origin.malformed());
}

#[tokio::test]
async fn request_with_trailers_goes_through() {
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    let client = bed.h2().await;
    for _ in 0..3 {
        let sent = client.request_with_trailers(post("/body", b"hello"), &[("x-check", "sent")]);
        let response = sent.await.unwrap();
        assert_eq!((response.text().as_str(), response.trailer("x-check")), ("hello", Some("sent")));
    }
    counted(&bed, 3).await;
}

#[tokio::test]
async fn response_in_pieces_leaves_the_lane_and_arrives() {
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    let client = bed.h2().await;
    for path in ["/slow/3/5", "/delay/20", "/chunked/40", "/bytes/3000000"] {
        let expected = if path.starts_with("/bytes") { Some(3_000_000) } else { None };
        let response = client.get("h", path).await.unwrap();
        assert_eq!(response.status, 200, "{path}");
        assert!(expected.is_none_or(|length| response.body.len() == length), "{path}");
    }
    counted(&bed, 4).await;
}

#[tokio::test]
async fn body_larger_than_the_window_leaves_the_lane_and_arrives() {
    let origin = Origin::h2c("two").await;
    let mut config = to_h2(&[&origin]);
    manager(&mut config).http2.initial_stream_window_size = 1 << 20;
    manager(&mut config).http2.initial_connection_window_size = 1 << 22;
    let bed = Bed::start(config);
    let client = bed.h2().await;
    for _ in 0..3 {
        static BODY: [u8; 200_000] = [b'u'; 200_000];
        let response = client.request(post("/count", &BODY)).await.unwrap();
        assert_eq!(response.text(), "200000");
    }
    counted(&bed, 3).await;
}

#[tokio::test]
async fn lost_streams_are_tried_again_and_the_body_is_sent_again() {
    let origin = Origin::h2c("two").await;
    let mut config = to_h2(&[&origin]);
    action(&mut config, 0).retry_policy = Some(retry_on(
        |on| {
            on.reset = true;
            on.gateway_error = true;
            on.refused_stream = true;
            on.server_error = true;
        },
        2,
    ));
    let bed = Bed::start(config);
    let client = bed.h2().await;
    assert_eq!(client.get("h", "/").await.unwrap().status, 200);
    // Answered with an error the first time.
    let put =
        |path: &str| Request::put(format!("http://h{path}")).body(Bytes::from_static(b"keep me")).unwrap();
    let response = client.request(put("/flaky/a/2/503")).await.unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(bed.cluster_stat("a", |stats| stats.upstream_rq_retry.value()), 2);
    assert_eq!(bed.cluster_stat("a", |stats| stats.upstream_rq_retry_success.value()), 1);
    let bodies: Vec<_> = origin.seen().into_iter().filter(|seen| seen.target.starts_with("/flaky")).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.iter().all(|seen| seen.body == b"keep me"[..]), "{bodies:?}");
    // Reset before and in the middle of the response.
    assert_eq!(client.get("h", "/reset").await.unwrap().status, 503);
    let refused = client.get("h", "/refuse").await.unwrap();
    assert_eq!(refused.status, 503);
    assert_eq!(client.get("h", "/").await.unwrap().status, 200);
    eventually("nothing to be under way", || {
        bed.cluster_stat("a", |stats| stats.upstream_rq_active.value()) == 0
    })
    .await;
}

#[tokio::test]
async fn time_limits_hold_in_the_lane() {
    let origin = Origin::h2c("two").await;
    for limit in [20, 120, 300, 1300] {
        let mut config = to_h2(&[&origin]);
        action(&mut config, 0).timeout = Some(Duration::from_millis(limit));
        let bed = Bed::start(config);
        let client = bed.h2().await;
        assert_eq!(client.get("h", "/").await.unwrap().status, 200);
        let began = std::time::Instant::now();
        let response = client.get("h", "/hang").await.unwrap();
        let took = began.elapsed();
        assert_eq!(response.status, 504);
        assert!(took >= Duration::from_millis(limit), "{limit}: {took:?}");
        assert!(took < Duration::from_millis(limit + 1000), "{limit}: {took:?}");
        assert_eq!(bed.cluster_stat("a", |stats| stats.upstream_rq_timeout.value()), 1);
    }
}

#[tokio::test]
async fn client_that_goes_or_resets_cancels_the_request_in_the_lane() {
    let origin = Origin::h2c("two").await;
    let mut config = to_h2(&[&origin]);
    action(&mut config, 0).timeout = None;
    manager(&mut config).stream_idle_timeout = None;
    let bed = Bed::start(config);
    for (turn, leave) in [(1, false), (2, true)] {
        let client = bed.h2().await;
        assert_eq!(client.get("h", "/").await.unwrap().status, 200);
        let seen = origin.requests();
        {
            let mut hang = Box::pin(client.get("h", "/hang"));
            tokio::select! {
                _ = &mut hang => panic!("an answer"),
                () = origin.wait_for_requests(seen + 1) => {}
            }
            // Dropped here: the stream is reset.
        }
        if leave {
            drop(client);
        }
        eventually("the request to be cancelled", || {
            bed.cluster_stat("a", |stats| stats.upstream_rq_active.value()) == 0
                && bed.cluster_stat("a", |stats| stats.upstream_rq_tx_reset.value()) == turn
        })
        .await;
        assert_eq!(bed.http_stat(|stats| stats.downstream_rq_rx_reset.value()), turn);
    }
}

#[tokio::test]
async fn host_that_goes_away_is_found_out_in_the_lane() {
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    let client = bed.h2().await;
    assert_eq!(client.get("h", "/").await.unwrap().status, 200);
    let seen = origin.requests();
    let hang = client.get("h", "/hang");
    let stop = async {
        origin.wait_for_requests(seen + 1).await;
        origin.stop();
    };
    let (response, ()) = tokio::join!(hang, stop);
    assert_eq!(response.unwrap().status, 503);
    eventually("the request to be over", || {
        bed.cluster_stat("a", |stats| stats.upstream_rq_active.value()) == 0
    })
    .await;
}

#[tokio::test]
async fn breaker_and_missing_hosts_answer_as_everywhere() {
    let origin = Origin::h2c("two").await;
    let mut config = to_h2(&[&origin]);
    config.clusters[0].circuit_breakers.default.max_requests = 1;
    let bed = Bed::start(config);
    let client = bed.h2().await;
    assert_eq!(client.get("h", "/").await.unwrap().status, 200);
    let seen = origin.requests();
    let mut hang = Box::pin(client.get("h", "/delay/200"));
    tokio::select! {
        _ = &mut hang => panic!("an answer"),
        () = origin.wait_for_requests(seen + 1) => {}
    }
    let (refused, first) = tokio::join!(client.get("h", "/"), hang);
    let refused = refused.unwrap();
    assert_eq!((refused.status, refused.field("x-envoy-overloaded")), (503, Some("true")));
    assert_eq!(first.unwrap().status, 200);
    assert_eq!(client.get("h", "/").await.unwrap().status, 200);

    let mut config = to_h2(&[&origin]);
    host(&mut config).domains = vec!["other".into()];
    let bed = Bed::start(config);
    assert_eq!(bed.h2().await.get("h", "/").await.unwrap().status, 404);
}

/// One frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn requests_that_come_in_one_read_are_served_in_batches_each_by_its_own_fate() {
    const REQUESTS: u32 = 40;
    const RESET: u32 = 9;
    const HELD_BACK: u32 = 17;
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    // The connection to the host.
    assert_eq!(bed.h2().await.get("h", "/").await.unwrap().status, 200);
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    // POST, http, `/body` and `h` as literals that enter no table.
    let head = b"\x83\x86\x04\x05/body\x01\x01h";
    let mut sent = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, b"")].concat();
    for id in (0..REQUESTS).map(|at| 2 * at + 1) {
        sent.extend(frame(1, 4, id, head));
        match id {
            HELD_BACK => sent.extend(frame(0, 0, id, b"par")),
            _ => sent.extend(frame(0, 1, id, format!("body {id}").as_bytes())),
        }
        if id == RESET {
            sent.extend(frame(3, 0, id, &8u32.to_be_bytes()));
        }
    }
    stream.write_all(&sent).await.unwrap();
    let (mut bodies, mut ended) = (BTreeMap::<u32, Vec<u8>>::new(), BTreeSet::new());
    let all = async {
        while ended.len() + 1 < REQUESTS as usize {
            let mut octets = [0; 9];
            stream.read_exact(&mut octets).await.unwrap();
            let [a, b, c, kind, flags, id @ ..] = octets;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            stream.read_exact(&mut payload).await.unwrap();
            let id = u32::from_be_bytes(id);
            assert_ne!(kind, 7, "GOAWAY: {payload:?}");
            if kind == 0 {
                bodies.entry(id).or_default().extend(payload);
            }
            if kind <= 1 && flags & 1 != 0 {
                ended.insert(id);
            }
            if ended.len() + 2 == REQUESTS as usize && !ended.contains(&HELD_BACK) {
                stream.write_all(&frame(0, 1, HELD_BACK, b"ts")).await.unwrap();
            }
        }
    };
    outrigger_testkit::within("all answers", all).await;
    for id in (0..REQUESTS).map(|at| 2 * at + 1).filter(|id| *id != RESET) {
        let body = String::from_utf8(bodies.remove(&id).unwrap_or_default()).unwrap();
        assert_eq!(body, if id == HELD_BACK { "parts".to_owned() } else { format!("body {id}") });
    }
    assert!(!ended.contains(&RESET));
    eventually("the reset to be counted", || {
        bed.http_stat(|stats| stats.downstream_rq_rx_reset.value()) == 1
            && bed.http_stat(|stats| stats.downstream_rq_active.value()) == 0
            && bed.cluster_stat("a", |stats| stats.upstream_rq_active.value()) == 0
    })
    .await;
}
