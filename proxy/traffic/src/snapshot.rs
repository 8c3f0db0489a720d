//! The compiled configuration: immutable, shared by all workers, replaced as a whole.
//!
//! Listeners, route tables and clusters refer to each other by small numbers instead of names. A number belongs to a
//! name for as long as a snapshot in the chain of compilations knows the name, so that an unchanged table can be
//! shared between snapshots even when clusters come and go around it. Hence a number may have nothing behind it:
//! a route may name a cluster that is not there yet.

use crate::balance::Neighbourhood;
use crate::cluster::Ids;
pub use crate::cluster::{Cluster, Host, HostId};
use crate::filter::FilterNames;
use crate::listener::Listener;
use crate::route::RouteTable;
use std::collections::HashMap;
use std::sync::Arc;

/// Number of a cluster's name within a snapshot and its successors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub u32);

/// Number of a route table's name within a snapshot and its successors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u32);

/// Everything the data path decides by. Made by [`compile`](crate::compile()).
#[derive(Debug, Default)]
pub struct Snapshot {
    pub(crate) listeners: Box<[Arc<Listener>]>,
    pub(crate) tables: Slots<RouteTable>,
    pub(crate) clusters: Slots<Cluster>,
    pub(crate) filter_names: FilterNames,
    pub(crate) ids: Ids,
    /// Where the proxy and its fellows are.
    pub(crate) home: Option<Arc<Neighbourhood>>,
}

impl Snapshot {
    /// All listeners, in the order of the configuration.
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// A listener by name. Cost: linear in the number of listeners; per connection, not per request.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|l| l.config.name == name)
    }

    /// A cluster by number; `None` where its name is known only from routes.
    pub fn cluster(&self, id: ClusterId) -> Option<&Arc<Cluster>> {
        self.clusters.entry(id.0)
    }

    /// The number of a cluster that exists.
    pub fn cluster_named(&self, name: &str) -> Option<ClusterId> {
        self.clusters.existing(name).map(ClusterId)
    }

    /// All clusters that exist, by number.
    pub fn clusters(&self) -> impl Iterator<Item = (ClusterId, &Arc<Cluster>)> {
        self.clusters.iter().map(|(id, c)| (ClusterId(id), c))
    }

    /// One more than the largest cluster number in use: the length of a vector indexed by [`ClusterId`].
    pub fn cluster_slots(&self) -> usize {
        self.clusters.entries.len()
    }

    /// A route table by number; `None` while an RDS table has not arrived.
    pub fn table(&self, id: TableId) -> Option<&Arc<RouteTable>> {
        self.tables.entry(id.0)
    }

    /// All route tables that exist, named and inline.
    pub fn tables(&self) -> impl Iterator<Item = (TableId, &Arc<RouteTable>)> {
        self.tables.iter().map(|(id, t)| (TableId(id), t))
    }
}

/// Names with stable numbers, and what stands behind them.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    numbers: HashMap<Arc<str>, u32, foldhash::fast::RandomState>,
    entries: Vec<Option<Arc<T>>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { numbers: HashMap::default(), entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// The same names and numbers, with nothing behind them.
    pub(crate) fn successor(&self) -> Self {
        Self {
            numbers: self.numbers.clone(),
            entries: (0..self.entries.len()).map(|_| None).collect(),
            free: self.free.clone(),
        }
    }

    /// The number of a name, given one when it is new.
    pub(crate) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            (self.entries.len() - 1) as u32
        });
        self.numbers.insert(name.into(), number);
        number
    }

    pub(crate) fn put(&mut self, number: u32, value: Arc<T>) {
        if let Some(entry) = self.entries.get_mut(number as usize) {
            *entry = Some(value);
        }
    }

    pub(crate) fn entry(&self, number: u32) -> Option<&Arc<T>> {
        self.entries.get(number as usize)?.as_ref()
    }

    pub(crate) fn existing(&self, name: &str) -> Option<u32> {
        let number = *self.numbers.get(name)?;
        self.entry(number).map(|_| number)
    }

    /// What stands behind a name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<T>> {
        self.entry(*self.numbers.get(name)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Arc<T>)> {
        self.entries.iter().enumerate().filter_map(|(i, e)| Some((i as u32, e.as_ref()?)))
    }

    /// Forgets names that nothing stands behind and nothing refers to; their numbers may be given again by the *next*
    /// compilation, whose tables cannot contain them.
    pub(crate) fn forget_unused(&mut self, mut is_referenced: impl FnMut(u32) -> bool) {
        let entries = &self.entries;
        let free = &mut self.free;
        self.numbers.retain(|_, number| {
            let there = entries.get(*number as usize).is_some_and(Option::is_some);
            let keep = there || is_referenced(*number);
            if !keep {
                free.push(*number);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_numbers_stay_while_names_are_used_and_return_afterwards() {
        let mut slots: Slots<u8> = Slots::default();
        let (a, b) = (slots.number("a"), slots.number("b"));
        slots.put(a, Arc::new(1));
        slots.forget_unused(|n| n == b);
        let mut next = slots.successor();
        assert_eq!((next.number("a"), next.number("b")), (a, b));
        assert!(next.named("a").is_none());
        next.put(b, Arc::new(2));
        next.forget_unused(|_| false);
        let mut last = next.successor();
        assert_eq!(last.number("c"), a, "the number of a forgotten name is given again");
        assert_eq!(last.number("b"), b);
    }
}
