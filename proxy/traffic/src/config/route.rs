//! Route tables (`envoy.config.route.v3`).

use super::{
    FilterOverrides, Fraction, HashPolicy, LbValue, RateLimitRule, RetryPolicy, RouteTracing, Shared,
    StringMatch, Upgrade,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A named table: virtual hosts, each with ordered routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteConfig {
    /// Unique name; may be empty for an inline table.
    pub name: String,
    /// Virtual hosts. A domain may occur once in the whole table.
    pub virtual_hosts: Vec<Shared<VirtualHost>>,
    /// Header edits after those of route and virtual host.
    pub headers: HeaderEdits,
    /// Request fields that nobody outside may set, lower case: removed before the request is matched. No request counts as
    /// internal here, so from every request.
    pub internal_only_headers: Vec<String>,
    /// Refuse the table when a route names a cluster that does not exist. Default false for RDS, true for inline tables.
    pub validate_clusters: bool,
    /// Edits of the most specific level come last (and win). Default false: route, virtual host, table.
    pub most_specific_header_mutations_wins: bool,
    /// Ignore the port of the authority when matching domains.
    pub ignore_port_in_host_matching: bool,
    /// Copies of requests of virtual hosts that name none themselves.
    pub mirrors: Vec<Mirror>,
    /// What HTTP filters do for its virtual hosts (`typed_per_filter_config`).
    pub filters: Option<FilterOverrides>,
}

/// Requests of a set of domains.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VirtualHost {
    /// Unique name within the table.
    pub name: String,
    /// `exact.host`, `exact.host:port`, `*.suffix`, `prefix.*` or `*`; lower case.
    pub domains: Vec<String>,
    /// First match wins.
    pub routes: Vec<Route>,
    /// Header edits for all its routes.
    pub headers: HeaderEdits,
    /// Redirect plaintext requests to https.
    pub require_tls: bool,
    /// Retry policy of routes that have none.
    pub retry_policy: Option<RetryPolicy>,
    /// Pass `x-envoy-attempt-count` to the upstream.
    pub include_request_attempt_count: bool,
    /// Send `x-envoy-attempt-count` in the response.
    pub include_attempt_count_in_response: bool,
    /// Largest body kept for retries, bytes; `None`: the connection's buffer limit.
    pub per_request_buffer_limit_bytes: Option<u32>,
    /// By what requests are told apart for rate limits.
    pub rate_limits: Vec<RateLimitRule>,
    /// What HTTP filters do for its routes (`typed_per_filter_config`); it goes before the table's word.
    pub filters: Option<FilterOverrides>,
    /// Copies of requests of routes that name none themselves.
    pub mirrors: Vec<Mirror>,
}

/// A match and what to do then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// For logs and metrics; may be empty.
    pub name: String,
    /// Which requests.
    pub matches: RouteMatch,
    /// What to do.
    pub action: Action,
    /// Header edits.
    pub headers: HeaderEdits,
    /// As [`VirtualHost::filters`]; for a filter that both name, the route's word counts.
    pub filters: Option<FilterOverrides>,
    /// Largest body kept for retries, bytes.
    pub per_request_buffer_limit_bytes: Option<u32>,
    /// Name of the operation in traces (`decorator.operation`).
    pub decorator: Option<String>,
    /// What holds for its traces alone.
    pub tracing: Option<RouteTracing>,
}

/// All given criteria must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteMatch {
    /// The path, without query.
    pub path: PathMatch,
    /// Compare the path with regard to case. Default true. Has no effect on regexes.
    pub case_sensitive: bool,
    /// Header criteria.
    pub headers: Vec<HeaderMatch>,
    /// Query criteria.
    pub query: Vec<QueryMatch>,
    /// Only gRPC requests (content-type application/grpc…).
    pub grpc: bool,
    /// Only this share of requests (`runtime_fraction` default value).
    pub fraction: Option<Fraction>,
    /// What the client's certificate must be.
    pub tls: Option<TlsMatch>,
    /// What filters must have learned: before the first filter, nothing; see `clear_route_cache` of filters.
    pub metadata: Vec<super::MetadataMatch>,
}

/// What the client's certificate must be (`tls_context`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsMatch {
    /// Whether it showed one.
    pub presented: Option<bool>,
    /// Whether the one it showed was found to be valid.
    pub validated: Option<bool>,
}

impl RouteMatch {
    /// Every path under a prefix.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self {
            path: PathMatch::Prefix(prefix.into()),
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            grpc: false,
            fraction: None,
            tls: None,
            metadata: Vec::new(),
        }
    }
}

/// How the path is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathMatch {
    /// Begins with.
    Prefix(String),
    /// Equals.
    Exact(String),
    /// Matches a whole-path regular expression.
    Regex(String),
    /// Equals, or begins with it and a slash.
    PathSeparatedPrefix(String),
    /// Matches a URI template, such as `/v1/{user}/files/{rest=**}`.
    Template(String),
    /// CONNECT requests.
    Connect,
}

/// One header criterion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Lower case; `:method`, `:authority`, `:path`, `:scheme` are understood.
    pub name: String,
    /// What its value must be. Of several fields of a name one is enough, as in Envoy.
    pub value: HeaderValueMatch,
    /// The criterion holds when the comparison does not.
    pub invert: bool,
    /// A missing header is compared as an empty value. Otherwise a missing header never matches (nor when inverted,
    /// except for `Present`), as in Envoy.
    pub treat_missing_as_empty: bool,
}

/// What a header's value must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderValueMatch {
    /// Present (true) or absent (false).
    Present(bool),
    /// A text.
    Text(StringMatch),
    /// A decimal integer in `start..end`.
    Range(i64, i64),
}

/// One query criterion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryMatch {
    /// Name of the parameter.
    pub name: String,
    /// Its value.
    pub value: QueryValueMatch,
}

/// What a query parameter's value must be. The first parameter of the name counts, undecoded, as in Envoy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryValueMatch {
    /// Present or absent.
    Present(bool),
    /// A text.
    Text(StringMatch),
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Send it to a cluster.
    Forward(Box<RouteAction>),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer here.
    Direct(DirectResponse),
}

/// Sending a request to a cluster. [`RouteAction::to`] has Envoy's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteAction {
    /// Which cluster.
    pub cluster: ClusterChoice,
    /// Status when the cluster does not exist. Default 503.
    pub cluster_not_found_status: u16,
    /// Rewrite of the path.
    pub path_rewrite: Option<PathRewrite>,
    /// Rewrite of the authority.
    pub host_rewrite: Option<HostRewrite>,
    /// Append the old authority to x-forwarded-host when it is rewritten.
    pub append_x_forwarded_host: bool,
    /// Until the whole response arrived, from the end of the request. Default 15 s; `None` (0) never.
    pub timeout: Option<Duration>,
    /// Overrides the stream idle timeout; `Some(ZERO)` switches it off.
    pub idle_timeout: Option<Duration>,
    /// Overrides the longest life of a stream; `Some(ZERO)` switches it off.
    pub max_stream_duration: Option<Duration>,
    /// `grpc-timeout` of the request is honoured up to this; `Some(ZERO)`: without limit; `None`: not honoured.
    pub grpc_timeout_header_max: Option<Duration>,
    /// Taken off `grpc-timeout`. Default 0.
    pub grpc_timeout_header_offset: Duration,
    /// Retries; `None`: the virtual host's.
    pub retry_policy: Option<RetryPolicy>,
    /// Upgrades allowed or forbidden for this route.
    pub upgrades: Vec<Upgrade>,
    /// A CONNECT ends here: the cluster's host gets its bytes over TCP, not the request (`connect_config`). Default false.
    pub connect_ends: bool,
    /// As `connect_ends`, for POST requests as well (`allow_post`). Default false.
    pub post_ends: bool,
    /// High priority: the cluster's high-priority circuit breakers count.
    pub high_priority: bool,
    /// By what requests are told apart for rate limits.
    pub rate_limits: Vec<RateLimitRule>,
    /// What of a request decides about its host, where the cluster's policy goes by that.
    pub hash_policy: Vec<HashPolicy>,
    /// What hosts must have, where the cluster is divided into subsets (`metadata_match`).
    pub metadata_match: Vec<(String, LbValue)>,
    /// The number in this request header chooses the share of a weighted choice (its remainder by the sum of the weights);
    /// lower case. Where it is missing or no number, chance chooses.
    pub split_header: Option<String>,
    /// Where copies of the request go; their responses are thrown away. Empty: those of the virtual host.
    pub mirrors: Vec<Mirror>,
    /// Redirects of the upstream that are followed here; `None`: the client gets them.
    pub internal_redirect: Option<InternalRedirect>,
}

impl RouteAction {
    /// To one cluster, everything else at Envoy's default.
    pub fn to(cluster: impl Into<String>) -> Self {
        Self {
            cluster: ClusterChoice::Single(cluster.into()),
            cluster_not_found_status: 503,
            path_rewrite: None,
            host_rewrite: None,
            append_x_forwarded_host: false,
            timeout: Some(Duration::from_secs(15)),
            idle_timeout: None,
            max_stream_duration: None,
            grpc_timeout_header_max: None,
            retry_policy: None,
            upgrades: Vec::new(),
            connect_ends: false,
            post_ends: false,
            high_priority: false,
            rate_limits: Vec::new(),
            hash_policy: Vec::new(),
            metadata_match: Vec::new(),
            grpc_timeout_header_offset: Duration::ZERO,
            split_header: None,
            mirrors: Vec::new(),
            internal_redirect: None,
        }
    }
}

/// Where a copy of a request goes (`request_mirror_policies`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mirror {
    /// Which cluster. Nothing is copied where it does not exist.
    pub cluster: MirrorCluster,
    /// Share of requests that are copied. Default all.
    pub fraction: Fraction,
    /// Whether copies are sampled in traces; `None`: as the request is.
    pub trace_sampled: Option<bool>,
    /// Leave the authority without `-shadow` at its end. Default false.
    pub keep_host: bool,
    /// Authority of the copy; instead of `-shadow`.
    pub host_rewrite: Option<String>,
}

/// Which cluster gets a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorCluster {
    /// This one.
    Single(String),
    /// The one that a request header names, lower case.
    Header(String),
}

impl Mirror {
    /// All requests, to one cluster.
    pub fn to(cluster: impl Into<String>) -> Self {
        Self {
            cluster: MirrorCluster::Single(cluster.into()),
            fraction: Fraction::ONE,
            trace_sampled: None,
            keep_host: false,
            host_rewrite: None,
        }
    }
}

/// Which redirects of the upstream are followed here (`internal_redirect_policy`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternalRedirect {
    /// Most redirects followed for a request. Default 1.
    pub max: u32,
    /// Statuses that are followed, of 301, 302, 303, 307 and 308. Default 302.
    pub statuses: Vec<u16>,
    /// Follow from http to https and back. Default false.
    pub cross_scheme: bool,
    /// Follow only from http to http, https to https and https to http (`safe_cross_scheme`). Default false.
    pub safe_cross_scheme: bool,
    /// Follow to a route only once (`previous_routes`). Default false.
    pub new_routes_only: bool,
    /// Follow only to routes of these names (`allow_listed_routes`); `None`: to all.
    pub allowed_routes: Option<Vec<String>>,
    /// Fields of the redirect that go into the next request, lower case.
    pub copied_headers: Vec<String>,
}

impl Default for InternalRedirect {
    fn default() -> Self {
        Self {
            max: 1,
            statuses: vec![302],
            cross_scheme: false,
            safe_cross_scheme: false,
            new_routes_only: false,
            allowed_routes: None,
            copied_headers: Vec::new(),
        }
    }
}

/// Which cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClusterChoice {
    /// This one.
    Single(String),
    /// One of several by weight. The sum must be above 0 and at most 2^32−1.
    Weighted(Vec<WeightedCluster>),
    /// The one that a request header names, lower case.
    Header(String),
}

/// A share of the requests of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightedCluster {
    /// Cluster; empty where a header names it.
    pub name: String,
    /// The request header that names the cluster, lower case.
    pub cluster_header: Option<String>,
    /// Its share of the sum of all.
    pub weight: u32,
    /// Header edits for this share, before the route's.
    pub headers: HeaderEdits,
    /// Authority for this share.
    pub host_rewrite: Option<String>,
    /// As [`VirtualHost::filters`]; it goes before the route's word.
    pub filters: Option<FilterOverrides>,
    /// What hosts must have, before the route's.
    pub metadata_match: Vec<(String, LbValue)>,
}

/// How the path is rewritten. The query is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathRewrite {
    /// The matched prefix (or whole path of an exact match) is replaced.
    Prefix(String),
    /// Every match of the pattern is replaced; `\1` refers to groups.
    Regex {
        /// The pattern.
        pattern: String,
        /// The replacement.
        substitution: String,
    },
    /// To this URI template, of variables of the template that the path matched.
    Template(String),
    /// To this text with command operators, as the request is before its rewrite.
    Format(String),
}

/// How the authority is rewritten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostRewrite {
    /// To this text.
    Literal(String),
    /// To the host name of the picked endpoint (STRICT_DNS, LOGICAL_DNS).
    Auto,
    /// To the value of a request header, lower-case name.
    Header(String),
    /// Regex over the path gives the host.
    PathRegex {
        /// The pattern.
        pattern: String,
        /// The replacement.
        substitution: String,
    },
    /// To this text with command operators.
    Format(String),
}

/// A redirect answered here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308. Default 301.
    pub status: u16,
    /// `https_redirect` or `scheme_redirect`.
    pub scheme: Option<String>,
    /// New host.
    pub host: Option<String>,
    /// New port.
    pub port: Option<u16>,
    /// New path (and query, when it has one).
    pub path: Option<String>,
    /// Rewrite of the path, instead of `path`.
    pub path_rewrite: Option<PathRewrite>,
    /// Drop the query.
    pub strip_query: bool,
}

/// A response answered here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectResponse {
    /// 200..=599.
    pub status: u16,
    /// Body; at most 4096 bytes by default, as in Envoy.
    pub body: Vec<u8>,
    /// Header edits of `response_headers_to_add` on the direct response are in the route's edits.
    pub content_type: Option<String>,
}

/// Edits of request and response headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderEdits {
    /// To request headers, in order, after removals.
    pub request_add: Vec<HeaderEdit>,
    /// From request headers; lower case.
    pub request_remove: Vec<String>,
    /// To response headers, in order, after removals.
    pub response_add: Vec<HeaderEdit>,
    /// From response headers; lower case.
    pub response_remove: Vec<String>,
}

impl HeaderEdits {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.request_add.is_empty()
            && self.request_remove.is_empty()
            && self.response_add.is_empty()
            && self.response_remove.is_empty()
    }
}

/// One header to add (`HeaderValueOption`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderEdit {
    /// Lower case; no pseudo-header, not `host`.
    pub name: String,
    /// Text with Envoy's command operators (`%DOWNSTREAM_REMOTE_ADDRESS%`, …); `%%` is a percent sign.
    pub value: String,
    /// What happens to a header that is there already.
    pub append: HeaderAppend,
    /// Set it even when the value came out empty.
    pub keep_empty_value: bool,
}

/// `HeaderAppendAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderAppend {
    /// Add another field.
    AppendIfExistsOrAdd,
    /// Only where it is absent.
    AddIfAbsent,
    /// Replace or add.
    OverwriteIfExistsOrAdd,
    /// Replace only where present.
    OverwriteIfExists,
}
