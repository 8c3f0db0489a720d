//! Keys of token issuers that come from a server, and what a token leaves in the metadata.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_engine::proxy::ProxyOptions;
use outrigger_testkit::Origin;
use outrigger_traffic::config::{
    CallRetry, FilterConfig, HeaderAppend, HeaderEdit, HeaderToMetadata, HttpFilter, HttpTarget, JwtAuthn,
    JwtProvider, MetadataKind, MetadataMatch, MetadataRule, MetadataSource, MetadataTarget, Permission,
    Policy, Principal, Rbac, RbacAction, RemoteJwks, RouteMatch, Rules, SetMetadata, StringMatch,
    StringPattern, ValueMatch,
};
use serde_json::json;

use crate::bed::{Bed, cluster, eventually, forward, host, manager, to};
use crate::jwt::{Issuer, needs, now, with_token};
use crate::service::{Service, Told};

fn remote(timeout: Duration) -> RemoteJwks {
    RemoteJwks::at(HttpTarget {
        cluster: "keys".into(),
        https: false,
        authority: "keys.test".into(),
        path: "/jwks?a=b".into(),
        timeout,
    })
}

fn provider(keys: RemoteJwks) -> JwtProvider {
    JwtProvider { issuer: "me".into(), remote_jwks: Some(keys), ..JwtProvider::default() }
}

fn authn(provider: JwtProvider) -> FilterConfig {
    FilterConfig::Jwt(Box::new(JwtAuthn {
        providers: [("p".to_owned(), provider)].into(),
        rules: vec![(RouteMatch::prefix("/"), needs("p"))],
        ..JwtAuthn::default()
    }))
}

fn bed(origin: &Origin, service: &Service, workers: usize, filters: Vec<FilterConfig>) -> Bed {
    let mut config = to(&[origin]);
    config.clusters.push(service.cluster("keys", false));
    let filters = filters.into_iter().enumerate();
    manager(&mut config).http_filters = filters.map(|(i, f)| HttpFilter::new(format!("f{i}"), f)).collect();
    Bed::start_with(ProxyOptions { concurrency: workers, ..ProxyOptions::default() }, config)
}

fn good(issuer: &Issuer) -> String {
    issuer.token("ES256", &json!({"iss": "me", "exp": now() + 100}))
}

#[tokio::test]
async fn keys_are_fetched_once_for_all_and_used_until_they_are_too_old() {
    let (issuer, stranger, origin) = (Issuer::new(), Issuer::new(), Origin::h1("one").await);
    let keys = issuer.keys();
    let service = Service::start(false, move |_, _| Told::http(200, keys.clone())).await;
    let cached = RemoteJwks { cache: Duration::from_secs(3), ..remote(Duration::from_secs(5)) };
    let bed = bed(&origin, &service, 2, vec![authn(provider(cached))]);
    let token = good(&issuer);
    let several = (0..8).map(|_| with_token(&bed, "/", &token));
    for response in futures_all(several).await {
        assert_eq!(response.status, 200, "{}", response.text());
    }
    assert_eq!(service.asked().len(), 1);
    let asked = &service.asked()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("GET", "/jwks?a=b"));
    assert_eq!(asked.field("host"), Some("keys.test"));
    // Another key of the same name: unknown until the keys are too old.
    assert_eq!(with_token(&bed, "/", &good(&stranger)).await.text(), "Jwt verification fails");
    assert_eq!(service.asked().len(), 1);
    tokio::time::timeout(Duration::from_secs(20), async {
        while service.asked().len() < 2 {
            assert_eq!(with_token(&bed, "/", &token).await.status, 200);
        }
    })
    .await
    .expect("keys that are too old are fetched again");
    assert_eq!(bed.http_stat(|s| s.jwt_authn_jwks_fetch_success.value()), 2);
}

async fn futures_all<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.map(|one| Some(Box::pin(one))).collect();
    let mut out = Vec::new();
    std::future::poll_fn(|cx| {
        for slot in &mut all {
            if let Some(future) = slot
                && let std::task::Poll::Ready(done) = future.as_mut().poll(cx)
            {
                out.push(done);
                *slot = None;
            }
        }
        if all.iter().all(Option::is_none) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    out
}

#[tokio::test]
async fn failure_is_told_and_the_next_request_tries_again() {
    let (issuer, origin) = (Issuer::new(), Origin::h1("one").await);
    let keys = issuer.keys();
    let status = Arc::new(AtomicU16::new(500));
    let (told, body) = (status.clone(), Arc::new(Mutex::new(keys.clone())));
    let sent = body.clone();
    let service = Service::start(false, move |_, _| match told.load(Ordering::SeqCst) {
        0 => Told { never: true, ..Told::default() },
        status => Told::http(status, sent.lock().unwrap().clone()),
    })
    .await;
    let bed = bed(&origin, &service, 1, vec![authn(provider(remote(Duration::from_millis(200))))]);
    let token = good(&issuer);
    for case in ["status", "timeout", "no keys", "too large"] {
        match case {
            "timeout" => status.store(0, Ordering::SeqCst),
            "no keys" => {
                status.store(200, Ordering::SeqCst);
                *body.lock().unwrap() = "{}".into();
            }
            "too large" => *body.lock().unwrap() = format!("{}{}", " ".repeat(1 << 20), keys),
            _ => {}
        }
        let response = with_token(&bed, "/", &token).await;
        assert_eq!(
            (response.status, response.text().as_str()),
            (401, "Jwks remote fetch is failed"),
            "{case}"
        );
    }
    assert_eq!(bed.http_stat(|s| s.jwt_authn_jwks_fetch_failed.value()), 4);
    assert_eq!(bed.cluster_stat("keys", |s| s.upstream_rq_timeout.value()), 1);
    *body.lock().unwrap() = keys;
    assert_eq!(with_token(&bed, "/", &token).await.status, 200);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn retries_are_made_as_often_as_allowed() {
    let (issuer, origin) = (Issuer::new(), Origin::h1("one").await);
    let keys = issuer.keys();
    let service =
        Service::start(false, move |_, n| Told::http(if n < 3 { 503 } else { 200 }, keys.clone())).await;
    let retry = CallRetry {
        retries: 2,
        base_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(2),
    };
    let keys = RemoteJwks { retry: Some(retry), ..remote(Duration::from_secs(5)) };
    let bed = bed(&origin, &service, 1, vec![authn(provider(keys))]);
    assert_eq!(with_token(&bed, "/", &good(&issuer)).await.status, 200);
    assert_eq!(service.asked().len(), 3);
    assert_eq!(bed.cluster_stat("keys", |s| s.upstream_rq_retry.value()), 2);
}

#[tokio::test]
async fn keys_are_fetched_ahead() {
    let (issuer, origin) = (Issuer::new(), Origin::h1("one").await);
    let keys = issuer.keys();
    let service =
        Service::start(false, move |_, n| Told::http(if n < 2 { 503 } else { 200 }, keys.clone())).await;
    let keys = RemoteJwks { ahead: Some(Duration::from_millis(100)), ..remote(Duration::from_secs(5)) };
    let bed = bed(&origin, &service, 2, vec![authn(provider(keys))]);
    eventually("keys", || bed.http_stat(|s| s.jwt_authn_jwks_fetch_success.value()) == 1).await;
    assert_eq!(with_token(&bed, "/", &good(&issuer)).await.status, 200);
    assert_eq!(service.asked().len(), 2);
}

fn edit(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit {
        name: name.into(),
        value: value.into(),
        append: HeaderAppend::OverwriteIfExistsOrAdd,
        keep_empty_value: false,
    }
}

fn is(path: &[&str], text: &str) -> MetadataMatch {
    let text = StringMatch { pattern: StringPattern::Exact(text.into()), ignore_case: false };
    MetadataMatch {
        filter: "envoy.filters.http.jwt_authn".into(),
        path: path.iter().map(|key| (*key).to_owned()).collect(),
        value: ValueMatch::Text(text),
        invert: false,
    }
}

#[tokio::test]
async fn claims_decide_and_choose_the_route_and_are_told_the_upstream() {
    let (issuer, origin, other) = (Issuer::new(), Origin::h1("one").await, Origin::h1("two").await);
    let keys = issuer.keys();
    let service = Service::start(true, move |_, _| Told::http(200, keys.clone())).await;
    let claimed = JwtProvider {
        payload_in_metadata: "claims".into(),
        header_in_metadata: "head".into(),
        space_delimited_claims: vec!["scope".into()],
        clear_route_cache: true,
        ..provider(remote(Duration::from_secs(5)))
    };
    let mut listed = is(&["claims", "scope"], "");
    listed.value = ValueMatch::OneOf(Box::new(is(&[], "write").value));
    let policy = Policy {
        permissions: vec![Permission::Metadata(is(&["head", "alg"], "EdDSA"))],
        principals: vec![Principal::Metadata(listed)],
    };
    let rules = Rules { action: RbacAction::Allow, policies: vec![("writers".into(), policy)] };
    let rbac = FilterConfig::Rbac(Rbac { rules: Some(rules), ..Rbac::default() });
    let mut bed = bed(&origin, &service, 1, vec![authn(claimed), rbac]);
    bed.change(|config| {
        config.clusters.retain(|one| one.name != "keys");
        config.clusters.push(service.cluster("keys", true));
        config.clusters.push(cluster("b", &[&other]));
        let mut gold = forward("/", "b");
        gold.matches.metadata = vec![is(&["claims", "plan", "name"], "gold")];
        gold.headers.request_add.push(edit(
            "x-sub",
            "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:claims:sub)% %DYNAMIC_METADATA(envoy.filters.http.jwt_authn:claims:plan)%",
        ));
        host(config).routes.insert(0, gold);
    });
    let token = |scope: &str, plan: &str| {
        issuer.token(
            "EdDSA",
            &json!({"iss": "me", "sub": "ann", "scope": scope, "plan": {"name": plan, "n": 1}}),
        )
    };
    for (scope, plan, status, at) in [
        ("read write", "gold", 200, "two"),
        ("write", "tin", 200, "one"),
        ("read", "gold", 403, ""),
        ("", "gold", 403, ""),
    ] {
        let response = with_token(&bed, "/", &token(scope, plan)).await;
        assert_eq!(response.status, status, "{scope} {plan}");
        assert_eq!(response.field("x-origin").unwrap_or_default(), at, "{scope} {plan}");
    }
    assert_eq!(other.seen()[0].field("x-sub"), Some(r#"ann {"name":"gold","n":1}"#));
}

#[tokio::test]
async fn fields_and_fixed_values_become_metadata() {
    let origin = Origin::h1("one").await;
    let service = Service::start(false, |_, _| Told::http(200, "")).await;
    let target = |key: &str, value: &str, kind, base64| MetadataTarget {
        namespace: "n".into(),
        key: key.into(),
        value: value.into(),
        rewrite: None,
        kind,
        base64,
    };
    let rule = |source, present, missing| MetadataRule { source, present, missing, remove: true };
    let header = |name: &str| MetadataSource::Header(name.into());
    let mut rewritten = target("user", "", MetadataKind::Text, false);
    rewritten.rewrite = Some(("^u-(.*)$".into(), "\\1!".into()));
    let cookie = MetadataRule {
        remove: false,
        ..rule(
            MetadataSource::Cookie("c".into()),
            Some(target("cookie", "", MetadataKind::Text, false)),
            None,
        )
    };
    let rules = HeaderToMetadata {
        request: vec![
            rule(
                header("x-user"),
                Some(rewritten),
                Some(target("user", "nobody", MetadataKind::Text, false)),
            ),
            rule(header("x-number"), Some(target("number", "", MetadataKind::Number, true)), None),
            cookie,
        ],
        response: Vec::new(),
    };
    let fixed = |namespace: &str, overwrite, value: serde_json::Value| SetMetadata {
        namespace: namespace.into(),
        overwrite,
        value: value.as_object().cloned().unwrap(),
    };
    let set = vec![
        fixed("n", false, json!({"user": "root"})),
        fixed("n", true, json!({"list": [1]})),
        fixed("n", true, json!({"list": [2]})),
        fixed("m", false, json!({"k": true})),
    ];
    let filters = vec![FilterConfig::HeaderToMetadata(Box::new(rules)), FilterConfig::SetMetadata(set)];
    let mut bed = bed(&origin, &service, 1, filters);
    bed.change(|config| {
        let all = ["n:user", "n:number", "n:cookie", "n:list", "m:k", "m:none"];
        let all = all.map(|path| format!("%DYNAMIC_METADATA({path})%")).join(" ");
        host(config).routes[0].headers.request_add.push(edit("x-all", &all));
    });
    let mut client = bed.h1().await;
    for (fields, expected) in [
        (
            &[("x-user", "u-ann"), ("x-number", "NDI="), ("cookie", "a=b; c=\"v\"")][..],
            "ann! 42 v [1,2] true",
        ),
        (&[("x-number", "eA==")], "nobody   [1,2] true"),
    ] {
        let fields: Vec<_> = [("host", "h")].iter().chain(fields).copied().collect();
        assert_eq!(client.request("GET", "/", &fields, b"").await.unwrap().status, 200);
        let seen = origin.seen().pop().unwrap();
        assert_eq!(seen.field("x-all"), Some(expected));
        assert_eq!((seen.field("x-user"), seen.field("x-number")), (None, None), "they are taken out");
    }
    assert_eq!(bed.http_stat(|s| s.set_metadata_overwrite_denied.value()), 2);
}
