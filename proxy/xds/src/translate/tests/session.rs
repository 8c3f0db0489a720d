//! Sessions, as the filter and as routes say it.

use super::{message, reasons, translate_cluster, translate_route_config};
use outrigger_api::envoy::config::route::v3::RouteConfiguration;
use outrigger_traffic::config::{
    ConfigError, FilterOverride, HashCookie, HealthStatus, RouteFilterConfig, SessionRoute, SessionState,
    StatefulSession,
};
use std::time::Duration;

const PER_ROUTE: &str =
    "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute";

fn route(settings: &str) -> Result<SessionRoute, Vec<ConfigError>> {
    let table: RouteConfiguration = message(&format!(
        "{{name: r, typed_per_filter_config: {{s: {{\"@type\": {PER_ROUTE}, {settings}}}}}, virtual_hosts: []}}"
    ));
    let table = translate_route_config(&table)?;
    match table.filters.as_ref().and_then(|filters| filters.get("s")) {
        Some(FilterOverride::With(settings)) => match &**settings {
            RouteFilterConfig::StatefulSession(route) => Ok((**route).clone()),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn state(kind: &str, settings: &str) -> String {
    format!(
        "stateful_session: {{session_state: {{name: x, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.http.stateful_session.{kind}, {settings}}}}}, strict: true}}"
    )
}

#[test]
fn sessions_by_cookie_and_header_are_read() {
    let cookie = "cookie: {name: sid, ttl: 5s, path: /a, attributes: [{name: Secure}]}";
    let found = route(&state("cookie.v3.CookieBasedSessionState", cookie)).expect("accepted");
    let kept = HashCookie {
        name: "sid".into(),
        ttl: Some(Duration::from_secs(5)),
        path: "/a".into(),
        attributes: vec![("Secure".into(), String::new())],
    };
    let wanted = StatefulSession { state: Some(SessionState::Cookie(kept)), strict: true, counted: false };
    assert_eq!(found, SessionRoute::Instead(wanted));
    let found = route(&state("header.v3.HeaderBasedSessionState", "name: X-Session")).expect("accepted");
    let by_header = Some(SessionState::Header("x-session".into()));
    let wanted = StatefulSession { state: by_header, strict: true, counted: false };
    assert_eq!(found, SessionRoute::Instead(wanted));
    assert_eq!(route("disabled: true").expect("accepted"), SessionRoute::Disabled);
}

#[test]
fn sessions_that_cannot_be_kept_are_refused_by_name() {
    let at = "typed_per_filter_config[s].";
    for (settings, refused) in [
        ("disabled: false".to_owned(), "disabled: must be true"),
        (
            "stateful_session: {stat_prefix: p}".to_owned(),
            "stateful_session.stat_prefix: has no effect here: sessions of routes are not counted",
        ),
        (
            state("cookie.v3.CookieBasedSessionState", "cookie: {name: 'a;b'}"),
            "stateful_session.session_state.typed_config.cookie.name: has a character that a cookie cannot have",
        ),
        (
            state("cookie.v3.CookieBasedSessionState", "cookie: {name: ''}"),
            "stateful_session.session_state.typed_config.cookie.name: must not be empty",
        ),
    ] {
        assert_eq!(reasons(route(&settings)), [format!("{at}{refused}")]);
    }
}

#[test]
fn health_of_a_sessions_host_is_that_of_the_cluster() {
    let cluster = |set: &str| {
        translate_cluster(&message(&format!(
            "{{name: c, common_lb_config: {{override_host_status: {set}}}}}"
        )))
        .expect("accepted")
    };
    assert_eq!(cluster("{}").override_host_status, []);
    let found = cluster("{statuses: [HEALTHY, DRAINING]}");
    assert_eq!(found.override_host_status, [HealthStatus::Healthy, HealthStatus::Draining]);
}
