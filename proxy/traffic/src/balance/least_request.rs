//! The less loaded of a few random hosts ("power of two choices").
//!
//! Candidates are drawn by weight and compared by requests under way divided by weight: an idle cluster is shared by
//! weight, a loaded one too, and a slow host gets less.

use super::weights::Weights;
use super::{BalancerFactory, PickContext, Picker};
use crate::cluster::Host;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Draws beyond this cost more than they bring.
const CHOICES_MAX: u32 = 32;

/// The policy `LEAST_REQUEST`.
#[derive(Debug)]
pub(super) struct LeastRequest {
    choices: u32,
}

impl LeastRequest {
    pub(super) fn new(choices: u32) -> Self {
        Self { choices: choices.clamp(2, CHOICES_MAX) }
    }
}

#[derive(Debug)]
struct LeastRequestPicker {
    choices: u32,
    weights: Weights,
}

impl BalancerFactory for LeastRequest {
    fn name(&self) -> &'static str {
        "least_request"
    }

    fn build(&self, hosts: &[Arc<Host>]) -> Arc<dyn Picker> {
        Arc::new(LeastRequestPicker { choices: self.choices, weights: Weights::of_hosts(hosts) })
    }
}

impl Picker for LeastRequestPicker {
    fn pick(&self, hosts: &[Arc<Host>], context: &mut PickContext<'_>) -> Option<usize> {
        let mut best = self.weights.position((context.draw)())?;
        if hosts.len() < 2 {
            return Some(best);
        }
        let mut load = load_of(hosts.get(best)?);
        for _ in 1..self.choices {
            let at = self.weights.position((context.draw)())?;
            let (active, weight) = load_of(hosts.get(at)?);
            // active / weight < load.active / load.weight, without division.
            if active * load.1 < load.0 * weight {
                best = at;
                load = (active, weight);
            }
        }
        Some(best)
    }
}

fn load_of(host: &Host) -> (u64, u64) {
    (host.live.requests_active.load(Relaxed).into(), host.weight.into())
}
