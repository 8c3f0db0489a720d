//! The chain of filters: order, overrides by level, waiting, answering, and what is done to responses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use outrigger_engine::filter::{LocalReply, RequestFilter, Said};
use outrigger_engine::listener::ConnFacts;
use outrigger_engine::proxy::ProxyOptions;
use outrigger_testkit::{Origin, Response};
use outrigger_traffic::config::{
    ClusterChoice, Config, CorsPolicy, CsrfPolicy, Fault, FaultAbort, FaultDelay, FilterConfig,
    FilterOverride, Fraction, HeaderAppend, HeaderEdit, HeaderMutation, HeaderMutationFilter,
    HeaderMutations, HttpFilter, LocalDescriptor, LocalRateLimit, RateLimitAction, RateLimitRule,
    RouteFilterConfig, StringMatch, TokenBucket, VirtualHostRules, WeightedCluster,
};
use outrigger_wire::{RequestHead, ResponseHead};

use crate::bed::{Bed, action, cluster, forward, host, manager, to, to_h2};

/// A filter that does what its letter says, and writes it down in the request and the response.
#[derive(Debug)]
struct Scribe(&'static str);

impl RequestFilter for Scribe {
    fn on_request(&self, request: &mut RequestHead, _facts: &ConnFacts) -> Said {
        request.fields.append(b"x-seen", self.0.as_bytes());
        match request.fields.get(b"x-do") {
            Some(b"answer") if self.0 == "b" => Said::Answer(LocalReply {
                status: 418,
                body: b"short and stout".to_vec(),
                fields: vec![(b"x-by".to_vec(), b"b".to_vec())],
                details: "teapot".into(),
            }),
            Some(b"wait") => Said::Wait(Box::pin(async {
                tokio::task::yield_now().await;
                Said::Next
            })),
            Some(b"reroute") if self.0 == "a" => {
                request.set_path(b"/other");
                Said::Reroute
            }
            _ => Said::Next,
        }
    }

    fn on_response(&self, response: &mut ResponseHead) {
        response.fields.append(b"x-seen", self.0.as_bytes());
    }
}

fn all<'f>(fields: &'f [(String, String)], name: &str) -> Vec<&'f str> {
    fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
}

/// A GET of `/` over HTTP/2; `host` becomes the authority.
async fn h2_get(bed: &Bed, headers: &[(&str, &str)]) -> Response {
    let mut request = http::Request::get("http://h/");
    for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
        request = request.header(*name, *value);
    }
    bed.h2().await.request(request.body(bytes::Bytes::new()).unwrap()).await.unwrap()
}

fn with_scribes(mut config: Config) -> Bed {
    for name in ["a", "b", "c"] {
        manager(&mut config).http_filters.push(HttpFilter::new(name, FilterConfig::Registered(name.into())));
    }
    let scribe = |name: &'static str| (name.to_owned(), Arc::new(Scribe(name)) as Arc<dyn RequestFilter>);
    let filters = HashMap::from([scribe("a"), scribe("b"), scribe("c")]);
    Bed::start_with(ProxyOptions { filters, ..ProxyOptions::default() }, config)
}

#[tokio::test]
async fn filters_run_in_order_and_backwards_on_the_response_whether_they_wait_or_not() {
    for two in [false, true] {
        let origin = if two { Origin::h2c("one").await } else { Origin::h1("one").await };
        let bed = with_scribes(if two { to_h2(&[&origin]) } else { to(&[&origin]) });
        for what in ["nothing", "wait"] {
            let headers = [("host", "h"), ("x-do", what)];
            let response = if two {
                h2_get(&bed, &headers).await
            } else {
                bed.h1().await.request("GET", "/", &headers, b"").await.unwrap()
            };
            assert_eq!(response.status, 200, "{what}");
            assert_eq!(all(&response.fields, "x-seen"), ["c", "b", "a"], "{what}");
            let seen = origin.seen().pop().expect("a request");
            assert_eq!(all(&seen.fields, "x-seen"), ["a", "b", "c"], "{what}");
        }
    }
}

#[tokio::test]
async fn answer_of_a_filter_passes_those_before_it_only() {
    let origin = Origin::h1("one").await;
    let bed = with_scribes(to(&[&origin]));
    let headers = [("host", "h"), ("x-do", "answer")];
    let response = bed.h1().await.request("GET", "/", &headers, b"").await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (418, "short and stout"));
    assert_eq!(all(&response.fields, "x-by"), ["b"]);
    assert_eq!(all(&response.fields, "x-seen"), ["b", "a"]);
}

#[tokio::test]
async fn filter_that_changes_the_request_may_have_its_route_found_again() {
    let (one, two) = (Origin::h1("one").await, Origin::h1("two").await);
    let mut config = to(&[&one]);
    config.clusters.push(cluster("b", &[&two]));
    host(&mut config).routes.insert(0, forward("/other", "b"));
    let bed = with_scribes(config);
    let headers = [("host", "h"), ("x-do", "reroute")];
    let response = bed.h1().await.request("GET", "/", &headers, b"").await.unwrap();
    assert_eq!(response.origin(), "two");
}

#[tokio::test]
async fn filter_that_is_not_registered_is_refused() {
    let origin = Origin::h1("one").await;
    let mut bed = Bed::start(to(&[&origin]));
    manager(&mut bed.config).http_filters.push(HttpFilter::new("x", FilterConfig::Registered("gone".into())));
    let errors = bed.handle.apply(bed.config.clone()).expect_err("no such filter");
    assert!(format!("{errors:?}").contains("no filter `gone` is registered"), "{errors:?}");
}

fn aborting(status: u16) -> Fault {
    Fault { abort: Some(FaultAbort::Http(status, Fraction::ONE)), ..Fault::default() }
}

#[tokio::test]
async fn levels_override_a_filter_and_the_most_specific_one_wins() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    config.clusters.push(cluster("b", &[&origin]));
    let with = |status| FilterOverride::with(RouteFilterConfig::Fault(Box::new(aborting(status))));
    let mut fault = HttpFilter::new("f", FilterConfig::Fault(Box::new(aborting(500))));
    fault.disabled = true;
    manager(&mut config).http_filters.push(fault);
    let paths = [("/on", FilterOverride::On), ("/with", with(501)), ("/off", FilterOverride::Off)];
    for (path, word) in paths {
        let mut route = forward(path, "a");
        route.filters = Some([("f".into(), word)].into());
        host(&mut config).routes.insert(0, route);
    }
    let mut shares = forward("/share", "a");
    shares.filters = Some([("f".into(), with(502))].into());
    host(&mut config).routes.insert(0, shares);
    let share = |weight, filters| WeightedCluster {
        name: "a".into(),
        weight,
        cluster_header: None,
        headers: Default::default(),
        host_rewrite: None,
        metadata_match: Vec::new(),
        filters,
    };
    let own = Some([("f".into(), with(503))].into());
    action(&mut config, 0).cluster = ClusterChoice::Weighted(vec![share(0, None), share(1, own)]);
    let mut bed = Bed::start(config);
    let cases = [("/on", 500), ("/with", 501), ("/off", 200), ("/share", 503), ("/", 200)];
    for (path, status) in cases {
        let response = bed.h1().await.request("GET", path, &[("host", "h")], b"").await.unwrap();
        assert_eq!(response.status, status, "{path}");
    }
    bed.change(|config| host(config).filters = Some([("f".into(), with(504))].into()));
    let response = bed.h1().await.request("GET", "/", &[("host", "h")], b"").await.unwrap();
    assert_eq!(response.status, 504, "the virtual host's");
}

#[tokio::test]
async fn faults_delay_and_abort_and_count() {
    for two in [false, true] {
        let origin = if two { Origin::h2c("one").await } else { Origin::h1("one").await };
        let mut config = if two { to_h2(&[&origin]) } else { to(&[&origin]) };
        let delay = FaultDelay { fixed: Some(Duration::from_millis(30)), percentage: Fraction::ONE };
        let abort = Some(FaultAbort::Header(Fraction::ONE));
        let fault = Fault { delay: Some(delay), abort, ..Fault::default() };
        manager(&mut config).http_filters.push(HttpFilter::new("f", FilterConfig::Fault(Box::new(fault))));
        let bed = Bed::start(config);
        let cases = [("x-none", "1", 200), ("x-envoy-fault-abort-request", "418", 418)];
        for (name, value, status) in cases {
            let headers = [("host", "h"), (name, value)];
            let before = std::time::Instant::now();
            let response = if two {
                h2_get(&bed, &headers).await
            } else {
                bed.h1().await.request("GET", "/", &headers, b"").await.unwrap()
            };
            assert_eq!(response.status, status);
            assert!(before.elapsed() >= Duration::from_millis(30));
        }
        let counts = |bed: &Bed| {
            bed.http_stat(|s| s.fault_delays_injected.value()) * 10
                + bed.http_stat(|s| s.fault_aborts_injected.value())
        };
        assert_eq!(counts(&bed), 21);
    }
}

#[tokio::test]
async fn cors_answers_preflights_and_lets_origins_in() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).http_filters.push(HttpFilter::new("c", FilterConfig::Cors));
    let of_host = CorsPolicy { max_age: "7".into(), allow_methods: "GET".into(), ..CorsPolicy::default() };
    let of_route = CorsPolicy {
        allow_origin: vec![StringMatch::exact("https://good")],
        allow_methods: "GET,PUT".into(),
        expose_headers: "x-a".into(),
        allow_credentials: Some(true),
        ..CorsPolicy::default()
    };
    let cors =
        |policy| Some([("c".into(), FilterOverride::with(RouteFilterConfig::Cors(Box::new(policy))))].into());
    host(&mut config).filters = cors(of_host);
    host(&mut config).routes[0].filters = cors(of_route);
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    let headers = [("host", "h"), ("origin", "https://good"), ("access-control-request-method", "PUT")];
    let preflight = client.request("OPTIONS", "/", &headers, b"").await.unwrap();
    assert_eq!((preflight.status, origin.requests()), (200, 0));
    assert_eq!(all(&preflight.fields, "access-control-allow-origin"), ["https://good"]);
    assert_eq!(all(&preflight.fields, "access-control-allow-methods"), ["GET,PUT"]);
    assert_eq!(all(&preflight.fields, "access-control-max-age"), ["7"]);
    let response = client.request("GET", "/", &headers[..2], b"").await.unwrap();
    assert_eq!(all(&response.fields, "access-control-allow-origin"), ["https://good"]);
    assert_eq!(all(&response.fields, "access-control-allow-credentials"), ["true"]);
    assert_eq!(all(&response.fields, "access-control-expose-headers"), ["x-a"]);
    let other = [("host", "h"), ("origin", "https://bad"), ("access-control-request-method", "PUT")];
    let response = client.request("OPTIONS", "/", &other, b"").await.unwrap();
    assert!(all(&response.fields, "access-control-allow-origin").is_empty() && origin.requests() == 2);
    assert_eq!(bed.http_stat(|s| s.cors_origin_valid.value() * 10 + s.cors_origin_invalid.value()), 21);
}

#[tokio::test]
async fn csrf_refuses_changes_from_pages_of_other_hosts() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    let policy = CsrfPolicy {
        enabled: Fraction::ONE,
        additional_origins: vec![StringMatch::exact("friend:81")],
        ..CsrfPolicy::default()
    };
    manager(&mut config).http_filters.push(HttpFilter::new("c", FilterConfig::Csrf(Box::new(policy))));
    let bed = Bed::start(config);
    for (method, name, value, status) in [
        ("GET", "origin", "http://other", 200),
        ("POST", "origin", "http://other", 403),
        ("POST", "origin", "http://h", 200),
        ("POST", "referer", "http://h/page?x=1", 200),
        ("PUT", "origin", "https://friend:81", 200),
        ("DELETE", "x-none", "1", 403),
        ("PATCH", "origin", "null", 403),
    ] {
        let response =
            bed.h1().await.request(method, "/", &[("host", "h"), (name, value)], b"").await.unwrap();
        assert_eq!(response.status, status, "{method} {name} {value}");
    }
    assert_eq!(bed.http_stat(|s| s.csrf_missing_source_origin.value()), 1);
}

fn set(name: &str, value: &str) -> HeaderMutation {
    HeaderMutation::Set(HeaderEdit {
        name: name.into(),
        value: value.into(),
        append: HeaderAppend::OverwriteIfExistsOrAdd,
        keep_empty_value: false,
    })
}

#[tokio::test]
async fn header_mutations_of_all_levels_are_made_and_the_order_is_the_filters() {
    for specific_wins in [false, true] {
        let origin = Origin::h1("one").await;
        let mut config = to(&[&origin]);
        let mutations = |level: &str| HeaderMutations {
            request: vec![set("x-level", level), set(&format!("x-{level}"), "1")],
            response: vec![
                set("x-level", level),
                HeaderMutation::RemoveMatching(StringMatch::exact("x-origin-gone")),
            ],
        };
        let filter =
            HeaderMutationFilter { mutations: mutations("filter"), most_specific_wins: specific_wins };
        let filter = HttpFilter::new("m", FilterConfig::HeaderMutation(Box::new(filter)));
        manager(&mut config).http_filters.push(filter);
        let level = |name| {
            let settings = RouteFilterConfig::HeaderMutation(Box::new(mutations(name)));
            Some([("m".into(), FilterOverride::with(settings))].into())
        };
        host(&mut config).filters = level("host");
        host(&mut config).routes[0].filters = level("route");
        let bed = Bed::start(config);
        let response = bed.h1().await.request("GET", "/", &[("host", "h")], b"").await.unwrap();
        let winner = if specific_wins { "route" } else { "host" };
        assert_eq!(all(&response.fields, "x-level"), [winner]);
        let seen = origin.seen().pop().expect("a request");
        assert_eq!(all(&seen.fields, "x-level"), [winner]);
        assert_eq!(["x-filter", "x-host", "x-route"].map(|name| all(&seen.fields, name).len()), [1, 1, 1]);
    }
}

#[tokio::test]
async fn local_rate_limit_refuses_at_the_limit_and_by_descriptor() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    let bucket =
        |max_tokens| TokenBucket { max_tokens, tokens_per_fill: 1, fill_interval: Duration::from_secs(3600) };
    let limit = LocalRateLimit {
        status: 429,
        bucket: Some(bucket(3)),
        descriptors: vec![LocalDescriptor {
            entries: vec![("user".into(), "bob".into())],
            bucket: bucket(1),
        }],
        enabled: Fraction::ONE,
        enforced: Fraction::ONE,
        request_add_when_not_enforced: Vec::new(),
        response_add: vec![HeaderEdit {
            name: "x-limited".into(),
            value: "yes".into(),
            append: HeaderAppend::AppendIfExistsOrAdd,
            keep_empty_value: false,
        }],
        stage: 0,
        rate_limit_headers: true,
        virtual_host: VirtualHostRules::Override,
        always_consume_default: false,
        per_connection: false,
        as_resource_exhausted: false,
        rules: Vec::new(),
    };
    let filter = HttpFilter::new("l", FilterConfig::LocalRateLimit(Box::new(limit)));
    manager(&mut config).http_filters.push(filter);
    let by_user =
        RateLimitAction::RequestHeader { name: "x-user".into(), key: "user".into(), skip_if_absent: false };
    action(&mut config, 0).rate_limits =
        vec![RateLimitRule { stage: 0, actions: vec![by_user], hits: None, limit: Vec::new() }];
    let mut bed = Bed::start(config);
    let mut client = bed.h1().await;
    let mut seen = Vec::new();
    for user in ["bob", "bob", "ann", "ann", "ann", "ann"] {
        let response = client.request("GET", "/", &[("host", "h"), ("x-user", user)], b"").await.unwrap();
        let remaining = all(&response.fields, "x-ratelimit-remaining").join(",");
        assert_eq!(response.status == 429, all(&response.fields, "x-limited") == ["yes"]);
        seen.push((response.status, remaining));
    }
    let seen: Vec<(u16, &str)> = seen.iter().map(|(status, left)| (*status, left.as_str())).collect();
    assert_eq!(seen, [(200, "0"), (429, "0"), (200, "2"), (200, "1"), (200, "0"), (429, "0")]);
    assert_eq!(bed.http_stat(|s| s.local_rate_limit_enforced.value()), 2);
    // Buckets of its own for each connection, and a request that counts as two.
    bed.change(|config| {
        action(config, 0).rate_limits[0].hits = Some(2);
        let FilterConfig::LocalRateLimit(limit) = &mut manager(config).http_filters[0].config else {
            panic!()
        };
        (limit.per_connection, limit.descriptors[0].bucket) = (true, bucket(3));
    });
    for _ in 0..2 {
        let mut client = bed.h1().await;
        for (user, status) in
            [("bob", 200), ("bob", 429), ("ann", 200), ("ann", 200), ("ann", 200), ("ann", 429)]
        {
            let response = client.request("GET", "/", &[("host", "h"), ("x-user", user)], b"").await.unwrap();
            assert_eq!(response.status, status, "{user}");
        }
    }
}
