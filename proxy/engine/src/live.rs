//! Everything that must agree with each other, behind one pointer.
//!
//! A [`Live`] is built on the control thread when a configuration is applied, and never changed afterwards, apart from
//! the counters and host sets it points to. Workers read it through [`crate::worker::Worker::live`]; a request keeps the one it began with.

use crate::dns::Zone;
use crate::filter::RequestFilter;
use crate::identity::{ClientTls, ServerTls};
use crate::telemetry::access_log::AccessLogger;
use crate::telemetry::labels::ServiceLabels;
use crate::telemetry::local_reply::LocalReplies;
use crate::telemetry::trace::SpanPlan;
use crate::telemetry::{ClusterStats, HttpStats, ListenerStats, Sharded, TcpStats};
use crate::worker::Worker;
use outrigger_traffic::cluster::{Cluster, Host};
use outrigger_traffic::config::TrafficDirection;
use outrigger_traffic::listener::{FilterChain, Listener};
use outrigger_traffic::outcome::Outcome;
use outrigger_traffic::outlier::{Cause, Ejection};
use outrigger_traffic::snapshot::{ClusterId, Snapshot};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// The running configuration of a proxy.
#[derive(Debug)]
pub struct Live {
    /// Counts up with every change; what tells a long-lived connection to look its chain up again.
    pub version: u64,
    /// The decisions.
    pub snapshot: Arc<Snapshot>,
    /// By name.
    pub listeners: HashMap<Arc<str>, Arc<LiveListener>>,
    /// The same by every address asked for, bound or not.
    pub by_address: HashMap<SocketAddr, Arc<LiveListener>>,
    /// By [`ClusterId`]; `None` where a number has no cluster behind it.
    pub clusters: Box<[Option<Arc<LiveCluster>>]>,
}

impl Live {
    /// What a cluster id of this snapshot stands for.
    pub fn cluster(&self, id: ClusterId) -> Option<&Arc<LiveCluster>> {
        self.clusters.get(id.0 as usize)?.as_ref()
    }

    /// The listener for connections that were going to an address: the one of that address, else the one of its port at
    /// all addresses of its family.
    pub fn listener_at(&self, address: SocketAddr) -> Option<&Arc<LiveListener>> {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.by_address.get(&address).or_else(|| self.by_address.get(&SocketAddr::new(any, address.port())))
    }
}

/// A listener with its TLS configurations and counters.
#[derive(Debug)]
pub struct LiveListener {
    /// Unique name.
    pub name: Arc<str>,
    /// Its decisions.
    pub listener: Arc<Listener>,
    /// Same order as `listener.chains`, and the default chain last where there is one.
    pub chains: Vec<Arc<LiveChain>>,
    /// Whether the first bytes are looked at before a chain is chosen.
    pub inspect: bool,
    /// Counters, kept while a listener of this name exists.
    pub stats: Arc<Sharded<ListenerStats>>,
    /// What it answers with, where it serves DNS and no connections.
    pub dns: Option<Arc<Zone>>,
    /// Logs of connections that no chain was found for or that no chain logs.
    pub logs: Box<[Arc<AccessLogger>]>,
}

impl LiveListener {
    /// The running form of a chain that [`Listener::chain_for`] chose.
    pub fn chain(&self, chosen: &Arc<FilterChain>) -> Option<&Arc<LiveChain>> {
        self.chains.get(chosen.index)
    }
}

/// A filter chain with its TLS configuration and counters.
#[derive(Debug)]
pub struct LiveChain {
    /// Name; may be empty.
    pub name: Arc<str>,
    /// Its decisions.
    pub chain: Arc<FilterChain>,
    /// TLS terminated here; `None` is plaintext.
    pub tls: Option<Arc<ServerTls>>,
    /// Counters of the chain's connection manager, by its `stat_prefix`; of a TCP chain, never counted up.
    pub stats: Arc<Sharded<HttpStats>>,
    /// Counters of the chain's TCP proxy, by its `stat_prefix`; of an HTTP chain, never counted up.
    pub tcp_stats: Arc<Sharded<TcpStats>>,
    /// Filters of the embedding program, at the places they have in the chain of filters.
    pub registered: Box<[Option<Arc<dyn RequestFilter>>]>,
    /// How responses look that are made here; `None`: as they are.
    pub replies: Option<Box<LocalReplies>>,
    /// Access logs of the connection manager or TCP proxy.
    pub logs: Box<[Arc<AccessLogger>]>,
    /// Which side of a sidecar the listener is.
    pub direction: TrafficDirection,
    /// `service.name` of spans.
    pub service_name: Arc<str>,
    /// What spans say; `None`: nothing is traced.
    pub spans: Option<Box<SpanPlan>>,
}

/// A chain as connections hold it.
pub type LiveChainRef = Arc<LiveChain>;

/// A cluster with its TLS configuration and counters.
#[derive(Debug)]
pub struct LiveCluster {
    /// Its index in [`Live::clusters`].
    pub id: ClusterId,
    /// Unique name.
    pub name: Arc<str>,
    /// Its decisions and hosts.
    pub cluster: Arc<Cluster>,
    /// TLS to the hosts; `None` is plaintext. Its epoch changes with its certificates.
    pub tls: Option<Arc<ClientTls>>,
    /// Counters, kept while a cluster of this name exists.
    pub stats: Arc<Sharded<ClusterStats>>,
    /// The service it stands for, in metrics.
    pub service: ServiceLabels,
}

impl LiveCluster {
    /// Takes back how an attempt ended, and counts an ejection that it led to.
    pub fn report(&self, worker: &Worker, host: &Host, outcome: Outcome, now: Instant) {
        let ejection = self.cluster.report(host, outcome, now, worker.draw_u32());
        if ejection != Ejection::None {
            self.count(ejection, self.stats.at(worker.id));
        }
    }

    /// Counts what outlier detection decided.
    pub(crate) fn count(&self, ejection: Ejection, stats: &ClusterStats) {
        let (cause, enforced) = match ejection {
            Ejection::None => return,
            Ejection::Ejected(cause) => (cause, true),
            Ejection::NotEnforced(cause) => (cause, false),
            Ejection::Overflow(cause) => {
                stats.ejections_overflow.inc();
                (cause, false)
            }
        };
        let (detected, ejected) = match cause {
            Cause::Consecutive5xx => {
                (&stats.ejections_detected_consecutive_5xx, &stats.ejections_enforced_consecutive_5xx)
            }
            Cause::ConsecutiveGatewayFailure => (
                &stats.ejections_detected_consecutive_gateway_failure,
                &stats.ejections_enforced_consecutive_gateway_failure,
            ),
            Cause::ConsecutiveLocalOriginFailure => (
                &stats.ejections_detected_consecutive_local_origin_failure,
                &stats.ejections_enforced_consecutive_local_origin_failure,
            ),
            Cause::SuccessRate => {
                (&stats.ejections_detected_success_rate, &stats.ejections_enforced_success_rate)
            }
            Cause::LocalOriginSuccessRate => (
                &stats.ejections_detected_local_origin_success_rate,
                &stats.ejections_enforced_local_origin_success_rate,
            ),
            Cause::FailurePercentage => {
                (&stats.ejections_detected_failure_percentage, &stats.ejections_enforced_failure_percentage)
            }
            Cause::LocalOriginFailurePercentage => (
                &stats.ejections_detected_local_origin_failure_percentage,
                &stats.ejections_enforced_local_origin_failure_percentage,
            ),
        };
        detected.inc();
        if enforced {
            ejected.inc();
            stats.ejections_enforced_total.inc();
        }
    }
}

/// A worker's own handle on a [`Live`]: cloning touches no memory shared between threads.
#[derive(Clone, Debug)]
#[allow(
    clippy::redundant_allocation,
    reason = "the outer pointer is the worker's own: cloning it is an ordinary addition"
)]
pub struct LiveRef(Rc<Arc<Live>>);

impl LiveRef {
    /// Wraps what was loaded.
    pub fn new(live: Arc<Live>) -> Self {
        Self(Rc::new(live))
    }
}

impl Deref for LiveRef {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.0
    }
}
