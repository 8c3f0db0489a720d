//! Weighted random positions.

use super::below;
use crate::cluster::Host;
use std::sync::Arc;

/// Positions drawn in proportion to weights; equal weights cost no search.
#[derive(Debug)]
pub(super) enum Weights {
    Equal(usize),
    /// Running sums.
    Sums(Box<[u64]>),
}

impl Weights {
    pub(super) fn of_hosts(hosts: &[Arc<Host>]) -> Self {
        let first = hosts.first().map(|h| h.weight);
        if hosts.iter().all(|h| Some(h.weight) == first) {
            return Self::Equal(hosts.len());
        }
        Self::sums(hosts.iter().map(|h| u64::from(h.weight)))
    }

    pub(super) fn sums(weights: impl Iterator<Item = u64>) -> Self {
        let mut sum = 0u64;
        Self::Sums(
            weights
                .map(|w| {
                    sum = sum.saturating_add(w);
                    sum
                })
                .collect(),
        )
    }

    pub(super) fn total(&self) -> u64 {
        match self {
            Self::Equal(count) => *count as u64,
            Self::Sums(sums) => sums.last().copied().unwrap_or(0),
        }
    }

    /// A position; `None` where nothing has weight.
    pub(super) fn position(&self, draw: u64) -> Option<usize> {
        match self {
            Self::Equal(0) => None,
            Self::Equal(count) => Some(below(draw, *count)),
            Self::Sums(sums) => {
                let total = self.total();
                if total == 0 {
                    return None;
                }
                let at = ((u128::from(draw) * u128::from(total)) >> 64) as u64;
                Some(sums.partition_point(|s| *s <= at))
            }
        }
    }
}
