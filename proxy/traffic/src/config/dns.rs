//! A DNS server in the proxy (`envoy.filters.udp.dns_filter`).

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How questions are answered that come to a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsServer {
    /// Prefix of its metrics.
    pub stat_prefix: String,
    /// Names answered from here.
    pub domains: Vec<DnsDomain>,
    /// Who is asked for other names; `None`: they do not exist.
    pub forward: Option<DnsForward>,
}

/// A name and its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsDomain {
    /// The name, lower case, without a final dot; `*.suffix` for all names below `suffix`.
    pub name: String,
    /// Its addresses. A name that has none of the family asked for exists all the same.
    pub addresses: Vec<IpAddr>,
    /// How long an answer may be kept. Envoy's default is 300 s.
    pub ttl: Duration,
}

/// Asking other servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsForward {
    /// The servers; none: those of the system (`/etc/resolv.conf`).
    pub resolvers: Vec<SocketAddr>,
    /// Longest time for an answer. Default 2 s.
    pub timeout: Duration,
    /// Questions under way at a time; those beyond are answered with SERVFAIL. Default 256.
    pub max_pending: u64,
}
