//! Active health checks (`envoy.config.core.v3.HealthCheck`).

use super::StringMatch;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How the hosts of a cluster are probed. [`HealthCheck::new`] has Envoy's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// A probe that takes longer has failed.
    pub timeout: Duration,
    /// Between the end of a probe and the next, where no other interval applies.
    pub interval: Duration,
    /// The first probe of a host waits up to this, at random. Default 0.
    pub initial_jitter: Duration,
    /// Random addition to every interval. Default 0.
    pub interval_jitter: Duration,
    /// Random addition to every interval, percent of it. Default 0.
    pub interval_jitter_percent: u32,
    /// Failures in a row that make a healthy host unhealthy. A wrong answer (not: no answer) needs only one.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make an unhealthy host healthy. The very first probe of a host needs only one.
    pub healthy_threshold: u32,
    /// Keep the connection for the next probe. Default true.
    pub reuse_connection: bool,
    /// The interval while the cluster never had a connection. Default 60 s.
    pub no_traffic_interval: Duration,
    /// The same for hosts that are healthy. Default: as above.
    pub no_traffic_healthy_interval: Option<Duration>,
    /// The interval of unhealthy hosts. Default: `interval`.
    pub unhealthy_interval: Option<Duration>,
    /// The interval after a failure that did not yet make its host unhealthy. Default: `unhealthy_interval`.
    pub unhealthy_edge_interval: Option<Duration>,
    /// The interval after a success that did not yet make its host healthy. Default: `interval`.
    pub healthy_edge_interval: Option<Duration>,
    /// Files that changes of health are written to, as lines of JSON.
    pub event_logs: Vec<String>,
    /// Write every failure to them, not only the first and those that change something. Default false.
    pub log_all_failures: bool,
    /// Write every success to them. Default false.
    pub log_all_successes: bool,
    /// ALPN of probes over TLS. Default none.
    pub alpn: Vec<String>,
    /// What is asked.
    pub probe: Probe,
}

impl HealthCheck {
    /// Envoy's defaults.
    pub fn new(timeout: Duration, interval: Duration, thresholds: (u32, u32), probe: Probe) -> Self {
        Self {
            timeout,
            interval,
            initial_jitter: Duration::ZERO,
            interval_jitter: Duration::ZERO,
            interval_jitter_percent: 0,
            unhealthy_threshold: thresholds.0,
            healthy_threshold: thresholds.1,
            reuse_connection: true,
            no_traffic_interval: Duration::from_secs(60),
            no_traffic_healthy_interval: None,
            unhealthy_interval: None,
            unhealthy_edge_interval: None,
            healthy_edge_interval: None,
            event_logs: Vec::new(),
            log_all_failures: false,
            log_all_successes: false,
            alpn: Vec::new(),
            probe,
        }
    }
}

/// What is asked of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// A request, judged by its status.
    Http(HttpProbe),
    /// A connection, and bytes on it.
    Tcp(TcpProbe),
    /// `grpc.health.v1.Health/Check`.
    Grpc(GrpcProbe),
}

/// A request as a probe. [`HttpProbe::of`] has Envoy's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpProbe {
    /// Authority; empty: the name of the cluster. An endpoint's own goes before.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Method. Default GET.
    pub method: String,
    /// Body of the request.
    pub send: Vec<u8>,
    /// Texts that the body of the response must contain, in this order.
    pub receive: Vec<Vec<u8>>,
    /// How much of the response's body is searched; 0: all of it. Default 1024.
    pub response_buffer_size: u64,
    /// Headers set, in order: lower-case name and value; those with `true` are added beside what is there.
    pub headers_add: Vec<(String, String, bool)>,
    /// Headers removed, lower case.
    pub headers_remove: Vec<String>,
    /// Statuses of a healthy host, from-until (exclusive). Empty: 200.
    pub expected_statuses: Vec<(u16, u16)>,
    /// Statuses that count against the threshold instead of making the host unhealthy at once.
    pub retriable_statuses: Vec<(u16, u16)>,
    /// HTTP/2. Default HTTP/1.1.
    pub http2: bool,
    /// What `x-envoy-upstream-healthchecked-cluster` of the response must be.
    pub service_name: Option<StringMatch>,
}

impl HttpProbe {
    /// `GET path`.
    pub fn of(path: impl Into<String>) -> Self {
        Self {
            host: String::new(),
            path: path.into(),
            method: "GET".into(),
            send: Vec::new(),
            receive: Vec::new(),
            response_buffer_size: 1024,
            headers_add: Vec::new(),
            headers_remove: Vec::new(),
            expected_statuses: Vec::new(),
            retriable_statuses: Vec::new(),
            http2: false,
            service_name: None,
        }
    }
}

/// A connection as a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpProbe {
    /// Sent first.
    pub send: Vec<u8>,
    /// What must come back: each of these, in this order, whatever is between them. Empty: that there is a connection is
    /// enough.
    pub receive: Vec<Vec<u8>>,
}

/// A call of the gRPC health service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrpcProbe {
    /// The service asked for; empty: the server as a whole.
    pub service_name: String,
    /// Authority; empty: the name of the cluster. An endpoint's own goes before.
    pub authority: String,
    /// Metadata of the call: see [`HttpProbe::headers_add`].
    pub metadata: Vec<(String, String, bool)>,
}
