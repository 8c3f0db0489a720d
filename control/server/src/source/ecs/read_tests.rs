//! Tasks as the API gives them, in every network mode and launch type.

use serde_json::{Value, json};

use super::*;
use crate::source::settings::SourcesFile;

const TASK: &str = "0123456789abcdef0123456789abcdef";

fn settings(more: &str) -> EcsSettings {
    let text = format!(
        "sources: [{{name: cloud, ecs: {{region: eu-central-1, namespaces: [default, shop]{more}}}}}]"
    );
    SourcesFile::parse(&text).unwrap().sources[0].ecs.clone().unwrap()
}

fn task(launch_type: &str, container: Value) -> Task {
    let value = json!({
        "taskArn": format!("arn:aws:ecs:eu-central-1:1:task/prod/{TASK}"),
        "taskDefinitionArn": "arn:aws:ecs:eu-central-1:1:task-definition/cart:3",
        "group": "service:cart", "lastStatus": "RUNNING", "desiredStatus": "RUNNING",
        "healthStatus": "HEALTHY", "launchType": launch_type, "availabilityZone": "eu-central-1a",
        "containers": [container],
    });
    serde_json::from_value(value).unwrap()
}

fn definition(mode: &str, labels: Value) -> Definition {
    let value = json!({
        "family": "cart", "revision": 3, "networkMode": mode,
        "containerDefinitions": [{
            "name": "app", "dockerLabels": labels,
            "portMappings": [{"containerPort": 8080, "hostPort": 0, "protocol": "tcp", "name": "web", "appProtocol": "http"},
                {"containerPort": 53, "protocol": "udp"}],
        }],
    });
    serde_json::from_value(value).unwrap()
}

fn instance(attributes: Value) -> Instance {
    serde_json::from_value(
        json!({"containerInstanceArn": "i", "ec2InstanceId": "i-1", "attributes": attributes}),
    )
    .unwrap()
}

fn bridge() -> Value {
    json!({"name": "app", "lastStatus": "RUNNING", "networkBindings": [
        {"bindIP": "0.0.0.0", "containerPort": 8080, "hostPort": 32768, "protocol": "udp"},
        {"bindIP": "0.0.0.0", "containerPort": 8080, "hostPort": 32769, "protocol": "tcp"}]})
}

fn vpc() -> Value {
    json!({"name": "app", "lastStatus": "RUNNING", "networkInterfaces": [{"privateIpv4Address": "10.0.0.9"}]})
}

fn look(task: &Task, definition: &Definition, instance: Option<&Instance>, settings: &EcsSettings) -> Read {
    read(&Known { task, definition, instance, settings })
}

fn only(read: Read) -> Draft {
    assert_eq!(read.unusable, []);
    let [draft] = <[Draft; 1]>::try_from(read.drafts).unwrap();
    draft
}

#[test]
fn fargate_task_is_reached_at_its_own_interface_on_the_containers_port() {
    let labels = json!({"outrigger.io/service": "cart.shop", "outrigger.io/version": "v2", "team": "a"});
    let draft = only(look(&task("FARGATE", vpc()), &definition("awsvpc", labels), None, &settings("")));
    assert_eq!(
        (draft.service.as_str(), draft.namespace.as_str(), draft.version.as_str()),
        ("cart", "shop", "v2")
    );
    assert_eq!(
        (draft.address.as_str(), draft.ports[0].target, draft.ports[0].name.as_str()),
        ("10.0.0.9", 8_080, "web")
    );
    assert_eq!((draft.ports[0].protocol, draft.ports.len()), (Protocol::Http, 1), "udp is left out");
    assert_eq!(draft.locality, "eu-central-1/eu-central-1a");
    assert_eq!(draft.labels.keys().collect::<Vec<_>>(), ["team"]);
    assert_eq!(draft.instance_id, format!("{TASK}-app"));
}

#[test]
fn address_of_an_attachment_counts_where_the_container_has_none() {
    let container = json!({"name": "app", "lastStatus": "RUNNING"});
    let mut task = task("FARGATE", container);
    let labels = json!({"outrigger.io/service": "cart"});
    let refused = look(&task, &definition("awsvpc", labels.clone()), None, &settings(""));
    assert!(refused.unusable[0].reason.contains("no address"), "{refused:?}");
    task.attachments = serde_json::from_value(json!([{"type": "ElasticNetworkInterface", "details": [
        {"name": "subnetId", "value": "s"}, {"name": "privateIPv4Address", "value": "10.0.0.7"}]}]))
    .unwrap();
    assert_eq!(only(look(&task, &definition("awsvpc", labels), None, &settings(""))).address, "10.0.0.7");
}

#[test]
fn task_in_bridge_mode_is_reached_at_its_hosts_mapped_port() {
    let labels = json!({"outrigger.io/service": "cart", "outrigger.io/port.http": "80:8080/http2"});
    let task = task("EC2", bridge());
    let definition = definition("bridge", labels);
    let unplaced = look(&task, &definition, Some(&instance(json!([]))), &settings(""));
    assert!(unplaced.unusable[0].reason.contains("outrigger.address"), "{unplaced:?}");
    let told = instance(
        json!([{"name": "outrigger.address", "value": "10.1.0.1"}, {"name": "outrigger.locality", "value": "hq/rack7"}]),
    );
    let draft = only(look(&task, &definition, Some(&told), &settings("")));
    assert_eq!(
        (draft.address.as_str(), draft.ports[0].number, draft.ports[0].target),
        ("10.1.0.1", 80, 32_769)
    );
    assert_eq!((draft.ports[0].protocol, draft.locality.as_str()), (Protocol::Http2, "hq/rack7"));
    let by_settings = settings(", hosts: {i-1: {address: 10.2.0.1, locality: b}}, locality: a/z");
    let draft = only(look(&task, &definition, Some(&instance(json!([]))), &by_settings));
    assert_eq!((draft.address.as_str(), draft.locality.as_str()), ("10.2.0.1", "b/z"));
    let mut unmapped = task.clone();
    unmapped.containers[0].network_bindings.pop();
    let refused = look(&unmapped, &definition, Some(&told), &settings(""));
    assert!(refused.unusable[0].reason.contains("not mapped"), "{refused:?}");
}

#[test]
fn task_on_an_external_host_is_expected_and_never_taken() {
    let labels = json!({"outrigger.io/service": "cart"});
    let mut task = task("EXTERNAL", bridge());
    let read = look(&task, &definition("bridge", labels.clone()), None, &settings(""));
    assert!(read.is_expected && read.drafts.is_empty() && read.unusable.is_empty());
    task.last_status = "PENDING".into();
    assert!(!look(&task, &definition("bridge", labels), None, &settings("")).is_expected);
    task.last_status = "RUNNING".into();
    assert!(
        !look(&task, &definition("bridge", json!({})), None, &settings("")).is_expected,
        "it asks for nothing"
    );
}

#[test]
fn only_selected_running_containers_of_allowed_namespaces_count() {
    let fargate = |labels: Value, change: fn(&mut Task)| {
        let mut task = task("FARGATE", vpc());
        change(&mut task);
        look(&task, &definition("awsvpc", labels), None, &settings(""))
    };
    let labels = || json!({"outrigger.io/service": "cart"});
    assert_eq!(fargate(labels(), |_| ()).drafts.len(), 1);
    assert_eq!(fargate(Value::Null, |_| ()).drafts.len(), 0);
    assert_eq!(
        fargate(json!({"outrigger.io/service": "cart", "outrigger.io/inject": "false"}), |_| ()).drafts.len(),
        0
    );
    assert_eq!(fargate(labels(), |task| task.last_status = "PROVISIONING".into()).drafts.len(), 0);
    assert_eq!(fargate(labels(), |task| task.containers[0].last_status = "STOPPED".into()).drafts.len(), 0);
    let foreign = fargate(json!({"outrigger.io/service": "vault.payments"}), |_| ());
    assert!(foreign.unusable[0].reason.contains("payments"), "{foreign:?}");
    let senseless = fargate(json!({"outrigger.io/service": "A b"}), |_| ());
    assert!(senseless.unusable[0].reason.contains("DNS label"), "{senseless:?}");
    let port = fargate(json!({"outrigger.io/service": "cart", "outrigger.io/port.http": "80"}), |_| ());
    assert!(port.unusable[0].reason.contains("CONTAINER_PORT"), "{port:?}");
    let none = look(
        &task("EC2", vpc()),
        &definition("none", labels()),
        Some(&instance(json!([{"name": "outrigger.address", "value": "10.0.0.1"}]))),
        &settings(""),
    );
    assert!(none.unusable[0].reason.contains("nobody can reach"), "{none:?}");
}

#[test]
fn health_of_task_and_container_is_taken_over() {
    let labels = json!({"outrigger.io/service": "cart"});
    let health = |change: fn(&mut Task)| {
        let mut task = task("FARGATE", vpc());
        change(&mut task);
        only(look(&task, &definition("awsvpc", labels.clone()), None, &settings(""))).health
    };
    assert_eq!(health(|_| ()), Health::Healthy);
    assert_eq!(health(|task| task.health_status = "UNKNOWN".into()), Health::Healthy);
    assert_eq!(health(|task| task.health_status = "UNHEALTHY".into()), Health::Unhealthy);
    assert_eq!(health(|task| task.containers[0].health_status = "UNHEALTHY".into()), Health::Unhealthy);
    assert_eq!(health(|task| task.desired_status = "STOPPED".into()), Health::Draining);
}

#[test]
fn rule_selects_a_family_without_labels() {
    let rule = ", services: [{family: cart, container: app, service: cart.shop, serviceAccount: c, ports: {http: '80:8080/http'}}]";
    let draft =
        only(look(&task("FARGATE", vpc()), &definition("awsvpc", Value::Null), None, &settings(rule)));
    assert_eq!(
        (draft.service_account.as_str(), draft.ports[0].number, draft.ports[0].target),
        ("c", 80, 8_080)
    );
}
