//! Istio's standard metrics: `istio_requests_total` and its kin, labelled with both ends' identity.
//!
//! A worker finds the series of a request by a key of small numbers (hash of the peer's principal, cluster, host, status,
//! flags): one look-up, no formatting. Only the first request of a key builds the label text; keys with the same text share one
//! series. Both maps are bounded: what would be a series too many is counted in an overflow series, and counted as such.

use super::labels::{LabelText, ServiceLabels, UNKNOWN, WorkloadLabels};
use super::record::{ConnectionRecord, RequestRecord, UpstreamFacts};
use super::stats::{Counter, Distribution, Histogram};
use crate::listener::ConnFacts;
use crate::live::{LiveChain, LiveCluster};
use crate::worker::Worker;
use outrigger_traffic::config::TrafficDirection;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Label sets per worker and kind (requests, connections). One takes about 1.5 KiB.
pub const SERIES_MAX: usize = 2_000;

/// Keys per worker and kind; the map is emptied when it is full, and filled again from the label sets.
const KEYS_MAX: usize = 8_192;

/// What is counted per label set of requests.
#[derive(Debug, Default)]
pub struct RequestSeries {
    /// `istio_requests_total`.
    pub requests: Counter,
    /// `istio_request_duration_milliseconds`.
    pub duration: Histogram,
    /// `istio_request_bytes`.
    pub request_bytes: Histogram,
    /// `istio_response_bytes`.
    pub response_bytes: Histogram,
}

/// What is counted per label set of TCP connections.
#[derive(Debug, Default)]
pub struct TcpSeries {
    /// `istio_tcp_connections_opened_total`.
    pub opened: Counter,
    /// `istio_tcp_connections_closed_total`.
    pub closed: Counter,
    /// `istio_tcp_sent_bytes_total`.
    pub sent_bytes: Counter,
    /// `istio_tcp_received_bytes_total`.
    pub received_bytes: Counter,
}

/// The series of one worker, as scrapes see them. The lock is taken by the worker for the first request of a label set
/// only, and by a scrape for as long as it takes to copy pointers.
type Published<S> = Arc<Mutex<Vec<(Arc<str>, Arc<S>)>>>;

/// The series of all workers.
#[derive(Debug)]
pub struct Registry {
    requests: Box<[Published<RequestSeries>]>,
    tcp: Box<[Published<TcpSeries>]>,
}

/// A request series summed over workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestTotals {
    /// `istio_requests_total`.
    pub requests: u64,
    /// `istio_request_duration_milliseconds`.
    pub duration: Distribution,
    /// `istio_request_bytes`.
    pub request_bytes: Distribution,
    /// `istio_response_bytes`.
    pub response_bytes: Distribution,
}

/// A TCP series summed over workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpTotals {
    /// `istio_tcp_connections_opened_total`.
    pub opened: u64,
    /// `istio_tcp_connections_closed_total`.
    pub closed: u64,
    /// `istio_tcp_sent_bytes_total`.
    pub sent_bytes: u64,
    /// `istio_tcp_received_bytes_total`.
    pub received_bytes: u64,
}

impl Registry {
    /// For `workers` data threads.
    pub fn new(workers: usize) -> Self {
        Self {
            requests: (0..workers.max(1)).map(|_| Published::default()).collect(),
            tcp: (0..workers.max(1)).map(|_| Published::default()).collect(),
        }
    }

    /// Every request series by its label text.
    pub fn requests(&self) -> BTreeMap<Arc<str>, RequestTotals> {
        let mut totals: BTreeMap<Arc<str>, RequestTotals> = BTreeMap::new();
        for (labels, series) in published(&self.requests) {
            let sum = totals.entry(labels).or_default();
            sum.requests = sum.requests.wrapping_add(series.requests.value());
            series.duration.add_to(&mut sum.duration);
            series.request_bytes.add_to(&mut sum.request_bytes);
            series.response_bytes.add_to(&mut sum.response_bytes);
        }
        totals
    }

    /// Every TCP series by its label text.
    pub fn tcp(&self) -> BTreeMap<Arc<str>, TcpTotals> {
        let mut totals: BTreeMap<Arc<str>, TcpTotals> = BTreeMap::new();
        for (labels, series) in published(&self.tcp) {
            let sum = totals.entry(labels).or_default();
            sum.opened = sum.opened.wrapping_add(series.opened.value());
            sum.closed = sum.closed.wrapping_add(series.closed.value());
            sum.sent_bytes = sum.sent_bytes.wrapping_add(series.sent_bytes.value());
            sum.received_bytes = sum.received_bytes.wrapping_add(series.received_bytes.value());
        }
        totals
    }
}

fn published<S>(workers: &[Published<S>]) -> Vec<(Arc<str>, Arc<S>)> {
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
    }
    all
}

/// What tells label sets apart, as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    principal: u64,
    /// A chain's direction and service.
    direction: TrafficDirection,
    cluster: u64,
    host: u64,
    flags: u32,
    status: u16,
    /// -1: none.
    grpc_status: i64,
    is_grpc: bool,
    is_tls: bool,
}

/// Finds or makes series; one per worker and kind.
#[derive(Debug)]
struct Table<S> {
    by_key: HashMap<Key, Arc<S>, foldhash::fast::RandomState>,
    by_labels: HashMap<Arc<str>, Arc<S>, foldhash::fast::RandomState>,
    overflow: Option<Arc<S>>,
    published: Published<S>,
    series_max: usize,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:x}, {}, {}, {})", self.principal, self.cluster, self.host, self.status)
    }
}

impl<S: Default> Table<S> {
    fn new(published: Published<S>) -> Self {
        Self {
            by_key: HashMap::default(),
            by_labels: HashMap::default(),
            overflow: None,
            published,
            series_max: SERIES_MAX,
        }
    }

    /// The series of a key. `labels` builds its text when it is new. The flag says that it is the overflow series.
    fn series(&mut self, key: Key, labels: impl FnOnce() -> String) -> (&S, bool) {
        if !self.by_key.contains_key(&key) {
            if self.by_key.len() >= KEYS_MAX {
                self.by_key.clear();
            }
            let Some(series) = self.labelled(labels()) else {
                let overflow = match self.overflow.take() {
                    Some(overflow) => overflow,
                    None => self.publish(overflow_labels().into()),
                };
                return (self.overflow.insert(overflow), true);
            };
            self.by_key.insert(key, series);
        }
        match self.by_key.get(&key) {
            Some(series) => (series, false),
            // Just inserted; the overflow series keeps the count if that were ever wrong.
            None => (self.overflow.get_or_insert_default(), true),
        }
    }

    fn labelled(&mut self, labels: String) -> Option<Arc<S>> {
        if let Some(series) = self.by_labels.get(labels.as_str()) {
            return Some(series.clone());
        }
        if self.by_labels.len() >= self.series_max {
            return None;
        }
        let labels: Arc<str> = labels.into();
        let series = self.publish(labels.clone());
        self.by_labels.insert(labels, series.clone());
        Some(series)
    }

    fn publish(&self, labels: Arc<str>) -> Arc<S> {
        let series = Arc::new(S::default());
        self.published.lock().unwrap_or_else(PoisonError::into_inner).push((labels, series.clone()));
        series
    }
}

fn overflow_labels() -> String {
    let mut text = LabelText::default();
    text.push("reporter", "overflow");
    text.into_string()
}

/// The series of one worker.
#[derive(Debug)]
pub struct WorkerMetrics {
    requests: RefCell<Table<RequestSeries>>,
    tcp: RefCell<Table<TcpSeries>>,
    hash: foldhash::fast::RandomState,
}

impl WorkerMetrics {
    /// For worker `id`, readable through `registry`.
    pub fn new(registry: &Registry, id: usize) -> Self {
        Self {
            requests: RefCell::new(Table::new(registry.requests.get(id).cloned().unwrap_or_default())),
            tcp: RefCell::new(Table::new(registry.tcp.get(id).cloned().unwrap_or_default())),
            hash: foldhash::fast::RandomState::default(),
        }
    }

    /// Counts a request that is over.
    pub fn count_request(&self, worker: &Worker, record: &RequestRecord<'_>, total: Duration) {
        let key = Key {
            flags: record.flags.bits(),
            status: record.status,
            grpc_status: record.grpc_status.map_or(-1, i64::from),
            is_grpc: record.is_grpc,
            ..self.key(record.connection, record.chain, record.cluster, record.upstream)
        };
        let mut table = self.requests.borrow_mut();
        let (series, overflow) = table.series(key, || request_labels(worker, record));
        series.requests.inc();
        series.duration.record(total);
        series.request_bytes.record_bytes(record.request_body_bytes);
        series.response_bytes.record_bytes(record.response_body_bytes);
        if overflow {
            worker.shared.server.at(worker.id).series_overflow.inc();
        }
    }

    /// Counts a TCP connection that a host was found for.
    pub fn count_opened(&self, worker: &Worker, record: &ConnectionRecord<'_>) {
        self.with_tcp(worker, record, |series| series.opened.inc());
    }

    /// Counts a TCP connection that is over.
    pub fn count_closed(&self, worker: &Worker, record: &ConnectionRecord<'_>) {
        self.with_tcp(worker, record, |series| {
            series.closed.inc();
            // Istio's view is the response's: "sent" goes to the client.
            series.sent_bytes.add(record.sent_bytes);
            series.received_bytes.add(record.received_bytes);
        });
    }

    fn with_tcp(&self, worker: &Worker, record: &ConnectionRecord<'_>, count: impl FnOnce(&TcpSeries)) {
        let key = Key {
            flags: record.flags.bits(),
            ..self.key(record.connection, record.chain, record.cluster, record.upstream)
        };
        let mut table = self.tcp.borrow_mut();
        let (series, overflow) = table.series(key, || tcp_labels(worker, record));
        count(series);
        if overflow {
            worker.shared.server.at(worker.id).series_overflow.inc();
        }
    }

    fn key(
        &self,
        connection: &ConnFacts,
        chain: &LiveChain,
        cluster: Option<&Arc<LiveCluster>>,
        upstream: Option<&UpstreamFacts>,
    ) -> Key {
        Key {
            principal: if connection.principal.is_empty() {
                0
            } else {
                self.hash.hash_one(&*connection.principal)
            },
            direction: chain.direction,
            cluster: cluster.map_or(0, |c| c.cluster.uid),
            host: upstream.map_or(0, |u| u.host.id.0),
            flags: 0,
            status: 0,
            grpc_status: -1,
            is_grpc: false,
            is_tls: connection.tls.is_some(),
        }
    }
}

fn request_labels(worker: &Worker, record: &RequestRecord<'_>) -> String {
    let mut text = party_labels(worker, record.connection, record.chain, record.cluster, record.upstream);
    text.push("request_protocol", if record.is_grpc { "grpc" } else { "http" });
    text.push_number("response_code", record.status.into());
    match record.grpc_status {
        Some(code) => text.push_number("grpc_response_status", code.into()),
        None => text.push_raw("grpc_response_status", ""),
    }
    text.push_raw("response_flags", &record.flags.to_string());
    push_policy(&mut text, record.connection, record.chain);
    text.into_string()
}

fn tcp_labels(worker: &Worker, record: &ConnectionRecord<'_>) -> String {
    let mut text = party_labels(worker, record.connection, record.chain, record.cluster, record.upstream);
    text.push("request_protocol", "tcp");
    text.push_raw("response_flags", &record.flags.to_string());
    push_policy(&mut text, record.connection, record.chain);
    text.into_string()
}

/// `connection_security_policy`: what the receiving side knows; the sending side says `unknown`, as Istio's does.
fn push_policy(text: &mut LabelText, connection: &ConnFacts, chain: &LiveChain) {
    let is_mutual =
        connection.tls.as_ref().is_some_and(|tls| tls.peer.as_ref().is_some_and(|peer| peer.verified));
    let policy = match chain.direction {
        TrafficDirection::Inbound if is_mutual => "mutual_tls",
        TrafficDirection::Inbound => "none",
        TrafficDirection::Outbound | TrafficDirection::Unspecified => UNKNOWN,
    };
    text.push("connection_security_policy", policy);
}

/// Reporter, source and destination.
fn party_labels(
    worker: &Worker,
    connection: &ConnFacts,
    chain: &LiveChain,
    cluster: Option<&Arc<LiveCluster>>,
    upstream: Option<&UpstreamFacts>,
) -> LabelText {
    // Once for each set of labels, not for each request.
    let node = &worker.shared.telemetry.node.labels();
    let mut text = LabelText::default();
    match chain.direction {
        TrafficDirection::Inbound => {
            text.push("reporter", "destination");
            text.push_workload("source", &WorkloadLabels::from_principal(&connection.principal));
            text.push_workload("destination", node);
        }
        TrafficDirection::Outbound | TrafficDirection::Unspecified => {
            text.push("reporter", "source");
            text.push_workload("source", node);
            text.push_workload("destination", &destination(upstream));
        }
    }
    let unknown = ServiceLabels::default();
    let service = cluster.map_or(&unknown, |c| &c.service);
    text.push("destination_service", &service.service);
    text.push("destination_service_name", &service.name);
    text.push("destination_service_namespace", &service.namespace);
    text
}

/// The workload a host belongs to: what its endpoint says, and its certificate where that does not name a principal.
fn destination(upstream: Option<&UpstreamFacts>) -> WorkloadLabels {
    let Some(upstream) = upstream else { return WorkloadLabels::default() };
    let pairs = upstream.host.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut labels = WorkloadLabels::from_pairs(pairs);
    if labels.principal.is_empty() {
        let peer = upstream.tls.as_ref().and_then(|tls| tls.peer.as_ref());
        if let Some(principal) = peer.and_then(|peer| peer.uri_sans.first()) {
            let proven = WorkloadLabels::from_principal(principal);
            labels.principal = proven.principal;
            if labels.workload.is_empty() {
                (labels.workload, labels.namespace) = (proven.workload, proven.namespace);
            }
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(host: u64) -> Key {
        Key {
            principal: 0,
            direction: TrafficDirection::Inbound,
            cluster: 1,
            host,
            flags: 0,
            status: 200,
            grpc_status: -1,
            is_grpc: false,
            is_tls: false,
        }
    }

    #[test]
    fn table_keys_with_same_labels_share_one_series() {
        let registry = Registry::new(1);
        let mut table = Table::new(registry.requests[0].clone());
        for host in 0..3 {
            table.series(key(host), || "a=\"1\"".into()).0.requests.inc();
        }
        let totals = registry.requests();
        assert_eq!(totals.len(), 1);
        assert_eq!(totals.values().next().map(|t| t.requests), Some(3));
    }

    #[test]
    fn table_at_limit_counts_one_past_in_overflow() {
        let registry = Registry::new(1);
        let mut table = Table::new(registry.requests[0].clone());
        table.series_max = 2;
        for host in 0..2 {
            let (series, overflow) = table.series(key(host), || format!("a=\"{host}\""));
            assert!(!overflow);
            series.requests.inc();
        }
        for _ in 0..2 {
            let (series, overflow) = table.series(key(2), || "a=\"2\"".into());
            assert!(overflow);
            series.requests.inc();
        }
        let totals = registry.requests();
        assert_eq!(totals.get("reporter=\"overflow\"").map(|t| t.requests), Some(2));
        assert_eq!(totals.len(), 3);
    }

    #[test]
    fn table_with_too_many_keys_forgets_keys_but_not_series() {
        let registry = Registry::new(1);
        let mut table = Table::new(registry.requests[0].clone());
        for host in 0..=KEYS_MAX as u64 {
            table.series(key(host), || "a=\"1\"".into()).0.requests.inc();
        }
        assert!(table.by_key.len() <= KEYS_MAX);
        assert_eq!(registry.requests().values().next().map(|t| t.requests), Some(KEYS_MAX as u64 + 1));
    }
}
