//! The product's planner: Istio's API as `outrigger-plan` reads it and plans for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_plan::resource::Spec;
use outrigger_plan::{NodeConfig, NodeKind, Object, ProxyNode, Settings, VirtualIps};
use outrigger_traffic::config::Locality;
use serde_json::Value;

use super::planner::{Parsed, Plan, Planner, Problem};
use super::virtual_ips::VirtualIpKeeper;
use super::world::{Resource, World};
use crate::source::{Health, Protocol, Workload};
use crate::store::{Key, SharedStore, StoreError};

/// What a server adds to metadata and a writer's file need not have.
const SERVER_METADATA: [&str; 4] = ["resourceVersion", "generation", "creationTimestamp", "uid"];

/// Resources as they were stored, and as they were read.
type Read = (Arc<BTreeMap<Key, Arc<Resource>>>, Vec<Arc<Object>>);

/// See the module.
pub struct IstioPlanner {
    settings: Arc<Settings>,
    /// The last reading: a change of workloads does not read all resources again.
    last: Mutex<Option<Read>>,
    /// The virtual addresses given so far.
    virtual_ips: Mutex<VirtualIps>,
    /// Where those are kept that do not follow from their names.
    keeper: Option<VirtualIpKeeper>,
}

impl IstioPlanner {
    /// Plans with these settings.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            last: Mutex::new(None),
            virtual_ips: Mutex::default(),
            keeper: None,
        }
    }

    /// Plans with these settings, and gives names the virtual addresses they had in an earlier run.
    ///
    /// *Errors*: the store's.
    pub async fn remembering(settings: Settings, store: SharedStore) -> Result<Self, StoreError> {
        let (keeper, held) = VirtualIpKeeper::open(store).await?;
        Ok(Self { virtual_ips: Mutex::new(held), keeper: Some(keeper), ..Self::new(settings) })
    }

    fn read(&self, world: &World) -> Result<Vec<Arc<Object>>, Vec<Problem>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((resources, objects)) = &*last
            && Arc::ptr_eq(resources, &world.resources)
        {
            return Ok(objects.clone());
        }
        let (mut objects, mut problems) = (Vec::with_capacity(world.resources.len()), Vec::new());
        for resource in world.resources.values() {
            match Object::from_value(resource.object.clone()) {
                Ok(object) => objects.push(Arc::new(object)),
                Err(errors) => problems.extend(errors.into_iter().map(Problem::from)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        *last = Some((Arc::clone(&world.resources), objects.clone()));
        Ok(objects)
    }
}

impl Planner for IstioPlanner {
    fn parse(&self, text: &str) -> Result<Vec<Parsed>, Vec<Problem>> {
        let (mut parsed, mut problems) = (Vec::new(), Vec::new());
        for document in outrigger_plan::parse_documents(text) {
            match document
                .map_err(|errors| errors.into_iter().map(Problem::from).collect())
                .and_then(stored_form)
            {
                Ok(resource) => parsed.push(resource),
                Err(found) => problems.extend::<Vec<Problem>>(found),
            }
        }
        if parsed.is_empty() && problems.is_empty() {
            problems.push(problem(String::new(), "", "there is no resource in it"));
        }
        if problems.is_empty() { Ok(parsed) } else { Err(problems) }
    }

    fn prepare(&self, world: &World) -> Result<Arc<dyn Plan>, Vec<Problem>> {
        let workloads: Vec<_> = world.workloads.iter().map(|workload| Arc::new(planned(workload))).collect();
        let with_node = workloads.iter().filter(|workload| !workload.node_id.is_empty());
        let by_node = with_node.map(|workload| (holder(workload), Arc::clone(workload))).collect();
        let resources = self.read(world)?;
        let world = outrigger_plan::World { resources, workloads, settings: Arc::clone(&self.settings) };
        // Held over the planning, so that of two worlds at a time the second sees what the first gave away.
        let mut held = self.virtual_ips.lock().unwrap_or_else(PoisonError::into_inner);
        let planner = outrigger_plan::Planner::with_virtual_ips(world, &held);
        if planner.inventory().virtual_ips != *held {
            held.clone_from(&planner.inventory().virtual_ips);
            if let Some(keeper) = &self.keeper {
                keeper.keep(&held);
            }
        }
        Ok(Arc::new(IstioPlan { planner, by_node }))
    }

    fn stand_ins(&self, world: &World) -> Vec<ProxyNode> {
        let registered = world.workloads.iter().filter(|workload| !workload.node_id.is_empty());
        let mut nodes: Vec<ProxyNode> = registered
            .map(|workload| {
                let kind = if workload.gateway { NodeKind::Gateway } else { NodeKind::Sidecar };
                ProxyNode { kind, ..ProxyNode::sidecar(Arc::new(planned(workload))) }
            })
            .collect();
        let namespaces: BTreeSet<&str> = world.resources.keys().map(|key| key.namespace.as_str()).collect();
        nodes.extend(namespaces.into_iter().map(|namespace| {
            let id = format!("any sidecar in {namespace}");
            ProxyNode::without_workload(id, NodeKind::Sidecar, namespace, "default")
        }));
        for object in self.read(world).unwrap_or_default() {
            if let Spec::Gateway(gateway) = &object.spec {
                let id = format!("any proxy selected by {}", object.label());
                let namespace = object.metadata.namespace.clone();
                let node = ProxyNode::without_workload(id, NodeKind::Gateway, namespace, "default");
                nodes.push(ProxyNode { labels: gateway.selector.clone(), ..node });
            }
        }
        nodes
    }
}

struct IstioPlan {
    planner: outrigger_plan::Planner,
    by_node: HashMap<Holder, Arc<outrigger_plan::Workload>>,
}

/// Namespace, service account and node id. A node id is only what somebody says: alone it would let any member of the
/// mesh take another's workload away from its proxy by registering under the other's node id.
type Holder = (String, String, String);

fn holder(workload: &outrigger_plan::Workload) -> Holder {
    (workload.namespace.clone(), workload.service_account.clone(), workload.node_id.clone())
}

impl Plan for IstioPlan {
    fn assemble(&self, node: &ProxyNode) -> NodeConfig {
        self.planner.assemble(&self.with_workload(node))
    }

    fn check(&self, config: &NodeConfig) -> Result<(), Vec<Problem>> {
        outrigger_plan::check::check(&config.config)
            .map_err(|errors| errors.into_iter().map(Problem::from).collect())
    }
}

impl IstioPlan {
    /// The node with the workload that registered under its node id and has its identity.
    fn with_workload(&self, node: &ProxyNode) -> ProxyNode {
        let asked = (node.namespace.clone(), node.service_account.clone(), node.id.clone());
        let workload = self.by_node.get(&asked);
        let mut node = node.clone();
        if let Some(workload) = workload {
            node.labels = workload.labels.clone();
            if workload.gateway {
                node.kind = NodeKind::Gateway;
            }
            node.workload = Some(Arc::clone(workload));
        }
        node
    }
}

/// A resource as it is stored: without what only a server knows.
fn stored_form(object: Object) -> Result<Parsed, Vec<Problem>> {
    let resource_version = match object.metadata.resource_version.as_deref() {
        None | Some("") => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| {
            let reason = "is not a version this service gave out";
            vec![problem(object.label(), "metadata.resourceVersion", reason)]
        })?),
    };
    let key = Key::new(object.kind.name(), &object.metadata.namespace, &object.metadata.name);
    let mut value = object.value;
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in SERVER_METADATA {
            metadata.shift_remove(field);
        }
    }
    Ok(Parsed { key, object: value, resource_version })
}

fn problem(resource: String, path: &str, reason: &str) -> Problem {
    Problem { resource, path: path.to_owned(), reason: reason.to_owned(), proxy: String::new() }
}

/// A registered workload as the planner knows it.
fn planned(workload: &Workload) -> outrigger_plan::Workload {
    let port = |port: &crate::source::Port| outrigger_plan::WorkloadPort {
        name: port.name.clone(),
        number: port.number,
        protocol: match port.protocol {
            Protocol::Http => outrigger_plan::protocol::Protocol::Http,
            Protocol::Http2 => outrigger_plan::protocol::Protocol::Http2,
            Protocol::Grpc => outrigger_plan::protocol::Protocol::Grpc,
            Protocol::Tcp => outrigger_plan::protocol::Protocol::Tcp,
            Protocol::Tls => outrigger_plan::protocol::Protocol::Tls,
        },
        target_address: port.target_address,
        target_port: port.target_port,
        inbound_port: port.inbound_port,
    };
    outrigger_plan::Workload {
        instance_id: workload.instance_id.clone(),
        namespace: workload.namespace.clone(),
        service_account: workload.service_account.clone(),
        service: workload.service.clone(),
        labels: workload.labels.clone(),
        address: workload.address,
        ports: workload.ports.iter().map(port).collect(),
        node_id: workload.node_id.clone(),
        locality: Locality {
            region: workload.locality.region.clone(),
            zone: workload.locality.zone.clone(),
            sub_zone: workload.locality.sub_zone.clone(),
        },
        inbound_port: workload.inbound_port,
        outbound_port: workload.outbound_port,
        outbound_address: workload.outbound_address,
        weight: workload.weight,
        health: match workload.health {
            Health::Healthy => outrigger_plan::Health::Healthy,
            Health::Unhealthy => outrigger_plan::Health::Unhealthy,
            Health::Draining => outrigger_plan::Health::Draining,
        },
        gateway: workload.gateway,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Reach;
    use outrigger_api::outrigger::v1;
    use std::net::IpAddr;

    fn workload(namespace: &str, account: &str, node_id: &str) -> Arc<Workload> {
        let port = v1::WorkloadPort {
            name: "http".into(),
            number: 8080,
            protocol: "HTTP".into(),
            ..Default::default()
        };
        let wire = v1::Workload {
            instance_id: format!("{account}-1"),
            namespace: namespace.into(),
            service_account: account.into(),
            service: account.into(),
            node_id: node_id.into(),
            inbound_port: 15_006,
            ports: vec![port],
            ..Default::default()
        };
        Arc::new(Workload::from_wire(wire, IpAddr::from([192, 0, 2, 1]), Reach::Network).unwrap())
    }

    #[test]
    fn node_id_of_another_registered_elsewhere_takes_no_workload_away() {
        let planner = IstioPlanner::new(Settings::default());
        let node = ProxyNode::without_workload("cart-1", NodeKind::Sidecar, "shop", "cart");
        let victim = workload("shop", "cart", "cart-1");
        for foreign in [workload("zoo", "ape", "cart-1"), workload("shop", "zebra", "cart-1")] {
            let world = World { workloads: vec![Arc::clone(&victim), foreign].into(), ..World::default() };
            let config = planner.prepare(&world).unwrap().assemble(&node);
            let names: Vec<&str> = config.config.listeners.iter().map(|l| l.name.as_str()).collect();
            assert!(names.contains(&"inbound|15006"), "{names:?}");
        }
    }
}
