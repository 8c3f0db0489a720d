//! The file that names the discovery sources (`--sources`): YAML, every field checked, unknown ones refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::workload::{Protocol, WEIGHT_MAX};
use crate::identity::spiffe::is_label;

/// Kinds of sources, as in status and metrics.
pub const ECS: &str = "ecs";
/// See [`ECS`].
pub const KUBERNETES: &str = "kubernetes";
/// See [`ECS`].
pub const DNS: &str = "dns";
/// See [`ECS`].
pub const FILE: &str = "file";

/// Most sources.
pub const SOURCES_MAX: usize = 64;

/// Most entries of a list in the file.
pub const ENTRIES_MAX: usize = 4_096;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Could not be read.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not YAML, or a field that is not known or has a value of the wrong type.
    #[error("sources file: {0}")]
    Syntax(String),
    /// A value that cannot be.
    #[error("{field}: {reason}")]
    Value {
        /// Path of the field.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

/// See the module.
#[derive(Clone, Default, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SourcesFile {
    /// The sources.
    #[serde(default)]
    pub sources: Vec<SourceSettings>,
}

/// One source: a name, and exactly one of the kinds.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SourceSettings {
    /// A DNS label, unique. In status, metrics, and the origin of what it finds.
    pub name: String,
    /// Amazon ECS.
    pub ecs: Option<EcsSettings>,
    /// A Kubernetes cluster.
    pub kubernetes: Option<KubernetesSettings>,
    /// Names in DNS.
    pub dns: Option<DnsSettings>,
    /// A file.
    pub file: Option<FileSettings>,
}

/// Amazon ECS in one region of one account.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EcsSettings {
    /// As in `eu-central-1`.
    pub region: String,
    /// URL to call instead of AWS's own.
    pub endpoint: Option<String>,
    /// PEM file with the roots to trust at `endpoint`. Default: those of the web.
    pub ca_file: Option<PathBuf>,
    /// Clusters, by short name or ARN. Empty: all of the account in the region.
    #[serde(default)]
    pub clusters: Vec<String>,
    /// Namespace of tasks that name none. Default `default`.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Namespaces that tasks may name. Default: only `namespace`.
    #[serde(default)]
    pub namespaces: BTreeSet<String>,
    /// Where tasks are, as `region/zone/sub_zone`: the parts given here hold for all of them; a zone that is not given is
    /// the task's availability zone. Default: the region.
    #[serde(default)]
    pub locality: String,
    /// Seconds between two readings. Default 10.
    #[serde(default = "ten")]
    pub interval_seconds: u64,
    /// Most calls in a second. Default 20, the rate at which AWS lets a cluster be read without end.
    #[serde(default = "twenty")]
    pub calls_per_second: u32,
    /// Tasks without labels of their own, by family.
    #[serde(default)]
    pub services: Vec<EcsRule>,
    /// Addresses of container instances, for tasks in bridge and host mode: by EC2 instance id (or `mi-…`). An attribute
    /// `outrigger.address` of the instance says the same.
    #[serde(default)]
    pub hosts: BTreeMap<String, EcsHost>,
}

/// What a task is when its labels do not say it.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EcsRule {
    /// Family of the task definition.
    pub family: String,
    /// Container of the task. Default: every one.
    pub container: Option<String>,
    /// `SERVICE` or `SERVICE.NAMESPACE`.
    pub service: String,
    /// Default: the service's name.
    pub service_account: Option<String>,
    /// Default: none.
    #[serde(default)]
    pub version: String,
    /// Name → `[NUMBER:]CONTAINER_PORT/PROTOCOL`. Default: the port mappings of the container.
    #[serde(default)]
    pub ports: BTreeMap<String, String>,
}

/// A container instance.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EcsHost {
    /// Where others reach it.
    pub address: IpAddr,
    /// Where it is, `region/zone/sub_zone`. Default: as for other tasks.
    #[serde(default)]
    pub locality: String,
}

/// The issuer of a cluster's service account tokens.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct JwksSettings {
    /// What `iss` of its tokens must be: `--service-account-issuer` of the API server.
    pub issuer: String,
    /// URL of its key set. Absent: `/openid/v1/jwks` of the cluster's API.
    pub uri: Option<String>,
    /// PEM file with the roots to trust at `uri`. Default: those of the web.
    pub ca_file: Option<PathBuf>,
}

/// One Kubernetes cluster.
#[derive(Clone, Default, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KubernetesSettings {
    /// How it is reached. Absent: by the service account of the pod this service runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig. Default: its current one.
    pub context: Option<String>,
    /// Namespaces to take services from. Empty: all.
    #[serde(default)]
    pub namespaces: BTreeSet<String>,
    /// Which services are exported.
    #[serde(default)]
    pub export: Export,
    /// Verify tokens of its service accounts (attestation) with the keys of their issuer. Absent: ask the cluster itself, with a
    /// TokenReview.
    pub tokens: Option<JwksSettings>,
    /// Where its nodes are, `region/zone`; the zone of an endpoint goes before this one. Default: not known.
    #[serde(default)]
    pub locality: String,
}

/// Which services of a cluster are exported.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub enum Export {
    /// Those with the label or annotation `outrigger.io/export: "true"`.
    #[default]
    Labelled,
    /// All but those with `outrigger.io/export: "false"`.
    All,
}

/// Names in DNS.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DnsSettings {
    /// What is asked for.
    pub names: Vec<DnsName>,
    /// Servers to ask. Empty: the host's own.
    #[serde(default)]
    pub servers: Vec<SocketAddr>,
    /// Longest time between two questions for a name, in seconds; a shorter TTL goes before it. Default 30.
    #[serde(default = "thirty")]
    pub interval_seconds: u64,
}

/// A name, and the service its addresses are instances of.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DnsName {
    /// The name.
    pub host: String,
    /// Kind of records. SRV records bring the port of each instance; `port.target` is for address records.
    #[serde(default)]
    pub records: Records,
    /// The service.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// The port callers name.
    pub port: FilePort,
    /// Further labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Where it is, `region/zone/sub_zone`.
    #[serde(default)]
    pub locality: String,
}

/// Kind of records.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Debug)]
pub enum Records {
    /// IPv4 and IPv6 addresses.
    #[default]
    Address,
    /// SRV (RFC 2782): host and port of each instance, its weight, and its priority: only the best counts.
    #[serde(rename = "SRV")]
    Srv,
}

/// A file with workloads.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FileSettings {
    /// Which. It is read again when it changes; replace it in one step (`mv`).
    pub path: PathBuf,
}

/// A port, as files say it.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FilePort {
    /// Unique within the workload. Default: the protocol.
    #[serde(default)]
    pub name: String,
    /// The port callers name.
    pub number: u16,
    /// HTTP, HTTP2, GRPC, TCP or TLS.
    pub protocol: String,
    /// Port of the instance. Default: `number`.
    #[serde(default)]
    pub target: u16,
    /// Whether a proxy of the mesh answers there, so that callers use mesh TLS.
    #[serde(default)]
    pub mesh_tls: bool,
}

/// A file of a [`FileSettings`].
#[derive(Clone, Default, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkloadsFile {
    /// The workloads.
    #[serde(default)]
    pub workloads: Vec<FileWorkload>,
}

/// A workload of a file.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FileWorkload {
    /// Unique within the namespace. Default: service and address.
    #[serde(default)]
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The service it is an instance of.
    pub service: String,
    /// Whose identity it has. Default: that of the service's name.
    #[serde(default)]
    pub service_account: String,
    /// Where others reach it.
    pub address: String,
    /// What it serves.
    pub ports: Vec<FilePort>,
    /// For selectors and subsets.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Where it is, `region/zone/sub_zone`.
    #[serde(default)]
    pub locality: String,
    /// Share relative to its siblings. Default 1.
    #[serde(default)]
    pub weight: u32,
    /// HEALTHY, UNHEALTHY or DRAINING. Default HEALTHY.
    #[serde(default)]
    pub health: String,
}

fn default_namespace() -> String {
    "default".into()
}

fn ten() -> u64 {
    10
}

fn twenty() -> u32 {
    20
}

fn thirty() -> u64 {
    30
}

impl SourcesFile {
    /// Reads and checks the file.
    ///
    /// *Errors*: [`SettingsError`].
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| SettingsError::File { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads and checks a text.
    ///
    /// *Errors*: [`SettingsError`].
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let file: Self =
            serde_saphyr::from_str(text).map_err(|error| SettingsError::Syntax(error.to_string()))?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), SettingsError> {
        ensure(self.sources.len() <= SOURCES_MAX, "sources", || format!("at most {SOURCES_MAX}"))?;
        let mut names = BTreeSet::new();
        for (index, source) in self.sources.iter().enumerate() {
            let at = |field: &str| format!("sources[{index}]{field}");
            ensure(is_label(&source.name), &at(".name"), || "must be a DNS label".into())?;
            ensure(names.insert(&source.name), &at(".name"), || "used twice".into())?;
            let kinds = [
                source.ecs.is_some(),
                source.kubernetes.is_some(),
                source.dns.is_some(),
                source.file.is_some(),
            ];
            let one = kinds.into_iter().filter(|given| *given).count() == 1;
            ensure(one, &at(""), || "exactly one of ecs, kubernetes, dns and file".into())?;
            if let Some(ecs) = &source.ecs {
                ecs.check(&at(".ecs"))?;
            }
            if let Some(kubernetes) = &source.kubernetes {
                if let Some(tokens) = &kubernetes.tokens {
                    tokens.check(&at(".kubernetes.tokens"))?;
                }
                check_locality(&kubernetes.locality, &at(".kubernetes.locality"))?;
                for namespace in &kubernetes.namespaces {
                    ensure(is_label(namespace), &at(".kubernetes.namespaces"), || {
                        "must be DNS labels".into()
                    })?;
                }
            }
            if let Some(dns) = &source.dns {
                dns.check(&at(".dns"))?;
            }
        }
        Ok(())
    }
}

impl JwksSettings {
    fn check(&self, at: &str) -> Result<(), SettingsError> {
        ensure(!self.issuer.is_empty(), &format!("{at}.issuer"), || "required".into())?;
        let (uri, none) = (self.uri.as_deref(), "only with uri");
        ensure(self.ca_file.is_none() || uri.is_some(), &format!("{at}.caFile"), || none.into())?;
        let protected = uri.is_none_or(|uri| {
            // Who can answer in place of the issuer can be anybody.
            uri.starts_with("https://") || uri.starts_with("http://127.0.0.1:")
        });
        ensure(protected, &format!("{at}.uri"), || "must begin with https://".into())
    }
}

impl EcsSettings {
    fn check(&self, at: &str) -> Result<(), SettingsError> {
        let field = |name: &str| format!("{at}.{name}");
        let word = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        ensure(word(&self.region), &field("region"), || "must be a region, as in eu-central-1".into())?;
        ensure((1..=3_600).contains(&self.interval_seconds), &field("intervalSeconds"), || {
            "1 to 3600".into()
        })?;
        ensure((1..=1_000).contains(&self.calls_per_second), &field("callsPerSecond"), || {
            "1 to 1000".into()
        })?;
        ensure(is_label(&self.namespace), &field("namespace"), || "must be a DNS label".into())?;
        for (name, length) in [
            ("clusters", self.clusters.len()),
            ("services", self.services.len()),
            ("hosts", self.hosts.len()),
            ("namespaces", self.namespaces.len()),
        ] {
            ensure(length <= ENTRIES_MAX, &field(name), || format!("at most {ENTRIES_MAX}"))?;
        }
        check_locality(&self.locality, &field("locality"))?;
        for host in self.hosts.values() {
            check_locality(&host.locality, &field("hosts"))?;
        }
        for (index, rule) in self.services.iter().enumerate() {
            for (name, text) in &rule.ports {
                outrigger_member::port::parse(name, text).map_err(|reason| SettingsError::Value {
                    field: format!("{at}.services[{index}].ports.{name}"),
                    reason,
                })?;
            }
        }
        Ok(())
    }

    /// Whether tasks may be of this namespace.
    pub fn allows(&self, namespace: &str) -> bool {
        if self.namespaces.is_empty() {
            namespace == self.namespace
        } else {
            self.namespaces.contains(namespace)
        }
    }

    /// Time between two readings.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds)
    }
}

impl DnsSettings {
    fn check(&self, at: &str) -> Result<(), SettingsError> {
        ensure((1..=3_600).contains(&self.interval_seconds), &format!("{at}.intervalSeconds"), || {
            "1 to 3600".into()
        })?;
        ensure(self.names.len() <= ENTRIES_MAX, &format!("{at}.names"), || format!("at most {ENTRIES_MAX}"))?;
        for (index, name) in self.names.iter().enumerate() {
            let field = |field: &str| format!("{at}.names[{index}].{field}");
            ensure(!name.host.is_empty(), &field("host"), || "required".into())?;
            ensure(is_label(&name.service), &field("service"), || "must be a DNS label".into())?;
            ensure(is_label(&name.namespace), &field("namespace"), || "must be a DNS label".into())?;
            let protocol = Protocol::parse(&name.port.protocol);
            ensure(protocol.is_some(), &field("port.protocol"), || {
                "must be HTTP, HTTP2, GRPC, TCP or TLS".into()
            })?;
            ensure(name.port.number > 0, &field("port.number"), || "required".into())?;
            check_locality(&name.locality, &field("locality"))?;
        }
        Ok(())
    }
}

/// Largest weight a source may give; larger ones are cut to it.
pub fn weight(asked: u32) -> u32 {
    asked.clamp(1, WEIGHT_MAX)
}

fn check_locality(text: &str, field: &str) -> Result<(), SettingsError> {
    ensure(text.split('/').count() <= 3, field, || "region/zone/sub_zone".into())
}

fn ensure(holds: bool, field: &str, reason: impl FnOnce() -> String) -> Result<(), SettingsError> {
    if holds { Ok(()) } else { Err(SettingsError::Value { field: field.to_owned(), reason: reason() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_with_its_defaults() {
        let file = SourcesFile::parse(
            "sources:
- {name: cloud, ecs: {region: eu-central-1, services: [{family: shop, service: b.shop, ports: {http: '80:8080/http'}}], hosts: {i-1: {address: 10.0.0.1, locality: hq/rack7}}}}
- {name: k8s, kubernetes: {export: all, namespaces: [shop]}}
- {name: names, dns: {names: [{host: db.example.com, records: SRV, service: db, namespace: shop, port: {number: 5432, protocol: tcp}}]}}
- {name: list, file: {path: /etc/outrigger/workloads.yaml}}
",
        )
        .unwrap();
        let ecs = file.sources[0].ecs.as_ref().unwrap();
        assert_eq!((ecs.interval_seconds, ecs.calls_per_second, ecs.namespace.as_str()), (10, 20, "default"));
        assert!(ecs.allows("default") && !ecs.allows("shop"));
        assert_eq!(file.sources[1].kubernetes.as_ref().unwrap().export, Export::All);
        assert_eq!(file.sources[2].dns.as_ref().unwrap().names[0].records, Records::Srv);
        assert!(SourcesFile::parse("{}").unwrap().sources.is_empty());
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_name_of_the_field() {
        for (text, field) in [
            ("sources: [{name: A, file: {path: x}}]", "sources[0].name"),
            ("sources: [{name: a, file: {path: x}}, {name: a, file: {path: x}}]", "sources[1].name"),
            ("sources: [{name: a}]", "exactly one"),
            ("sources: [{name: a, file: {path: x}, kubernetes: {}}]", "exactly one"),
            ("sources: [{name: a, file: {path: x, colour: red}}]", "colour"),
            ("sources: [{name: a, ecs: {region: '../x'}}]", "region"),
            ("sources: [{name: a, ecs: {region: r, intervalSeconds: 0}}]", "intervalSeconds"),
            ("sources: [{name: a, ecs: {region: r, callsPerSecond: 1001}}]", "callsPerSecond"),
            (
                "sources: [{name: a, ecs: {region: r, services: [{family: f, service: s, ports: {x: '80'}}]}}]",
                "services[0].ports.x",
            ),
            ("sources: [{name: a, kubernetes: {locality: a/b/c/d}}]", "locality"),
            ("sources: [{name: a, kubernetes: {tokens: {}}}]", "issuer"),
            ("sources: [{name: a, kubernetes: {tokens: {issuer: ''}}}]", "tokens.issuer"),
            (
                "sources: [{name: a, kubernetes: {tokens: {issuer: i, uri: 'http://keys.example'}}}]",
                "tokens.uri",
            ),
            ("sources: [{name: a, kubernetes: {tokens: {issuer: i, caFile: x}}}]", "tokens.caFile"),
            (
                "sources: [{name: a, dns: {names: [{host: h, service: s, namespace: n, port: {number: 1, protocol: smtp}}]}}]",
                "protocol",
            ),
        ] {
            let error = SourcesFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(field), "{text}: {error}");
        }
        let many: String =
            (0..=SOURCES_MAX).map(|i| format!("- {{name: s{i}, file: {{path: x}}}}\n")).collect();
        assert!(SourcesFile::parse(&format!("sources:\n{many}")).is_err());
        let (_, at_limit) = many.split_once('\n').unwrap();
        assert!(SourcesFile::parse(&format!("sources:\n{at_limit}")).is_ok());
    }
}
