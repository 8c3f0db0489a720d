//! Authorization by a service (`envoy.extensions.filters.http.ext_authz.v3`).

use crate::config::{CallRetry, Fraction, GrpcTarget, HttpTarget, MetadataMatch, StringMatch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Requests pass when a service says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExtAuthz {
    /// The service.
    pub service: AuthzService,
    /// Requests pass when the service does not answer.
    pub failure_allow: bool,
    /// The upstream is told that a request passed so (`x-envoy-auth-failure-mode-allowed`).
    pub failure_allow_header: bool,
    /// The route is looked for again when the service changed the request.
    pub clear_route_cache: bool,
    /// Status of the answer when the service does not answer. Default 403.
    pub status_on_error: u16,
    /// Share of the requests that are asked about. Default all.
    pub enabled: Fraction,
    /// Only requests with this metadata are asked about.
    pub enabled_metadata: Option<MetadataMatch>,
    /// Requests that are not asked about by chance are refused.
    pub deny_at_disable: bool,
    /// The service is told the client's certificate.
    pub include_peer_certificate: bool,
    /// The service is told the SNI.
    pub include_tls_session: bool,
    /// Namespaces of metadata that the service is told.
    pub metadata_namespaces: Vec<String>,
    /// Headers that the service is told; `None`: all over gRPC, over HTTP those that cannot be left out.
    pub allowed_headers: Option<Vec<StringMatch>>,
    /// Headers that it is never told.
    pub disallowed_headers: Vec<StringMatch>,
    /// What the service says becomes metadata. Default true.
    pub ingest_metadata: bool,
    /// What it is told of the body; `None`: nothing.
    pub body: Option<AuthzBody>,
    /// Headers are told as they came, one by one and byte by byte (`encode_raw_headers`).
    pub raw_headers: bool,
    /// Longest body of a refusal that the client gets, bytes; 0: all.
    pub denied_body_max: u32,
}

/// What a service is told of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthzBody {
    /// Most bytes, at least 1.
    pub bytes_max: u32,
    /// Of a longer body the service is told the beginning; otherwise such requests are answered with 413.
    pub partial: bool,
    /// As bytes instead of a text; what the filter says holds for all routes, as in Envoy.
    pub as_bytes: bool,
}

/// The service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AuthzService {
    /// `envoy.service.auth.v3.Authorization`.
    Grpc(GrpcTarget),
    /// One that is asked by the request's own head.
    Http(Box<AuthzHttp>),
}

/// A service that is asked by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuthzHttp {
    /// Where it is; its path and authority are the request's.
    pub target: HttpTarget,
    /// Goes before the request's path.
    pub path_prefix: String,
    /// Fields that are set in its requests: lower-case name, value.
    pub headers_to_add: Vec<(String, String)>,
    /// Fields of its answer that are set in a request that passes.
    pub upstream_headers: Vec<StringMatch>,
    /// Fields of its answer that are joined to those of a request that passes.
    pub upstream_headers_to_append: Vec<StringMatch>,
    /// Fields of its answer that the client gets with a refusal; empty: all.
    pub client_headers: Vec<StringMatch>,
    /// Fields of its answer that the client gets with the response to a request that passed.
    pub client_headers_on_success: Vec<StringMatch>,
    /// Fields of its answer that become metadata.
    pub metadata_from_headers: Vec<StringMatch>,
    /// How often it is asked again.
    pub retry: Option<CallRetry>,
}

/// What a route says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExtAuthzRoute {
    /// Its requests are not asked about.
    Disabled,
    /// How the service is asked.
    Check(AuthzCheck),
}

/// How a service is asked about the requests of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthzCheck {
    /// It is told this too.
    pub extensions: BTreeMap<String, String>,
    /// What it is told of the body; `None`: as the filter has it, `Some(None)`: nothing.
    pub body: Option<Option<AuthzBody>>,
}
