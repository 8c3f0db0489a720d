use super::*;
use outrigger_member::port::Protocol;
use serde_json::{Value, json};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const ARN: &str = "arn:aws:ecs:eu-west-1:123456789012:task/prod/9781c248-0edd-4cdb-9a93-f63cb662a5d3";

fn config() -> AgentConfig {
    AgentConfig::parse(
        "control: [\"10.0.0.5:15012\"]\ntrustBundle: /x\nidentities:\n- {namespace: shop, serviceAccount: b}\n- {namespace: shop, serviceAccount: only, families: [other]}\n- {namespace: default, serviceAccount: c}\nservices:\n- {family: legacy, container: web, service: c, version: v7, ports: {http: 80:3000/http}}\n",
    )
    .unwrap()
}

/// What docker says of a container that the ECS agent started in bridge mode.
fn bridge() -> Value {
    json!({
        "Id": ID,
        "Name": "/ecs-shop-b-3-app-c6d2e8a0f1b3947d2b00",
        "State": {"Status": "running", "Running": true, "Pid": 4711, "StartedAt": "2026-11-23T05:00:00.1Z"},
        "HostConfig": {"NetworkMode": "default"},
        "Config": {
            "User": "", "Image": "shop-b:v1", "StopSignal": "SIGTERM",
            "ExposedPorts": {"8080/tcp": {}, "9090/tcp": {}},
            "Env": ["AWS_EXECUTION_ENV=AWS_ECS_EC2", "ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/0f"],
            "Labels": {
                "com.amazonaws.ecs.cluster": "prod",
                "com.amazonaws.ecs.container-name": "app",
                "com.amazonaws.ecs.task-arn": ARN,
                "com.amazonaws.ecs.task-definition-family": "shop-b",
                "com.amazonaws.ecs.task-definition-version": "3",
                "outrigger.io/service": "b.shop",
                "outrigger.io/port.http": "80:8080/http",
                "outrigger.io/port.grpc": "9090/grpc"
            }
        },
        "NetworkSettings": {
            "SandboxID": "5aNdB0x", "SandboxKey": "/var/run/docker/netns/5aNdB0x",
            "Ports": {
                "8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}, {"HostIp": "::", "HostPort": "32769"}],
                "9090/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32770"}]
            }
        }
    })
}

fn seen(container: &Value) -> Verdict {
    look(&serde_json::from_value(container.clone()).unwrap(), &config())
}

fn member(container: &Value) -> Member {
    match seen(container) {
        Verdict::Member(member) => *member,
        other => panic!("{other:?}"),
    }
}

fn labelled(key: &str, value: &str) -> Value {
    let mut container = bridge();
    container["Config"]["Labels"][key] = value.into();
    container
}

fn without(key: &str) -> Value {
    let mut container = bridge();
    container["Config"]["Labels"].as_object_mut().unwrap().remove(key);
    container
}

#[test]
fn bridge_task_is_a_member_with_its_mapped_ports() {
    let member = member(&bridge());
    assert_eq!((member.service.as_str(), member.namespace.as_str()), ("b", "shop"));
    assert_eq!((member.service_account.as_str(), member.version.as_str()), ("b", ""));
    assert_eq!(member.task.id, "9781c248-0edd-4cdb-9a93-f63cb662a5d3");
    assert_eq!((member.task.cluster.as_str(), member.task.container.as_str()), ("prod", "app"));
    assert_eq!((member.network, member.pid, member.sandbox.as_str()), (Network::Bridge, 4711, "5aNdB0x"));
    let ports: Vec<_> = member
        .ports
        .iter()
        .map(|p| (p.declared.name.as_str(), p.declared.number, p.declared.target, p.published))
        .collect();
    assert_eq!(ports, [("http", 80, 8080, Some(32_768)), ("grpc", 9090, 9090, Some(32_770))]);
    assert_eq!(member.notices, [""; 0]);
}

#[test]
fn host_task_is_a_member_without_mapped_ports() {
    let mut container = labelled("outrigger.io/outbound-port", "15001");
    container["HostConfig"]["NetworkMode"] = "host".into();
    container["NetworkSettings"]["Ports"] = json!({});
    let member = member(&container);
    assert_eq!((member.network, member.outbound_port), (Network::Host, Some(15_001)));
    assert_eq!((member.ports.len(), member.ports[0].published), (2, None));
}

#[test]
fn rule_of_the_configuration_stands_in_for_labels() {
    let mut container = bridge();
    let labels = container["Config"]["Labels"].as_object_mut().unwrap();
    labels.retain(|key, _| key.starts_with("com.amazonaws"));
    labels["com.amazonaws.ecs.task-definition-family"] = "legacy".into();
    assert_eq!(seen(&container), Verdict::NotOurs, "another container of the family");
    container["Config"]["Labels"]["com.amazonaws.ecs.container-name"] = "web".into();
    container["NetworkSettings"]["Ports"]["3000/tcp"] = json!([{"HostIp": "", "HostPort": "40000"}]);
    let member = member(&container);
    assert_eq!(
        (member.service.as_str(), member.namespace.as_str(), member.version.as_str()),
        ("c", "default", "v7")
    );
    assert_eq!((member.ports[0].declared.number, member.ports[0].published), (80, Some(40_000)));
}

#[test]
fn ports_without_a_declaration_are_those_that_are_exposed_as_opaque_tcp() {
    let mut container = bridge();
    let labels = container["Config"]["Labels"].as_object_mut().unwrap();
    labels.retain(|key, _| !key.starts_with(label::PORT));
    let member = member(&container);
    let ports: Vec<_> =
        member.ports.iter().map(|p| (p.declared.name.as_str(), p.declared.protocol)).collect();
    assert_eq!(ports, [("tcp-8080", Protocol::Tcp), ("tcp-9090", Protocol::Tcp)]);
}

#[test]
fn port_that_nobody_can_reach_is_left_out_and_said() {
    for unreachable in [Value::Null, json!([]), json!([{"HostIp": "127.0.0.1", "HostPort": "32768"}])] {
        let mut container = bridge();
        container["NetworkSettings"]["Ports"]["8080/tcp"] = unreachable;
        let member = member(&container);
        assert_eq!(member.ports.len(), 1);
        assert!(member.notices[0].contains("8080"), "{:?}", member.notices);
    }
    assert_eq!(member(&labelled("outrigger.io/exclude-inbound-ports", "8080")).ports.len(), 1);
}

#[test]
fn choices_about_redirection_are_read() {
    let mut container = labelled("outrigger.io/exclude-outbound-ports", "3306, 5432");
    container["Config"]["Labels"]["outrigger.io/exclude-outbound-cidrs"] = "10.0.0.0/8".into();
    container["Config"]["Labels"]["outrigger.io/on-failure"] = "open".into();
    container["Config"]["Labels"]["outrigger.io/capture"] = "false".into();
    let redirect = member(&container).redirect;
    assert_eq!(redirect.exclude_ports, BTreeSet::from([3306, 5432]));
    assert_eq!(redirect.exclude_cidrs, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!((redirect.on_failure, redirect.off), (Some(FailureMode::Open), true));
}

#[test]
fn container_that_is_not_selected_is_left_alone() {
    assert_eq!(seen(&without("outrigger.io/service")), Verdict::NotOurs);
    assert_eq!(seen(&without("com.amazonaws.ecs.task-arn")), Verdict::NotOurs);
    assert_eq!(seen(&labelled("outrigger.io/inject", "false")), Verdict::NotOurs);
    let mut other = config();
    other.clusters = BTreeSet::from(["test".to_owned()]);
    assert_eq!(look(&serde_json::from_value(bridge()).unwrap(), &other), Verdict::NotOurs);
    other.clusters = BTreeSet::from(["prod".to_owned()]);
    let by_arn = labelled("com.amazonaws.ecs.cluster", "arn:aws:ecs:eu-west-1:123456789012:cluster/prod");
    assert!(matches!(look(&serde_json::from_value(by_arn).unwrap(), &other), Verdict::Member(_)));
}

#[test]
fn container_that_does_not_run_is_no_member() {
    for state in [
        json!({"Status": "created", "Running": false}),
        json!({"Status": "exited", "Running": false, "Pid": 0}),
        json!({"Status": "restarting", "Running": true, "Pid": 0}),
        Value::Null,
    ] {
        let mut container = bridge();
        container["State"] = state;
        assert_eq!(seen(&container), Verdict::NotRunning);
    }
}

#[test]
fn wish_that_cannot_be_granted_is_refused_with_its_reason() {
    let mut shared = bridge();
    shared["HostConfig"]["NetworkMode"] = "container:other".into();
    let mut none = bridge();
    none["HostConfig"]["NetworkMode"] = "none".into();
    let mut user = bridge();
    user["Config"]["User"] = "1337:1337".into();
    let mut no_pid = bridge();
    no_pid["State"]["Pid"] = 0.into();
    let mut short = bridge();
    short["Id"] = "0123".into();
    for (container, reason) in [
        (shared, "another container's network"),
        (none, "none"),
        (user, "1337"),
        (no_pid, "process id"),
        (short, "container id"),
        (labelled("outrigger.io/service", "B"), "`B` must be a DNS label"),
        (labelled("outrigger.io/service", "x.shop"), "identity shop/x is not among"),
        (labelled("outrigger.io/service-account", "only"), "not for tasks of family `shop-b`"),
        (labelled("outrigger.io/namespace", "other"), "namespaces `shop` and `other`"),
        (labelled("outrigger.io/version", "v 1"), "outrigger.io/version"),
        (labelled("outrigger.io/inject", "no"), "neither true nor false"),
        (labelled("outrigger.io/capture", "no"), "neither true nor false"),
        (labelled("outrigger.io/on-failure", "ajar"), "neither open nor closed"),
        (labelled("outrigger.io/colour", "red"), "outrigger.io/colour is not known"),
        (labelled("outrigger.io/role", "sidecar"), "outrigger.io/role is not known"),
        (labelled("outrigger.io/port.http", "8080"), "outrigger.io/port.http"),
        (labelled("outrigger.io/port.two", "80:8081/tcp"), "same number"),
        (labelled("outrigger.io/exclude-outbound-ports", "all"), "`all` is no port"),
        (labelled("outrigger.io/exclude-outbound-cidrs", "10.0.0.0/40"), "is no CIDR"),
        (labelled("outrigger.io/outbound-port", "15001"), "for host mode"),
        (labelled("com.amazonaws.ecs.task-arn", "a/../b c"), "task id"),
    ] {
        let Verdict::Refused(reasons) = seen(&container) else { panic!("{reason}: not refused") };
        assert!(reasons.iter().any(|r| r.contains(reason)), "{reasons:?} lacks {reason}");
    }
}

#[test]
fn number_of_ports_has_a_limit() {
    let ports = |count: usize| {
        let mut container = bridge();
        let labels = container["Config"]["Labels"].as_object_mut().unwrap();
        labels.retain(|key, _| !key.starts_with(label::PORT));
        for index in 0..count {
            labels.insert(format!("outrigger.io/port.p{index}"), format!("{}/tcp", 1000 + index).into());
        }
        seen(&container)
    };
    assert!(matches!(ports(PORTS_MAX), Verdict::Member(_)));
    assert!(matches!(ports(PORTS_MAX + 1), Verdict::Refused(reasons) if reasons[0].contains("64")));
}

#[test]
fn health_is_what_docker_says_and_nothing_without_a_check() {
    let with = |status: &str| {
        let mut container = bridge();
        container["State"]["Health"] = json!({"Status": status});
        member(&container).healthy
    };
    assert_eq!(
        (with("healthy"), with("unhealthy"), with("starting")),
        (Some(true), Some(false), Some(false))
    );
    assert_eq!((with("none"), member(&bridge()).healthy), (None, None));
}

#[test]
fn group_is_read_from_its_label() {
    assert_eq!(member(&labelled("outrigger.io/workload-group", "vms.eu")).group, "vms.eu");
    assert_eq!(member(&bridge()).group, "");
    assert!(matches!(seen(&labelled("outrigger.io/workload-group", "no name")), Verdict::Refused(_)));
}
