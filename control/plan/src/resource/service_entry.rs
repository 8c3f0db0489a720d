//! `ServiceEntry`: services that do not register themselves, inside or outside the mesh.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::document::{is_host, is_host_pattern};
use super::read::{Fields, Node};
use super::{WorkloadEntry, shape};
use crate::protocol::Protocol;

/// Services under one or more host names.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceEntry {
    /// Names callers use.
    pub hosts: Vec<String>,
    /// Ports callers use.
    pub ports: Vec<ServicePort>,
    /// Whether its workloads have proxies of this mesh.
    pub location: Location,
    /// How its workloads are found.
    pub resolution: Resolution,
    /// Its workloads, unless selected.
    pub endpoints: Vec<WorkloadEntry>,
    /// Labels of its workloads, registered ones and WorkloadEntries of the same namespace.
    pub workload_selector: Option<BTreeMap<String, String>>,
    /// Namespaces that see it.
    pub export_to: ExportTo,
    /// Identities or names its workloads may have.
    pub subject_alt_names: Vec<String>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Unique within the service.
    pub name: String,
    /// Port callers use.
    pub number: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// Port of the workloads where they do not name their own.
    pub target_port: u16,
}

/// `ServiceEntry.Location`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Outside.
    MeshExternal,
    /// Inside.
    MeshInternal,
}

/// `ServiceEntry.Resolution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Addresses as written.
    Static,
    /// Every address of the names.
    Dns,
    /// One address of the name at a time.
    DnsRoundRobin,
}

/// `exportTo`: which namespaces see a resource.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ExportTo {
    /// All; also where nothing is said.
    #[default]
    All,
    /// Those named; `.` is its own.
    Some(Vec<String>),
    /// None, not even its own (`~`).
    Nobody,
}

impl ExportTo {
    /// Whether `viewer` sees a resource of `owner`.
    pub fn is_visible(&self, owner: &str, viewer: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => {
                names.iter().any(|name| if name == "." { viewer == owner } else { name == viewer })
            }
            Self::Nobody => false,
        }
    }

    pub(super) fn read(f: &Fields<'_>) -> Self {
        match f.field("exportTo") {
            None => Self::All,
            Some(node) => {
                let names = node.texts();
                for name in &names {
                    if !(matches!(name.as_str(), "." | "*" | "~") || super::document::is_label(name)) {
                        node.problem(format!(
                            "{name:?} is neither a namespace nor one of \".\", \"*\" and \"~\""
                        ));
                    }
                }
                Self::of(&names)
            }
        }
    }

    /// From the words of the field. An empty list is as none given.
    pub fn of<S: AsRef<str>>(names: &[S]) -> Self {
        let has = |word: &str| names.iter().any(|name| name.as_ref() == word);
        if names.is_empty() || has("*") {
            Self::All
        } else if has("~") {
            Self::Nobody
        } else {
            Self::Some(names.iter().map(|name| name.as_ref().to_owned()).collect())
        }
    }
}

impl ServiceEntry {
    pub(super) fn read(spec: &Node<'_>) -> Option<Self> {
        spec.message(&shape::SERVICE_ENTRY, |f| {
            let hosts = read_hosts(f);
            let locations =
                [("MESH_EXTERNAL", Location::MeshExternal), ("MESH_INTERNAL", Location::MeshInternal)];
            let location =
                f.field("location").and_then(|n| n.word(&locations, &[])).unwrap_or(Location::MeshExternal);
            let resolutions = [
                ("STATIC", Resolution::Static),
                ("DNS", Resolution::Dns),
                ("DNS_ROUND_ROBIN", Resolution::DnsRoundRobin),
            ];
            let resolution = match f.field("resolution") {
                Some(node) => node.word(&resolutions, &["NONE", "DYNAMIC_DNS"]),
                None => {
                    f.problem("resolution", "is required here: NONE, the default, is not supported yet");
                    None
                }
            };
            let resolution = resolution.unwrap_or(Resolution::Static);
            let endpoints: Vec<_> =
                f.list("endpoints").iter().filter_map(|n| WorkloadEntry::read_endpoint(n)).collect();
            let selector = f
                .field("workloadSelector")
                .and_then(|n| n.message(&shape::WORKLOAD_SELECTOR, |f| f.texts_by_key("labels")));
            let entry = Self {
                hosts,
                ports: read_ports(f),
                location,
                resolution,
                endpoints,
                workload_selector: selector,
                export_to: ExportTo::read(f),
                subject_alt_names: f.texts("subjectAltNames"),
            };
            entry.check(f);
            entry
        })
    }

    fn check(&self, f: &Fields<'_>) {
        if self.workload_selector.is_some() && !self.endpoints.is_empty() {
            f.problem("workloadSelector", "cannot be given together with endpoints");
        }
        let is_static = self.resolution == Resolution::Static;
        if !is_static
            && self.endpoints.is_empty()
            && self.workload_selector.is_none()
            && self.hosts.iter().any(|h| h.contains('*'))
        {
            f.problem("hosts", "a name with a wildcard cannot be resolved: give endpoints");
        }
        if self.resolution == Resolution::DnsRoundRobin
            && (self.endpoints.len() > 1 || self.workload_selector.is_some())
        {
            f.problem("endpoints", "DNS_ROUND_ROBIN takes at most one endpoint");
        }
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            if is_static && endpoint.address.parse::<IpAddr>().is_err() {
                f.problem(&format!("endpoints[{i}].address"), "must be an IP address with resolution STATIC");
            }
            for name in endpoint.ports.keys().filter(|name| !self.ports.iter().any(|p| p.name == **name)) {
                f.problem(
                    &format!("endpoints[{i}].ports"),
                    format!("the service has no port named {name:?}"),
                );
            }
        }
    }
}

fn read_hosts(f: &Fields<'_>) -> Vec<String> {
    let hosts = f.required("hosts").map(|n| n.list()).unwrap_or_default();
    let named = |node: &Node<'_>| {
        let host = node.name().to_ascii_lowercase();
        if host == "*" || !is_host_pattern(&host) {
            node.problem(format!("{host:?} is no host name"));
        }
        host
    };
    let hosts: Vec<String> = hosts.iter().map(named).collect();
    if hosts.is_empty() {
        f.problem("hosts", "must name at least one host");
    }
    hosts
}

fn read_ports(f: &Fields<'_>) -> Vec<ServicePort> {
    let nodes = f.list("ports");
    let mut ports: Vec<ServicePort> = Vec::new();
    if nodes.is_empty() {
        f.problem("ports", "must name at least one port");
    }
    for node in nodes {
        let port = node.message(&shape::SERVICE_PORT, |f| {
            let number = f.required("number").map_or(1, |n| n.port());
            ServicePort {
                name: f.required("name").map(|n| n.name()).unwrap_or_default(),
                number,
                protocol: f.field("protocol").map_or(Protocol::Tcp, |n| Protocol::read(&n)),
                target_port: f.field("targetPort").map_or(number, |n| n.port()),
            }
        });
        let Some(port) = port else { continue };
        if ports.iter().any(|p| p.number == port.number || p.name == port.name) {
            node.problem("name and number must be unique within the service");
        }
        ports.push(port);
    }
    ports
}

/// Checks the address of a workload: an IP address or a host name.
pub(super) fn check_address(node: &Node<'_>) -> String {
    let address = node.name();
    if address.starts_with("unix:") {
        node.problem("unix domain sockets are not supported yet");
    } else if address.parse::<IpAddr>().is_err() && !is_host(&address) {
        node.problem(format!("{address:?} is neither an IP address nor a host name"));
    }
    address
}
