//! Instances into endpoints.

use std::collections::{BTreeMap, HashMap};

use outrigger_traffic::config::{
    Endpoint, EndpointAddress, Endpoints, HealthStatus, Locality, LocalityEndpoints,
};

use crate::inventory::{Instance, InstancePort, Service};
use crate::node::Flavour;
use crate::world::Health;

/// The instances of a port that `wanted` lets pass, by locality.
pub fn of(
    cluster: &str,
    service: &Service,
    port: u16,
    flavour: Flavour,
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
    Endpoints {
        cluster_name: cluster.to_owned(),
        localities: localities
            .into_iter()
            .map(|(locality, endpoints)| LocalityEndpoints {
                locality,
                // gRPC leaves localities without a weight out (gRFC A27); proxies here balance over hosts alone.
                weight: (flavour == Flavour::Grpc).then(|| share(&endpoints)),
                priority: 0,
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
    }
}
