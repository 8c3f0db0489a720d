//! What the examples share: a configuration with one listener and one cluster, and an origin that says its name.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "shared by the examples, each of which uses a part"
)]

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_traffic::config::{
    Action, Cluster, ClusterDiscovery, Config, Endpoint, Endpoints, FilterChain, FilterChainMatch,
    HttpConnectionManager, Listener, LocalityEndpoints, Route, RouteAction, RouteConfig, RouteMatch,
    RouteSource, Terminal, VirtualHost,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A cluster of these hosts.
pub fn cluster(name: &str, hosts: &[SocketAddr]) -> Cluster {
    let endpoints = Endpoints {
        cluster_name: name.into(),
        localities: vec![LocalityEndpoints {
            endpoints: hosts.iter().map(|host| Endpoint::at(*host)).collect(),
            ..LocalityEndpoints::default()
        }],
        overprovisioning_factor: None,
    };
    Cluster::new(name, ClusterDiscovery::Static(endpoints))
}

/// A route to a cluster.
pub fn route(prefix: &str, action: RouteAction) -> Route {
    Route {
        name: prefix.into(),
        matches: RouteMatch::prefix(prefix),
        action: Action::Forward(Box::new(action)),
        headers: Default::default(),
        filters: None,
        per_request_buffer_limit_bytes: None,
        decorator: None,
        tracing: None,
    }
}

/// Routes of every host name.
pub fn table(routes: Vec<Route>) -> RouteConfig {
    let host =
        VirtualHost { name: "all".into(), domains: vec!["*".into()], routes, ..VirtualHost::default() };
    RouteConfig { virtual_hosts: vec![host.into()], ..RouteConfig::default() }
}

/// A listener `edge` that routes everything to cluster `upstream`, made of these hosts. It is bound to a free port of the
/// loopback where that is asked for.
pub fn config(bound: bool, hosts: &[SocketAddr]) -> Config {
    let routes = table(vec![route("/", RouteAction::to("upstream"))]);
    // One that is not bound is known by its address all the same, which must have a port.
    let port = if bound { 0 } else { 1 };
    let mut listener = Listener::new("edge", SocketAddr::from(([127, 0, 0, 1], port)));
    listener.bind_to_port = bound;
    listener.filter_chains.push(FilterChain {
        name: String::new(),
        matches: FilterChainMatch::default(),
        tls: None,
        transport_socket_connect_timeout: Duration::from_secs(15),
        network_filters: Vec::new(),
        terminal: Terminal::Http(Box::new(HttpConnectionManager::new("edge", RouteSource::Inline(routes)))),
    });
    Config { clusters: vec![cluster("upstream", hosts)], listeners: vec![listener], ..Config::default() }
}

/// A server that answers every request with `name`; it ends with the runtime.
pub async fn origin(name: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.is_ok_and(|n| n > 0) {
                    if head.ends_with(b"\r\n\r\n") {
                        let answer =
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                        head.clear();
                    }
                }
            });
        }
    });
    Ok(address)
}

/// Sends a GET over a connection of its own; returns status line and body.
pub async fn get(address: SocketAddr, path: &str) -> std::io::Result<(String, String)> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok((head.lines().next().unwrap_or("").to_owned(), body.to_owned()))
}
