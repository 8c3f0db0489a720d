//! Building [`Live`] from a compiled snapshot: TLS contexts, access logs, counters.
//!
//! Counters and TLS contexts are taken over from the old state by name, so that a change resets nothing and throws
//! away no TLS session that is still worth something.

use crate::dns::Zone;
use crate::filter::RequestFilter;
use crate::identity::{ClientTls, Secrets, ServerTls};
use crate::live::{Live, LiveChain, LiveCluster, LiveListener};
use crate::telemetry::access_log::{AccessLogger, check_sink};
use crate::telemetry::labels::ServiceLabels;
use crate::telemetry::local_reply::LocalReplies;
use crate::telemetry::trace::SpanPlan;
use crate::telemetry::{HttpStats, Sharded, StatSet, TcpStats};
use crate::worker::Shared;
use outrigger_traffic::cluster::Cluster;
use outrigger_traffic::config::{self, ConfigError};
use outrigger_traffic::filter::Filter;
use outrigger_traffic::listener::{FilterChain, Listener, Terminal};
use outrigger_traffic::snapshot::{ClusterId, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;

/// What a new state is built from, apart from the snapshot.
pub(super) struct Parts<'a> {
    pub(super) shared: &'a Shared,
    pub(super) secrets: &'a Secrets,
    pub(super) old: &'a Live,
}

/// Counters by `stat_prefix`: chains with the same prefix count together, as in Envoy.
type ByPrefix<T> = HashMap<String, Arc<Sharded<T>>>;

/// Builds the new state.
///
/// *Errors*: everything wrong with TLS contexts and access logs.
pub(super) fn live(
    parts: &Parts<'_>,
    version: u64,
    snapshot: Arc<Snapshot>,
) -> Result<Live, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut http = ByPrefix::new();
    let mut tcp = ByPrefix::new();
    for chain in parts.old.listeners.values().flat_map(|l| &l.chains) {
        match &chain.chain.config.terminal {
            config::Terminal::Http(hcm) => drop(http.insert(hcm.stat_prefix.clone(), chain.stats.clone())),
            config::Terminal::Tcp(proxy) => {
                drop(tcp.insert(proxy.stat_prefix.clone(), chain.tcp_stats.clone()))
            }
        }
    }
    let mut listeners = HashMap::new();
    let mut by_address = HashMap::new();
    for listener in snapshot.listeners() {
        let live = Arc::new(build_listener(parts, listener, &mut http, &mut tcp, &mut errors));
        listeners.insert(live.name.clone(), live.clone());
        let config = &listener.config;
        if config.dns.is_none() {
            for address in std::iter::once(config.address).chain(config.additional_addresses.iter().copied())
            {
                by_address.insert(address, live.clone());
            }
        }
    }
    let by_name: HashMap<&str, &Arc<LiveCluster>> =
        parts.old.clusters.iter().flatten().map(|cluster| (&*cluster.name, cluster)).collect();
    let mut clusters: Vec<Option<Arc<LiveCluster>>> = vec![None; snapshot.cluster_slots()];
    for (id, cluster) in snapshot.clusters() {
        let previous = by_name.get(cluster.name()).copied();
        let built = build_cluster(parts, id, cluster, previous, &mut errors);
        if let Some(slot) = clusters.get_mut(id.0 as usize) {
            *slot = Some(built);
        }
    }
    if errors.is_empty() {
        Ok(Live { version, snapshot, listeners, by_address, clusters: clusters.into() })
    } else {
        Err(errors)
    }
}

fn build_listener(
    parts: &Parts<'_>,
    listener: &Arc<Listener>,
    http: &mut ByPrefix<HttpStats>,
    tcp: &mut ByPrefix<TcpStats>,
    errors: &mut Vec<ConfigError>,
) -> LiveListener {
    let name: Arc<str> = listener.config.name.as_str().into();
    let old = parts.old.listeners.get(&name);
    let mut chains = Vec::new();
    for (index, chain) in listener.chains.iter().enumerate() {
        let path = if index < listener.config.filter_chains.len() {
            format!("filter_chains[{index}]")
        } else {
            "default_filter_chain".to_owned()
        };
        let at = ChainPlace { listener, path: &path, old: old.and_then(|l| l.chains.get(index)) };
        chains.push(Arc::new(build_chain(parts, &at, chain, http, tcp, errors)));
    }
    let stats = match old {
        Some(old) => old.stats.clone(),
        None => Arc::new(Sharded::new(parts.shared.concurrency)),
    };
    let old_zone = old.and_then(|old| old.dns.as_ref());
    let dns = listener.config.dns.as_ref().map(|wanted| match old_zone {
        Some(old) if old.config == **wanted => old.clone(),
        old => Arc::new(Zone::new(wanted, old)),
    });
    let resource = format!("listener/{name}");
    let logs = build_logs(&listener.config.access_log, &resource, "", errors);
    LiveListener {
        name,
        listener: listener.clone(),
        chains,
        inspect: listener.needs_inspector,
        stats,
        dns,
        logs,
    }
}

struct ChainPlace<'a> {
    listener: &'a Listener,
    path: &'a str,
    old: Option<&'a Arc<LiveChain>>,
}

fn build_chain(
    parts: &Parts<'_>,
    at: &ChainPlace<'_>,
    chain: &Arc<FilterChain>,
    http: &mut ByPrefix<HttpStats>,
    tcp: &mut ByPrefix<TcpStats>,
    errors: &mut Vec<ConfigError>,
) -> LiveChain {
    let resource = format!("listener/{}", at.listener.config.name);
    let workers = parts.shared.concurrency;
    let tls = chain.config.tls.as_ref().and_then(|tls| {
        let path = format!("{}.transport_socket", at.path);
        let previous = at.old.and_then(|old| old.tls.as_ref());
        match ServerTls::build(&resource, &path, tls, parts.secrets, previous) {
            Ok(tls) => Some(tls),
            Err(more) => {
                errors.extend(more);
                None
            }
        }
    });
    let (stats, tcp_stats, logs, service) = match &chain.config.terminal {
        config::Terminal::Http(hcm) => (
            by_prefix(http, &hcm.stat_prefix, workers),
            Arc::new(Sharded::new(0)),
            &hcm.access_log,
            hcm.tracing.as_ref().map_or("", |t| t.service_name.as_str()),
        ),
        config::Terminal::Tcp(proxy) => {
            (Arc::new(Sharded::new(0)), by_prefix(tcp, &proxy.stat_prefix, workers), &proxy.access_log, "")
        }
    };
    let service = if service.is_empty() { parts.shared.telemetry.node.cluster.as_str() } else { service };
    let spans = match &chain.config.terminal {
        config::Terminal::Http(hcm) => hcm.tracing.as_ref().map(|t| Box::new(SpanPlan::new(&t.spans))),
        config::Terminal::Tcp(_) => None,
    };
    LiveChain {
        spans,
        name: chain.config.name.as_str().into(),
        chain: chain.clone(),
        tls,
        stats,
        tcp_stats,
        replies: replies(&resource, at, chain, errors),
        registered: registered(parts, &resource, at, chain, errors),
        logs: build_logs(logs, &resource, &format!("{}.", at.path), errors),
        direction: at.listener.config.traffic_direction,
        service_name: service.into(),
    }
}

/// How responses of a chain look that are made here.
fn replies(
    resource: &str,
    at: &ChainPlace<'_>,
    chain: &FilterChain,
    errors: &mut Vec<ConfigError>,
) -> Option<Box<LocalReplies>> {
    let config::Terminal::Http(hcm) = &chain.config.terminal else { return None };
    match LocalReplies::compile(hcm.local_reply.as_ref()?) {
        Ok(replies) => Some(Box::new(replies)),
        Err(more) => {
            errors.extend(more.into_iter().map(|(path, reason)| {
                ConfigError::new(resource, format!("{}.local_reply_config.{path}", at.path), reason)
            }));
            None
        }
    }
}

/// The embedding program's filters of a chain.
fn registered(
    parts: &Parts<'_>,
    resource: &str,
    at: &ChainPlace<'_>,
    chain: &FilterChain,
    errors: &mut Vec<ConfigError>,
) -> Box<[Option<Arc<dyn RequestFilter>>]> {
    let Terminal::Http(http) = &chain.terminal else { return Box::default() };
    let found = http.filters.iter().enumerate().map(|(i, filter)| {
        let Filter::Registered(name) = &filter.rules else { return None };
        let known = parts.shared.filters.get(&**name).cloned();
        if known.is_none() {
            let path = format!("{}.http_filters[{i}]", at.path);
            errors.push(ConfigError::new(resource, path, format!("no filter `{name}` is registered")));
        }
        known
    });
    found.collect()
}

fn by_prefix<T: StatSet>(all: &mut ByPrefix<T>, prefix: &str, workers: usize) -> Arc<Sharded<T>> {
    all.entry(prefix.to_owned()).or_insert_with(|| Arc::new(Sharded::new(workers))).clone()
}

fn build_logs(
    logs: &[config::AccessLog],
    resource: &str,
    prefix: &str,
    errors: &mut Vec<ConfigError>,
) -> Box<[Arc<AccessLogger>]> {
    let mut built = Vec::with_capacity(logs.len());
    for (index, log) in logs.iter().enumerate() {
        match check_sink(&log.sink).and_then(|()| AccessLogger::compile(log)) {
            Ok(logger) => built.push(Arc::new(logger)),
            Err(reason) => {
                errors.push(ConfigError::new(resource, format!("{prefix}access_log[{index}]"), reason))
            }
        }
    }
    built.into()
}

fn build_cluster(
    parts: &Parts<'_>,
    id: ClusterId,
    cluster: &Arc<Cluster>,
    old: Option<&Arc<LiveCluster>>,
    errors: &mut Vec<ConfigError>,
) -> Arc<LiveCluster> {
    let config = &cluster.config;
    let tls = config.tls.as_ref().and_then(|tls| {
        let resource = format!("cluster/{}", config.name);
        let previous = old.and_then(|old| old.tls.as_ref());
        let check_name = config.http.auto_san_validation;
        match ClientTls::build(&resource, "transport_socket", tls, check_name, parts.secrets, previous) {
            Ok(tls) => Some(tls),
            Err(more) => {
                errors.extend(more);
                None
            }
        }
    });
    for path in config.health_check.iter().flat_map(|check| &check.event_logs) {
        if let Err(reason) = check_sink(&config::AccessLogSink::File(path.clone())) {
            let resource = format!("cluster/{}", config.name);
            errors.push(ConfigError::new(resource, "health_checks[0].event_log_path", reason));
        }
    }
    if let Some(old) = old
        && old.id == id
        && Arc::ptr_eq(&old.cluster, cluster)
        && same(old.tls.as_ref(), tls.as_ref())
    {
        return old.clone();
    }
    Arc::new(LiveCluster {
        id,
        name: config.name.as_str().into(),
        cluster: cluster.clone(),
        tls,
        stats: match old {
            Some(old) => old.stats.clone(),
            None => Arc::new(Sharded::new(parts.shared.concurrency)),
        },
        service: ServiceLabels::of_cluster(&config.labels, &config.name),
    })
}

fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}
