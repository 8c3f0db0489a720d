//! Round robin, by weight where weights differ.
//!
//! With weights, a turn is as many rounds over the hosts as the heaviest weighs. A host of weight *w* is taken in the
//! rounds in which the whole part of `round × w / heaviest` grows: exactly *w* times in a turn, evenly spread. The
//! state is one counter, so any number of workers may pick at once; and as the heaviest host is taken in every round,
//! a pick looks at no more hosts than there are. (The idea of the static-stride schedule of gRFC A58.)

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

    fn build(&self, hosts: &[Arc<Host>]) -> Arc<dyn Picker> {
        let heaviest = hosts.iter().map(|h| h.weight).max().unwrap_or(1);
        let is_even = hosts.iter().all(|h| h.weight == heaviest);
        let start = Turn::default();
        if is_even {
            Arc::new(Even { next: start })
        } else {
            Arc::new(Weighted { next: start, heaviest: heaviest.into() })
        }
    }
}

/// Whose turn it is. The first pick draws where to begin: proxies that start together must not all begin with the
/// same host.
#[derive(Debug)]
struct Turn(AtomicU64);

/// Above every turn that is ever reached.
const NOT_BEGUN: u64 = 1 << 63;

impl Default for Turn {
    fn default() -> Self {
        Self(AtomicU64::new(NOT_BEGUN))
    }
}

impl Turn {
    fn next(&self, context: &mut PickContext<'_>) -> u64 {
        let turn = self.0.fetch_add(1, Relaxed);
        if turn < NOT_BEGUN {
            return turn;
        }
        // Workers that come here at the same time begin twice, which harms nobody.
        let begin = (context.draw)() >> 33;
        self.0.store(begin + 1, Relaxed);
        begin
    }
}

#[derive(Debug)]
struct Even {
    next: Turn,
}

impl Picker for Even {
    fn pick(&self, hosts: &[Arc<Host>], context: &mut PickContext<'_>) -> Option<usize> {
        let turn = self.next.next(context);
        turn.checked_rem(hosts.len() as u64).map(|at| at as usize)
    }
}

#[derive(Debug)]
struct Weighted {
    next: Turn,
    heaviest: u64,
}

impl Picker for Weighted {
    fn pick(&self, hosts: &[Arc<Host>], context: &mut PickContext<'_>) -> Option<usize> {
        let count = hosts.len() as u64;
        // Other workers take turns in between, so the bound is a safety net, not a proof.
        for _ in 0..4 * count {
            let turn = self.next.next(context);
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
