//! Sidecars whose application's traffic is redirected.

mod world;

use std::net::SocketAddr;

use outrigger_plan::protocol::Protocol;
use outrigger_plan::{Capture, NodeConfig, ProxyNode, World};
use outrigger_traffic::config::{ClusterChoice, ClusterDiscovery, Config, RouteSource, Terminal};
use world::*;

fn mesh() -> World {
    let mut workloads = demo();
    let mut db = workload("demo", "db", "v1", 7);
    db.ports = vec![port("postgres", 5432, Protocol::Tcp)];
    workloads.push(db);
    let mut web = workload("shop", "web", "v1", 8);
    web.ports = vec![port("http", 80, Protocol::Http), port("admin", 9000, Protocol::Http)];
    workloads.push(web);
    world(workloads, "")
}

fn captured(world: &World, capture: Capture) -> NodeConfig {
    let node = ProxyNode { capture: Some(capture), ..sidecar(world, "a-v1-1") };
    planned(world, &node)
}

const ALL: Capture = Capture { outbound: true, dns_port: Some(15_053), forward_proxy_port: None };

fn tcp_cluster(config: &Config, name: &str) -> String {
    let listener = listener(config, name);
    let chain = listener.filter_chains.first().or(listener.default_filter_chain.as_ref()).unwrap();
    match &chain.terminal {
        Terminal::Tcp(tcp) => match &tcp.cluster {
            ClusterChoice::Single(name) => name.clone(),
            other => panic!("{other:?}"),
        },
        Terminal::Http(_) => panic!("http"),
    }
}

fn vip(config: &Config, name: &str) -> Option<String> {
    let dns = listener(config, "dns").dns.as_ref().unwrap();
    dns.domains.iter().find(|domain| domain.name == name).map(|domain| domain.addresses[0].to_string())
}

#[test]
fn without_capture_nothing_of_it_is_there() {
    let world = mesh();
    let config = planned(&world, &sidecar(&world, "a-v1-1")).config;
    assert!(config.listeners.iter().all(|l| l.bind_to_port && !l.use_original_dst && l.dns.is_none()));
    assert!(config.clusters.iter().all(|c| !matches!(c.discovery, ClusterDiscovery::OriginalDst(_))));
    assert!(
        !table(&config, "outbound")
            .virtual_hosts
            .iter()
            .any(|h| h.domains.iter().any(|d| d.starts_with("240.")))
    );
}

#[test]
fn redirected_connections_are_handed_over_and_others_served_as_before() {
    let config = captured(&mesh(), ALL).config;
    let outbound = listener(&config, "outbound");
    assert!(outbound.use_original_dst && outbound.bind_to_port);
    assert_eq!(outbound.filter_chains[0].matches.destination_port, Some(15_001));
    let RouteSource::Named(own) = &http(&outbound.filter_chains[0]).routes else { panic!("inline") };
    assert_eq!(own, "outbound");
    assert_eq!(outbound.default_filter_chain.as_ref().unwrap().name, "PassthroughCluster");
    let passthrough = cluster(&config, "PassthroughCluster");
    assert!(matches!(passthrough.discovery, ClusterDiscovery::OriginalDst(_)));
}

#[test]
fn ports_with_http_are_looked_at_and_declared_ports_are_not() {
    let config = captured(&mesh(), ALL).config;
    for port in [80, 8080, 9000] {
        let found = listener(&config, &format!("captured|{port}"));
        assert!(!found.bind_to_port && found.http_inspector && found.continue_on_listener_filters_timeout);
        assert!(found.listener_filters_timeout.unwrap().as_millis() <= 300);
        assert_eq!(found.filter_chains[0].matches.application_protocols, ["http/1.0", "http/1.1", "h2c"]);
        assert!(found.default_filter_chain.is_some());
    }
    let address: SocketAddr = format!("{}:5432", vip(&config, "db.demo.mesh").unwrap()).parse().unwrap();
    let name = format!("captured|{address}");
    let db = listener(&config, &name);
    assert_eq!(db.address, address);
    assert!(!db.bind_to_port && !db.http_inspector && !db.tls_inspector);
    assert_eq!(tcp_cluster(&config, &name), "outbound|5432||db.demo.mesh");
    assert!(!config.listeners.iter().any(|l| l.name == "captured|5432"));
}

#[test]
fn names_and_virtual_addresses_lead_to_the_service() {
    let config = captured(&mesh(), ALL).config;
    let b = vip(&config, "b.demo.mesh").unwrap();
    for name in ["b.demo", "b.demo.svc", "b.demo.svc.cluster.local", "b"] {
        assert_eq!(vip(&config, name).as_ref(), Some(&b), "{name}");
    }
    assert_eq!(vip(&config, "web"), None, "short names are for the own namespace");
    assert_eq!(vip(&config, "vault.bank.mesh"), None, "what is not exported has no name here");
    let captured = table(&config, "captured");
    for domain in ["b.demo.mesh", "b:8080", &b, &format!("{b}:8080")] {
        assert_eq!(target(&host(captured, domain).routes[0]), "outbound|8080||b.demo.mesh", "{domain}");
    }
    assert_eq!(target(&host(captured, "*").routes[0]), "PassthroughCluster");
    assert_eq!(target(&host(table(&config, "outbound"), "*").routes[0]), "answer 502");
    let web = vip(&config, "web.shop.mesh").unwrap();
    assert_eq!(target(&host(captured, &web).routes[0]), "outbound|80||web.shop.mesh");
    assert_eq!(target(&host(captured, &format!("{web}:9000")).routes[0]), "outbound|9000||web.shop.mesh");
}

#[test]
fn registry_only_reaches_the_mesh_alone() {
    let mut world = mesh();
    for workload in &mut world.workloads {
        let labels = &mut std::sync::Arc::make_mut(workload).labels;
        labels.insert("outrigger.dev/outbound-policy".into(), "registry-only".into());
    }
    let config = captured(&world, ALL).config;
    assert_eq!(listener(&config, "outbound").default_filter_chain.as_ref().unwrap().name, "BlackHoleCluster");
    assert_eq!(target(&host(table(&config, "captured"), "*").routes[0]), "answer 502");
    assert!(!config.clusters.iter().any(|c| c.name == "PassthroughCluster"));
}

#[test]
fn port_of_the_proxy_itself_is_not_captured() {
    let mut workloads = demo();
    let mut odd = workload("demo", "odd", "v1", 9);
    odd.ports = vec![port("http", 15_008, Protocol::Http)];
    workloads.push(odd);
    let found = captured(&world(workloads, ""), ALL);
    assert!(!found.config.listeners.iter().any(|l| l.name == "captured|15008"));
    assert!(found.notices.iter().any(|n| n.text.contains("15008")), "{:?}", found.notices);
}

#[test]
fn dns_alone_gives_no_address_that_leads_nowhere() {
    let config = captured(&mesh(), Capture { outbound: false, ..ALL }).config;
    let dns = listener(&config, "dns").dns.as_ref().unwrap();
    assert!(dns.domains.is_empty() && dns.forward.is_some());
    assert!(!listener(&config, "outbound").use_original_dst);
}

#[test]
fn dns_is_on_the_loopback_address_by_udp_and_tcp() {
    let config = captured(&mesh(), ALL).config;
    let dns = listener(&config, "dns");
    let address: SocketAddr = "127.0.0.1:15053".parse().unwrap();
    assert_eq!((dns.address, dns.additional_addresses.as_slice()), (address, &[address][..]));
}

#[test]
fn forward_proxy_knows_the_names_of_the_mesh() {
    let capture = Capture { forward_proxy_port: Some(15_080), ..ALL };
    let config = captured(&mesh(), capture).config;
    let found = listener(&config, "forward-proxy");
    let forward = found.forward_proxy.as_ref().unwrap();
    assert_eq!((forward.names_of.as_str(), forward.allow_unknown), ("dns", true));
    assert_eq!(found.address, "127.0.0.1:15080".parse().unwrap());
    let RouteSource::Named(own) = &http(&found.filter_chains[0]).routes else { panic!("inline") };
    assert_eq!(own, "outbound");
}
