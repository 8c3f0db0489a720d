//! ADS from the client's side, without I/O.
//!
//! ```text
//!            interest(kind, names)                       response
//! config ───────────────────────────► Session ◄─────────────────── stream
//!                                       │  ▲
//!                    Request to send ◄──┘  └── verdict(accepted, refused)
//! ```
//!
//! A response is not acknowledged by the session itself: the caller translates and applies its resources and hands
//! back a [`Verdict`]; the session answers with ACK, or with NACK carrying every error. A refused resource is not held:
//! its last good version stays in force and in the list that a reconnect reports, so that the server sends the wanted
//! one again. Source: Envoy's xDS protocol page, sections "Incremental xDS" and "ACK/NACK and resource type instance version".

use super::Kind;
use super::kind::EVERY;
use std::collections::{BTreeMap, BTreeSet};

/// Delta or state of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// `DeltaAggregatedResources`.
    Delta,
    /// `StreamAggregatedResources`.
    StateOfTheWorld,
}

/// What to send. Delta uses `subscribe`, `unsubscribe` and `held`; state of the world uses `names` and `version`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Which kind; `None` only in the default value.
    pub kind: Option<Kind>,
    /// Names newly wanted.
    pub subscribe: Vec<String>,
    /// Names no longer wanted.
    pub unsubscribe: Vec<String>,
    /// Versions held, in the first request of a kind on a stream.
    pub held: Vec<(String, String)>,
    /// All names wanted (state of the world).
    pub names: Vec<String>,
    /// Version in force (state of the world).
    pub version: String,
    /// Nonce of the response answered; empty for a spontaneous request.
    pub nonce: String,
    /// Why the response was refused.
    pub error: Option<String>,
}

/// What arrived: resources by name with their versions, and names removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Type URL.
    pub type_url: String,
    /// To be answered with.
    pub nonce: String,
    /// Names and versions. State of the world: the version of all.
    pub resources: Vec<(String, String)>,
    /// Names removed (delta).
    pub removed: Vec<String>,
    /// Version of the whole (state of the world), or for debugging (delta).
    pub version: String,
}

/// What became of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Resources now in force, with versions.
    pub accepted: Vec<(String, String)>,
    /// Every reason for refusal; empty: all was accepted.
    pub errors: Vec<String>,
}

#[derive(Debug, Default)]
struct KindState {
    /// Names wanted; unused for wildcard kinds.
    wanted: BTreeSet<String>,
    /// Names the server has been told about on this stream.
    told: BTreeSet<String>,
    /// Versions in force.
    held: BTreeMap<String, String>,
    /// A request of this kind was sent on this stream.
    opened: bool,
    /// Last nonce seen on this stream.
    nonce: String,
    /// Last accepted version (state of the world).
    version: String,
}

/// One client's subscriptions and what it holds. Lives across reconnects.
#[derive(Debug)]
pub struct Session {
    variant: Variant,
    carried: BTreeSet<Kind>,
    kinds: Kinds,
}

#[derive(Debug, Default)]
struct Kinds([KindState; Kind::ALL.len()]);

impl Kinds {
    fn of(&self, kind: Kind) -> &KindState {
        &self.0[kind as usize]
    }

    fn of_mut(&mut self, kind: Kind) -> &mut KindState {
        &mut self.0[kind as usize]
    }
}

impl KindState {
    /// Whether all of the kind is wanted.
    fn wants_every(&self) -> bool {
        self.wanted.contains(EVERY)
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.wanted.iter().filter(|name| *name != EVERY)
    }
}

/// Longest error text sent in a NACK, bytes; the rest is cut (a gRPC message must stay small).
pub const NACK_TEXT_MAX: usize = 16 * 1024;

impl Session {
    /// A session that holds nothing and carries every kind.
    pub fn new(variant: Variant) -> Self {
        Self::carrying(variant, Kind::ALL.into())
    }

    /// A session that holds nothing and carries these kinds; others are neither asked for nor taken.
    pub fn carrying(variant: Variant, carried: BTreeSet<Kind>) -> Self {
        Self { variant, carried, kinds: Kinds::default() }
    }

    /// Which protocol variant this session speaks.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Tells what is held already, as from a file of last good resources.
    pub fn assume_held(&mut self, kind: Kind, name: &str, version: &str) {
        self.kind(kind).held.insert(name.into(), version.into());
    }

    /// A new stream begins. Returns the first requests, in make-before-break order.
    pub fn connected(&mut self) -> Vec<Request> {
        for kind in Kind::ALL {
            let k = self.kind(kind);
            k.told.clear();
            k.opened = false;
            k.nonce.clear();
        }
        let carried = Kind::ALL.into_iter().filter(|kind| self.carried.contains(kind));
        carried.collect::<Vec<_>>().into_iter().filter_map(|k| self.request(k, String::new(), None)).collect()
    }

    /// Says which names of a kind are wanted from now on; whether that is a change, which the server learns by
    /// [`Self::catch_up`]. Has no meaning for wildcard kinds. Names no longer wanted are no longer held.
    pub fn want(&mut self, kind: Kind, names: BTreeSet<String>) -> bool {
        if kind.is_wildcard() || !self.carried.contains(&kind) {
            return false;
        }
        let state = self.kind(kind);
        if state.wanted == names {
            return false;
        }
        let every = names.contains(EVERY);
        state.held.retain(|name, _| every || names.contains(name));
        state.wanted = names;
        true
    }

    /// The request that tells the server of a changed subscription, if it must know.
    pub fn catch_up(&mut self, kind: Kind) -> Option<Request> {
        self.request(kind, String::new(), None)
    }

    /// A response arrived: checks that it may be applied. `None`: its kind is unknown or was never asked for, or its
    /// nonce repeats the last one (a duplicate); it is to be ignored. Resources not wanted any more are left out.
    pub fn received(&mut self, response: &Response) -> Option<(Kind, Vec<usize>)> {
        let kind = Kind::from_type_url(&response.type_url).filter(|kind| self.carried.contains(kind))?;
        let state = self.kind(kind);
        if !state.opened || (!response.nonce.is_empty() && state.nonce == response.nonce) {
            return None;
        }
        state.nonce.clone_from(&response.nonce);
        let wanted = response
            .resources
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| kind.is_wildcard() || state.wants_every() || state.wanted.contains(name))
            .map(|(i, _)| i)
            .collect();
        Some((kind, wanted))
    }

    /// Names that a response takes away: those it says (delta), or those it leaves out (state of the world, where only
    /// clusters and listeners are complete in each response).
    pub fn removals(&self, kind: Kind, response: &Response) -> Vec<String> {
        let held = &self.kinds.of(kind).held;
        match self.variant {
            Variant::Delta => response.removed.iter().filter(|n| held.contains_key(*n)).cloned().collect(),
            Variant::StateOfTheWorld if kind.is_wildcard() || self.kinds.of(kind).wants_every() => {
                let named: BTreeSet<&String> = response.resources.iter().map(|(n, _)| n).collect();
                held.keys().filter(|n| !named.contains(n)).cloned().collect()
            }
            Variant::StateOfTheWorld => Vec::new(),
        }
    }

    /// Answers a response: ACK, or NACK with every error.
    pub fn answer(
        &mut self,
        kind: Kind,
        response: &Response,
        removed: &[String],
        verdict: Verdict,
    ) -> Option<Request> {
        let state = self.kind(kind);
        for name in removed {
            state.held.remove(name);
        }
        let refused = !verdict.errors.is_empty();
        state.held.extend(verdict.accepted);
        if !refused {
            state.version.clone_from(&response.version);
        }
        let error = refused.then(|| {
            let mut text = verdict.errors.join("; ");
            if text.len() > NACK_TEXT_MAX {
                let mut end = NACK_TEXT_MAX;
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                text.truncate(end);
            }
            text
        });
        self.request(kind, response.nonce.clone(), error)
    }

    /// Resources wanted by name and not held: what warming waits for.
    pub fn missing(&self, kind: Kind) -> Vec<String> {
        let state = self.kinds.of(kind);
        state.names().filter(|n| !state.held.contains_key(*n)).cloned().collect()
    }

    fn kind(&mut self, kind: Kind) -> &mut KindState {
        self.kinds.of_mut(kind)
    }

    fn request(&mut self, kind: Kind, nonce: String, error: Option<String>) -> Option<Request> {
        let variant = self.variant;
        let state = self.kind(kind);
        let first = !state.opened;
        if first && !kind.is_wildcard() && state.wanted.is_empty() {
            return None; // An empty first request would mean wildcard.
        }
        let mut request = Request { kind: Some(kind), nonce, error, ..Request::default() };
        match variant {
            Variant::Delta => {
                request.subscribe =
                    state.names().filter(|name| !state.told.contains(*name)).cloned().collect();
                request.unsubscribe = state.told.difference(&state.wanted).cloned().collect(); // `*` too: it is a name then.
                let spontaneous = request.nonce.is_empty();
                if spontaneous && !first && request.subscribe.is_empty() && request.unsubscribe.is_empty() {
                    return None;
                }
                if first {
                    request.held = state.held.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
                }
            }
            Variant::StateOfTheWorld => {
                request.names = state.names().cloned().collect();
                request.version.clone_from(&state.version);
                if request.nonce.is_empty() {
                    request.nonce.clone_from(&state.nonce);
                }
            }
        }
        state.told.clone_from(&state.wanted);
        state.opened = true;
        Some(request)
    }
}

#[cfg(test)]
mod tests;
