//! The streams of a feed: which kinds each one carries, and what is to be said on it.
//!
//! Mostly there is one, the aggregated stream. A bootstrap may take clusters or listeners from a server of their own; what
//! they point to (endpoints, secrets, route tables) still comes over the aggregated one, so that a response on one stream
//! can change the subscriptions of another. Those wait here, and the other stream's bell is rung.

use super::refs::Refs;
use crate::ads::Kind;
use crate::ads::session::{Request, Session, Variant};
use crate::translate::CameFrom;
use outrigger_traffic::config::{Config, ConfigError, Resource};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Notify;

/// Which stream of a feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkId(pub usize);

/// What a stream carries.
#[derive(Clone, Debug)]
pub struct LinkPlan {
    /// Delta or state of the world.
    pub variant: Variant,
    /// Kinds that it carries; no kind is carried by two streams.
    pub kinds: BTreeSet<Kind>,
    /// What "from there" means in its resources.
    pub came_from: CameFrom,
}

impl LinkPlan {
    /// The aggregated stream with every kind.
    pub fn everything(variant: Variant) -> Self {
        Self { variant, kinds: Kind::ALL.into(), came_from: CameFrom::Aggregated }
    }
}

pub(super) struct Link {
    plan: LinkPlan,
    pub(super) session: Session,
    connected: bool,
    /// Kinds whose subscription changed since the stream was last written to.
    changed: BTreeSet<Kind>,
    bell: Arc<Notify>,
}

pub(super) struct Links(Vec<Link>);

impl Links {
    pub(super) fn new(plans: Vec<LinkPlan>) -> Self {
        let link = |plan: LinkPlan| Link {
            session: Session::carrying(plan.variant, plan.kinds.clone()),
            plan,
            connected: false,
            changed: BTreeSet::new(),
            bell: Arc::default(),
        };
        Self(plans.into_iter().map(link).collect())
    }

    /// Forgets what is held.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.0.iter().map(|link| link.plan.clone()).collect());
    }

    pub(super) fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.0.get_mut(id.0)
    }

    pub(super) fn of_kind(&mut self, kind: Kind) -> Option<&mut Link> {
        self.0.iter_mut().find(|link| link.plan.kinds.contains(&kind))
    }

    /// Says which names of a kind are wanted from now on.
    pub(super) fn interest(&mut self, kind: Kind, names: BTreeSet<String>) {
        let Some(link) = self.of_kind(kind) else { return };
        if link.session.want(kind, names) && link.connected {
            link.changed.insert(kind);
            link.bell.notify_one();
        }
    }

    /// What these streams do not bring although the resource takes it from the aggregated one.
    pub(super) fn unreachable(&self, resource: &Resource, base: &Config) -> Vec<ConfigError> {
        let mut refs = Refs::default();
        let name = match resource {
            Resource::Listener(v) => {
                refs.add_listener(v);
                format!("listener/{}", v.name)
            }
            Resource::Cluster(v) => {
                refs.add_cluster(v);
                format!("cluster/{}", v.name)
            }
            Resource::RouteConfig(_) | Resource::Endpoints(_) | Resource::Secret(_) => return Vec::new(),
        };
        missing(&name, refs.without(base), &|kind| self.0.iter().any(|link| link.plan.kinds.contains(&kind)))
    }
}

/// What a bootstrap's own listeners and clusters take from the aggregated stream, where these streams do not bring it.
pub fn unreachable(base: &Config, links: &[LinkPlan]) -> Vec<ConfigError> {
    let carried = |kind| links.iter().any(|link| link.kinds.contains(&kind));
    let listeners = base.listeners.iter().flat_map(|v| {
        let mut refs = Refs::default();
        refs.add_listener(v);
        missing(&format!("listener/{}", v.name), refs.without(base), &carried)
    });
    let clusters = base.clusters.iter().flat_map(|v| {
        let mut refs = Refs::default();
        refs.add_cluster(v);
        missing(&format!("cluster/{}", v.name), refs.without(base), &carried)
    });
    listeners.chain(clusters).collect()
}

fn missing(resource: &str, refs: Refs, carried: &dyn Fn(Kind) -> bool) -> Vec<ConfigError> {
    let kinds = refs.by_kind().into_iter().filter(|(kind, _)| !carried(*kind));
    let names = kinds.flat_map(|(kind, names)| names.into_iter().map(move |name| (kind, name)));
    names
        .map(|(kind, name)| {
            let reason = format!("takes {} `{name}` from `ads`, and there is no `ads_config`", kind.word());
            ConfigError::new(resource, "", reason)
        })
        .collect()
}

impl Link {
    pub(super) fn came_from(&self) -> CameFrom {
        self.plan.came_from
    }

    pub(super) fn bell(&self) -> Arc<Notify> {
        self.bell.clone()
    }

    pub(super) fn connected(&mut self) -> Vec<Request> {
        self.connected = true;
        self.changed.clear();
        self.session.connected()
    }

    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.changed.clear();
    }

    /// Changed subscriptions, each once however often it changed.
    pub(super) fn outgoing(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.changed).into_iter().filter_map(|kind| self.session.catch_up(kind)).collect()
    }
}
