//! The proxies the agent starts: what one is to be ([`spec`], [`layout`], [`image`]), and what one is ([`Sidecar`]).

pub mod image;
pub mod layout;
pub mod spec;
pub mod state;

use std::collections::HashMap;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum};

use crate::member::is_sidecar;
use crate::member::label::sidecar as labels;

/// How a sidecar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SidecarState {
    /// Made, not started.
    Created,
    /// Runs and has not said yet that it is ready.
    Starting,
    /// Runs and is ready.
    Healthy,
    /// Runs and is not ready.
    Unhealthy,
    /// Does not run.
    Exited,
}

impl SidecarState {
    /// Whether its process lives.
    pub fn runs(self) -> bool {
        matches!(self, Self::Starting | Self::Healthy | Self::Unhealthy)
    }
}

/// A sidecar as docker shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// Docker's id.
    pub id: String,
    /// Docker's name.
    pub name: String,
    /// Its labels, as the agent wrote them.
    pub spec: String,
    /// See [`labels::SANDBOX`].
    pub sandbox: String,
    /// See [`labels::INSTANCE`].
    pub instance: String,
    /// Namespace and service account.
    pub identity: (String, String),
    /// See [`labels::ADMIN_PORT`].
    pub admin_port: u16,
    /// First port and number of ports in host mode.
    pub host_ports: Option<(u16, u16)>,
    /// How it is.
    pub state: SidecarState,
}

impl Sidecar {
    /// From docker's view; `None` when it is no sidecar of ours.
    pub fn of(container: &ContainerInspectResponse) -> Option<Self> {
        let labels = container.config.as_ref()?.labels.as_ref()?;
        if !is_sidecar(labels) {
            return None;
        }
        let of = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let (namespace, account) = labels.get(labels::IDENTITY)?.split_once('/')?;
        Some(Self {
            id: container.id.clone()?,
            name: container.name.clone().unwrap_or_default().trim_start_matches('/').to_owned(),
            spec: of(labels::SPEC),
            sandbox: of(labels::SANDBOX),
            instance: of(labels::INSTANCE),
            identity: (namespace.to_owned(), account.to_owned()),
            admin_port: of(labels::ADMIN_PORT).parse().unwrap_or(0),
            host_ports: host_ports(labels),
            state: state(container),
        })
    }
}

/// The ports that the label of a host-mode sidecar names.
pub fn host_ports(labels: &HashMap<String, String>) -> Option<(u16, u16)> {
    let (first, count) = labels.get(labels::HOST_PORT)?.split_once('+')?;
    Some((first.parse().ok()?, count.parse().ok()?))
}

fn state(container: &ContainerInspectResponse) -> SidecarState {
    let Some(state) = &container.state else { return SidecarState::Exited };
    match state.status {
        Some(ContainerStateStatusEnum::CREATED) => return SidecarState::Created,
        // Docker brings it back by itself.
        Some(ContainerStateStatusEnum::RESTARTING) => return SidecarState::Unhealthy,
        _ if state.running != Some(true) => return SidecarState::Exited,
        _ => {}
    }
    match state.health.as_ref().and_then(|health| health.status) {
        Some(HealthStatusEnum::HEALTHY) => SidecarState::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => SidecarState::Unhealthy,
        _ => SidecarState::Starting,
    }
}

#[cfg(test)]
mod tests;
