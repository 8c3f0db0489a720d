//! From a selected container to a member: every label, port and setting is read, and everything that is wrong is said at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::models::{ContainerInspectResponse, PortMap};

use super::label::{self, ecs};
use super::{Member, MemberPort, Network, PORTS_MAX, RedirectChoice, Task};
use crate::config::{AgentConfig, FailureMode, ServiceRule};
use outrigger_member::label::is_label;
use outrigger_member::port::{self, Declared, Protocol};

/// Reads a member.
///
/// *Errors*: every reason why it cannot be one.
pub(super) fn member(
    container: &ContainerInspectResponse,
    task: Task,
    labels: &HashMap<String, String>,
    rule: Option<&ServiceRule>,
    config: &AgentConfig,
) -> Result<Member, Vec<String>> {
    let mut reading = Reading { labels, rule, config, reasons: Vec::new(), notices: Vec::new() };
    match reading.member(container, task) {
        Some(member) if reading.reasons.is_empty() => Ok(member),
        _ => Err(reading.reasons),
    }
}

struct Reading<'a> {
    labels: &'a HashMap<String, String>,
    rule: Option<&'a ServiceRule>,
    config: &'a AgentConfig,
    reasons: Vec<String>,
    notices: Vec<String>,
}

impl Reading<'_> {
    fn refuse(&mut self, reason: impl Into<String>) {
        self.reasons.push(reason.into());
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(|value| value.trim())
    }

    fn member(&mut self, container: &ContainerInspectResponse, task: Task) -> Option<Member> {
        self.unknown_labels();
        let container_id = container.id.clone().unwrap_or_default();
        if !is_id(&container_id) {
            self.refuse("docker gives no container id");
        }
        if !is_task_id(&task.id) {
            self.refuse(format!("{}: `{}` does not end in a task id", ecs::TASK_ARN, task.arn));
        }
        let network = self.network(container);
        let (service, namespace, service_account, version) = self.names();
        self.check_identity(&namespace, &service_account, &task);
        let user = container.config.as_ref().and_then(|c| c.user.as_deref()).unwrap_or_default();
        if user.split(':').next().and_then(|u| u.parse().ok()) == Some(self.config.sidecar.uid) {
            self.refuse(format!(
                "the application runs as user {}, which is the sidecar's; choose another sidecar.uid",
                self.config.sidecar.uid
            ));
        }
        let state = container.state.as_ref();
        let pid = state.and_then(|s| s.pid).and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
        if pid.is_none() {
            self.refuse("docker gives no process id");
        }
        let settings = container.network_settings.as_ref();
        let sandbox = settings
            .and_then(|s| s.sandbox_id.clone())
            .filter(|id| !id.is_empty())
            .or_else(|| state.and_then(|s| s.started_at.clone()))
            .unwrap_or_default();
        let exposed = container.config.as_ref().and_then(|c| c.exposed_ports.clone()).unwrap_or_default();
        let published = settings.and_then(|s| s.ports.clone()).unwrap_or_default();
        let ports = self.ports(network?, &exposed, &published);
        let redirect = self.redirect();
        let group = self.group();
        let outbound_port = self.outbound_port(network?);
        Some(Member {
            container_name: container.name.clone().unwrap_or_default().trim_start_matches('/').to_owned(),
            container_id,
            task,
            service,
            namespace,
            service_account,
            version,
            group,
            healthy: healthy(container),
            network: network?,
            ports,
            pid: pid?,
            sandbox,
            redirect,
            outbound_port,
            notices: std::mem::take(&mut self.notices),
        })
    }

    /// A label that is not read would be a wish that is not granted.
    fn unknown_labels(&mut self) {
        let mut unknown: Vec<&String> = self
            .labels
            .keys()
            .filter(|key| key.starts_with(label::PREFIX))
            .filter(|key| !key.starts_with(label::PORT) && !label::KNOWN.contains(&key.as_str()))
            .collect();
        unknown.sort();
        for key in unknown {
            self.reasons.push(format!("label {key} is not known"));
        }
        if let Some(other) = self.label(label::INJECT).filter(|value| *value != "true") {
            let reason = format!("{}: `{other}` is neither true nor false", label::INJECT);
            self.refuse(reason);
        }
    }

    fn network(&mut self, container: &ContainerInspectResponse) -> Option<Network> {
        let mode =
            container.host_config.as_ref().and_then(|h| h.network_mode.as_deref()).unwrap_or("default");
        match mode {
            "host" => Some(Network::Host),
            "none" => {
                self.refuse("network mode `none` has no network to be in the mesh with");
                None
            }
            shared if shared.starts_with("container:") => {
                self.refuse("it shares another container's network: label that one");
                None
            }
            _ => Some(Network::Bridge),
        }
    }

    /// Service, namespace, service account, version.
    fn names(&mut self) -> (String, String, String, String) {
        let ruled = self.rule.map(|rule| rule.service.as_str());
        let full = self.label(label::SERVICE).or(ruled).unwrap_or_default().to_owned();
        let (service, in_name) = match full.split_once('.') {
            Some((service, namespace)) => (service.to_owned(), Some(namespace.to_owned())),
            None => (full, None),
        };
        let labelled = self.label(label::NAMESPACE).map(str::to_owned);
        if let (Some(one), Some(other)) = (&in_name, &labelled)
            && one != other
        {
            self.refuse(format!("namespaces `{one}` and `{other}` are given"));
        }
        let namespace = in_name.or(labelled).unwrap_or_else(|| self.config.namespace.clone());
        let ruled = self.rule.and_then(|rule| rule.service_account.clone());
        let account = self
            .label(label::SERVICE_ACCOUNT)
            .map(str::to_owned)
            .or(ruled)
            .unwrap_or_else(|| service.clone());
        let ruled = self.rule.and_then(|rule| rule.version.clone());
        let version = self.label(label::VERSION).map(str::to_owned).or(ruled).unwrap_or_default();
        for (what, value) in [("service", &service), ("namespace", &namespace), ("service account", &account)]
        {
            if !is_label(value) {
                self.refuse(format!("{what} `{value}` must be a DNS label"));
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        if version.len() > 63 || !version.chars().all(plain) {
            self.refuse(format!("{}: at most 63 letters, digits, '-', '_', '.' and '+'", label::VERSION));
        }
        (service, namespace, account, version)
    }

    fn group(&mut self) -> String {
        let group = self.label(label::WORKLOAD_GROUP).unwrap_or_default().to_owned();
        // A name of Kubernetes: labels with dots between them.
        if !group.is_empty() && (group.len() > 253 || !group.split('.').all(is_label)) {
            self.refuse(format!("{}: `{group}` is no name", label::WORKLOAD_GROUP));
        }
        group
    }

    /// The agent gives an identity only to those it is meant for.
    fn check_identity(&mut self, namespace: &str, account: &str, task: &Task) {
        let who = format!("{namespace}/{account}");
        match self.config.identity(namespace, account) {
            None => self.refuse(format!("identity {who} is not among those of this host")),
            Some(rule) if !rule.families.is_empty() && !rule.families.contains(&task.family) => {
                self.refuse(format!("identity {who} is not for tasks of family `{}`", task.family));
            }
            Some(_) => {}
        }
    }

    fn ports(&mut self, network: Network, exposed: &[String], published: &PortMap) -> Vec<MemberPort> {
        let mut texts: BTreeMap<String, String> =
            self.rule.map(|rule| rule.ports.clone()).unwrap_or_default();
        let labelled: BTreeMap<String, String> = self
            .labels
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(label::PORT)?.to_owned(), value.clone())))
            .collect();
        if !labelled.is_empty() {
            texts = labelled;
        }
        let mut declared = Vec::new();
        for (name, text) in &texts {
            match port::parse(name, text) {
                Ok(port) => declared.push(port),
                Err(reason) => self.refuse(format!("{}{name}: {reason}", label::PORT)),
            }
        }
        if texts.is_empty() {
            declared = detected(exposed, published);
        }
        let excluded = self.port_list(label::EXCLUDE_INBOUND_PORTS);
        declared.retain(|port| !excluded.contains(&port.target));
        declared.sort_by_key(|port| port.number);
        if declared.windows(2).any(|pair| pair[0].number == pair[1].number) {
            self.refuse("two ports have the same number");
        }
        if declared.len() > PORTS_MAX {
            self.refuse(format!("{} ports; at most {PORTS_MAX} are allowed", declared.len()));
        }
        let mut ports = Vec::new();
        for declared in declared {
            match network {
                Network::Host => ports.push(MemberPort { declared, published: None }),
                Network::Bridge => match host_port(published, declared.target) {
                    Some(port) => ports.push(MemberPort { declared, published: Some(port) }),
                    None => self.notices.push(format!(
                        "port {} is not mapped to a port of the host: nobody can be sent there",
                        declared.target
                    )),
                },
            }
        }
        ports
    }

    fn redirect(&mut self) -> RedirectChoice {
        let off = match self.label(label::CAPTURE) {
            None | Some("true") => false,
            Some("false") => true,
            Some(other) => {
                let reason = format!("{}: `{other}` is neither true nor false", label::CAPTURE);
                self.refuse(reason);
                false
            }
        };
        let on_failure = match self.label(label::ON_FAILURE) {
            None => None,
            Some("open") => Some(FailureMode::Open),
            Some("closed") => Some(FailureMode::Closed),
            Some(other) => {
                let reason = format!("{}: `{other}` is neither open nor closed", label::ON_FAILURE);
                self.refuse(reason);
                None
            }
        };
        let exclude_ports = self.port_list(label::EXCLUDE_OUTBOUND_PORTS);
        let texts = self.label(label::EXCLUDE_OUTBOUND_CIDRS).unwrap_or_default().to_owned();
        let mut exclude_cidrs = Vec::new();
        for text in texts.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            match text.parse() {
                Ok(cidr) => exclude_cidrs.push(cidr),
                Err(_) => {
                    self.refuse(format!("{}: `{text}` is no CIDR", label::EXCLUDE_OUTBOUND_CIDRS));
                }
            }
        }
        RedirectChoice { off, exclude_ports, exclude_cidrs, on_failure }
    }

    fn port_list(&mut self, key: &str) -> BTreeSet<u16> {
        let text = self.label(key).unwrap_or_default().to_owned();
        let mut ports = BTreeSet::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.parse::<u16>() {
                Ok(port) if port > 0 => drop(ports.insert(port)),
                _ => self.refuse(format!("{key}: `{part}` is no port")),
            }
        }
        ports
    }

    fn outbound_port(&mut self, network: Network) -> Option<u16> {
        let text = self.label(label::OUTBOUND_PORT)?.to_owned();
        if network == Network::Bridge {
            self.refuse(format!("{} is for host mode", label::OUTBOUND_PORT));
        }
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        if port.is_none() {
            self.refuse(format!("{}: `{text}` is no port", label::OUTBOUND_PORT));
        }
        port
    }
}

/// Without a declaration: the TCP ports that the image exposes or the task maps, as opaque TCP. That is right for every
/// protocol; what it lacks of HTTP it gets by a declaration.
fn detected(exposed: &[String], published: &PortMap) -> Vec<Declared> {
    let both = exposed.iter().chain(published.keys());
    let numbers: BTreeSet<u16> =
        both.filter_map(|text| text.strip_suffix("/tcp")?.parse().ok()).filter(|port| *port > 0).collect();
    numbers
        .into_iter()
        .map(|port| Declared {
            name: format!("tcp-{port}"),
            number: port,
            target: port,
            protocol: Protocol::Tcp,
        })
        .collect()
}

/// The host's port that leads to a TCP port of the container; one on a loopback address leads nobody there.
fn host_port(published: &PortMap, target: u16) -> Option<u16> {
    let bindings = published.get(&format!("{target}/tcp"))?.as_ref()?;
    let reachable = bindings.iter().filter(|binding| {
        let ip = binding.host_ip.as_deref().unwrap_or_default();
        !ip.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    });
    reachable.filter_map(|binding| binding.host_port.as_ref()?.parse().ok()).find(|port| *port > 0)
}

/// What docker's health check says. One that has not come to a result yet is not a good one: ECS waits for it too.
fn healthy(container: &ContainerInspectResponse) -> Option<bool> {
    use bollard::models::HealthStatusEnum as Status;
    match container.state.as_ref()?.health.as_ref()?.status? {
        Status::HEALTHY => Some(true),
        Status::STARTING | Status::UNHEALTHY => Some(false),
        Status::NONE | Status::EMPTY => None,
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_task_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
