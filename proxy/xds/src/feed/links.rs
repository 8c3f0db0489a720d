//! The sources of a feed: which kinds each one carries, and what is to be said to it.
//!
//! Mostly there is one, the aggregated stream. Any kind may come from a server of its own or from a file, too: a resource
//! that names such a source makes a link for it, which lives as long as something is wanted from there. A response on one
//! link can change the subscriptions of another: those wait here, and the other's bell is rung.

use super::refs::Refs;
use crate::ads::Kind;
use crate::ads::session::{Request, Session, Variant};
use crate::source::{Source, Wanted};
use crate::translate::CameFrom;
use outrigger_traffic::config::{Config, ConfigError, Resource};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Notify;

/// Most links of a feed. One that names more is refused.
pub const LINKS_MAX: usize = 1024;

/// Which link of a feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub usize);

/// What a link carries.
#[derive(Clone, Debug)]
pub struct LinkPlan {
    /// Delta or state of the world.
    pub variant: Variant,
    /// Kinds that it carries; no kind is carried by two links to the same source.
    pub kinds: BTreeSet<Kind>,
    /// What "from there" means in its resources.
    pub came_from: CameFrom,
    /// Where it leads.
    pub source: Source,
}

impl LinkPlan {
    /// The aggregated stream with every kind.
    pub fn everything(variant: Variant) -> Self {
        Self { variant, kinds: Kind::ALL.into(), came_from: CameFrom::Aggregated, source: Source::Aggregated }
    }

    /// One kind from a source of its own.
    pub fn own(kind: Kind, source: Source) -> Self {
        let delta = matches!(&source, Source::Own(server) if server.delta);
        let variant = if delta { Variant::Delta } else { Variant::StateOfTheWorld };
        Self { variant, kinds: [kind].into(), came_from: CameFrom::OwnStream, source }
    }
}

pub(super) struct Link {
    plan: LinkPlan,
    pub(super) session: Session,
    connected: bool,
    /// Made for a resource that named it, and over when nothing is wanted from there any more.
    passing: bool,
    over: bool,
    /// Kinds whose subscription changed since the stream was last written to.
    changed: BTreeSet<Kind>,
    bell: Arc<Notify>,
}

pub(super) struct Links {
    links: Vec<Link>,
    /// Links that nobody follows yet.
    fresh: Vec<LinkId>,
    /// Rings when there is one.
    fresh_bell: Arc<Notify>,
}

impl Links {
    pub(super) fn new(plans: Vec<LinkPlan>) -> Self {
        let links = plans.into_iter().map(Link::new).collect();
        Self { links, fresh: Vec::new(), fresh_bell: Arc::default() }
    }

    /// Forgets what is held, and every link that a resource named.
    pub(super) fn restart(&mut self) {
        let plans = self.links.iter().filter(|link| !link.passing).map(|link| link.plan.clone());
        self.links = plans.map(Link::new).collect();
        self.fresh.clear();
    }

    pub(super) fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.0)
    }

    pub(super) fn of_kind(&mut self, kind: Kind, source: &Source) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.carries(kind, source))
    }

    /// The link that brings all of a kind.
    pub(super) fn of_wildcard(&mut self, kind: Kind) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.plan.kinds.contains(&kind))
    }

    /// Links that are to be followed from now on.
    pub(super) fn take_fresh(&mut self) -> Vec<(LinkId, LinkPlan)> {
        let fresh = std::mem::take(&mut self.fresh);
        fresh.into_iter().filter_map(|id| Some((id, self.links.get(id.0)?.plan.clone()))).collect()
    }

    pub(super) fn fresh_bell(&self) -> Arc<Notify> {
        self.fresh_bell.clone()
    }

    /// Says which names of a kind are wanted from which source from now on.
    pub(super) fn interest(&mut self, kind: Kind, mut names: BTreeMap<Source, BTreeSet<String>>) {
        for (i, link) in self.links.iter_mut().enumerate() {
            if !link.plan.kinds.contains(&kind) {
                continue;
            }
            let names = names.remove(&link.plan.source).unwrap_or_default();
            if link.passing {
                let over = std::mem::replace(&mut link.over, names.is_empty());
                if over && !link.over {
                    self.fresh.push(LinkId(i));
                    self.fresh_bell.notify_one();
                }
                if link.over && !over {
                    link.bell.notify_one();
                }
            }
            if link.session.want(kind, names) && link.connected {
                link.changed.insert(kind);
                link.bell.notify_one();
            }
        }
        // What is left has no link yet. Nothing but a stream of the bootstrap can be the aggregated one.
        for (source, names) in
            names.into_iter().filter(|(source, names)| *source != Source::Aggregated && !names.is_empty())
        {
            let mut link = Link::new(LinkPlan::own(kind, source));
            link.passing = true;
            link.session.want(kind, names);
            self.fresh.push(LinkId(self.links.len()));
            self.links.push(link);
            self.fresh_bell.notify_one();
        }
    }

    /// What these links do not bring although the resource takes it from there.
    pub(super) fn unreachable(
        &self,
        resource: &Resource,
        wanted: &[Wanted],
        base: &Config,
    ) -> Vec<ConfigError> {
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
        let mut errors = missing(&name, refs.without(base), wanted, &|kind| {
            self.links.iter().any(|link| link.carries(kind, &Source::Aggregated))
        });
        errors.extend(servers_missing(&name, wanted, base));
        let new = wanted.iter().filter(|w| w.source != Source::Aggregated);
        let new = new.filter(|w| !self.links.iter().any(|link| link.carries(w.kind, &w.source))).count();
        if self.links.len() + new > LINKS_MAX {
            errors.push(ConfigError::new(
                name,
                "",
                format!("needs more than {LINKS_MAX} sources of configuration"),
            ));
        }
        errors
    }
}

/// What a bootstrap's own listeners and clusters name, where nothing brings it.
pub fn unreachable(base: &Config, wanted: &[Wanted], links: &[LinkPlan]) -> Vec<ConfigError> {
    let carried =
        |kind| links.iter().any(|link| link.source == Source::Aggregated && link.kinds.contains(&kind));
    let listeners = base.listeners.iter().flat_map(|v| {
        let mut refs = Refs::default();
        refs.add_listener(v);
        missing(&format!("listener/{}", v.name), refs.without(base), wanted, &carried)
    });
    let clusters = base.clusters.iter().flat_map(|v| {
        let mut refs = Refs::default();
        refs.add_cluster(v);
        missing(&format!("cluster/{}", v.name), refs.without(base), wanted, &carried)
    });
    listeners.chain(clusters).chain(servers_missing("", wanted, base)).collect()
}

/// Names that a resource takes from the aggregated stream, which does not bring them.
fn missing(
    resource: &str,
    refs: Refs,
    wanted: &[Wanted],
    carried: &dyn Fn(Kind) -> bool,
) -> Vec<ConfigError> {
    let elsewhere = |kind: Kind, name: &str| {
        wanted.iter().any(|w| w.kind == kind && w.name == name && w.source != Source::Aggregated)
    };
    let kinds = refs.by_kind().into_iter().filter(|(kind, _)| !carried(*kind));
    let names = kinds.flat_map(|(kind, names)| names.into_iter().map(move |name| (kind, name)));
    names
        .filter(|(kind, name)| !elsewhere(*kind, name))
        .map(|(kind, name)| {
            let reason = format!("takes {} `{name}` from `ads`, and there is no `ads_config`", kind.word());
            ConfigError::new(resource, "", reason)
        })
        .collect()
}

/// Servers that a resource names and no static cluster reaches.
fn servers_missing(resource: &str, wanted: &[Wanted], base: &Config) -> Vec<ConfigError> {
    let servers = wanted.iter().filter_map(|w| match &w.source {
        Source::Own(server) if !base.clusters.iter().any(|c| c.name == server.cluster) => Some((w, server)),
        Source::Own(_) | Source::Aggregated | Source::File(_) => None,
    });
    servers
        .map(|(w, server)| {
            let (kind, cluster) = (w.kind.word(), &server.cluster);
            let reason = format!("takes {kind} `{}` through `{cluster}`, which is no static cluster", w.name);
            ConfigError::new(resource, "", reason)
        })
        .collect()
}

impl Link {
    fn new(plan: LinkPlan) -> Self {
        Self {
            session: Session::carrying(plan.variant, plan.kinds.clone()),
            plan,
            connected: false,
            passing: false,
            over: false,
            changed: BTreeSet::new(),
            bell: Arc::default(),
        }
    }

    fn carries(&self, kind: Kind, source: &Source) -> bool {
        self.plan.source == *source && self.plan.kinds.contains(&kind)
    }

    /// Whether nothing is wanted from there any more.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

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
