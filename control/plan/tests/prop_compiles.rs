//! Whatever is accepted when it is applied compiles for every node, and never shows a node what is hidden from it.

mod world;

use outrigger_plan::{Flavour, NodeKind, Planner, ProxyNode, parse_documents};
use proptest::prelude::*;
use std::collections::BTreeMap;
use world::*;

fn one_of(values: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(values)
}

fn host() -> impl Strategy<Value = &'static str> {
    one_of(&[
        "a",
        "b",
        "b.demo",
        "cart.shop.mesh",
        "vault.bank.mesh",
        "ext.example.com",
        "nowhere",
        "b.demo.svc.cluster.local",
    ])
}

fn matched() -> impl Strategy<Value = String> {
    let part = one_of(&[
        "uri: {exact: /x}",
        "uri: {prefix: /}",
        "uri: {prefix: /api}",
        "uri: {regex: '/[a-z]+'}, ignoreUriCase: true",
        "headers: {x-a: {exact: '1'}}",
        "withoutHeaders: {x-b: {prefix: p}}",
        "queryParams: {q: {regex: 'a+'}}",
        "port: 8080",
        "port: 80",
        "gateways: [edge]",
        "gateways: [mesh]",
        "sourceLabels: {app: a}",
        "sourceNamespace: shop",
        "method: {exact: POST}",
        "authority: {prefix: b}",
    ]);
    part.prop_map(|part| format!("{{{part}}}"))
}

fn destination() -> impl Strategy<Value = String> {
    let rest = one_of(&["", ", subset: v1", ", subset: v9", ", port: {number: 8080}", ", port: {number: 1}"]);
    (host(), rest, 0u32..3)
        .prop_map(|(host, rest, weight)| format!("{{destination: {{host: {host}{rest}}}, weight: {weight}}}"))
}

fn rule() -> impl Strategy<Value = String> {
    let matches = proptest::collection::vec(matched(), 0..3);
    let route = proptest::collection::vec(destination(), 1..4);
    let rest = one_of(&[
        "",
        ", timeout: 0s",
        ", timeout: 2s",
        ", rewrite: {uri: /}",
        ", rewrite: {uri: /y, authority: z.example.com}",
        ", retries: {attempts: 0}",
        ", retries: {attempts: 2, retryOn: '5xx,503', perTryTimeout: 1s, backoff: 5ms}",
        ", headers: {request: {set: {x-s: 'a'}, remove: [x-r]}}",
        ", rewrite: {uriRegexRewrite: {match: '^/(.*)', rewrite: '/\\1'}}",
    ]);
    let other = one_of(&[
        "redirect: {uri: /n, redirectCode: 307}",
        "directResponse: {status: 503, body: {string: no}}",
    ]);
    (matches, route, rest, other, 0..5).prop_map(|(matches, route, rest, other, pick)| {
        let matches =
            if matches.is_empty() { String::new() } else { format!("match: [{}], ", matches.join(", ")) };
        if pick == 0 {
            format!("{{{matches}{other}}}")
        } else {
            format!("{{{matches}route: [{}]{rest}}}", route.join(", "))
        }
    })
}

fn virtual_service() -> impl Strategy<Value = String> {
    let hosts = one_of(&[
        "[b]",
        "[a, b]",
        "['*.demo.mesh']",
        "[ext.example.com]",
        "['*.example.com', c.example.com]",
        "[alone.example.org]",
    ]);
    let gateways = one_of(&["[mesh]", "[edge]", "[mesh, edge]", "[other/edge]"]);
    let namespace = one_of(&["demo", "shop", "bank"]);
    let export = one_of(&["['*']", "['.']", "[demo]"]);
    (hosts, gateways, namespace, export, proptest::collection::vec(rule(), 1..4), 0..1000u32).prop_map(
        |(hosts, gateways, namespace, export, rules, id)| {
            let rules = rules.join(", ");
            format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: vs-{id}, namespace: {namespace}}}\nspec: {{hosts: {hosts}, gateways: {gateways}, exportTo: {export}, http: [{rules}]}}\n")
        },
    )
}

fn other() -> impl Strategy<Value = String> {
    let wire = |group: &str, kind: &str, namespace: &str, id: u32, spec: &str| {
        format!(
            "apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: o-{id}, namespace: {namespace}}}\nspec: {spec}\n"
        )
    };
    let spec = proptest::sample::select(vec![
        ("networking", "DestinationRule", "{host: b, subsets: [{name: v1, labels: {version: v1}}]}"),
        (
            "networking",
            "DestinationRule",
            "{host: '*.mesh', trafficPolicy: {tls: {mode: DISABLE}, loadBalancer: {simple: RANDOM}}}",
        ),
        (
            "networking",
            "DestinationRule",
            "{host: b, trafficPolicy: {connectionPool: {http: {useClientProtocol: true}}, outlierDetection: {consecutive5xxErrors: 0}}}",
        ),
        ("networking", "DestinationRule", "{host: ext.example.com, trafficPolicy: {tls: {mode: SIMPLE}}}"),
        (
            "networking",
            "DestinationRule",
            "{host: ext.example.com, trafficPolicy: {tls: {mode: MUTUAL, credentialName: none}}}",
        ),
        (
            "networking",
            "ServiceEntry",
            "{hosts: [ext.example.com], ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: HTTPS}], resolution: DNS}",
        ),
        (
            "networking",
            "ServiceEntry",
            "{hosts: [one.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS_ROUND_ROBIN, exportTo: ['.']}",
        ),
        (
            "networking",
            "ServiceEntry",
            "{hosts: ['*.example.com'], ports: [{number: 80, name: http, protocol: HTTP2}], resolution: STATIC, endpoints: [{address: 10.1.1.1}, {address: 'fd00::1', weight: 3}]}",
        ),
        (
            "networking",
            "ServiceEntry",
            "{hosts: [sel.example.com], location: MESH_INTERNAL, ports: [{number: 81, name: http, protocol: HTTP, targetPort: 8080}], resolution: STATIC, workloadSelector: {labels: {app: b}}}",
        ),
        (
            "networking",
            "WorkloadEntry",
            "{address: 10.2.2.2, labels: {app: b, security.istio.io/tlsMode: istio}, serviceAccount: old}",
        ),
        (
            "networking",
            "Gateway",
            "{selector: {istio: ingressgateway}, servers: [{port: {number: 8080, name: h, protocol: HTTP}, hosts: ['*']}, {port: {number: 9443, name: t, protocol: TLS}, hosts: ['*.example.com'], tls: {mode: PASSTHROUGH}}]}",
        ),
        (
            "networking",
            "Gateway",
            "{selector: {istio: ingressgateway}, servers: [{port: {number: 8080, name: h, protocol: TCP}, hosts: ['*']}, {port: {number: 8443, name: m, protocol: HTTPS}, hosts: [b.example.com], tls: {mode: ISTIO_MUTUAL}}]}",
        ),
        ("security", "PeerAuthentication", "{mtls: {mode: PERMISSIVE}}"),
        (
            "security",
            "PeerAuthentication",
            "{selector: {matchLabels: {app: b}}, portLevelMtls: {8080: {mode: DISABLE}}}",
        ),
        (
            "security",
            "AuthorizationPolicy",
            "{rules: [{from: [{source: {principals: ['*'], notIpBlocks: [10.0.0.0/8]}}], to: [{operation: {paths: ['/a*'], notMethods: [GET]}}]}]}",
        ),
        (
            "security",
            "AuthorizationPolicy",
            "{action: DENY, rules: [{when: [{key: 'request.headers[x]', values: ['*']}, {key: source.namespace, notValues: [demo]}]}]}",
        ),
        ("security", "AuthorizationPolicy", "{}"),
    ]);
    let namespace = one_of(&["demo", "shop", "bank", "outrigger-system"]);
    (spec, namespace, 0..1000u32)
        .prop_map(move |((group, kind, spec), namespace, id)| wire(group, kind, namespace, id, spec))
}

/// The accepted ones as a store would hold them: one of each kind, namespace and name.
fn stored(documents: impl Iterator<Item = String>) -> String {
    let mut held = BTreeMap::new();
    for document in documents {
        if let Some(Ok(object)) = parse_documents(&document).pop() {
            held.insert(object.label(), document);
        }
    }
    held.into_values().collect::<Vec<_>>().join("---\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accepted_resources_compile_for_every_node_and_hide_what_is_hidden(
        rules in proptest::collection::vec(virtual_service(), 0..4),
        others in proptest::collection::vec(other(), 0..6),
    ) {
        let text = stored(rules.into_iter().chain(others));
        let world = world(demo(), &text);
        let mut nodes: Vec<ProxyNode> = world.workloads.iter().map(|w| sidecar(&world, &w.instance_id)).collect();
        nodes.push(gateway("demo"));
        let mut client = ProxyNode::without_workload("c", NodeKind::Proxyless, "demo", "c");
        client.flavour = Flavour::Grpc;
        nodes.push(client);
        let planner = Planner::new(world);
        for node in &nodes {
            let planned = planner.plan(node).map_err(|e| TestCaseError::fail(format!("{}: {e:#?}\n{text}", node.id)))?;
            if node.namespace != "bank" {
                let shown = serde_json::to_string(&planned.config).expect("is JSON");
                prop_assert!(!shown.contains("10.0.0.9"), "{} sees the vault\n{text}", node.id);
            }
        }
    }
}
