//! `DestinationRule`: how a service is called, and what its subsets are.

use std::collections::BTreeMap;
use std::time::Duration;

use outrigger_traffic::config::{Fraction, HashCookie, HashSource, LbPolicy, Maglev, RingHash, SlowStart};

use super::document::{is_host_pattern, is_label};
use super::read::{Fields, Node};
use super::service_entry::ExportTo;
use super::shape;

/// Policies of callers of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationRule {
    /// Which host, as written; `*.suffix` stands for many.
    pub host: String,
    /// For all of it.
    pub policy: TrafficPolicy,
    /// Named parts.
    pub subsets: Vec<Subset>,
    /// Namespaces that see it.
    pub export_to: ExportTo,
}

/// A named part of a service's workloads.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// Labels its workloads have.
    pub labels: BTreeMap<String, String>,
    /// Overrides of the rule's own policy, setting by setting.
    pub policy: TrafficPolicy,
}

/// Settings; `None` leaves the more general policy's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficPolicy {
    /// Settings of all ports.
    pub settings: Settings,
    /// Instead of the above for single ports; what is not given there is the default again, as in Istio.
    pub ports: Vec<(u16, Settings)>,
}

/// Settings of a port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// How a host is picked.
    pub balancer: Option<Balancer>,
    /// What of a request decides about its host, instead of the above.
    pub hash: Option<ConsistentHash>,
    /// New hosts get their share little by little.
    pub warmup: Option<SlowStart>,
    /// Where hosts are preferred.
    pub locality: Option<LocalityLb>,
    /// Limits.
    pub pool: Option<Pool>,
    /// Ejection.
    pub outliers: Option<Outliers>,
    /// TLS.
    pub tls: Option<ClientTls>,
}

impl Settings {
    /// These, and where they say nothing the other ones.
    pub fn or(&self, general: &Self) -> Self {
        let own = self.balancer.is_some() || self.hash.is_some();
        Self {
            balancer: if own { self.balancer } else { general.balancer },
            hash: if own { self.hash.clone() } else { general.hash.clone() },
            warmup: if own {
                self.warmup.clone()
            } else {
                self.warmup.clone().or_else(|| general.warmup.clone())
            },
            locality: self.locality.clone().or_else(|| general.locality.clone()),
            pool: self.pool.clone().or_else(|| general.pool.clone()),
            outliers: self.outliers.clone().or_else(|| general.outliers.clone()),
            tls: self.tls.clone().or_else(|| general.tls.clone()),
        }
    }
}

/// `LoadBalancerSettings.simple`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancer {
    /// The less loaded of two.
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
}

/// `LoadBalancerSettings.consistentHash`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsistentHash {
    /// What is hashed.
    pub source: HashSource,
    /// How a hash becomes a host.
    pub policy: LbPolicy,
}

impl ConsistentHash {
    fn read(node: &Node<'_>) -> Option<Self> {
        let read = node.message(&shape::CONSISTENT_HASH, |f| {
            let header = f.field("httpHeaderName").map(|n| {
                HashSource::Header { name: n.text().to_ascii_lowercase(), rewrite: None }
            });
            let cookie = f.field("httpCookie").and_then(|n| read_cookie(&n));
            let source_ip = f.field("useSourceIp").filter(|n| n.flag()).map(|_| HashSource::SourceIp);
            let query = f.field("httpQueryParameterName").map(|n| HashSource::Query(n.text()));
            let mut given = [header, cookie, source_ip, query].into_iter().flatten();
            let source = given.next();
            if source.is_none() || given.next().is_some() {
                node.problem(
                    "exactly one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName is expected",
                );
            }
            let size = |n: Node<'_>| u64::from(n.number(1, 8_388_608));
            let mut ring = RingHash::default();
            if let Some(least) = f.field("minimumRingSize").map(size) {
                ring.minimum_ring_size = least;
            }
            if let Some(n) = f.field("ringHash") {
                n.message(&shape::RING_HASH, |f| {
                    ring.minimum_ring_size = f.field("minimumRingSize").map_or(1024, size);
                });
            }
            let maglev = f.field("maglev").and_then(|n| {
                n.message(&shape::MAGLEV, |f| {
                    let mut maglev = Maglev::default();
                    maglev.table_size =
                        f.field("tableSize").map_or(maglev.table_size, |n| n.number(1, 5_000_011).into());
                    LbPolicy::Maglev(maglev)
                })
            });
            Some(Self { source: source?, policy: maglev.unwrap_or(LbPolicy::RingHash(ring)) })
        });
        read.flatten()
    }
}

fn read_cookie(node: &Node<'_>) -> Option<HashSource> {
    node.message(&shape::HTTP_COOKIE, |f| {
        HashSource::Cookie(HashCookie {
            name: f.required("name").map(|n| n.text()).unwrap_or_default(),
            ttl: f.field("ttl").map(|n| n.duration()),
            path: f.text("path"),
            attributes: Vec::new(),
        })
    })
}

/// `LocalityLoadBalancerSetting`. Without one the nearest hosts are preferred, and no region is preferred to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalityLb {
    /// `false`: hosts everywhere are alike.
    pub enabled: bool,
    /// Region → the region that is next when it has too few healthy hosts.
    pub failover: BTreeMap<String, String>,
}

impl LocalityLb {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::LOCALITY_LB, |f| {
            let mut failover = BTreeMap::new();
            for node in f.list("failover") {
                let rule = node.message(&shape::LOCALITY_FAILOVER, |f| {
                    let region = |name| f.required(name).map(|n: Node<'_>| n.text()).unwrap_or_default();
                    (region("from"), region("to"))
                });
                let Some((from, to)) = rule else { continue };
                if from.contains('/') || to.contains('/') || from == to {
                    node.problem("from and to must be two regions, without zones");
                }
                if failover.insert(from, to).is_some() {
                    node.problem("a region can fail over to one other only");
                }
            }
            Self { enabled: f.field("enabled").is_none_or(|n| n.flag()), failover }
        })
    }
}

/// `ConnectionPoolSettings`; `None` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Connections.
    pub max_connections: Option<u32>,
    /// Time to connect.
    pub connect_timeout: Option<Duration>,
    /// Keep-alive probes: how many, after which idle time, how often.
    pub keepalive: Option<(Option<u32>, Option<Duration>, Option<Duration>)>,
    /// Age of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Requests that wait.
    pub max_pending_requests: Option<u32>,
    /// Requests at a time.
    pub max_requests: Option<u32>,
    /// Requests per connection; 0 means no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Retries at a time.
    pub max_retries: Option<u32>,
    /// Idle time of a connection.
    pub idle_timeout: Option<Duration>,
    /// `UPGRADE` (true) or `DO_NOT_UPGRADE` (false) HTTP/1.1 to HTTP/2.
    pub upgrade: Option<bool>,
    /// The caller's protocol is kept.
    pub use_client_protocol: bool,
    /// Streams of an HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
}

/// `OutlierDetection`; `None` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outliers {
    /// Count local failures apart.
    pub split_local: bool,
    /// Local failures in a row.
    pub consecutive_local: Option<u32>,
    /// 502, 503 and 504 in a row; 0 switches it off.
    pub consecutive_gateway: Option<u32>,
    /// 5xx in a row; 0 switches it off.
    pub consecutive_5xx: Option<u32>,
    /// Between sweeps.
    pub interval: Option<Duration>,
    /// Times the number of ejections.
    pub base_ejection_time: Option<Duration>,
    /// Most hosts ejected, percent.
    pub max_ejection_percent: Option<u32>,
    /// Below this share of healthy hosts all are used, percent.
    pub min_health_percent: Option<u32>,
}

/// `ClientTLSSettings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// How.
    pub mode: TlsMode,
    /// Name asked for.
    pub sni: String,
    /// Names accepted.
    pub subject_alt_names: Vec<String>,
    /// Secret with certificate or roots.
    pub credential_name: String,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

/// `ClientTLSSettings.TLSmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Plaintext.
    Disable,
    /// TLS without a certificate of ours.
    Simple,
    /// TLS with a certificate from a Secret.
    Mutual,
    /// TLS of the mesh.
    IstioMutual,
}

impl DestinationRule {
    pub(super) fn read(spec: &Node<'_>) -> Option<Self> {
        spec.message(&shape::DESTINATION_RULE, |f| {
            let host = f.required("host").map(|n| n.name().to_ascii_lowercase()).unwrap_or_default();
            if !host.is_empty() && !is_host_pattern(&host) {
                f.problem("host", format!("{host:?} is no host name"));
            }
            let mut subsets: Vec<Subset> = Vec::new();
            for node in f.list("subsets") {
                let Some(subset) = Subset::read(&node) else { continue };
                if subsets.iter().any(|s| s.name == subset.name) {
                    node.problem(format!("a subset named {:?} is there already", subset.name));
                }
                subsets.push(subset);
            }
            Self { host, policy: read_policy(f), subsets, export_to: ExportTo::read(f) }
        })
    }

    /// Finds a subset.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|s| s.name == name)
    }
}

impl TrafficPolicy {
    /// The settings of a port: its own where it has any, else those of all ports.
    pub fn for_port(&self, port: u16) -> &Settings {
        self.ports.iter().find(|(number, _)| *number == port).map_or(&self.settings, |(_, settings)| settings)
    }
}

impl Subset {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::SUBSET, |f| {
            let name = f.required("name").map(|n| n.name()).unwrap_or_default();
            // Istio's rule; it also keeps cluster names readable and unambiguous.
            if !name.is_empty() && !is_label(&name) {
                f.problem("name", "must be a DNS label");
            }
            Self { name, labels: f.texts_by_key("labels"), policy: read_policy(f) }
        })
    }
}

fn read_policy(f: &Fields<'_>) -> TrafficPolicy {
    let read = f.field("trafficPolicy").and_then(|n| {
        n.message(&shape::TRAFFIC_POLICY, |f| {
            let port = |n: &Node<'_>| {
                n.message(&shape::PORT_TRAFFIC_POLICY, |f| {
                    let number = f.required("port").and_then(|n| {
                        n.message(&shape::PORT_SELECTOR, |f| f.required("number").map(|n| n.port()))
                    });
                    (number.flatten().unwrap_or(1), read_settings(f))
                })
            };
            TrafficPolicy {
                settings: read_settings(f),
                ports: f.list("portLevelSettings").iter().filter_map(port).collect(),
            }
        })
    });
    read.unwrap_or_default()
}

fn read_settings(f: &Fields<'_>) -> Settings {
    let balancers = [
        ("UNSPECIFIED", Balancer::LeastRequest),
        ("LEAST_REQUEST", Balancer::LeastRequest),
        ("LEAST_CONN", Balancer::LeastRequest),
        ("ROUND_ROBIN", Balancer::RoundRobin),
        ("RANDOM", Balancer::Random),
    ];
    let simple = |n: Node<'_>| {
        n.message(&shape::LOAD_BALANCER, |f| {
            let simple = f.field("simple").and_then(|n| n.word(&balancers, &["PASSTHROUGH"]));
            let hash = f.field("consistentHash").and_then(|n| ConsistentHash::read(&n));
            if hash.is_some() && simple.is_some() {
                n.problem("only one of simple and consistentHash can be given");
            }
            let warmup = read_warmup(f);
            if warmup.is_some() && (hash.is_some() || simple == Some(Balancer::Random)) {
                n.problem("a warm-up has no effect without ROUND_ROBIN or LEAST_REQUEST");
            }
            (simple, hash, warmup, f.field("localityLbSetting").and_then(|n| LocalityLb::read(&n)))
        })
    };
    let (balancer, hash, warmup, locality) = f.field("loadBalancer").and_then(simple).unwrap_or_default();
    Settings {
        balancer,
        hash,
        warmup,
        locality,
        pool: f.field("connectionPool").and_then(|n| Pool::read(&n)),
        outliers: f.field("outlierDetection").and_then(|n| Outliers::read(&n)),
        tls: f.field("tls").and_then(|n| ClientTls::read(&n)),
    }
}

/// `warmup`, or the older `warmupDurationSecs`.
fn read_warmup(f: &Fields<'_>) -> Option<SlowStart> {
    let slow = |window, aggression, percent: f64| SlowStart {
        window,
        aggression,
        // In range, so the cast keeps the value.
        min_weight: Fraction::from_millionths((percent * 10_000.0).round() as u32),
    };
    let older = f.field("warmupDurationSecs").map(|n| slow(positive(&n), 1.0, 10.0));
    let newer = f.field("warmup").and_then(|n| {
        n.message(&shape::WARMUP, |f| {
            let window = f.required("duration").map_or(Duration::from_secs(1), |n| positive(&n));
            let aggression = f.field("aggression").map_or(1.0, |n| n.decimal(1.0, 1e6));
            slow(window, aggression, f.field("minimumPercent").map_or(10.0, |n| n.decimal(0.0, 100.0)))
        })
    });
    if older.is_some() && newer.is_some() {
        f.problem("warmup", "cannot be given together with warmupDurationSecs");
    }
    newer.or(older)
}

fn positive(node: &Node<'_>) -> Duration {
    let duration = node.duration();
    if duration < Duration::from_millis(1) {
        node.problem("must be at least 1ms");
    }
    duration
}

/// Numbers of Istio are signed 32-bit.
const NUMBER_MAX: u32 = 2_147_483_647;

impl Pool {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::CONNECTION_POOL, |f| {
            let mut pool = Self::default();
            if let Some(node) = f.field("tcp") {
                node.message(&shape::POOL_TCP, |f| pool.read_tcp(f));
            }
            if let Some(node) = f.field("http") {
                node.message(&shape::POOL_HTTP, |f| pool.read_http(f));
            }
            pool
        })
    }

    fn read_tcp(&mut self, f: &Fields<'_>) {
        self.max_connections = f.field("maxConnections").map(|n| n.number(1, NUMBER_MAX));
        self.connect_timeout = f.field("connectTimeout").map(|n| positive(&n));
        self.max_connection_duration = f.field("maxConnectionDuration").map(|n| positive(&n));
        self.keepalive = f.field("tcpKeepalive").and_then(|n| {
            n.message(&shape::KEEPALIVE, |f| {
                let probes = f.field("probes").map(|n| n.number(1, 127));
                (probes, f.field("time").map(|n| seconds(&n)), f.field("interval").map(|n| seconds(&n)))
            })
        });
    }

    fn read_http(&mut self, f: &Fields<'_>) {
        let number = |name| f.field(name).map(|n: Node<'_>| n.number(1, NUMBER_MAX));
        self.max_pending_requests = number("http1MaxPendingRequests");
        self.max_requests = number("http2MaxRequests");
        self.max_requests_per_connection = f.field("maxRequestsPerConnection").map(|n| n.number(0, 1 << 29));
        self.max_retries = f.field("maxRetries").map(|n| n.number(0, NUMBER_MAX));
        self.idle_timeout = f.field("idleTimeout").map(|n| positive(&n));
        let upgrades = [("DEFAULT", None), ("UPGRADE", Some(true)), ("DO_NOT_UPGRADE", Some(false))];
        self.upgrade = f.field("h2UpgradePolicy").and_then(|n| n.word(&upgrades, &[])).flatten();
        self.use_client_protocol = f.field("useClientProtocol").is_some_and(|n| n.flag());
        self.max_concurrent_streams = number("maxConcurrentStreams");
    }
}

/// The kernel counts keep-alive times in whole seconds.
fn seconds(node: &Node<'_>) -> Duration {
    let duration = node.duration();
    if duration.as_secs() == 0 || duration.subsec_nanos() != 0 {
        node.problem("must be whole seconds, at least 1s");
    }
    duration
}

impl Outliers {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::OUTLIER_DETECTION, |f| {
            let count = |name| f.field(name).map(|n: Node<'_>| n.number(0, NUMBER_MAX));
            let percent = |name| f.field(name).map(|n: Node<'_>| n.number(0, 100));
            Self {
                split_local: f.field("splitExternalLocalOriginErrors").is_some_and(|n| n.flag()),
                consecutive_local: count("consecutiveLocalOriginFailures"),
                consecutive_gateway: count("consecutiveGatewayErrors"),
                consecutive_5xx: count("consecutive5xxErrors"),
                interval: f.field("interval").map(|n| positive(&n)),
                base_ejection_time: f.field("baseEjectionTime").map(|n| positive(&n)),
                max_ejection_percent: percent("maxEjectionPercent"),
                min_health_percent: percent("minHealthPercent"),
            }
        })
    }
}

impl ClientTls {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::CLIENT_TLS, |f| {
            let modes = [
                ("DISABLE", TlsMode::Disable),
                ("SIMPLE", TlsMode::Simple),
                ("MUTUAL", TlsMode::Mutual),
                ("ISTIO_MUTUAL", TlsMode::IstioMutual),
            ];
            let tls = Self {
                // Absent is DISABLE, the first value, in Istio's API.
                mode: f
                    .field("mode")
                    .map_or(Some(TlsMode::Disable), |n| n.word(&modes, &[]))
                    .unwrap_or(TlsMode::Disable),
                sni: f.text("sni"),
                subject_alt_names: f.texts("subjectAltNames"),
                credential_name: f.text("credentialName"),
                insecure_skip_verify: f.field("insecureSkipVerify").is_some_and(|n| n.flag()),
            };
            if tls.mode == TlsMode::Mutual && tls.credential_name.is_empty() {
                f.problem(
                    "credentialName",
                    "is required with MUTUAL: certificates from files are not supported yet",
                );
            }
            let own = matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual);
            if !own && (!tls.credential_name.is_empty() || tls.insecure_skip_verify) {
                f.problem("", "credentialName and insecureSkipVerify need the mode SIMPLE or MUTUAL");
            }
            if tls.mode == TlsMode::IstioMutual && !tls.sni.is_empty() {
                f.problem("sni", "cannot be given with ISTIO_MUTUAL");
            }
            tls
        })
    }
}
