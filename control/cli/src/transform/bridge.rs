//! Bridge mode: the application's host port becomes the proxy's, and the application gets one that only the proxy is told.
//!
//! Application and proxy have a network namespace each there, and containers of a task learn one another's addresses by
//! links, which go one way only. So the application links the proxy, and the proxy calls the application through the
//! host.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Refusal;
use super::definition::{Definition, Network};
use super::json::{list, port, text, variable};
use super::port::{Reached, read_variable};
use super::setting::Wanted;

/// The application's new host ports are looked for above the old one by this, as people do by hand.
const STEP: u16 = 10_000;
/// Highest of them; above begin the ports that Linux and docker give away themselves.
const HIGHEST: u16 = 32_767;

/// What an earlier run did.
#[derive(Debug, Default)]
pub(super) struct Restored {
    /// Host ports the application was moved to, by container port.
    private: Vec<(u16, u16)>,
    /// Ports the proxy took.
    pub(super) inbound: Vec<u16>,
}

/// Takes an earlier run's move back, so that it can be done anew from where it began.
pub(super) fn restore(task: &mut Value, definition: &Definition) -> Restored {
    let mut restored = Restored::default();
    let Some(sidecar) = definition.sidecar else { return restored };
    let text = variable(&task["containerDefinitions"][sidecar], "OUTRIGGER_PORTS").unwrap_or_default();
    let reached = read_variable(text).unwrap_or_default();
    let app = &mut task["containerDefinitions"][definition.app];
    for one in reached {
        restored.inbound.push(one.inbound);
        if definition.network != Network::Bridge || one.inbound == 0 {
            continue;
        }
        let mappings = app["portMappings"].as_array_mut().into_iter().flatten();
        for mapping in mappings.filter(|mapping| port(mapping, "hostPort") == one.target) {
            restored.private.push((port(mapping, "containerPort"), one.target));
            mapping["hostPort"] = one.inbound.into();
        }
    }
    restored
}

/// Moves every port of the application that has a fixed host port.
pub(super) fn move_ports(
    task: &mut Value,
    definition: &Definition,
    wanted: &Wanted,
    restored: &Restored,
    refusals: &mut Vec<Refusal>,
) -> Vec<Reached> {
    let mut taken = taken(task, definition);
    let mut reached: Vec<Reached> = Vec::new();
    let app = &mut task["containerDefinitions"][definition.app];
    for one in &wanted.ports {
        if let Some(same) = reached.iter().find(|known| known.port.container == one.container) {
            let also = Reached { port: one.clone(), ..*same };
            reached.push(also);
            continue;
        }
        let found = list(app, "portMappings")
            .iter()
            .position(|m| port(m, "containerPort") == one.container && text(m, "protocol") != "udp");
        let Some(at) = found else {
            let reason = format!(
                "port {} is not mapped: in bridge mode a task is reached at a port of its host; add a mapping with a fixed hostPort",
                one.container
            );
            refusals.push(Refusal::new(definition.at_app("portMappings"), reason));
            continue;
        };
        let path = definition.at_app(&format!("portMappings[{at}].hostPort"));
        let inbound = port(&app["portMappings"][at], "hostPort");
        if inbound == 0 {
            let reason = "a dynamic host port is known to docker alone, so a proxy of the task can tell nobody where it is; \
                          give a fixed one, or --agent, which keeps it dynamic";
            refusals.push(Refusal::new(path, reason));
            continue;
        }
        if reached.iter().any(|known| known.inbound == inbound) {
            refusals.push(Refusal::new(path, format!("host port {inbound} is there twice")));
            continue;
        }
        if inbound == wanted.outbound || inbound == wanted.admin {
            refusals.push(Refusal::new(path, format!("{inbound} is a port of the proxy itself")));
            continue;
        }
        match private(one.container, inbound, wanted, restored, &taken) {
            Ok(target) => {
                taken.insert(target);
                app["portMappings"][at]["hostPort"] = target.into();
                reached.push(Reached { port: one.clone(), target, inbound });
            }
            Err(reason) => refusals.push(Refusal::new("--app-host-port", reason)),
        }
    }
    reached
}

/// The host port the application moves to: as given, as last time, or a free one.
fn private(
    container: u16,
    inbound: u16,
    wanted: &Wanted,
    restored: &Restored,
    taken: &BTreeSet<u16>,
) -> Result<u16, String> {
    let of = |list: &[(u16, u16)]| list.iter().find(|(of, _)| *of == container).map(|(_, host)| *host);
    match of(&wanted.app_host_ports) {
        Some(host) if taken.contains(&host) => return Err(format!("{host} is used by this task already")),
        Some(host) => return Ok(host),
        None => {}
    }
    if let Some(host) = of(&restored.private).filter(|host| !taken.contains(host)) {
        return Ok(host);
    }
    let first = inbound.saturating_add(STEP);
    let first = if first > HIGHEST { STEP } else { first };
    (first..=HIGHEST)
        .chain(STEP..first)
        .find(|host| !taken.contains(host))
        .ok_or_else(|| "no host port is left".to_owned())
}

/// Host ports of the task's own, without those that the proxy has of the application's.
fn taken(task: &Value, definition: &Definition) -> BTreeSet<u16> {
    let containers = list(task, "containerDefinitions").iter().enumerate();
    let others = containers.filter(|(i, _)| Some(*i) != definition.sidecar);
    let mappings = others.flat_map(|(_, container)| list(container, "portMappings"));
    mappings.map(|mapping| port(mapping, "hostPort")).filter(|host| *host > 0).collect()
}
