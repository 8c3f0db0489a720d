//! Sessions that stay with their host.

use std::time::Duration;

use outrigger_testkit::Origin;
use outrigger_traffic::config::{
    Config, FilterConfig, FilterOverride, FilterOverrides, HashCookie, HealthStatus, HttpFilter,
    RouteFilterConfig, SessionRoute, SessionState, StatefulSession,
};

use crate::bed::{Bed, host, manager, retry_on, to};

fn by_cookie(strict: bool) -> StatefulSession {
    let state = SessionState::Cookie(HashCookie {
        name: "sid".into(),
        ttl: Some(Duration::from_secs(60)),
        path: "/app".into(),
        attributes: vec![("SameSite".into(), "Lax".into())],
    });
    StatefulSession { state: Some(state), strict, counted: true }
}

fn with(config: &mut Config, session: StatefulSession) {
    let filter = FilterConfig::StatefulSession(Box::new(session));
    manager(config).http_filters.push(HttpFilter::new("session", filter));
}

fn pair(cookie: &str) -> String {
    cookie.split(';').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn cookie_keeps_its_client_with_the_host_over_either_protocol() {
    let origins = [Origin::h1("0").await, Origin::h1("1").await, Origin::h1("2").await];
    let mut config = to(&[&origins[0], &origins[1], &origins[2]]);
    with(&mut config, by_cookie(false));
    let bed = Bed::start(config);
    let (mut h1, h2) = (bed.h1().await, bed.h2().await);
    for _ in 0..4 {
        let first = h1.request("GET", "/app/x", &[("host", "h")], b"").await.unwrap();
        let made = first.field("set-cookie").expect("a cookie").to_owned();
        assert!(made.ends_with("\"; Max-Age=60; Path=/app; SameSite=Lax; HttpOnly"), "{made}");
        for _ in 0..3 {
            let fields = [("host", "h"), ("cookie", &*format!("a=b; {}", pair(&made)))];
            let answer = h1.request("GET", "/app", &fields, b"").await.unwrap();
            assert_eq!((answer.origin(), answer.field("set-cookie")), (first.origin(), None));
            let request = http::Request::get("http://h/app").header("cookie", pair(&made));
            let answer = h2.request(request.body(bytes::Bytes::new()).unwrap()).await.unwrap();
            assert_eq!((answer.origin(), answer.field("set-cookie")), (first.origin(), None));
        }
    }
    let elsewhere = h1.request("GET", "/other", &[("host", "h")], b"").await.unwrap();
    assert_eq!(elsewhere.field("set-cookie"), None, "the cookie is not for this path");
    assert_eq!(bed.http_stat(|s| s.stateful_session_routed.value()), 24);
    assert_eq!(bed.http_stat(|s| s.stateful_session_failed_open.value()), 4);
    assert_eq!(bed.http_stat(|s| s.stateful_session_no_session.value()), 1);
}

#[tokio::test]
async fn header_names_the_host_and_route_can_have_other_sessions_or_none() {
    let origins = [Origin::h1("0").await, Origin::h1("1").await];
    for (route, expected) in [
        (None, Some("sid")),
        (Some(SessionRoute::Disabled), None),
        (
            Some(SessionRoute::Instead(StatefulSession {
                state: Some(SessionState::Header("x-session".into())),
                strict: false,
                counted: false,
            })),
            Some("x-session"),
        ),
    ] {
        let mut config = to(&[&origins[0], &origins[1]]);
        let mut session = by_cookie(false);
        session.state = Some(SessionState::Header("sid".into()));
        with(&mut config, session);
        host(&mut config).filters = route.map(|route| {
            let word = FilterOverride::with(RouteFilterConfig::StatefulSession(Box::new(route)));
            FilterOverrides::from([("session".to_owned(), word)])
        });
        let bed = Bed::start(config);
        let mut client = bed.h1().await;
        let first = client.request("GET", "/", &[("host", "h")], b"").await.unwrap();
        let Some(name) = expected else {
            assert!(first.field("sid").is_none() && first.field("x-session").is_none());
            continue;
        };
        let value = first.field(name).expect("a session").to_owned();
        for _ in 0..5 {
            let answer = client.request("GET", "/", &[("host", "h"), (name, &value)], b"").await.unwrap();
            assert_eq!((answer.origin(), answer.field(name)), (first.origin(), None));
        }
    }
}

#[tokio::test]
async fn session_whose_host_is_sick_gets_another_one_or_is_refused_where_it_is_strict() {
    let origins = [Origin::h1("0").await, Origin::h1("1").await];
    for strict in [false, true] {
        let mut config = to(&[&origins[0], &origins[1]]);
        with(&mut config, by_cookie(strict));
        let mut bed = Bed::start(config);
        let mut client = bed.h1().await;
        let first = client.request("GET", "/app", &[("host", "h")], b"").await.unwrap();
        let cookie = pair(first.field("set-cookie").expect("a cookie"));
        let sick: usize = first.origin().parse().unwrap();
        let set = |health| {
            move |config: &mut Config| {
                let outrigger_traffic::config::ClusterDiscovery::Static(endpoints) =
                    &mut config.clusters[0].discovery
                else {
                    panic!("a static cluster")
                };
                endpoints.localities[0].endpoints[sick].health = health;
            }
        };
        let fields = [("host", "h"), ("cookie", cookie.as_str())];
        bed.change(set(HealthStatus::Degraded));
        let answer = bed.h1().await.request("GET", "/app", &fields, b"").await.unwrap();
        assert_eq!((answer.status, answer.origin()), (200, first.origin()), "degraded is good enough");
        bed.change(set(HealthStatus::Draining));
        let answer = bed.h1().await.request("GET", "/app", &fields, b"").await.unwrap();
        if strict {
            assert_eq!((answer.status, answer.text().as_str()), (503, "no healthy upstream"));
            assert!(answer.field("set-cookie").is_none());
        } else {
            assert_eq!(answer.status, 200);
            assert_ne!(answer.origin(), first.origin());
            assert!(answer.field("set-cookie").is_some());
        }
        bed.change(|config| config.clusters[0].override_host_status = vec![HealthStatus::Draining]);
        let answer = bed.h1().await.request("GET", "/app", &fields, b"").await.unwrap();
        assert_eq!((answer.status, answer.origin()), (200, first.origin()));
    }
}

#[tokio::test]
async fn retry_of_a_session_goes_where_the_policy_says() {
    let origins = [Origin::h1("0").await, Origin::h1("1").await];
    let mut config = to(&[&origins[0], &origins[1]]);
    let mut session = by_cookie(true);
    session.state = Some(SessionState::Header("x-session".into()));
    with(&mut config, session);
    crate::bed::action(&mut config, 0).retry_policy = Some(retry_on(|on| on.server_error = true, 5));
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    let first = client.request("GET", "/app", &[("host", "h")], b"").await.unwrap();
    let kept = first.field("x-session").expect("a session").to_owned();
    let before: Vec<usize> = origins.iter().map(Origin::requests).collect();
    let fields = [("host", "h"), ("x-session", kept.as_str())];
    let _ = client.request("GET", "/status/503", &fields, b"").await.unwrap();
    let asked: Vec<usize> = origins.iter().zip(before).map(|(origin, old)| origin.requests() - old).collect();
    assert!(asked.iter().all(|count| *count > 0), "{asked:?}");
}
