//! What a node may see: services, and rules about them, of its own namespace and of those that export to it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrigger_traffic::config::HashPolicy;

use crate::inventory::{Inventory, Service};
use crate::name;
use crate::node::{Flavour, Notice, ProxyNode};
use crate::resource::destination_rule::{DestinationRule, Settings as RuleSettings, Subset};
use crate::resource::virtual_service::{Destination, MESH, VirtualService};
use crate::resource::{Object, Spec};
use crate::world::World;

/// Resources found by the host they are about; made once for a world.
#[derive(Debug, Default)]
pub struct Index {
    /// DestinationRules by canonical host or pattern.
    rules: BTreeMap<String, Vec<Arc<Object>>>,
    /// VirtualServices with their canonical hosts, in the order in which they hold.
    virtual_services: Vec<(Arc<Object>, Vec<String>)>,
}

impl Index {
    /// Indexes a world.
    pub fn of(world: &World, inventory: &Inventory) -> Self {
        let mut index = Self::default();
        for object in &world.resources {
            let namespace = &object.metadata.namespace;
            match &object.spec {
                Spec::DestinationRule(rule) => {
                    let host = canonical(world, inventory, &rule.host, namespace);
                    index.rules.entry(host).or_default().push(Arc::clone(object));
                }
                Spec::VirtualService(service) => {
                    let hosts =
                        service.hosts.iter().map(|h| canonical(world, inventory, h, namespace)).collect();
                    index.virtual_services.push((Arc::clone(object), hosts));
                }
                _ => {}
            }
        }
        let key = |o: &Arc<Object>| (o.metadata.namespace.clone(), o.metadata.name.clone());
        for rules in index.rules.values_mut() {
            rules.sort_by_key(key);
        }
        index.virtual_services.sort_by_key(|(object, _)| key(object));
        index
    }
}

/// The full name of a host as written in a resource of some namespace.
///
/// A name without dots is the namespace's own service. `service.namespace` is one where such a service exists, and a name
/// in DNS otherwise. Patterns stay as they are.
pub fn canonical(world: &World, inventory: &Inventory, host: &str, namespace: &str) -> String {
    let settings = &world.settings;
    if host.contains('*') {
        return host.to_owned();
    }
    if !host.contains('.') {
        let full = name::service_host(host, namespace, &settings.mesh_domain);
        let entry = inventory.services.contains_key(host) && !inventory.services.contains_key(&full);
        return if entry { host.to_owned() } else { full };
    }
    if inventory.services.contains_key(host) {
        return host.to_owned();
    }
    if let Some((service, namespace)) = name::kubernetes_parts(host) {
        return name::service_host(service, namespace, &settings.mesh_domain);
    }
    match host.split_once('.') {
        Some((service, namespace)) if !namespace.contains('.') => {
            let full = name::service_host(service, namespace, &settings.mesh_domain);
            if inventory.services.contains_key(&full) { full } else { host.to_owned() }
        }
        _ => host.to_owned(),
    }
}

/// Host, port and subset of a cluster that is needed.
type Needed = (String, u16, Option<String>);

/// A world as one node sees it.
pub struct Scope<'a> {
    /// All of it.
    pub world: &'a World,
    /// The node.
    pub node: &'a ProxyNode,
    inventory: &'a Inventory,
    index: &'a Index,
    notices: RefCell<BTreeSet<Notice>>,
    used: RefCell<BTreeSet<Needed>>,
}

impl<'a> Scope<'a> {
    /// The view of `node`.
    pub fn new(world: &'a World, inventory: &'a Inventory, index: &'a Index, node: &'a ProxyNode) -> Self {
        Self { world, node, inventory, index, notices: RefCell::default(), used: RefCell::default() }
    }

    /// Tells the operator something about a resource.
    pub fn notice(&self, resource: impl Into<String>, text: impl Into<String>) {
        self.notices.borrow_mut().insert(Notice { resource: resource.into(), text: text.into() });
    }

    /// What was told, in order.
    pub fn into_notices(self) -> Vec<Notice> {
        self.notices.into_inner().into_iter().collect()
    }

    /// The clusters that routes named so far: host, port, subset.
    pub fn used(&self) -> BTreeSet<Needed> {
        self.used.borrow().clone()
    }

    /// Notes that a cluster is needed.
    pub fn need(&self, host: &str, port: u16, subset: Option<&str>) {
        self.used.borrow_mut().insert((host.to_owned(), port, subset.map(str::to_owned)));
    }

    fn is_visible(&self, service: &Service) -> bool {
        service.export_to.is_visible(&service.namespace, &self.node.namespace)
    }

    /// Among services of one host: the node's own namespace's, else the first that is exported to it.
    fn choose(&self, services: &'a [Service]) -> Option<&'a Service> {
        let own = services.iter().find(|s| s.namespace == self.node.namespace && self.is_visible(s));
        own.or_else(|| services.iter().find(|s| self.is_visible(s)))
    }

    /// What the name of a service resolves to where connections are redirected.
    pub fn virtual_ip(&self, host: &str) -> Option<std::net::Ipv4Addr> {
        self.inventory.virtual_ips.of(host)
    }

    /// Every service the node may see, by host.
    pub fn services(&self) -> impl Iterator<Item = &'a Service> {
        self.inventory.services.values().filter_map(|services| self.choose(services))
    }

    /// Every service there is, seen or not: for what a node is itself an instance of.
    pub fn all_services(&self) -> impl Iterator<Item = &'a Service> {
        self.inventory.services.values().flatten()
    }

    /// The service of a host, if the node may see it.
    pub fn service(&self, host: &str) -> Option<&'a Service> {
        self.inventory.services.get(host).and_then(|services| self.choose(services))
    }

    /// The full name of a host written in a resource of `namespace`.
    pub fn canonical(&self, host: &str, namespace: &str) -> String {
        canonical(self.world, self.inventory, host, namespace)
    }

    /// The rule for calls to a service: of the caller's namespace, else of the service's, else of the root namespace;
    /// among those of a namespace the one with the most specific host.
    pub fn rule(&self, service: &Service) -> Option<(&'a Object, &'a DestinationRule)> {
        let viewer = &self.node.namespace;
        for namespace in [viewer, &service.namespace, &self.world.settings.root_namespace] {
            let mut host = service.host.as_str();
            let mut pattern = host.to_owned();
            loop {
                let objects = self.index.rules.get(&pattern).map(Vec::as_slice).unwrap_or_default();
                for object in objects.iter().filter(|o| o.metadata.namespace == *namespace) {
                    if let Spec::DestinationRule(rule) = &object.spec
                        && rule.export_to.is_visible(namespace, viewer)
                    {
                        return Some((object, rule));
                    }
                }
                // a.b.c, then *.b.c, then *.c, then *.
                match host.split_once('.') {
                    Some((_, rest)) => {
                        host = rest;
                        pattern = format!("*.{rest}");
                    }
                    None if pattern != "*" => pattern = "*".to_owned(),
                    None => break,
                }
            }
        }
        None
    }

    /// The VirtualServices that hold at a gateway (`namespace/name`, or [`MESH`]), with those of their hosts that overlap
    /// one of `hosts`, in the order in which they hold: the node's namespace first.
    pub fn virtual_services(&self, gateway: &str) -> Vec<(&'a Object, &'a VirtualService, &'a [String])> {
        let viewer = &self.node.namespace;
        let mut found: Vec<_> = Vec::new();
        for (object, hosts) in &self.index.virtual_services {
            let Spec::VirtualService(service) = &object.spec else { continue };
            let namespace = &object.metadata.namespace;
            let bound = service.gateways.iter().any(|g| gateway_name(g, namespace) == gateway);
            if bound && service.export_to.is_visible(namespace, viewer) {
                found.push((&**object, service, hosts.as_slice()));
            }
        }
        found.sort_by_key(|(object, ..)| object.metadata.namespace != *viewer);
        found
    }

    /// The cluster a destination means, as written in `object`, for traffic that came for `port`.
    pub fn cluster(&self, object: &Object, destination: &Destination, port: u16) -> String {
        let host = self.canonical(&destination.host, &object.metadata.namespace);
        let subset = destination.subset.as_deref();
        let Some(service) = self.service(&host) else {
            self.notice(
                object.label(),
                format!(
                    "no service {host:?} is known to namespace {:?}: its share is answered with 503",
                    self.node.namespace
                ),
            );
            return name::outbound_cluster(&host, destination.port.unwrap_or(port), subset);
        };
        let single = match service.ports.keys().collect::<Vec<_>>().as_slice() {
            [only] => Some(**only),
            _ => None,
        };
        let port = destination.port.or(single).unwrap_or(port);
        if !service.ports.contains_key(&port) {
            self.notice(
                object.label(),
                format!("service {host:?} has no port {port}: requests to it are answered with 503"),
            );
        }
        if let Some(subset) = subset
            && self.subset(service, subset).is_none()
        {
            self.notice(
                object.label(),
                format!(
                    "no DestinationRule defines subset {subset:?} of {host:?}: its share is answered with 503"
                ),
            );
        }
        self.need(&host, port, subset);
        name::outbound_cluster(&host, port, subset)
    }

    /// What of a request decides about its host at these destinations. Each once: shares of one service say the same.
    pub fn hash_policies<'d>(
        &self,
        object: &Object,
        destinations: impl Iterator<Item = &'d Destination>,
        port: u16,
    ) -> Vec<HashPolicy> {
        let mut all = Vec::new();
        for destination in destinations {
            let host = self.canonical(&destination.host, &object.metadata.namespace);
            let Some(service) = self.service(&host) else { continue };
            let single = match service.ports.keys().collect::<Vec<_>>().as_slice() {
                [only] => Some(**only),
                _ => None,
            };
            let port = destination.port.or(single).unwrap_or(port);
            let subset = destination.subset.as_deref().and_then(|name| self.subset(service, name));
            if let Some(policy) = self.hash_policy(service, port, subset)
                && !all.contains(&policy)
            {
                all.push(policy);
            }
        }
        all
    }

    /// The same at one service. gRPC libraries balance in turn.
    pub fn hash_policy(&self, service: &Service, port: u16, subset: Option<&Subset>) -> Option<HashPolicy> {
        let hash =
            self.settings(service, port, subset).hash.filter(|_| self.node.flavour != Flavour::Grpc)?;
        Some(HashPolicy { source: hash.source, terminal: false })
    }

    /// A subset of a service.
    pub fn subset(&self, service: &Service, name: &str) -> Option<&'a Subset> {
        self.rule(service).and_then(|(_, rule)| rule.subset(name))
    }

    /// The settings for a port of a service, or of a subset.
    pub fn settings(&self, service: &Service, port: u16, subset: Option<&Subset>) -> RuleSettings {
        let Some((_, rule)) = self.rule(service) else { return RuleSettings::default() };
        let general = rule.policy.for_port(port);
        subset.map_or_else(|| general.clone(), |subset| subset.policy.for_port(port).or(general))
    }
}

/// A gateway's name as written in a resource of `namespace`, in full.
pub fn gateway_name(written: &str, namespace: &str) -> String {
    if written == MESH || written.contains('/') {
        written.to_owned()
    } else {
        format!("{namespace}/{written}")
    }
}
