//! The less loaded of a few random hosts ("power of two choices").
//!
//! Candidates are drawn by weight and compared by requests under way divided by weight: an idle cluster is shared by
//! weight, a loaded one too, and a slow host gets less. With another bias than 1 the candidates of different weights are not
//! compared but drawn once more, each by the share `1 / (requests + 1)^bias`: the shares that Envoy's schedule tends to.

use super::weights::Weights;
use super::{BalancerFactory, PickContext, Picker, below};
use crate::cluster::Host;
use crate::config;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Draws beyond this cost more than they bring.
const CHOICES_MAX: u32 = 32;

/// Candidates that are drawn from once more: enough for shares near those of all hosts.
const BIASED_CHOICES: usize = 32;

/// The policy `LEAST_REQUEST`.
#[derive(Debug)]
pub(super) struct LeastRequest(config::LeastRequest);

impl LeastRequest {
    pub(super) fn new(config: &config::LeastRequest) -> Self {
        Self(config.clone())
    }
}

#[derive(Debug)]
struct Choices {
    choices: u32,
    weights: Weights,
}

#[derive(Debug)]
struct Biased {
    bias: f64,
    weights: Weights,
}

#[derive(Debug)]
struct FullScan;

impl BalancerFactory for LeastRequest {
    fn name(&self) -> &'static str {
        "least_request"
    }

    fn build(&self, hosts: &[Arc<Host>]) -> Arc<dyn Picker> {
        let weights = Weights::of_hosts(hosts);
        let is_even = matches!(weights, Weights::Equal(_));
        let bias = self.0.active_request_bias;
        if !is_even && (bias - 1.0).abs() > f64::EPSILON {
            return Arc::new(Biased { bias, weights });
        }
        if self.0.full_scan && is_even {
            return Arc::new(FullScan);
        }
        Arc::new(Choices { choices: self.0.choice_count.clamp(2, CHOICES_MAX), weights })
    }
}

impl Picker for Choices {
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

impl Picker for Biased {
    fn pick(&self, hosts: &[Arc<Host>], context: &mut PickContext<'_>) -> Option<usize> {
        if self.bias == 0.0 {
            return self.weights.position((context.draw)());
        }
        let mut candidates = [(0_usize, 0.0_f64); BIASED_CHOICES];
        let mut sum = 0.0;
        for slot in &mut candidates {
            let at = self.weights.position((context.draw)())?;
            sum += (load_of(hosts.get(at)?).0 as f64 + 1.0).powf(-self.bias);
            *slot = (at, sum);
        }
        let draw = (context.draw)() as f64 / u64::MAX as f64 * sum;
        candidates.iter().find(|(_, upper)| draw <= *upper).or(candidates.last()).map(|(at, _)| *at)
    }
}

impl Picker for FullScan {
    /// One of the least loaded, at random.
    fn pick(&self, hosts: &[Arc<Host>], context: &mut PickContext<'_>) -> Option<usize> {
        let active = |host: &Arc<Host>| host.live.requests_active.load(Relaxed);
        let least = hosts.iter().map(active).min()?;
        let idle = || hosts.iter().enumerate().filter(|(_, host)| active(host) <= least);
        let at = below((context.draw)(), idle().count());
        // Others pick at the same time: what was least may be so no more.
        idle().nth(at).map_or(Some(0), |(at, _)| Some(at))
    }
}

fn load_of(host: &Host) -> (u64, u64) {
    (host.live.requests_active.load(Relaxed).into(), host.weight.into())
}
