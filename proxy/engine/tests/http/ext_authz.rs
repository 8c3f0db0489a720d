//! Authorization by a service: what it is told, and what becomes of what it says.

use std::time::Duration;

use outrigger_testkit::{Origin, Response};
use outrigger_traffic::config::{
    AuthzBody, AuthzCheck, AuthzHttp, AuthzService, Config, ExtAuthz, ExtAuthzRoute, FilterConfig,
    FilterOverride, Fraction, GrpcTarget, HttpFilter, HttpTarget, RouteFilterConfig, StringMatch,
};

use crate::bed::{Bed, forward, host, manager, to};
use crate::service::{Asked, Service, Told};

/// A field of a message, in protobuf's wire format.
pub(crate) fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    assert!(content.len() < 128 * 128);
    if content.len() >= 128 {
        out.push((content.len() & 127) as u8 | 128);
        out.push((content.len() >> 7) as u8);
    } else {
        out.push(content.len() as u8);
    }
    out.extend_from_slice(content);
    out
}

/// `HeaderValueOption`.
fn header(name: &str, value: &str) -> Vec<u8> {
    bytes(1, &[bytes(1, name.as_bytes()), bytes(2, value.as_bytes())].concat())
}

fn names(all: &[&str]) -> Vec<StringMatch> {
    all.iter().map(|name| StringMatch::exact(*name)).collect()
}

fn over_grpc() -> ExtAuthz {
    filter(AuthzService::Grpc(GrpcTarget {
        cluster: "authz".into(),
        timeout: Duration::from_secs(5),
        metadata: vec![("x-key".into(), "k".into())],
        ..GrpcTarget::default()
    }))
}

fn over_http() -> AuthzHttp {
    AuthzHttp {
        target: HttpTarget {
            cluster: "authz".into(),
            authority: "authz.test".into(),
            path: "/".into(),
            timeout: Duration::from_secs(5),
            https: false,
        },
        path_prefix: "/check".into(),
        headers_to_add: vec![("x-added".into(), "yes".into())],
        upstream_headers: names(&["x-user"]),
        upstream_headers_to_append: names(&["x-roles"]),
        client_headers_on_success: names(&["x-seen"]),
        metadata_from_headers: names(&["x-level"]),
        ..AuthzHttp::default()
    }
}

fn filter(service: AuthzService) -> ExtAuthz {
    ExtAuthz {
        service,
        failure_allow: false,
        failure_allow_header: false,
        clear_route_cache: false,
        status_on_error: 403,
        enabled: Fraction::ONE,
        enabled_metadata: None,
        deny_at_disable: false,
        include_peer_certificate: false,
        include_tls_session: false,
        metadata_namespaces: Vec::new(),
        allowed_headers: None,
        disallowed_headers: Vec::new(),
        ingest_metadata: true,
        body: None,
        raw_headers: false,
        denied_body_max: 0,
    }
}

fn bed(
    origin: &Origin,
    service: &Service,
    grpc: bool,
    authz: ExtAuthz,
    change: impl FnOnce(&mut Config),
) -> Bed {
    let mut config = to(&[origin]);
    config.clusters.push(service.cluster("authz", grpc));
    let filter = HttpFilter::new("authz", FilterConfig::ExtAuthz(Box::new(authz)));
    manager(&mut config).http_filters.push(filter);
    change(&mut config);
    Bed::start(config)
}

async fn get(bed: &Bed, path: &str, fields: &[(&str, &str)]) -> Response {
    let fields: Vec<_> = [("host", "h.test")].iter().chain(fields).copied().collect();
    bed.h1().await.request("GET", path, &fields, b"").await.unwrap()
}

fn http_says(asked: &Asked) -> Told {
    let field = |name: &'static str, value: &str| (name, value.to_owned());
    match asked.field("authorization") {
        Some("good") => Told {
            fields: vec![
                field("x-user", "ann"),
                field("x-roles", "b"),
                field("x-seen", "1"),
                field("x-level", "7"),
                field("x-secret", "s"),
                field("x-envoy-auth-headers-to-remove", "x-gone, authorization"),
            ],
            ..Told::http(200, "ignored")
        },
        Some("broken") => Told::http(500, "x"),
        Some("slow") => Told { never: true, ..Told::default() },
        _ => Told {
            fields: vec![
                field("x-why", "nobody"),
                field("content-type", "text/html"),
                field("www-authenticate", "Basic"),
            ],
            ..Told::http(401, "go away")
        },
    }
}

#[tokio::test]
async fn http_service_lets_pass_and_refuses() {
    let origin = Origin::h1("one").await;
    let service = Service::start(false, |asked, _| http_says(asked)).await;
    let bed = bed(&origin, &service, false, filter(AuthzService::Http(Box::new(over_http()))), |config| {
        let mut open = forward("/open", "a");
        let off = RouteFilterConfig::ExtAuthz(ExtAuthzRoute::Disabled);
        open.filters = Some([("authz".into(), FilterOverride::with(off))].into());
        host(config).routes.insert(0, open);
    });
    let fields =
        [("authorization", "good"), ("x-roles", "a"), ("x-gone", "1"), ("x-user", "root"), ("x-other", "o")];
    let response = get(&bed, "/p?q=1", &fields).await;
    assert_eq!(
        (response.status, response.field("x-seen"), response.field("x-secret")),
        (200, Some("1"), None)
    );
    let seen = origin.seen().pop().unwrap();
    assert_eq!(
        (seen.field("x-user"), seen.field("x-roles"), seen.field("x-gone"), seen.field("authorization")),
        (Some("ann"), Some("a"), None, None)
    );
    let roles = seen.fields.iter().filter(|(name, _)| name == "x-roles");
    assert_eq!(roles.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let asked = service.asked().pop().unwrap();
    assert_eq!(
        (asked.method.as_str(), asked.path.as_str(), asked.field("host")),
        ("GET", "/check/p?q=1", Some("h.test"))
    );
    assert_eq!((asked.field("x-other"), asked.field("x-added")), (None, Some("yes")));
    let response = get(&bed, "/p", &[]).await;
    assert_eq!((response.status, response.text().as_str()), (401, "go away"));
    assert_eq!(
        (response.field("x-why"), response.field("content-type"), response.field("www-authenticate")),
        (Some("nobody"), Some("text/html"), Some("Basic"))
    );
    assert_eq!(get(&bed, "/open", &[]).await.status, 200);
    assert_eq!((service.asked().len(), origin.requests()), (2, 2));
    assert_eq!(get(&bed, "/", &[("authorization", "broken")]).await.status, 403);
    let counted = |s: &outrigger_engine::telemetry::HttpStats| {
        s.ext_authz_ok.value() * 100 + s.ext_authz_denied.value() * 10 + s.ext_authz_error.value()
    };
    assert_eq!(bed.http_stat(counted), 111);
}

#[tokio::test]
async fn service_that_does_not_answer_lets_pass_only_where_it_is_said() {
    let origin = Origin::h1("one").await;
    let service = Service::start(false, |asked, _| http_says(asked)).await;
    let mut quick = over_http();
    quick.target.timeout = Duration::from_millis(50);
    let mut authz = filter(AuthzService::Http(Box::new(quick)));
    authz.status_on_error = 503;
    let mut bed = bed(&origin, &service, false, authz, |_| {});
    let response = get(&bed, "/", &[("authorization", "slow")]).await;
    assert_eq!((response.status, response.text().as_str(), origin.requests()), (503, "", 0));
    bed.change(|config| {
        let FilterConfig::ExtAuthz(authz) = &mut manager(config).http_filters[0].config else { panic!() };
        (authz.failure_allow, authz.failure_allow_header) = (true, true);
    });
    assert_eq!(get(&bed, "/", &[("authorization", "slow")]).await.status, 200);
    let seen = origin.seen().pop().unwrap();
    assert_eq!(seen.field("x-envoy-auth-failure-mode-allowed"), Some("true"));
    // A cluster that is not there is no answer either.
    bed.change(|config| {
        config.clusters.retain(|cluster| cluster.name != "authz");
        let FilterConfig::ExtAuthz(authz) = &mut manager(config).http_filters[0].config else { panic!() };
        authz.failure_allow = false;
    });
    assert_eq!(get(&bed, "/", &[("authorization", "good")]).await.status, 503);
}

fn grpc_says(asked: &Asked) -> Told {
    let text = String::from_utf8_lossy(&asked.body).into_owned();
    if text.contains("/pass") {
        let ok = [
            bytes(2, &header("x-user", "ann")),
            bytes(2, &[header("x-roles", "b"), bytes(2, &[8, 1])].concat()),
            bytes(5, b"X-Gone"),
            bytes(6, &header("x-seen", "1")),
            bytes(7, &[bytes(1, b"q"), bytes(2, b"2")].concat()),
            bytes(8, b"secret"),
        ]
        .concat();
        let value = bytes(3, b"gold");
        let metadata = bytes(1, &[bytes(1, b"plan"), bytes(2, &value)].concat());
        Told::message(&[bytes(1, b""), bytes(3, &ok), bytes(4, &metadata)].concat())
    } else if text.contains("/deny") {
        let denied =
            [bytes(1, &[8, 0xad, 3]), bytes(2, &header("x-why", "no")), bytes(3, b"nothing here")].concat();
        Told::message(&[bytes(1, &[8, 7]), bytes(2, &denied)].concat())
    } else if text.contains("/plain") {
        Told::message(&bytes(1, &[8, 16]))
    } else if text.contains("/status") {
        Told { status: 200, grpc_status: Some(14), ..Told::default() }
    } else {
        Told::message(&[0x0a, 9])
    }
}

#[tokio::test]
async fn grpc_service_lets_pass_and_refuses() {
    let origin = Origin::h1("one").await;
    let service = Service::start(true, |asked, _| grpc_says(asked)).await;
    let bed = bed(&origin, &service, true, over_grpc(), |config| {
        let mut told = forward("/", "a");
        let extensions = [("tier".to_owned(), "edge".to_owned())].into();
        let settings =
            RouteFilterConfig::ExtAuthz(ExtAuthzRoute::Check(AuthzCheck { extensions, body: None }));
        told.filters = Some([("authz".into(), FilterOverride::with(settings))].into());
        told.headers.request_add.push(outrigger_traffic::config::HeaderEdit {
            name: "x-plan".into(),
            value: "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:plan)%".into(),
            append: outrigger_traffic::config::HeaderAppend::OverwriteIfExistsOrAdd,
            keep_empty_value: false,
        });
        host(config).routes = vec![told];
    });
    let response =
        get(&bed, "/pass?q=1&secret=s", &[("x-roles", "a"), ("x-gone", "1"), ("x-user", "root")]).await;
    assert_eq!((response.status, response.field("x-seen")), (200, Some("1")), "{}", response.text());
    let seen = origin.seen().pop().unwrap();
    assert_eq!(
        (
            seen.target.as_str(),
            seen.field("x-user"),
            seen.field("x-roles"),
            seen.field("x-gone"),
            seen.field("x-plan")
        ),
        ("/pass?q=2", Some("ann"), Some("a,b"), None, Some("gold"))
    );
    let asked = service.asked().pop().unwrap();
    assert_eq!(asked.path, "/envoy.service.auth.v3.Authorization/Check");
    assert_eq!((asked.field("x-key"), asked.field("te")), (Some("k"), Some("trailers")));
    let text = String::from_utf8_lossy(&asked.body).into_owned();
    for part in ["x-gone", ":path", "/pass?q=1&secret=s", "h.test", "HTTP/1.1", "tier", "edge", "127.0.0.1"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let denied = get(&bed, "/deny", &[]).await;
    assert_eq!(
        (denied.status, denied.text().as_str(), denied.field("x-why")),
        (429, "nothing here", Some("no"))
    );
    assert_eq!(get(&bed, "/plain", &[]).await.status, 403);
    for path in ["/status", "/broken"] {
        assert_eq!(get(&bed, path, &[]).await.status, 403, "{path}");
    }
    assert_eq!(bed.http_stat(|s| s.ext_authz_error.value()), 2);
    assert_eq!(origin.requests(), 1);
}

async fn post(bed: &Bed, path: &str, body: &[u8]) -> Response {
    bed.h1().await.request("POST", path, &[("host", "h.test")], body).await.unwrap()
}

#[tokio::test]
async fn service_is_told_the_body_up_to_its_limit() {
    let origin = Origin::h1("one").await;
    let service = Service::start(true, |asked, _| grpc_says(asked)).await;
    let mut authz = over_grpc();
    authz.body = Some(AuthzBody { bytes_max: 8, partial: false, as_bytes: false });
    let mut bed = bed(&origin, &service, true, authz, |config| {
        let mut open = forward("/pass/unread", "a");
        let check = AuthzCheck { body: Some(None), ..AuthzCheck::default() };
        let off = RouteFilterConfig::ExtAuthz(ExtAuthzRoute::Check(check));
        open.filters = Some([("authz".into(), FilterOverride::with(off))].into());
        host(config).routes.insert(0, open);
    });
    let told = |service: &Service, what: &str| {
        let asked = service.asked().pop().unwrap();
        String::from_utf8_lossy(&asked.body).contains(what)
    };
    assert_eq!(post(&bed, "/pass", b"12345678").await.status, 200);
    assert!(told(&service, "12345678") && told(&service, "x-envoy-auth-partial-body\x12\x05false"));
    assert_eq!(origin.seen().pop().unwrap().body, b"12345678");
    let refused = post(&bed, "/pass", b"123456789").await;
    assert_eq!((refused.status, refused.text().as_str()), (413, "Payload Too Large"));
    assert_eq!(bed.http_stat(|s| s.downstream_rq_too_large.value()), 1);
    assert_eq!(post(&bed, "/pass/unread", b"123456789").await.status, 200);
    assert!(!told(&service, "12345678"));
    bed.change(|config| {
        let FilterConfig::ExtAuthz(authz) = &mut manager(config).http_filters[0].config else { panic!() };
        authz.body = Some(AuthzBody { bytes_max: 8, partial: true, as_bytes: true });
    });
    assert_eq!(post(&bed, "/pass", b"123456789").await.status, 200);
    assert!(told(&service, "b\x0812345678") && told(&service, "x-envoy-auth-partial-body\x12\x04true"));
    assert_eq!(origin.seen().pop().unwrap().body, b"123456789");
}

#[tokio::test]
async fn http_service_gets_the_body() {
    let origin = Origin::h1("one").await;
    let service = Service::start(false, |_, _| Told::http(200, "")).await;
    let mut authz = filter(AuthzService::Http(Box::new(over_http())));
    authz.body = Some(AuthzBody { bytes_max: 100, partial: false, as_bytes: false });
    let bed = bed(&origin, &service, false, authz, |_| {});
    assert_eq!(post(&bed, "/p", b"hello").await.status, 200);
    let asked = service.asked().pop().unwrap();
    assert_eq!((&*asked.body, asked.field("content-length")), (&b"hello"[..], Some("5")));
    assert_eq!(asked.field("x-envoy-auth-partial-body"), Some("false"));
    assert_eq!(origin.seen().pop().unwrap().body, b"hello");
}
