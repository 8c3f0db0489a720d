//! A proxy between testkit's clients and origins.

use std::net::SocketAddr;

use outrigger_engine::proxy::{Proxy, ProxyHandle, ProxyOptions};
use outrigger_testkit::{H1Client, H2Client, Origin};
use outrigger_traffic::config::{
    Action, Cluster, ClusterDiscovery, Config, Endpoint, Endpoints, FilterChain, FilterChainMatch,
    HttpConnectionManager, HttpUpstream, Listener, LocalityEndpoints, RetryOn, RetryPolicy, Route,
    RouteAction, RouteConfig, RouteMatch, RouteSource, Terminal, VirtualHost,
};

/// A running proxy with one listener, `edge`.
pub(crate) struct Bed {
    pub(crate) handle: ProxyHandle,
    pub(crate) address: SocketAddr,
    pub(crate) config: Config,
}

impl Bed {
    pub(crate) fn start(config: Config) -> Self {
        Self::start_with(ProxyOptions::default(), config)
    }

    pub(crate) fn start_with(options: ProxyOptions, config: Config) -> Self {
        let handle = Proxy::start(options).expect("a proxy");
        handle.apply(config.clone()).expect("a good configuration");
        let address = handle.listener_addrs("edge")[0];
        Self { handle, address, config }
    }

    /// Changes the configuration.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.handle.apply(self.config.clone()).expect("a good configuration");
    }

    pub(crate) async fn h1(&self) -> H1Client {
        H1Client::connect(self.address).await
    }

    pub(crate) async fn h2(&self) -> H2Client {
        H2Client::connect(self.address).await
    }

    /// Sum of a counter of the one connection manager.
    pub(crate) fn http_stat(&self, pick: impl Fn(&outrigger_engine::telemetry::HttpStats) -> u64) -> u64 {
        let live = self.handle.shared().live.load_full();
        let listener = live.listeners.get("edge").expect("the listener");
        listener.chains[0].stats.total(pick)
    }

    /// Sum of a counter of a cluster.
    pub(crate) fn cluster_stat(
        &self,
        name: &str,
        pick: impl Fn(&outrigger_engine::telemetry::ClusterStats) -> u64,
    ) -> u64 {
        let live = self.handle.shared().live.load_full();
        let cluster =
            live.clusters.iter().flatten().find(|cluster| &*cluster.name == name).expect("the cluster");
        cluster.stats.total(pick)
    }
}

/// Waits until `holds`: counters move after the last byte was sent.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    outrigger_testkit::within(what, wait).await;
}

/// Everything under `/` goes to cluster `a`, made of these origins.
pub(crate) fn to(origins: &[&Origin]) -> Config {
    let mut config = Config::default();
    config.clusters.push(cluster("a", origins));
    config.listeners.push(listener(vec![forward("/", "a")]));
    config
}

/// As [`to`], over HTTP/2.
pub(crate) fn to_h2(origins: &[&Origin]) -> Config {
    let mut config = to(origins);
    config.clusters[0].http.protocol = HttpUpstream::Http2;
    config
}

pub(crate) fn cluster(name: &str, origins: &[&Origin]) -> Cluster {
    let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address()).collect();
    cluster_at(name, &addresses)
}

pub(crate) fn cluster_at(name: &str, addresses: &[SocketAddr]) -> Cluster {
    let endpoints = Endpoints {
        cluster_name: name.into(),
        localities: vec![LocalityEndpoints {
            endpoints: addresses.iter().map(|address| Endpoint::at(*address)).collect(),
            ..LocalityEndpoints::default()
        }],
        overprovisioning_factor: None,
    };
    Cluster::new(name, ClusterDiscovery::Static(endpoints))
}

pub(crate) fn listener(routes: Vec<Route>) -> Listener {
    let host =
        VirtualHost { name: "all".into(), domains: vec!["*".into()], routes, ..VirtualHost::default() };
    let table = RouteConfig { virtual_hosts: vec![host.into()], ..RouteConfig::default() };
    let manager = HttpConnectionManager::new("edge", RouteSource::Inline(table));
    let mut listener = Listener::new("edge", "127.0.0.1:0".parse().expect("an address"));
    listener.filter_chains.push(FilterChain {
        name: String::new(),
        matches: FilterChainMatch::default(),
        tls: None,
        transport_socket_connect_timeout: std::time::Duration::from_secs(5),
        network_filters: Vec::new(),
        terminal: Terminal::Http(Box::new(manager)),
    });
    listener
}

pub(crate) fn forward(prefix: &str, cluster: &str) -> Route {
    Route {
        name: String::new(),
        matches: RouteMatch::prefix(prefix),
        action: Action::Forward(Box::new(RouteAction::to(cluster))),
        headers: Default::default(),
        filters: None,
        per_request_buffer_limit_bytes: None,
        decorator: None,
        tracing: None,
    }
}

/// The connection manager of a configuration made here.
pub(crate) fn manager(config: &mut Config) -> &mut HttpConnectionManager {
    match &mut config.listeners[0].filter_chains[0].terminal {
        Terminal::Http(manager) => manager,
        Terminal::Tcp(_) => panic!("not HTTP"),
    }
}

pub(crate) fn table(config: &mut Config) -> &mut RouteConfig {
    match &mut manager(config).routes {
        RouteSource::Inline(table) => table,
        RouteSource::Named(_) | RouteSource::Scoped(_) => panic!("not inline"),
    }
}

/// The only virtual host.
pub(crate) fn host(config: &mut Config) -> &mut VirtualHost {
    &mut table(config).virtual_hosts[0]
}

/// The action of a route.
pub(crate) fn action(config: &mut Config, route: usize) -> &mut RouteAction {
    match &mut host(config).routes[route].action {
        Action::Forward(action) => action,
        other => panic!("not a forward: {other:?}"),
    }
}

pub(crate) fn retry_on(set: impl FnOnce(&mut RetryOn), retries: u32) -> RetryPolicy {
    let mut policy = RetryPolicy { num_retries: retries, ..RetryPolicy::default() };
    set(&mut policy.retry_on);
    policy.base_interval = std::time::Duration::from_millis(1);
    policy.max_interval = std::time::Duration::from_millis(2);
    policy
}
