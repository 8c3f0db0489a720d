//! `outrigger transform taskdef`: a proxy beside the application in an ECS task definition. Pure; files and flags are in
//! the verb.
//!
//! In reading order: this file (what is asked, what comes out), [`definition`] (what was given), [`setting`] (what is
//! wanted: flags, then what an earlier run wrote, then labels, then defaults), [`port`], [`sidecar`] (the container),
//! [`bridge`] (host ports), [`fargate`] (sizes), [`agent`] (labels only), [`note`] (what a mode cannot do), [`json`],
//! [`unified`] (the difference as text).

mod agent;
mod bridge;
mod definition;
mod fargate;
mod json;
mod note;
mod port;
mod setting;
mod sidecar;
pub mod unified;

use std::fmt;
use std::net::IpAddr;

use serde_json::Value;

use definition::Definition;
pub use port::Port;
use setting::Wanted;

/// What is asked for. What is `None` or empty is taken from an earlier run's container, else from labels, else is a
/// default.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The application's container. Default: the only one that can be meant.
    pub app: Option<String>,
    /// Image of the proxy.
    pub image: Option<String>,
    /// Control service: `HOST[:PORT]`, several separated by commas, with or without `https://`.
    pub control: Option<String>,
    /// `SERVICE` or `SERVICE.NAMESPACE`.
    pub service: Option<String>,
    /// The application's ports.
    pub ports: Vec<Port>,
    /// Address of the host, for bridge mode.
    pub address: Option<IpAddr>,
    /// ARN of the secret with the join token.
    pub join_token_secret: Option<String>,
    /// Region of the STS by which the task's role is proved.
    pub attest_region: Option<String>,
    /// The mesh's trust domain, which that proof is for.
    pub trust_domain: Option<String>,
    /// Trust roots, as a path in the container.
    pub trust_bundle: Option<String>,
    /// Memory of the proxy, MiB.
    pub memory: Option<u64>,
    /// CPU units of the proxy, 1024 to a processor.
    pub cpu: Option<u64>,
    /// awsvpc and host mode: first port at which the mesh reaches the proxy.
    pub inbound_port: Option<u16>,
    /// Port at which the application reaches the mesh.
    pub outbound_port: Option<u16>,
    /// Port of the admin interface, on loopback.
    pub admin_port: Option<u16>,
    /// Bridge mode: container port of the application and the host port it moves to.
    pub app_host_ports: Vec<(u16, u16)>,
    /// Bridge mode: the host as containers see it.
    pub bridge_gateway: Option<IpAddr>,
    /// No container: the labels by which the host agent brings the proxy.
    pub agent: bool,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// JSON paths that are new, gone or different. Empty: nothing was to be done.
    pub paths: Vec<String>,
    /// What an operator must know.
    pub notes: Vec<String>,
}

/// One reason why it cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// JSON path, or the flag.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl Refusal {
    fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

/// Adds the proxy to a task definition, as RegisterTaskDefinition takes it or as DescribeTaskDefinition gives it.
/// Done twice it is as done once. Fields that are not known here stay as they are.
///
/// # Errors
/// Every reason why it cannot be done; the document is untouched then.
pub fn transform(document: &mut Value, options: &Options) -> Result<Changes, Vec<Refusal>> {
    let mut edited = document.clone();
    let definition = Definition::read(&edited, options.app.as_deref())?;
    let mut refusals = Vec::new();
    let notes = if options.agent {
        agent::label(&mut edited, &definition, options, &mut refusals)
    } else {
        add(&mut edited, &definition, options, &mut refusals)
    };
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let mut paths = Vec::new();
    json::differences("", document, &edited, &mut paths);
    *document = edited;
    Ok(Changes { paths, notes })
}

/// What a proxy can and cannot do in the network mode of a task definition.
///
/// # Errors
/// Every reason why it can have none.
pub fn capabilities(document: &Value, options: &Options) -> Result<Vec<String>, Vec<Refusal>> {
    let definition = Definition::read(document, options.app.as_deref())?;
    let mut told = vec![format!("network mode {}", definition.mode())];
    told.extend(note::of_mode(&definition, &note::Ports::of(options)));
    Ok(told)
}

/// What RegisterTaskDefinition takes of what DescribeTaskDefinition gives: without the envelope and what ECS fills in.
pub fn registrable(document: Value) -> Value {
    /// Source: ECS API reference, TaskDefinition against RegisterTaskDefinition.
    const FILLED_IN: [&str; 10] = [
        "taskDefinitionArn",
        "revision",
        "status",
        "requiresAttributes",
        "compatibilities",
        "registeredAt",
        "registeredBy",
        "deregisteredAt",
        "deleteRequestedAt",
        "delegatedRegistration",
    ];
    let Value::Object(mut outer) = document else { return document };
    let Some(Value::Object(inner)) = outer.get_mut(definition::ENVELOPE) else {
        outer.retain(|key, _| !FILLED_IN.contains(&key.as_str()));
        return Value::Object(outer);
    };
    let mut inner = std::mem::take(inner);
    inner.retain(|key, _| !FILLED_IN.contains(&key.as_str()));
    // An empty list of tags is refused by RegisterTaskDefinition.
    if let Some(tags) = outer.remove("tags").filter(|tags| tags.as_array().is_some_and(|t| !t.is_empty())) {
        inner.entry("tags").or_insert(tags);
    }
    Value::Object(inner)
}

/// Adds or brings up to date the container.
fn add(
    document: &mut Value,
    definition: &Definition,
    options: &Options,
    refusals: &mut Vec<Refusal>,
) -> Vec<String> {
    let task = definition.task_mut(document);
    let restored = bridge::restore(task, definition);
    let (wanted, mut notes) = Wanted::read(task, definition, options, refusals);
    let Some(wanted) = wanted else { return notes };
    sidecar::check(task, definition, &wanted, refusals);
    let reached = match definition.network {
        definition::Network::Bridge => bridge::move_ports(task, definition, &wanted, &restored, refusals),
        definition::Network::Host | definition::Network::Awsvpc => port::in_a_row(&wanted, refusals),
    };
    if refusals.is_empty() {
        sidecar::write(task, definition, &wanted, &reached, &restored);
        sidecar::write_application(task, definition);
        sidecar::write_volumes(task, definition, &wanted);
        fargate::check_sizes(task, definition, refusals);
    }
    notes.extend(note::of_mode(definition, &note::Ports::of_wanted(&wanted)));
    notes.extend(note::of_settings(task, definition, &wanted, &reached));
    notes
}

#[cfg(test)]
mod tests;
