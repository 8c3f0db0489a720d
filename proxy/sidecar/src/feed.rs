//! The control service's stream, wired to the engine: what it applies, what it shows.

use crate::logs::LogStatus;
use outrigger_engine::admin::{ConfigDumpSource, ExtraMetrics};
use outrigger_engine::proxy::ProxyHandle;
use outrigger_traffic::config::{Config, ConfigError, Endpoints};
use outrigger_xds::ads::Kind;
use outrigger_xds::ads::stream::StreamStatus;
use outrigger_xds::feed::{Feed, FeedStatus, KindStatus, Sink};
use serde_json::{Value, json};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The engine as the feed's sink.
pub struct EngineSink(pub ProxyHandle);

impl Sink for EngineSink {
    fn apply(&self, config: Config) -> Result<u64, Vec<ConfigError>> {
        self.0.apply(config)
    }

    fn apply_endpoints(&self, endpoints: &Endpoints) -> Result<(), Vec<ConfigError>> {
        self.0.apply_endpoints(endpoints)
    }
}

/// What the admin interface shows of the feed. It exists before the feed does.
#[derive(Clone, Default)]
pub struct FeedView {
    feed: Arc<OnceLock<Arc<Mutex<Feed>>>>,
    /// Access log lines to services.
    pub logs: Arc<LogStatus>,
    /// State of its streams.
    streams: Arc<Mutex<Vec<Arc<StreamStatus>>>>,
}

impl fmt::Debug for FeedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedView").field("streams", &self.streams).finish_non_exhaustive()
    }
}

impl FeedView {
    /// The feed is there.
    pub fn set(&self, feed: Arc<Mutex<Feed>>) {
        let _ = self.feed.set(feed);
    }

    /// Writes to disk what is not there yet. At the end.
    pub fn flush(&self) {
        if let Some(feed) = self.feed.get() {
            feed.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
    }

    /// A stream begins; gives the place where its state is kept.
    pub fn add_stream(&self) -> Arc<StreamStatus> {
        let status = Arc::new(StreamStatus::default());
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(status.clone());
        status
    }

    /// A stream is over.
    pub fn remove_stream(&self, status: &Arc<StreamStatus>) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| !Arc::ptr_eq(one, status));
    }

    fn with<T>(&self, f: impl FnOnce(&Feed) -> T) -> Option<T> {
        self.feed.get().map(|feed| f(&feed.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl ConfigDumpSource for FeedView {
    fn configs(&self) -> Vec<Value> {
        let configs = self.with(dump).unwrap_or_default();
        outrigger_api::forget_pool();
        configs
    }
}

/// Envoy's `/config_dump` sections with what came over the wire. Secrets are named, not shown.
fn dump(feed: &Feed) -> Vec<Value> {
    let sections = [
        (
            Kind::Cluster,
            "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "dynamic_active_clusters",
            "cluster",
        ),
        (
            Kind::Listener,
            "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
            "dynamic_listeners",
            "listener",
        ),
        (
            Kind::RouteConfig,
            "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
            "dynamic_route_configs",
            "route_config",
        ),
        (
            Kind::Endpoints,
            "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
            "dynamic_endpoint_configs",
            "endpoint_config",
        ),
        (
            Kind::Secret,
            "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
            "dynamic_active_secrets",
            "secret",
        ),
    ];
    sections
        .into_iter()
        .map(|(kind, type_url, list, field)| {
            let entries: Vec<Value> = feed
                .accepted()
                .iter()
                .filter(|((k, _), _)| *k == kind)
                .map(|((_, name), held)| {
                    let content = if kind == Kind::Secret {
                        json!("[redacted]")
                    } else {
                        outrigger_api::to_json(kind.type_url(), &held.bytes).unwrap_or(Value::Null)
                    };
                    json!({ "name": name, "version_info": held.version, field: content })
                })
                .collect();
            json!({ "@type": type_url, list: entries })
        })
        .collect()
}

impl ExtraMetrics for FeedView {
    fn write(&self, out: &mut String) {
        let status = self.with(|f| f.status.clone()).unwrap_or_default();
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sum = |number: fn(&StreamStatus) -> &AtomicU64| -> u64 {
            streams.iter().map(|one| number(one).load(Ordering::Relaxed)).sum()
        };
        let all_up = !streams.is_empty() && streams.iter().all(|one| one.connected.load(Ordering::Relaxed));
        let connected = u64::from(all_up);
        let rows = [
            (
                "envoy_control_plane_connected_state",
                "gauge",
                "Whether every stream from the control service is up.",
                connected,
            ),
            (
                "outrigger_xds_streams_total",
                "counter",
                "Streams opened to the control service.",
                sum(|one| &one.streams),
            ),
            (
                "outrigger_xds_stream_failures_total",
                "counter",
                "Streams that ended or failed.",
                sum(|one| &one.failures),
            ),
            (
                "outrigger_xds_last_good_writes_total",
                "counter",
                "Times the last good configuration was written to disk.",
                status.saves,
            ),
            (
                "outrigger_xds_last_good_write_failures_total",
                "counter",
                "Times it could not be written.",
                status.save_failures,
            ),
            (
                "outrigger_access_log_delivered_total",
                "counter",
                "Access log lines that services took.",
                self.logs.delivered.load(Ordering::Relaxed),
            ),
            (
                "outrigger_access_log_lost_total",
                "counter",
                "Access log lines that services did not take.",
                self.logs.lost.load(Ordering::Relaxed),
            ),
            ("outrigger_xds_updates_total", "counter", "Responses of the control service.", status.updates),
            (
                "outrigger_xds_rejected_total",
                "counter",
                "Responses with a refused resource.",
                status.rejected,
            ),
            (
                "outrigger_xds_refused_resources",
                "gauge",
                "Resources whose newest version is refused.",
                status.refused.len() as u64,
            ),
        ];
        for (name, kind, help, value) in rows {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        by_kind(&status, out);
    }
}

/// Updates by kind, with the kind as a label.
fn by_kind(status: &FeedStatus, out: &mut String) {
    type Number = fn(&KindStatus) -> u64;
    let counters: [(&str, &str, Number); 3] = [
        ("outrigger_xds_update_success_total", "Responses and files taken, by kind.", |k| k.success),
        (
            "outrigger_xds_update_rejected_total",
            "Responses and files with a refused resource, by kind.",
            |k| k.rejected,
        ),
        ("outrigger_xds_update_failure_total", "Files that could not be read, by kind.", |k| k.failure),
    ];
    for (name, help, number) in counters {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
        for kind in Kind::ALL {
            let value = status.kinds.get(&kind).map_or(0, number);
            let _ = writeln!(out, "{name}{{kind=\"{}\"}} {value}", kind.word());
        }
    }
}
