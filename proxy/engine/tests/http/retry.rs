//! Retries, and what is never retried.

use bytes::Bytes;
use http::Request;
use outrigger_testkit::Origin;
use outrigger_testkit::client::get;
use std::time::Duration;

use crate::bed::{Bed, action, cluster_at, host, retry_on, to, to_h2};

#[tokio::test]
async fn server_error_is_retried_until_it_succeeds() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    action(&mut config, 0).retry_policy = Some(retry_on(|on| on.server_error = true, 3));
    host(&mut config).include_attempt_count_in_response = true;
    host(&mut config).include_request_attempt_count = true;
    let bed = Bed::start(config);
    let response = get(bed.address, "h", "/flaky/a/2/503").await;
    assert_eq!((response.status, response.field("x-envoy-attempt-count")), (200, Some("3")));
    let counts: Vec<_> =
        origin.seen().iter().map(|seen| seen.field("x-envoy-attempt-count").map(str::to_owned)).collect();
    assert_eq!(counts, ["1", "2", "3"].map(|n| Some(n.to_owned())));
    assert_eq!(bed.cluster_stat("a", |stats| stats.upstream_rq_retry.value()), 2);
}

#[tokio::test]
async fn retries_end_at_the_limit_with_the_last_answer() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    action(&mut config, 0).retry_policy = Some(retry_on(|on| on.server_error = true, 2));
    let bed = Bed::start(config);
    assert_eq!(get(bed.address, "h", "/flaky/b/9/500").await.status, 500);
    assert_eq!(origin.requests(), 3);
}

#[tokio::test]
async fn post_that_reached_the_application_is_not_sent_again() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    action(&mut config, 0).retry_policy = Some(retry_on(|on| on.server_error = true, 3));
    let mut bed = Bed::start(config);
    let mut client = bed.h1().await;
    let response = client.request("POST", "/flaky/c/1/503", &[("host", "h")], b"x").await.unwrap();
    assert_eq!((response.status, origin.requests()), (503, 1));
    assert_eq!(bed.http_stat(|stats| stats.rq_retry_refused_not_idempotent.value()), 1);
    bed.change(|config| action(config, 0).retry_policy.as_mut().unwrap().retry_non_idempotent = true);
    let response = client.request("POST", "/flaky/d/1/503", &[("host", "h")], b"x").await.unwrap();
    assert_eq!((response.status, origin.requests()), (200, 3));
}

#[tokio::test]
async fn body_is_replayed_up_to_the_limit_and_not_past_it() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    action(&mut config, 0).retry_policy = Some(retry_on(|on| on.server_error = true, 1));
    host(&mut config).routes[0].per_request_buffer_limit_bytes = Some(1000);
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    let response = client.request("PUT", "/flaky/e/1/503", &[("host", "h")], &[b'p'; 1000]).await.unwrap();
    assert_eq!(response.status, 200);
    assert!(origin.seen().iter().all(|seen| seen.body.len() == 1000));
    let response = client.request("PUT", "/flaky/f/1/503", &[("host", "h")], &[b'p'; 1001]).await.unwrap();
    assert_eq!(response.status, 503);
    assert_eq!(bed.http_stat(|stats| stats.rq_retry_skipped_request_not_complete.value()), 1);
}

#[tokio::test]
async fn connect_failure_goes_to_another_host() {
    let origin = Origin::h1("one").await;
    let dead = Origin::h1("dead").await;
    let gone = dead.address();
    drop(dead);
    let mut config = to(&[&origin]);
    config.clusters[0] = cluster_at("a", &[gone, origin.address()]);
    let mut policy = retry_on(|on| on.connect_failure = true, 2);
    policy.avoid_previous_hosts = true;
    policy.host_selection_max_attempts = 5;
    action(&mut config, 0).retry_policy = Some(policy);
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    for _ in 0..10 {
        let response = client.request("POST", "/body", &[("host", "h")], b"abc").await.unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "abc"));
    }
}

#[tokio::test]
async fn connect_failure_without_policy_is_503_with_envoys_words() {
    let dead = Origin::h1("dead").await;
    let mut config = to(&[&dead]);
    config.clusters[0] = cluster_at("a", &[dead.address()]);
    drop(dead);
    let bed = Bed::start(config);
    let response = get(bed.address, "h", "/").await;
    assert_eq!(response.status, 503);
    assert!(response.text().starts_with("upstream connect error"), "{}", response.text());
}

#[tokio::test]
async fn idempotent_request_on_a_connection_closed_meanwhile_is_repeated_once() {
    let origin = Origin::h1("one").await;
    let bed = Bed::start(to(&[&origin]));
    let mut client = bed.h1().await;
    for _ in 0..20 {
        // The origin closes after this answer, without saying so.
        assert_eq!(client.request("GET", "/hangup", &[("host", "h")], b"").await.unwrap().status, 200);
        assert_eq!(client.request("GET", "/", &[("host", "h")], b"").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn refused_stream_is_repeated_even_for_post_but_not_for_ever() {
    let origin = Origin::h2c("two").await;
    let bed = Bed::start(to_h2(&[&origin]));
    let client = bed.h2().await;
    let request = Request::post("http://h/refuse").body(Bytes::from_static(b"")).unwrap();
    assert_eq!(client.request(request).await.unwrap().status, 503);
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn per_try_timeout_gives_another_attempt_its_chance() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    let mut policy = retry_on(|on| on.reset = true, 1);
    policy.per_try_timeout = Some(Duration::from_millis(50));
    action(&mut config, 0).retry_policy = Some(policy);
    let bed = Bed::start(config);
    let response = get(bed.address, "h", "/hang").await;
    assert_eq!((response.status, response.text().as_str()), (504, "upstream request timeout"));
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn grpc_unavailable_in_the_head_is_retried() {
    let origin = Origin::h2c("two").await;
    let mut config = to_h2(&[&origin]);
    let mut policy = retry_on(|on| on.grpc_unavailable = true, 2);
    policy.retry_non_idempotent = true;
    action(&mut config, 0).retry_policy = Some(policy);
    let bed = Bed::start(config);
    let client = bed.h2().await;
    let request = Request::post("http://h/grpc-only/14").header("content-type", "application/grpc");
    let response = client.request(request.body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!((response.field("grpc-status"), origin.requests()), (Some("14"), 3));
}
