//! What is encoded is what the proxy's translation reads.

use outrigger_control::ads::catalog::{Catalog, Kind};
use outrigger_traffic::config::{Config, Resource};
use outrigger_xds::translate::translate_any;

use crate::world::{RESOURCES, nodes, planned, workloads, world};

#[test]
fn every_plan_survives_the_wire_unchanged() {
    let world = world(workloads(), RESOURCES);
    let mut seen = Config::default();
    for node in nodes(&world) {
        let planned = planned(&world, &node);
        let catalog = Catalog::of(&planned);
        let mut read = Config::default();
        for kind in Kind::ALL {
            for (name, entry) in catalog.of_kind(kind) {
                if planned.api_listeners.iter().any(|l| l.name == *name) && kind == Kind::Listener {
                    continue;
                }
                assert_eq!(entry.resource.type_url, kind.type_url());
                let resource = translate_any(&entry.resource.type_url, &entry.resource.value)
                    .unwrap_or_else(|errors| panic!("{} {name}: {errors:#?}", node.id));
                match resource {
                    Resource::Listener(v) => read.listeners.push(v),
                    Resource::RouteConfig(v) => read.route_configs.push(v),
                    Resource::Cluster(v) => read.clusters.push(v),
                    Resource::Endpoints(v) => read.endpoints.push(v),
                    Resource::Secret(v) => read.secrets.push(v),
                }
            }
        }
        let difference = outrigger_plan::diff::configs(&planned.config, &read);
        assert!(difference.is_empty(), "{}: {:#?}", node.id, difference.changes);
        assert_eq!(planned.config, read, "{}", node.id);
        seen.listeners.extend(read.listeners);
        seen.clusters.extend(read.clusters);
        seen.secrets.extend(read.secrets);
    }
    // The world is rich enough for this to mean something.
    assert!(seen.listeners.len() >= 8 && seen.clusters.len() >= 30 && seen.secrets.len() >= 2);
}
