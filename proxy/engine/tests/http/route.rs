//! Routes, edits, rewrites, answers made here, authorization.

use outrigger_testkit::Origin;
use outrigger_testkit::client::get;
use outrigger_traffic::config::{
    Action, ClusterChoice, DirectResponse, FilterConfig, FilterOverride, HeaderAppend, HeaderEdit,
    HeaderMatch, HeaderValueMatch, HostRewrite, HttpFilter, PathRewrite, Permission, Policy, Principal, Rbac,
    RbacAction, Redirect, RouteFilterConfig, Rules, StringMatch, StringPattern, WeightedCluster,
};

use crate::bed::{Bed, action, cluster, forward, host, manager, table, to};

fn edit(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit {
        name: name.into(),
        value: value.into(),
        append: HeaderAppend::OverwriteIfExistsOrAdd,
        keep_empty_value: false,
    }
}

#[tokio::test]
async fn no_route_is_404_and_unknown_cluster_503() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    host(&mut config).routes = vec![forward("/here", "a"), forward("/gone", "missing")];
    let bed = Bed::start(config);
    assert_eq!(get(bed.address, "h", "/here").await.status, 200);
    assert_eq!(get(bed.address, "h", "/gone").await.status, 503);
    assert_eq!(get(bed.address, "h", "/else").await.status, 404);
}

#[tokio::test]
async fn direct_response_and_redirect_are_answered_here() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    let mut direct = forward("/direct", "a");
    direct.action = Action::Direct(DirectResponse { status: 418, body: b"tea".to_vec(), content_type: None });
    direct.headers.response_add.push(edit("x-pot", "short"));
    let mut redirect = forward("/old", "a");
    redirect.action = Action::Redirect(Redirect {
        status: 301,
        scheme: Some("https".into()),
        host: None,
        port: None,
        path: Some("/new".into()),
        path_rewrite: None,
        strip_query: false,
    });
    host(&mut config).routes = vec![direct, redirect];
    let bed = Bed::start(config);
    let response = get(bed.address, "h", "/direct").await;
    assert_eq!(
        (response.status, response.text().as_str(), response.field("x-pot")),
        (418, "tea", Some("short"))
    );
    let response = get(bed.address, "h", "/old?q=1").await;
    assert_eq!((response.status, response.field("location")), (301, Some("https://h/new?q=1")));
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn rewrites_and_edits_reach_the_origin_and_the_client() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    {
        let action = action(&mut config, 0);
        action.path_rewrite = Some(PathRewrite::Prefix("/v2/".into()));
        action.host_rewrite = Some(HostRewrite::Literal("inner".into()));
        action.append_x_forwarded_host = true;
    }
    let headers = &mut host(&mut config).routes[0].headers;
    headers.request_add.push(edit("x-path", "%REQ(:PATH)%"));
    headers.request_remove.push("x-secret".into());
    headers.response_add.push(edit("x-status", "%RESPONSE_CODE%"));
    headers.response_remove.push("x-origin".into());
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    let response =
        client.request("GET", "/a?b=c", &[("host", "outer"), ("x-secret", "s")], b"").await.unwrap();
    let seen = &origin.seen()[0];
    assert_eq!((seen.target.as_str(), seen.field("host")), ("/v2/a?b=c", Some("inner")));
    assert_eq!(seen.field("x-envoy-original-path"), Some("/a?b=c"));
    assert_eq!((seen.field("x-forwarded-host"), seen.field("x-secret")), (Some("outer"), None));
    assert_eq!((response.field("x-status"), response.field("x-origin")), (Some("200"), None));
}

#[tokio::test]
async fn internal_only_field_is_removed_before_anything_looks_at_it() {
    let (origin, other) = (Origin::h1("one").await, Origin::h1("two").await);
    let mut config = to(&[&origin]);
    config.clusters.push(cluster("b", &[&other]));
    let mut by_user = forward("/", "b");
    by_user.matches.headers.push(HeaderMatch {
        name: "x-user".into(),
        value: HeaderValueMatch::Present(true),
        invert: false,
        treat_missing_as_empty: false,
    });
    host(&mut config).routes.insert(0, by_user);
    let bed = Bed::start(config.clone());
    let mut client = bed.h1().await;
    let fields = [("host", "h"), ("x-user", "root")];
    assert_eq!(client.request("GET", "/", &fields, b"").await.unwrap().origin(), "two");
    table(&mut config).internal_only_headers.push("x-user".into());
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    assert_eq!(client.request("GET", "/", &fields, b"").await.unwrap().origin(), "one");
    assert_eq!(origin.seen()[0].field("x-user"), None);
}

#[tokio::test]
async fn router_adds_no_envoy_field_of_its_own_where_it_is_told_so() {
    let origin = Origin::h1("one").await;
    for suppress in [false, true] {
        let mut config = to(&[&origin]);
        config.clusters[0].circuit_breakers.high.max_requests = 0;
        let mut full = forward("/full", "a");
        if let Action::Forward(full) = &mut full.action {
            full.high_priority = true;
        }
        action(&mut config, 0).path_rewrite = Some(PathRewrite::Prefix("/v2/".into()));
        host(&mut config).routes.insert(0, full);
        host(&mut config).include_request_attempt_count = true;
        manager(&mut config).suppress_envoy_headers = suppress;
        let bed = Bed::start(config);
        let response = get(bed.address, "h", "/a").await;
        let seen = origin.seen().pop().unwrap();
        let refused = get(bed.address, "h", "/full").await;
        assert_eq!((response.status, refused.status), (200, 503));
        let own = [
            seen.field("x-envoy-original-path"),
            seen.field("x-envoy-expected-rq-timeout-ms"),
            response.field("x-envoy-upstream-service-time"),
            refused.field("x-envoy-overloaded"),
        ];
        assert!(own.iter().all(|field| field.is_none() == suppress), "{suppress}: {own:?}");
        assert_eq!(seen.field("x-envoy-attempt-count"), Some("1"), "the virtual host's, not the router's");
    }
}

#[tokio::test]
async fn weights_share_and_header_chooses_the_cluster() {
    let (one, two) = (Origin::h1("one").await, Origin::h1("two").await);
    let mut config = to(&[&one]);
    config.clusters.push(cluster("b", &[&two]));
    let mut by_header = forward("/header", "a");
    if let Action::Forward(action) = &mut by_header.action {
        action.cluster = ClusterChoice::Header("x-to".into());
    }
    host(&mut config).routes.insert(0, by_header);
    let share = |name: &str, weight| WeightedCluster {
        name: name.into(),
        cluster_header: None,
        weight,
        headers: Default::default(),
        host_rewrite: None,
        filters: None,
        metadata_match: Vec::new(),
    };
    action(&mut config, 1).cluster = ClusterChoice::Weighted(vec![share("a", 50), share("b", 50)]);
    let bed = Bed::start(config);
    let mut client = bed.h1().await;
    let mut from_two = 0;
    for _ in 0..200 {
        let response = client.request("GET", "/", &[("host", "h")], b"").await.unwrap();
        from_two += usize::from(response.origin() == "two");
    }
    assert!((50..150).contains(&from_two), "{from_two} of 200");
    for to in ["a", "b"] {
        let response = client.request("GET", "/header", &[("host", "h"), ("x-to", to)], b"").await.unwrap();
        assert_eq!(response.origin(), if to == "a" { "one" } else { "two" });
    }
    let response = client.request("GET", "/header", &[("host", "h"), ("x-to", "c")], b"").await.unwrap();
    assert_eq!(response.status, 503);
}

fn deny_path(path: &str) -> Rbac {
    let policy = Policy {
        permissions: vec![Permission::Path(StringMatch {
            pattern: StringPattern::Prefix(path.into()),
            ignore_case: false,
        })],
        principals: vec![Principal::Any],
    };
    Rbac {
        rules: Some(Rules { action: RbacAction::Deny, policies: vec![("no secrets".into(), policy)] }),
        shadow_rules: None,
        stat_prefix: String::new(),
    }
}

#[tokio::test]
async fn rbac_denies_and_a_route_may_switch_it_off() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    manager(&mut config).http_filters.push(HttpFilter::rbac(deny_path("/secret")));
    let mut open = forward("/secret/open", "a");
    open.filters = Some([(HttpFilter::RBAC.into(), FilterOverride::Off)].into());
    host(&mut config).routes.insert(0, open);
    let bed = Bed::start(config);
    assert_eq!(get(bed.address, "h", "/fine").await.status, 200);
    let denied = get(bed.address, "h", "/secret/x").await;
    assert_eq!((denied.status, denied.text().as_str()), (403, "RBAC: access denied"));
    assert_eq!(get(bed.address, "h", "/secret/open").await.status, 200);
    assert_eq!(bed.http_stat(|stats| stats.rbac_denied.value()), 1);
}

fn rules(rbac: Option<Rbac>) -> FilterOverride {
    FilterOverride::with(RouteFilterConfig::Rbac(rbac))
}

#[tokio::test]
async fn route_overrides_the_rbac_filter_it_names_and_no_other() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    for name in ["guard", "audit"] {
        let rbac = deny_path(&format!("/secret/{name}"));
        manager(&mut config).http_filters.push(HttpFilter::new(name, FilterConfig::Rbac(rbac)));
    }
    let mut open = forward("/secret", "a");
    open.filters = Some([("audit".into(), rules(None))].into());
    host(&mut config).routes.insert(0, open);
    let mut other = forward("/other", "a");
    other.filters = Some([("guard".into(), rules(Some(deny_path("/other/x"))))].into());
    host(&mut config).routes.insert(1, other);
    host(&mut config).filters = Some([("audit".into(), rules(Some(deny_path("/other/y"))))].into());
    let mut bed = Bed::start(config);
    for (path, status) in [
        ("/secret/guard", 403),
        ("/secret/audit", 200),
        ("/other/x", 403),
        ("/other/y", 403),
        ("/other/z", 200),
    ] {
        assert_eq!(get(bed.address, "h", path).await.status, status, "{path}");
    }
    host(&mut bed.config).filters = Some([("gone".into(), FilterOverride::Off)].into());
    let errors = bed.handle.apply(bed.config.clone()).expect_err("an override of nothing");
    let path = "virtual_hosts[0].typed_per_filter_config[gone]";
    assert!(format!("{errors:?}").contains(path), "{errors:?}");
}
