//! The agent's settings: one YAML file, every field checked, unknown ones refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use crate::capture::Cidr;

/// Most identities one agent may hold.
pub const IDENTITIES_MAX: usize = 256;

/// Most rules of `services`.
pub const SERVICES_MAX: usize = 1024;

/// See the module. What has no default is required.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AgentConfig {
    /// Control service, `host:port`; several are tried in order.
    pub control: Vec<String>,
    /// Trust roots of the mesh (PEM), for the first contact.
    pub trust_bundle: PathBuf,
    /// Folder for keys and certificates. The sidecars' own folders lie below it and are mounted into them, so when the
    /// agent runs in a container it must have the same path there as on the host.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Docker's socket.
    #[serde(default = "default_docker")]
    pub docker: PathBuf,
    /// Address at which other hosts reach this one. Default: that of the default route's interface.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Where this host is, `region/zone/sub_zone`; each part may be absent.
    #[serde(default)]
    pub locality: String,
    /// ECS clusters whose tasks are looked at, by short name. Empty: all.
    #[serde(default)]
    pub clusters: BTreeSet<String>,
    /// Namespace of a service whose name gives none. Default `default`.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Who the tasks of this host may be.
    #[serde(default)]
    pub identities: Vec<IdentityRule>,
    /// Tasks without labels of their own, by family.
    #[serde(default)]
    pub services: Vec<ServiceRule>,
    /// The proxies that are started.
    #[serde(default)]
    pub sidecar: SidecarConfig,
    /// How traffic reaches them.
    #[serde(default)]
    pub capture: CaptureConfig,
    /// Whether docker's health checks of applications decide about their traffic. Default true.
    #[serde(default = "default_container_health")]
    pub container_health: bool,
    /// Seconds between two looks at everything. Default 120.
    #[serde(default = "default_reconcile")]
    pub reconcile_seconds: u64,
    /// Where metrics and health are served. Default 127.0.0.1:15090.
    #[serde(default = "default_admin")]
    pub admin_address: SocketAddr,
}

/// One identity that tasks of this host may have.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IdentityRule {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// File with the join token that gives it. Needed once; from then on the agent renews what it holds.
    #[serde(default)]
    pub join_token_file: Option<PathBuf>,
    /// Task definition families that may have it. Empty: those whose labels or rule ask for it.
    #[serde(default)]
    pub families: BTreeSet<String>,
}

/// What a task is when its labels do not say it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceRule {
    /// Task definition family.
    pub family: String,
    /// Container of the task. Default: every container of it.
    #[serde(default)]
    pub container: Option<String>,
    /// `SERVICE` or `SERVICE.NAMESPACE`.
    pub service: String,
    /// Default: the service's name.
    #[serde(default)]
    pub service_account: Option<String>,
    /// Default: none.
    #[serde(default)]
    pub version: Option<String>,
    /// Name → `[NUMBER:]CONTAINER_PORT/PROTOCOL`. Default: the ports the container exposes.
    #[serde(default)]
    pub ports: BTreeMap<String, String>,
}

/// The proxies.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SidecarConfig {
    /// Image. Default `outrigger-proxy:latest`.
    pub image: String,
    /// Fetch the image where the host does not have it. Default true.
    pub pull: bool,
    /// User and group it runs as. Its own traffic is told from the application's by it, so no application may have it.
    /// Default 1337.
    pub uid: u32,
    /// Memory limit. Default 128.
    pub memory_mib: u32,
    /// CPU limit. Default 1.
    pub cpus: f64,
    /// Limit of open files; a connection of an application is two. Default: docker's.
    pub open_files: Option<u32>,
    /// Longest time that requests may take to finish when it ends. Default 30.
    pub drain_seconds: u32,
    /// Its log level. Default `info`.
    pub log_level: String,
    /// Further environment; may not set what the agent sets.
    pub env: BTreeMap<String, String>,
    /// First and last port of the host that sidecars of tasks in host mode may take. Default 21000 to 21999.
    pub host_ports: (u16, u16),
}

impl Default for SidecarConfig {
    fn default() -> Self {
        Self {
            image: "outrigger-proxy:latest".into(),
            pull: true,
            uid: 1337,
            memory_mib: 128,
            cpus: 1.0,
            open_files: None,
            drain_seconds: 30,
            log_level: "info".into(),
            env: BTreeMap::new(),
            host_ports: (21_000, 21_999),
        }
    }
}

/// Whether a kind of traffic is redirected.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Redirect {
    /// When the sidecar's image says (label `outrigger.io/captures`) that it can serve it.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What becomes of an application's traffic while its sidecar does not run.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum FailureMode {
    /// It is refused. From its first packet on nothing of it passes by the mesh.
    #[default]
    Closed,
    /// It passes as if there were no mesh.
    Open,
}

/// Which program writes the rules.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum CaptureTool {
    /// `nft`, and `iptables` where that is missing.
    #[default]
    Auto,
    /// `nft`.
    Nft,
    /// `iptables` and `ip6tables`.
    Iptables,
}

/// How traffic reaches the proxies. A task's labels can narrow it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct CaptureConfig {
    /// Off: applications name the proxy's ports themselves. Default true.
    pub enabled: bool,
    /// The sidecar's first inbound port in the application's network namespace; each further declared port gets one
    /// of its own, 100 above the last. Default 15006.
    pub inbound_port: u16,
    /// Its outbound port. Default 15001.
    pub outbound_port: u16,
    /// Its DNS port. Default 15053.
    pub dns_port: u16,
    /// Connections the application makes. Default auto.
    pub outbound: Redirect,
    /// Its DNS questions. Default auto.
    pub dns: Redirect,
    /// While the sidecar does not run. Default closed.
    pub on_failure: FailureMode,
    /// Destinations that are never redirected, beside loopback and the two metadata addresses.
    pub exclude_cidrs: Vec<Cidr>,
    /// Destination ports that are never redirected.
    pub exclude_ports: BTreeSet<u16>,
    /// Who writes the rules. Default auto.
    pub tool: CaptureTool,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            inbound_port: 15_006,
            outbound_port: 15_001,
            dns_port: 15_053,
            outbound: Redirect::Auto,
            dns: Redirect::Auto,
            on_failure: FailureMode::Closed,
            exclude_cidrs: Vec::new(),
            exclude_ports: BTreeSet::new(),
            tool: CaptureTool::Auto,
        }
    }
}

fn default_state_dir() -> PathBuf {
    "/var/lib/outrigger-agent".into()
}

fn default_docker() -> PathBuf {
    "/var/run/docker.sock".into()
}

fn default_namespace() -> String {
    "default".into()
}

fn default_container_health() -> bool {
    true
}

fn default_reconcile() -> u64 {
    120
}

fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 15_090))
}

/// Environment variables of a sidecar that are the agent's alone.
pub const OWN_PREFIX: &str = "OUTRIGGER_";

impl AgentConfig {
    /// Reads and checks the file.
    ///
    /// *Errors*: names the file and the field.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads and checks a text.
    ///
    /// *Errors*: names the field.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = serde_saphyr::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// The name to verify in the control service's certificate: the host part of the first address, as for sidecars.
    pub fn control_name(&self) -> String {
        let first = self.control.first().map_or("", String::as_str);
        first.rsplit_once(':').map_or(first, |(host, _)| host).trim_matches(['[', ']']).to_owned()
    }

    /// The rule of an identity.
    pub fn identity(&self, namespace: &str, service_account: &str) -> Option<&IdentityRule> {
        self.identities.iter().find(|i| i.namespace == namespace && i.service_account == service_account)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.control.is_empty(), "control: at least one address is needed");
        for address in &self.control {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            ensure!(port.is_some(), "control: `{address}` is not host:port");
        }
        ensure!(self.identities.len() <= IDENTITIES_MAX, "identities: at most {IDENTITIES_MAX}");
        ensure!(self.services.len() <= SERVICES_MAX, "services: at most {SERVICES_MAX}");
        if let Some(address) = self.address {
            let bad = address.is_unspecified() || address.is_multicast();
            ensure!(!bad, "address: {address} is none that others can connect to");
        }
        ensure!(outrigger_member::label::is_label(&self.namespace), "namespace: must be a DNS label");
        ensure!(self.locality.split('/').count() <= 3, "locality: region/zone/sub_zone");
        for (index, rule) in self.identities.iter().enumerate() {
            for (field, value) in [("namespace", &rule.namespace), ("serviceAccount", &rule.service_account)]
            {
                ensure!(
                    outrigger_member::label::is_label(value),
                    "identities[{index}].{field}: must be a DNS label"
                );
            }
        }
        for (index, rule) in self.services.iter().enumerate() {
            ensure!(!rule.family.is_empty(), "services[{index}].family: required");
            for (name, text) in &rule.ports {
                outrigger_member::port::parse(name, text)
                    .map_err(|reason| anyhow::anyhow!("services[{index}].ports.{name}: {reason}"))?;
            }
        }
        ensure!(self.reconcile_seconds >= 5, "reconcileSeconds: at least 5");
        self.sidecar.check()?;
        self.capture.check()
    }
}

impl SidecarConfig {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.image.is_empty(), "sidecar.image: required");
        ensure!(self.uid > 0, "sidecar.uid: must not be root");
        ensure!(self.memory_mib >= 16, "sidecar.memoryMib: at least 16");
        ensure!((0.05..=64.0).contains(&self.cpus), "sidecar.cpus: 0.05 to 64");
        ensure!(self.open_files.is_none_or(|files| files >= 256), "sidecar.openFiles: at least 256");
        ensure!((1..=3600).contains(&self.drain_seconds), "sidecar.drainSeconds: 1 to 3600");
        ensure!(self.host_ports.0 >= 1024, "sidecar.hostPorts: from 1024 on");
        ensure!(self.host_ports.0 < self.host_ports.1, "sidecar.hostPorts: first, last");
        if let Some(name) = self.env.keys().find(|name| name.starts_with(OWN_PREFIX)) {
            bail!("sidecar.env.{name}: names with {OWN_PREFIX} are the agent's to set");
        }
        Ok(())
    }
}

impl CaptureConfig {
    fn check(&self) -> anyhow::Result<()> {
        let ports = BTreeSet::from([self.inbound_port, self.outbound_port, self.dns_port]);
        ensure!(ports.len() == 3, "capture: inboundPort, outboundPort and dnsPort must differ");
        ensure!(!ports.contains(&0), "capture: ports must not be 0");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "control: [\"10.0.0.5:15012\"]\ntrustBundle: /etc/outrigger/trust-bundle.pem\n";

    #[test]
    fn smallest_file_has_defaults() {
        let config = AgentConfig::parse(LEAST).unwrap();
        assert_eq!(config.control_name(), "10.0.0.5");
        assert_eq!((config.sidecar.uid, config.capture.inbound_port), (1337, 15_006));
        assert_eq!(config.capture.on_failure, FailureMode::Closed);
    }

    #[test]
    fn full_file_is_read() {
        let text = format!(
            "{LEAST}address: 10.0.0.7\nlocality: hq/rack7\nclusters: [prod]\nidentities:\n- {{namespace: shop, serviceAccount: b, joinTokenFile: /x, families: [shop-b]}}\nservices:\n- {{family: shop-b, container: app, service: b.shop, ports: {{http: 80:8080/http}}}}\nsidecar: {{uid: 2000, cpus: 0.5, hostPorts: [30000, 30100]}}\ncapture: {{outbound: on, onFailure: open, excludeCidrs: [10.9.0.0/16], excludePorts: [3306], tool: iptables}}\n"
        );
        let config = AgentConfig::parse(&text).unwrap();
        assert!(config.identity("shop", "b").is_some_and(|i| i.families.contains("shop-b")));
        assert_eq!(config.capture.tool, CaptureTool::Iptables);
        assert_eq!(config.sidecar.host_ports, (30_000, 30_100));
    }

    #[test]
    fn lists_have_limits() {
        let identities = |count: usize| {
            let one = "- {namespace: a, serviceAccount: b}\n".repeat(count);
            AgentConfig::parse(&format!("{LEAST}identities:\n{one}"))
        };
        assert!(identities(IDENTITIES_MAX).is_ok() && identities(IDENTITIES_MAX + 1).is_err());
        let services = |count: usize| {
            let one = "- {family: f, service: b}\n".repeat(count);
            AgentConfig::parse(&format!("{LEAST}services:\n{one}"))
        };
        assert!(services(SERVICES_MAX).is_ok() && services(SERVICES_MAX + 1).is_err());
    }

    #[test]
    fn wrong_value_is_refused_by_its_name() {
        for (text, name) in [
            ("control: []\ntrustBundle: x\n".to_owned(), "control"),
            ("control: [nowhere]\ntrustBundle: x\n".to_owned(), "control"),
            (format!("{LEAST}colour: red\n"), "colour"),
            (format!("{LEAST}address: 0.0.0.0\n"), "address"),
            (format!("{LEAST}locality: a/b/c/d\n"), "locality"),
            (format!("{LEAST}namespace: A_B\n"), "namespace"),
            (format!("{LEAST}sidecar: {{uid: 0}}\n"), "sidecar.uid"),
            (format!("{LEAST}sidecar: {{env: {{OUTRIGGER_CONTROL: x}}}}\n"), "sidecar.env.OUTRIGGER_CONTROL"),
            (format!("{LEAST}sidecar: {{hostPorts: [30000, 30000]}}\n"), "sidecar.hostPorts"),
            (format!("{LEAST}capture: {{dnsPort: 15001}}\n"), "capture"),
            (format!("{LEAST}capture: {{excludeCidrs: [10.0.0.0/33]}}\n"), "10.0.0.0/33"),
            (
                format!("{LEAST}services: [{{family: f, service: b, ports: {{http: 80/smtp}}}}]\n"),
                "services[0].ports.http",
            ),
            (format!("{LEAST}reconcileSeconds: 4\n"), "reconcileSeconds"),
        ] {
            let error = format!("{:#}", AgentConfig::parse(&text).expect_err(&text));
            assert!(error.contains(name), "{error} does not name {name}");
        }
    }
}
