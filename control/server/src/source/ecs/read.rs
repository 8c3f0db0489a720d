//! What a task is to the mesh: pure, from what the ECS API says.
//!
//! A container is a member when it is selected as for the host agent: by the Docker label `outrigger.io/service` of its
//! task definition, or by a rule. Tasks on external hosts are never taken from here: their agent registers them, with
//! the address that ECS does not know; they are only counted, so that what is missing is seen.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::wire::{self, Container, ContainerDefinition, Definition, Instance, Task};
use crate::identity::spiffe::is_label;
use crate::source::fact::{self, Draft, DraftPort};
use crate::source::settings::{EcsRule, EcsSettings};
use crate::source::status::Unusable;
use crate::source::workload::{Health, Protocol};
use outrigger_member::port::{self, Declared};

/// Docker labels of an application; the host agent reads the same.
mod label {
    pub(super) const SERVICE: &str = "outrigger.io/service";
    pub(super) const NAMESPACE: &str = "outrigger.io/namespace";
    pub(super) const SERVICE_ACCOUNT: &str = "outrigger.io/service-account";
    pub(super) const VERSION: &str = "outrigger.io/version";
    pub(super) const INJECT: &str = "outrigger.io/inject";
    pub(super) const PORT: &str = "outrigger.io/port.";
}

/// Attributes of a container instance, which its operator sets (`ECS_INSTANCE_ATTRIBUTES`).
const ADDRESS_ATTRIBUTE: &str = "outrigger.address";
const LOCALITY_ATTRIBUTE: &str = "outrigger.locality";
const ZONE_ATTRIBUTE: &str = "ecs.availability-zone";

/// What a task is.
#[derive(Debug, Default)]
pub struct Read {
    /// Its members, one for each selected container.
    pub drafts: Vec<Draft>,
    /// What asks to be a member and cannot be.
    pub unusable: Vec<Unusable>,
    /// It asks to be a member and runs on an external host.
    pub is_expected: bool,
}

/// Everything known about a task.
pub struct Known<'a> {
    /// The task.
    pub task: &'a Task,
    /// Its definition.
    pub definition: &'a Definition,
    /// Its container instance; none on Fargate.
    pub instance: Option<&'a Instance>,
    /// What the operator said.
    pub settings: &'a EcsSettings,
}

/// The last part of a task's ARN.
pub fn task_id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}

/// Looks at a task that is to run.
pub fn read(known: &Known<'_>) -> Read {
    let mut read = Read::default();
    let is_external = known.task.launch_type == "EXTERNAL";
    for container in &known.task.containers {
        let Some(definition) =
            known.definition.container_definitions.iter().find(|d| d.name == container.name)
        else {
            continue;
        };
        let Some(asked) = known.asked(definition) else { continue };
        if is_external {
            read.is_expected |= known.task.last_status == "RUNNING";
            continue;
        }
        if known.task.last_status != "RUNNING" || container.last_status == "STOPPED" {
            continue;
        }
        let object = format!("{}/{}", task_id(&known.task.task_arn), container.name);
        match known.draft(object.clone(), container, definition, asked) {
            Ok(draft) => read.drafts.push(draft),
            Err(reason) => read.unusable.push(Unusable { object, reason }),
        }
    }
    read
}

/// What labels or a rule ask for.
struct Asked<'a> {
    service: &'a str,
    namespace: Option<&'a str>,
    service_account: &'a str,
    version: &'a str,
    ports: BTreeMap<&'a str, &'a str>,
    labels: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Known<'a> {
    /// What a container asks for; `None`: nothing. Labels go before rules.
    fn asked(&self, definition: &'a ContainerDefinition) -> Option<Asked<'a>> {
        let labels = definition.docker_labels.as_ref();
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
        if label(label::INJECT) == Some("false") {
            return None;
        }
        let applies = |rule: &&EcsRule| {
            rule.family == self.definition.family
                && rule.container.as_ref().is_none_or(|name| *name == definition.name)
        };
        let rule = self.settings.services.iter().find(applies);
        let service = label(label::SERVICE).or(rule.map(|rule| rule.service.as_str()))?;
        let mut ports: BTreeMap<&str, &str> = BTreeMap::new();
        for (key, value) in labels.into_iter().flatten() {
            if let Some(name) = key.strip_prefix(label::PORT) {
                ports.insert(name, value);
            }
        }
        if ports.is_empty() {
            let of_rule = rule.into_iter().flat_map(|rule| &rule.ports);
            ports.extend(of_rule.map(|(name, text)| (name.as_str(), text.as_str())));
        }
        let account = label(label::SERVICE_ACCOUNT).or(rule.and_then(|rule| rule.service_account.as_deref()));
        Some(Asked {
            service,
            namespace: label(label::NAMESPACE),
            service_account: account.unwrap_or_default(),
            version: label(label::VERSION).or(rule.map(|rule| rule.version.as_str())).unwrap_or_default(),
            ports,
            labels,
        })
    }

    fn draft(
        &self,
        object: String,
        container: &Container,
        definition: &ContainerDefinition,
        asked: Asked<'_>,
    ) -> Result<Draft, String> {
        let (service, namespace) = match asked.service.split_once('.') {
            Some((service, namespace)) => (service, namespace),
            None => (asked.service, asked.namespace.unwrap_or(&self.settings.namespace)),
        };
        if !is_label(service) {
            return Err(format!("service {service:?} is not a DNS label"));
        }
        if !self.settings.allows(namespace) {
            return Err(format!("namespace {namespace:?} is not one of this source's namespaces"));
        }
        let mode = self.definition.network_mode.as_deref().unwrap_or("bridge");
        let address = self.address(mode, container)?;
        let mut ports = Vec::new();
        for declared in declared(definition, &asked)? {
            let target = self.reached_at(mode, container, &declared)?;
            let Declared { name, number, protocol, .. } = declared;
            ports.push(DraftPort { name, number, protocol, target, mesh_tls: false });
        }
        if ports.is_empty() {
            return Err("it has no port: neither labels nor port mappings name one".into());
        }
        Ok(Draft {
            object,
            instance_id: format!("{}-{}", task_id(&self.task.task_arn), container.name),
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            service_account: asked.service_account.to_owned(),
            version: asked.version.to_owned(),
            address: address.to_string(),
            ports,
            labels: asked.labels.map(own_labels).unwrap_or_default(),
            locality: self.locality(),
            weight: 1,
            health: match (self.task.health_status.as_str(), container.health_status.as_str()) {
                ("UNHEALTHY", _) | (_, "UNHEALTHY") => Health::Unhealthy,
                _ if self.task.desired_status == "STOPPED" => Health::Draining,
                _ => Health::Healthy,
            },
        })
    }

    /// Where a container is reached: its own interface in awsvpc mode, else its host.
    fn address(&self, mode: &str, container: &Container) -> Result<IpAddr, String> {
        if mode == "awsvpc" {
            let own = container.network_interfaces.iter();
            let texts =
                own.flat_map(|own| [own.private_ipv4_address.as_deref(), own.ipv6_address.as_deref()]);
            let own = texts.flatten().find_map(|text| text.parse().ok());
            let attached = || {
                let interfaces = self.task.attachments.iter().filter(|a| a.kind == "ElasticNetworkInterface");
                let details = interfaces.flat_map(|a| &a.details);
                let address = |wanted: &'static str| {
                    details.clone().find(|d| d.name == wanted).and_then(|d| d.value.as_deref()?.parse().ok())
                };
                address("privateIPv4Address").or_else(|| address("privateIPv6Address"))
            };
            return own
                .or_else(attached)
                .ok_or_else(|| "its network interface has no address yet".to_owned());
        }
        let Some(instance) = self.instance else {
            return Err("its container instance is not known".into());
        };
        if let Some(host) = self.settings.hosts.get(&instance.ec2_instance_id) {
            return Ok(host.address);
        }
        let attribute = instance.attribute(ADDRESS_ATTRIBUTE);
        attribute.and_then(|text| text.parse().ok()).ok_or_else(|| {
            format!(
                "the address of host {} is not known: set the attribute {ADDRESS_ATTRIBUTE} on it, or name it in `hosts`",
                instance.ec2_instance_id
            )
        })
    }

    /// The port at that address which leads to a port of the container.
    fn reached_at(&self, mode: &str, container: &Container, declared: &Declared) -> Result<u16, String> {
        match mode {
            "bridge" => {
                let tcp = |protocol: &str| protocol.is_empty() || protocol == "tcp";
                let mut bound = container.network_bindings.iter().filter(|b| tcp(&b.protocol));
                let found = bound.find(|b| wire::port(b.container_port) == Some(declared.target));
                found.and_then(|b| wire::port(b.host_port)).ok_or_else(|| {
                    format!("container port {} is not mapped to a port of the host", declared.target)
                })
            }
            "awsvpc" | "host" => Ok(declared.target),
            other => Err(format!("network mode {other:?}: nobody can reach it")),
        }
    }

    fn locality(&self) -> String {
        let attribute = |name| self.instance.and_then(|i| i.attribute(name)).unwrap_or_default();
        let host = self.instance.and_then(|i| self.settings.hosts.get(&i.ec2_instance_id));
        let zone = match self.task.availability_zone.as_str() {
            "" => attribute(ZONE_ATTRIBUTE),
            zone => zone,
        };
        let general = fact::locality(&self.settings.locality, [&self.settings.region, zone]);
        let own = host.map(|host| host.locality.as_str()).filter(|text| !text.is_empty());
        let own = own.unwrap_or_else(|| attribute(LOCALITY_ATTRIBUTE));
        let mut parts = general.splitn(3, '/');
        let parts = [parts.next().unwrap_or_default(), parts.next().unwrap_or_default()];
        if own.is_empty() { general.clone() } else { fact::locality(own, parts) }
    }
}

/// The ports a container declares: by labels or a rule, else its port mappings.
fn declared(definition: &ContainerDefinition, asked: &Asked<'_>) -> Result<Vec<Declared>, String> {
    if !asked.ports.is_empty() {
        return asked.ports.iter().map(|(name, text)| port::parse(name, text)).collect();
    }
    let mut ports: Vec<Declared> = Vec::new();
    for mapping in &definition.port_mappings {
        let is_tcp = mapping.protocol.as_deref().is_none_or(|protocol| protocol == "tcp");
        let Some(number) = wire::port(mapping.container_port).filter(|_| is_tcp) else { continue };
        if ports.iter().any(|known| known.number == number) {
            continue;
        }
        let protocol = mapping.app_protocol.as_deref().and_then(Protocol::parse).unwrap_or(Protocol::Tcp);
        let name =
            mapping.name.as_deref().filter(|name| is_label(name) && ports.iter().all(|p| p.name != *name));
        let name = name.map(str::to_owned).unwrap_or_default();
        ports.push(Declared { name, number, target: number, protocol });
    }
    Ok(ports)
}

/// Labels the application's author made, without ours.
fn own_labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = labels.iter().filter(|(key, _)| !key.starts_with("outrigger.io/"));
    own.map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
