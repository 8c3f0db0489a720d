//! What decisions cost: finding a route, picking a host, reporting back, compiling.
//!
//! `cargo bench -p outrigger-benches --bench traffic`. Goals: `find` 20–60 ns whatever the size of the table; `compile`
//! of 10,000 routes and 5,000 endpoints below 50 ms, and far below that when one route changed.

#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use outrigger_traffic::balance::PickContext;
use outrigger_traffic::config::{
    Action, Cluster, ClusterDiscovery, Config, Endpoint, Endpoints, HeaderEdits, LbPolicy, LocalityEndpoints,
    Maglev, PathMatch, RingHash, Route, RouteAction, RouteConfig, RouteMatch, VirtualHost,
};
use outrigger_traffic::outcome::Outcome;
use outrigger_traffic::{FieldView, RequestView, Snapshot, compile};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

struct Head {
    authority: String,
    path: String,
}

impl FieldView for Head {
    fn header(&self, _lower: &[u8]) -> Option<&[u8]> {
        None
    }
    fn for_each_header(&self, _lower: &[u8], _f: &mut dyn FnMut(&[u8])) {}
}

impl RequestView for Head {
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn scheme(&self) -> &[u8] {
        b"https"
    }
    fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
}

fn route(path: PathMatch, cluster: usize) -> Route {
    Route {
        name: format!("route-{cluster}"),
        matches: RouteMatch { path, ..RouteMatch::prefix("") },
        action: Action::Forward(Box::new(RouteAction::to(format!("cluster-{cluster}")))),
        headers: HeaderEdits::default(),
        filters: None,
        per_request_buffer_limit_bytes: None,
        decorator: None,
        tracing: None,
    }
}

fn hosts(count: usize) -> RouteConfig {
    let virtual_hosts = (0..count).map(|n| VirtualHost {
        name: format!("host-{n}"),
        domains: vec![format!("service-{n}.namespace.mesh"), format!("service-{n}.namespace.mesh:8080")],
        routes: vec![route(PathMatch::Prefix("/".into()), n % 100)],
        ..VirtualHost::default()
    });
    RouteConfig {
        name: "t".into(),
        virtual_hosts: virtual_hosts.map(Into::into).collect(),
        ..RouteConfig::default()
    }
}

fn prefixes(count: usize) -> RouteConfig {
    let routes =
        (0..count).map(|n| route(PathMatch::Prefix(format!("/api/v1/resource-{n}/")), n % 100)).collect();
    let host = VirtualHost { name: "v".into(), domains: vec!["*".into()], routes, ..VirtualHost::default() };
    RouteConfig { name: "t".into(), virtual_hosts: vec![host.into()], ..RouteConfig::default() }
}

fn cluster(name: &str, count: u16, policy: LbPolicy) -> Cluster {
    let endpoints =
        (0..count).map(|p| Endpoint::at(([10, 0, (p >> 8) as u8, p as u8], 8080).into())).collect();
    let localities = vec![LocalityEndpoints { endpoints, ..LocalityEndpoints::default() }];
    let endpoints = Endpoints { cluster_name: name.into(), localities, overprovisioning_factor: None };
    let mut cluster = Cluster::new(name, ClusterDiscovery::Static(endpoints));
    cluster.lb_policy = policy;
    cluster.outlier_detection = Some(Default::default());
    cluster
}

fn with_table(table: RouteConfig) -> Snapshot {
    compile(&Config { route_configs: vec![table], ..Config::default() }, None).unwrap()
}

fn find(c: &mut Criterion) {
    for count in [1, 100, 10_000] {
        let snapshot = with_table(hosts(count));
        let table = snapshot.tables().next().unwrap().1;
        let head = Head {
            authority: format!("service-{}.namespace.mesh", count / 2),
            path: "/some/path?query=1".into(),
        };
        c.bench_function(&format!("find/hosts-{count}"), |b| {
            b.iter(|| table.find(black_box(&head), 0).is_some())
        });
    }
    for count in [1, 1_000] {
        let snapshot = with_table(prefixes(count));
        let table = snapshot.tables().next().unwrap().1;
        let head =
            Head { authority: "any".into(), path: format!("/api/v1/resource-{}/item/7?query=1", count / 2) };
        c.bench_function(&format!("find/prefixes-{count}"), |b| {
            b.iter(|| table.find(black_box(&head), 0).is_some())
        });
    }
}

fn pick(c: &mut Criterion) {
    let policies = [
        ("round-robin", LbPolicy::RoundRobin),
        ("random", LbPolicy::Random),
        ("least-request", LbPolicy::least_request()),
        ("ring-hash", LbPolicy::RingHash(RingHash::default())),
        ("maglev", LbPolicy::Maglev(Maglev::default())),
    ];
    for (name, policy) in policies {
        for count in [3, 100, 10_000] {
            let snapshot = compile(
                &Config { clusters: vec![cluster("c", count, policy.clone())], ..Config::default() },
                None,
            )
            .unwrap();
            let cluster = snapshot.clusters().next().unwrap().1;
            let mut rng = 1u64;
            let mut draw = move || {
                rng = rng.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                rng
            };
            let now = Instant::now();
            c.bench_function(&format!("pick/{name}-{count}"), |b| {
                b.iter(|| {
                    // Policies by hash draw one where the request has none.
                    cluster.pick(&mut PickContext::new(now, &mut draw)).is_ok()
                });
            });
        }
    }
    let snapshot =
        compile(&Config { clusters: vec![cluster("c", 3, LbPolicy::RoundRobin)], ..Config::default() }, None)
            .unwrap();
    let cluster = snapshot.clusters().next().unwrap().1;
    let host = cluster.hosts().hosts()[0].clone();
    let now = Instant::now();
    c.bench_function("attempt/permit-guard-report", |b| {
        b.iter(|| {
            let permit = cluster.breaker(false).try_request();
            let guard = host.start_request();
            cluster.report(&host, Outcome::Response(200), now, 0);
            (permit.is_ok(), drop(guard))
        });
    });
    // The worst that sharing can do: another core does nothing else but the same with the same host.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let permit = cluster.breaker(false).try_request();
                drop((permit, host.start_request()));
            }
        });
        c.bench_function("attempt/permit-guard-report, contended", |b| {
            b.iter(|| {
                let permit = cluster.breaker(false).try_request();
                let guard = host.start_request();
                cluster.report(&host, Outcome::Response(200), now, 0);
                (permit.is_ok(), drop(guard))
            });
        });
        stop.store(true, Relaxed);
    });
}

fn big() -> Config {
    let mut tables: Vec<_> = (0..10).map(|t| RouteConfig { name: format!("t{t}"), ..hosts(900) }).collect();
    tables.push(prefixes(1_000));
    Config {
        route_configs: tables,
        clusters: (0..100).map(|n| cluster(&format!("cluster-{n}"), 50, LbPolicy::RoundRobin)).collect(),
        ..Config::default()
    }
}

fn compiling(c: &mut Criterion) {
    let config = big();
    let first = compile(&config, None).unwrap();
    let mut changed = config.clone();
    changed.route_configs[3].virtual_hosts[7].routes[0] = route(PathMatch::Prefix("/x".into()), 1);
    let mut group = c.benchmark_group("compile-10000-routes-5000-endpoints");
    group.sample_size(20);
    group.bench_function("from-nothing", |b| b.iter(|| compile(&config, None).is_ok()));
    group.bench_function("nothing-changed", |b| b.iter(|| compile(&config, Some(&first)).is_ok()));
    group.bench_function("one-route-changed", |b| b.iter(|| compile(&changed, Some(&first)).is_ok()));
    group.finish();
}

criterion_group!(benches, find, pick, compiling);
criterion_main!(benches);
