//! The proxy's container, what the application's gets for it, and the volumes.
//!
//! In a container that is there already, what is not of this program's making stays, and so do edited values of the
//! fields that are only made with it.

use serde_json::{Value, json};

use super::Refusal;
use super::bridge::Restored;
use super::definition::{Definition, Network, SIDECAR};
use super::json::{list, list_mut, port, set_absent, text, upsert};
use super::port::{Reached, variable};
use super::setting::{Join, TRUST_DIR, Wanted, is_link_to_sidecar};

/// Where the proxy keeps keys and its last good configuration; the image's volume.
const STATE: &str = "/var/lib/outrigger-proxy";
const TRUST_VOLUME: &str = "outrigger-trust";

/// The image's user; nobody in particular.
const USER: &str = "65532:65532";

/// How long requests may take to finish, and when ECS kills: later.
const DRAIN_SECONDS: &str = "20";
const STOP_SECONDS: u64 = 30;

/// Variables of which only those that are wanted may be there.
const OWN_VARIABLES: [&str; 17] = [
    "OUTRIGGER_CONTROL",
    "OUTRIGGER_TRUST_BUNDLE",
    "OUTRIGGER_NAMESPACE",
    "OUTRIGGER_SERVICE_ACCOUNT",
    "OUTRIGGER_SERVICE",
    "OUTRIGGER_VERSION",
    "OUTRIGGER_ADDRESS",
    "OUTRIGGER_PORTS",
    "OUTRIGGER_APP_ADDRESS",
    "OUTRIGGER_OUTBOUND_ADDRESS",
    "OUTRIGGER_INBOUND_PORT",
    "OUTRIGGER_OUTBOUND_PORT",
    "OUTRIGGER_ADMIN_ADDRESS",
    "OUTRIGGER_STATE_DIR",
    "OUTRIGGER_ROLE",
    "OUTRIGGER_JOIN_TOKEN",
    "OUTRIGGER_SHARE_PORTS",
];

/// What would make the task impossible to start.
pub(super) fn check(task: &Value, definition: &Definition, wanted: &Wanted, refusals: &mut Vec<Refusal>) {
    let containers = list(task, "containerDefinitions");
    let app = &containers[definition.app];
    if definition.sidecar.is_some() && waits_for(containers, SIDECAR, text(app, "name"), containers.len()) {
        let at = definition.sidecar.unwrap_or_default();
        let path = definition.at(&format!("containerDefinitions[{at}].dependsOn"));
        refusals
            .push(Refusal::new(path, "the proxy waits for the application, which is to wait for the proxy"));
    }
    if definition.network == Network::Bridge {
        return;
    }
    // One network namespace for all.
    for (i, container) in containers.iter().enumerate().filter(|(i, _)| Some(*i) != definition.sidecar) {
        for (j, mapping) in list(container, "portMappings").iter().enumerate() {
            let used = port(mapping, "containerPort");
            let flag = match used {
                used if used == wanted.outbound => "--outbound-port",
                used if used == wanted.admin => "--admin-port",
                used if used == wanted.inbound => "--inbound-port",
                _ => continue,
            };
            let path = definition.at(&format!("containerDefinitions[{i}].portMappings[{j}].containerPort"));
            refusals.push(Refusal::new(path, format!("{used} is the proxy's; {flag} gives it another")));
        }
    }
}

/// Whether a container waits for another, by `dependsOn` or links, over at most `depth` others.
fn waits_for(containers: &[Value], one: &str, other: &str, depth: usize) -> bool {
    let Some(container) = containers.iter().find(|container| text(container, "name") == one) else {
        return false;
    };
    let links = list(container, "links").iter().filter_map(|link| link.as_str()?.split(':').next());
    let mut next = list(container, "dependsOn").iter().map(|on| text(on, "containerName")).chain(links);
    next.any(|name| name == other || (depth > 0 && waits_for(containers, name, other, depth - 1)))
}

/// Writes the container.
pub(super) fn write(
    task: &mut Value,
    definition: &Definition,
    wanted: &Wanted,
    reached: &[Reached],
    restored: &Restored,
) {
    let logs = log_configuration(task, definition);
    let trusted = has_trust_volume(task, definition, wanted);
    let containers = list_mut(task, "containerDefinitions");
    if definition.sidecar.is_none() {
        containers.push(json!({ "name": SIDECAR }));
    }
    let at = definition.sidecar.unwrap_or(containers.len() - 1);
    let Some(container) = containers.get_mut(at) else { return };
    container["image"] = wanted.image.clone().into();
    set_absent(container, "essential", true.into());
    container["cpu"] = wanted.cpu.into();
    container["memory"] = wanted.memory.into();
    set_absent(container, "user", USER.into());
    set_absent(container, "readonlyRootFilesystem", true.into());
    set_absent(container, "linuxParameters", json!({ "capabilities": { "drop": ["ALL"] } }));
    mappings(container, definition, reached, restored);
    let variables = variables(definition, wanted, reached);
    if container["environment"].is_array() {
        let kept = |item: &Value| {
            let name = text(item, "name");
            !OWN_VARIABLES.contains(&name) || variables.iter().any(|(wanted, _)| *wanted == name)
        };
        list_mut(container, "environment").retain(kept);
    }
    for (name, value) in variables {
        upsert(list_mut(container, "environment"), "name", json!({ "name": name, "value": value }));
    }
    join(container, &wanted.join);
    mount(container, json!({ "sourceVolume": state_volume(wanted), "containerPath": STATE }));
    if trusted {
        mount(
            container,
            json!({ "sourceVolume": TRUST_VOLUME, "containerPath": TRUST_DIR, "readOnly": true }),
        );
    }
    let health = json!({
        "command": ["CMD", "/outrigger-proxy", "health"],
        "interval": 5,
        "timeout": 3,
        "retries": 3,
        "startPeriod": 10,
    });
    set_absent(container, "healthCheck", health);
    if container["dockerLabels"].is_null() {
        container["dockerLabels"] = json!({});
    }
    container["dockerLabels"]["outrigger.io/inject"] = "false".into();
    set_absent(container, "stopTimeout", STOP_SECONDS.into());
    if let (None, Some(logs)) = (definition.sidecar, logs) {
        container["logConfiguration"] = logs;
    }
}

fn variables(definition: &Definition, wanted: &Wanted, reached: &[Reached]) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("OUTRIGGER_CONTROL", wanted.control.clone()),
        ("OUTRIGGER_TRUST_BUNDLE", wanted.trust_bundle.clone()),
        ("OUTRIGGER_NAMESPACE", wanted.namespace.clone()),
        ("OUTRIGGER_SERVICE_ACCOUNT", wanted.account.clone()),
        ("OUTRIGGER_SERVICE", wanted.service.clone()),
    ];
    if !wanted.version.is_empty() {
        all.push(("OUTRIGGER_VERSION", wanted.version.clone()));
    }
    if let Some(address) = &wanted.address {
        all.push(("OUTRIGGER_ADDRESS", address.clone()));
    }
    if !reached.is_empty() {
        all.push(("OUTRIGGER_PORTS", variable(reached)));
    }
    let inbound = reached.first().map_or(wanted.inbound, |first| first.inbound);
    all.push(("OUTRIGGER_INBOUND_PORT", inbound.to_string()));
    all.push(("OUTRIGGER_OUTBOUND_PORT", wanted.outbound.to_string()));
    if definition.network == Network::Bridge {
        all.push(("OUTRIGGER_OUTBOUND_ADDRESS", "0.0.0.0".to_owned()));
        all.push(("OUTRIGGER_APP_ADDRESS", wanted.gateway.clone()));
    }
    all.push(("OUTRIGGER_ADMIN_ADDRESS", format!("127.0.0.1:{}", wanted.admin)));
    all.push(("OUTRIGGER_STATE_DIR", STATE.to_owned()));
    all.push(("OUTRIGGER_DRAIN_TIME_S", DRAIN_SECONDS.to_owned()));
    all
}

fn mappings(container: &mut Value, definition: &Definition, reached: &[Reached], restored: &Restored) {
    let wanted: Vec<u16> = match definition.network {
        Network::Bridge | Network::Awsvpc => reached.iter().map(|one| one.inbound).collect(),
        Network::Host => Vec::new(),
    };
    if container["portMappings"].is_array() {
        let stale = |at: u16| restored.inbound.contains(&at) && !wanted.contains(&at);
        list_mut(container, "portMappings").retain(|mapping| !stale(port(mapping, "containerPort")));
    }
    for at in wanted {
        let mapping = json!({ "containerPort": at, "hostPort": at, "protocol": "tcp" });
        upsert(list_mut(container, "portMappings"), "containerPort", mapping);
    }
}

fn join(container: &mut Value, join: &Join) {
    let (variable, without): (&[(&str, Option<&str>)], &[&str]) = match join {
        Join::Kept => return,
        Join::Secret(_) => (
            &[],
            &[
                "OUTRIGGER_ATTEST",
                "OUTRIGGER_ATTEST_REGION",
                "OUTRIGGER_ATTEST_AUDIENCE",
                "OUTRIGGER_JOIN_TOKEN_FILE",
            ],
        ),
        Join::Role { region, trust_domain } => (
            &[
                ("OUTRIGGER_ATTEST", Some("aws")),
                ("OUTRIGGER_ATTEST_REGION", Some(region)),
                ("OUTRIGGER_ATTEST_AUDIENCE", trust_domain.as_deref()),
            ],
            &["OUTRIGGER_JOIN_TOKEN_FILE"],
        ),
    };
    list_mut(container, "environment").retain(|item| !without.contains(&text(item, "name")));
    for (name, value) in variable {
        if let Some(value) = value {
            upsert(list_mut(container, "environment"), "name", json!({ "name": name, "value": value }));
        }
    }
    match join {
        Join::Secret(arn) => {
            let secret = json!({ "name": "OUTRIGGER_JOIN_TOKEN", "valueFrom": arn });
            upsert(list_mut(container, "secrets"), "name", secret);
        }
        _ if container["secrets"].is_array() => {
            list_mut(container, "secrets").retain(|item| text(item, "name") != "OUTRIGGER_JOIN_TOKEN");
        }
        _ => {}
    }
}

/// A mount at a path where none is yet.
fn mount(container: &mut Value, mount: Value) {
    let known =
        list(container, "mountPoints").iter().any(|one| one["containerPath"] == mount["containerPath"]);
    if !known {
        list_mut(container, "mountPoints").push(mount);
    }
}

/// A shared volume has this name on its host, whatever task asks for it.
fn state_volume(wanted: &Wanted) -> String {
    format!("outrigger-{}-{}", wanted.namespace, wanted.service)
}

/// Logs go where the application's go, where that is a service that takes them from anybody.
fn log_configuration(task: &Value, definition: &Definition) -> Option<Value> {
    let logs = &task["containerDefinitions"][definition.app]["logConfiguration"];
    (text(logs, "logDriver") == "awslogs").then(|| logs.clone())
}

/// What the application's container gets.
pub(super) fn write_application(task: &mut Value, definition: &Definition) {
    let app = &mut task["containerDefinitions"][definition.app];
    if !list(app, "dependsOn").iter().any(|on| text(on, "containerName") == SIDECAR) {
        let ready = json!({ "containerName": SIDECAR, "condition": "HEALTHY" });
        list_mut(app, "dependsOn").push(ready);
    }
    let linked = |app: &Value| list(app, "links").iter().filter_map(Value::as_str).any(is_link_to_sidecar);
    if definition.network == Network::Bridge && !linked(app) {
        list_mut(app, "links").push(SIDECAR.into());
    }
    if app["dockerLabels"].is_null() {
        app["dockerLabels"] = json!({});
    }
    app["dockerLabels"]["outrigger.io/inject"] = "false".into();
}

/// The volumes that are not there yet.
pub(super) fn write_volumes(task: &mut Value, definition: &Definition, wanted: &Wanted) {
    let trusted = has_trust_volume(task, definition, wanted);
    let used = |task: &Value, name: &str| {
        let mounts = list(task, "containerDefinitions").iter().flat_map(|one| list(one, "mountPoints"));
        mounts.into_iter().any(|mount| text(mount, "sourceVolume") == name)
    };
    let missing = |task: &Value, name: &str| {
        used(task, name) && !list(task, "volumes").iter().any(|volume| text(volume, "name") == name)
    };
    let state = state_volume(wanted);
    if missing(task, &state) {
        // Fixed host ports allow one such task on a host, so its state can stay there: a task that comes back needs no
        // new proof. Elsewhere two tasks would take one another's name. Docker gives a volume of its own making to
        // the image's user; a folder of the host would be root's.
        let stays = definition.network != Network::Awsvpc && !wanted.ports.is_empty();
        let volume = if stays {
            json!({
                "name": state,
                "dockerVolumeConfiguration": { "scope": "shared", "autoprovision": true, "driver": "local" },
            })
        } else {
            json!({ "name": state })
        };
        list_mut(task, "volumes").push(volume);
    }
    if trusted && missing(task, TRUST_VOLUME) {
        let volume = json!({ "name": TRUST_VOLUME, "host": { "sourcePath": TRUST_DIR } });
        list_mut(task, "volumes").push(volume);
    }
}

/// Whether the trust roots are mounted: from the host where there is one, else from a volume somebody declared. A path
/// elsewhere is the image's own matter.
pub(super) fn has_trust_volume(task: &Value, definition: &Definition, wanted: &Wanted) -> bool {
    let below = wanted.trust_bundle.strip_prefix(TRUST_DIR).is_some_and(|rest| rest.starts_with('/'));
    let declared = list(task, "volumes").iter().any(|volume| text(volume, "name") == TRUST_VOLUME);
    below && (declared || !definition.fargate)
}
