//! Which containers are members of the mesh, and as what.
//!
//! One pure function, [`look`], takes what Docker says of a container and gives a [`Verdict`]. A container is a member when it
//! carries the labels of the ECS agent and is selected, by the label `outrigger.io/service` or by a rule of the configuration.
//! Reading order: [`label`] · [`outrigger_member::port`] · here.

pub mod label;
mod read;

use std::collections::{BTreeSet, HashMap};

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};

use crate::capture::Cidr;
use crate::config::{AgentConfig, FailureMode};
use label::ecs;
use outrigger_member::port::Declared;

/// Most ports of one member; the control service takes no more.
pub const PORTS_MAX: usize = 64;

/// Where a member's network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// In a namespace of its own, with ports mapped to the host's.
    Bridge,
    /// In the host's.
    Host,
}

/// The ECS task a container is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its ARN.
    pub arn: String,
    /// The last part of it.
    pub id: String,
    /// Short name of the cluster.
    pub cluster: String,
    /// Family of the task definition.
    pub family: String,
    /// Revision of the task definition.
    pub revision: String,
    /// Name of this container in it.
    pub container: String,
}

/// One port of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPort {
    /// What was declared.
    pub declared: Declared,
    /// Port of the host at which others reach it; `None` in host mode, where the sidecar takes one.
    pub published: Option<u16>,
}

/// A container that belongs into the mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Docker's id, 64 hexadecimal digits.
    pub container_id: String,
    /// Docker's name for it.
    pub container_name: String,
    /// The task.
    pub task: Task,
    /// The service it is an instance of.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its version; may be empty.
    pub version: String,
    /// WorkloadGroup of its namespace; may be empty.
    pub group: String,
    /// What docker's health check of it says; `None`: it has none.
    pub healthy: Option<bool>,
    /// Where its network is.
    pub network: Network,
    /// What it serves, by port number.
    pub ports: Vec<MemberPort>,
    /// Process id of its first process, as the host sees it.
    pub pid: i32,
    /// Its network namespace; another one after each start.
    pub sandbox: String,
    /// What of its traffic is redirected.
    pub redirect: RedirectChoice,
    /// Host mode: the outbound port its definition asks for.
    pub outbound_port: Option<u16>,
    /// What an operator should know, e.g. a port that nobody can reach.
    pub notices: Vec<String>,
}

/// What labels say about a member's traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RedirectChoice {
    /// Nothing at all is redirected.
    pub off: bool,
    /// Destination ports left alone.
    pub exclude_ports: BTreeSet<u16>,
    /// Destinations left alone.
    pub exclude_cidrs: Vec<Cidr>,
    /// Overrides the configuration.
    pub on_failure: Option<FailureMode>,
}

/// What a container is to the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// A member.
    Member(Box<Member>),
    /// Not to be touched: no task, or not selected, or `outrigger.io/inject: "false"`.
    NotOurs,
    /// It asks to be a member and cannot be; with every reason.
    Refused(Vec<String>),
    /// It does not run (any more, or yet).
    NotRunning,
}

/// Whether labels are those of a container that the ECS agent started. Whatever else its definition says: a task is never taken
/// for a sidecar.
pub fn is_task(labels: &HashMap<String, String>) -> bool {
    labels.contains_key(ecs::TASK_ARN)
}

/// Whether labels are those of a sidecar that the agent started. A definition can ask the ECS agent for any label beside its own,
/// but not to leave those out.
pub fn is_sidecar(labels: &HashMap<String, String>) -> bool {
    labels.get(label::sidecar::ROLE).map(String::as_str) == Some(label::sidecar::ROLE_SIDECAR)
        && !is_task(labels)
}

/// What a container is. Pure: everything that decides is an argument.
pub fn look(container: &ContainerInspectResponse, config: &AgentConfig) -> Verdict {
    let empty = HashMap::new();
    let labels = container.config.as_ref().and_then(|c| c.labels.as_ref()).unwrap_or(&empty);
    let Some(task) = task(labels) else { return Verdict::NotOurs };
    if !config.clusters.is_empty() && !config.clusters.contains(&task.cluster) {
        return Verdict::NotOurs;
    }
    let rule = config.services.iter().find(|rule| {
        rule.family == task.family && rule.container.as_ref().is_none_or(|name| *name == task.container)
    });
    if !labels.contains_key(label::SERVICE) && rule.is_none() {
        return Verdict::NotOurs;
    }
    if labels.get(label::INJECT).is_some_and(|value| value == "false") {
        return Verdict::NotOurs;
    }
    let state = container.state.as_ref();
    let running = state.is_some_and(|s| {
        s.running == Some(true)
            && !matches!(
                s.status,
                Some(ContainerStateStatusEnum::RESTARTING | ContainerStateStatusEnum::DEAD)
            )
    });
    if !running {
        return Verdict::NotRunning;
    }
    match read::member(container, task, labels, rule, config) {
        Ok(member) => Verdict::Member(Box::new(member)),
        Err(reasons) => Verdict::Refused(reasons),
    }
}

/// The task, when the labels name one.
fn task(labels: &HashMap<String, String>) -> Option<Task> {
    if !is_task(labels) {
        return None;
    }
    let of = |key: &str| labels.get(key).cloned().unwrap_or_default();
    let last = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    let arn = of(ecs::TASK_ARN);
    Some(Task {
        id: last(&arn),
        cluster: last(&of(ecs::CLUSTER)),
        family: of(ecs::FAMILY),
        revision: of(ecs::REVISION),
        container: of(ecs::CONTAINER),
        arn,
    })
}

#[cfg(test)]
mod tests;
