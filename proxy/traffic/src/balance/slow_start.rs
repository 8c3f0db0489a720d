//! New hosts get their share little by little, so that caches and compilers warm up before the full load comes.
//!
//! A pick that falls on a new host stands only with the chance that its age allows; otherwise another pick is made. So a
//! host's share is in proportion to its weight × its factor, whatever the policy below, and nothing needs to be rebuilt as
//! hosts grow older. Source: Envoy: slow start mode, for the factor.

use super::{BalancerFactory, PickContext, Picker};
use crate::cluster::Host;
use crate::config;
use std::sync::Arc;
use std::time::Duration;

/// Picks in search of a host whose turn it may be; the last one stands.
const PICKS_MAX: u32 = 32;

/// A policy, and new hosts.
#[derive(Debug)]
pub(super) struct SlowStart {
    pub(super) below: Arc<dyn BalancerFactory>,
    pub(super) config: config::SlowStart,
}

#[derive(Debug)]
struct SlowPicker {
    below: Arc<dyn Picker>,
    config: config::SlowStart,
}

impl BalancerFactory for SlowStart {
    fn name(&self) -> &'static str {
        self.below.name()
    }

    fn build(&self, hosts: &[Arc<Host>]) -> Arc<dyn Picker> {
        Arc::new(SlowPicker { below: self.below.build(hosts), config: self.config.clone() })
    }
}

impl Picker for SlowPicker {
    fn pick(&self, hosts: &[Arc<Host>], context: &mut PickContext<'_>) -> Option<usize> {
        let mut at = self.below.pick(hosts, context)?;
        if hosts.len() < 2 {
            return Some(at);
        }
        for _ in 1..PICKS_MAX {
            let age = hosts.get(at)?.live.age(context.now);
            if age >= self.config.window {
                break;
            }
            let chance = factor(&self.config, age);
            let draw = (context.draw)() as f64 / u64::MAX as f64;
            if draw < chance {
                break;
            }
            at = self.below.pick(hosts, context)?;
        }
        Some(at)
    }
}

/// The part of its weight that a host of this age has.
pub(super) fn factor(config: &config::SlowStart, age: Duration) -> f64 {
    if age >= config.window {
        return 1.0;
    }
    let time = age.as_secs_f64().max(1.0) / config.window.as_secs_f64();
    let least = f64::from(config.min_weight.millionths()) / 1e6;
    time.powf(1.0 / config.aggression).max(least).min(1.0)
}
