//! Round robin, by weight where weights differ.
//!
//! With weights, one turn goes `heaviest` times around the hosts; in round *r*, a host of weight *w* takes its turn
//! when the whole part of `(r + offset) × w / heaviest` grows, which it does exactly *w* times in a turn, evenly spread. The state is
//! one counter, so any number of workers may pick at once. Same idea as the static-stride schedule of gRPC's weighted
//! round robin (gRFC A58), whose cost is bounded by one round: the heaviest host never passes.

use super::{BalancerFactory, PickContext, Picker};
use crate::cluster::Host;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The policy `ROUND_ROBIN`.
#[derive(Debug)]
pub(super) struct RoundRobin;

impl BalancerFactory for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
    }

    fn build(&self, hosts: &[Arc<Host>], seed: u64) -> Arc<dyn Picker> {
        let heaviest = hosts.iter().map(|h| h.weight).max().unwrap_or(1);
        let is_even = hosts.iter().all(|h| h.weight == heaviest);
        // Proxies that start together must not start with the same host.
        let start = AtomicU64::new(seed >> 32);
        if is_even {
            Arc::new(Even { next: start })
        } else {
            Arc::new(Weighted { next: start, heaviest: heaviest.into() })
        }
    }
}

#[derive(Debug)]
struct Even {
    next: AtomicU64,
}

impl Picker for Even {
    fn pick(&self, hosts: &[Arc<Host>], _context: &mut PickContext<'_>) -> Option<usize> {
        let turn = self.next.fetch_add(1, Relaxed);
        turn.checked_rem(hosts.len() as u64).map(|at| at as usize)
    }
}

#[derive(Debug)]
struct Weighted {
    next: AtomicU64,
    heaviest: u64,
}

impl Picker for Weighted {
    fn pick(&self, hosts: &[Arc<Host>], _context: &mut PickContext<'_>) -> Option<usize> {
        let count = hosts.len() as u64;
        // At most one round is without the heaviest host's turn ahead of us: two rounds always end.
        for _ in 0..=2 * count {
            let turn = self.next.fetch_add(1, Relaxed);
            let at = turn.checked_rem(count)?;
            let weight = u64::from(hosts.get(at as usize)?.weight);
            // Hosts of equal weight take turns in different rounds, so that the load of a turn is even in time.
            let round = (turn / count % self.heaviest).wrapping_add(at * 0x9E37_79B9 % self.heaviest);
            if (round + 1) * weight / self.heaviest > round * weight / self.heaviest {
                return Some(at as usize);
            }
        }
        Some(0)
    }
}
