//! What was asked for: the proxy's own configuration model.
//!
//! Plain owned values, without protobuf, sockets or shared pointers. Everything that steers a proxy is translated
//! into these types first (`outrigger-xds` from xDS resources and bootstrap files, `outrigger-plan` from operators'
//! resources) and compiled from them by [`crate::compile()`]. Terms and defaults are Envoy's, unless a field says otherwise.
//! A value that cannot be expressed here is refused where it enters, never dropped.

mod access_log;
mod balancing;
mod cluster;
mod dns;
mod endpoint;
mod error;
pub mod filter;
mod hash_policy;
mod health_check;
mod http;
mod listener;
mod listener_filter;
mod local_reply;
mod metadata;
mod overload;
mod rbac;
mod retry;
mod route;
mod scope;
mod service;
mod shared;
mod string_match;
mod subset;
mod tcp;
mod tls;
mod tracing;
mod units;

pub use access_log::{
    AccessLog, AccessLogFormat, AccessLogSink, Comparison, LogFilter, LogKind, LogProtocol, LogService, Order,
};
pub use balancing::{
    Hashing, LbPolicy, LeastRequest, LocalCluster, LocalityLb, Maglev, RING_SIZE_MAX, RingFunction, RingHash,
    SlowStart, ZoneAware,
};
pub use cluster::{
    CircuitBreakers, Cluster, ClusterDiscovery, DnsFamily, FailurePercentage, HttpUpstream, OriginalDst,
    OutlierDetection, RetryBudget, SuccessRate, TcpKeepalive, Thresholds, UpstreamHttp,
};
pub use dns::{DnsDomain, DnsForward, DnsServer};
pub use endpoint::{
    Endpoint, EndpointAddress, EndpointCheck, Endpoints, HealthStatus, Locality, LocalityEndpoints,
};
pub use error::ConfigError;
pub use filter::{
    AuthzBody, AuthzCheck, AuthzHttp, AuthzService, BandwidthLimit, BufferLimit, Coding, Compressible,
    Compressor, CompressorRoute, CorsPolicy, CsrfPolicy, Decoding, Decompressible, Decompressor, ExtAuthz,
    ExtAuthzRoute, Fault, FaultAbort, FaultDelay, FaultRate, HeaderMutation, HeaderMutationFilter,
    HeaderMutations, HeaderToMetadata, HealthCheckFilter, JwtAuthn, JwtProvider, JwtRequirement, JwtRoute,
    LocalDescriptor, LocalRateLimit, MetadataKind, MetadataRule, MetadataSource, MetadataTarget, RateLimit,
    RateLimitAction, RateLimitRoute, RateLimitRule, RateLimited, RemoteJwks, SessionRoute, SessionState,
    SetMetadata, StatefulSession, TokenBucket, VirtualHostRules,
};
pub use filter::{FilterConfig, FilterOverride, FilterOverrides, HttpFilter, RouteFilterConfig};
pub use hash_policy::{HashCookie, HashPolicy, HashSource};
pub use health_check::{GrpcProbe, HealthCheck, HttpProbe, Probe, TcpProbe};
pub use http::{
    CodecType, EscapedSlashes, ForwardClientCert, Http1Options, Http2Options, HttpConnectionManager,
    RouteSource, ServerHeader, SetClientCertDetails, Underscores, Upgrade,
};
pub use listener::{FilterChain, FilterChainMatch, Listener, NetworkFilter, Terminal, TrafficDirection};
pub use listener_filter::{ForwardProxy, PortPredicate, ProxyProtocol, ProxyProtocolVersion};
pub use local_reply::{LocalReply, ReplyFormat, ReplyMapper};
pub use metadata::{MetadataMatch, ValueMatch};
pub use overload::{CgroupMemory, MemoryMonitor, OverloadManager, Trigger};
pub use rbac::{Permission, Policy, Principal, Rbac, RbacAction, Rules};
pub use retry::{RateLimitedBackoff, ResetHeader, ResetHeaderFormat, RetryOn, RetryPolicy};
pub use route::{
    Action, ClusterChoice, DirectResponse, HeaderAppend, HeaderEdit, HeaderEdits, HeaderMatch,
    HeaderValueMatch, HostRewrite, InternalRedirect, Mirror, MirrorCluster, PathMatch, PathRewrite,
    QueryMatch, QueryValueMatch, Redirect, Route, RouteAction, RouteConfig, RouteMatch, TlsMatch,
    VirtualHost, WeightedCluster,
};
pub use scope::{KeyElement, KeyPart, Scope, ScopeTable, ScopedRoutes};
pub use service::{CallRetry, GrpcTarget, HttpTarget};
pub use shared::Shared;
pub use string_match::{StringMatch, StringPattern};
pub use subset::{LbValue, SubsetFallback, SubsetSelector, Subsets};
pub use tcp::{TcpProxy, Tunnel};
pub use tls::{
    CertificateSource, DownstreamTls, SanMatch, SanType, Secret, SecretValue, TlsCertificate, TlsParams,
    TlsVersion, UpstreamTls, ValidationContext, ValidationSource,
};
pub use tracing::{CustomTag, RouteTracing, SpanExport, SpanOptions, Tracing};
pub use units::Fraction;

use serde::{Deserialize, Serialize};

/// Everything one proxy is asked to do.
///
/// Names tie the parts together: a connection manager names a [`RouteConfig`], a route names a [`Cluster`], a cluster
/// names its [`Endpoints`], a TLS context names a [`Secret`]. Order matters only among routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Addresses to accept on.
    pub listeners: Vec<Listener>,
    /// Route tables that connection managers refer to by name (RDS). Inline tables live in their connection manager.
    pub route_configs: Vec<RouteConfig>,
    /// Upstream clusters.
    pub clusters: Vec<Cluster>,
    /// Endpoints of EDS clusters, by EDS service name. Endpoints of other clusters live in their cluster.
    pub endpoints: Vec<Endpoints>,
    /// Certificates and trust roots that TLS contexts refer to by name (SDS).
    pub secrets: Vec<Secret>,
    /// Where this proxy and its fellows are; `None`: no cluster keeps requests in a zone.
    pub local_cluster: Option<LocalCluster>,
}

/// One named piece of a [`Config`], as it travels and is replaced.
#[allow(clippy::large_enum_variant, reason = "held one by one, each behind a pointer of its own")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Resource {
    /// A listener (LDS).
    Listener(Listener),
    /// A route table (RDS).
    RouteConfig(RouteConfig),
    /// A cluster (CDS).
    Cluster(Cluster),
    /// The endpoints of a cluster (EDS).
    Endpoints(Endpoints),
    /// A certificate or trust roots (SDS).
    Secret(Secret),
}

impl Resource {
    /// The name by which other resources refer to this one.
    pub fn name(&self) -> &str {
        match self {
            Self::Listener(v) => &v.name,
            Self::RouteConfig(v) => &v.name,
            Self::Cluster(v) => &v.name,
            Self::Endpoints(v) => &v.cluster_name,
            Self::Secret(v) => &v.name,
        }
    }
}
