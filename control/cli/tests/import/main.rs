//! `outrigger import`, run as a program on realistic files.

use std::path::PathBuf;
use std::process::{Command, Output};

use outrigger_plan::resource::Spec;
use outrigger_plan::{Object, parse_documents};
use serde_json::{Value, json};

fn input(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(name)
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrigger")).args(arguments).output().expect("runs")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What is printed, read as `apply` reads it: nothing may be refused.
fn objects(output: &Output) -> Vec<Object> {
    assert!(output.status.success(), "{}", told(output));
    let text = String::from_utf8(output.stdout.clone()).expect("is UTF-8");
    parse_documents(&text).into_iter().map(|o| o.unwrap_or_else(|e| panic!("{e:?}\n{text}"))).collect()
}

fn labels(objects: &[Object]) -> Vec<String> {
    objects.iter().map(Object::label).collect()
}

fn spec(objects: &[Object], label: &str) -> Value {
    let found = objects.iter().find(|o| o.label() == label);
    found.unwrap_or_else(|| panic!("no {label} in {:?}", labels(objects))).value["spec"].clone()
}

#[test]
fn mesh_becomes_resources_that_apply_takes() {
    let output = run(&["import", "appmesh", input("appmesh.json").to_str().unwrap()]);
    let made = objects(&output);
    assert_eq!(
        labels(&made),
        [
            "ServiceEntry/shop/web",
            "ServiceEntry/shop/orders-v1",
            "DestinationRule/shop/orders-v1",
            "PeerAuthentication/shop/orders-v1",
            "ServiceEntry/shop/orders-v2",
            "DestinationRule/shop/orders-v2",
            "ServiceEntry/shop/ledger",
            "ServiceEntry/shop/orders-shop-internal",
            "VirtualService/shop/orders-shop-internal",
            "ServiceEntry/shop/ledger-shop-internal",
            "VirtualService/shop/ledger-shop-internal",
            "Gateway/shop/edge",
            "VirtualService/shop/edge-routes",
            "AuthorizationPolicy/shop/orders-v1",
            "AuthorizationPolicy/shop/ledger",
            "AuthorizationPolicy/shop/orders-v2",
        ]
    );
    let entry = spec(&made, "ServiceEntry/shop/orders-v1");
    assert_eq!(entry["hosts"], json!(["orders-v1.shop.mesh"]));
    assert_eq!(entry["endpoints"], json!([{"address": "orders.shop.local"}]));
    let rule = spec(&made, "DestinationRule/shop/orders-v1");
    assert_eq!(
        rule["trafficPolicy"],
        json!({
            "connectionPool": {"tcp": {"maxConnections": 50}, "http": {"http1MaxPendingRequests": 20}},
            "outlierDetection": {"consecutive5xxErrors": 7, "interval": "12s", "baseEjectionTime": "45s", "maxEjectionPercent": 40},
            "tls": {"mode": "ISTIO_MUTUAL"},
        })
    );
    let levels = spec(&made, "DestinationRule/shop/orders-v2")["trafficPolicy"]["portLevelSettings"].clone();
    assert_eq!(levels[0]["port"], json!({"number": 8080}));
    // A caller insists on TLS at 8080, nobody at 9090.
    assert_eq!((&levels[0]["tls"]["mode"], &levels[1]["tls"]), (&json!("ISTIO_MUTUAL"), &Value::Null));
    let policy = spec(&made, "AuthorizationPolicy/shop/orders-v1");
    let source = &policy["rules"][0]["from"][0]["source"];
    assert_eq!(source["serviceAccounts"], json!(["shop/edge", "shop/web"]));
    assert_eq!(policy["selector"]["matchLabels"]["app"], "orders-v1");
}

#[test]
fn routes_keep_their_order_conditions_and_limits() {
    let output = run(&["import", "appmesh", input("appmesh.json").to_str().unwrap()]);
    let made = objects(&output);
    let http = spec(&made, "VirtualService/shop/orders-shop-internal")["http"].clone();
    let names: Vec<&str> = http.as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["beta", "rpc", "all"]);
    assert_eq!(
        http[0],
        json!({
            "name": "beta",
            "match": [{
                "uri": {"prefix": "/orders"}, "method": {"exact": "POST"}, "scheme": {"exact": "http"},
                "headers": {"x-beta": {"exact": "yes"}, "user-agent": {"regex": ".*v1\\.5"}},
                "withoutHeaders": {"x-old": {}},
                "queryParams": {"trial": {"exact": "1"}},
                "port": 80,
            }],
            "route": [{"destination": {"host": "orders-v2.shop.mesh", "port": {"number": 8080}}, "weight": 100}],
            "timeout": "4s",
            "retries": {"attempts": 3, "perTryTimeout": "1500ms", "retryOn": "5xx,refused-stream,connect-failure"},
        })
    );
    assert_eq!(http[1]["match"][0]["uri"], json!({"exact": "/shop.Orders/Place"}));
    assert_eq!(http[1]["retries"]["retryOn"], "unavailable,resource-exhausted");
    let weights: Vec<u64> =
        http[2]["route"].as_array().unwrap().iter().filter_map(|d| d["weight"].as_u64()).collect();
    assert_eq!((weights, &http[2]["timeout"]), (vec![90, 10], &json!("15s")));
    let tcp = spec(&made, "VirtualService/shop/ledger-shop-internal")["tcp"].clone();
    assert_eq!(tcp[0]["route"][0]["destination"]["host"], "ledger.shop.mesh");
    // Through the gateway: its prefix in front, and rewritten away.
    let edge = spec(&made, "VirtualService/shop/edge-routes")["http"].clone();
    assert_eq!(edge[0]["name"], "shop-orders.beta");
    assert_eq!(edge[0]["match"][0]["uri"], json!({"prefix": "/shop/orders"}));
    assert_eq!(edge[0]["match"][0]["authority"], json!({"regex": "www\\.example\\.com(:[0-9]+)?"}));
    assert_eq!(edge[0]["rewrite"], json!({"uri": "/orders", "authority": "orders.shop.internal"}));
    assert_eq!(spec(&made, "Gateway/shop/edge")["servers"][0]["tls"]["credentialName"], "edge-8443");
}

#[test]
fn what_is_not_carried_over_is_named_by_its_path() {
    let report = std::env::temp_dir().join(format!("outrigger-import-{}.json", std::process::id()));
    let file = input("appmesh.json");
    let output = run(&[
        "import",
        "appmesh",
        file.to_str().unwrap(),
        "--report",
        report.to_str().unwrap(),
        "-n",
        "store",
    ]);
    assert!(objects(&output).iter().all(|object| object.metadata.namespace == "store"));
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    std::fs::remove_file(report).unwrap();
    for (path, level) in [
        ("#2: $.virtualNode.spec.logging.accessLog.file.path", "lost"),
        ("#3: $.virtualNode.spec.listeners[0].healthCheck.path", "lost"),
        ("#3: $.virtualNode.spec.serviceDiscovery.awsCloudMap.attributes[0].key", "lost"),
        ("#3: $.virtualNode.spec.listeners[0].tls.certificate.acm.certificateArn", "changed"),
        ("#4: $.virtualNode.spec.serviceDiscovery.dns.ipPreference", "lost"),
        ("#9: $[1].spec.httpRoute.timeout.idle.value", "lost"),
        // A condition that cannot be expressed takes its route with it.
        ("#9: $[2].spec.httpRoute.match.prefix", "lost"),
        ("#1: $.mesh.status.status", "record"),
    ] {
        let path = format!("{}{path}", file.display());
        let found = written["findings"].as_array().unwrap().iter().find(|f| f["path"] == path);
        assert_eq!(found.map(|f| &f["level"]), Some(&json!(level)), "{path}");
        assert!(told(&output).contains(&path), "{path}");
    }
}

#[test]
fn service_connect_becomes_services_of_registered_tasks() {
    let output = run(&["import", "service-connect", input("service-connect.json").to_str().unwrap()]);
    let made = objects(&output);
    assert_eq!(
        labels(&made),
        [
            "ServiceEntry/prod/cache-prod",
            "DestinationRule/prod/cache-prod",
            "ServiceEntry/prod/cart",
            "VirtualService/prod/cart",
            "DestinationRule/prod/cart",
            "PeerAuthentication/prod/cart",
        ]
    );
    let cart = made.iter().find(|o| o.label() == "ServiceEntry/prod/cart").unwrap();
    let Spec::ServiceEntry(entry) = &cart.spec else { panic!("{cart:?}") };
    assert_eq!(
        (entry.hosts.as_slice(), entry.ports[0].number, entry.ports[0].target_port),
        (&["cart".to_owned()][..], 80, 8080)
    );
    assert_eq!(entry.workload_selector.as_ref().unwrap()["app"], "cart");
    assert_eq!(spec(&made, "VirtualService/prod/cart")["http"][0]["timeout"], "7s");
    let level = spec(&made, "DestinationRule/prod/cart")["trafficPolicy"]["portLevelSettings"][0].clone();
    assert_eq!(level["connectionPool"]["http"]["idleTimeout"], "120s");
    assert_eq!(level["tls"]["mode"], "ISTIO_MUTUAL");
    let told = told(&output);
    for part in [
        "tls.kmsKey: TLS with the mesh's own authority",
        "ingressPortOverride: the port the sidecar",
        "services[2].portName: left out: no task definition of the input names a port \"admin\"",
        "services[1].timeout.idleTimeoutSeconds: there is no limit",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
}

#[test]
fn json_is_one_list_that_apply_takes() {
    let output = run(&["-o", "json", "import", "appmesh", input("appmesh.json").to_str().unwrap()]);
    assert_eq!(objects(&output).len(), 16);
}

#[test]
fn input_without_resources_is_a_failure() {
    let file = input("appmesh.json");
    let output = run(&["import", "service-connect", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty() && told(&output).contains("nothing in the input"));
    let output = run(&["import", "appmesh", input("main.rs").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
}
