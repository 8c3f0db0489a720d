//! HTTP filters before the router, and what route tables say about them.
//!
//! One file per filter. A filter has a name of its own, by which tables, virtual hosts, routes and weighted clusters say
//! what holds for their requests instead (`typed_per_filter_config`).

mod bandwidth_limit;
mod compression;
mod cors;
mod csrf;
mod ext_authz;
mod fault;
mod header_mutation;
mod health_check;
mod jwt;
mod local_rate_limit;
mod metadata;
mod rate_limit;
mod stateful_session;

pub use bandwidth_limit::BandwidthLimit;
pub use compression::{
    BufferLimit, Coding, Compressible, Compressor, CompressorRoute, Decoding, Decompressible, Decompressor,
};
pub use cors::CorsPolicy;
pub use csrf::CsrfPolicy;
pub use ext_authz::{AuthzBody, AuthzCheck, AuthzHttp, AuthzService, ExtAuthz, ExtAuthzRoute};
pub use fault::{Fault, FaultAbort, FaultDelay, FaultRate};
pub use header_mutation::{HeaderMutation, HeaderMutationFilter, HeaderMutations};
pub use health_check::HealthCheckFilter;
pub use jwt::{JwtAuthn, JwtProvider, JwtRequirement, JwtRoute, RemoteJwks};
pub use local_rate_limit::{
    LocalDescriptor, LocalRateLimit, RateLimitAction, RateLimitRule, TokenBucket, VirtualHostRules,
};

pub use metadata::{
    HeaderToMetadata, MetadataKind, MetadataRule, MetadataSource, MetadataTarget, SetMetadata,
};

pub use rate_limit::{RateLimit, RateLimitRoute, RateLimited};

pub use stateful_session::{SessionRoute, SessionState, StatefulSession};

use super::Rbac;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An HTTP filter before the router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpFilter {
    /// Unique name in its connection manager: routes speak of it by this name.
    pub name: String,
    /// It runs only where a route says so.
    pub disabled: bool,
    /// What it does.
    pub config: FilterConfig,
}

/// What a filter does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FilterConfig {
    /// Authorization by rules (`envoy.extensions.filters.http.rbac.v3.RBAC`).
    Rbac(Rbac),
    /// Faults put in on purpose (`envoy.extensions.filters.http.fault.v3.HTTPFault`).
    Fault(Box<Fault>),
    /// Cross-origin requests (`envoy.extensions.filters.http.cors.v3.Cors`); the policy is the levels'.
    Cors,
    /// Bodies that take their time (`envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit`).
    BandwidthLimit(Box<BandwidthLimit>),
    /// Cross-site request forgery (`envoy.extensions.filters.http.csrf.v3.CsrfPolicy`).
    Csrf(Box<CsrfPolicy>),
    /// Header edits (`envoy.extensions.filters.http.header_mutation.v3.HeaderMutation`).
    HeaderMutation(Box<HeaderMutationFilter>),
    /// JSON Web Tokens (`envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication`).
    Jwt(Box<JwtAuthn>),
    /// Rate limits that need no service (`envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`).
    LocalRateLimit(Box<LocalRateLimit>),
    /// Authorization by a service (`envoy.extensions.filters.http.ext_authz.v3.ExtAuthz`).
    ExtAuthz(Box<ExtAuthz>),
    /// Header fields become metadata (`envoy.extensions.filters.http.header_to_metadata.v3.Config`).
    HeaderToMetadata(Box<HeaderToMetadata>),
    /// Fixed values become metadata (`envoy.extensions.filters.http.set_metadata.v3.Config`).
    SetMetadata(Vec<SetMetadata>),
    /// A filter whose settings have not arrived (ECDS): requests are answered with 500 until they do.
    Missing,
    /// Rate limits that a service keeps (`envoy.extensions.filters.http.ratelimit.v3.RateLimit`).
    RateLimit(Box<RateLimit>),
    /// Compression (`envoy.extensions.filters.http.compressor.v3.Compressor`).
    Compressor(Box<Compressor>),
    /// Decompression (`envoy.extensions.filters.http.decompressor.v3.Decompressor`).
    Decompressor(Box<Decompressor>),
    /// Requests are held until they are here as a whole (`envoy.extensions.filters.http.buffer.v3.Buffer`).
    Buffer(BufferLimit),
    /// Answers to health checks (`envoy.extensions.filters.http.health_check.v3.HealthCheck`).
    HealthCheck(Box<HealthCheckFilter>),
    /// gRPC-Web becomes gRPC (`envoy.extensions.filters.http.grpc_web.v3.GrpcWeb`).
    GrpcWeb,
    /// Sessions that stay with their host (`envoy.extensions.filters.http.stateful_session.v3.StatefulSession`).
    StatefulSession(Box<StatefulSession>),
    /// A filter that the embedding program registered, by the name it was registered with.
    Registered(String),
}

/// What route tables say about filters, by name of the filter. A name that no filter of the connection manager has is
/// refused, and so is a setting of another kind than the filter's.
pub type FilterOverrides = BTreeMap<String, FilterOverride>;

/// What one level (table, virtual host, route, weighted cluster) says about a filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FilterOverride {
    /// It does not run.
    Off,
    /// It runs as the connection manager has it.
    On,
    /// It runs by these settings.
    With(Box<RouteFilterConfig>),
}

impl FilterOverride {
    /// Settings of a filter.
    pub fn with(settings: RouteFilterConfig) -> Self {
        Self::With(Box::new(settings))
    }
}

/// Settings of a filter on one level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RouteFilterConfig {
    /// Rules in place of the filter's; `None`: none at all (`RBACPerRoute`).
    Rbac(Option<Rbac>),
    /// Faults in place of the filter's.
    Fault(Box<Fault>),
    /// What holds for other origins.
    Cors(Box<CorsPolicy>),
    /// A limit in place of the filter's, for the requests of the level alone.
    BandwidthLimit(Box<BandwidthLimit>),
    /// In place of the filter's policy.
    Csrf(Box<CsrfPolicy>),
    /// Edits beside the filter's.
    HeaderMutation(Box<HeaderMutations>),
    /// What its requests need in place of what the rules say.
    Jwt(JwtRoute),
    /// Limits in place of the filter's.
    LocalRateLimit(Box<LocalRateLimit>),
    /// What the rate limit service is told instead.
    RateLimit(Box<RateLimitRoute>),
    /// Whether the service is asked, and what it is told too.
    ExtAuthz(ExtAuthzRoute),
    /// Rules in place of the filter's.
    HeaderToMetadata(Box<HeaderToMetadata>),
    /// Whether, and how else, responses are compressed.
    Compressor(CompressorRoute),
    /// A limit in place of the filter's; `None`: requests are not held.
    Buffer(Option<BufferLimit>),
    /// Sessions in place of the filter's, or none.
    StatefulSession(Box<SessionRoute>),
}

impl HttpFilter {
    /// Name of the authorization filter where nobody gave it another one.
    pub const RBAC: &'static str = "envoy.filters.http.rbac";

    /// A filter that runs.
    pub fn new(name: impl Into<String>, config: FilterConfig) -> Self {
        Self { name: name.into(), disabled: false, config }
    }

    /// An authorization filter with its usual name.
    pub fn rbac(rbac: Rbac) -> Self {
        Self::new(Self::RBAC, FilterConfig::Rbac(rbac))
    }

    /// The rules, where it is an authorization filter.
    pub fn as_rbac(&self) -> Option<&Rbac> {
        match &self.config {
            FilterConfig::Rbac(rbac) => Some(rbac),
            _ => None,
        }
    }
}

impl FilterConfig {
    /// Whether settings of a route are of its kind.
    pub fn takes(&self, settings: &RouteFilterConfig) -> bool {
        // What it will be is not known yet.
        if matches!(self, Self::Missing) {
            return true;
        }
        match settings {
            RouteFilterConfig::Rbac(_) => matches!(self, Self::Rbac(_)),
            RouteFilterConfig::Fault(_) => matches!(self, Self::Fault(_)),
            RouteFilterConfig::Cors(_) => matches!(self, Self::Cors),
            RouteFilterConfig::BandwidthLimit(_) => matches!(self, Self::BandwidthLimit(_)),
            RouteFilterConfig::Csrf(_) => matches!(self, Self::Csrf(_)),
            RouteFilterConfig::HeaderMutation(_) => matches!(self, Self::HeaderMutation(_)),
            RouteFilterConfig::Jwt(_) => matches!(self, Self::Jwt(_)),
            RouteFilterConfig::LocalRateLimit(_) => matches!(self, Self::LocalRateLimit(_)),
            RouteFilterConfig::RateLimit(_) => matches!(self, Self::RateLimit(_)),
            RouteFilterConfig::ExtAuthz(_) => matches!(self, Self::ExtAuthz(_)),
            RouteFilterConfig::HeaderToMetadata(_) => matches!(self, Self::HeaderToMetadata(_)),
            RouteFilterConfig::Compressor(_) => matches!(self, Self::Compressor(_)),
            RouteFilterConfig::Buffer(_) => matches!(self, Self::Buffer(_)),
            RouteFilterConfig::StatefulSession(_) => matches!(self, Self::StatefulSession(_)),
        }
    }
}
