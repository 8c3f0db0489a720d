//! Uniformly random. Weights of hosts have no say, as in Envoy.

use super::weights::Weights;
use super::{BalancerFactory, PickContext, Picker};
use crate::cluster::Host;
use std::sync::Arc;

/// The policy `RANDOM`.
#[derive(Debug)]
pub(super) struct Random;

#[derive(Debug)]
struct RandomPicker(Weights);

impl BalancerFactory for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn build(&self, hosts: &[Arc<Host>]) -> Arc<dyn Picker> {
        Arc::new(RandomPicker(Weights::Equal(hosts.len())))
    }
}

impl Picker for RandomPicker {
    fn pick(&self, _hosts: &[Arc<Host>], context: &mut PickContext<'_>) -> Option<usize> {
        self.0.position((context.draw)())
    }
}
