//! Hosts in a table that a hash is an index of. Each host has an order of its own in which it wants the table's places, and
//! hosts take them in turn, by weight, until all are taken. Source: Eisenbud et al., "Maglev" (NSDI 2016), listing 1; weights
//! and order of hosts as in Envoy, so that both send a request to the same host.

use super::hashing::{HashPicker, Table, key};
use super::{BalancerFactory, Picker, TableFigures};
use crate::cluster::Host;
use crate::config;
use crate::hash::xxh64;
use std::sync::Arc;

/// Envoy's largest table.
pub(crate) const TABLE_SIZE_MAX: u64 = 5_000_011;

/// The policy `MAGLEV`.
#[derive(Debug)]
pub(super) struct Maglev(pub(super) config::Maglev);

#[derive(Debug)]
struct Places {
    owners: Owners,
    size: u64,
    figures: TableFigures,
}

/// Whose each place is; the smaller form where it does.
#[derive(Debug)]
enum Owners {
    Few(Box<[u16]>),
    Many(Box<[u32]>),
}

/// A host that takes places.
struct Claimant {
    at: u32,
    key: String,
    share: f64,
    offset: u64,
    skip: u64,
    next: u64,
    due: f64,
    taken: u64,
}

impl BalancerFactory for Maglev {
    fn name(&self) -> &'static str {
        "maglev"
    }

    fn build(&self, hosts: &[Arc<Host>]) -> Arc<dyn Picker> {
        self.build_shared(hosts, super::hashing::shares(hosts, None))
    }

    fn build_shared(&self, hosts: &[Arc<Host>], shares: Vec<f64>) -> Arc<dyn Picker> {
        Arc::new(HashPicker::new(Places::new(&self.0, hosts, &shares), &self.0.hashing, shares))
    }
}

impl Places {
    fn new(config: &config::Maglev, hosts: &[Arc<Host>], shares: &[f64]) -> Self {
        let size = config.table_size.clamp(2, TABLE_SIZE_MAX);
        let mut claimants: Vec<Claimant> = hosts
            .iter()
            .zip(shares)
            .enumerate()
            .filter(|(_, (_, share))| **share > 0.0)
            .map(|(at, (host, share))| {
                let key = key(host, &config.hashing);
                let offset = xxh64(key.as_bytes(), 0) % size;
                let skip = xxh64(key.as_bytes(), 1) % (size - 1) + 1;
                Claimant { at: at as u32, key, share: *share, offset, skip, next: 0, due: 0.0, taken: 0 }
            })
            .collect();
        claimants.sort_by(|a, b| a.key.cmp(&b.key).then(a.share.total_cmp(&b.share)));
        let owners = fill(&mut claimants, size);
        let figures = TableFigures {
            size: if claimants.is_empty() { 0 } else { size },
            least: claimants.iter().map(|one| one.taken).min().unwrap_or(0),
            most: claimants.iter().map(|one| one.taken).max().unwrap_or(0),
        };
        let owners = match u16::try_from(hosts.len()) {
            Ok(_) => Owners::Few(owners.iter().map(|at| *at as u16).collect()),
            Err(_) => Owners::Many(owners.into()),
        };
        Self { owners, size, figures }
    }
}

fn fill(claimants: &mut [Claimant], size: u64) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    if claimants.is_empty() {
        return Vec::new();
    }
    let most = claimants.iter().map(|one| one.share).fold(0.0, f64::max);
    let mut owners = vec![FREE; size as usize];
    let mut left = size;
    let mut turn = 0.0;
    while left > 0 {
        turn += 1.0;
        for one in claimants.iter_mut() {
            if left == 0 {
                break;
            }
            // The heaviest takes one in every turn, another one in proportion.
            if turn * one.share < one.due {
                continue;
            }
            one.due += most;
            loop {
                let wanted = (one.offset + one.skip * one.next) % size;
                one.next += 1;
                if let Some(owner) = owners.get_mut(wanted as usize).filter(|owner| **owner == FREE) {
                    *owner = one.at;
                    break;
                }
            }
            one.taken += 1;
            left -= 1;
        }
    }
    owners
}

impl Table for Places {
    fn host(&self, hash: u64, attempt: u32) -> Option<usize> {
        // Later attempts change many bits, so that those of one host do not all go to the same other one.
        let hash = if attempt > 0 { hash ^ (!0 - u64::from(attempt) + 1) } else { hash };
        let at = (hash % self.size) as usize;
        match &self.owners {
            Owners::Few(owners) => owners.get(at).map(|owner| usize::from(*owner)),
            Owners::Many(owners) => owners.get(at).map(|owner| *owner as usize),
        }
    }

    fn figures(&self) -> TableFigures {
        self.figures
    }
}

/// Whether a table may have this size: its places are all come by only if it is prime.
pub(crate) fn is_prime(n: u64) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}
