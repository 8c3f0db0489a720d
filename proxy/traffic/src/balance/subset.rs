//! Subsets: hosts of a cluster divided by what they say of themselves, such as their version.
//!
//! Each subset is a host set of its own, with its priorities, health and policy, made when the hosts change. A request finds
//! its subset by one look into a table: the criteria of its route are one text. Source: Envoy: load balancer subsets.

use super::locality::{Basis, HostSet};
use super::{PickContext, PickError};
use crate::cluster::Host;
use crate::config::{self, LbValue, LocalityLb, SubsetFallback, Subsets};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// What a route demands of hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criteria {
    keys: Box<[String]>,
    text: Box<str>,
}

impl Criteria {
    /// `None` where nothing is demanded. Of two values for a key the later holds.
    pub fn new<'a>(pairs: impl Iterator<Item = &'a (String, LbValue)>) -> Option<Self> {
        let sorted: std::collections::BTreeMap<&String, &LbValue> =
            pairs.map(|(key, value)| (key, value)).collect();
        if sorted.is_empty() {
            return None;
        }
        Some(Self {
            keys: sorted.keys().map(|key| (*key).clone()).collect(),
            text: text(sorted.iter().map(|(key, value)| (key.as_str(), value.text.as_str()))).into(),
        })
    }
}

fn text<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        // Keys are quoted, so that no key can look like the end of another. Writing to a String cannot fail.
        let _ = write!(text, "{key:?}:{value},");
    }
    text
}

/// How a request came to its hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubsetFound {
    /// The cluster has no subsets.
    #[default]
    None,
    /// By its criteria.
    Selected,
    /// By the fallback.
    Fallback,
    /// By the fallback, which found no host, and then among all.
    FallbackPanic,
}

/// The subsets of a host set.
#[derive(Debug)]
pub(super) struct Table {
    by_criteria: HashMap<Box<str>, HostSet, foldhash::fast::RandomState>,
    selectors: Box<[(Box<[String]>, SubsetFallback)]>,
    fallback: SubsetFallback,
    default: HostSet,
    panic_mode_any: bool,
}

impl Table {
    pub(super) fn new(
        basis: &Basis,
        subsets: &Subsets,
        endpoints: &config::Endpoints,
        hosts: &[Arc<Host>],
    ) -> Self {
        let mut config = config::Cluster::clone(&basis.config);
        config.subsets = None;
        if !subsets.locality_weight_aware {
            config.locality_lb = LocalityLb::None;
        }
        let within = Basis { config: Arc::new(config), ..basis.clone() };
        let mut groups: HashMap<Box<str>, Vec<Arc<Host>>> = HashMap::new();
        for selector in &subsets.selectors {
            let mut keys = selector.keys.clone();
            keys.sort_unstable();
            keys.dedup();
            for host in hosts {
                for text in combinations(host, &keys, subsets.list_as_any) {
                    let group = groups.entry(text.into()).or_default();
                    if group.last().is_none_or(|last| !Arc::ptr_eq(last, host)) {
                        group.push(host.clone());
                    }
                }
            }
        }
        let set = |hosts: Vec<Arc<Host>>| HostSet::new(&within, endpoints, hosts);
        let is_default = |host: &&Arc<Host>| {
            subsets.default_subset.iter().all(|(key, wanted)| {
                values(host, key, subsets.list_as_any).any(|value| *value == wanted.text)
            })
        };
        Self {
            by_criteria: groups.into_iter().map(|(text, hosts)| (text, set(hosts))).collect(),
            selectors: subsets
                .selectors
                .iter()
                .map(|selector| {
                    let mut keys = selector.keys.clone();
                    keys.sort_unstable();
                    keys.dedup();
                    (keys.into(), selector.fallback.unwrap_or(subsets.fallback))
                })
                .collect(),
            fallback: subsets.fallback,
            default: set(match subsets.fallback_needs_default() {
                true => hosts.iter().filter(is_default).cloned().collect(),
                false => Vec::new(),
            }),
            panic_mode_any: subsets.panic_mode_any,
        }
    }

    /// How many there are (`lb_subsets_active`).
    pub(super) fn count(&self) -> usize {
        self.by_criteria.len()
    }

    pub(super) fn pick(&self, all: &HostSet, context: &mut PickContext<'_>) -> Result<Arc<Host>, PickError> {
        let mut fallback = self.fallback;
        if let Some(criteria) = context.criteria {
            if let Some(set) = self.by_criteria.get(&criteria.text) {
                context.subset = SubsetFound::Selected;
                return set.pick_here(context);
            }
            if let Some((_, own)) = self.selectors.iter().find(|(keys, _)| *keys == criteria.keys) {
                fallback = *own;
            }
        }
        context.subset = SubsetFound::Fallback;
        let found = match fallback {
            SubsetFallback::None => Err(PickError::NoHealthy),
            SubsetFallback::AnyEndpoint => all.pick_here(context),
            SubsetFallback::DefaultSubset => self.default.pick_here(context),
        };
        if found.is_err() && self.panic_mode_any && fallback != SubsetFallback::None {
            context.subset = SubsetFound::FallbackPanic;
            return all.pick_here(context);
        }
        found
    }
}

impl Subsets {
    fn fallback_needs_default(&self) -> bool {
        let own = self.selectors.iter().filter_map(|selector| selector.fallback);
        own.chain([self.fallback]).any(|fallback| fallback == SubsetFallback::DefaultSubset)
    }
}

fn values<'h>(host: &'h Host, key: &str, list_as_any: bool) -> impl Iterator<Item = &'h String> {
    let found = host.lb_metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    let elements = found.filter(|value| list_as_any && !value.elements.is_empty());
    let whole = found.filter(move |_| elements.is_none()).map(|value| &value.text);
    elements.into_iter().flat_map(|value| &value.elements).chain(whole)
}

/// The texts of every subset of these keys that a host is in; none where it lacks a key.
fn combinations(host: &Host, keys: &[String], list_as_any: bool) -> Vec<String> {
    let mut texts = vec![String::new()];
    for key in keys {
        let mut longer = Vec::new();
        for value in values(host, key, list_as_any) {
            let pair = text([(key.as_str(), value.as_str())].into_iter());
            longer.extend(texts.iter().map(|before| format!("{before}{pair}")));
        }
        texts = longer;
    }
    texts
}
