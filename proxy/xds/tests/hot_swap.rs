//! What one changed route of ten thousand costs the control thread, from the bytes to the engine's compiled snapshot.
//!
//! `cargo test --release -p outrigger-xds --test hot_swap -- --nocapture` prints the figures of docs/performance.md. The
//! test itself holds them against the price of the whole table, which is the same on every machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what is unexpected in a test ends it"
)]

use outrigger_api::envoy::config::route::v3 as proto;
use outrigger_traffic::config::{Config, ConfigError, Endpoints};
use outrigger_traffic::snapshot::Snapshot;
use outrigger_xds::ads::Kind;
use outrigger_xds::ads::session::{Response, Variant};
use outrigger_xds::feed::links::LinkId;
use outrigger_xds::feed::{Feed, Raw, Sink};
use prost::Message;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const HOSTS: usize = 10_000;

/// Compiles as the engine does, beside the snapshot before, and holds what is in effect.
#[derive(Default)]
struct Compiler(Mutex<(Snapshot, Config)>);

impl Sink for Compiler {
    fn apply(&self, config: Config) -> Result<u64, Vec<ConfigError>> {
        let mut held = self.0.lock().unwrap();
        let snapshot = outrigger_traffic::compile(&config, Some(&held.0))?;
        *held = (snapshot, config);
        Ok(1)
    }

    fn apply_endpoints(&self, _: &Endpoints) -> Result<(), Vec<ConfigError>> {
        Ok(())
    }
}

fn table(changed: usize, timeout: i64) -> proto::RouteConfiguration {
    let host = |n: usize| {
        let cluster = proto::route_action::ClusterSpecifier::Cluster(format!("cluster-{}", n % 100));
        let forward = proto::RouteAction {
            cluster_specifier: Some(cluster),
            timeout: Some(prost_types::Duration {
                seconds: if n == changed { timeout } else { 15 },
                nanos: 0,
            }),
            ..proto::RouteAction::default()
        };
        let matches = proto::RouteMatch {
            path_specifier: Some(proto::route_match::PathSpecifier::Prefix("/".into())),
            ..proto::RouteMatch::default()
        };
        let route = proto::Route {
            name: format!("route-{n}"),
            r#match: Some(matches),
            action: Some(proto::route::Action::Route(forward)),
            ..proto::Route::default()
        };
        proto::VirtualHost {
            name: format!("service-{n}"),
            domains: vec![format!("service-{n}.namespace.mesh"), format!("service-{n}.namespace.mesh:8080")],
            routes: vec![route],
            ..proto::VirtualHost::default()
        }
    };
    proto::RouteConfiguration {
        name: "t".into(),
        virtual_hosts: (0..HOSTS).map(host).collect(),
        ..proto::RouteConfiguration::default()
    }
}

/// Processor time of this thread: the same however busy the machine is.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Hands the feed a route table and tells how long the thread was at work.
fn receive(feed: &mut Feed, message: &proto::RouteConfiguration, version: usize) -> Duration {
    let raw = Raw {
        name: "t".into(),
        version: version.to_string(),
        type_url: Kind::RouteConfig.type_url().into(),
        bytes: message.encode_to_vec().into(),
    };
    let response = Response {
        type_url: Kind::RouteConfig.type_url().into(),
        version: version.to_string(),
        nonce: version.to_string(),
        resources: Vec::new(),
        removed: Vec::new(),
    };
    let start = cpu();
    feed.received(LinkId(0), response, vec![raw], Instant::now());
    let took = cpu() - start;
    assert!(feed.status.refused.is_empty(), "{:?}", feed.status.refused);
    took
}

#[test]
fn one_changed_route_of_ten_thousand_costs_a_fraction_of_the_table() {
    let compiler = Arc::new(Compiler::default());
    let mut feed = Feed::new(Variant::Delta, base(), compiler.clone(), None);
    feed.start(Instant::now()).unwrap();
    feed.connected(LinkId(0));
    let whole = receive(&mut feed, &table(0, 15), 1);
    let each = |n: usize| receive_one(&mut feed, n);
    let mut changes: Vec<Duration> = (2..8).map(each).collect();
    changes.sort();
    let median = changes[changes.len() / 2];
    println!("{HOSTS} virtual hosts: whole table {whole:?}, one changed {median:?} (median of {changes:?})");
    let held = compiler.0.lock().unwrap();
    let host = &held.1.route_configs[0].virtual_hosts[7 * 7];
    let outrigger_traffic::config::Action::Forward(forward) = &host.routes[0].action else {
        panic!("{host:?}")
    };
    assert_eq!(forward.timeout, Some(Duration::from_secs(107)), "the last change is in effect");
    assert!(median * 4 < whole, "one changed: {median:?}, all: {whole:?}");
}

fn receive_one(feed: &mut Feed, n: usize) -> Duration {
    receive(feed, &table(n * 7, 100 + n as i64), n)
}

/// A listener that asks for the table.
fn base() -> Config {
    let yaml = r#"
static_resources:
  clusters:
  - name: control
    type: STATIC
    load_assignment: {cluster_name: control, endpoints: []}
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 1}}
    filter_chains:
    - filters:
      - name: h
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          rds: {route_config_name: t, config_source: {ads: {}, resource_api_version: V3}}
          http_filters:
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#;
    outrigger_xds::bootstrap::load_bootstrap(yaml, outrigger_xds::bootstrap::Format::Yaml).unwrap().config
}
