//! What a request costs the allocator, once everything is warm: nothing, over kept-alive plaintext HTTP/1.1.
//!
//! Client and origin run on threads of their own with memory they took before, so that every allocation counted here is
//! the proxy's. The one test of this program has it for itself: the count is that of the whole process.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use outrigger_engine::proxy::{Proxy, ProxyHandle, ProxyOptions};
use outrigger_traffic::config::{
    Action, Cluster, ClusterDiscovery, Config, Endpoint, Endpoints, FilterChain, FilterChainMatch,
    HttpConnectionManager, Listener, LocalityEndpoints, OutlierDetection, RetryPolicy, Route, RouteAction,
    RouteConfig, RouteMatch, RouteSource, Terminal, VirtualHost,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUEST: &[u8] =
    b"GET /api/items?full=1 HTTP/1.1\r\nHost: app.mesh\r\nUser-Agent: test/1\r\nAccept: */*\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: app\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";

/// Answers every request on every connection. Requests come one at a time and whole.
fn origin() -> SocketAddr {
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

/// A proxy with retries, circuit breakers and outlier detection armed.
fn proxy(origin: SocketAddr) -> ProxyHandle {
    let localities =
        vec![LocalityEndpoints { endpoints: vec![Endpoint::at(origin)], ..LocalityEndpoints::default() }];
    let endpoints = Endpoints { cluster_name: "app".into(), localities, overprovisioning_factor: None };
    let mut cluster = Cluster::new("app", ClusterDiscovery::Static(endpoints));
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
        rbac: None,
        per_request_buffer_limit_bytes: None,
        decorator: None,
    };
    let host = VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    let table = RouteConfig { virtual_hosts: vec![host], ..RouteConfig::default() };
    let mut listener = Listener::new("edge", "127.0.0.1:0".parse().unwrap());
    listener.filter_chains = vec![FilterChain {
        name: String::new(),
        matches: FilterChainMatch::default(),
        tls: None,
        transport_socket_connect_timeout: Duration::from_secs(15),
        network_filters: Vec::new(),
        terminal: Terminal::Http(Box::new(HttpConnectionManager::new("edge", RouteSource::Inline(table)))),
    }];
    let config = Config { listeners: vec![listener], clusters: vec![cluster], ..Config::default() };
    let proxy = Proxy::start(ProxyOptions { concurrency: 1, ..ProxyOptions::default() }).unwrap();
    proxy.apply(config).unwrap();
    proxy
}

fn request(stream: &mut TcpStream, room: &mut [u8; 4096]) {
    stream.write_all(REQUEST).unwrap();
    let mut have = 0;
    while !room[..have].ends_with(b"hello") {
        let n = stream.read(&mut room[have..]).unwrap();
        assert!(n > 0, "the proxy closed the connection");
        have += n;
    }
    assert!(room.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

#[test]
fn kept_alive_request_allocates_nothing() {
    const REQUESTS: usize = 2_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let proxy = proxy(origin());
    let mut stream = TcpStream::connect(proxy.listener_addrs("edge")[0]).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut room = [0; 4096];
    for _ in 0..500 {
        request(&mut stream, &mut room);
    }
    let region = Region::new(COUNTED);
    for _ in 0..REQUESTS {
        request(&mut stream, &mut room);
    }
    let change = region.change();
    let taken = change.allocations + change.reallocations;
    // Timers and the once-a-second sweep of the process may take a few, however many requests there are.
    assert!(taken <= REQUESTS / 50, "{taken} allocations in {REQUESTS} requests: {change:?}");
}
