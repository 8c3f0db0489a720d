//! Whole tables against a slow, obvious reference.

use crate::compile;
use crate::config::{
    Action as ConfigAction, ClusterChoice, ClusterDiscovery, Config, DirectResponse, Endpoints, HeaderAppend,
    HeaderEdit, HeaderEdits, HeaderMatch, HeaderValueMatch, HttpConnectionManager, PathMatch, PathRewrite,
    QueryMatch, QueryValueMatch, Redirect as ConfigRedirect, Route as ConfigRoute, RouteAction, RouteConfig,
    RouteMatch, RouteSource, StringMatch, VirtualHost as ConfigHost, WeightedCluster,
};
use crate::route::{Action, Edit, Edits, RouteTable};
use crate::snapshot::Snapshot;
use crate::view::{FieldView, RequestView};
use proptest::prelude::*;
use std::sync::Arc;

/// A request head for tests.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn get(authority: &str, path: &str) -> Self {
        Self {
            method: "GET".into(),
            scheme: "http".into(),
            authority: authority.into(),
            path: path.into(),
            fields: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }
}

impl FieldView for Head {
    fn header(&self, lower: &[u8]) -> Option<&[u8]> {
        self.fields.iter().find(|(n, _)| n.as_bytes() == lower).map(|(_, v)| v.as_bytes())
    }
    fn for_each_header(&self, lower: &[u8], f: &mut dyn FnMut(&[u8])) {
        self.fields.iter().filter(|(n, _)| n.as_bytes() == lower).for_each(|(_, v)| f(v.as_bytes()));
    }
}

impl RequestView for Head {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn scheme(&self) -> &[u8] {
        self.scheme.as_bytes()
    }
    fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
}

pub(crate) fn rule(name: &str, matches: RouteMatch, action: ConfigAction) -> ConfigRoute {
    ConfigRoute {
        name: name.into(),
        matches,
        action,
        headers: HeaderEdits::default(),
        filters: None,
        per_request_buffer_limit_bytes: None,
        decorator: None,
        tracing: None,
    }
}

pub(crate) fn to(cluster: &str) -> ConfigAction {
    ConfigAction::Forward(Box::new(RouteAction::to(cluster)))
}

pub(crate) fn host(name: &str, domains: &[&str], routes: Vec<ConfigRoute>) -> ConfigHost {
    ConfigHost {
        name: name.into(),
        domains: domains.iter().map(|d| (*d).into()).collect(),
        routes,
        ..ConfigHost::default()
    }
}

pub(crate) fn table(name: &str, virtual_hosts: Vec<ConfigHost>) -> RouteConfig {
    let virtual_hosts = virtual_hosts.into_iter().map(Into::into).collect();
    RouteConfig { name: name.into(), virtual_hosts, ..RouteConfig::default() }
}

pub(crate) fn cluster(name: &str) -> crate::config::Cluster {
    crate::config::Cluster::new(name, ClusterDiscovery::Static(Endpoints::default()))
}

fn compiled(table: RouteConfig, clusters: &[&str]) -> (Snapshot, Arc<RouteTable>) {
    let config = Config {
        route_configs: vec![table],
        clusters: clusters.iter().map(|c| cluster(c)).collect(),
        ..Config::default()
    };
    let snapshot = compile(&config, None).unwrap();
    let table = snapshot.tables().next().unwrap().1.clone();
    (snapshot, table)
}

fn found<'t>(table: &'t RouteTable, head: &Head) -> Option<&'t str> {
    table.find(head, 0).map(|m| &*m.route.name)
}

/// The reference: looks at everything in order and computes everything anew.
fn slow_find(table: &RouteConfig, head: &Head) -> Option<String> {
    let authority = head.authority.to_ascii_lowercase();
    let score = |domain: &String| -> Option<(u8, usize)> {
        if *domain == authority {
            return Some((3, 0));
        }
        if domain == "*" {
            return Some((0, 0));
        }
        if let Some(suffix) = domain.strip_prefix('*') {
            return (authority.ends_with(suffix) && authority.len() > suffix.len())
                .then_some((2, suffix.len()));
        }
        let prefix = domain.strip_suffix('*')?;
        (authority.starts_with(prefix) && authority.len() > prefix.len()).then_some((1, prefix.len()))
    };
    let best = table
        .virtual_hosts
        .iter()
        .filter_map(|h| h.domains.iter().filter_map(score).max().map(|s| (s, h)))
        .max_by_key(|(s, _)| *s)?;
    let path = head.path.split('?').next().unwrap_or_default();
    let query = head.path.split_once('?').map(|(_, q)| q);
    let text = |m: &StringMatch, value: &str| match &m.pattern {
        crate::config::StringPattern::Exact(t) => t == value,
        crate::config::StringPattern::Prefix(t) => value.starts_with(t.as_str()),
        _ => unreachable!("not generated"),
    };
    let route = best.1.routes.iter().find(|route| {
        let path_ok = match &route.matches.path {
            PathMatch::Prefix(p) => path.starts_with(p.as_str()),
            PathMatch::Exact(p) => path == p,
            PathMatch::PathSeparatedPrefix(p) => path == p || path.starts_with(&format!("{p}/")),
            PathMatch::Regex(_) | PathMatch::Template(_) | PathMatch::Connect => {
                unreachable!("not generated")
            }
        };
        path_ok
            && route.matches.headers.iter().all(|h| {
                let value = head.fields.iter().find(|(n, _)| *n == h.name).map(|(_, v)| v.as_str());
                match (&h.value, value) {
                    (HeaderValueMatch::Present(p), v) => (v.is_some() == *p) != h.invert,
                    (HeaderValueMatch::Text(t), Some(v)) => text(t, v) != h.invert,
                    (HeaderValueMatch::Text(_) | HeaderValueMatch::Range(..), _) => false,
                }
            })
            && route.matches.query.iter().all(|q| {
                let value = query.unwrap_or_default().split('&').find_map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (name == q.name).then_some(value)
                });
                match (&q.value, value) {
                    (QueryValueMatch::Present(p), v) => v.is_some() == *p,
                    (QueryValueMatch::Text(t), v) => v.is_some_and(|v| text(t, v)),
                }
            })
    })?;
    Some(route.name.clone())
}

fn any_match() -> impl Strategy<Value = RouteMatch> {
    let path = prop_oneof![
        "/[ab/]{0,4}".prop_map(PathMatch::Prefix),
        "/[ab/]{0,4}".prop_map(PathMatch::Exact),
        "/[ab/]{0,2}[ab]".prop_map(PathMatch::PathSeparatedPrefix),
    ];
    let value = prop_oneof![
        any::<bool>().prop_map(HeaderValueMatch::Present),
        "[xy]".prop_map(|t| HeaderValueMatch::Text(StringMatch::exact(t))),
    ];
    let header = ("h[12]", value, any::<bool>()).prop_map(|(name, value, invert)| HeaderMatch {
        name,
        value,
        invert,
        treat_missing_as_empty: false,
    });
    let query = (
        "q[12]",
        prop_oneof![
            any::<bool>().prop_map(QueryValueMatch::Present),
            "[xy]".prop_map(|t| QueryValueMatch::Text(StringMatch::exact(t))),
        ],
    )
        .prop_map(|(name, value)| QueryMatch { name, value });
    (path, prop::collection::vec(header, 0..2), prop::collection::vec(query, 0..2))
        .prop_map(|(path, headers, query)| RouteMatch { path, headers, query, ..RouteMatch::prefix("") })
}

fn any_table() -> impl Strategy<Value = RouteConfig> {
    let domain = prop_oneof![
        "[ab]{1,2}\\.[ab]",
        "\\*\\.[ab]{1,2}",
        "\\*[ab]\\.[ab]",
        "[ab]\\.\\*",
        "[ab]{1,2}\\*",
        Just("*".to_string()),
    ];
    let routes = prop::collection::vec(any_match(), 0..8);
    let hosts = prop::collection::vec((prop::collection::vec(domain, 1..4), routes), 1..5);
    hosts.prop_map(|hosts| {
        let mut seen = std::collections::HashSet::new();
        let mut table = RouteConfig { name: "t".into(), ..RouteConfig::default() };
        for (h, (domains, routes)) in hosts.into_iter().enumerate() {
            let domains: Vec<_> = domains.into_iter().filter(|d| seen.insert(d.clone())).collect();
            if domains.is_empty() {
                continue;
            }
            let routes = routes.into_iter().enumerate();
            let routes = routes.map(|(r, m)| rule(&format!("{h}/{r}"), m, to("c"))).collect();
            table
                .virtual_hosts
                .push(ConfigHost { name: h.to_string(), domains, routes, ..ConfigHost::default() }.into());
        }
        table
    })
}

fn any_head() -> impl Strategy<Value = Head> {
    let fields = prop::collection::btree_map("h[12]", "[xy]", 0..3);
    ("[abAB]{1,2}\\.[abB]{1,2}", "/[ab/]{0,6}(\\?(q[12](=[xy])?&?){0,3})?", fields).prop_map(
        |(authority, path, fields)| {
            fields.into_iter().fold(Head::get(&authority, &path), |head, (n, v)| head.with(&n, &v))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn tables_agree_with_the_slow_reference(config in any_table(), heads in prop::collection::vec(any_head(), 1..12)) {
        let (_, table) = compiled(config.clone(), &["c"]);
        for head in heads {
            prop_assert_eq!(found(&table, &head).map(str::to_string), slow_find(&config, &head), "{:?}", head);
        }
    }
}

fn edit(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit {
        name: name.into(),
        value: value.into(),
        append: HeaderAppend::AppendIfExistsOrAdd,
        keep_empty_value: false,
    }
}

fn adding(value: &str) -> HeaderEdits {
    HeaderEdits {
        request_add: vec![edit("x", value)],
        request_remove: vec![format!("gone-{value}")],
        response_add: vec![edit("y", value)],
        response_remove: Vec::new(),
    }
}

fn shown(edits: &Edits) -> Vec<String> {
    edits
        .steps()
        .iter()
        .map(|s| match s {
            Edit::Remove(name) => format!("-{name}"),
            Edit::RemoveMatching(matcher) => format!("-{matcher:?}"),
            Edit::Together(all) => format!("{all:?}"),
            Edit::Set { name, value, .. } => {
                format!("{name}={}", String::from_utf8_lossy(value.literal().unwrap_or(b"?")))
            }
        })
        .collect()
}

#[test]
fn edits_of_the_share_come_first_and_the_others_in_either_order() {
    for (specific_wins, expected) in [
        (false, ["-gone-r", "x=r", "-gone-v", "x=v", "-gone-t", "x=t"]),
        (true, ["-gone-t", "x=t", "-gone-v", "x=v", "-gone-r", "x=r"]),
    ] {
        let share = WeightedCluster {
            name: "c".into(),
            cluster_header: None,
            weight: 1,
            headers: adding("s"),
            host_rewrite: Some("h".into()),
            filters: None,
            metadata_match: Vec::new(),
        };
        let mut action = RouteAction::to("c");
        action.cluster = ClusterChoice::Weighted(vec![share]);
        let mut route = rule("r", RouteMatch::prefix("/"), ConfigAction::Forward(Box::new(action)));
        route.headers = adding("r");
        let mut vhost = host("v", &["*"], vec![route]);
        vhost.headers = adding("v");
        let mut config = table("t", vec![vhost]);
        config.headers = adding("t");
        config.most_specific_header_mutations_wins = specific_wins;
        let (snapshot, table) = compiled(config, &["c"]);
        let head = Head::get("any", "/");
        let matched = table.find(&head, 0).unwrap();
        let target = matched.route.choose(&snapshot, &head, 0).unwrap().unwrap();
        assert_eq!(shown(target.share_edits.unwrap()), ["-gone-s", "x=s"]);
        assert_eq!(shown(target.request_edits), expected);
        let response = shown(target.response_edits);
        assert_eq!((response.len(), response[0].as_str()), (4, "y=s"));
        assert!(target.share_host.is_some() && target.host_rewrite.is_none());
        assert_eq!(shown(&matched.route.request_edits), expected);
    }
}

#[test]
fn unknown_clusters_give_the_routes_own_status_until_they_exist() {
    let mut action = RouteAction::to("later");
    action.cluster_not_found_status = 404;
    let by_header = {
        let mut a = RouteAction::to("");
        a.cluster = ClusterChoice::Header("x-to".into());
        rule("h", RouteMatch::prefix("/h"), ConfigAction::Forward(Box::new(a)))
    };
    let later = rule("r", RouteMatch::prefix("/"), ConfigAction::Forward(Box::new(action)));
    let mut config = Config {
        route_configs: vec![table("t", vec![host("v", &["*"], vec![by_header, later])])],
        clusters: vec![cluster("c")],
        ..Config::default()
    };
    let first = compile(&config, None).unwrap();
    let choose = |snapshot: &Snapshot, head: &Head| {
        let table = snapshot.tables().next().unwrap().1.clone();
        let chosen = table.find(head, 0).unwrap().route.choose(snapshot, head, 0).unwrap();
        chosen.map(|t| snapshot.cluster(t.cluster).unwrap().name().to_string()).map_err(|e| e.0)
    };
    assert_eq!(choose(&first, &Head::get("h", "/")), Err(404));
    assert_eq!(choose(&first, &Head::get("h", "/h")), Err(503));
    assert_eq!(choose(&first, &Head::get("h", "/h").with("x-to", "nobody")), Err(503));
    assert_eq!(choose(&first, &Head::get("h", "/h").with("x-to", "c")), Ok("c".into()));
    config.clusters.push(cluster("later"));
    let second = compile(&config, Some(&first)).unwrap();
    assert_eq!(choose(&second, &Head::get("h", "/")), Ok("later".into()));
    let tables = |s: &Snapshot| s.tables().next().unwrap().1.clone();
    assert!(Arc::ptr_eq(&tables(&first), &tables(&second)), "the table is shared though a cluster was added");
}

fn redirect() -> ConfigRedirect {
    ConfigRedirect {
        status: 301,
        scheme: None,
        host: None,
        port: None,
        path: None,
        path_rewrite: None,
        strip_query: false,
    }
}

#[test]
fn redirects_are_built_as_envoy_builds_them() {
    let prefix = |new: &str| Some(PathRewrite::Prefix(new.into()));
    let https = || ConfigRedirect { scheme: Some("https".into()), ..redirect() };
    let cases: &[(ConfigRedirect, &str, &str, &str)] = &[
        (https(), "h", "/a?b", "https://h/a?b"),
        (https(), "h:80", "/a", "https://h/a"),
        (https(), "h:8080", "/a", "https://h:8080/a"),
        (redirect(), "h:80", "/a", "http://h:80/a"),
        (ConfigRedirect { port: Some(8443), ..https() }, "h:8080", "/", "https://h:8443/"),
        (ConfigRedirect { port: Some(81), ..redirect() }, "[::1]:80", "/", "http://[::1]:81/"),
        (ConfigRedirect { host: Some("n".into()), ..redirect() }, "h:8080", "/a", "http://n/a"),
        (ConfigRedirect { path: Some("/p".into()), ..redirect() }, "h", "/a?b", "http://h/p?b"),
        (ConfigRedirect { path: Some("/p?c".into()), ..redirect() }, "h", "/a?b", "http://h/p?c"),
        (
            ConfigRedirect { path: Some("/p".into()), strip_query: true, ..redirect() },
            "h",
            "/a?b",
            "http://h/p",
        ),
        (ConfigRedirect { strip_query: true, ..redirect() }, "h", "/a?b", "http://h/a"),
        (ConfigRedirect { path_rewrite: prefix("/new"), ..redirect() }, "h", "/a/x?b", "http://h/new/x?b"),
        (
            ConfigRedirect { path_rewrite: prefix("/new"), strip_query: true, ..redirect() },
            "h",
            "/a/x?b",
            "http://h/new/x",
        ),
    ];
    for (config, authority, path, expected) in cases {
        let matches = if path.starts_with("/a") { RouteMatch::prefix("/a") } else { RouteMatch::prefix("/") };
        let route = rule("r", matches, ConfigAction::Redirect(config.clone()));
        let (_, table) = compiled(table("t", vec![host("v", &["*"], vec![route])]), &[]);
        let head = Head::get(authority, path);
        let mut out = Vec::new();
        assert!(table.find(&head, 0).unwrap().route.location(&head, &mut out));
        assert_eq!(String::from_utf8(out).unwrap(), *expected, "{config:?}");
    }
}

#[test]
fn virtual_hosts_that_require_tls_redirect_plaintext_before_any_route() {
    let mut vhost = host("v", &["*"], vec![rule("r", RouteMatch::prefix("/only"), to("c"))]);
    vhost.require_tls = true;
    let (_, table) = compiled(table("t", vec![vhost]), &["c"]);
    let mut head = Head::get("h", "/elsewhere?q");
    let mut out = Vec::new();
    assert!(table.find(&head, 0).unwrap().route.location(&head, &mut out));
    assert_eq!(out, b"https://h/elsewhere?q");
    head.scheme = "https".into();
    assert!(table.find(&head, 0).is_none());
}

#[test]
fn grpc_and_fraction_criteria_hold_where_they_should() {
    let mut grpc = RouteMatch::prefix("/");
    grpc.grpc = true;
    let mut half = RouteMatch::prefix("/");
    half.fraction = Some(crate::config::Fraction::from_percent(50));
    let routes = vec![
        rule("grpc", grpc, to("c")),
        rule("half", half, to("c")),
        rule("rest", RouteMatch::prefix("/"), to("c")),
    ];
    let (_, table) = compiled(table("t", vec![host("v", &["*"], routes)]), &["c"]);
    let name = |head: &Head, draw| table.find(head, draw).unwrap().route.name.to_string();
    for (content_type, expected) in [
        ("application/grpc", "grpc"),
        ("application/grpc+proto", "grpc"),
        ("application/grpc-web", "half"),
        ("application/json", "half"),
    ] {
        assert_eq!(name(&Head::get("h", "/").with("content-type", content_type), 0), expected);
    }
    assert_eq!(name(&Head::get("h", "/"), 499_999), "half");
    assert_eq!(name(&Head::get("h", "/"), 500_000), "rest");
}

#[test]
fn case_insensitive_routes_match_in_order_with_the_others() {
    let mut folded = RouteMatch::prefix("/Api");
    folded.case_sensitive = false;
    let exact = RouteMatch { path: PathMatch::Exact("/API/x".into()), ..RouteMatch::prefix("") };
    let routes = vec![
        rule("folded", folded, to("c")),
        rule("exact", exact, to("c")),
        rule("rest", RouteMatch::prefix("/"), to("c")),
    ];
    let (_, table) = compiled(table("t", vec![host("v", &["*"], routes)]), &["c"]);
    assert_eq!(found(&table, &Head::get("h", "/API/x")), Some("folded"));
    assert_eq!(found(&table, &Head::get("h", "/aPi")), Some("folded"));
    assert_eq!(found(&table, &Head::get("h", "/ap")), Some("rest"));
}

#[test]
fn direct_responses_and_inline_tables_are_compiled() {
    let direct =
        DirectResponse { status: 200, body: b"hello".to_vec(), content_type: Some("text/plain".into()) };
    let route = rule("d", RouteMatch::prefix("/"), ConfigAction::Direct(direct));
    let inline = table("", vec![host("v", &["*"], vec![route])]);
    let http = HttpConnectionManager::new("in", RouteSource::Inline(inline));
    let config = Config { listeners: vec![compile::tests::listener("l", http)], ..Config::default() };
    let snapshot = compile(&config, None).unwrap();
    let chain = &snapshot.listener("l").unwrap().chains[0];
    let crate::listener::Terminal::Http(http) = &chain.terminal else { panic!("HTTP was asked for") };
    let matched = snapshot.table(http.table).unwrap().find(&Head::get("h", "/"), 0).unwrap();
    let Action::Direct(direct) = &matched.route.action else { panic!("a direct response was asked for") };
    assert_eq!((direct.status, &*direct.body), (200, &b"hello"[..]));
}
