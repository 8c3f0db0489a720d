//! An edge gateway: Pingora serves, Outrigger decides. It routes `/api` to two hosts with retries and outlier detection,
//! answers `/health` itself, and redirects `/old`; then its configuration is replaced while it serves.
//!
//! `cargo run --example edge -- LISTEN HOST HOST`, such as `127.0.0.1:8080 127.0.0.1:9001 127.0.0.1:9002`.

#![allow(unreachable_pub, reason = "the tests run it as a module")]

use async_trait::async_trait;
use outrigger_pingora::{Decisions, Gateway};
use outrigger_traffic::config::{
    Action, Cluster, ClusterDiscovery, Config, DirectResponse, Endpoint, Endpoints, FilterChain,
    FilterChainMatch, HttpConnectionManager, Listener, LocalityEndpoints, OutlierDetection, Redirect,
    RetryOn, RetryPolicy, Route, RouteAction, RouteConfig, RouteMatch, RouteSource, Terminal, VirtualHost,
};
use pingora_core::server::{Server, ShutdownWatch, configuration::ServerConf};
use pingora_core::services::background::{BackgroundService, background_service};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Where ejected hosts come back.
struct Keeper(Arc<Decisions>);

#[async_trait]
impl BackgroundService for Keeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = self.0.keep() => {}
            _ = shutdown.changed() => {}
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let listen = args.next().ok_or("LISTEN is missing")?;
    let hosts: Vec<SocketAddr> = args.map(|host| host.parse()).collect::<Result<_, _>>()?;
    let decisions = Arc::new(Decisions::new());
    decisions.apply(config(&hosts)).map_err(|errors| format!("refused: {errors:?}"))?;
    server(&listen, decisions).run_forever()
}

/// A Pingora server with one gateway.
pub fn server(listen: &str, decisions: Arc<Decisions>) -> Server {
    let conf = ServerConf {
        threads: 2,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service =
        pingora_proxy::http_proxy_service(&server.configuration, Gateway::new(decisions.clone(), "edge"));
    service.add_tcp(listen);
    server.add_service(service);
    server.add_service(background_service("outrigger", Keeper(decisions)));
    server
}

/// Routes of the gateway, and the hosts of its one cluster.
pub fn config(hosts: &[SocketAddr]) -> Config {
    let endpoints = Endpoints {
        cluster_name: "api".into(),
        localities: vec![LocalityEndpoints {
            endpoints: hosts.iter().map(|host| Endpoint::at(*host)).collect(),
            ..LocalityEndpoints::default()
        }],
        overprovisioning_factor: None,
    };
    let mut api = Cluster::new("api", ClusterDiscovery::Static(endpoints));
    api.connect_timeout = Duration::from_secs(1);
    api.outlier_detection = Some(OutlierDetection {
        consecutive_5xx: 3,
        max_ejection_percent: 50,
        ..OutlierDetection::default()
    });
    let mut forward = RouteAction::to("api");
    forward.retry_policy = Some(RetryPolicy {
        retry_on: RetryOn { server_error: true, connect_failure: true, ..RetryOn::default() },
        num_retries: 2,
        base_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(2),
        avoid_previous_hosts: true,
        host_selection_max_attempts: 3,
        ..RetryPolicy::default()
    });
    let health =
        DirectResponse { status: 200, body: b"fine\n".to_vec(), content_type: Some("text/plain".into()) };
    let moved = Redirect {
        status: 308,
        scheme: None,
        host: None,
        port: None,
        path: Some("/api".into()),
        path_rewrite: None,
        strip_query: false,
    };
    let routes = vec![
        route("/health", Action::Direct(health)),
        route("/old", Action::Redirect(moved)),
        route("/api", Action::Forward(Box::new(forward))),
    ];
    let host =
        VirtualHost { name: "all".into(), domains: vec!["*".into()], routes, ..VirtualHost::default() };
    let table = RouteConfig { virtual_hosts: vec![host.into()], ..RouteConfig::default() };
    // Its address has no meaning here: Pingora has listeners of its own.
    let mut listener = Listener::new("edge", SocketAddr::from(([127, 0, 0, 1], 0)));
    listener.filter_chains.push(FilterChain {
        name: String::new(),
        matches: FilterChainMatch::default(),
        tls: None,
        transport_socket_connect_timeout: Duration::from_secs(15),
        network_filters: Vec::new(),
        terminal: Terminal::Http(Box::new(HttpConnectionManager::new("edge", RouteSource::Inline(table)))),
    });
    Config { listeners: vec![listener], clusters: vec![api], ..Config::default() }
}

fn route(prefix: &str, action: Action) -> Route {
    Route {
        name: prefix.into(),
        matches: RouteMatch::prefix(prefix),
        action,
        headers: Default::default(),
        filters: None,
        per_request_buffer_limit_bytes: None,
        decorator: None,
        tracing: None,
    }
}
