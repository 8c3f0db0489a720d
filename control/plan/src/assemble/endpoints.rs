//! Instances into endpoints.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use outrigger_traffic::config::{
    Endpoint, EndpointAddress, EndpointCheck, Endpoints, HealthStatus, Locality, LocalityEndpoints,
};

use crate::inventory::{Instance, InstancePort, Service};
use crate::node::{Flavour, ProxyNode};
use crate::resource::destination_rule::LocalityLb;
use crate::world::Health;

/// How near places are to a node: its own sub-zone, zone and region first, each when the one before has too few healthy
/// hosts. A node that does not know where it is takes all alike, and so does what it does not know of itself.
pub struct Nearness<'a> {
    node: &'a ProxyNode,
    setting: Option<&'a LocalityLb>,
}

impl<'a> Nearness<'a> {
    /// For a node, with what its rule says.
    pub fn new(node: &'a ProxyNode, setting: Option<&'a LocalityLb>) -> Self {
        Self { node, setting }
    }

    /// 0 is nearest.
    fn rank(&self, place: &Locality) -> u32 {
        let Some(own) = self.node.workload.as_ref().map(|workload| &workload.locality) else { return 0 };
        if own.region.is_empty() || self.setting.is_some_and(|setting| !setting.enabled) {
            return 0;
        }
        let same = |own: &str, other: &str| own.is_empty() || own == other;
        if place.region != own.region {
            let next = self.setting.and_then(|setting| setting.failover.get(&own.region));
            return if next.is_none_or(|next| *next == place.region) { 3 } else { 4 };
        }
        if !same(&own.zone, &place.zone) { 2 } else { u32::from(!same(&own.sub_zone, &place.sub_zone)) }
    }
}

/// The instances of a port that `wanted` lets pass, by locality.
pub fn of(
    cluster: &str,
    service: &Service,
    port: u16,
    nearness: &Nearness<'_>,
    wanted: impl Fn(&Instance, &InstancePort) -> bool,
) -> Endpoints {
    // Two instances can have one address: one that was restarted under a new name while the old lease still runs. A proxy
    // refuses an address that comes twice, so the one that takes requests stays.
    let mut chosen: Vec<(&Instance, &InstancePort)> = Vec::new();
    let mut known: HashMap<&EndpointAddress, usize> = HashMap::new();
    for instance in &service.instances {
        let Some(at) = instance.ports.get(&port).filter(|at| wanted(instance, at)) else { continue };
        match known.get(&at.address).copied() {
            None => {
                known.insert(&at.address, chosen.len());
                chosen.push((instance, at));
            }
            Some(index)
                if chosen[index].0.health != Health::Healthy && instance.health == Health::Healthy =>
            {
                chosen[index] = (instance, at);
            }
            Some(_) => {}
        }
    }
    let mut localities: BTreeMap<Locality, Vec<Endpoint>> = BTreeMap::new();
    for (instance, at) in chosen {
        localities.entry(instance.locality.clone()).or_default().push(endpoint(service, instance, at));
    }
    let share = |endpoints: &[Endpoint]| endpoints.iter().map(|e| e.weight).fold(0u32, u32::saturating_add);
    let ranks: BTreeSet<u32> = localities.keys().map(|place| nearness.rank(place)).collect();
    // Priorities have no gaps (Envoy: `LocalityLbEndpoints.priority`).
    let priority = |place: &Locality| {
        let rank = nearness.rank(place);
        u32::try_from(ranks.iter().take_while(|known| **known < rank).count()).unwrap_or(u32::MAX)
    };
    Endpoints {
        cluster_name: cluster.to_owned(),
        localities: localities
            .into_iter()
            .map(|(locality, endpoints)| LocalityEndpoints {
                priority: priority(&locality),
                locality,
                // gRPC leaves localities without a weight out (gRFC A27); proxies here balance over hosts alone.
                weight: (nearness.node.flavour == Flavour::Grpc).then(|| share(&endpoints)),
                endpoints,
            })
            .collect(),
        overprovisioning_factor: None,
    }
}

fn endpoint(service: &Service, instance: &Instance, at: &InstancePort) -> Endpoint {
    let hostname = match &at.address {
        EndpointAddress::Name(name, _) => name.clone(),
        EndpointAddress::Socket(_) => String::new(),
    };
    let mut labels: Vec<(String, String)> = Vec::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            labels.push((key.to_owned(), value.to_owned()));
        }
    };
    let label = |key: &str| instance.labels.get(key).map(String::as_str).unwrap_or_default();
    put("app", label("app"));
    put("instance", &instance.id);
    put("namespace", &service.namespace);
    put("principal", instance.identity.as_deref().unwrap_or_default());
    put("version", label("version"));
    put("workload", if label("app").is_empty() { &instance.id } else { label("app") });
    Endpoint {
        address: at.address.clone(),
        hostname,
        weight: instance.weight,
        health: match instance.health {
            Health::Healthy => HealthStatus::Healthy,
            Health::Unhealthy => HealthStatus::Unhealthy,
            Health::Draining => HealthStatus::Draining,
        },
        labels,
        hash_key: String::new(),
        lb_metadata: Vec::new(),
        check: EndpointCheck::default(),
    }
}
