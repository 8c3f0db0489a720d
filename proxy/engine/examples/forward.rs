//! The smallest embedding: everything that arrives on one address is forwarded to another.
//!
//! ```text
//! forward LISTEN UPSTREAM [h2]
//! forward 127.0.0.1:8080 127.0.0.1:9000
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_engine::proxy::{Proxy, ProxyOptions};
use outrigger_traffic::config::{
    Action, Cluster, ClusterDiscovery, Config, Endpoint, Endpoints, FilterChain, FilterChainMatch,
    HttpConnectionManager, HttpUpstream, Listener, LocalityEndpoints, Route, RouteAction, RouteConfig,
    RouteMatch, RouteSource, Terminal, Upgrade, VirtualHost,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let listen: SocketAddr = args.next().ok_or("LISTEN is missing")?.parse()?;
    let upstream: SocketAddr = args.next().ok_or("UPSTREAM is missing")?.parse()?;
    let h2 = args.next().is_some_and(|protocol| protocol == "h2");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let handle = Proxy::start(ProxyOptions::default())?;
        if let Err(errors) = handle.apply(config(listen, upstream, h2)) {
            return Err(format!("refused: {errors:?}").into());
        }
        tokio::signal::ctrl_c().await?;
        handle.drain_within(Duration::from_secs(10)).await;
        Ok(())
    })
}

fn config(listen: SocketAddr, upstream: SocketAddr, h2: bool) -> Config {
    let endpoints = Endpoints {
        cluster_name: "upstream".into(),
        localities: vec![LocalityEndpoints {
            endpoints: vec![Endpoint::at(upstream)],
            ..LocalityEndpoints::default()
        }],
        overprovisioning_factor: None,
    };
    let mut cluster = Cluster::new("upstream", ClusterDiscovery::Static(endpoints));
    if h2 {
        cluster.http.protocol = HttpUpstream::Http2;
    }
    let route = Route {
        name: "all".into(),
        matches: RouteMatch::prefix("/"),
        action: Action::Forward(Box::new(RouteAction::to("upstream"))),
        headers: Default::default(),
        filters: None,
        per_request_buffer_limit_bytes: None,
        decorator: None,
        tracing: None,
    };
    let host = VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    let table = RouteConfig { virtual_hosts: vec![host.into()], ..RouteConfig::default() };
    let mut manager = HttpConnectionManager::new("forward", RouteSource::Inline(table));
    manager.upgrades.push(Upgrade { upgrade_type: "websocket".into(), enabled: true });
    let mut listener = Listener::new("forward", listen);
    listener.filter_chains.push(FilterChain {
        name: String::new(),
        matches: FilterChainMatch::default(),
        tls: None,
        transport_socket_connect_timeout: Duration::from_secs(15),
        network_filters: Vec::new(),
        terminal: Terminal::Http(Box::new(manager)),
    });
    Config { clusters: vec![cluster], listeners: vec![listener], ..Config::default() }
}
