//! What is wanted: flags, else what an earlier run wrote into the proxy's container, else the labels that the host agent
//! reads too, else defaults.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::definition::{Definition, Network, SIDECAR};
use super::json::{find, list, port, text, variable};
use super::port::{PORTS_MAX, Port, read_variable};
use super::{Options, Refusal};
use outrigger_member::label::is_label;

/// Image where none is named; the host agent's default too.
const IMAGE: &str = "outrigger-proxy:latest";
/// Several times what an idle proxy needs (15 MB), MiB.
const MEMORY: u64 = 128;
/// Least memory ECS takes, MiB. Source: ECS API reference, ContainerDefinition.
const MEMORY_MIN: u64 = 6;
const CPU: u64 = 64;
/// The control service's port for members.
const CONTROL_PORT: u16 = 15_012;
pub(super) const INBOUND: u16 = 15_006;
pub(super) const OUTBOUND: u16 = 15_001;
pub(super) const ADMIN: u16 = 15_000;
/// Folder of the trust roots, on the host and in the container.
pub(super) const TRUST_DIR: &str = "/etc/outrigger";
/// Address of docker's default bridge.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1));

/// How the proxy proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Join {
    /// By a join token out of this secret.
    Secret(String),
    /// By the task's role.
    Role { region: String, trust_domain: Option<String> },
    /// As the container that is there says.
    Kept,
}

/// Everything that is written.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) image: String,
    pub(super) control: String,
    pub(super) service: String,
    pub(super) namespace: String,
    pub(super) account: String,
    pub(super) version: String,
    pub(super) ports: Vec<Port>,
    pub(super) address: Option<String>,
    pub(super) join: Join,
    pub(super) trust_bundle: String,
    pub(super) memory: u64,
    pub(super) cpu: u64,
    pub(super) inbound: u16,
    pub(super) outbound: u16,
    pub(super) admin: u16,
    pub(super) gateway: String,
    pub(super) app_host_ports: Vec<(u16, u16)>,
}

/// Who a workload is.
pub(super) struct Names {
    pub(super) service: String,
    pub(super) namespace: String,
    pub(super) account: String,
    pub(super) version: String,
}

static NOTHING: Value = Value::Null;

struct Reading<'a> {
    task: &'a Value,
    definition: &'a Definition,
    options: &'a Options,
    sidecar: &'a Value,
    refusals: &'a mut Vec<Refusal>,
    notes: Vec<String>,
}

impl Wanted {
    /// Reads it. `None` when something is missing or wrong, which is among the refusals then.
    pub(super) fn read(
        task: &Value,
        definition: &Definition,
        options: &Options,
        refusals: &mut Vec<Refusal>,
    ) -> (Option<Self>, Vec<String>) {
        let sidecar = definition.sidecar.map_or(&NOTHING, |i| &task["containerDefinitions"][i]);
        let mut reading = Reading { task, definition, options, sidecar, refusals, notes: Vec::new() };
        let wanted = reading.wanted();
        (wanted, reading.notes)
    }
}

impl Reading<'_> {
    fn refuse(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.refusals.push(Refusal::new(path, reason));
    }

    fn had(&self, name: &str) -> Option<String> {
        variable(self.sidecar, name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    fn had_port(&self, name: &str) -> Option<u16> {
        self.had(name).and_then(|text| text.rsplit(':').next()?.parse().ok())
    }

    fn wanted(&mut self) -> Option<Wanted> {
        let names = self.names();
        let ports = self.ports();
        let control = self.control();
        let join = self.join();
        let image = self.image();
        let options = self.options;
        let address = options.address.map(|ip| ip.to_string()).or_else(|| self.had("OUTRIGGER_ADDRESS"));
        let bridge = self.definition.network == Network::Bridge;
        if bridge && address.is_none() && !ports.is_empty() {
            let reason = "in bridge mode the proxy sees its container's address only: give that of the host on which \
                          the task runs, or --agent, with which the agent of each host knows its own";
            self.refuse("--address", reason);
        }
        if options.address.is_some_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
            self.refuse("--address", "nobody can be reached there");
        }
        let memory = options.memory.or_else(|| self.sidecar["memory"].as_u64()).unwrap_or(MEMORY);
        if memory < MEMORY_MIN {
            self.refuse("--memory", format!("ECS takes {MEMORY_MIN} MiB and more"));
        }
        let inbound = options.inbound_port.or_else(|| self.had_port("OUTRIGGER_INBOUND_PORT"));
        let outbound = options.outbound_port.or_else(|| self.had_port("OUTRIGGER_OUTBOUND_PORT"));
        let admin = options.admin_port.or_else(|| self.had_port("OUTRIGGER_ADMIN_ADDRESS"));
        let (outbound, admin) = (outbound.unwrap_or(OUTBOUND), admin.unwrap_or(ADMIN));
        if outbound == admin {
            self.refuse("--outbound-port", format!("{outbound} is the port of the admin interface"));
        }
        let gateway = options.bridge_gateway.map(|ip| ip.to_string());
        let gateway = gateway.or_else(|| self.had("OUTRIGGER_APP_ADDRESS"));
        Some(Wanted {
            image,
            control: control?,
            service: names.service,
            namespace: names.namespace,
            account: names.account,
            version: names.version,
            ports,
            address,
            join: join?,
            trust_bundle: self.trust_bundle(),
            memory,
            cpu: options.cpu.or_else(|| self.sidecar["cpu"].as_u64()).unwrap_or(CPU),
            inbound: inbound.unwrap_or(INBOUND),
            outbound,
            admin,
            gateway: gateway.unwrap_or_else(|| GATEWAY.to_string()),
            app_host_ports: options.app_host_ports.clone(),
        })
    }

    fn names(&mut self) -> Names {
        let had = match (self.had("OUTRIGGER_SERVICE"), self.had("OUTRIGGER_NAMESPACE")) {
            (Some(service), Some(namespace)) => Some(format!("{service}.{namespace}")),
            (service, _) => service,
        };
        let given = self.options.service.clone().or(had);
        // An account that an earlier run wrote is that of the service it wrote.
        let account =
            if self.options.service.is_none() { self.had("OUTRIGGER_SERVICE_ACCOUNT") } else { None };
        let version = self.had("OUTRIGGER_VERSION");
        let mut names = names(self.task, self.definition, given, self.refusals, &mut self.notes);
        names.account = account.unwrap_or(names.account);
        names.version = version.filter(|_| names.version.is_empty()).unwrap_or(names.version);
        names
    }

    fn ports(&mut self) -> Vec<Port> {
        let had = self.had("OUTRIGGER_PORTS").and_then(|text| read_variable(&text));
        match had.filter(|_| self.options.ports.is_empty()) {
            Some(had) => {
                // In bridge mode the port was restored before (`bridge::restore`): its mapping is the one of `inbound`.
                let app = &self.task["containerDefinitions"][self.definition.app];
                let mapped = |host: u16| {
                    let mapping = list(app, "portMappings").iter().find(|m| port(m, "hostPort") == host)?;
                    Some(port(mapping, "containerPort"))
                };
                let bridge = self.definition.network == Network::Bridge;
                had.into_iter()
                    .map(|mut one| {
                        if bridge && let Some(container) = mapped(one.inbound) {
                            one.port.container = container;
                        }
                        one.port
                    })
                    .collect()
            }
            None => ports(self.task, self.definition, self.options, self.refusals, &mut self.notes),
        }
    }

    fn control(&mut self) -> Option<String> {
        let Some(text) = self.options.control.clone().or_else(|| self.had("OUTRIGGER_CONTROL")) else {
            self.refuse("--control", "is needed: HOST[:PORT] of the control service");
            return None;
        };
        let one = |text: &str| {
            let text = text.trim();
            let text = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
            let (host, port) = match text.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
                _ => (text, CONTROL_PORT),
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let good = match inner {
                Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
                None => !host.is_empty() && host.chars().all(plain),
            };
            (good && port > 0).then(|| format!("{host}:{port}"))
        };
        let all: Option<Vec<String>> = text.split(',').map(one).collect();
        if all.is_none() {
            self.refuse("--control", format!("`{text}` is not HOST[:PORT]"));
        }
        all.map(|all| all.join(","))
    }

    fn join(&mut self) -> Option<Join> {
        let options = self.options;
        let join = match (&options.join_token_secret, &options.attest_region) {
            (Some(_), Some(_)) => {
                self.refuse("--join-token-secret", "and --attest-region exclude one another");
                return None;
            }
            (Some(secret), None) => Join::Secret(secret.clone()),
            (None, Some(region)) => {
                let trust_domain = options.trust_domain.clone();
                let trust_domain = trust_domain.or_else(|| self.had("OUTRIGGER_ATTEST_AUDIENCE"));
                Join::Role { region: region.clone(), trust_domain }
            }
            (None, None) => {
                let secrets = list(self.sidecar, "secrets");
                let token = find(secrets, "name", &"OUTRIGGER_JOIN_TOKEN".into()).is_some();
                let file = self.had("OUTRIGGER_JOIN_TOKEN_FILE").is_some();
                if !token && !file && self.had("OUTRIGGER_ATTEST").is_none() {
                    let reason = "or --attest-region is needed: by what is the proxy to prove who it is?";
                    self.refuse("--join-token-secret", reason);
                    return None;
                }
                Join::Kept
            }
        };
        if matches!(join, Join::Secret(_)) && text(self.task, "executionRoleArn").is_empty() {
            let path = self.definition.at("executionRoleArn");
            self.refuse(path, "is needed: with this role ECS reads the secret with the join token");
        }
        if matches!(join, Join::Role { .. }) && text(self.task, "taskRoleArn").is_empty() {
            let path = self.definition.at("taskRoleArn");
            self.refuse(path, "is needed: this role is what the proxy proves itself by");
        }
        Some(join)
    }

    fn image(&mut self) -> String {
        let had = self.sidecar["image"].as_str().map(str::to_owned);
        let image = self.options.image.clone().or(had).unwrap_or_else(|| IMAGE.to_owned());
        if !image.contains('/') {
            self.notes.push(format!(
                "image {image} names no registry: it must be on every host already, or be pulled from Docker Hub; give --image"
            ));
        }
        image
    }

    fn trust_bundle(&self) -> String {
        let given = self.options.trust_bundle.clone().or_else(|| self.had("OUTRIGGER_TRUST_BUNDLE"));
        given.unwrap_or_else(|| format!("{TRUST_DIR}/trust-bundle.pem"))
    }
}

/// Who a workload is: as given, else by the labels of its container, else by the family of its tasks.
pub(super) fn names(
    task: &Value,
    definition: &Definition,
    given: Option<String>,
    refusals: &mut Vec<Refusal>,
    notes: &mut Vec<String>,
) -> Names {
    let labels = &task["containerDefinitions"][definition.app]["dockerLabels"];
    let label = |key: &str| {
        labels.get(format!("outrigger.io/{key}")).and_then(Value::as_str).map(|text| text.trim().to_owned())
    };
    let path = |key: &str| definition.at_app(&format!("dockerLabels[\"outrigger.io/{key}\"]"));
    let (full, at) = match (given, label("service")) {
        (Some(given), _) => (given, "--service".to_owned()),
        (None, Some(labelled)) => (labelled, path("service")),
        (None, None) => {
            let family = text(task, "family").to_owned();
            notes.push(format!(
                "the service is named `{family}`, as the family of the tasks; --service names another"
            ));
            (family, "--service".to_owned())
        }
    };
    let (service, in_name) = match full.split_once('.') {
        Some((service, namespace)) => (service.to_owned(), Some(namespace.to_owned())),
        None => (full, None),
    };
    let namespace = in_name.or_else(|| label("namespace")).unwrap_or_else(|| "default".to_owned());
    let account = label("service-account").unwrap_or_else(|| service.clone());
    for (what, value, at) in [
        ("service", &service, at.clone()),
        ("namespace", &namespace, at),
        ("service account", &account, path("service-account")),
    ] {
        if !is_label(value) {
            refusals.push(Refusal::new(at, format!("{what} `{value}` must be a DNS label")));
        }
    }
    Names { service, namespace, account, version: label("version").unwrap_or_default() }
}

/// The application's ports: as given, else by its labels, else its TCP mappings.
pub(super) fn ports(
    task: &Value,
    definition: &Definition,
    options: &Options,
    refusals: &mut Vec<Refusal>,
    notes: &mut Vec<String>,
) -> Vec<Port> {
    let app = &task["containerDefinitions"][definition.app];
    let mut ports = options.ports.clone();
    if ports.is_empty() {
        for (key, value) in app["dockerLabels"].as_object().into_iter().flatten() {
            let Some(name) = key.strip_prefix("outrigger.io/port.") else { continue };
            match Port::declared(name, value.as_str().unwrap_or_default()) {
                Ok(port) => ports.push(port),
                Err(reason) => {
                    refusals
                        .push(Refusal::new(definition.at_app(&format!("dockerLabels[\"{key}\"]")), reason));
                }
            }
        }
    }
    if ports.is_empty() {
        ports = mapped(app, notes);
    }
    for (i, port) in ports.iter().enumerate() {
        for other in &ports[..i] {
            if other.name == port.name || other.number == port.number {
                let reason =
                    format!("two ports are named `{}` or have the number {}", port.name, port.number);
                refusals.push(Refusal::new("--port", reason));
            }
        }
    }
    if ports.len() > PORTS_MAX {
        refusals
            .push(Refusal::new("--port", format!("{} ports; at most {PORTS_MAX} are allowed", ports.len())));
    }
    ports
}

fn mapped(app: &Value, notes: &mut Vec<String>) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for mapping in list(app, "portMappings") {
        let container = port(mapping, "containerPort");
        if container == 0 || text(mapping, "protocol") == "udp" {
            notes.push(format!("a port mapping of the application is left alone: {mapping}"));
            continue;
        }
        if ports.iter().any(|known| known.container == container) {
            continue;
        }
        let protocol = match text(mapping, "appProtocol") {
            known @ ("http" | "http2" | "grpc") => known,
            _ => "tcp",
        };
        let named = text(mapping, "name");
        let free = is_label(named) && ports.iter().all(|known| known.name != named);
        let name = if free { named.to_owned() } else { format!("{protocol}-{container}") };
        ports.push(Port { name, number: container, container, protocol: protocol.to_owned() });
    }
    if let Some(opaque) = ports.iter().find(|port| port.protocol == "tcp") {
        notes.push(format!(
            "port {} is taken as opaque TCP: no routes, retries or policies by path; `--port NAME={}/http` says otherwise",
            opaque.container, opaque.container
        ));
    }
    ports
}

/// A reference to the proxy's container in a list of links.
pub(super) fn is_link_to_sidecar(link: &str) -> bool {
    link.split(':').next() == Some(SIDECAR)
}
