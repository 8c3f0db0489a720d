//! Configurations built in code, and a proxy that serves them.

use outrigger_engine::proxy::{Proxy, ProxyHandle, ProxyOptions};
use outrigger_engine::telemetry::{NodeIdentity, WorkloadLabels};
use outrigger_testkit::{H1Client, Response, within};
use outrigger_traffic::config::{
    Action, Cluster, ClusterDiscovery, Config, Endpoint, Endpoints, FilterChain, FilterChainMatch,
    HeaderEdits, HttpConnectionManager, Listener, LocalityEndpoints, Route, RouteAction, RouteConfig,
    RouteMatch, RouteSource, Terminal, TrafficDirection, VirtualHost,
};
use std::net::SocketAddr;
use std::time::Duration;

/// Who the proxies of these tests are.
pub(crate) fn node() -> NodeIdentity {
    NodeIdentity {
        id: "proxy-1".into(),
        cluster: "front".into(),
        workload: WorkloadLabels {
            workload: "front".into(),
            namespace: "shop".into(),
            app: "front".into(),
            version: "v1".into(),
            ..WorkloadLabels::default()
        },
        ..NodeIdentity::default()
    }
}

/// A proxy with administration and two workers.
pub(crate) fn start() -> ProxyHandle {
    start_with(|_| {})
}

/// As above, with other options.
pub(crate) fn start_with(change: impl FnOnce(&mut ProxyOptions)) -> ProxyHandle {
    let mut options = ProxyOptions {
        concurrency: 2,
        node: node(),
        admin: Some("127.0.0.1:0".parse().unwrap()),
        drain_time: Duration::from_secs(10),
        ..ProxyOptions::default()
    };
    change(&mut options);
    Proxy::start(options).unwrap()
}

/// A static cluster of these addresses.
pub(crate) fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    Cluster::new(name, ClusterDiscovery::Static(endpoints(name, addresses)))
}

/// Endpoints in one locality.
pub(crate) fn endpoints(name: &str, addresses: &[SocketAddr]) -> Endpoints {
    Endpoints {
        cluster_name: name.into(),
        localities: vec![LocalityEndpoints {
            endpoints: addresses.iter().copied().map(Endpoint::at).collect(),
            ..LocalityEndpoints::default()
        }],
        overprovisioning_factor: None,
    }
}

/// All requests to one cluster.
pub(crate) fn routes_to(cluster: &str) -> RouteConfig {
    let route = Route {
        name: "all".into(),
        matches: RouteMatch::prefix("/"),
        action: Action::Forward(Box::new(RouteAction::to(cluster))),
        headers: HeaderEdits::default(),
        filters: None,
        per_request_buffer_limit_bytes: None,
        decorator: None,
        tracing: None,
    };
    let host = VirtualHost {
        name: "any".into(),
        domains: vec!["*".into()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    RouteConfig { name: "routes".into(), virtual_hosts: vec![host.into()], ..RouteConfig::default() }
}

/// A plaintext HTTP listener on a free port.
pub(crate) fn http_listener(name: &str, hcm: HttpConnectionManager) -> Listener {
    let mut listener = Listener::new(name, "127.0.0.1:0".parse().unwrap());
    listener.traffic_direction = TrafficDirection::Outbound;
    listener.filter_chains = vec![FilterChain {
        name: "plain".into(),
        matches: FilterChainMatch::default(),
        tls: None,
        transport_socket_connect_timeout: Duration::from_secs(15),
        network_filters: Vec::new(),
        terminal: Terminal::Http(Box::new(hcm)),
    }];
    listener
}

/// Listener `in`, routes `routes`, cluster `a` of these addresses.
pub(crate) fn simple(addresses: &[SocketAddr]) -> Config {
    simple_with(addresses, |_| {})
}

/// As above, with another connection manager.
pub(crate) fn simple_with(
    addresses: &[SocketAddr],
    change: impl FnOnce(&mut HttpConnectionManager),
) -> Config {
    let mut hcm = HttpConnectionManager::new("ingress", RouteSource::Inline(routes_to("a")));
    change(&mut hcm);
    Config {
        listeners: vec![http_listener("in", hcm)],
        clusters: vec![cluster("a", addresses)],
        ..Config::default()
    }
}

/// The address of listener `in`.
pub(crate) fn address(proxy: &ProxyHandle) -> SocketAddr {
    proxy.listener_addrs("in")[0]
}

/// A request to the administration.
pub(crate) async fn admin(proxy: &ProxyHandle, method: &str, path: &str) -> Response {
    let address = proxy.admin_addr().unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    // Boxed: unoptimised, every future on the way up keeps a copy of it on the stack.
    Box::pin(async move {
        let mut client = H1Client::connect(address).await;
        client.send(request.as_bytes()).await.unwrap();
        within("an answer of the administration", client.response(method)).await.unwrap()
    })
    .await
}

/// The body of a GET that must succeed.
pub(crate) async fn admin_text(proxy: &ProxyHandle, path: &str) -> String {
    let response = admin(proxy, "GET", path).await;
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.text()
}

/// The JSON of a GET that must succeed.
pub(crate) async fn admin_json(proxy: &ProxyHandle, path: &str) -> serde_json::Value {
    serde_json::from_str(&admin_text(proxy, path).await).unwrap()
}

/// Asks again until `is_it`, at most for the patience of the testkit.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = Box::pin(async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    within(what, looking).await
}
