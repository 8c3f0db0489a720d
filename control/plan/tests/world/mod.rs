//! A small mesh to plan for: `a` calls `b` (v1, v2) in namespace `demo`; `bank/vault` keeps to itself.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use outrigger_plan::protocol::Protocol;
use outrigger_plan::{
    Health, NodeConfig, NodeKind, Object, Planner, ProxyNode, Settings, Workload, WorkloadPort, World,
    parse_documents,
};
use outrigger_traffic::config::{
    Action, Cluster, Config, FilterChain, HttpConnectionManager, Listener, Route, RouteConfig, Terminal,
    VirtualHost,
};

pub fn workload(namespace: &str, service: &str, version: &str, host: u8) -> Workload {
    let labels = [("app", service), ("version", version)].map(|(k, v)| (k.to_owned(), v.to_owned()));
    Workload {
        instance_id: format!("{service}-{version}-{host}"),
        namespace: namespace.into(),
        service_account: service.into(),
        service: service.into(),
        labels: labels.into(),
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)),
        ports: vec![port("http", 8080, Protocol::Http)],
        node_id: format!("{service}-{version}-{host}"),
        locality: Default::default(),
        inbound_port: Some(15_008),
        outbound_port: Some(15_001),
        outbound_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        weight: 1,
        health: Health::Healthy,
        gateway: false,
    }
}

pub fn port(name: &str, number: u16, protocol: Protocol) -> WorkloadPort {
    WorkloadPort {
        name: name.into(),
        number,
        protocol,
        target_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        target_port: number,
        inbound_port: None,
    }
}

pub fn demo() -> Vec<Workload> {
    let mut vault = workload("bank", "vault", "v1", 9);
    vault.labels.insert("networking.istio.io/exportTo".into(), ".".into());
    vec![
        workload("demo", "a", "v1", 1),
        workload("demo", "b", "v1", 2),
        workload("demo", "b", "v2", 3),
        workload("shop", "cart", "v1", 4),
        vault,
    ]
}

pub fn objects(text: &str) -> Vec<Arc<Object>> {
    parse_documents(text).into_iter().map(|o| Arc::new(o.unwrap_or_else(|e| panic!("{e:?}")))).collect()
}

pub fn world(workloads: Vec<Workload>, text: &str) -> World {
    World {
        resources: objects(text),
        workloads: workloads.into_iter().map(Arc::new).collect(),
        settings: Arc::new(Settings::default()),
    }
}

pub fn sidecar(world: &World, id: &str) -> ProxyNode {
    let workload = world.workloads.iter().find(|w| w.instance_id == id).expect("is there");
    ProxyNode::sidecar(Arc::clone(workload))
}

pub fn gateway(namespace: &str) -> ProxyNode {
    let mut node = ProxyNode::without_workload("gw-1", NodeKind::Gateway, namespace, "gateway");
    node.labels = BTreeMap::from([("istio".to_owned(), "ingressgateway".to_owned())]);
    node
}

/// The plan of a node, which must compile.
pub fn planned(world: &World, node: &ProxyNode) -> NodeConfig {
    Planner::new(world.clone()).plan(node).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

pub fn cluster<'a>(config: &'a Config, name: &str) -> &'a Cluster {
    let names: Vec<&String> = config.clusters.iter().map(|c| &c.name).collect();
    config.clusters.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("{name} is not among {names:?}"))
}

pub fn addresses(config: &Config, cluster: &str) -> Vec<String> {
    let found = config.endpoints.iter().find(|e| e.cluster_name == cluster).expect("has endpoints");
    let all = found.localities.iter().flat_map(|l| &l.endpoints);
    all.map(|e| match &e.address {
        outrigger_traffic::config::EndpointAddress::Socket(at) => at.to_string(),
        outrigger_traffic::config::EndpointAddress::Name(name, port) => format!("{name}:{port}"),
    })
    .collect()
}

pub fn listener<'a>(config: &'a Config, name: &str) -> &'a Listener {
    config.listeners.iter().find(|l| l.name == name).unwrap_or_else(|| panic!("no listener {name}"))
}

pub fn http(chain: &FilterChain) -> &HttpConnectionManager {
    match &chain.terminal {
        Terminal::Http(http) => http,
        Terminal::Tcp(_) => panic!("a TCP proxy"),
    }
}

pub fn table<'a>(config: &'a Config, name: &str) -> &'a RouteConfig {
    config.route_configs.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no table {name}"))
}

pub fn host<'a>(table: &'a RouteConfig, domain: &str) -> &'a VirtualHost {
    let found = table.virtual_hosts.iter().find(|h| h.domains.iter().any(|d| d == domain));
    found.unwrap_or_else(|| panic!("no virtual host for {domain}"))
}

/// What a route does, in a word or two.
pub fn target(route: &Route) -> String {
    use outrigger_traffic::config::ClusterChoice::{Header, Single, Weighted};
    match &route.action {
        Action::Direct(response) => format!("answer {}", response.status),
        Action::Redirect(redirect) => format!("redirect {}", redirect.status),
        Action::Forward(to) => match &to.cluster {
            Single(name) | Header(name) => name.clone(),
            Weighted(shares) => {
                let shares: Vec<String> = shares.iter().map(|s| format!("{} {}", s.weight, s.name)).collect();
                shares.join(" + ")
            }
        },
    }
}
