//! What is subscribed to: the names that accepted and static resources point to, each with its source.

use super::Feed;
use super::refs::Refs;
use crate::ads::Kind;
use crate::source::Source;
use outrigger_traffic::config::Resource;
use std::collections::{BTreeMap, BTreeSet};

impl Feed {
    /// Where names come from, apart from those of the aggregated stream.
    pub(super) fn sources(&self) -> BTreeMap<(Kind, String), Source> {
        let held = self.accepted.values().flat_map(|held| held.wanted.iter());
        let foreign = held.chain(&self.base_wanted).filter(|w| w.source != Source::Aggregated);
        foreign.map(|w| ((w.kind, w.name.clone()), w.source.clone())).collect()
    }

    /// Subscriptions follow what the accepted resources point to.
    pub(super) fn update_interest(&mut self) {
        let sources = self.sources();
        for (kind, names) in self.wanted() {
            let mut by_source: BTreeMap<Source, BTreeSet<String>> = BTreeMap::new();
            if sources.is_empty() {
                by_source.insert(Source::Aggregated, names);
            } else {
                for name in names {
                    let source = sources.get(&(kind, name.clone())).cloned().unwrap_or_default();
                    by_source.entry(source).or_default().insert(name);
                }
            }
            self.links.interest(kind, by_source);
        }
    }

    /// Names that the accepted and static resources point to and that the bootstrap file does not hold itself.
    pub(super) fn wanted(&self) -> Vec<(Kind, BTreeSet<String>)> {
        let mut refs = Refs::default();
        for held in self.accepted.values() {
            match held.resource.as_ref() {
                Resource::Listener(v) => refs.add_listener(v),
                Resource::Cluster(v) => refs.add_cluster(v),
                // They name clusters, which are subscribed to as a whole.
                Resource::RouteConfig(_) | Resource::Endpoints(_) | Resource::Secret(_) => {}
            }
        }
        self.base.listeners.iter().for_each(|v| refs.add_listener(v));
        self.base.clusters.iter().for_each(|v| refs.add_cluster(v));
        let mut wanted: Vec<(Kind, BTreeSet<String>)> = refs.without(&self.base).by_kind().into();
        let all = || self.accepted.values().flat_map(|held| held.wanted.iter()).chain(&self.base_wanted);
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_ingredient()) {
            wanted.push((kind, all().filter(|w| w.kind == kind).map(|w| w.name.clone()).collect()));
        }
        wanted
    }

    /// Forgets resources that nothing points to any more.
    pub(super) fn prune(&mut self) {
        for (kind, names) in self.wanted().into_iter().filter(|(kind, _)| !kind.is_ingredient()) {
            self.accepted.retain(|(k, name), _| *k != kind || names.contains(name));
        }
    }
}
