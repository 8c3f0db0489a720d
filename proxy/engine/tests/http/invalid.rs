//! Invalid messages, and what becomes of their connection (`stream_error_on_invalid_http_message`).

use bytes::Bytes;
use http::Request;
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

#[tokio::test]
async fn fields_with_underscores_pass_go_or_refuse_the_request_as_configured() {
    use outrigger_traffic::config::Underscores;
    let origin = Origin::h1("one").await;
    for action in [Underscores::Allow, Underscores::DropHeader, Underscores::RejectRequest] {
        let mut config = to(&[&origin]);
        manager(&mut config).headers_with_underscores = action;
        let bed = Bed::start(config);
        let fields = [("host", "h"), ("x_a", "1"), ("x-b", "2")];
        let answer = bed.h1().await.request("GET", "/", &fields, b"").await.unwrap();
        let request = Request::get("http://h/").header("x_a", "1").header("x-b", "2").body(Bytes::new());
        let over_h2 = bed.h2().await.request(request.unwrap()).await;
        if action == Underscores::RejectRequest {
            assert_eq!(answer.status, 400);
            assert!(over_h2.is_err(), "the stream is reset");
            assert_eq!(bed.http_stat(|s| s.requests_rejected_with_underscores_in_headers.value()), 2);
            continue;
        }
        assert_eq!((answer.status, over_h2.unwrap().status), (200, 200));
        let dropped = action == Underscores::DropHeader;
        let seen = origin.seen();
        let last = seen.last().unwrap();
        assert_eq!((last.field("x_a"), last.field("x-b")), ((!dropped).then_some("1"), Some("2")));
        let count = bed.http_stat(|s| s.dropped_headers_with_underscores.value());
        assert_eq!(count, if dropped { 2 } else { 0 });
    }
}

#[tokio::test]
async fn port_and_dot_are_taken_off_the_host_as_configured() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).strip_matching_host_port = true;
    manager(&mut config).strip_trailing_host_dot = true;
    crate::bed::host(&mut config).domains = vec!["a.test".into(), "b.test:1".into()];
    let bed = Bed::start(config);
    let port = bed.address.port();
    for (host, status) in [
        (format!("a.test:{port}"), 200),
        (format!("a.test.:{port}"), 200),
        ("a.test.".to_owned(), 200),
        ("b.test.:1".to_owned(), 200),
        ("a.test:1".to_owned(), 404),
        ("a.test..".to_owned(), 404),
    ] {
        let answer = bed.h1().await.request("GET", "/", &[("host", &host)], b"").await.unwrap();
        assert_eq!(answer.status, status, "{host}");
    }
}
