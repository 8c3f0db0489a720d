//! Facts joined: services, and the workloads that are their instances.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use outrigger_traffic::config::{EndpointAddress, Locality};

use crate::assemble::security::PeerRules;
use crate::name;
use crate::protocol::Protocol;
use crate::resource::peer_authentication::MtlsMode;
use crate::resource::service_entry::{ExportTo, Location, Resolution};
use crate::resource::{Object, ServiceEntry, Spec, WorkloadEntry};
use crate::vip::VirtualIps;
use crate::world::{EXPORT_TO_LABEL, Health, Settings, Workload, World};

/// Services by host. A host can be declared in several namespaces; which one a node means is for [`crate::scope`].
#[derive(Debug, Default)]
pub struct Inventory {
    /// By host; those of a host by namespace.
    pub services: BTreeMap<String, Vec<Service>>,
    /// What their names resolve to where connections are redirected.
    pub virtual_ips: VirtualIps,
}

/// A named set of instances with ports.
#[derive(Debug)]
pub struct Service {
    /// Its full name.
    pub host: String,
    /// Further names, good for every caller.
    pub aliases: Vec<String>,
    /// The name that callers of the same namespace may use.
    pub short: Option<String>,
    /// Where it belongs.
    pub namespace: String,
    /// Who sees it.
    pub export_to: ExportTo,
    /// Its ports, by number.
    pub ports: BTreeMap<u16, Port>,
    /// How hosts are found.
    pub discovery: Discovery,
    /// Names or identities its operator expects of it.
    pub subject_alt_names: Vec<String>,
    /// Who serves it.
    pub instances: Vec<Instance>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
}

/// How a service's hosts are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// They are known by address.
    Addresses,
    /// Names are resolved; every address counts.
    Dns,
    /// A name is resolved; one address at a time.
    DnsRoundRobin,
}

/// A workload as part of a service.
#[derive(Debug)]
pub struct Instance {
    /// Its name, for logs.
    pub id: String,
    /// For subsets.
    pub labels: BTreeMap<String, String>,
    /// Where it is.
    pub locality: Locality,
    /// Share relative to its siblings.
    pub weight: u32,
    /// As announced.
    pub health: Health,
    /// Its identity, where known.
    pub identity: Option<String>,
    /// Where each port of the service is reached.
    pub ports: BTreeMap<u16, InstancePort>,
    /// The registered workload, where it is one.
    pub workload: Option<Arc<Workload>>,
}

/// Where a port of a service is reached at an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstancePort {
    /// Where.
    pub address: EndpointAddress,
    /// Whether mesh TLS is accepted there.
    pub takes_mesh_tls: bool,
    /// Port of the workload it leads to.
    pub workload_port: u16,
}

struct Facts<'a> {
    world: &'a World,
    peers: PeerRules<'a>,
}

impl Inventory {
    /// Joins the facts of a world.
    pub fn of(world: &World) -> Self {
        Self::with_virtual_ips(world, &VirtualIps::default())
    }

    /// As above; services that had a virtual address in `held` keep it.
    pub fn with_virtual_ips(world: &World, held: &VirtualIps) -> Self {
        let facts = Facts { world, peers: PeerRules::of(world) };
        let mut inventory = Self::default();
        for workload in world.workloads.iter().filter(|w| !w.gateway && !w.service.is_empty()) {
            inventory.add_workload(&facts, workload);
        }
        for object in &world.resources {
            if let Spec::ServiceEntry(entry) = &object.spec {
                inventory.add_entry(&facts, object, entry);
            }
        }
        for services in inventory.services.values_mut() {
            services.sort_by(|a, b| a.namespace.cmp(&b.namespace));
            for service in services {
                service.instances.sort_by(|a, b| a.id.cmp(&b.id));
            }
        }
        inventory.virtual_ips = VirtualIps::assign(inventory.services.keys().map(String::as_str), held);
        inventory
    }

    fn add_workload(&mut self, facts: &Facts<'_>, workload: &Arc<Workload>) {
        let settings = &facts.world.settings;
        let host = name::service_host(&workload.service, &workload.namespace, &settings.mesh_domain);
        let services = self.services.entry(host.clone()).or_default();
        let position = services.iter().position(|s| s.namespace == workload.namespace).unwrap_or_else(|| {
            services.push(Service {
                host,
                aliases: name::aliases(&workload.service, &workload.namespace).to_vec(),
                short: Some(workload.service.clone()),
                namespace: workload.namespace.clone(),
                export_to: ExportTo::All,
                ports: BTreeMap::new(),
                discovery: Discovery::Addresses,
                subject_alt_names: Vec::new(),
                instances: Vec::new(),
            });
            services.len() - 1
        });
        let service = &mut services[position];
        if let Some(text) = workload.labels.get(EXPORT_TO_LABEL) {
            let words: Vec<&str> = text.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
            service.export_to = narrower(&service.export_to, &ExportTo::of(&words), &workload.namespace);
        }
        for port in &workload.ports {
            let known = Port { name: port.name.clone(), protocol: port.protocol };
            service.ports.entry(port.number).or_insert(known);
        }
        let ports = workload
            .ports
            .iter()
            .map(|p| (p.number, reach(facts, workload, p.number)))
            .filter_map(|(n, p)| Some((n, p?)));
        service.instances.push(Instance::of_workload(settings, workload, ports.collect()));
    }

    fn add_entry(&mut self, facts: &Facts<'_>, object: &Object, entry: &ServiceEntry) {
        for host in &entry.hosts {
            let services = self.services.entry(host.clone()).or_default();
            // A host declared twice in a namespace: the first by name holds; `Scope` tells the operator.
            if services.iter().any(|s| s.namespace == object.metadata.namespace) {
                continue;
            }
            services.push(Service {
                host: host.clone(),
                aliases: Vec::new(),
                short: None,
                namespace: object.metadata.namespace.clone(),
                export_to: entry.export_to.clone(),
                ports: entry
                    .ports
                    .iter()
                    .map(|p| (p.number, Port { name: p.name.clone(), protocol: p.protocol }))
                    .collect(),
                discovery: match entry.resolution {
                    Resolution::Static => Discovery::Addresses,
                    Resolution::Dns => Discovery::Dns,
                    Resolution::DnsRoundRobin => Discovery::DnsRoundRobin,
                },
                subject_alt_names: entry.subject_alt_names.clone(),
                instances: entry_instances(facts, object, entry, host),
            });
        }
    }
}

impl Instance {
    fn of_workload(
        settings: &Settings,
        workload: &Arc<Workload>,
        ports: BTreeMap<u16, InstancePort>,
    ) -> Self {
        Self {
            id: workload.instance_id.clone(),
            labels: workload.labels.clone(),
            locality: workload.locality.clone(),
            weight: workload.weight.max(1),
            health: workload.health,
            identity: Some(settings.spiffe_id(&workload.namespace, &workload.service_account)),
            ports,
            workload: Some(Arc::clone(workload)),
        }
    }

    fn of_entry(
        facts: &Facts<'_>,
        namespace: &str,
        id: String,
        entry: &WorkloadEntry,
        service: &ServiceEntry,
    ) -> Self {
        let in_mesh = service.location == Location::MeshInternal && entry.has_proxy();
        let account = Some(&entry.service_account).filter(|account| !account.is_empty());
        let ports = service.ports.iter().filter_map(|port| {
            let number = entry.ports.get(&port.name).copied().unwrap_or(port.target_port);
            let address = endpoint_address(&entry.address, number, service.resolution)?;
            let mode = facts.peers.mode(namespace, &entry.labels, number);
            let takes_mesh_tls = in_mesh && mode != MtlsMode::Disable;
            Some((port.number, InstancePort { address, takes_mesh_tls, workload_port: number }))
        });
        Self {
            id,
            labels: entry.labels.clone(),
            locality: entry.locality.clone(),
            weight: entry.weight.max(1),
            health: Health::Healthy,
            identity: account.map(|account| facts.world.settings.spiffe_id(namespace, account)),
            ports: ports.collect(),
            workload: None,
        }
    }

    /// Whether it has all of some labels.
    pub fn has_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        has_labels(&self.labels, labels)
    }
}

/// Whether `labels` hold all of `wanted`.
pub fn has_labels(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A name cannot be an endpoint's address where names are not resolved.
fn endpoint_address(text: &str, port: u16, resolution: Resolution) -> Option<EndpointAddress> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Some(EndpointAddress::Socket(SocketAddr::new(ip, port))),
        Err(_) if resolution == Resolution::Static => None,
        Err(_) => Some(EndpointAddress::Name(text.to_owned(), port)),
    }
}

/// Where a port of a registered workload is reached from outside.
fn reach(facts: &Facts<'_>, workload: &Workload, number: u16) -> Option<InstancePort> {
    let port = workload.ports.iter().find(|p| p.number == number)?;
    let proxied = port.inbound_port.or(workload.inbound_port);
    let mode = facts.peers.mode(&workload.namespace, &workload.labels, number);
    let target = proxied.unwrap_or(port.target_port);
    Some(InstancePort {
        address: EndpointAddress::Socket(SocketAddr::new(workload.address, target)),
        takes_mesh_tls: proxied.is_some() && mode != MtlsMode::Disable,
        workload_port: number,
    })
}

fn entry_instances(facts: &Facts<'_>, object: &Object, entry: &ServiceEntry, host: &str) -> Vec<Instance> {
    let namespace = &object.metadata.namespace;
    let Some(selector) = &entry.workload_selector else {
        let inline = entry.endpoints.iter().enumerate();
        let mut instances: Vec<Instance> = inline
            .map(|(i, e)| {
                Instance::of_entry(facts, namespace, format!("{}-{i}", object.metadata.name), e, entry)
            })
            .collect();
        if instances.is_empty() && entry.resolution != Resolution::Static {
            let itself = WorkloadEntry { address: host.to_owned(), weight: 1, ..WorkloadEntry::default() };
            instances.push(Instance::of_entry(
                facts,
                namespace,
                object.metadata.name.clone(),
                &itself,
                entry,
            ));
        }
        return instances;
    };
    let mut instances = Vec::new();
    for workload in facts
        .world
        .workloads
        .iter()
        .filter(|w| !w.gateway && w.namespace == *namespace && has_labels(&w.labels, selector))
    {
        // The application's port decides: the entry names it as its target.
        let ports =
            entry.ports.iter().filter_map(|p| Some((p.number, reach(facts, workload, p.target_port)?)));
        let ports: BTreeMap<u16, InstancePort> = ports.collect();
        instances.push(Instance::of_workload(&facts.world.settings, workload, ports));
    }
    for other in facts.world.resources.iter().filter(|o| o.metadata.namespace == *namespace) {
        if let Spec::WorkloadEntry(e) = &other.spec
            && has_labels(&e.labels, selector)
        {
            instances.push(Instance::of_entry(facts, namespace, other.metadata.name.clone(), e, entry));
        }
    }
    instances
}

/// The export that both allow: workloads of a service may disagree while a change rolls out, and what one of them hides
/// must not be shown because of another.
fn narrower(a: &ExportTo, b: &ExportTo, owner: &str) -> ExportTo {
    match (a, b) {
        (ExportTo::Nobody, _) | (_, ExportTo::Nobody) => ExportTo::Nobody,
        (ExportTo::All, other) | (other, ExportTo::All) => other.clone(),
        (ExportTo::Some(a), ExportTo::Some(b)) => {
            let full = |name: &String| if name == "." { owner.to_owned() } else { name.clone() };
            let b: Vec<String> = b.iter().map(full).collect();
            ExportTo::Some(a.iter().map(full).filter(|name| b.contains(name)).collect())
        }
    }
}
