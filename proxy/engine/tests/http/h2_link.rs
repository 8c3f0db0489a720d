//! One HTTP/2 connection and many streams: who gets the room, and what a peer cannot hold up.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use outrigger_testkit::{Origin, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::bed::{Bed, manager, to, to_h2};

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn large_responses_side_by_side_arrive_whole() {
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    let client = bed.h2().await;
    let tasks: Vec<_> = (0..24)
        .map(|at| {
            let client = client.clone();
            tokio::spawn(async move { client.get("h", &format!("/bytes/{}", 200_000 + at)).await })
        })
        .collect();
    for (at, task) in tasks.into_iter().enumerate() {
        let response = within("a response", task).await.unwrap().unwrap();
        assert_eq!((response.status, response.body.len()), (200, 200_000 + at));
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn large_requests_side_by_side_arrive_whole() {
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    let client = bed.h2().await;
    let tasks: Vec<_> = (0..12u8)
        .map(|at| {
            let client = client.clone();
            let body = Bytes::from(vec![at; 150_000 + usize::from(at)]);
            let request = Request::post("http://h/body").body(body.clone()).unwrap();
            tokio::spawn(async move { (client.request(request).await, body) })
        })
        .collect();
    for task in tasks {
        let (response, body) = within("a response", task).await.unwrap();
        let response = response.unwrap();
        assert!(response.status == 200 && response.body == body);
    }
}

#[tokio::test]
async fn stream_that_is_not_read_holds_up_no_other() {
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    let stream = TcpStream::connect(bed.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1 << 20);
    let (mut send, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    let ask = |path: &str| Request::get(format!("http://h{path}")).body(()).unwrap();
    let (stalled, _) = send.send_request(ask("/bytes/1000000"), true).unwrap();
    let mut stalled = within("a head", stalled).await.unwrap().into_body();
    for _ in 0..5 {
        let mut ready = send.clone().ready().await.unwrap();
        let (response, _) = ready.send_request(ask("/bytes/50000"), true).unwrap();
        let mut body = within("a head", response).await.unwrap().into_body();
        let mut length = 0;
        while let Some(data) = within("data", body.data()).await {
            let data = data.unwrap();
            length += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        assert_eq!(length, 50_000);
    }
    let mut length = 0;
    while let Some(data) = within("data", stalled.data()).await {
        let data = data.unwrap();
        length += data.len();
        stalled.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(length, 1_000_000);
}

#[tokio::test]
async fn connection_without_settings_is_closed() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).idle_timeout = Some(Duration::from_millis(60));
    let bed = Bed::start(config);
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    stream.write_all(&HELLO[..24]).await.unwrap();
    let mut seen = Vec::new();
    within("the end", stream.read_to_end(&mut seen)).await.unwrap();
    assert_eq!(bed.http_stat(|stats| stats.downstream_cx_idle_timeout.value()), 1);
}

#[tokio::test]
async fn client_that_answers_no_ping_is_closed() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).http2.keepalive_interval = Some(Duration::from_millis(50));
    manager(&mut config).http2.keepalive_timeout = Duration::from_millis(50);
    let bed = Bed::start(config);
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    stream.write_all(HELLO).await.unwrap();
    let mut seen = Vec::new();
    within("the end", stream.read_to_end(&mut seen)).await.unwrap();
    const PING: u8 = 6;
    assert!(seen.windows(4).any(|part| part == [0, 0, 8, PING]), "{seen:?}");
}

/// HEADERS of `GET http://h/` with END_STREAM.
fn get(stream: u32) -> Vec<u8> {
    let head = [0, 0, 6, 1, 5];
    [&head[..], &stream.to_be_bytes(), &[0x82, 0x86, 0x84, 0x41, 1, b'h']].concat()
}

#[tokio::test]
async fn client_that_reads_no_answers_is_not_read_for_ever() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    // Answered by the proxy itself, with a head and no more.
    crate::bed::host(&mut config).domains = vec!["other".into()];
    let bed = Bed::start(config);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    let mut stream = socket.connect(bed.address).await.unwrap();
    stream.write_all(HELLO).await.unwrap();
    let most = 400_000;
    let mut asked = 0;
    while asked < most {
        let batch: Vec<u8> = (asked..asked + 100).flat_map(|at| get(2 * at + 1)).collect();
        // Nothing arrives at the other end any more: no time tells that better than a second does.
        match tokio::time::timeout(Duration::from_secs(1), stream.write_all(&batch)).await {
            Ok(Ok(())) => {}
            // Ended, as a flood: all the better.
            Ok(Err(error)) => {
                assert!(
                    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                    "{error}"
                );
                break;
            }
            Err(_) => break,
        }
        asked += 100;
    }
    assert!(asked < most, "{asked} requests were taken");
}
