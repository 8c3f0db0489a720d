//! HTTP/2 on either side.

use bytes::Bytes;
use http::Request;
use outrigger_testkit::Origin;
use outrigger_testkit::client::get;

use crate::bed::{Bed, manager, to, to_h2};

#[tokio::test]
async fn h2_to_h1_and_back() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let client = bed.h2().await;
    let response = client.get("h", "/bytes/100000").await.unwrap();
    assert_eq!((response.status, response.body.len(), response.origin()), (200, 100_000, "one"));
    let request = Request::post("http://h/body").body(Bytes::from(vec![b'u'; 300_000])).unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!((response.status, response.body.len()), (200, 300_000));
    assert!(origin.malformed().is_empty(), "{:?}", origin.malformed());
}

#[tokio::test]
async fn h1_to_h2_and_back() {
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    let response = get(bed.address, "h", "/chunked/10").await;
    assert_eq!((response.status, response.text().len(), response.origin()), (200, 50, "two"));
    let mut client = bed.h1().await;
    let body = vec![b'u'; 300_000];
    let response = client.request("POST", "/body", &[("host", "h")], &body).await.unwrap();
    assert_eq!((response.status, response.body == body), (200, true));
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn h2_to_h2_many_streams_share_one_connection() {
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    let client = bed.h2().await;
    let requests = (0..80).map(|i| {
        let client = &client;
        async move { client.get("h", &format!("/bytes/{i}")).await.unwrap().body.len() }
    });
    let mut sizes = Vec::new();
    for request in requests.collect::<Vec<_>>() {
        sizes.push(request.await);
    }
    assert_eq!(sizes, (0..80).collect::<Vec<_>>());
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn grpc_trailers_pass_through() {
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    let client = bed.h2().await;
    for (path, status) in [("/grpc/0", "0"), ("/grpc/13", "13")] {
        let request = Request::post(format!("http://h{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Bytes::from_static(b"\0\0\0\0\0"))
            .unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!((response.status, response.trailer("grpc-status")), (200, Some(status)), "{path}");
    }
}

#[tokio::test]
async fn local_reply_to_grpc_is_trailers_only() {
    let origin = Origin::h2c("two").await;
    let mut config = to_h2(&[&origin]);
    crate::bed::host(&mut config).domains = vec!["other".into()];
    let bed = Bed::start(config);
    let client = bed.h2().await;
    let request =
        Request::post("http://h/x").header("content-type", "application/grpc").body(Bytes::new()).unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!((response.status, response.field("grpc-status")), (200, Some("12")));
    assert_eq!(response.field("content-type"), Some("application/grpc"));
}

#[tokio::test]
async fn reset_stream_is_answered_without_harm_to_others() {
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    let client = bed.h2().await;
    assert_eq!(client.get("h", "/reset").await.unwrap().status, 503);
    let cut = client.get("h", "/abort").await;
    // The reset may overtake the head; whichever it was, the response is not passed off as whole.
    assert!(cut.as_ref().is_err() || cut.as_ref().is_ok_and(|response| response.status == 503), "{cut:?}");
    assert_eq!(client.get("h", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn fields_above_the_limit_are_refused_and_at_the_limit_served() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).max_headers_count = 10;
    let bed = Bed::start(config);
    let client = bed.h2().await;
    for (count, status) in [(10, 200), (11, 431)] {
        let mut request = Request::get("http://h/");
        for i in 0..count {
            request = request.header(format!("x-{i}"), "v");
        }
        let response = client.request(request.body(Bytes::new()).unwrap()).await.unwrap();
        assert_eq!(response.status, status, "{count} fields");
    }
}

#[tokio::test]
async fn smuggled_heads_over_h2_are_refused() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let client = bed.h2().await;
    for request in [
        Request::get("http://h/").header("host", "evil"),
        Request::get("http://u@h/"),
        Request::post("http://h/").header("content-length", "1").header("content-length", "2"),
    ] {
        let outcome = client.request(request.body(Bytes::new()).unwrap()).await;
        assert!(outcome.is_err() || outcome.is_ok_and(|response| response.status == 400));
    }
    assert_eq!(origin.requests(), 0);
}
