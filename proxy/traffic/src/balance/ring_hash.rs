//! Hosts on a ring of hashes (ketama): a request goes to the next point at or after its own hash. When a host comes or goes,
//! only requests between its points and the ones before move.
//!
//! Points are hashes of `key_0`, `key_1`, … and their number follows the hosts' weights, exactly as in Envoy, so that both
//! send a request to the same host. Source: Envoy: load balancing, "ring hash"; libketama.

use super::hashing::{HashPicker, Table, key};
use super::{BalancerFactory, Picker, TableFigures};
use crate::cluster::Host;
use crate::config::{self, RingFunction};
use crate::hash::{MURMUR_SEED, murmur2, xxh64};
use std::fmt::Write as _;
use std::sync::Arc;

/// The policy `RING_HASH`.
#[derive(Debug)]
pub(super) struct RingHash(pub(super) config::RingHash);

#[derive(Debug)]
struct Ring {
    /// Ascending.
    points: Box<[u64]>,
    /// Whose each is.
    owners: Box<[u32]>,
    figures: TableFigures,
}

impl BalancerFactory for RingHash {
    fn name(&self) -> &'static str {
        "ring_hash"
    }

    fn build(&self, hosts: &[Arc<Host>]) -> Arc<dyn Picker> {
        self.build_shared(hosts, super::hashing::shares(hosts, None))
    }

    fn build_shared(&self, hosts: &[Arc<Host>], shares: Vec<f64>) -> Arc<dyn Picker> {
        Arc::new(HashPicker::new(Ring::new(&self.0, hosts, &shares), &self.0.hashing, shares))
    }
}

impl Ring {
    fn new(config: &config::RingHash, hosts: &[Arc<Host>], shares: &[f64]) -> Self {
        let least = shares.iter().copied().filter(|share| *share > 0.0).fold(1.0, f64::min);
        // The least host gets a whole number of points, as long as the ring does not become too large by it.
        let scale =
            ((least * config.minimum_ring_size as f64).ceil() / least).min(config.maximum_ring_size as f64);
        let (mut count, mut target) = (0.0_f64, 0.0_f64);
        let mut figures = TableFigures { size: scale.ceil() as u64, least: u64::MAX, most: 0 };
        let mut points: Vec<(u64, u32)> = Vec::with_capacity(scale.ceil() as usize + 1);
        let mut text = String::new();
        for (at, (host, share)) in
            hosts.iter().zip(shares).enumerate().filter(|(_, (_, share))| **share > 0.0)
        {
            let key = key(host, &config.hashing);
            target += scale * share;
            let mut number = 0_u64;
            while count < target {
                text.clear();
                // Writing to a String cannot fail.
                let _ = write!(text, "{key}_{number}");
                let hash = match config.function {
                    RingFunction::XxHash => xxh64(text.as_bytes(), 0),
                    RingFunction::Murmur2 => murmur2(text.as_bytes(), MURMUR_SEED),
                };
                points.push((hash, at as u32));
                number += 1;
                count += 1.0;
            }
            figures.least = figures.least.min(number);
            figures.most = figures.most.max(number);
        }
        if points.is_empty() {
            figures = TableFigures::default();
        }
        points.sort_unstable();
        Self {
            points: points.iter().map(|(hash, _)| *hash).collect(),
            owners: points.iter().map(|(_, at)| *at).collect(),
            figures,
        }
    }
}

impl Table for Ring {
    fn host(&self, hash: u64, attempt: u32) -> Option<usize> {
        let next = self.points.partition_point(|point| *point < hash);
        let at = next.checked_rem(self.points.len())?;
        let at = (at + attempt as usize) % self.points.len();
        self.owners.get(at).map(|owner| *owner as usize)
    }

    fn figures(&self) -> TableFigures {
        self.figures
    }
}
