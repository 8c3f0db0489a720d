//! Which cluster a request goes to: one, one of several by weight, or the one a header names.

use super::{Edits, HostRewriter};
use crate::balance::Criteria;
use crate::filter::RouteFilters;
use crate::snapshot::{ClusterId, Snapshot};
use crate::view::FieldView;
use std::sync::Arc;

/// A compiled [`config::ClusterChoice`](crate::config::ClusterChoice).
#[derive(Debug)]
pub enum Choice {
    /// This one.
    Single(ClusterId),
    /// One of these.
    Weighted(Box<[Share]>),
    /// Named by a request header.
    Header(Box<[u8]>),
}

/// A weighted cluster.
#[derive(Debug)]
pub struct Share {
    /// The cluster, where no header names it.
    pub cluster: ClusterId,
    /// The request header that names it.
    pub(crate) cluster_header: Option<Box<[u8]>>,
    /// Sum of the weights up to and including this one.
    pub(crate) upper: u32,
    /// Its own request edits.
    pub request_edits: Edits,
    /// Response edits of share, route, virtual host and table.
    pub response_edits: Edits,
    /// Authority for this share.
    pub host_rewrite: Option<HostRewriter>,
    /// What HTTP filters do for it: its own word and that of the levels above.
    pub filters: RouteFilters,
    /// What share and route demand of hosts.
    pub criteria: Option<Arc<Criteria>>,
}

/// Where a request goes. The cluster exists in the snapshot that was asked.
#[derive(Clone, Copy, Debug)]
pub struct Target<'r> {
    /// The cluster.
    pub cluster: ClusterId,
    /// The share's edits of the request, made first of all.
    pub share_edits: Option<&'r Edits>,
    /// Edits of the request by route, virtual host and table; made before the rewrites of authority and path.
    pub request_edits: &'r Edits,
    /// To be applied to the response, everything merged.
    pub response_edits: &'r Edits,
    /// Rewrite of the authority by the share, before the route's; nobody is told of it.
    pub share_host: Option<&'r HostRewriter>,
    /// Rewrite of the authority by the route.
    pub host_rewrite: Option<&'r HostRewriter>,
    /// What is demanded of hosts: the share's and the route's, else the route's.
    pub criteria: Option<&'r Arc<Criteria>>,
}

impl Choice {
    /// The chosen cluster (and share) where it exists.
    pub fn choose<F: FieldView + ?Sized>(
        &self,
        snapshot: &Snapshot,
        fields: &F,
        draw: Draw,
    ) -> Option<(ClusterId, Option<&Share>)> {
        let named = |header: &[u8]| {
            let name = std::str::from_utf8(fields.header(header)?).ok()?;
            snapshot.cluster_named(name)
        };
        let (cluster, share) = match self {
            Self::Single(cluster) => (*cluster, None),
            Self::Weighted(shares) => {
                let share = pick_share(shares, draw)?;
                match &share.cluster_header {
                    None => (share.cluster, Some(share)),
                    Some(header) => (named(header)?, Some(share)),
                }
            }
            Self::Header(name) => (named(name)?, None),
        };
        snapshot.cluster(cluster).map(|_| (cluster, share))
    }

    /// What HTTP filters do for the share that the draw falls into; `None` where there are no shares.
    pub(crate) fn filters(&self, draw: Draw) -> Option<&RouteFilters> {
        let Self::Weighted(shares) = self else { return None };
        pick_share(shares, draw).map(|share| &share.filters)
    }
}

/// What chooses a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Chance: uniformly random over all 64 bits.
    Random(u64),
    /// A number that the request brought.
    Given(u64),
}

/// The share that a draw falls into. Shares of weight 0 are never picked.
fn pick_share(shares: &[Share], draw: Draw) -> Option<&Share> {
    let total = shares.last()?.upper;
    let at = match draw {
        // The high half times the total: uniform to 2⁻³², without a division.
        Draw::Random(bits) => (((bits >> 32) * u64::from(total)) >> 32) as u32,
        Draw::Given(number) => number.checked_rem(total.into())? as u32,
    };
    shares.get(shares.partition_point(|s| s.upper <= at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_picked_by_weight_and_never_at_zero() {
        let share = |n: u32, upper: u32| Share {
            cluster: ClusterId(n),
            cluster_header: None,
            upper,
            request_edits: Edits::default(),
            response_edits: Edits::default(),
            host_rewrite: None,
            filters: RouteFilters::default(),
            criteria: None,
        };
        let shares = [share(0, 0), share(1, 10), share(2, 10), share(3, 100)];
        let mut counts = [0u32; 4];
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..100_000 {
            counts[pick_share(&shares, Draw::Random(rng.u64(..))).unwrap().cluster.0 as usize] += 1;
        }
        assert_eq!((counts[0], counts[2]), (0, 0));
        assert!((9_500..10_500).contains(&counts[1]), "{counts:?}");
        assert_eq!(pick_share(&shares, Draw::Random(0)).unwrap().cluster, ClusterId(1));
        assert_eq!(pick_share(&shares, Draw::Random(u64::MAX)).unwrap().cluster, ClusterId(3));
        for (number, cluster) in [(0, 1), (9, 1), (10, 3), (99, 3), (100, 1), (u64::MAX, 3)] {
            assert_eq!(
                pick_share(&shares, Draw::Given(number)).unwrap().cluster,
                ClusterId(cluster),
                "{number}"
            );
        }
        assert!(pick_share(&[], Draw::Given(1)).is_none());
        assert!(pick_share(&[], Draw::Random(0)).is_none());
    }
}
