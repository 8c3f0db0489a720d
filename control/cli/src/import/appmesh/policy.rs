//! Who may call whom, where the mesh lets nothing out but to backends.

use std::collections::{BTreeMap, BTreeSet};

use outrigger_plan::Kind as Made_;
use serde_json::json;

use super::{Item, Kind, World, service};
use crate::import::resource::{self, Made};

/// What is said of a mesh's own settings.
pub(super) fn mesh(item: &Item<'_>) {
    let Some(at) = item.spec.dig(&["egressFilter", "type"]) else { return };
    match at.peek().as_str() {
        Some("DROP_ALL") => {
            at.mark();
            at.note(
                "carried over as AuthorizationPolicies of the services called; callers outside the mesh must be added \
                 there. To close unknown destinations too, label workloads outrigger.dev/outbound-policy: registry-only",
            );
        }
        Some("ALLOW_ALL") => {
            at.mark();
            at.note("no policy is needed: this is how it is without one");
        }
        _ => {}
    }
}

/// Whether a mesh lets nothing out but to backends; `None` where the mesh is not in the input.
fn drops(world: &World<'_>, mesh: &str) -> Option<bool> {
    let item = world.input.find(Kind::Mesh, mesh, mesh)?;
    let filter = item.spec.peek().get("egressFilter").and_then(|filter| filter.get("type"));
    // DROP_ALL where nothing is said, as in App Mesh. A word that is not known closes rather than opens.
    Some(filter.is_none_or(|filter| filter != "ALLOW_ALL"))
}

/// Makes a policy for every node that is somebody's backend.
pub(super) fn make(world: &World<'_>, made: &mut Made) {
    let mut callers: BTreeMap<(&str, String), BTreeSet<String>> = BTreeMap::new();
    for item in world.input.all(Kind::Node) {
        for backend in item.spec.items("backends") {
            let Some(at) = backend.dig(&["virtualService", "virtualServiceName"]) else { continue };
            match drops(world, item.mesh) {
                None => at.lost("the mesh is not in the input, so it is not known whether others are closed"),
                Some(false) => at.changed("every service can be called, as the mesh's egress is ALLOW_ALL"),
                Some(true) => {
                    let Some(name) = at.text() else { continue };
                    let found = service::targets(world, item.mesh, name);
                    if found.is_empty() {
                        at.lost("the virtual service, or what provides it, is not in the input");
                    }
                    for target in found {
                        callers.entry((item.mesh, target)).or_default().insert(account(world, item));
                    }
                }
            }
        }
    }
    // What a gateway leads to, it calls.
    for route in world.input.all(Kind::GatewayRoute) {
        let Some(gateway) = world.input.find(Kind::Gateway, route.mesh, route.parent) else { continue };
        for kind in ["httpRoute", "http2Route", "grpcRoute"] {
            let target = ["action", "target", "virtualService", "virtualServiceName"];
            let at = route.spec.get(kind).and_then(|at| at.dig(&target));
            let Some(name) = at.and_then(|at| at.peek().as_str()) else { continue };
            for target in service::targets(world, route.mesh, name) {
                callers.entry((route.mesh, target)).or_default().insert(account(world, gateway));
            }
        }
    }
    for ((mesh, target), accounts) in callers {
        let (Some(true), Some(item)) = (drops(world, mesh), world.input.find(Kind::Node, mesh, &target))
        else {
            continue;
        };
        let accounts: Vec<String> = accounts.into_iter().collect();
        let spec = json!({
            "selector": {"matchLabels": {"app": resource::label(&target)}},
            "action": "ALLOW",
            "rules": [{"from": [{"source": {"serviceAccounts": accounts}}]}],
        });
        let from = format!("App Mesh backends of the callers of virtual node {target}");
        made.add(Made_::AuthorizationPolicy, &world.namespace(mesh), &target, &from, &item.cursor, spec);
    }
}

/// Node and gateway run as the service account of their own name.
fn account(world: &World<'_>, item: &Item<'_>) -> String {
    format!("{}/{}", world.namespace(item.mesh), resource::label(item.name))
}
