//! `--agent`: the labels by which the host agent makes the task a member. The proxy is not in the definition then.

use serde_json::{Value, json};

use super::definition::{Definition, Network, SIDECAR};
use super::json::{list, port};
use super::setting::{names, ports};
use super::{Options, Refusal};

/// Labels the application's container.
pub(super) fn label(
    document: &mut Value,
    definition: &Definition,
    options: &Options,
    refusals: &mut Vec<Refusal>,
) -> Vec<String> {
    let mut notes = Vec::new();
    if definition.network == Network::Awsvpc {
        let reason = "the host agent serves tasks in bridge and host mode; in awsvpc mode the proxy is part of the task";
        refusals.push(Refusal::new(definition.at("networkMode"), reason));
    }
    if let Some(at) = definition.sidecar {
        let reason =
            format!("`{SIDECAR}` is in the definition: the task would have two proxies; remove it first");
        refusals.push(Refusal::new(definition.at(&format!("containerDefinitions[{at}]")), reason));
    }
    let task = definition.task_mut(document);
    let given = names(task, definition, options.service.clone(), refusals, &mut notes);
    let ports = ports(task, definition, options, refusals, &mut notes);
    let app = &mut task["containerDefinitions"][definition.app];
    if app["dockerLabels"]["outrigger.io/inject"] == "false" {
        let path = definition.at_app("dockerLabels[\"outrigger.io/inject\"]");
        refusals.push(Refusal::new(path, "says that the agent leaves the container alone"));
    }
    if definition.network == Network::Bridge {
        for one in &ports {
            if !list(app, "portMappings")
                .iter()
                .any(|mapping| port(mapping, "containerPort") == one.container)
            {
                let reason =
                    format!("port {} is not mapped: nobody on another host could reach it", one.container);
                refusals.push(Refusal::new(definition.at_app("portMappings"), reason));
            }
        }
    }
    if !refusals.is_empty() {
        return notes;
    }
    if app["dockerLabels"].is_null() {
        app["dockerLabels"] = json!({});
    }
    let labels = &mut app["dockerLabels"];
    labels["outrigger.io/service"] = match &options.service {
        Some(service) => service.clone().into(),
        None if labels["outrigger.io/service"].is_string() => labels["outrigger.io/service"].take(),
        None => given.service.into(),
    };
    if !options.ports.is_empty()
        && let Some(labels) = labels.as_object_mut()
    {
        labels.retain(|key, _| {
            let name = key.strip_prefix("outrigger.io/port.");
            name.is_none_or(|name| ports.iter().any(|port| port.name == name))
        });
    }
    for one in &ports {
        let key = format!("outrigger.io/port.{}", one.name);
        // What says the same in other words stays.
        let same = labels[&key].as_str().and_then(|text| super::Port::declared(&one.name, text).ok());
        if same.as_ref() != Some(one) {
            labels[&key] = one.label().into();
        }
    }
    notes.push("the agent of the host must have this identity among its `identities`; it starts and upgrades the proxy".to_owned());
    if definition.network == Network::Host {
        notes.push("host mode: nothing is redirected; the application calls 127.0.0.1 at its proxy's outbound port (label outrigger.io/outbound-port)".to_owned());
    }
    notes
}
