//! A proxy and an origin that allocate nothing of their own once they run.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use outrigger_engine::proxy::{Proxy, ProxyHandle, ProxyOptions};
use outrigger_traffic::config::{
    Action, Cluster, ClusterDiscovery, Config, DownstreamTls, Endpoint, Endpoints, FilterChain,
    FilterChainMatch, HttpConnectionManager, HttpUpstream, Listener, LocalityEndpoints, OutlierDetection,
    RetryPolicy, Route, RouteAction, RouteConfig, RouteMatch, RouteSource, Terminal, VirtualHost,
};

/// A small request.
pub(crate) const REQUEST: &[u8] =
    b"GET /api/items?full=1 HTTP/1.1\r\nHost: app.mesh\r\nUser-Agent: test/1\r\nAccept: */*\r\n\r\n";
/// What the origin answers.
pub(crate) const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: app\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";

/// Answers every request on every connection. Requests come one at a time and whole.
pub(crate) fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                let mut room = [0; 4096];
                while stream.read(&mut room).is_ok_and(|n| n > 0) {
                    if stream.write_all(RESPONSE).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A proxy with retries, circuit breakers and outlier detection armed; its workers share one host.
pub(crate) fn proxy(
    origin: SocketAddr,
    tls: Option<DownstreamTls>,
    upstream: HttpUpstream,
    concurrency: usize,
) -> ProxyHandle {
    let localities =
        vec![LocalityEndpoints { endpoints: vec![Endpoint::at(origin)], ..LocalityEndpoints::default() }];
    let endpoints = Endpoints { cluster_name: "app".into(), localities, overprovisioning_factor: None };
    let mut cluster = Cluster::new("app", ClusterDiscovery::Static(endpoints));
    cluster.http.protocol = upstream;
    cluster.outlier_detection = Some(OutlierDetection::default());
    let mut retry = RetryPolicy { num_retries: 2, ..RetryPolicy::default() };
    retry.retry_on.gateway_error = true;
    let mut action = RouteAction::to("app");
    action.timeout = Some(Duration::from_secs(15));
    action.retry_policy = Some(retry);
    let route = Route {
        name: String::new(),
        matches: RouteMatch::prefix("/"),
        action: Action::Forward(Box::new(action)),
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
    let mut listener = Listener::new("edge", "127.0.0.1:0".parse().unwrap());
    listener.filter_chains = vec![FilterChain {
        name: String::new(),
        matches: FilterChainMatch::default(),
        tls,
        transport_socket_connect_timeout: Duration::from_secs(15),
        network_filters: Vec::new(),
        terminal: Terminal::Http(Box::new(HttpConnectionManager::new("edge", RouteSource::Inline(table)))),
    }];
    let config = Config { listeners: vec![listener], clusters: vec![cluster], ..Config::default() };
    let proxy = Proxy::start(ProxyOptions { concurrency, ..ProxyOptions::default() }).unwrap();
    proxy.apply(config).unwrap();
    proxy
}
