//! Upstream clusters (`envoy.config.cluster.v3`).

use super::{
    Endpoints, Fraction, HealthCheck, HealthStatus, Http1Options, Http2Options, LbPolicy, LocalityLb,
    ProxyProtocolVersion, SlowStart, Subsets, UpstreamTls, ZoneAware,
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// A named group of equivalent hosts with one set of policies. [`Cluster::new`] has Envoy's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Unique name.
    pub name: String,
    /// Name in metrics; empty: `name`.
    pub alt_stat_name: String,
    /// How hosts are found.
    pub discovery: ClusterDiscovery,
    /// Time for a TCP connection. Default 5 s.
    pub connect_timeout: Duration,
    /// How a host is picked. Default round robin.
    pub lb_policy: LbPolicy,
    /// Below this share of healthy hosts in a priority, all of its hosts are used. Default 50 %; zero switches it off.
    pub healthy_panic_threshold: Fraction,
    /// How localities share traffic.
    pub locality_lb: LocalityLb,
    /// What stays in the proxy's own locality.
    pub zone_aware: ZoneAware,
    /// The health in which a host that a session asks for is used; none: unknown, healthy and degraded.
    pub override_host_status: Vec<HealthStatus>,
    /// Hosts divided by their metadata; routes say which part they want.
    pub subsets: Option<Subsets>,
    /// New hosts get their share of the load little by little (round robin, least request). Default: at once.
    pub slow_start: Option<SlowStart>,
    /// Probes that find out which hosts are healthy; `None`: nobody asks.
    pub health_check: Option<HealthCheck>,
    /// Hosts that were not yet probed count neither as healthy nor as hosts. Default false.
    pub ignore_new_hosts_until_first_hc: bool,
    /// Concurrency limits.
    pub circuit_breakers: CircuitBreakers,
    /// Passive ejection; `None` switches it off.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS to the hosts; `None` is plaintext.
    pub tls: Option<UpstreamTls>,
    /// Protocol towards the hosts.
    pub http: UpstreamHttp,
    /// TCP keep-alive of upstream connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Where connections come from (`upstream_bind_config`); port 0 leaves the port to the system. `None`: the system
    /// chooses both. Hosts of the other family are not bound.
    pub source_address: Option<SocketAddr>,
    /// Tell hosts by a PROXY header, before anything else, where the downstream connection comes from and goes to.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// Soft limit of buffered bytes per connection and direction; on HTTP/2 per stream, where 65,535 is the least that
    /// takes effect. Default 1 MiB.
    pub per_connection_buffer_limit_bytes: u32,
    /// Close connections of a host as soon as it leaves the set, those in use as well (requests on them fail), instead of
    /// when they are idle. Default false.
    pub close_connections_on_host_removal: bool,
    /// Labels for metrics, such as `destination_service`, from metadata `istio`/`outrigger`; ordered pairs.
    pub labels: Vec<(String, String)>,
}

impl Cluster {
    /// Envoy's defaults.
    pub fn new(name: impl Into<String>, discovery: ClusterDiscovery) -> Self {
        Self {
            name: name.into(),
            alt_stat_name: String::new(),
            discovery,
            connect_timeout: Duration::from_secs(5),
            lb_policy: LbPolicy::RoundRobin,
            healthy_panic_threshold: Fraction::from_percent(50),
            locality_lb: LocalityLb::None,
            zone_aware: ZoneAware::default(),
            override_host_status: Vec::new(),
            subsets: None,
            slow_start: None,
            health_check: None,
            ignore_new_hosts_until_first_hc: false,
            circuit_breakers: CircuitBreakers::default(),
            outlier_detection: None,
            tls: None,
            http: UpstreamHttp::default(),
            tcp_keepalive: None,
            source_address: None,
            proxy_protocol: None,
            per_connection_buffer_limit_bytes: 1 << 20,
            close_connections_on_host_removal: false,
            labels: Vec::new(),
        }
    }
}

/// How hosts are found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClusterDiscovery {
    /// Written here, as addresses.
    Static(Endpoints),
    /// Names resolved; every address is a host.
    StrictDns {
        /// Names and ports.
        endpoints: Endpoints,
        /// Asked again after this where `respect_ttl` is false or the answer has none. Default 5 s.
        refresh_rate: Duration,
        /// Ask again when the answer's TTL is over.
        respect_ttl: bool,
        /// Which addresses.
        family: DnsFamily,
    },
    /// One name; new connections go to its current first address.
    LogicalDns {
        /// One endpoint.
        endpoints: Endpoints,
        /// As above.
        refresh_rate: Duration,
        /// As above.
        respect_ttl: bool,
        /// As above.
        family: DnsFamily,
    },
    /// From the configuration feed, by service name.
    Eds {
        /// Name of the [`Endpoints`].
        service_name: String,
    },
    /// The address that the downstream connection was going to, whatever it is; the policy of balancing has no say.
    OriginalDst(OriginalDst),
}

/// `ORIGINAL_DST`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalDst {
    /// Requests: the header, lower case, that names the address as `ip:port` where it is there (`use_http_header`). Envoy's
    /// name is `x-envoy-original-dst-host`.
    pub header: Option<String>,
    /// This port in place of the destination's.
    pub port_override: Option<u16>,
    /// Addresses that nobody used for this long (once to twice) are forgotten. Default 5 s.
    pub cleanup_interval: Duration,
}

impl Default for OriginalDst {
    fn default() -> Self {
        Self { header: None, port_override: None, cleanup_interval: Duration::from_secs(5) }
    }
}

/// `dns_lookup_family`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsFamily {
    /// IPv6 first, then IPv4 (Envoy's AUTO).
    #[default]
    Auto,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// IPv4 first, then IPv6.
    V4Preferred,
    /// Both.
    All,
}

/// `circuit_breakers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitBreakers {
    /// For ordinary requests.
    pub default: Thresholds,
    /// For routes of high priority.
    pub high: Thresholds,
    /// Connections of each host, for ordinary requests (`per_host_thresholds`). Default no limit.
    pub max_connections_per_host: Option<u32>,
    /// The same for routes of high priority.
    pub high_max_connections_per_host: Option<u32>,
}

/// Limits of one priority; defaults are Envoy's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Connections. Default 1024.
    pub max_connections: u32,
    /// Requests waiting for a connection. Default 1024.
    pub max_pending_requests: u32,
    /// Requests at a time. Default 1024.
    pub max_requests: u32,
    /// Retries at a time. Default 3; not used when there is a retry budget.
    pub max_retries: u32,
    /// Share of active requests that may be retries.
    pub retry_budget: Option<RetryBudget>,
    /// Publish remaining-resource gauges.
    pub track_remaining: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

/// `retry_budget`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryBudget {
    /// Share of active and pending requests. Default 20 %.
    pub budget: Fraction,
    /// Always allowed. Default 3.
    pub min_retry_concurrency: u32,
}

/// `outlier_detection`; defaults are Envoy's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutlierDetection {
    /// 5xx (and local failures, unless split) in a row. Default 5.
    pub consecutive_5xx: u32,
    /// Chance of ejection then. Default 100 %.
    pub enforcing_consecutive_5xx: Fraction,
    /// 502, 503, 504 in a row. Default 5.
    pub consecutive_gateway_failure: u32,
    /// Default 0 %.
    pub enforcing_consecutive_gateway_failure: Fraction,
    /// Count local failures (connect, reset, timeout) apart. Default false.
    pub split_external_local_origin_errors: bool,
    /// Local failures in a row, where split. Default 5.
    pub consecutive_local_origin_failure: u32,
    /// Default 100 %.
    pub enforcing_consecutive_local_origin_failure: Fraction,
    /// Ejection of hosts that fail more often than the others.
    pub success_rate: SuccessRate,
    /// Ejection of hosts that fail more often than a fixed share.
    pub failure_percentage: FailurePercentage,
    /// Between sweeps that bring hosts back and look at the statistics. Default 10 s.
    pub interval: Duration,
    /// Times the number of ejections. Default 30 s.
    pub base_ejection_time: Duration,
    /// Cap of the above. Default 300 s, or the base when that is longer.
    pub max_ejection_time: Duration,
    /// Random addition to ejection times. Default 0.
    pub max_ejection_time_jitter: Duration,
    /// Largest share of hosts ejected. Default 10 %.
    pub max_ejection_percent: u32,
    /// One host may always be ejected, whatever the share says. Default true.
    pub always_eject_one_host: bool,
    /// A health check that succeeds ends an ejection. Default true.
    pub successful_active_health_check_uneject_host: bool,
}

/// Ejection of hosts whose success rate in an interval is far below the mean of all (`success_rate_*`). A share of
/// enforcement of 0 switches its part off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuccessRate {
    /// Hosts that must have had enough requests. Default 5.
    pub minimum_hosts: u32,
    /// Requests in an interval that a host must have had to be judged. Default 100.
    pub request_volume: u32,
    /// How many standard deviations below the mean, in thousandths. Default 1,900.
    pub stdev_factor_thousandths: u32,
    /// Chance of ejection then. Default 100 %.
    pub enforcing: Fraction,
    /// The same for local failures, where these are counted apart. Default 100 %.
    pub enforcing_local_origin: Fraction,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            minimum_hosts: 5,
            request_volume: 100,
            stdev_factor_thousandths: 1900,
            enforcing: Fraction::ONE,
            enforcing_local_origin: Fraction::ONE,
        }
    }
}

/// Ejection of hosts whose share of failures in an interval reaches a threshold (`failure_percentage_*`). A share of
/// enforcement of 0 switches its part off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailurePercentage {
    /// Failures in 100 requests. Default 85.
    pub threshold: u32,
    /// Hosts that must have had enough requests. Default 5.
    pub minimum_hosts: u32,
    /// Requests in an interval that a host must have had to be judged. Default 50.
    pub request_volume: u32,
    /// Chance of ejection then. Default 0 %.
    pub enforcing: Fraction,
    /// The same for local failures, where these are counted apart. Default 0 %.
    pub enforcing_local_origin: Fraction,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self {
            threshold: 85,
            minimum_hosts: 5,
            request_volume: 50,
            enforcing: Fraction::ZERO,
            enforcing_local_origin: Fraction::ZERO,
        }
    }
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            enforcing_consecutive_5xx: Fraction::ONE,
            consecutive_gateway_failure: 5,
            enforcing_consecutive_gateway_failure: Fraction::ZERO,
            split_external_local_origin_errors: false,
            consecutive_local_origin_failure: 5,
            enforcing_consecutive_local_origin_failure: Fraction::ONE,
            success_rate: SuccessRate::default(),
            failure_percentage: FailurePercentage::default(),
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one_host: true,
            successful_active_health_check_uneject_host: true,
        }
    }
}

/// `HttpProtocolOptions` of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamHttp {
    /// Which protocol.
    pub protocol: HttpUpstream,
    /// HTTP/1.1 settings.
    pub http1: Http1Options,
    /// HTTP/2 settings.
    pub http2: Http2Options,
    /// Connection without a request is closed after this. Envoy's default is 1 h; ours is 50 s, below the idle
    /// timeouts of common servers (60 s and more), because a reused connection that the server just closed costs a request.
    pub idle_timeout: Option<Duration>,
    /// Requests after which a connection is not used again. Default no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Connection is drained after this age. Default never.
    pub max_connection_duration: Option<Duration>,
    /// Derive SNI from the request's authority (`auto_sni`).
    pub auto_sni: bool,
    /// Derive the expected SAN from the request's authority (`auto_san_validation`).
    pub auto_san_validation: bool,
}

impl Default for UpstreamHttp {
    fn default() -> Self {
        Self {
            protocol: HttpUpstream::Http1,
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            idle_timeout: Some(Duration::from_secs(50)),
            max_requests_per_connection: None,
            max_connection_duration: None,
            auto_sni: false,
            auto_san_validation: false,
        }
    }
}

/// Which protocol is spoken to the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpUpstream {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, by prior knowledge or ALPN.
    Http2,
    /// The same as downstream.
    Downstream,
    /// HTTP/2 where ALPN says so, else HTTP/1.1 (`auto_config`; needs TLS).
    Auto,
}

/// `upstream_connection_options.tcp_keepalive`; `None` leaves the system's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpKeepalive {
    /// Unanswered probes before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
}
