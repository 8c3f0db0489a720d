//! What was given: the shape of a task definition, as far as it matters here.

use serde_json::Value;

use super::Refusal;
use super::json::{list, text};

/// Name of the proxy's container.
pub(super) const SIDECAR: &str = "outrigger-proxy";

/// Field around the definition in an answer of DescribeTaskDefinition.
pub(super) const ENVELOPE: &str = "taskDefinition";

/// Source: ECS service quotas, containers of a task definition.
const CONTAINERS_MAX: usize = 10;

/// How a task is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// A namespace for each container, behind mapped ports.
    Bridge,
    /// The host's.
    Host,
    /// A namespace for the task.
    Awsvpc,
}

/// A definition that can be worked on.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    wrapped: bool,
    /// How its tasks are connected.
    pub(super) network: Network,
    /// It is for Fargate (too).
    pub(super) fargate: bool,
    /// Index of the application's container.
    pub(super) app: usize,
    /// Index of a proxy that is there already.
    pub(super) sidecar: Option<usize>,
}

impl Definition {
    /// Reads it.
    ///
    /// # Errors
    /// Everything that has another type than ECS's API says, and everything with which there can be no proxy.
    pub(super) fn read(document: &Value, app: Option<&str>) -> Result<Self, Vec<Refusal>> {
        let wrapped = document.get(ENVELOPE).is_some();
        let (task, prefix) =
            if wrapped { (&document[ENVELOPE], format!("{ENVELOPE}.")) } else { (document, String::new()) };
        let at = |path: &str| format!("{prefix}{path}");
        if !task.is_object() {
            let path = if wrapped { ENVELOPE } else { "$" };
            return Err(vec![Refusal::new(path, "must be a JSON object")]);
        }
        if task.get("ContainerDefinitions").is_some() || task.get("Resources").is_some() {
            let reason = "this is CloudFormation's form; give the JSON of RegisterTaskDefinition";
            return Err(vec![Refusal::new(at("ContainerDefinitions"), reason)]);
        }
        let mut refusals = shape(task, &prefix);
        let containers = list(task, "containerDefinitions");
        if containers.is_empty() && refusals.is_empty() {
            refusals.push(Refusal::new(at("containerDefinitions"), "there is no container"));
        }
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let launched = |kind: &str| list(task, "requiresCompatibilities").iter().any(|one| one == kind);
        let (fargate, external) = (launched("FARGATE"), launched("EXTERNAL"));
        let network = network(task, fargate, external)
            .map_err(|reason| refusals.push(Refusal::new(at("networkMode"), reason)));
        if text(&task["runtimePlatform"], "operatingSystemFamily").starts_with("WINDOWS") {
            let reason = "the proxy runs on Linux only";
            refusals.push(Refusal::new(at("runtimePlatform.operatingSystemFamily"), reason));
        }
        if task.get("proxyConfiguration").is_some_and(|one| !one.is_null()) {
            let reason = "another proxy redirects this task's traffic (App Mesh); remove it first";
            refusals.push(Refusal::new(at("proxyConfiguration"), reason));
        }
        let names: Vec<&str> = containers.iter().map(|one| text(one, "name")).collect();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                let path = at(&format!("containerDefinitions[{i}].name"));
                refusals.push(Refusal::new(path, format!("`{name}` is there twice")));
            }
        }
        let sidecar = names.iter().position(|name| *name == SIDECAR);
        if sidecar.is_none() && containers.len() >= CONTAINERS_MAX {
            let reason = format!("{} containers; ECS takes {CONTAINERS_MAX}", containers.len() + 1);
            refusals.push(Refusal::new(at("containerDefinitions"), reason));
        }
        let app = application(containers, app).map_err(|(path, reason)| {
            let path = if path.starts_with("--") { path.to_owned() } else { at(path) };
            refusals.push(Refusal::new(path, reason));
        });
        match (network, app) {
            (Ok(network), Ok(app)) if refusals.is_empty() => {
                Ok(Self { wrapped, network, fargate, app, sidecar })
            }
            _ => Err(refusals),
        }
    }

    /// The definition within the document.
    pub(super) fn task_mut<'a>(&self, document: &'a mut Value) -> &'a mut Value {
        if self.wrapped { &mut document[ENVELOPE] } else { document }
    }

    /// A JSON path in the document for one in the definition.
    pub(super) fn at(&self, path: &str) -> String {
        if self.wrapped { format!("{ENVELOPE}.{path}") } else { path.to_owned() }
    }

    /// A JSON path in the application's container.
    pub(super) fn at_app(&self, path: &str) -> String {
        self.at(&format!("containerDefinitions[{}].{path}", self.app))
    }

    /// The network mode's name.
    pub(super) fn mode(&self) -> &'static str {
        match (self.network, self.fargate) {
            (Network::Bridge, _) => "bridge",
            (Network::Host, _) => "host",
            (Network::Awsvpc, false) => "awsvpc",
            (Network::Awsvpc, true) => "awsvpc on Fargate",
        }
    }
}

fn network(task: &Value, fargate: bool, external: bool) -> Result<Network, String> {
    let mode = match text(task, "networkMode") {
        "" if fargate => return Err("Fargate needs `awsvpc`".to_owned()),
        // ECS's default on Linux.
        "" | "bridge" => Network::Bridge,
        "host" => Network::Host,
        "awsvpc" => Network::Awsvpc,
        "none" => return Err("in mode `none` there is no network to be in the mesh with".to_owned()),
        other => return Err(format!("`{other}` is none of bridge, host, awsvpc")),
    };
    match mode {
        Network::Bridge | Network::Host if fargate => Err("Fargate needs `awsvpc`".to_owned()),
        Network::Awsvpc if external => {
            Err("external instances have no `awsvpc`; choose bridge or host".to_owned())
        }
        mode => Ok(mode),
    }
}

/// The container that was named, else the only one, else the only essential one, else the only essential one with ports.
fn application(containers: &[Value], named: Option<&str>) -> Result<usize, (&'static str, String)> {
    if let Some(name) = named {
        if name == SIDECAR {
            return Err(("--app", format!("`{SIDECAR}` is the proxy")));
        }
        let found = containers.iter().position(|one| text(one, "name") == name);
        return found.ok_or_else(|| ("--app", format!("there is no container `{name}`")));
    }
    let others: Vec<usize> =
        (0..containers.len()).filter(|i| text(&containers[*i], "name") != SIDECAR).collect();
    // Absent is true. Source: ECS API reference, ContainerDefinition.
    let essential = |i: &usize| containers[*i]["essential"].as_bool() != Some(false);
    let essentials: Vec<usize> = others.iter().copied().filter(essential).collect();
    let serving: Vec<usize> =
        essentials.iter().copied().filter(|i| !list(&containers[*i], "portMappings").is_empty()).collect();
    match [others.as_slice(), &essentials, &serving].into_iter().find(|one| one.len() == 1) {
        Some(only) => Ok(only[0]),
        None if others.is_empty() => {
            Err(("containerDefinitions", "there is no container beside the proxy".to_owned()))
        }
        None => {
            let names: Vec<&str> = others.iter().map(|i| text(&containers[*i], "name")).collect();
            Err(("containerDefinitions", format!("which one is it? give --app: {}", names.join(", "))))
        }
    }
}

/// What a field must be.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Port,
    Flag,
    Texts,
    TextMap,
    Object,
    Objects(&'static [(&'static str, Kind)]),
}

const NAME_VALUE: &[(&str, Kind)] = &[("name", Kind::Text), ("value", Kind::Text)];
const CONTAINER: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("image", Kind::Text),
    ("essential", Kind::Flag),
    ("cpu", Kind::Number),
    ("memory", Kind::Number),
    ("memoryReservation", Kind::Number),
    (
        "portMappings",
        Kind::Objects(&[
            ("containerPort", Kind::Port),
            ("hostPort", Kind::Port),
            ("protocol", Kind::Text),
            ("name", Kind::Text),
            ("appProtocol", Kind::Text),
        ]),
    ),
    ("links", Kind::Texts),
    ("dependsOn", Kind::Objects(&[("containerName", Kind::Text), ("condition", Kind::Text)])),
    ("environment", Kind::Objects(NAME_VALUE)),
    ("secrets", Kind::Objects(&[("name", Kind::Text), ("valueFrom", Kind::Text)])),
    ("mountPoints", Kind::Objects(&[("sourceVolume", Kind::Text), ("containerPath", Kind::Text)])),
    ("dockerLabels", Kind::TextMap),
    ("logConfiguration", Kind::Object),
];
const TASK: &[(&str, Kind)] = &[
    ("family", Kind::Text),
    ("networkMode", Kind::Text),
    ("taskRoleArn", Kind::Text),
    ("executionRoleArn", Kind::Text),
    ("requiresCompatibilities", Kind::Texts),
    ("runtimePlatform", Kind::Object),
    ("volumes", Kind::Objects(&[("name", Kind::Text)])),
    ("containerDefinitions", Kind::Objects(CONTAINER)),
];

/// Every field that is read or edited has the type it must have; null is as good as absent.
fn shape(task: &Value, prefix: &str) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    fields(task, prefix, TASK, &mut refusals);
    refusals
}

fn fields(value: &Value, prefix: &str, expected: &[(&str, Kind)], refusals: &mut Vec<Refusal>) {
    for (key, kind) in expected {
        if let Some(field) = value.get(*key).filter(|field| !field.is_null()) {
            field_is(field, &format!("{prefix}{key}"), *kind, refusals);
        }
    }
}

fn field_is(value: &Value, path: &str, kind: Kind, refusals: &mut Vec<Refusal>) {
    let texts = |items: &Vec<Value>| items.iter().all(Value::is_string);
    let (good, what) = match kind {
        Kind::Text => (value.is_string(), "must be a string"),
        Kind::Number => (value.is_u64(), "must be a whole number"),
        Kind::Port => (value.as_u64().is_some_and(|port| port <= 65_535), "must be a port"),
        Kind::Flag => (value.is_boolean(), "must be true or false"),
        Kind::Texts => (value.as_array().is_some_and(texts), "must be a list of strings"),
        Kind::TextMap => {
            (value.as_object().is_some_and(|map| map.values().all(Value::is_string)), "must hold strings")
        }
        Kind::Object => (value.is_object(), "must be a JSON object"),
        Kind::Objects(expected) => {
            for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                let path = format!("{path}[{i}]");
                if item.is_object() {
                    fields(item, &format!("{path}."), expected, refusals);
                } else {
                    refusals.push(Refusal::new(path, "must be a JSON object"));
                }
            }
            (value.is_array(), "must be a list")
        }
    };
    if !good {
        refusals.push(Refusal::new(path, what));
    }
}
