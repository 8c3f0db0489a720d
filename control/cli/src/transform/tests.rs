use proptest::prelude::*;
use serde_json::{Value, json};

use super::json::{list, port, variable};
use super::{Options, Port, Refusal, capabilities, registrable, transform};

fn options() -> Options {
    Options {
        control: Some("https://mesh.example:15012".into()),
        image: Some("registry.example/outrigger-proxy:1".into()),
        join_token_secret: Some("arn:aws:ssm:eu-central-1:1:parameter/join".into()),
        address: Some("10.0.0.7".parse().unwrap()),
        ..Options::default()
    }
}

fn definition(mode: &str, compatible: &str) -> Value {
    let host_port = if mode == "bridge" { 80 } else { 8080 };
    json!({
        "zeta": {"kept": [1, null, 2.5]},
        "family": "shop-b",
        "executionRoleArn": "arn:aws:iam::1:role/exec",
        "networkMode": mode,
        "requiresCompatibilities": [compatible],
        "cpu": "512",
        "memory": "1024",
        "containerDefinitions": [{
            "unknown": true,
            "name": "app",
            "image": "shop-b:v1",
            "memory": 256,
            "portMappings": [{"hostPort": host_port, "containerPort": 8080, "appProtocol": "http", "name": "web"}],
            "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "shop"}},
        }],
        "alpha": "last",
    })
}

fn transformed(mut document: Value, options: &Options) -> Value {
    transform(&mut document, options).unwrap();
    document
}

fn refusals(mut document: Value, options: &Options) -> Vec<String> {
    let before = document.clone();
    let refusals = transform(&mut document, options).unwrap_err();
    assert_eq!(document, before, "a refused document is untouched");
    refusals.iter().map(Refusal::to_string).collect()
}

fn sidecar(document: &Value) -> &Value {
    &document["containerDefinitions"][1]
}

#[test]
fn every_mode_gets_a_restricted_proxy_that_the_application_waits_for() {
    for (mode, compatible) in [
        ("bridge", "EXTERNAL"),
        ("host", "EXTERNAL"),
        ("bridge", "EC2"),
        ("awsvpc", "EC2"),
        ("awsvpc", "FARGATE"),
    ] {
        let document = transformed(definition(mode, compatible), &options());
        let (app, proxy) = (&document["containerDefinitions"][0], sidecar(&document));
        assert_eq!(proxy["name"], "outrigger-proxy");
        assert_eq!((&proxy["essential"], &proxy["readonlyRootFilesystem"]), (&json!(true), &json!(true)));
        assert_eq!(
            (&proxy["user"], &proxy["memory"], &proxy["cpu"]),
            (&json!("65532:65532"), &json!(128), &json!(64))
        );
        assert_eq!(proxy["healthCheck"]["command"], json!(["CMD", "/outrigger-proxy", "health"]));
        assert_eq!(proxy["linuxParameters"]["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(proxy["dockerLabels"]["outrigger.io/inject"], "false");
        assert_eq!(app["dockerLabels"]["outrigger.io/inject"], "false");
        assert_eq!(app["dependsOn"], json!([{"containerName": "outrigger-proxy", "condition": "HEALTHY"}]));
        assert_eq!(variable(proxy, "OUTRIGGER_CONTROL"), Some("mesh.example:15012"));
        assert_eq!(variable(proxy, "OUTRIGGER_SERVICE"), Some("shop-b"));
        assert_eq!(proxy["secrets"][0]["name"], "OUTRIGGER_JOIN_TOKEN");
        assert_eq!(proxy["logConfiguration"], app["logConfiguration"]);
    }
}

#[test]
fn bridge_moves_the_host_port_to_the_proxy_and_links_it() {
    let document = transformed(definition("bridge", "EXTERNAL"), &options());
    let (app, proxy) = (&document["containerDefinitions"][0], sidecar(&document));
    assert_eq!(port(&app["portMappings"][0], "hostPort"), 10_080);
    assert_eq!(proxy["portMappings"], json!([{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}]));
    assert_eq!(variable(proxy, "OUTRIGGER_PORTS"), Some("web:http:8080:10080:80"));
    assert_eq!(variable(proxy, "OUTRIGGER_APP_ADDRESS"), Some("172.17.0.1"));
    assert_eq!(variable(proxy, "OUTRIGGER_OUTBOUND_ADDRESS"), Some("0.0.0.0"));
    assert_eq!(variable(proxy, "OUTRIGGER_ADDRESS"), Some("10.0.0.7"));
    assert_eq!(app["links"], json!(["outrigger-proxy"]));
    let volume = &document["volumes"][0];
    assert_eq!(
        (&volume["name"], &volume["dockerVolumeConfiguration"]["scope"]),
        (&json!("outrigger-default-shop-b"), &json!("shared"))
    );
}

#[test]
fn host_maps_nothing_and_awsvpc_opens_the_inbound_port() {
    let host = transformed(definition("host", "EXTERNAL"), &options());
    assert_eq!(
        host["containerDefinitions"][0]["portMappings"],
        definition("host", "")["containerDefinitions"][0]["portMappings"]
    );
    assert!(sidecar(&host)["portMappings"].is_null());
    assert_eq!(variable(sidecar(&host), "OUTRIGGER_PORTS"), Some("web:http:8080:8080:15006"));
    let two = Options {
        ports: vec!["a=80:8080/http".parse().unwrap(), "b=9090/grpc".parse().unwrap()],
        ..options()
    };
    let awsvpc = transformed(definition("awsvpc", "FARGATE"), &two);
    let inbound: Vec<u16> =
        list(sidecar(&awsvpc), "portMappings").iter().map(|m| port(m, "hostPort")).collect();
    assert_eq!(inbound, [15_006, 15_007]);
    assert_eq!(
        variable(sidecar(&awsvpc), "OUTRIGGER_PORTS"),
        Some("a:http:80:8080:15006,b:grpc:9090:9090:15007")
    );
    // On Fargate there is no folder of a host; a declared volume is mounted.
    assert_eq!(awsvpc["volumes"], json!([{"name": "outrigger-default-shop-b"}]));
    let mut declared = definition("awsvpc", "FARGATE");
    declared["volumes"] =
        json!([{"name": "outrigger-trust", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}]);
    let mounts = transformed(declared, &two);
    assert_eq!(sidecar(&mounts)["mountPoints"][1]["sourceVolume"], "outrigger-trust");
}

#[test]
fn second_run_changes_nothing_even_without_flags() {
    for (mode, compatible) in [("bridge", "EXTERNAL"), ("host", "EC2"), ("awsvpc", "FARGATE")] {
        let mut document = transformed(definition(mode, compatible), &options());
        for again in [options(), Options::default()] {
            let before = document.to_string();
            let changes = transform(&mut document, &again).unwrap();
            assert_eq!((changes.paths, document.to_string()), (Vec::<String>::new(), before), "{mode}");
        }
    }
}

#[test]
fn edits_of_the_proxy_survive_and_flags_go_before_them() {
    let mut document = transformed(definition("bridge", "EC2"), &options());
    document["containerDefinitions"][1]["memory"] = json!(200);
    document["containerDefinitions"][1]["healthCheck"]["interval"] = json!(9);
    document["containerDefinitions"][1]["ulimits"] = json!([{"name": "nofile"}]);
    let kept = transformed(document.clone(), &Options::default());
    assert_eq!(kept, document);
    let role = Options { attest_region: Some("eu-west-1".into()), memory: Some(96), ..Options::default() };
    assert_eq!(refusals(document.clone(), &role).len(), 1, "no task role");
    document["taskRoleArn"] = json!("arn:aws:iam::1:role/task");
    let changed = transformed(document, &role);
    let proxy = sidecar(&changed);
    assert_eq!(
        (&proxy["memory"], &proxy["secrets"], &proxy["healthCheck"]["interval"]),
        (&json!(96), &json!([]), &json!(9))
    );
    assert_eq!(variable(proxy, "OUTRIGGER_ATTEST"), Some("aws"));
}

#[test]
fn bridge_port_that_is_no_longer_declared_goes_back() {
    let mut two = definition("bridge", "EC2");
    let second = json!({"containerPort": 9090, "hostPort": 90});
    super::json::list_mut(&mut two["containerDefinitions"][0], "portMappings").push(second);
    let both = transformed(two.clone(), &options());
    assert_eq!(list(sidecar(&both), "portMappings").len(), 2);
    let one = Options { ports: vec!["web=8080/http".parse().unwrap()], ..options() };
    let fewer = transformed(both, &one);
    assert_eq!(port(&fewer["containerDefinitions"][0]["portMappings"][1], "hostPort"), 90);
    assert_eq!(list(sidecar(&fewer), "portMappings").len(), 1);
    assert_eq!(fewer, transformed(two, &one), "as if it had been so from the beginning");
}

#[test]
fn unknown_fields_and_their_order_stay() {
    let before = definition("bridge", "EXTERNAL");
    let after = transformed(before.clone(), &options());
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&after)[..keys(&before).len()], keys(&before)[..]);
    assert_eq!(
        (&after["zeta"], &after["containerDefinitions"][0]["unknown"]),
        (&before["zeta"], &json!(true))
    );
    assert_eq!(keys(&after["containerDefinitions"][0])[..3], ["unknown", "name", "image"]);
}

#[test]
fn envelope_stays_and_can_be_taken_off() {
    let wrapped = json!({"taskDefinition": definition("host", "EC2"), "tags": [{"key": "k"}]});
    let mut after = wrapped.clone();
    let changes = transform(&mut after, &options()).unwrap();
    assert!(changes.paths.contains(&"taskDefinition.containerDefinitions[1]".to_owned()), "{changes:?}");
    assert_eq!(after["taskDefinition"], transformed(definition("host", "EC2"), &options()));
    after["taskDefinition"]["revision"] = json!(3);
    let plain = registrable(after);
    assert_eq!(
        (&plain["tags"], plain.get("revision"), &plain["family"]),
        (&wrapped["tags"], None, &json!("shop-b"))
    );
}

type Edit = fn(&mut Value);
/// Network mode, launch type, what is wrong, and the path that is told.
const REFUSED: &[(&str, &str, Edit, &str)] = &[
    ("none", "EC2", |_| {}, "networkMode:"),
    ("awsvpc", "EXTERNAL", |_| {}, "networkMode:"),
    ("bridge", "FARGATE", |_| {}, "networkMode:"),
    (
        "bridge",
        "EC2",
        |d| d["containerDefinitions"][0]["portMappings"][0]["hostPort"] = json!(0),
        "containerDefinitions[0].portMappings[0].hostPort:",
    ),
    (
        "bridge",
        "EC2",
        |d| d["containerDefinitions"][0]["portMappings"][0]["hostPort"] = json!(15_001),
        "containerDefinitions[0].portMappings[0].hostPort:",
    ),
    (
        "bridge",
        "EC2",
        |d| d["containerDefinitions"][0]["portMappings"] = json!("x"),
        "containerDefinitions[0].portMappings:",
    ),
    (
        "bridge",
        "EC2",
        |d| d["containerDefinitions"][0]["portMappings"][0]["hostPort"] = json!(65_536),
        "containerDefinitions[0].portMappings[0].hostPort:",
    ),
    ("bridge", "EC2", |d| d["containerDefinitions"] = json!([]), "containerDefinitions:"),
    ("bridge", "EC2", |d| d["family"] = json!("Shop_B"), "--service:"),
    (
        "host",
        "EC2",
        |d| d["containerDefinitions"][0]["portMappings"][0]["containerPort"] = json!(15_000),
        "containerDefinitions[0].portMappings[0].containerPort:",
    ),
    ("host", "EC2", |d| d["proxyConfiguration"] = json!({"type": "APPMESH"}), "proxyConfiguration:"),
    ("host", "EC2", |d| drop(d.as_object_mut().unwrap().remove("executionRoleArn")), "executionRoleArn:"),
    (
        "host",
        "EC2",
        |d| d["runtimePlatform"] = json!({"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}),
        "runtimePlatform.operatingSystemFamily:",
    ),
    ("awsvpc", "FARGATE", |d| d["memory"] = Value::Null, "memory:"),
    ("awsvpc", "FARGATE", |d| d["memory"] = json!("1.5GB"), "memory:"),
    ("awsvpc", "FARGATE", |d| d["cpu"] = json!("300"), "cpu:"),
    ("awsvpc", "FARGATE", |d| d["containerDefinitions"][0]["memory"] = json!(1_024), "memory:"),
    ("awsvpc", "FARGATE", |d| d["containerDefinitions"][0]["cpu"] = json!(449), "cpu:"),
    (
        "bridge",
        "EC2",
        |d| {
            super::json::list_mut(d, "containerDefinitions")
                .push(json!({"name": "outrigger-proxy", "links": ["app"]}))
        },
        "containerDefinitions[1].dependsOn:",
    ),
    (
        "bridge",
        "EC2",
        |d| {
            super::json::list_mut(d, "containerDefinitions")
                .push(json!({"name": "other", "portMappings": [{"containerPort": 1}]}));
        },
        "containerDefinitions:",
    ),
];

#[test]
fn what_cannot_be_is_refused_by_its_path() {
    for (mode, compatible, edit, path) in REFUSED {
        let mut document = definition(mode, compatible);
        edit(&mut document);
        let reasons = refusals(document, &options());
        assert!(reasons.iter().any(|reason| reason.starts_with(path)), "{path}: {reasons:?}");
    }
}

#[test]
fn sizes_are_taken_at_the_limit() {
    let mut document = definition("awsvpc", "FARGATE");
    document["containerDefinitions"][0]["memory"] = json!(1_024 - 128);
    document["containerDefinitions"][0]["cpu"] = json!(512 - 64);
    transformed(document, &options());
}

#[test]
fn missing_flags_are_all_named_at_once() {
    let reasons = refusals(definition("bridge", "EXTERNAL"), &Options::default());
    for flag in ["--control", "--join-token-secret", "--address"] {
        assert!(reasons.iter().any(|reason| reason.starts_with(flag)), "{flag}: {reasons:?}");
    }
    for bad in ["", "http://x", "a b:1", "x:0", "x:99999", "[::1", "a,,b"] {
        let reasons =
            refusals(definition("host", "EC2"), &Options { control: Some(bad.into()), ..options() });
        assert!(reasons[0].starts_with("--control"), "{bad}: {reasons:?}");
    }
    for (good, read) in
        [("x", "x:15012"), ("https://x:1/", "x:1"), ("[::1]", "[::1]:15012"), ("a,b:2", "a:15012,b:2")]
    {
        let document =
            transformed(definition("host", "EC2"), &Options { control: Some(good.into()), ..options() });
        assert_eq!(variable(sidecar(&document), "OUTRIGGER_CONTROL"), Some(read));
    }
}

#[test]
fn agent_labels_the_application_and_keeps_dynamic_ports() {
    let agent = Options { agent: true, service: Some("b.shop".into()), ..Options::default() };
    let mut document = definition("bridge", "EXTERNAL");
    document["containerDefinitions"][0]["portMappings"][0]["hostPort"] = json!(0);
    let after = transformed(document.clone(), &agent);
    let labels = json!({"outrigger.io/service": "b.shop", "outrigger.io/port.web": "8080/http"});
    assert_eq!(after["containerDefinitions"][0]["dockerLabels"], labels);
    assert_eq!(
        after["containerDefinitions"][0]["portMappings"],
        document["containerDefinitions"][0]["portMappings"]
    );
    assert_eq!(list(&after, "containerDefinitions").len(), 1);
    assert_eq!(transformed(after.clone(), &Options { agent: true, ..Options::default() }), after);
    assert!(refusals(definition("awsvpc", "EC2"), &agent)[0].starts_with("networkMode"));
    let both = transformed(definition("bridge", "EC2"), &options());
    assert!(refusals(both, &agent)[0].starts_with("containerDefinitions[1]"));
}

#[test]
fn modes_say_what_the_proxy_cannot_do() {
    for (mode, compatible) in [("bridge", "EXTERNAL"), ("host", "EC2"), ("awsvpc", "FARGATE")] {
        let told = capabilities(&definition(mode, compatible), &Options::default()).unwrap();
        assert!(
            told[0].contains(mode)
                && told.iter().any(|line| line.starts_with("outbound: nothing is redirected"))
        );
    }
    assert!(capabilities(&definition("none", "EC2"), &Options::default()).is_err());
}

#[test]
fn port_is_read_as_the_agent_reads_it() {
    let port: Port = "web=80:8080/HTTP".parse().unwrap();
    assert_eq!((port.number, port.container, port.label().as_str()), (80, 8_080, "80:8080/http"));
    for bad in ["web", "web=", "web=8080", "web=0/http", "Web=1/http", "web=1/smtp", "web=70000/tcp"] {
        assert!(bad.parse::<Port>().is_err(), "{bad}");
    }
}

/// Task definitions as people write them: several containers, ports with and without names, labels, fields of other kinds.
fn definitions() -> impl Strategy<Value = Value> {
    let mapping = (1_u16..60_000, 1_u16..60_000, proptest::option::of("[a-z]{1,6}"), 0_u8..4);
    let app = (proptest::collection::btree_map(1_u16..14_000, mapping, 0..5), any::<bool>(), any::<bool>());
    (prop_oneof![Just("bridge"), Just("host"), Just("awsvpc")], app, any::<bool>(), any::<u32>()).prop_map(
        |(mode, (mappings, labelled, listed), wrapped, extra)| {
            let mappings: Vec<Value> = mappings
                .into_iter()
                .map(|(container, (host, _, name, protocol))| {
                    // Some containers' ports are mapped to one another's old places.
                    let host = if mode == "bridge" { 20_000 + host % 10_000 } else { container };
                    let mut one = json!({"containerPort": container, "hostPort": host, "x": extra});
                    if let Some(name) = name {
                        one["name"] = json!(name);
                    }
                    if let Some(protocol) = ["http", "grpc", "http2"].get(usize::from(protocol)) {
                        one["appProtocol"] = json!(protocol);
                    }
                    one
                })
                .collect();
            let mut app = json!({"name": "app", "image": "a", "memory": 64, "portMappings": mappings});
            if labelled {
                app["dockerLabels"] =
                    json!({"outrigger.io/service": "cart.shop", "outrigger.io/version": "v1"});
            }
            if listed {
                app["environment"] = json!([{"name": "A", "value": "b"}]);
                app["dependsOn"] = json!([{"containerName": "init", "condition": "SUCCESS"}]);
            }
            let init = json!({"name": "init", "image": "i", "essential": false, "extra": {"n": extra}});
            let task = json!({
                "family": "f", "networkMode": mode, "executionRoleArn": "arn", "extra": extra,
                "containerDefinitions": [init, app],
            });
            if wrapped { json!({"taskDefinition": task, "tags": []}) } else { task }
        },
    )
}

proptest! {
    #[test]
    fn twice_is_as_once_and_nothing_else_is_touched(document in definitions()) {
        let mut once = document.clone();
        // Host ports that are there twice, ports of the proxy: refused, which is another test's matter.
        prop_assume!(transform(&mut once, &options()).is_ok());
        for again in [options(), Options::default()] {
            let mut twice = once.clone();
            let changes = transform(&mut twice, &again).unwrap();
            prop_assert_eq!(changes.paths, Vec::<String>::new());
            prop_assert_eq!(twice.to_string(), once.to_string());
        }
        let inner = |value: &Value| value.get("taskDefinition").unwrap_or(value).clone();
        let (before, after) = (inner(&document), inner(&once));
        prop_assert_eq!(&before["extra"], &after["extra"]);
        prop_assert_eq!(&before["containerDefinitions"][0], &after["containerDefinitions"][0]);
        // No host port is used twice by what is written.
        if before["networkMode"] == "bridge" {
            let ports = |value: &Value| -> Vec<u16> {
                let of = list(value, "containerDefinitions").iter().flat_map(|one| list(one, "portMappings"));
                let mut all: Vec<u16> = of.map(|mapping| port(mapping, "hostPort")).collect();
                all.sort_unstable();
                all
            };
            let distinct = |mut all: Vec<u16>| { let n = all.len(); all.dedup(); all.len() == n };
            prop_assert!(!distinct(ports(&before)) || distinct(ports(&after)), "{after:#}");
        }
    }
}
