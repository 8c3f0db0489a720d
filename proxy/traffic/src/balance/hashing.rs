//! What the policies that go by a request's hash have in common: hosts' keys and shares, and the limit on each host's load.
//!
//! A request with the same hash goes to the same host as long as the hosts stay, on every proxy that has the same hosts: the
//! tables depend on nothing but hosts and weights. They are built by whoever changes the hosts; a pick only looks up. A
//! request without a hash goes anywhere.

use super::{PickContext, Picker, TableFigures};
use crate::cluster::Host;
use crate::config::Hashing;
use crate::hash::xxh64;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A table of hosts by hash.
pub(super) trait Table: Debug + Send + Sync {
    /// The host of a hash; another one for later attempts. `None` only for an empty table.
    fn host(&self, hash: u64, attempt: u32) -> Option<usize>;

    /// Its size.
    fn figures(&self) -> TableFigures;
}

/// What a host is known by.
pub(super) fn key(host: &Host, hashing: &Hashing) -> String {
    if !host.hash_key.is_empty() {
        host.hash_key.to_string()
    } else if hashing.use_hostname && !host.hostname.is_empty() {
        host.hostname.to_string()
    } else {
        host.address.to_string()
    }
}

/// Each host's share of the whole; they sum to 1. `places` groups hosts by locality with its weight where localities count:
/// a locality without weight gets nothing.
pub(super) fn shares(hosts: &[Arc<Host>], places: Option<&[(u64, Vec<usize>)]>) -> Vec<f64> {
    let mut shares = vec![0.0; hosts.len()];
    let mut share_out = |part: f64, members: &mut dyn Iterator<Item = usize>| {
        let members: Vec<usize> = members.collect();
        let weight = |at: &usize| hosts.get(*at).map_or(0, |host| u64::from(host.weight));
        let sum: u64 = members.iter().map(weight).sum();
        for at in members {
            if let Some(share) = shares.get_mut(at) {
                *share = weight(&at) as f64 * part / sum.max(1) as f64;
            }
        }
    };
    match places {
        None => share_out(1.0, &mut (0..hosts.len())),
        Some(places) => {
            let sum: u64 = places.iter().map(|(weight, _)| *weight).sum();
            for (weight, members) in places {
                share_out(*weight as f64 / sum.max(1) as f64, &mut members.iter().copied());
            }
        }
    }
    shares
}

/// Picks from a table, within the limits of hosts' loads.
#[derive(Debug)]
pub(super) struct HashPicker<T> {
    pub(super) table: T,
    /// Shares, where loads are limited, and the factor in percent.
    pub(super) bound: Option<(Box<[f64]>, u32)>,
}

impl<T: Table> HashPicker<T> {
    pub(super) fn new(table: T, hashing: &Hashing, shares: Vec<f64>) -> Self {
        Self { table, bound: hashing.balance_factor.map(|factor| (shares.into(), factor)) }
    }
}

impl<T: Table> Picker for HashPicker<T> {
    fn pick(&self, hosts: &[Arc<Host>], context: &mut PickContext<'_>) -> Option<usize> {
        let hash = context.hash.unwrap_or_else(|| (context.draw)());
        let first = self.table.host(hash, context.attempt)?;
        match &self.bound {
            None => Some(first),
            Some((shares, factor)) => Some(within_bound(first, hash, hosts, shares, *factor)),
        }
    }

    fn figures(&self) -> Option<TableFigures> {
        Some(self.table.figures())
    }
}

/// Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016): where the host has its fill, the next ones
/// in an order that depends on the hash alone are asked, so that the same request finds the same way around. Where all are
/// full, the least overfull one. Source: Envoy: `hash_balance_factor`.
fn within_bound(first: usize, hash: u64, hosts: &[Arc<Host>], shares: &[f64], factor: u32) -> usize {
    let active = |host: &Host| f64::from(host.live.requests_active.load(Relaxed));
    let total: u64 = hosts.iter().map(|host| u64::from(host.live.requests_active.load(Relaxed))).sum();
    let slots = ((total + 1) * u64::from(factor)).div_ceil(100);
    let fill = |at: usize| {
        let (host, share) = (hosts.get(at)?, shares.get(at)?);
        Some(active(host) / (slots as f64 * share).ceil().max(1.0))
    };
    let mut best = (first, fill(first).unwrap_or(0.0));
    if best.1 <= 1.0 {
        return first;
    }
    let count = hosts.len() as u64;
    let order = xxh64(&hash.to_le_bytes(), 1);
    let (start, step) = (order % count, stride(order >> 32, count));
    for turn in 0..count {
        let at = ((start + turn * step) % count) as usize;
        match fill(at) {
            // A host of a locality without weight is no alternative.
            _ if shares.get(at).is_none_or(|share| *share <= 0.0) => {}
            Some(fill) if fill <= 1.0 => return at,
            Some(fill) if fill < best.1 => best = (at, fill),
            _ => {}
        }
    }
    best.0
}

/// A step that comes by every position below `count` once.
fn stride(draw: u64, count: u64) -> u64 {
    const fn divisor(a: u64, b: u64) -> u64 {
        if b == 0 { a } else { divisor(b, a % b) }
    }
    let from = draw % count.max(1);
    (from..from + count).find(|step| divisor(*step, count) == 1).unwrap_or(1)
}
