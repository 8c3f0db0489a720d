//! Plans of gateways and of gRPC clients.

mod world;

use outrigger_plan::{Flavour, NodeKind};
use outrigger_traffic::config::{LbPolicy, SecretValue, Terminal};
use world::*;

const EDGE: &str = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: demo}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 8443, name: https, protocol: HTTPS}
    bind: 127.0.0.1
    hosts: ["demo.example.com", "shop/cart.example.com"]
    tls: {mode: SIMPLE, credentialName: demo-cert}
  - port: {number: 8080, name: http, protocol: HTTP}
    bind: 127.0.0.1
    hosts: ["*"]
    tls: {httpsRedirect: true}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: demo}
spec:
  hosts: [demo.example.com]
  gateways: [edge]
  http:
  - match: [{uri: {prefix: /a}}]
    route: [{destination: {host: a}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: demo}
spec:
  hosts: [cart.example.com]
  gateways: [edge]
  http: [{route: [{destination: {host: a}}]}]
"#;

const CERTIFICATE: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: demo-cert, namespace: demo}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: '-----BEGIN CERTIFICATE-----'\n  tls.key: '-----BEGIN PRIVATE KEY-----'\n";

#[test]
fn gateway_serves_bound_hosts_with_the_named_certificate() {
    let world = world(demo(), &format!("{EDGE}---\n{CERTIFICATE}"));
    let planned = planned(&world, &gateway("demo"));
    let secure = listener(&planned.config, "gateway|127.0.0.1|8443");
    assert_eq!(secure.filter_chains[0].matches.server_names, ["cart.example.com", "demo.example.com"]);
    let secret = &planned.config.secrets[0];
    assert_eq!(secret.name, "secret/demo/demo-cert");
    assert!(matches!(secret.value, SecretValue::Certificate(_)));
    let outrigger_traffic::config::RouteSource::Named(name) = &http(&secure.filter_chains[0]).routes else {
        panic!()
    };
    let secure_table = table(&planned.config, name);
    assert_eq!(target(&host(secure_table, "demo.example.com").routes[0]), "outbound|8080||a.demo.mesh");
    assert_eq!(secure_table.virtual_hosts.len(), 1, "cart.example.com is for namespace shop only");
    let plain = table(&planned.config, "http|gateway|127.0.0.1|8080");
    assert!(host(plain, "demo.example.com").require_tls);
    let clusters: Vec<&str> = planned.config.clusters.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(clusters, ["outbound|8080||a.demo.mesh"], "only what its routes name");
    assert!(planned.config.clusters[0].tls.is_some());
}

#[test]
fn secret_of_another_namespace_is_not_used_and_the_server_stays_closed() {
    let elsewhere = CERTIFICATE.replace("namespace: demo", "namespace: bank");
    let world = world(demo(), &format!("{EDGE}---\n{elsewhere}"));
    let planned = planned(&world, &gateway("demo"));
    assert!(planned.config.secrets.is_empty());
    assert!(planned.config.listeners.iter().all(|l| !l.name.ends_with("8443")));
    assert!(planned.notices.iter().any(|n| n.text.contains("demo-cert")), "{:?}", planned.notices);
}

#[test]
fn gateway_without_the_labels_gets_nothing() {
    let world = world(demo(), EDGE);
    let mut node = gateway("demo");
    node.labels.clear();
    let planned = planned(&world, &node);
    assert_eq!(planned.config, outrigger_traffic::config::Config::default());
}

#[test]
fn tcp_and_passthrough_servers_pass_connections_on() {
    let text = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: raw, namespace: demo}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 9443, name: tls, protocol: TLS}, hosts: ["*.example.com"], tls: {mode: PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: raw, namespace: demo}
spec:
  hosts: ["*"]
  gateways: [demo/raw]
  tcp:
  - match: [{port: 9000}]
    route: [{destination: {host: b}}]
  tls:
  - match: [{port: 9443, sniHosts: [b.example.com]}]
    route: [{destination: {host: b}}]
  - match: [{port: 9443, sniHosts: [b.elsewhere.com]}]
    route: [{destination: {host: a}}]
"#;
    let world = world(demo(), text);
    let planned = planned(&world, &gateway("demo"));
    let tcp = &listener(&planned.config, "gateway|0.0.0.0|9000").filter_chains[0];
    assert!(matches!(tcp.terminal, Terminal::Tcp(_)) && tcp.tls.is_none());
    let tls = listener(&planned.config, "gateway|0.0.0.0|9443");
    let names: Vec<_> = tls.filter_chains.iter().map(|c| c.matches.server_names.clone()).collect();
    assert_eq!(names, [["b.example.com"]], "a host the server does not serve has no chain");
}

#[test]
fn grpc_client_gets_a_listener_by_each_name_and_plaintext_clusters() {
    let world = world(demo(), "");
    let mut node = outrigger_plan::ProxyNode::without_workload("c-1", NodeKind::Proxyless, "demo", "client");
    node.flavour = Flavour::Grpc;
    let planned = planned(&world, &node);
    let names: Vec<&str> = planned.api_listeners.iter().map(|l| l.name.as_str()).collect();
    for name in ["b.demo.mesh:8080", "b:8080", "b", "b.demo.svc.cluster.local:8080"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    assert_eq!(
        target(&host(table(&planned.config, "b.demo.mesh:8080"), "b.demo.mesh:8080").routes[0]),
        "outbound|8080||b.demo.mesh"
    );
    assert!(planned.config.clusters.iter().all(|c| c.tls.is_none()));
    let policies: Vec<_> = planned.config.clusters.iter().map(|c| &c.lb_policy).collect();
    assert!(
        policies.iter().all(|p| **p == LbPolicy::RoundRobin),
        "the only one all gRPC libraries know: {policies:?}"
    );
    let weights: Vec<Option<u32>> =
        planned.config.endpoints.iter().flat_map(|e| &e.localities).map(|l| l.weight).collect();
    assert!(weights.iter().all(Option::is_some), "{weights:?}");
    assert!(planned.config.listeners.is_empty());
}
