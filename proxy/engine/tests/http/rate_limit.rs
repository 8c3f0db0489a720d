//! Rate limits that a service keeps: what it is told, and what becomes of what it says.

use std::time::Duration;

use outrigger_testkit::{Origin, Response};
use outrigger_traffic::config::{
    FilterConfig, FilterOverride, Fraction, GrpcTarget, HttpFilter, RateLimit, RateLimitAction,
    RateLimitRoute, RateLimitRule, RateLimited, RouteFilterConfig, VirtualHostRules,
};

use crate::bed::{Bed, action, forward, host, manager, to};
use crate::ext_authz::bytes;
use crate::service::{Asked, Service, Told};

fn filter() -> RateLimit {
    RateLimit {
        domain: "edge".into(),
        target: GrpcTarget {
            cluster: "limits".into(),
            timeout: Duration::from_secs(5),
            ..GrpcTarget::default()
        },
        stage: 0,
        requests: RateLimited::All,
        failure_deny: Fraction::ZERO,
        as_resource_exhausted: false,
        rate_limit_headers: true,
        ratelimited_header: true,
        status: 429,
        status_on_error: 500,
        response_add: Vec::new(),
        enabled: Fraction::ONE,
        enforced: Fraction::ONE,
        rules: Vec::new(),
    }
}

fn rule(actions: Vec<RateLimitAction>) -> RateLimitRule {
    RateLimitRule { stage: 0, actions, hits: None, limit: Vec::new() }
}

/// Refuses every second request of `bob`, and does not know `eve`.
fn says(asked: &Asked, number: usize) -> Told {
    let text = String::from_utf8_lossy(&asked.body).into_owned();
    if text.contains("eve") {
        return Told { status: 200, grpc_status: Some(13), ..Told::default() };
    }
    let over = text.contains("bob") && number.is_multiple_of(2);
    let limit = bytes(2, &[&[8, 10, 16, 2][..], &bytes(3, b"per-user")].concat());
    let status =
        bytes(2, &[&[8, if over { 2 } else { 1 }][..], &limit, &[24, 3], &bytes(4, &[8, 40])].concat());
    let header = |field, name: &str| bytes(field, &[bytes(1, name.as_bytes()), bytes(2, b"v")].concat());
    let mut message = vec![8, if over { 2 } else { 1 }];
    message.extend(status);
    message.extend(header(3, "x-down"));
    message.extend(header(4, "x-up"));
    if over {
        message.extend(bytes(5, b"slow down"));
    }
    Told::message(&message)
}

fn bed(origin: &Origin, service: &Service, limit: RateLimit) -> Bed {
    let mut config = to(&[origin]);
    config.clusters.push(service.cluster("limits", true));
    manager(&mut config).http_filters.push(HttpFilter::new("l", FilterConfig::RateLimit(Box::new(limit))));
    let by_user =
        RateLimitAction::RequestHeader { name: "x-user".into(), key: "user".into(), skip_if_absent: false };
    let together = vec![
        by_user,
        RateLimitAction::DestinationCluster,
        RateLimitAction::Generic(String::new(), "all".into()),
    ];
    action(&mut config, 0).rate_limits = vec![rule(together)];
    host(&mut config).rate_limits = vec![rule(vec![RateLimitAction::Generic("of".into(), "host".into())])];
    let mut own = forward("/own", "a");
    let settings = RouteFilterConfig::RateLimit(Box::new(RateLimitRoute {
        virtual_host: VirtualHostRules::Include,
        rules: Vec::new(),
        domain: "other".into(),
    }));
    own.filters = Some([("l".into(), FilterOverride::with(settings))].into());
    host(&mut config).routes.insert(0, own);
    Bed::start(config)
}

async fn get(bed: &Bed, path: &str, fields: &[(&str, &str)]) -> Response {
    let fields: Vec<_> = [("host", "h")].iter().chain(fields).copied().collect();
    bed.h1().await.request("GET", path, &fields, b"").await.unwrap()
}

#[tokio::test]
async fn service_counts_and_its_word_is_done() {
    let origin = Origin::h1("one").await;
    let service = Service::start(true, says).await;
    let bed = bed(&origin, &service, filter());
    let response = get(&bed, "/", &[("x-user", "bob")]).await;
    assert_eq!((response.status, response.field("x-down")), (200, Some("v")));
    let told = ["limit", "remaining", "reset"]
        .map(|what| response.field(&format!("x-ratelimit-{what}")).map(str::to_owned).unwrap_or_default());
    assert_eq!(told, ["10, 10;w=60;name=\"per-user\"", "3", "40"]);
    assert_eq!(origin.seen()[0].field("x-up"), Some("v"));
    let asked = service.asked().pop().unwrap();
    assert_eq!(asked.path, "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
    let entry =
        |key: &str, value: &str| bytes(1, &[bytes(1, key.as_bytes()), bytes(2, value.as_bytes())].concat());
    let descriptor =
        [entry("user", "bob"), entry("destination_cluster", "a"), entry("generic_key", "all")].concat();
    assert_eq!(asked.body[5..], [bytes(1, b"edge"), bytes(2, &descriptor)].concat());
    let response = get(&bed, "/", &[("x-user", "bob")]).await;
    assert_eq!((response.status, response.text().as_str()), (429, "slow down"));
    assert_eq!((response.field("x-envoy-ratelimited"), response.field("x-down")), (Some("true"), Some("v")));
    // A request without the header has no descriptor, and the service is not asked.
    assert_eq!(get(&bed, "/", &[]).await.status, 200);
    assert_eq!((service.asked().len(), origin.requests()), (2, 2));
    // The route has no rules; those of the host count, under its own domain.
    assert_eq!(get(&bed, "/own", &[]).await.status, 200);
    let asked = service.asked().pop().unwrap();
    assert_eq!(asked.body[5..], [bytes(1, b"other"), bytes(2, &entry("of", "host"))].concat());
    assert_eq!(bed.http_stat(|s| s.ratelimit_over_limit.value() * 10 + s.ratelimit_ok.value()), 12);
}

#[tokio::test]
async fn service_that_does_not_answer_refuses_only_where_it_is_said() {
    let origin = Origin::h1("one").await;
    let service = Service::start(true, says).await;
    let mut bed = bed(&origin, &service, filter());
    assert_eq!(get(&bed, "/", &[("x-user", "eve")]).await.status, 200);
    bed.change(|config| {
        let FilterConfig::RateLimit(limit) = &mut manager(config).http_filters[0].config else { panic!() };
        limit.failure_deny = Fraction::ONE;
    });
    let response = get(&bed, "/", &[("x-user", "eve")]).await;
    assert_eq!((response.status, response.text().as_str()), (500, ""));
    assert_eq!(bed.http_stat(|s| s.ratelimit_error.value()), 2);
    assert_eq!(bed.http_stat(|s| s.ratelimit_failure_mode_allowed.value()), 1);
    bed.change(|config| {
        let FilterConfig::RateLimit(limit) = &mut manager(config).http_filters[0].config else { panic!() };
        limit.requests = RateLimited::Internal;
    });
    assert_eq!(get(&bed, "/", &[("x-user", "eve")]).await.status, 200, "it is not from inside");
}
