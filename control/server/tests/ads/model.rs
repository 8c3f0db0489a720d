//! Both ends of ADS in memory: our server's session and our client's, joined without a socket.

use std::collections::BTreeMap;

use outrigger_control::ads::catalog::{Catalog, Kind};
use outrigger_control::ads::session::{Event, Request, Response, Session, Variant};
use outrigger_plan::NodeConfig;

use crate::world::{RESOURCES, nodes, planned, workload, workloads, world};

/// One response: its type, the names of its resources, the names it removes.
type Sent = (Kind, Vec<String>, Vec<String>);

/// A client that behaves as proxies do: everything of CDS and LDS, by name what those refer to.
struct Client {
    variant: Variant,
    held: BTreeMap<(Kind, String), String>,
    names: BTreeMap<Kind, Vec<String>>,
    reject: Option<String>,
    log: Vec<Sent>,
}

impl Client {
    fn new(variant: Variant) -> Self {
        Self { variant, held: BTreeMap::new(), names: BTreeMap::new(), reject: None, log: Vec::new() }
    }

    fn open(&self) -> Vec<Request> {
        [Kind::Cluster, Kind::Listener].into_iter().map(|kind| self.first(kind)).collect()
    }

    fn first(&self, kind: Kind) -> Request {
        let held = self.held.iter().filter(|((k, _), _)| *k == kind);
        Request {
            held: held.map(|((_, name), version)| (name.clone(), version.clone())).collect(),
            ..Request::new(kind)
        }
    }

    fn holds(&self, kind: Kind) -> Vec<&str> {
        self.held.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name.as_str()).collect()
    }

    /// Takes a response; answers it, and asks for what it refers to.
    fn take(&mut self, response: &Response) -> Vec<Request> {
        let kind = response.kind;
        let names = || response.resources.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        self.log.push((kind, names(), response.removed.clone()));
        let mut answer = Request { nonce: response.nonce.clone(), ..Request::new(kind) };
        let bad = self.reject.clone();
        answer.error = bad.as_ref().filter(|bad| names().contains(*bad)).map(|bad| format!("{bad}: is bad"));
        if self.variant == Variant::StateOfTheWorld {
            answer.names = self.names.get(&kind).cloned().unwrap_or_default();
            if matches!(kind, Kind::Cluster | Kind::Listener) && answer.error.is_none() {
                self.held.retain(|(k, name), _| *k != kind || names().contains(name));
            }
        }
        for (name, entry) in &response.resources {
            if bad.as_ref() != Some(name) {
                self.held.insert((kind, name.clone()), entry.version.clone());
            }
        }
        for name in &response.removed {
            self.held.remove(&(kind, name.clone()));
        }
        vec![answer]
    }

    /// The requests for endpoints and routes of what is held now.
    fn refer(&mut self, planned: &NodeConfig) -> Vec<Request> {
        let clusters = self.holds(Kind::Cluster);
        let eds = planned.config.endpoints.iter().map(|e| e.cluster_name.clone());
        let eds: Vec<String> = eds.filter(|name| clusters.contains(&name.as_str())).collect();
        let listeners = !self.holds(Kind::Listener).is_empty();
        let rds: Vec<String> = if listeners {
            planned.config.route_configs.iter().map(|r| r.name.clone()).collect()
        } else {
            Vec::new()
        };
        let mut requests = Vec::new();
        for (kind, wanted) in [(Kind::Endpoints, eds), (Kind::RouteConfig, rds)] {
            let before = self.names.insert(kind, wanted.clone());
            if before.as_ref() == Some(&wanted) || (before.is_none() && wanted.is_empty()) {
                continue;
            }
            let before_names = before.clone().unwrap_or_default();
            let mut request = if before.is_none() { self.first(kind) } else { Request::new(kind) };
            match self.variant {
                Variant::Delta => {
                    request.subscribe =
                        wanted.iter().filter(|n| !before_names.contains(n)).cloned().collect();
                    request.unsubscribe =
                        before_names.iter().filter(|n| !wanted.contains(n)).cloned().collect();
                }
                Variant::StateOfTheWorld => {
                    request.names = wanted;
                    request.nonce = self.last_nonce(kind);
                }
            }
            requests.push(request);
        }
        requests
    }

    fn last_nonce(&self, _kind: Kind) -> String {
        String::new()
    }
}

/// Runs until nobody has anything to say. Returns what the server learned.
fn settle(
    server: &mut Session,
    client: &mut Client,
    planned: &NodeConfig,
    nonces: &mut BTreeMap<Kind, String>,
) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..100 {
        let responses = server.responses();
        events.extend(server.take_events());
        let mut requests = Vec::new();
        for response in &responses {
            nonces.insert(response.kind, response.nonce.clone());
            requests.extend(client.take(response));
        }
        for mut request in client.refer(planned) {
            if client.variant == Variant::StateOfTheWorld {
                request.nonce = nonces.get(&request.kind).cloned().unwrap_or_default();
            }
            requests.push(request);
        }
        if requests.is_empty() {
            return events;
        }
        for request in requests {
            server.request(request).expect("is served");
        }
    }
    panic!("never settles: {:#?}", client.log);
}

fn expected(planned: &NodeConfig) -> BTreeMap<(Kind, String), String> {
    let catalog = Catalog::of(planned);
    let all = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Secret);
    all.flat_map(|kind| {
        catalog.of_kind(kind).iter().map(move |(n, e)| ((kind, n.clone()), e.version.clone()))
    })
    .collect()
}

fn acknowledged(version: &str) -> Event {
    Event::Acknowledged { version: version.to_owned() }
}

const BOTH: [Variant; 2] = [Variant::Delta, Variant::StateOfTheWorld];

#[test]
fn client_converges_to_every_plan_in_turn_and_the_server_knows() {
    for variant in BOTH {
        let mut more = workloads();
        more.push(workload("shop", "stock", "v1", 7));
        let worlds = [
            world(workloads(), RESOURCES),
            world(more, RESOURCES),
            world(workloads(), ""),
            world(workloads(), RESOURCES),
        ];
        let (mut server, mut client, mut nonces) =
            (Session::new(variant), Client::new(variant), BTreeMap::new());
        for request in client.open() {
            server.request(request).expect("is served");
        }
        for (i, world) in worlds.iter().enumerate() {
            let node = nodes(world).remove(0);
            let planned = planned(world, &node);
            server.set_catalog(Catalog::of(&planned));
            let events = settle(&mut server, &mut client, &planned, &mut nonces);
            let wanted = expected(&planned);
            let held: BTreeMap<_, _> = client
                .held
                .clone()
                .into_iter()
                // In state of the world, clients forget endpoints and routes they do not ask for any more.
                .filter(|((kind, name), _)| {
                    variant == Variant::Delta || wanted.contains_key(&(*kind, name.clone()))
                })
                .collect();
            let held: BTreeMap<_, _> = held
                .into_iter()
                .filter(|((kind, name), _)| {
                    matches!(kind, Kind::Cluster | Kind::Listener)
                        || client.names.get(kind).is_some_and(|names| names.contains(name))
                })
                .collect();
            assert_eq!(held, wanted, "{variant:?}, world {i}");
            assert_eq!(events, [acknowledged(&planned.version)], "{variant:?}, world {i}");
            assert!(!server.is_held_up());
        }
    }
}

#[test]
fn new_cluster_is_there_before_its_route_and_an_old_one_goes_after() {
    for variant in BOTH {
        let before = world(workloads(), "");
        let mut others = workloads();
        others.retain(|w| w.service != "cart");
        others.push(workload("shop", "stock", "v1", 7));
        let after = world(others, "");
        let (mut server, mut client, mut nonces) =
            (Session::new(variant), Client::new(variant), BTreeMap::new());
        for request in client.open() {
            server.request(request).expect("is served");
        }
        for world in [&before, &after] {
            let planned = planned(world, &nodes(world)[0]);
            server.set_catalog(Catalog::of(&planned));
            client.log.clear();
            settle(&mut server, &mut client, &planned, &mut nonces);
        }
        let (new, old) =
            ("outbound|8080||stock.shop.mesh".to_owned(), "outbound|8080||cart.shop.mesh".to_owned());
        let at = |found: &dyn Fn(&Sent) -> bool| {
            client.log.iter().position(found).unwrap_or_else(|| panic!("{variant:?}: {:#?}", client.log))
        };
        let cluster = at(&|(kind, names, _)| *kind == Kind::Cluster && names.contains(&new));
        let endpoints = at(&|(kind, names, _)| *kind == Kind::Endpoints && names.contains(&new));
        let route = at(&|(kind, ..)| *kind == Kind::RouteConfig);
        let gone = at(&|(kind, names, removed)| match variant {
            Variant::Delta => *kind == Kind::Cluster && removed.contains(&old),
            Variant::StateOfTheWorld => *kind == Kind::Cluster && !names.contains(&old),
        });
        assert!(cluster < endpoints && endpoints < route && route < gone, "{variant:?}: {:#?}", client.log);
    }
}

#[test]
fn rejection_is_reported_is_no_acknowledgement_and_is_not_repeated_until_it_changes() {
    for variant in BOTH {
        let first = world(workloads(), "");
        let mut moved = workloads();
        moved[1].address = [10, 0, 0, 99].into();
        let second = world(moved, "");
        let third = world(workloads(), RESOURCES);
        let bad = "outbound|8080||b.demo.mesh".to_owned();
        let (mut server, mut client, mut nonces) =
            (Session::new(variant), Client::new(variant), BTreeMap::new());
        for request in client.open() {
            server.request(request).expect("is served");
        }
        client.reject = Some(bad.clone());
        // The rejected cluster is not held, so its endpoints are never asked for: routes follow when released.
        let planned_first = planned(&first, &nodes(&first)[0]);
        server.set_catalog(Catalog::of(&planned_first));
        let events = settle(&mut server, &mut client, &planned_first, &mut nonces);
        assert!(server.is_held_up());
        server.release();
        settle(&mut server, &mut client, &planned_first, &mut nonces);
        assert!(!client.holds(Kind::RouteConfig).is_empty(), "one bad cluster does not hold up the routes");
        let rejected = |event: &Event| matches!(event, Event::Rejected { kind: Kind::Cluster, error, .. } if error.contains(&bad));
        assert!(events.iter().any(rejected), "{events:?}");
        let sent = |client: &Client| {
            client
                .log
                .iter()
                .filter(|(kind, names, _)| *kind == Kind::Cluster && names.contains(&bad))
                .count()
        };
        assert_eq!(sent(&client), 1, "{variant:?}");

        let planned_second = planned(&second, &nodes(&second)[0]);
        server.set_catalog(Catalog::of(&planned_second));
        let events = settle(&mut server, &mut client, &planned_second, &mut nonces);
        assert!(!events.contains(&acknowledged(&planned_second.version)), "{variant:?}: {events:?}");

        client.reject = None;
        let planned_third = planned(&third, &nodes(&third)[0]);
        server.set_catalog(Catalog::of(&planned_third));
        let mut events = settle(&mut server, &mut client, &planned_third, &mut nonces);
        server.release();
        events.extend(settle(&mut server, &mut client, &planned_third, &mut nonces));
        assert!(events.contains(&acknowledged(&planned_third.version)), "{variant:?}: {events:?}");
    }
}

#[test]
fn reconnecting_delta_client_is_sent_only_what_differs() {
    let one = world(workloads(), RESOURCES);
    let planned_one = planned(&one, &nodes(&one)[0]);
    let (mut server, mut client, mut nonces) =
        (Session::new(Variant::Delta), Client::new(Variant::Delta), BTreeMap::new());
    for request in client.open() {
        server.request(request).expect("is served");
    }
    server.set_catalog(Catalog::of(&planned_one));
    settle(&mut server, &mut client, &planned_one, &mut nonces);

    let mut moved = workloads();
    moved[3].address = [10, 0, 0, 99].into();
    let two = world(moved, RESOURCES);
    let planned_two = planned(&two, &nodes(&two)[0]);
    client.log.clear();
    client.names.clear();
    client.held.insert((Kind::Cluster, "gone".into()), "1".into());
    let mut server = Session::new(Variant::Delta);
    for request in client.open() {
        server.request(request).expect("is served");
    }
    server.set_catalog(Catalog::of(&planned_two));
    let events = settle(&mut server, &mut client, &planned_two, &mut nonces);
    assert_eq!(events, [acknowledged(&planned_two.version)]);
    let sent: Vec<&String> = client.log.iter().flat_map(|(_, names, _)| names).collect();
    assert_eq!(sent.iter().filter(|n| n.contains("cart.shop.mesh")).count(), sent.len(), "{sent:?}");
    assert!(
        client
            .log
            .iter()
            .any(|(kind, _, removed)| *kind == Kind::Cluster && removed.contains(&"gone".to_owned()))
    );
}

#[test]
fn name_that_is_not_there_is_said_to_be_absent_and_sent_when_it_comes() {
    let empty = world(Vec::new(), "");
    let full = world(workloads(), "");
    let node = |world: &outrigger_plan::World| outrigger_plan::ProxyNode {
        namespace: "demo".into(),
        ..nodes(world).pop().expect("is there")
    };
    let mut server = Session::new(Variant::Delta);
    server.set_catalog(Catalog::of(&planned(&empty, &node(&empty))));
    let name = "b.demo.mesh:8080".to_owned();
    server
        .request(Request { subscribe: vec![name.clone()], ..Request::new(Kind::Listener) })
        .expect("is served");
    let [response] = server.responses().try_into().expect("one");
    assert_eq!((response.resources.len(), response.removed), (0, vec![name.clone()]));
    server.request(Request { nonce: response.nonce, ..Request::new(Kind::Listener) }).expect("is served");
    server.set_catalog(Catalog::of(&planned(&full, &node(&full))));
    let [response] = server.responses().try_into().expect("one");
    assert_eq!(response.resources.iter().map(|(n, _)| n).collect::<Vec<_>>(), [&name]);
}

#[test]
fn stale_answer_changes_nothing_and_limits_hold() {
    use outrigger_control::ads::session::{NAME_BYTES_MAX, NAMES_MAX, SessionError};
    let world = world(workloads(), "");
    let planned = planned(&world, &nodes(&world)[0]);
    let mut server = Session::new(Variant::StateOfTheWorld);
    server.set_catalog(Catalog::of(&planned));
    let table = || Request { names: vec!["outbound".into()], ..Request::new(Kind::RouteConfig) };
    server.request(table()).expect("is served");
    let [first] = server.responses().try_into().expect("one");
    let stale =
        Request { nonce: "of long ago".into(), error: Some("bad".into()), ..Request::new(Kind::RouteConfig) };
    server.request(stale).expect("is served");
    assert!(server.take_events().is_empty());
    server.request(Request { nonce: first.nonce, ..table() }).expect("is served");
    assert_eq!(server.responses(), []);
    assert_eq!(server.take_events(), [acknowledged(&planned.version)]);

    let names = |count: usize| (0..count).map(|i| i.to_string()).collect::<Vec<_>>();
    let mut server = Session::new(Variant::Delta);
    let request = |subscribe| Request { subscribe, ..Request::new(Kind::Endpoints) };
    assert_eq!(server.request(request(names(NAMES_MAX))), Ok(()));
    assert_eq!(server.request(request(vec!["one more".into()])), Err(SessionError::TooManyNames));
    assert_eq!(server.request(request(vec!["x".repeat(NAME_BYTES_MAX)])), Err(SessionError::TooManyNames));
    assert_eq!(server.request(request(vec!["x".repeat(NAME_BYTES_MAX + 1)])), Err(SessionError::NameTooLong));
}

#[test]
fn cluster_goes_only_after_the_routes_of_a_changed_listener_were_asked_for() {
    let world = world(workloads(), "");
    let first = planned(&world, &nodes(&world)[0]);
    let mut second = first.clone();
    second.version = "next".into();
    let gone = second.config.clusters.pop().expect("a cluster").name;
    second.config.endpoints.retain(|e| e.cluster_name != gone);
    second.config.route_configs[0].name.push_str("-next");
    second.config.listeners[0].tls_inspector ^= true;
    let (mut server, mut client, mut nonces) =
        (Session::new(Variant::Delta), Client::new(Variant::Delta), BTreeMap::new());
    for request in client.open() {
        server.request(request).expect("is served");
    }
    server.set_catalog(Catalog::of(&first));
    settle(&mut server, &mut client, &first, &mut nonces);
    server.set_catalog(Catalog::of(&second));
    let sent = server.responses();
    assert!(sent.iter().any(|r| r.kind == Kind::Listener), "{sent:#?}");
    for request in sent.iter().flat_map(|response| client.take(response)).collect::<Vec<_>>() {
        server.request(request).expect("is served");
    }
    assert_eq!(server.responses(), [], "the old listener serves until the new one has its routes");
    assert!(server.is_held_up(), "but not for ever");
    let removed = |client: &Client| {
        client.log.iter().any(|(kind, _, removed)| *kind == Kind::Cluster && removed.contains(&gone))
    };
    assert!(!removed(&client));
    settle(&mut server, &mut client, &second, &mut nonces);
    assert!(removed(&client) && !server.is_held_up());
}

#[test]
fn name_that_was_unsubscribed_is_forgotten_beside_a_wildcard() {
    let world = world(workloads(), "");
    let mut server = Session::new(Variant::Delta);
    server.set_catalog(Catalog::of(&planned(&world, &nodes(&world)[0])));
    let answer = |server: &mut Session| {
        for response in server.responses() {
            let nonce = response.nonce;
            server.request(Request { nonce, ..Request::new(response.kind) }).expect("is served");
        }
    };
    server.request(Request::new(Kind::Cluster)).expect("is served");
    answer(&mut server);
    let name = || vec!["nobody-knows-it".to_owned()];
    server.request(Request { subscribe: name(), ..Request::new(Kind::Cluster) }).expect("is served");
    answer(&mut server);
    server.request(Request { unsubscribe: name(), ..Request::new(Kind::Cluster) }).expect("is served");
    assert!(!format!("{server:?}").contains("nobody-knows-it"));
}
