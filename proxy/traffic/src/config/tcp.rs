//! The TCP proxy filter (`envoy.extensions.filters.network.tcp_proxy.v3`).

use super::{AccessLog, ClusterChoice, HeaderEdit};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Bytes passed on as they come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TcpProxy {
    /// Prefix of its metrics.
    pub stat_prefix: String,
    /// Where to; `ClusterChoice::Header` is refused here.
    pub cluster: ClusterChoice,
    /// Closed when neither side sent anything for this long. Default 1 h; `None` never.
    pub idle_timeout: Option<Duration>,
    /// Closed this long after it was accepted, whatever happens. Default never.
    pub max_downstream_connection_duration: Option<Duration>,
    /// Connection attempts in all, at least 1. Default 1.
    pub max_connect_attempts: u32,
    /// The bytes travel in a request to the host, instead of as they are.
    pub tunnel: Option<Box<Tunnel>>,
    /// Where connections are logged.
    pub access_log: Vec<AccessLog>,
}

/// A request that carries a connection (`tunneling_config`), over HTTP/1.1 or HTTP/2 as the cluster says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Authority of the request, with command operators; not empty.
    pub hostname: String,
    /// Path of a POST request; `None`: the method is CONNECT.
    pub post_path: Option<String>,
    /// Header fields of the request.
    pub headers: Vec<HeaderEdit>,
}
