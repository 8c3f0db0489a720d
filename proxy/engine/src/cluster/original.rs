//! Clusters whose hosts are the destinations of downstream connections (`ORIGINAL_DST`), and hosts that are told of these
//! connections (PROXY protocol).

use crate::listener::ConnFacts;
use crate::live::{Live, LiveCluster};
use crate::worker::Worker;
use outrigger_traffic::balance::{PickContext, SubsetFound, ZoneFound};
use outrigger_traffic::cluster::Cluster;
use outrigger_traffic::config::OriginalDst;
use outrigger_wire::RequestHead;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

/// Where a connection, or a request with `head`, is going. A header that is there and no address is no destination: to fall
/// back to another one would send the request where nobody asked for.
pub(crate) fn destination(
    original: &OriginalDst,
    facts: &ConnFacts,
    head: Option<&RequestHead>,
) -> Option<SocketAddr> {
    if let (Some(name), Some(head)) = (&original.header, head)
        && let Some(value) = named(head, name)
    {
        return std::str::from_utf8(value).ok()?.trim().parse().ok();
    }
    facts.original
}

/// The value of a header, or of `:authority`.
fn named<'h>(head: &'h RequestHead, name: &str) -> Option<&'h [u8]> {
    if name == ":authority" { Some(head.authority()) } else { head.fields.get(name.as_bytes()) }
}

/// Counts what a pick found out about its destination.
pub(crate) fn note_destination(cluster: &LiveCluster, worker: &Worker, context: &PickContext<'_>) {
    if context.unlisted {
        cluster.stats.at(worker.id).original_dst_unlisted.inc();
    }
    if context.panicked {
        cluster.stats.at(worker.id).lb_healthy_panic.inc();
    }
    if context.destination.is_none() && cluster.cluster.original_dst().is_some() {
        cluster.stats.at(worker.id).original_dst_host_invalid.inc();
    }
}

/// Counts how a pick came to its hosts, where the cluster is divided or requests are kept in their zone.
pub(crate) fn note_way(cluster: &LiveCluster, worker: &Worker, context: &PickContext<'_>) {
    if context.zone != ZoneFound::None {
        let stats = cluster.stats.at(worker.id);
        match context.zone {
            ZoneFound::None => {}
            ZoneFound::Direct => stats.lb_zone_routing_all_directly.inc(),
            ZoneFound::Sampled => stats.lb_zone_routing_sampled.inc(),
            ZoneFound::Elsewhere => stats.lb_zone_routing_cross_zone.inc(),
            ZoneFound::NoCapacity => {
                stats.lb_zone_routing_cross_zone.inc();
                stats.lb_zone_no_capacity_left.inc();
            }
        }
    }
    if context.subset == SubsetFound::None {
        return;
    }
    let stats = cluster.stats.at(worker.id);
    match context.subset {
        SubsetFound::None => {}
        SubsetFound::Selected => stats.lb_subsets_selected.inc(),
        SubsetFound::Fallback => stats.lb_subsets_fallback.inc(),
        SubsetFound::FallbackPanic => {
            stats.lb_subsets_fallback.inc();
            stats.lb_subsets_fallback_panic.inc();
        }
    }
}

/// What the hosts of a cluster are told of a downstream connection.
pub(crate) fn proxied(cluster: &Cluster, facts: &ConnFacts) -> Option<(SocketAddr, SocketAddr)> {
    cluster.config.proxy_protocol.map(|_| (facts.remote, facts.local))
}

/// Forgets unused destinations, those of each cluster at its own interval.
#[derive(Debug, Default)]
pub struct Tidier {
    due: HashMap<u64, Instant>,
}

impl Tidier {
    /// Tidies the clusters whose time has come.
    pub fn tidy(&mut self, live: &Live, now: Instant) {
        let mut due = HashMap::with_capacity(self.due.len());
        for cluster in live.clusters.iter().flatten() {
            let Some(original) = cluster.cluster.original_dst() else { continue };
            let uid = cluster.cluster.uid;
            let mut at = self.due.get(&uid).copied().unwrap_or(now + original.cleanup_interval);
            if at <= now {
                let left = cluster.cluster.tidy_destinations();
                if left > 0 {
                    tracing::debug!(cluster = &*cluster.name, left, "unused destinations are forgotten");
                }
                at = now + original.cleanup_interval;
            }
            due.insert(uid, at);
        }
        self.due = due;
    }
}
