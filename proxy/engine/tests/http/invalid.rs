//! Invalid messages, and what becomes of their connection (`stream_error_on_invalid_http_message`).

use outrigger_testkit::Origin;

use crate::bed::{Bed, manager, to};

/// More fields nominated than are looked for: refused, but it is known where the request ends.
fn framed() -> String {
    let names: Vec<String> = (0..40).map(|n| format!("x-{n}")).collect();
    format!("GET / HTTP/1.1\r\nhost: h\r\nconnection: {}\r\n\r\n", names.join(","))
}

#[tokio::test]
async fn connection_goes_on_after_an_invalid_request_only_where_that_is_wanted() {
    let origin = Origin::h1("one").await;
    for wanted in [false, true] {
        let mut config = to(&[&origin]);
        manager(&mut config).stream_error_on_invalid_http_message = wanted;
        let bed = Bed::start(config);
        let mut client = bed.h1().await;
        client.send(framed().as_bytes()).await.unwrap();
        let response = client.response("GET").await.unwrap();
        let said = response.field("connection");
        assert_eq!((response.status, said), (400, (!wanted).then_some("close")), "{wanted}");
        if wanted {
            assert_eq!(client.request("GET", "/", &[("host", "h")], b"").await.unwrap().status, 200);
        } else {
            assert!(client.is_closed().await);
        }
    }
}

#[tokio::test]
async fn connection_whose_framing_is_lost_is_closed_either_way() {
    let origin = Origin::h1("one").await;
    for wanted in [false, true] {
        let mut config = to(&[&origin]);
        manager(&mut config).stream_error_on_invalid_http_message = wanted;
        let bed = Bed::start(config);
        let mut client = bed.h1().await;
        client
            .send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(client.response("POST").await.unwrap().status, 400);
        assert!(client.is_closed().await, "{wanted}");
    }
    assert_eq!(origin.requests(), 0);
}
