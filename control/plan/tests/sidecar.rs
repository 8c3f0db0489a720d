//! Plans of sidecars.

mod world;

use outrigger_plan::protocol::Protocol;
use outrigger_traffic::config::{
    ClusterDiscovery, EndpointAddress, HttpUpstream, NetworkFilter, PathRewrite, Permission, Principal,
    RbacAction, StringPattern, Terminal, ValidationSource,
};
use world::*;

const SPLIT: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: demo}
spec:
  host: b
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: demo}
spec:
  hosts: [b]
  http:
  - match: [{uri: {prefix: /old/}}]
    rewrite: {uri: /}
    route: [{destination: {host: b, subset: v1}}]
  - route:
    - {destination: {host: b, subset: v1}, weight: 90}
    - {destination: {host: b, subset: v2}, weight: 10}
"#;

#[test]
fn sidecar_without_resources_reaches_every_visible_service_by_each_of_its_names() {
    let world = world(demo(), "");
    let planned = planned(&world, &sidecar(&world, "a-v1-1"));
    let table = table(&planned.config, "outbound");
    for name in
        ["b", "b.demo", "b.demo.svc", "b.demo.svc.cluster.local", "b.demo.mesh", "b:8080", "b.demo.mesh:8080"]
    {
        assert_eq!(target(&host(table, name).routes[0]), "outbound|8080||b.demo.mesh", "{name}");
    }
    assert_eq!(target(&host(table, "cart.shop").routes[0]), "outbound|8080||cart.shop.mesh");
    assert!(
        !table.virtual_hosts.iter().any(|h| h.domains.contains(&"cart".to_owned())),
        "of another namespace"
    );
    assert_eq!(target(&host(table, "*").routes[0]), "answer 502");
    assert_eq!(
        addresses(&planned.config, "outbound|8080||b.demo.mesh"),
        ["10.0.0.2:15008", "10.0.0.3:15008"]
    );
    assert!(planned.notices.is_empty(), "{:?}", planned.notices);
}

#[test]
fn application_is_met_where_workload_or_node_says() {
    let mut workloads = demo();
    workloads[1].labels.insert("outrigger.dev/tcp-outbound".into(), "15432=cart.shop:8080".into());
    let bound = |workloads: Vec<outrigger_plan::Workload>, says: Option<&str>| {
        let world = world(workloads, "");
        let mut node = sidecar(&world, "b-v1-2");
        node.outbound_address = says.map(|ip| ip.parse().unwrap());
        let planned = planned(&world, &node);
        let ClusterDiscovery::Static(own) = &cluster(&planned.config, "inbound|8080||").discovery else {
            panic!("the application is found by name")
        };
        let EndpointAddress::Socket(target) = own.localities[0].endpoints[0].address else {
            panic!("no address")
        };
        let listeners = planned.config.listeners.into_iter().filter(|l| l.name.starts_with("outbound"));
        (listeners.map(|l| l.address.to_string()).collect::<Vec<_>>(), target.to_string())
    };
    let loopback = ["127.0.0.1:15001", "127.0.0.1:15432"].map(str::to_owned).to_vec();
    assert_eq!(bound(workloads.clone(), None), (loopback, "127.0.0.1:8080".to_owned()));
    workloads[1].outbound_address = [0, 0, 0, 0].into();
    workloads[1].ports[0].target_address = [172, 17, 0, 1].into();
    let all = ["0.0.0.0:15001", "0.0.0.0:15432"].map(str::to_owned).to_vec();
    assert_eq!(bound(workloads.clone(), None), (all, "172.17.0.1:8080".to_owned()));
    assert_eq!(bound(workloads, Some("::1")).0, ["[::1]:15001", "[::1]:15432"]);
}

#[test]
fn hop_between_sidecars_is_http2_in_mutual_tls_with_the_exact_identities() {
    let world = world(demo(), "");
    let planned = planned(&world, &sidecar(&world, "a-v1-1"));
    let cluster = cluster(&planned.config, "outbound|8080||b.demo.mesh");
    assert_eq!(cluster.http.protocol, HttpUpstream::Http2);
    let tls = cluster.tls.as_ref().expect("is encrypted");
    assert_eq!(tls.alpn, ["h2"]);
    let Some(ValidationSource::Combined { default, sds }) = &tls.validation else {
        panic!("{:?}", tls.validation)
    };
    assert_eq!(sds, "ROOTCA");
    let names: Vec<&StringPattern> = default.sans.iter().map(|s| &s.text.pattern).collect();
    assert_eq!(names, [&StringPattern::Exact("spiffe://cluster.local/ns/demo/sa/b".into())]);
}

#[test]
fn inbound_listener_is_strict_by_default_and_leads_to_the_application() {
    let world = world(demo(), "");
    let planned = planned(&world, &sidecar(&world, "b-v1-2"));
    let inbound = listener(&planned.config, "inbound|15008");
    assert_eq!(inbound.address.to_string(), "0.0.0.0:15008");
    let [chain] = inbound.filter_chains.as_slice() else { panic!("one chain") };
    let tls = chain.tls.as_ref().expect("is encrypted");
    assert!(tls.require_client_certificate && tls.validation.is_some());
    let ClusterDiscovery::Static(endpoints) = &cluster(&planned.config, "inbound|8080||").discovery else {
        panic!()
    };
    let EndpointAddress::Socket(at) = &endpoints.localities[0].endpoints[0].address else { panic!() };
    assert_eq!(at.to_string(), "127.0.0.1:8080");
}

#[test]
fn weights_and_subsets_of_a_virtual_service_are_followed() {
    let world = world(demo(), SPLIT);
    let planned = planned(&world, &sidecar(&world, "a-v1-1"));
    let routes = &host(table(&planned.config, "outbound"), "b").routes;
    let targets: Vec<String> = routes.iter().map(target).collect();
    assert_eq!(
        targets,
        ["outbound|8080|v1|b.demo.mesh", "90 outbound|8080|v1|b.demo.mesh + 10 outbound|8080|v2|b.demo.mesh"]
    );
    assert_eq!(addresses(&planned.config, "outbound|8080|v1|b.demo.mesh"), ["10.0.0.2:15008"]);
    assert_eq!(addresses(&planned.config, "outbound|8080|v2|b.demo.mesh"), ["10.0.0.3:15008"]);
}

#[test]
fn shift_to_one_version_leaves_the_other_without_a_share() {
    let all = SPLIT.replace("weight: 90", "weight: 0").replace("weight: 10", "weight: 100");
    let world = world(demo(), &all);
    let planned = planned(&world, &sidecar(&world, "a-v1-1"));
    let last = host(table(&planned.config, "outbound"), "b").routes.last().map(target);
    assert_eq!(last.as_deref(), Some("outbound|8080|v2|b.demo.mesh"));
}

#[test]
fn equal_worlds_have_equal_versions_and_others_do_not() {
    let (one, other) = (world(demo(), ""), world(demo(), SPLIT));
    let version = |world: &outrigger_plan::World| planned(world, &sidecar(world, "a-v1-1")).version;
    assert_eq!(version(&one), version(&world(demo(), "")));
    assert_ne!(version(&one), version(&other));
    // Another namespace's hidden service changes nothing for us.
    let mut more = demo();
    let mut hidden = workload("bank", "vault", "v2", 10);
    hidden.labels.insert("networking.istio.io/exportTo".into(), ".".into());
    more.push(hidden);
    assert_eq!(version(&one), version(&world(more, "")));
}

#[test]
fn plan_never_shows_what_another_namespace_does_not_export() {
    let text = r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: secret-db, namespace: bank}
spec:
  hosts: [ledger.internal]
  ports: [{number: 5432, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 10.9.9.9}]
  exportTo: ["."]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vault-internals, namespace: bank}
spec:
  hosts: [b.demo.mesh]
  exportTo: ["."]
  http: [{name: internals, route: [{destination: {host: vault}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: spy, namespace: demo}
spec:
  hosts: [b]
  http: [{route: [{destination: {host: vault.bank.mesh, port: {number: 8080}}}]}]
"#;
    let world = world(demo(), text);
    for id in ["a-v1-1", "b-v1-2", "cart-v1-4"] {
        let planned = planned(&world, &sidecar(&world, id));
        let shown = serde_json::to_string(&planned.config).expect("is JSON");
        for secret in ["10.0.0.9", "10.9.9.9", "ledger.internal", "internals", "ns/bank"] {
            assert!(!shown.contains(secret), "{id} sees {secret}");
        }
        assert!(planned.config.clusters.iter().all(|c| !c.name.contains("vault")), "{id}");
    }
    let own = planned(&world, &sidecar(&world, "vault-v1-9"));
    assert_eq!(addresses(&own.config, "outbound|8080||vault.bank.mesh"), ["10.0.0.9:15008"]);
    assert_eq!(addresses(&own.config, "outbound|5432||ledger.internal"), ["10.9.9.9:5432"]);
}

#[test]
fn peer_authentication_of_the_workload_wins_over_its_namespace_and_the_mesh() {
    let policy = |namespace: &str, name: &str, rest: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {rest}\n"
        )
    };
    let mesh = policy("outrigger-system", "mesh", "{mtls: {mode: DISABLE}}");
    let namespace = policy("demo", "all", "{mtls: {mode: PERMISSIVE}}");
    let own = policy(
        "demo",
        "b",
        "{selector: {matchLabels: {app: b}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}",
    );
    let shape = |text: &str, id: &str| {
        let world = world(demo(), text);
        let planned = planned(&world, &sidecar(&world, id));
        let chains = listener(&planned.config, "inbound|15008").filter_chains.clone();
        chains.iter().map(|c| c.tls.is_some()).collect::<Vec<bool>>()
    };
    assert_eq!(shape("", "b-v1-2"), [true]);
    assert_eq!(shape(&mesh, "b-v1-2"), [false]);
    assert_eq!(shape(&(mesh.clone() + &namespace), "b-v1-2"), [true, false]);
    assert_eq!(shape(&(mesh.clone() + &namespace), "cart-v1-4"), [false], "another namespace");
    assert_eq!(shape(&(mesh + &namespace + &own), "b-v1-2"), [false], "its port's own mode");
}

#[test]
fn callers_use_plaintext_only_where_no_instance_takes_tls() {
    let text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: v1, namespace: demo}\nspec: {selector: {matchLabels: {version: v1}}, mtls: {mode: DISABLE}}\n";
    let world = world(demo(), text);
    let planned = planned(&world, &sidecar(&world, "a-v1-1"));
    // b v2 takes TLS, so b v1 is left out rather than called in plaintext.
    assert!(cluster(&planned.config, "outbound|8080||b.demo.mesh").tls.is_some());
    assert_eq!(addresses(&planned.config, "outbound|8080||b.demo.mesh"), ["10.0.0.3:15008"]);
    assert!(planned.notices.iter().any(|n| n.resource == "service/b.demo.mesh"), "{:?}", planned.notices);
    assert!(cluster(&planned.config, "outbound|8080||a.demo.mesh").tls.is_none(), "a has v1 only");
}

const AUTHORIZATION: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow-a, namespace: demo}
spec:
  selector: {matchLabels: {app: b}}
  rules:
  - from: [{source: {principals: ["cluster.local/ns/demo/sa/a"]}}]
    to: [{operation: {methods: [GET], paths: ["/public*"], ports: ["8080"]}}]
  - to: [{operation: {ports: ["9999"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-bank, namespace: outrigger-system}
spec:
  action: DENY
  rules: [{from: [{source: {namespaces: [bank]}}]}]
"#;

#[test]
fn denials_come_before_permissions_and_rules_of_other_ports_are_left_out() {
    let world = world(demo(), AUTHORIZATION);
    let planned = planned(&world, &sidecar(&world, "b-v1-2"));
    let manager = http(&listener(&planned.config, "inbound|15008").filter_chains[0]);
    let rules: Vec<_> = manager
        .http_filters
        .iter()
        .map(|filter| filter.as_rbac().and_then(|r| r.rules.as_ref()).expect("rules"))
        .collect();
    let [deny, allow] = rules.as_slice() else { panic!("{rules:?}") };
    assert_eq!((deny.action, allow.action), (RbacAction::Deny, RbacAction::Allow));
    let names: Vec<&str> = allow.policies.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ns[demo]-policy[allow-a]-rule[0]"]);
    let (_, policy) = &allow.policies[0];
    let Principal::Or(list) = &policy.principals[0] else { panic!("{policy:?}") };
    let Principal::Authenticated(Some(text)) = &list[0] else { panic!("{policy:?}") };
    assert_eq!(text.pattern, StringPattern::Exact("spiffe://cluster.local/ns/demo/sa/a".into()));
    assert!(manager.merge_slashes, "a path rule must not be passed by //public");
    let others =
        http(&listener(&planned_for(&world, "a-v1-1"), "inbound|15008").filter_chains[0]).http_filters.len();
    assert_eq!(others, 1, "only the mesh-wide denial");
}

fn planned_for(world: &outrigger_plan::World, id: &str) -> outrigger_traffic::config::Config {
    planned(world, &sidecar(world, id)).config
}

#[test]
fn empty_policy_denies_everything_on_http_and_on_tcp() {
    let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nothing, namespace: demo}\nspec: {}\n";
    let mut workloads = demo();
    workloads[1].ports.push(port("db", 5432, Protocol::Tcp));
    let world = world(workloads, text);
    let config = planned_for(&world, "b-v1-2");
    let chains = &listener(&config, "inbound|15008").filter_chains;
    let mut seen = 0;
    for chain in chains {
        let rules = match &chain.terminal {
            Terminal::Http(manager) => {
                manager.http_filters.iter().map(|f| f.as_rbac().and_then(|r| r.rules.clone())).next()
            }
            Terminal::Tcp(_) => {
                chain.network_filters.iter().map(|NetworkFilter::Rbac(r)| r.rules.clone()).next()
            }
        };
        let rules = rules.flatten().expect("is guarded");
        assert_eq!((rules.action, rules.policies.len()), (RbacAction::Allow, 0));
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn rule_about_requests_never_allows_a_connection_and_still_denies_it() {
    let policy = |action: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: demo}}\nspec: {{action: {action}, rules: [{{from: [{{source: {{namespaces: [shop]}}}}], to: [{{operation: {{methods: [GET]}}}}]}}]}}\n"
        )
    };
    let rules_for = |action: &str| {
        let mut workloads = demo();
        workloads[1].ports = vec![port("db", 5432, Protocol::Tcp)];
        let world = world(workloads, &policy(action));
        let config = planned_for(&world, "b-v1-2");
        let chain = &listener(&config, "inbound|15008").filter_chains[0];
        chain
            .network_filters
            .iter()
            .map(|NetworkFilter::Rbac(r)| r.rules.clone().expect("rules"))
            .next()
            .expect("is guarded")
    };
    assert_eq!(rules_for("ALLOW").policies.len(), 0);
    let deny = rules_for("DENY");
    assert_eq!(deny.policies.len(), 1);
    assert_eq!(deny.policies[0].1.permissions, [Permission::Any]);
}

#[test]
fn ports_that_share_an_inbound_port_are_told_apart_by_server_name() {
    let mut workloads = demo();
    workloads[1].ports.push(port("db", 5432, Protocol::Tcp));
    let world = world(workloads, "");
    let config = planned_for(&world, "b-v1-2");
    let inbound = listener(&config, "inbound|15008");
    let names: Vec<&[String]> =
        inbound.filter_chains.iter().map(|c| c.matches.server_names.as_slice()).collect();
    assert_eq!(
        names,
        [["outbound_.8080_._.b.demo.mesh".to_owned()], ["outbound_.5432_._.b.demo.mesh".to_owned()]]
    );
    assert!(inbound.tls_inspector);
    let caller = planned_for(&world, "a-v1-1");
    assert_eq!(
        cluster(&caller, "outbound|5432||b.demo.mesh").tls.as_ref().expect("tls").sni,
        "outbound_.5432_._.b.demo.mesh"
    );
}

#[test]
fn tcp_service_is_reached_by_the_loopback_port_its_caller_asked_for() {
    let mut workloads = demo();
    workloads[1].ports.push(port("db", 5432, Protocol::Tcp));
    workloads[0].labels.insert("outrigger.dev/tcp-outbound".into(), "15432=b:5432,99999=b:1".into());
    let world = world(workloads, "");
    let planned = planned(&world, &sidecar(&world, "a-v1-1"));
    let opened = listener(&planned.config, "outbound|15432");
    assert_eq!(opened.address.to_string(), "127.0.0.1:15432");
    assert!(planned.notices.iter().any(|n| n.text.contains("99999")), "{:?}", planned.notices);
}

#[test]
fn external_service_is_resolved_and_encrypted_as_its_rule_says() {
    let text = r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: googleapis}
spec:
  hosts: [www.googleapis.com]
  ports:
  - {number: 80, name: http, protocol: HTTP}
  - {number: 443, name: https, protocol: HTTPS}
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rewrite-port}
spec:
  hosts: [www.googleapis.com]
  http:
  - match: [{port: 80}]
    route: [{destination: {host: www.googleapis.com, port: {number: 443}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: originate-tls}
spec:
  host: www.googleapis.com
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]
"#;
    let world = world(demo(), text);
    let config = planned_for(&world, "a-v1-1");
    let routes = &host(table(&config, "outbound"), "www.googleapis.com").routes;
    assert_eq!(routes.iter().map(target).collect::<Vec<_>>(), ["outbound|443||www.googleapis.com"]);
    let secure = cluster(&config, "outbound|443||www.googleapis.com");
    assert!(matches!(secure.discovery, ClusterDiscovery::StrictDns { .. }));
    let tls = secure.tls.as_ref().expect("is encrypted");
    assert_eq!(tls.sni, "www.googleapis.com");
    let Some(ValidationSource::Inline(context)) = &tls.validation else { panic!("{:?}", tls.validation) };
    assert!(context.system_roots && context.sans.len() == 1);
    assert!(cluster(&config, "outbound|80||www.googleapis.com").tls.is_none());
}

#[test]
fn unknown_subset_and_host_are_told_and_answered_with_503() {
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b, namespace: demo}\nspec: {hosts: [b], http: [{route: [{destination: {host: b, subset: v9}, weight: 1}, {destination: {host: nowhere}, weight: 1}]}]}\n";
    let world = world(demo(), text);
    let planned = planned(&world, &sidecar(&world, "a-v1-1"));
    let texts: Vec<&str> = planned.notices.iter().map(|n| n.text.as_str()).collect();
    assert!(
        texts.iter().any(|t| t.contains("v9")) && texts.iter().any(|t| t.contains("nowhere.demo.mesh")),
        "{texts:?}"
    );
}

#[test]
fn prefix_rewritten_to_a_slash_does_not_leave_two() {
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b, namespace: demo}\nspec: {hosts: [b], http: [{match: [{uri: {prefix: /api}}], rewrite: {uri: /}, route: [{destination: {host: b}}]}]}\n";
    let world = world(demo(), text);
    let config = planned_for(&world, "a-v1-1");
    let outrigger_traffic::config::Action::Forward(to) =
        &host(table(&config, "outbound"), "b").routes[0].action
    else {
        panic!()
    };
    let expected = PathRewrite::Regex { pattern: "^/api(/?)(.*)".into(), substitution: "/\\2".into() };
    assert_eq!(to.path_rewrite, Some(expected));
}

#[test]
fn mirrors_send_copies_to_the_clusters_of_their_destinations() {
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b, namespace: demo}\nspec: {hosts: [b], http: [{mirror: {host: b, subset: v2}, mirrorPercentage: {value: 12.5}, route: [{destination: {host: b}}]}]}\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: b, namespace: demo}\nspec: {host: b, subsets: [{name: v2, labels: {version: v2}}]}\n";
    let world = world(demo(), text);
    let config = planned_for(&world, "a-v1-1");
    let outrigger_traffic::config::Action::Forward(to) =
        &host(table(&config, "outbound"), "b").routes[0].action
    else {
        panic!()
    };
    let [mirror] = to.mirrors.as_slice() else { panic!("{:?}", to.mirrors) };
    assert_eq!(mirror.fraction.millionths(), 125_000);
    let outrigger_traffic::config::MirrorCluster::Single(name) = &mirror.cluster else { panic!() };
    assert!(config.clusters.iter().any(|cluster| cluster.name == *name), "{name}");
    assert!(name.contains("v2"), "{name}");
}

#[test]
fn default_retries_are_safe_and_an_annotation_is_needed_for_more() {
    let world_with = |annotation: &str| {
        world(
            demo(),
            &format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: b, namespace: demo{annotation}}}\nspec: {{hosts: [b], http: [{{retries: {{attempts: 5, retryOn: \"5xx,503\"}}, route: [{{destination: {{host: b}}}}]}}]}}\n"
            ),
        )
    };
    let policy = |world: &outrigger_plan::World| {
        let config = planned_for(world, "a-v1-1");
        let outrigger_traffic::config::Action::Forward(to) =
            &host(table(&config, "outbound"), "b").routes[0].action
        else {
            panic!()
        };
        to.retry_policy.clone().expect("is there")
    };
    let plain = policy(&world_with(""));
    assert!(
        !plain.retry_non_idempotent && plain.retry_on.server_error && plain.retry_on.retriable_status_codes
    );
    assert_eq!((plain.num_retries, plain.retriable_status_codes), (5, vec![503]));
    let told = policy(&world_with(", annotations: {outrigger.dev/retry-non-idempotent: \"true\"}"));
    assert!(told.retry_non_idempotent);
    let default = policy(&world(demo(), ""));
    assert!(!default.retry_on.server_error && default.retry_on.connect_failure && default.num_retries == 2);
}

#[test]
fn request_is_explained_by_the_rule_it_meets() {
    use outrigger_plan::explain::{Question, explain};
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b, namespace: demo}\nspec: {hosts: [b], http: [{name: jason, match: [{headers: {x-user: {exact: jason}}}], directResponse: {status: 200}}, {name: rest, route: [{destination: {host: b}}]}]}\n";
    let world = world(demo(), text);
    let config = planned_for(&world, "a-v1-1");
    let ask = |authority: &str, headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let question = Question {
            method: "GET".into(),
            scheme: "http".into(),
            authority: authority.into(),
            path: "/".into(),
            headers,
        };
        explain(&config, "outbound", &question, 0)
            .expect("compiles")
            .map(|a| (a.virtual_host, a.route, a.action))
    };
    let answer = |host: &str, route: &str, action| Some((host.to_owned(), route.to_owned(), action));
    assert_eq!(ask("b", &[("x-user", "jason")]), answer("b.demo.mesh:8080", "jason", "answer"));
    assert_eq!(ask("B.demo:8080", &[]), answer("b.demo.mesh:8080", "rest", "forward"));
    assert_eq!(ask("elsewhere", &[]), answer("block_all", "block_all", "answer"));
}

#[test]
fn address_of_two_instances_is_sent_once_and_the_one_that_takes_requests_stays() {
    let mut workloads = demo();
    let mut restarted = workload("demo", "b", "v2", 2);
    restarted.instance_id = "b-new".into();
    workloads[1].health = outrigger_plan::Health::Draining;
    workloads.push(restarted);
    let world = world(workloads, "");
    let config = planned_for(&world, "a-v1-1");
    assert_eq!(addresses(&config, "outbound|8080||b.demo.mesh"), ["10.0.0.2:15008", "10.0.0.3:15008"]);
    let found =
        config.endpoints.iter().find(|e| e.cluster_name == "outbound|8080||b.demo.mesh").expect("is there");
    assert_eq!(found.localities[0].endpoints[0].health, outrigger_traffic::config::HealthStatus::Healthy);
}
