//! Walking everything that is counted, for whoever shows it: Prometheus, `/stats`.

use super::stats::{Sharded, StatField, StatKind, StatSet, StatValue};
use crate::identity::CertificateFacts;
use crate::live::{Live, LiveCluster, LiveListener};
use crate::worker::Shared;
use outrigger_traffic::breaker::{Breaker, Limited};
use outrigger_traffic::config::{LbPolicy, Terminal};
use outrigger_traffic::health::Flag;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

/// Where a stat belongs.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Envoy's prefix, as in `cluster`; empty where the names of stats begin with it.
    pub kind: &'static str,
    /// Name of the thing, as in a cluster's; empty for the process.
    pub name: &'a str,
    /// Prefix in Prometheus, as in `envoy_cluster`.
    pub prometheus: &'static str,
    /// Label in Prometheus that holds the name.
    pub label: &'static str,
}

impl Scope<'_> {
    /// Of the process itself.
    pub const SERVER: Scope<'static> =
        Scope { kind: "server", name: "", prometheus: "envoy_server", label: "" };

    /// Of the overload manager.
    pub const OVERLOAD: Scope<'static> =
        Scope { kind: "overload", name: "", prometheus: "envoy_overload", label: "" };
}

/// Takes one stat.
pub type Visit<'a> = dyn FnMut(&Scope<'_>, &StatField, StatValue) + 'a;

/// Shows every stat to `visit`; those of one scope in a row.
pub fn collect(shared: &Shared, live: &Live, visit: &mut Visit<'_>) {
    collect_server(shared, live, visit);
    let scope = Scope { kind: "", name: "", prometheus: "envoy", label: "" };
    collect_set(&scope, &shared.listener_filters, visit);
    let mut by_name: Vec<_> = live.listeners.values().collect();
    by_name.sort_by(|a, b| a.name.cmp(&b.name));
    for listener in &by_name {
        let name = listener_stat_name(listener);
        let label = "envoy_listener_address";
        let scope = Scope { kind: "listener", name: &name, prometheus: "envoy_listener", label };
        collect_set(&scope, &listener.stats, visit);
    }
    for zone in by_name.iter().filter_map(|listener| listener.dns.as_ref()) {
        let (name, label) = (zone.config.stat_prefix.as_str(), "envoy_dns_filter_prefix");
        let scope = Scope { kind: "dns_filter", name, prometheus: "envoy_dns_filter", label };
        collect_set(&scope, &zone.stats, visit);
    }
    let mut http: BTreeMap<&str, &Arc<Sharded<super::HttpStats>>> = BTreeMap::new();
    let mut tcp: BTreeMap<&str, &Arc<Sharded<super::TcpStats>>> = BTreeMap::new();
    for chain in by_name.iter().flat_map(|l| &l.chains) {
        match &chain.chain.config.terminal {
            Terminal::Http(hcm) => drop(http.insert(&hcm.stat_prefix, &chain.stats)),
            Terminal::Tcp(proxy) => drop(tcp.insert(&proxy.stat_prefix, &chain.tcp_stats)),
        }
    }
    for (prefix, stats) in http {
        let label = "envoy_http_conn_manager_prefix";
        collect_set(&Scope { kind: "http", name: prefix, prometheus: "envoy_http", label }, stats, visit);
    }
    for (prefix, stats) in tcp {
        let label = "envoy_tcp_prefix";
        collect_set(&Scope { kind: "tcp", name: prefix, prometheus: "envoy_tcp", label }, stats, visit);
    }
    for (name, cluster) in clusters_by_stat_name(live) {
        let label = "envoy_cluster_name";
        let scope = Scope { kind: "cluster", name, prometheus: "envoy_cluster", label };
        collect_set(&scope, &cluster.stats, visit);
        collect_cluster(&scope, cluster, visit);
    }
}

/// Envoy names a listener by its address, with underscores for colons; one on a port that the system chose goes by its name.
fn listener_stat_name(listener: &LiveListener) -> String {
    let address = listener.listener.config.address;
    if address.port() == 0 { listener.name.to_string() } else { address.to_string().replace(':', "_") }
}

/// Clusters by their name in metrics. Where two ask for the same one, the second goes by its own name.
fn clusters_by_stat_name(live: &Live) -> BTreeMap<&str, &Arc<LiveCluster>> {
    let mut named = BTreeMap::new();
    for cluster in live.clusters.iter().flatten() {
        let wanted = cluster.cluster.config.alt_stat_name.as_str();
        if wanted.is_empty() || named.contains_key(wanted) {
            named.insert(&*cluster.name, cluster);
        } else {
            named.insert(wanted, cluster);
        }
    }
    named
}

fn collect_set<T: StatSet>(scope: &Scope<'_>, stats: &Sharded<T>, visit: &mut Visit<'_>) {
    for (index, field) in T::FIELDS.iter().enumerate() {
        if let Some(value) = stats.sum(index) {
            visit(scope, field, value);
        }
    }
}

/// A gauge that is read where it lives, not counted.
const fn gauge(name: &'static str, help: &'static str) -> StatField {
    StatField { name, help, kind: StatKind::Gauge }
}

fn collect_server(shared: &Shared, live: &Live, visit: &mut Visit<'_>) {
    let mut show = |name, help, value| visit(&Scope::SERVER, &gauge(name, help), StatValue::Gauge(value));
    let serving = shared.drain.phase() == crate::drain::Phase::Serving && !shared.drain.is_health_failed();
    show("live", "1 while the proxy serves, 0 while it drains", u64::from(serving));
    let state = match (serving, live.version) {
        (false, _) => 1,
        (true, 0) => 2,
        (true, _) => 0,
    };
    show("state", "0 live, 1 draining, 2 waiting for its first configuration", state);
    show("uptime", "Seconds since the start", shared.started.elapsed().as_secs());
    show("memory_physical_size", "Resident memory of the process in bytes", super::process::resident_bytes());
    show("listeners_active", "Listeners in use", live.listeners.len() as u64);
    show("clusters_active", "Clusters in use", live.clusters.iter().flatten().count() as u64);
    if let Some(first) = certificates(live).iter().map(|c| c.facts.not_after).min() {
        let left = first.saturating_sub(unix_seconds()).max(0) / 86_400;
        let help = "Whole days until the first certificate in use ends";
        show("days_until_first_cert_expiring", help, u64::try_from(left).unwrap_or(0));
    }
    collect_set(&Scope::SERVER, &shared.server, visit);
    collect_set(&Scope::OVERLOAD, &shared.overload.stats, visit);
}

fn collect_cluster(scope: &Scope<'_>, cluster: &LiveCluster, visit: &mut Visit<'_>) {
    let mut show = |name, help, value| visit(scope, &gauge(name, help), StatValue::Gauge(value));
    let hosts = cluster.cluster.hosts();
    let count = |is: fn(&outrigger_traffic::cluster::Host) -> bool| {
        hosts.hosts().iter().filter(|h| is(h)).count() as u64
    };
    show("membership_total", "Hosts of the cluster", hosts.hosts().len() as u64);
    show("membership_healthy", "Hosts that are neither unhealthy nor ejected", count(|h| h.is_healthy()));
    show("membership_degraded", "Hosts declared degraded", count(|h| h.is_degraded()));
    show("outlier_detection.ejections_active", "Hosts ejected now", count(|h| h.is_ejected()));
    show(
        "membership_excluded",
        "Hosts left out of account until health checks have seen them",
        count(|h| h.is_excluded()),
    );
    if cluster.cluster.config.health_check.is_some() {
        let passing = count(|h| !h.live.probed.has(Flag::Failed));
        show("health_check.healthy", "Hosts that pass their health checks", passing);
        show(
            "health_check.degraded",
            "Hosts whose health checks say degraded",
            count(|h| h.live.probed.has(Flag::Degraded)),
        );
    }
    if cluster.cluster.config.subsets.is_some() {
        show("lb_subsets_active", "Subsets that have hosts", hosts.subset_count() as u64);
    }
    if let Some(zones) = cluster.cluster.zone_counts() {
        show(
            "lb_recalculate_zone_structures",
            "Looks at which zones requests stay in",
            zones.made.load(Relaxed),
        );
        show("lb_zone_cluster_too_small", "Looks that found too few hosts", zones.too_small.load(Relaxed));
        show(
            "lb_local_cluster_not_ok",
            "Looks and picks that found the local cluster unusable",
            zones.local_not_ok.load(Relaxed),
        );
    }
    let figures = hosts.figures().unwrap_or_default();
    match cluster.cluster.config.lb_policy {
        LbPolicy::RingHash(_) => {
            show("ring_hash_lb.size", "Points on the ring", figures.size);
            show("ring_hash_lb.min_hashes_per_host", "Points of the host with the fewest", figures.least);
            show("ring_hash_lb.max_hashes_per_host", "Points of the host with the most", figures.most);
        }
        LbPolicy::Maglev(_) => {
            show("maglev_lb.min_entries_per_host", "Places of the host with the fewest", figures.least);
            show("maglev_lb.max_entries_per_host", "Places of the host with the most", figures.most);
        }
        LbPolicy::RoundRobin | LbPolicy::LeastRequest(_) | LbPolicy::Random | LbPolicy::Registered(_) => {}
    }
    let limits = &cluster.cluster.config.circuit_breakers;
    let default = cluster.cluster.breaker(false);
    let high = cluster.cluster.breaker(true);
    for (name, help, breaker, what) in OPEN {
        show(name, help, u64::from(choose(breaker, default, high).is_open(*what)));
    }
    for (name, help, breaker, what) in REMAINING {
        let tracked = if *breaker { limits.high.track_remaining } else { limits.default.track_remaining };
        if tracked {
            show(name, help, u64::from(choose(breaker, default, high).remaining(*what)));
        }
    }
}

fn choose<'a>(high_priority: &bool, default: &'a Breaker, high: &'a Breaker) -> &'a Breaker {
    if *high_priority { high } else { default }
}

type BreakerStat = (&'static str, &'static str, bool, Limited);

const OPEN: &[BreakerStat] = &[
    (
        "circuit_breakers.default.cx_open",
        "1 while no further connection is allowed",
        false,
        Limited::Connections,
    ),
    (
        "circuit_breakers.default.rq_pending_open",
        "1 while no further request may wait",
        false,
        Limited::Pending,
    ),
    ("circuit_breakers.default.rq_open", "1 while no further request is allowed", false, Limited::Requests),
    (
        "circuit_breakers.default.rq_retry_open",
        "1 while no further retry is allowed",
        false,
        Limited::Retries,
    ),
    ("circuit_breakers.high.cx_open", "1 while no further connection is allowed", true, Limited::Connections),
    ("circuit_breakers.high.rq_pending_open", "1 while no further request may wait", true, Limited::Pending),
    ("circuit_breakers.high.rq_open", "1 while no further request is allowed", true, Limited::Requests),
    ("circuit_breakers.high.rq_retry_open", "1 while no further retry is allowed", true, Limited::Retries),
];

const REMAINING: &[BreakerStat] = &[
    ("circuit_breakers.default.remaining_cx", "Connections still allowed", false, Limited::Connections),
    ("circuit_breakers.default.remaining_pending", "Requests that may still wait", false, Limited::Pending),
    ("circuit_breakers.default.remaining_rq", "Requests still allowed", false, Limited::Requests),
    ("circuit_breakers.default.remaining_retries", "Retries still allowed", false, Limited::Retries),
    ("circuit_breakers.high.remaining_cx", "Connections still allowed", true, Limited::Connections),
    ("circuit_breakers.high.remaining_pending", "Requests that may still wait", true, Limited::Pending),
    ("circuit_breakers.high.remaining_rq", "Requests still allowed", true, Limited::Requests),
    ("circuit_breakers.high.remaining_retries", "Retries still allowed", true, Limited::Retries),
];

/// A certificate in use.
#[derive(Clone, Debug)]
pub struct CertificateUse {
    /// `listener/NAME` or `cluster/NAME`.
    pub user: String,
    /// What is known of it.
    pub facts: CertificateFacts,
}

/// Every certificate that listeners and clusters show, by user.
pub fn certificates(live: &Live) -> Vec<CertificateUse> {
    let mut all = Vec::new();
    let mut listeners: Vec<_> = live.listeners.values().collect();
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    for listener in listeners {
        for facts in listener.chains.iter().filter_map(|c| c.tls.as_ref()).flat_map(|tls| tls.certificates())
        {
            all.push(CertificateUse { user: format!("listener/{}", listener.name), facts: facts.clone() });
        }
    }
    for cluster in live.clusters.iter().flatten() {
        if let Some(facts) = cluster.tls.as_ref().and_then(|tls| tls.certificate()) {
            all.push(CertificateUse { user: format!("cluster/{}", cluster.name), facts: facts.clone() });
        }
    }
    all
}

pub(crate) fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
