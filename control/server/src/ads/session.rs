//! ADS from the server's side, without I/O: one client's subscriptions, what it was sent, what it said.
//!
//! ```text
//!   request ──► Session ──► Response …
//!   catalog ──►         ──► Event (acknowledged, rejected)
//! ```
//!
//! Order (make before break): clusters, endpoints and secrets are added first; listeners and routes follow when the
//! client has acknowledged them and asked for the endpoints of every new cluster; what is not needed any more is removed
//! when listeners and routes are acknowledged. A client that does not answer holds this up until [`Session::release`].
//!
//! Of each type one response at most is unanswered, so a slow client is sent the newest state and no queue.
//! Source: Envoy's "xDS REST and gRPC protocol" page; for clients without wildcard also gRFC A27.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::{Catalog, Entry, Kind, digest};

/// Most names a client may subscribe to of one type.
pub const NAMES_MAX: usize = 20_000;

/// Longest name, bytes.
pub const NAME_BYTES_MAX: usize = 1024;

/// A delta response is cut at this size, and goes on when it is acknowledged. Clients refuse messages above 4 MiB.
pub const RESPONSE_BYTES: usize = 2 << 20;

/// Delta or state of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// `DeltaAggregatedResources`.
    Delta,
    /// `StreamAggregatedResources`.
    StateOfTheWorld,
}

/// What a client sent. Delta uses `subscribe`, `unsubscribe` and `held`; state of the world `names`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which type.
    pub kind: Kind,
    /// Names newly wanted.
    pub subscribe: Vec<String>,
    /// Names no longer wanted.
    pub unsubscribe: Vec<String>,
    /// What the client holds, in its first request of the type.
    pub held: BTreeMap<String, String>,
    /// All names wanted.
    pub names: Vec<String>,
    /// The response answered; empty: none.
    pub nonce: String,
    /// Why it was rejected.
    pub error: Option<String>,
}

impl Request {
    /// A request that says nothing yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            subscribe: Vec::new(),
            unsubscribe: Vec::new(),
            held: BTreeMap::new(),
            names: Vec::new(),
            nonce: String::new(),
            error: None,
        }
    }
}

/// What to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Which type.
    pub kind: Kind,
    /// To be answered with.
    pub nonce: String,
    /// State of the world: of all; delta: of the plan, for people.
    pub version: String,
    /// Names and content.
    pub resources: Vec<(String, Entry)>,
    /// Names gone (delta).
    pub removed: Vec<String>,
}

/// What became known of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It holds everything it wants of this plan.
    Acknowledged {
        /// Of the plan.
        version: String,
    },
    /// It rejected a response.
    Rejected {
        /// Of the plan the response was made from.
        version: String,
        /// Which type.
        kind: Kind,
        /// Why.
        error: String,
    },
}

/// A request that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// More names than [`NAMES_MAX`].
    #[error("more than {NAMES_MAX} names of one type")]
    TooManyNames,
    /// A name longer than [`NAME_BYTES_MAX`].
    #[error("a name longer than {NAME_BYTES_MAX} bytes")]
    NameTooLong,
}

/// A response that was not answered yet.
#[derive(Debug)]
struct Unanswered {
    nonce: String,
    plan: String,
    /// Names and versions it carries.
    content: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct KindState {
    /// The client asked for this type.
    opened: bool,
    wildcard: bool,
    names: BTreeSet<String>,
    /// What the client holds or was sent last, by name; `None`: it was told that there is none.
    sent: BTreeMap<String, Option<String>>,
    /// An answer is owed even if nothing differs.
    owed: bool,
    unanswered: Option<Unanswered>,
    /// Of the last response.
    nonce: String,
    /// The last state of the world and its digest.
    world: BTreeMap<String, Entry>,
    world_version: String,
    /// Versions of resources that the client rejected, and its last reason.
    rejected: BTreeMap<String, String>,
    reason: String,
}

impl KindState {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    variant: Variant,
    catalog: Option<Catalog>,
    kinds: [KindState; 5],
    nonces: u64,
    /// The client was waited for long enough.
    released: bool,
    /// The last plan known to be held.
    acknowledged: String,
    /// The last plan known to be rejected.
    reported: String,
    events: Vec<Event>,
}

impl Session {
    /// A client that has said nothing.
    pub fn new(variant: Variant) -> Self {
        Self {
            variant,
            catalog: None,
            kinds: Default::default(),
            nonces: 0,
            released: false,
            acknowledged: String::new(),
            reported: String::new(),
            events: Vec::new(),
        }
    }

    fn kind(&self, kind: Kind) -> &KindState {
        let [a, b, c, d, e] = &self.kinds;
        match kind {
            Kind::Cluster => a,
            Kind::Endpoints => b,
            Kind::Secret => c,
            Kind::Listener => d,
            Kind::RouteConfig => e,
        }
    }

    fn kind_mut(&mut self, kind: Kind) -> &mut KindState {
        let [a, b, c, d, e] = &mut self.kinds;
        match kind {
            Kind::Cluster => a,
            Kind::Endpoints => b,
            Kind::Secret => c,
            Kind::Listener => d,
            Kind::RouteConfig => e,
        }
    }

    /// Whether the client subscribed to a name.
    pub fn is_subscribed(&self, kind: Kind, name: &str) -> bool {
        self.kind(kind).names.contains(name)
    }

    /// There is a new plan, or a new secret.
    pub fn set_catalog(&mut self, catalog: Catalog) {
        self.catalog = Some(catalog);
        self.released = false;
    }

    /// Takes a request in.
    ///
    /// *Errors*: [`SessionError`]; the stream must end.
    pub fn request(&mut self, request: Request) -> Result<(), SessionError> {
        let names = request.subscribe.iter().chain(&request.names).chain(request.held.keys());
        if names.into_iter().any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(SessionError::NameTooLong);
        }
        if request.held.len() > NAMES_MAX {
            return Err(SessionError::TooManyNames);
        }
        let current = self.answer(&request);
        let variant = self.variant;
        let state = self.kind_mut(request.kind);
        match variant {
            Variant::Delta => subscribe_delta(state, request),
            // An answer to an older response: the client will answer the newer one too, with the names it wants then.
            Variant::StateOfTheWorld if !current && state.opened => {}
            Variant::StateOfTheWorld => subscribe_world(state, request),
        }
        let too_many = self.kinds.iter().any(|state| state.names.len() > NAMES_MAX);
        if too_many { Err(SessionError::TooManyNames) } else { Ok(()) }
    }

    /// Takes in what a request says of a response; returns whether the request is current: it answers the last response,
    /// repeats that answer, or comes before any.
    fn answer(&mut self, request: &Request) -> bool {
        let state = self.kind_mut(request.kind);
        let current = request.nonce == state.nonce;
        let Some(waiting) = state.unanswered.take_if(|waiting| waiting.nonce == request.nonce) else {
            return current;
        };
        match &request.error {
            Some(error) => {
                // A client that says which resources are bad has taken the others.
                let named = |name: &str| !name.is_empty() && error.contains(name);
                let any_named = waiting.content.iter().any(|(name, _)| named(name));
                let bad = waiting.content.into_iter().filter(|(name, _)| !any_named || named(name));
                state.rejected.extend(bad);
                state.reason.clone_from(error);
                self.reported.clone_from(&waiting.plan);
                let (kind, error) = (request.kind, error.clone());
                self.events.push(Event::Rejected { version: waiting.plan, kind, error });
            }
            None => {
                for (name, _) in &waiting.content {
                    state.rejected.remove(name);
                }
            }
        }
        current
    }

    /// The client is not waited for any longer: what is held up behind its answers goes out.
    pub fn release(&mut self) {
        self.released = true;
    }

    /// Whether listeners and routes, or removals, wait for the client.
    pub fn is_held_up(&self) -> bool {
        self.catalog.is_some() && !self.released && (self.is_blocked() || self.lacks_routes())
    }

    fn is_blocked(&self) -> bool {
        let waiting = |kind| self.kind(kind).unanswered.is_some();
        waiting(Kind::Cluster) || waiting(Kind::Endpoints) || !self.asked_for_endpoints()
    }

    /// Listeners or routes are on their way, or the routes of a listener are still to be asked for: until then the old ones
    /// serve, and need their clusters.
    fn is_settling(&self) -> bool {
        let waiting = |kind| self.kind(kind).unanswered.is_some();
        waiting(Kind::Listener) || waiting(Kind::RouteConfig) || !self.asked_for_routes()
    }

    /// The client has answered everything about listeners and routes, and has not asked for all routes.
    fn lacks_routes(&self) -> bool {
        let waiting = |kind| self.kind(kind).unanswered.is_some();
        !waiting(Kind::Listener) && !waiting(Kind::RouteConfig) && !self.asked_for_routes()
    }

    /// The client asked for the endpoints of every cluster it was sent.
    fn asked_for_endpoints(&self) -> bool {
        let Some(catalog) = &self.catalog else { return true };
        let sent = self.kind(Kind::Cluster).sent.iter().filter(|(_, version)| version.is_some());
        let mut names = sent.filter_map(|(cluster, _)| catalog.endpoints_of(cluster));
        names.all(|name| self.kind(Kind::Endpoints).wants(name))
    }

    /// The client asked for the routes of every listener, when it takes all listeners.
    fn asked_for_routes(&self) -> bool {
        let Some(catalog) = &self.catalog else { return true };
        let all = self.kind(Kind::Listener).wildcard;
        !all || catalog.of_kind(Kind::RouteConfig).keys().all(|name| self.kind(Kind::RouteConfig).wants(name))
    }

    /// Everything that can be sent now.
    pub fn responses(&mut self) -> Vec<Response> {
        let Some(catalog) = self.catalog.clone() else { return Vec::new() };
        let mut list = Vec::new();
        for kind in [Kind::Cluster, Kind::Endpoints, Kind::Secret] {
            list.extend(self.respond(&catalog, kind, false));
        }
        if self.released || !self.is_blocked() {
            for kind in [Kind::Listener, Kind::RouteConfig] {
                list.extend(self.respond(&catalog, kind, true));
            }
            if self.released || !self.is_settling() {
                for kind in [Kind::Cluster, Kind::Endpoints, Kind::Secret] {
                    list.extend(self.respond(&catalog, kind, true));
                }
            }
        }
        self.note_outcome(&catalog);
        list
    }

    /// What became known since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Nothing is on its way: the client holds the plan, or would but for what it rejected.
    fn note_outcome(&mut self, catalog: &Catalog) {
        let settled = self.kinds.iter().all(|state| state.unanswered.is_none());
        let opened = self.kinds.iter().any(|state| state.opened);
        if !(settled && opened && self.asked_for_endpoints() && self.asked_for_routes()) {
            return;
        }
        let bad = Kind::ALL.into_iter().find(|kind| {
            let entries = catalog.of_kind(*kind);
            let current = |(name, version): (&String, &String)| {
                entries.get(name).is_some_and(|e| e.version == *version)
            };
            self.kind(*kind).rejected.iter().any(current)
        });
        match bad {
            Some(kind) if self.reported != catalog.version => {
                self.reported.clone_from(&catalog.version);
                let error = self.kind(kind).reason.clone();
                self.events.push(Event::Rejected { version: catalog.version.clone(), kind, error });
            }
            None if self.acknowledged != catalog.version => {
                self.acknowledged.clone_from(&catalog.version);
                self.events.push(Event::Acknowledged { version: catalog.version.clone() });
            }
            _ => {}
        }
    }

    fn respond(&mut self, catalog: &Catalog, kind: Kind, remove: bool) -> Option<Response> {
        let variant = self.variant;
        let state = self.kind_mut(kind);
        if !state.opened || state.unanswered.is_some() {
            return None;
        }
        let entries = catalog.of_kind(kind);
        let (resources, removed) = match variant {
            Variant::Delta => delta(state, entries, remove)?,
            // Leaving a resource out removes it for these types only, and listeners come when removing is allowed.
            Variant::StateOfTheWorld => (world(state, entries, remove || kind != Kind::Cluster)?, Vec::new()),
        };
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        let state = self.kind_mut(kind);
        state.owed = false;
        state.nonce.clone_from(&nonce);
        let version = match variant {
            Variant::Delta => catalog.version.clone(),
            Variant::StateOfTheWorld => state.world_version.clone(),
        };
        let content = resources.iter().map(|(name, entry)| (name.clone(), entry.version.clone())).collect();
        state.unanswered = Some(Unanswered { nonce: nonce.clone(), plan: catalog.version.clone(), content });
        Some(Response { kind, nonce, version, resources, removed })
    }
}

fn subscribe_delta(state: &mut KindState, request: Request) {
    let first = !std::mem::replace(&mut state.opened, true);
    if first {
        // Nothing named in the first request means everything (older clients say it so).
        state.wildcard = request.kind.is_wildcard() && request.subscribe.is_empty();
        state.owed = state.wildcard;
        state.sent = request.held.into_iter().map(|(name, version)| (name, Some(version))).collect();
    }
    for name in request.unsubscribe {
        if name == "*" {
            state.wildcard = false;
            let names = &state.names;
            state.sent.retain(|name, _| names.contains(name));
        } else if state.names.remove(&name)
            && !(state.wildcard && matches!(state.sent.get(&name), Some(Some(_))))
        {
            // Also that there is none of this name is forgotten, or a client could make us remember any number.
            state.sent.remove(&name);
        }
    }
    for name in request.subscribe {
        if name == "*" {
            state.owed |= !state.wildcard;
            state.wildcard = true;
            continue;
        }
        // A name that is asked for again is sent again: the client has dropped it.
        if !first {
            state.sent.remove(&name);
        }
        state.names.insert(name);
    }
}

fn subscribe_world(state: &mut KindState, request: Request) {
    let first = !std::mem::replace(&mut state.opened, true);
    let mut names: BTreeSet<String> = request.names.into_iter().collect();
    let wildcard =
        names.remove("*") || (names.is_empty() && request.kind.is_wildcard() && (first || state.wildcard));
    if first || names != state.names || wildcard != state.wildcard {
        let grew = wildcard && !state.wildcard || !names.is_subset(&state.names);
        // No names of a type without wildcard: the client wants nothing of it for now.
        state.owed |= (first || grew) && (wildcard || !names.is_empty());
        (state.names, state.wildcard) = (names, wildcard);
    }
}

type Changes = (Vec<(String, Entry)>, Vec<String>);

/// What differs between the catalog and what was sent; `None`: nothing.
fn delta(state: &mut KindState, entries: &BTreeMap<String, Entry>, remove: bool) -> Option<Changes> {
    let mut resources = Vec::new();
    let mut bytes = 0;
    let wanted: Box<dyn Iterator<Item = (&String, Option<&Entry>)>> = if state.wildcard {
        let others = state.names.iter().filter(|name| !entries.contains_key(*name)).map(|name| (name, None));
        Box::new(entries.iter().map(|(name, entry)| (name, Some(entry))).chain(others))
    } else {
        Box::new(state.names.iter().map(|name| (name, entries.get(name))))
    };
    let mut removed = Vec::new();
    for (name, entry) in wanted {
        match entry {
            Some(entry) => {
                let same = matches!(state.sent.get(name), Some(Some(version)) if *version == entry.version);
                if !same && bytes < RESPONSE_BYTES {
                    bytes += name.len() + entry.resource.value.len();
                    resources.push((name.clone(), entry.clone()));
                }
            }
            // Asked for and not there: said at once, or the client would wait for it.
            None if !state.sent.contains_key(name) => removed.push(name.clone()),
            None => {}
        }
    }
    if remove {
        let gone =
            state.sent.iter().filter(|(name, version)| version.is_some() && !entries.contains_key(*name));
        removed.extend(gone.map(|(name, _)| name.clone()));
    }
    if resources.is_empty() && removed.is_empty() && !state.owed {
        return None;
    }
    for (name, entry) in &resources {
        state.sent.insert(name.clone(), Some(entry.version.clone()));
    }
    for name in &removed {
        // A name that is still subscribed may come back; one of the wildcard is forgotten.
        if state.names.contains(name) {
            state.sent.insert(name.clone(), None);
        } else {
            state.sent.remove(name);
        }
    }
    Some((resources, removed))
}

/// All that is wanted, when it is not what was sent last; `None`: it is.
///
/// While nothing may be removed yet, what the client has of old keeps its place: leaving it out would remove it.
fn world(
    state: &mut KindState,
    entries: &BTreeMap<String, Entry>,
    remove: bool,
) -> Option<Vec<(String, Entry)>> {
    let wanted = entries.iter().filter(|(name, _)| state.wants(name));
    let mut all: BTreeMap<String, Entry> =
        wanted.map(|(name, entry)| (name.clone(), entry.clone())).collect();
    if !remove {
        let old = state.world.iter().filter(|(name, _)| !entries.contains_key(*name) && state.wants(name));
        all.extend(old.map(|(name, entry)| (name.clone(), entry.clone())));
    }
    let version = digest(all.iter().flat_map(|(name, entry)| [name.as_bytes(), entry.version.as_bytes()]));
    if state.world_version == version && !state.owed {
        return None;
    }
    state.sent = all.iter().map(|(name, entry)| (name.clone(), Some(entry.version.clone()))).collect();
    let resources = all.iter().map(|(name, entry)| (name.clone(), entry.clone())).collect();
    (state.world, state.world_version) = (all, version);
    Some(resources)
}
