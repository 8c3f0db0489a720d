//! AWS App Mesh: what its describe commands print.
//!
//! In reading order: this file (finding the resources in the input), [`node`], [`matching`] (which requests),
//! [`route`] (what is done with them), [`service`] (virtual services and their routers), [`gateway`], [`policy`].
//!
//! How things are named: the virtual node `n` becomes the service `n.NAMESPACE.mesh`, where a task that registers as
//! service `n` takes over from the addresses that App Mesh was told; a virtual service keeps the name that callers
//! use. The namespace is the mesh's name unless the operator gives one.

mod gateway;
mod matching;
mod node;
mod policy;
mod route;
mod service;

use std::collections::{BTreeMap, BTreeSet};

use super::Settings;
use super::resource::{self, Made};
use super::trace::Cursor;

/// Kinds of App Mesh, most specific first: a route also names its router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Route,
    GatewayRoute,
    Router,
    Gateway,
    Node,
    Service,
    Mesh,
}

/// The field that names each, and the field of `describe-…` that holds it.
const KINDS: [(Kind, &str, &str); 7] = [
    (Kind::Route, "routeName", "route"),
    (Kind::GatewayRoute, "gatewayRouteName", "gatewayRoute"),
    (Kind::Router, "virtualRouterName", "virtualRouter"),
    (Kind::Gateway, "virtualGatewayName", "virtualGateway"),
    (Kind::Node, "virtualNodeName", "virtualNode"),
    (Kind::Service, "virtualServiceName", "virtualService"),
    (Kind::Mesh, "meshName", "mesh"),
];

/// A resource of App Mesh.
#[derive(Clone)]
struct Item<'a> {
    name: &'a str,
    mesh: &'a str,
    /// Of a route: its router; of a gateway route: its gateway. Else empty.
    parent: &'a str,
    cursor: Cursor<'a>,
    spec: Cursor<'a>,
}

/// All of the input, by mesh and name.
#[derive(Default)]
struct Input<'a> {
    items: BTreeMap<Kind, Vec<Item<'a>>>,
}

impl<'a> Input<'a> {
    fn all(&self, kind: Kind) -> &[Item<'a>] {
        self.items.get(&kind).map_or(&[], Vec::as_slice)
    }

    fn find(&self, kind: Kind, mesh: &str, name: &str) -> Option<&Item<'a>> {
        self.all(kind).iter().find(|item| item.mesh == mesh && item.name == name)
    }

    /// Routes of a router, or of a gateway, in the order in which they are tried.
    fn routes(&self, kind: Kind, mesh: &str, parent: &str) -> Vec<&Item<'a>> {
        let own = self.all(kind).iter().filter(|item| item.mesh == mesh && item.parent == parent);
        let mut own: Vec<&Item<'a>> = own.collect();
        // Without a priority a route comes last; 0 is first.
        own.sort_by_key(|item| item.spec.number_of("priority", 0, 1000).unwrap_or(1001));
        own
    }
}

/// Deepest nesting of lists and objects around a resource.
const DEPTH_MAX: usize = 8;

/// Reads App Mesh.
pub fn read(roots: &[Cursor<'_>], settings: &Settings, made: &mut Made) {
    let mut input = Input::default();
    roots.iter().for_each(|root| collect(root, None, 0, &mut input));
    let mut world = World { input, settings };
    world.drop_alike();
    let world = world;
    for item in world.input.all(Kind::Mesh) {
        policy::mesh(item);
    }
    let needs_tls = node::backends_with_tls(&world);
    for item in world.input.all(Kind::Node) {
        node::make(&world, item, &needs_tls, made);
    }
    for item in world.input.all(Kind::Service) {
        service::make(&world, item, made);
    }
    service::leftovers(&world);
    for item in world.input.all(Kind::Gateway) {
        gateway::make(&world, item, made);
    }
    gateway::leftovers(&world);
    policy::make(&world, made);
}

/// Finds resources: as they are described, in lists, or in objects of lists.
fn collect<'a>(at: &Cursor<'a>, within: Option<Kind>, depth: usize, input: &mut Input<'a>) {
    if depth > DEPTH_MAX {
        return;
    }
    if at.peek().is_array() {
        at.list().iter().for_each(|child| collect(child, within, depth + 1, input));
        return;
    }
    let named = |(kind, field, _): &(Kind, &'static str, &'static str)| {
        let fits = within.is_none_or(|w| w == *kind) && at.peek().get(field).is_some_and(|n| n.is_string());
        fits.then_some((*kind, *field))
    };
    match KINDS.iter().find_map(named) {
        Some((kind, field)) => add(at, kind, field, input),
        None => {
            for (key, child) in at.fields() {
                // `describe-route` prints {"route": …}; files made by hand hold {"routes": […]}.
                let holds = |holder: &str| {
                    key.strip_prefix(holder).is_some_and(|rest| matches!(rest, "" | "s" | "es"))
                };
                let within = KINDS.iter().find(|(_, _, holder)| holds(holder)).map(|(kind, ..)| *kind);
                collect(&child, within, depth + 1, input);
            }
        }
    }
}

fn add<'a>(at: &Cursor<'a>, kind: Kind, field: &str, input: &mut Input<'a>) {
    for (key, child) in at.fields() {
        match key {
            "metadata" | "status" | "arn" | "meshOwner" | "resourceOwner" | "createdAt" | "lastUpdatedAt"
            | "version" | "tags" => child.record("bookkeeping of AWS"),
            _ => {}
        }
    }
    let Some(spec) = at.get("spec").filter(|spec| spec.peek().is_object()) else {
        at.lost("has no spec: lists are not enough, give what the describe command prints");
        return;
    };
    let Some(name) = at.text_of(field) else { return };
    let mesh = at.text_of("meshName").unwrap_or("default");
    let parent = match kind {
        Kind::Route => at.text_of("virtualRouterName"),
        Kind::GatewayRoute => at.text_of("virtualGatewayName"),
        _ => None,
    };
    let parent = parent.unwrap_or_default();
    let all = input.items.entry(kind).or_default();
    if all.iter().any(|other| (other.mesh, other.parent, other.name) == (mesh, parent, name)) {
        at.lost(format!("{name:?} is given twice: the first one counts"));
        return;
    }
    all.push(Item { name, mesh, parent, cursor: at.clone(), spec });
}

/// The input, and how things are called.
struct World<'a> {
    input: Input<'a>,
    settings: &'a Settings,
}

impl World<'_> {
    /// Nodes, and gateways, whose names become one here: labels and accounts could not tell them apart.
    fn drop_alike(&mut self) {
        for kind in [Kind::Node, Kind::Gateway] {
            let mut seen = BTreeSet::new();
            let items = self.input.items.remove(&kind).unwrap_or_default();
            let only_first = |item: &Item<'_>| {
                let first = seen.insert((self.namespace(item.mesh), resource::label(item.name)));
                if !first {
                    item.cursor.lost("left out: in a resource its name is the same as another one's");
                }
                first
            };
            let items = items.into_iter().filter(only_first).collect();
            self.input.items.insert(kind, items);
        }
    }

    fn namespace(&self, mesh: &str) -> String {
        self.settings.namespace.clone().unwrap_or_else(|| resource::label(mesh))
    }

    /// Host of a virtual node: that of the service its tasks will register as.
    fn node_host(&self, mesh: &str, node: &str) -> String {
        format!("{}.{}.{}", resource::label(node), self.namespace(mesh), self.settings.mesh_domain)
    }
}

/// Words for what is spoken on a port.
const PROTOCOLS: [(&str, &str); 4] = [("http", "HTTP"), ("http2", "HTTP2"), ("grpc", "GRPC"), ("tcp", "TCP")];

/// A port and what is spoken there.
fn port_mapping(listener: &Cursor<'_>) -> Option<(u16, &'static str)> {
    let mapping = listener.get("portMapping")?;
    let port = mapping.port_of("port")?;
    Some((port, mapping.word_of("protocol", &PROTOCOLS).unwrap_or("TCP")))
}

/// `{value, unit}` as text; none where it is not understood.
fn duration(at: &Cursor<'_>) -> Option<String> {
    /// A year in milliseconds: the longest that is taken.
    const VALUE_MAX: u64 = 366 * 24 * 3600 * 1000;
    let unit = at.get("unit")?;
    let value = at.get("value")?;
    let (word, factor) = [("ms", 1), ("s", 1000)].into_iter().find(|(word, _)| unit.peek() == word)?;
    let number = value.peek().as_u64().filter(|n| n.saturating_mul(factor) <= VALUE_MAX)?;
    unit.mark();
    value.mark();
    Some(format!("{number}{word}"))
}
