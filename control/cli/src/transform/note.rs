//! What an operator must know of a mode, because the proxy cannot do anything about it.

use serde_json::Value;

use super::Options;
use super::definition::{Definition, Network, SIDECAR};
use super::json::{list, text};
use super::port::Reached;
use super::setting::{ADMIN, INBOUND, Join, OUTBOUND, Wanted};
use super::sidecar::has_trust_volume;

/// The proxy's own ports.
pub(super) struct Ports {
    inbound: u16,
    outbound: u16,
    admin: u16,
}

impl Ports {
    /// As asked for.
    pub(super) fn of(options: &Options) -> Self {
        Self {
            inbound: options.inbound_port.unwrap_or(INBOUND),
            outbound: options.outbound_port.unwrap_or(OUTBOUND),
            admin: options.admin_port.unwrap_or(ADMIN),
        }
    }

    /// As they will be.
    pub(super) fn of_wanted(wanted: &Wanted) -> Self {
        Self { inbound: wanted.inbound, outbound: wanted.outbound, admin: wanted.admin }
    }
}

/// What the network mode means.
pub(super) fn of_mode(definition: &Definition, ports: &Ports) -> Vec<String> {
    let Ports { inbound, outbound, admin } = ports;
    match definition.network {
        Network::Bridge => vec![
            format!("outbound: nothing is redirected without the host agent; the application calls http://{SIDECAR}:{outbound} with the service's name as host"),
            "the application's own host port speaks plaintext on every address of the host: close it to other hosts".to_owned(),
            format!("every container on the same docker bridge reaches port {outbound} of the proxy, and calls with this task's identity"),
            "OUTRIGGER_ADDRESS names one host: a definition (or an override) for each host, or --agent".to_owned(),
        ],
        Network::Host => vec![
            format!("outbound: nothing is redirected; the application calls http://127.0.0.1:{outbound} with the service's name as host, and so can every process of the host"),
            format!("ports {inbound} (and up, one for each port), {outbound} and {admin} of the host are the proxy's: other tasks of the same host need others (--inbound-port, --outbound-port, --admin-port)"),
            "the application's port stays open to whoever reaches the host: let it listen on 127.0.0.1".to_owned(),
        ],
        Network::Awsvpc => vec![
            format!("outbound: nothing is redirected; the application calls http://127.0.0.1:{outbound} with the service's name as host"),
            format!("security groups: peers need port {inbound} (and up, one for each port) and no longer the application's own, which speaks plaintext; let it listen on 127.0.0.1"),
        ],
    }
}

/// What follows from the settings.
pub(super) fn of_settings(
    task: &Value,
    definition: &Definition,
    wanted: &Wanted,
    reached: &[Reached],
) -> Vec<String> {
    let mut notes = Vec::new();
    if reached.is_empty() {
        notes.push("the application has no ports: the task calls the mesh and is not called".to_owned());
    }
    if definition.network == Network::Bridge {
        for one in reached {
            let (container, target, inbound) = (one.port.container, one.target, one.inbound);
            notes.push(format!("host port {inbound} is the proxy's now; the application's port {container} is at host port {target}"));
        }
        if reached.iter().any(|one| one.inbound < 1_024) {
            notes.push("a host port below 1024 is bound by a user that is not root: that needs Docker 20.10 or newer".to_owned());
        }
    }
    if has_trust_volume(task, definition, wanted) {
        notes.push(format!("{} must be there: volume outrigger-trust", wanted.trust_bundle));
    } else {
        notes.push(format!("{} must be in the image, or in a volume `outrigger-trust` that the definition declares (then run this again)", wanted.trust_bundle));
    }
    if matches!(wanted.join, Join::Secret(_)) {
        notes.push("the join token must be good for as many tasks as will ever start (`outrigger token create --uses`); --attest-region needs none".to_owned());
    }
    let fargate_logs = definition.fargate
        && text(&task["containerDefinitions"][definition.app]["logConfiguration"], "logDriver") != "awslogs";
    if fargate_logs && definition.sidecar.is_none() {
        notes.push("Fargate keeps no logs of containers without logConfiguration, and the application's was not taken over".to_owned());
    }
    if list(task, "containerDefinitions").iter().any(|one| text(one, "name") == "envoy") {
        notes.push("a container `envoy` is there: App Mesh's is not needed any more".to_owned());
    }
    notes
}
