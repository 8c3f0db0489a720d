//! Sharing, carrying over, and refusals.

use super::compile;
use crate::breaker::Limited;
use crate::config::*;
use crate::outcome::Outcome;
use crate::route::tests::{cluster, host, rule, table, to};
use crate::snapshot::Snapshot;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) fn listener(name: &str, http: HttpConnectionManager) -> Listener {
    let mut listener = Listener::new(name, "127.0.0.1:0".parse().unwrap());
    listener.filter_chains.push(chain(Terminal::Http(Box::new(http))));
    listener
}

fn chain(terminal: Terminal) -> FilterChain {
    FilterChain {
        name: String::new(),
        matches: FilterChainMatch::default(),
        tls: None,
        transport_socket_connect_timeout: Duration::from_secs(15),
        network_filters: Vec::new(),
        terminal,
    }
}

fn endpoints(name: &str, ports: &[u16]) -> Endpoints {
    let endpoints = ports.iter().map(|p| Endpoint::at(([127, 0, 0, 1], *p).into())).collect();
    Endpoints {
        cluster_name: name.into(),
        localities: vec![LocalityEndpoints { endpoints, ..LocalityEndpoints::default() }],
        overprovisioning_factor: None,
    }
}

fn eds(name: &str) -> Cluster {
    Cluster::new(name, ClusterDiscovery::Eds { service_name: String::new() })
}

fn mesh() -> Config {
    let routes = vec![rule("r", RouteMatch::prefix("/"), to("a"))];
    Config {
        listeners: vec![listener("l", HttpConnectionManager::new("in", RouteSource::Named("t".into())))],
        route_configs: vec![table("t", vec![host("v", &["*"], routes.clone()), host("w", &["w"], routes)])],
        clusters: vec![eds("a"), eds("b")],
        endpoints: vec![endpoints("a", &[1, 2]), endpoints("b", &[3])],
        secrets: Vec::new(),
        local_cluster: None,
    }
}

fn reasons(config: &Config) -> Vec<String> {
    compile(config, None).unwrap_err().iter().map(ToString::to_string).collect()
}

fn of<'s>(snapshot: &'s Snapshot, name: &str) -> &'s Arc<crate::cluster::Cluster> {
    snapshot.cluster(snapshot.cluster_named(name).unwrap()).unwrap()
}

#[test]
fn an_unchanged_configuration_shares_everything() {
    let first = compile(&mesh(), None).unwrap();
    let second = compile(&mesh(), Some(&first)).unwrap();
    assert!(Arc::ptr_eq(&first.listeners()[0], &second.listeners()[0]));
    for name in ["a", "b"] {
        assert!(Arc::ptr_eq(of(&first, name), of(&second, name)));
        assert_eq!(first.cluster_named(name), second.cluster_named(name));
    }
    assert!(first.tables().zip(second.tables()).all(|((i, a), (j, b))| i == j && Arc::ptr_eq(a, b)));
}

#[test]
fn one_changed_route_costs_one_virtual_host() {
    let first = compile(&mesh(), None).unwrap();
    let mut config = mesh();
    config.route_configs[0].virtual_hosts[0].routes[0] = rule("r", RouteMatch::prefix("/x"), to("b"));
    // The order of virtual hosts does not matter for sharing.
    config.route_configs[0].virtual_hosts.reverse();
    let second = compile(&config, Some(&first)).unwrap();
    let hosts = |s: &Snapshot| s.tables().next().unwrap().1.virtual_hosts().to_vec();
    assert!(Arc::ptr_eq(&hosts(&first)[1], &hosts(&second)[0]));
    assert!(!Arc::ptr_eq(&hosts(&first)[0], &hosts(&second)[1]));
    assert!(
        Arc::ptr_eq(&first.listeners()[0], &second.listeners()[0]),
        "listeners refer to tables by number"
    );
    assert!(Arc::ptr_eq(of(&first, "a"), of(&second, "a")));
}

#[test]
fn live_state_survives_changes_of_cluster_and_endpoints() {
    let mut config = mesh();
    config.clusters[0].outlier_detection =
        Some(OutlierDetection { consecutive_5xx: 1, ..OutlierDetection::default() });
    let first = compile(&config, None).unwrap();
    let old = of(&first, "a").clone();
    let hosts = old.hosts().hosts().to_vec();
    let request = old.breaker(false).try_request().unwrap();
    let in_flight = hosts[1].start_request();
    let now = Instant::now();
    old.report(&hosts[1], Outcome::Response(500), now, 0);
    assert!(hosts[1].is_ejected());

    config.clusters[0].connect_timeout = Duration::from_secs(1);
    config.clusters[0].circuit_breakers.default.max_requests = 1;
    config.endpoints[0] = endpoints("a", &[2, 9]);
    config.endpoints[0].localities[0].endpoints[0].weight = 7;
    let second = compile(&config, Some(&first)).unwrap();
    let new = of(&second, "a");
    assert_ne!(new.uid, old.uid);
    let moved = new.hosts().hosts()[0].clone();
    assert_eq!((moved.id, moved.weight), (hosts[1].id, 7));
    assert!(moved.is_ejected(), "an ejection outlives the change");
    assert_eq!(moved.live.requests_active.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert!(new.breaker(false).try_request().is_err(), "what is under way counts against the new limit");
    drop((request, in_flight));
    assert_eq!(new.breaker(false).active(Limited::Requests), 0);
    assert_eq!(moved.live.requests_active.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(first.cluster_named("a"), second.cluster_named("a"));

    config.clusters[0].outlier_detection = None;
    let third = compile(&config, Some(&second)).unwrap();
    assert!(!of(&third, "a").hosts().hosts()[0].is_ejected(), "nobody would bring it back");
}

#[test]
fn endpoint_changes_reach_a_shared_cluster_only_when_all_is_well() {
    let first = compile(&mesh(), None).unwrap();
    let mut config = mesh();
    config.endpoints[0] = endpoints("a", &[1, 2, 5]);
    config.clusters[1].connect_timeout = Duration::ZERO;
    assert!(compile(&config, Some(&first)).is_err());
    assert_eq!(of(&first, "a").hosts().hosts().len(), 2);
    config.clusters[1] = eds("b");
    let second = compile(&config, Some(&first)).unwrap();
    assert!(Arc::ptr_eq(of(&first, "a"), of(&second, "a")));
    assert_eq!(of(&second, "a").hosts().hosts().len(), 3);
}

#[test]
fn eds_clusters_keep_their_hosts_while_endpoints_are_missing() {
    let first = compile(&mesh(), None).unwrap();
    let mut config = mesh();
    config.endpoints.clear();
    config.clusters[1].connect_timeout = Duration::from_secs(1);
    let second = compile(&config, Some(&first)).unwrap();
    assert_eq!(of(&second, "a").hosts().hosts().len(), 2);
    assert_eq!(of(&second, "b").hosts().hosts().len(), 1);
    let fresh = compile(&config, None).unwrap();
    assert!(of(&fresh, "a").hosts().hosts().is_empty());
}

#[test]
fn set_endpoints_refuses_what_it_cannot_use_and_keeps_the_old() {
    let snapshot = compile(&mesh(), None).unwrap();
    let cluster = of(&snapshot, "a");
    let with = |change: fn(&mut Endpoints)| {
        let mut e = endpoints("a", &[1, 2]);
        change(&mut e);
        cluster.set_endpoints(&e).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let text = with(|e| e.localities[0].endpoints[1].weight = 0);
    assert!(text.contains("endpoints/a: endpoints[0].lb_endpoints[1].load_balancing_weight"), "{text}");
    assert!(with(|e| e.localities[0].priority = 1).contains("gaps"));
    assert!(
        with(|e| e.localities[0].endpoints[1] = e.localities[0].endpoints[0].clone())
            .contains("more than once")
    );
    assert!(
        with(|e| e.localities[0].endpoints[0].address = EndpointAddress::Name("n".into(), 1)).contains("`n`")
    );
    assert!(with(|e| e.overprovisioning_factor = Some(0)).contains("overprovisioning"));
    assert_eq!(cluster.hosts().hosts().len(), 2);
    let ids: Vec<_> = cluster.hosts().hosts().iter().map(|h| h.id).collect();
    cluster.set_endpoints(&endpoints("a", &[2, 1])).unwrap();
    let swapped: Vec<_> = cluster.hosts().hosts().iter().rev().map(|h| h.id).collect();
    assert_eq!(ids, swapped);
}

#[test]
fn all_errors_are_found_at_once_with_resource_and_path() {
    let mut config = mesh();
    config.clusters.push(eds("a"));
    config.clusters.push(Cluster { connect_timeout: Duration::ZERO, ..eds("z") });
    let routes = &mut config.route_configs[0].virtual_hosts[0].routes;
    routes[0].matches.path = PathMatch::Regex("(".into());
    routes[0].headers.request_add.push(HeaderEdit {
        name: "x".into(),
        value: "%NOPE%".into(),
        append: HeaderAppend::AddIfAbsent,
        keep_empty_value: false,
    });
    config.route_configs[0].virtual_hosts[1].domains = vec!["*".into()];
    config.listeners.push(config.listeners[0].clone());
    let found = reasons(&config);
    let expected = [
        "cluster/a: name: occurs more than once",
        "cluster/z: connect_timeout: must be above 0",
        "route_config/t: virtual_hosts[0].routes[0].request_headers_to_add[0].header: command operator `%NOPE%`",
        "route_config/t: virtual_hosts[0].routes[0].match: regular expression `(`",
        "route_config/t: virtual_hosts[1].domains[0]: domain `*` occurs more than once",
        "listener/l: name: occurs more than once",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} / {expected}");
    }
}

#[test]
fn clusters_are_validated_where_the_table_asks_for_it_even_when_it_is_shared() {
    let mut config = mesh();
    config.route_configs[0].validate_clusters = true;
    let first = compile(&config, None).unwrap();
    config.clusters.remove(0);
    let errors = compile(&config, Some(&first)).unwrap_err();
    assert_eq!(errors.len(), 2);
    assert_eq!(
        errors[0].to_string(),
        "route_config/t: virtual_hosts[0].routes[0].route.cluster: cluster `a` does not exist"
    );
}

#[test]
fn override_of_a_filter_that_is_not_there_is_refused_also_in_a_shared_table() {
    let mut config = mesh();
    config.route_configs[0].virtual_hosts[1].routes[0].filters =
        Some([("guard".into(), FilterOverride::Off)].into());
    let expected = "route_config/t: virtual_hosts[1].routes[0].typed_per_filter_config[guard]: no filter of `in` has this name";
    assert_eq!(reasons(&config), [expected]);
    let guarded = |name: &str| {
        let mut http = HttpConnectionManager::new("in", RouteSource::Named("t".into()));
        http.http_filters.push(HttpFilter::new(name, FilterConfig::Rbac(Rbac::default())));
        listener("l", http)
    };
    config.listeners = vec![guarded("guard")];
    let first = compile(&config, None).unwrap();
    config.listeners = vec![guarded("other")];
    let errors = compile(&config, Some(&first)).unwrap_err();
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
}

#[test]
fn cluster_mistakes_are_refused() {
    let outlier = |change: fn(&mut OutlierDetection)| {
        let mut o = OutlierDetection::default();
        change(&mut o);
        Cluster { outlier_detection: Some(o), ..eds("c") }
    };
    let named = Endpoint {
        address: EndpointAddress::Name("n".into(), 1),
        ..Endpoint::at(([127, 0, 0, 1], 1).into())
    };
    let mut with_name = endpoints("c", &[1]);
    with_name.localities[0].endpoints[0] = named;
    let dns = |endpoints| ClusterDiscovery::LogicalDns {
        endpoints,
        refresh_rate: Duration::from_secs(5),
        respect_ttl: true,
        family: DnsFamily::Auto,
    };
    let table: Vec<(Cluster, &str)> = vec![
        (
            Cluster {
                lb_policy: LbPolicy::LeastRequest(LeastRequest {
                    choice_count: 1,
                    ..LeastRequest::default()
                }),
                ..eds("c")
            },
            "choice_count",
        ),
        (
            Cluster {
                http: UpstreamHttp { protocol: HttpUpstream::Auto, ..UpstreamHttp::default() },
                ..eds("c")
            },
            "auto_config",
        ),
        (outlier(|o| o.interval = Duration::ZERO), "outlier_detection.interval"),
        (outlier(|o| o.max_ejection_percent = 101), "max_ejection_percent"),
        (
            Cluster::new("c", ClusterDiscovery::Static(with_name.clone())),
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address",
        ),
        (Cluster::new("c", dns(endpoints("c", &[1, 2]))), "exactly one endpoint"),
    ];
    for (cluster, expected) in table {
        let found = reasons(&Config { clusters: vec![cluster], ..Config::default() });
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?} / {expected}");
    }
    let fine = Config { clusters: vec![Cluster::new("c", dns(with_name))], ..Config::default() };
    assert!(
        of(&compile(&fine, None).unwrap(), "c").hosts().hosts().is_empty(),
        "names wait for the resolver"
    );
}

#[test]
fn route_mistakes_are_refused() {
    let forward = |change: fn(&mut RouteAction)| {
        let mut a = RouteAction::to("a");
        change(&mut a);
        Action::Forward(Box::new(a))
    };
    let redirect = |status, path: Option<&str>, path_rewrite| {
        Action::Redirect(Redirect {
            status,
            scheme: None,
            host: None,
            port: None,
            path: path.map(Into::into),
            path_rewrite,
            strip_query: false,
        })
    };
    let share = |weight| WeightedCluster {
        name: "a".into(),
        cluster_header: None,
        weight,
        headers: HeaderEdits::default(),
        host_rewrite: None,
        filters: None,
        metadata_match: Vec::new(),
    };
    let _ = share;
    let table_of: Vec<(Action, &str)> = vec![
        (forward(|a| a.cluster = ClusterChoice::Single(String::new())), "route.cluster: must not be empty"),
        (forward(|a| a.cluster = ClusterChoice::Weighted(Vec::new())), "sum of weights is 0"),
        (
            forward(|a| {
                let share = |weight| WeightedCluster {
                    name: "a".into(),
                    cluster_header: None,
                    weight,
                    headers: HeaderEdits::default(),
                    host_rewrite: None,
                    filters: None,
                    metadata_match: Vec::new(),
                };
                a.cluster = ClusterChoice::Weighted(vec![share(u32::MAX), share(1)]);
            }),
            "4294967296",
        ),
        (forward(|a| a.cluster = ClusterChoice::Header(String::new())), "cluster_header"),
        (
            forward(|a| {
                a.path_rewrite = Some(PathRewrite::Regex { pattern: "(".into(), substitution: String::new() })
            }),
            "regex_rewrite",
        ),
        (forward(|a| a.host_rewrite = Some(HostRewrite::Literal(String::new()))), "host_rewrite"),
        (
            forward(|a| {
                a.retry_policy = Some(RetryPolicy { base_interval: Duration::ZERO, ..RetryPolicy::default() })
            }),
            "retry_policy.retry_back_off",
        ),
        (redirect(200, None, None), "response_code"),
        (redirect(301, Some("/a"), Some(PathRewrite::Prefix("/".into()))), "path_redirect"),
        (redirect(301, Some("/a\r\nx: y"), None), "path_redirect"),
        (
            Action::Direct(DirectResponse { status: 199, body: Vec::new(), content_type: None }),
            "direct_response.status",
        ),
        (
            Action::Direct(DirectResponse { status: 200, body: vec![b'x'; 4097], content_type: None }),
            "4097 bytes",
        ),
    ];
    for (action, expected) in table_of {
        let routes = vec![rule("r", RouteMatch::prefix("/"), action)];
        let config = Config {
            route_configs: vec![table("t", vec![host("v", &["*"], routes)])],
            clusters: vec![cluster("a")],
            ..Config::default()
        };
        let found = reasons(&config);
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?} / {expected}");
    }
}

#[test]
fn listener_mistakes_are_refused() {
    let http = || HttpConnectionManager::new("in", RouteSource::Named("t".into()));
    let tcp = |cluster| TcpProxy {
        stat_prefix: "t".into(),
        cluster,
        idle_timeout: None,
        max_downstream_connection_duration: None,
        max_connect_attempts: 1,
        tunnel: None,
        access_log: Vec::new(),
    };
    let with = |change: &dyn Fn(&mut Listener)| {
        let mut l = listener("l", http());
        change(&mut l);
        reasons(&Config { listeners: vec![l], ..Config::default() }).join("; ")
    };
    assert!(with(&|l| l.filter_chains.clear()).contains("filter_chains: must not be empty"));
    assert!(
        with(&|l| l.filter_chains.push(l.filter_chains[0].clone()))
            .contains("same as that of filter_chains[0]")
    );
    assert!(with(&|l| l.filter_chains[0].matches.server_names = vec!["a*".into()]).contains("server_names"));
    assert!(with(&|l| l.filter_chains[0].matches.transport_protocol = Some("quic".into())).contains("quic"));
    assert!(
        with(&|l| l.filter_chains[0].terminal =
            Terminal::Tcp(Box::new(tcp(ClusterChoice::Header("x".into())))))
        .contains("header")
    );
    let bad_log =
        AccessLog { sink: AccessLogSink::Stdout, format: AccessLogFormat::Text("%X%".into()), filter: None };
    let text = with(&|l| {
        let mut h = http();
        h.access_log.push(bad_log.clone());
        l.filter_chains[0].terminal = Terminal::Http(Box::new(h));
    });
    assert!(text.contains("filter_chains[0].filters[0].typed_config.access_log[0]"), "{text}");
    let inline = RouteConfig {
        validate_clusters: true,
        ..table("", vec![host("v", &["*"], vec![rule("r", RouteMatch::prefix("/"), to("none"))])])
    };
    let text = with(&|l| {
        l.filter_chains[0].terminal =
            Terminal::Http(Box::new(HttpConnectionManager::new("i", RouteSource::Inline(inline.clone()))));
    });
    let path =
        "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.cluster";
    assert!(text.contains(path), "{text}");
    let mut a = listener("a", http());
    a.address = "127.0.0.1:80".parse().unwrap();
    let b = Listener { name: "b".into(), ..a.clone() };
    assert!(
        reasons(&Config { listeners: vec![a, b], ..Config::default() })[0].contains("taken by listener `a`")
    );
}

#[test]
fn removed_names_free_their_numbers_but_referenced_ones_stay() {
    let first = compile(&mesh(), None).unwrap();
    let (a, b) = (first.cluster_named("a").unwrap(), first.cluster_named("b").unwrap());
    let mut config = mesh();
    config.clusters.clear();
    config.endpoints.clear();
    let second = compile(&config, Some(&first)).unwrap();
    assert!(second.cluster(a).is_none());
    config.clusters = vec![eds("new"), eds("a")];
    let third = compile(&config, Some(&second)).unwrap();
    assert_eq!(third.cluster_named("a"), Some(a), "the table still refers to it");
    assert_eq!(third.cluster_named("new"), Some(b), "nothing referred to `b`");
}
