//! Rate limits that need no service (`envoy.extensions.filters.http.local_ratelimit.v3`), and the rules by which requests
//! are told apart (`envoy.config.route.v3.RateLimit`).

use crate::config::{Fraction, HeaderEdit, HeaderMatch, QueryMatch};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Requests above a rate are refused. The buckets belong to the proxy, not to a worker, unless `per_connection`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalRateLimit {
    /// Status of the answer, at least 400. Default 429.
    pub status: u16,
    /// For requests that no descriptor matches, and unless `always_consume_default` is off for all others too; `None`: they
    /// are not limited.
    pub bucket: Option<TokenBucket>,
    /// Buckets of descriptors.
    pub descriptors: Vec<LocalDescriptor>,
    /// Share of the requests that are looked at. Default none, as in Envoy.
    pub enabled: Fraction,
    /// Share of those above the rate that are refused. Default none, as in Envoy.
    pub enforced: Fraction,
    /// Edits of requests that are above the rate and not refused.
    pub request_add_when_not_enforced: Vec<HeaderEdit>,
    /// Edits of the answers.
    pub response_add: Vec<HeaderEdit>,
    /// Which of the levels' rules count. Default 0.
    pub stage: u32,
    /// Send `x-ratelimit-limit`, `-remaining` and `-reset`.
    pub rate_limit_headers: bool,
    /// Whether the rules of the virtual host count beside those of the route.
    pub virtual_host: VirtualHostRules,
    /// A request that matched descriptors takes a token of the default bucket too. Default true.
    pub always_consume_default: bool,
    /// Every connection has buckets of its own.
    pub per_connection: bool,
    /// gRPC requests are refused with RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub as_resource_exhausted: bool,
    /// Rules in place of those of the levels; empty: those of the levels.
    pub rules: Vec<RateLimitRule>,
}

/// Whether rules of the virtual host count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VirtualHostRules {
    /// Where the route has none.
    #[default]
    Override,
    /// Beside the route's.
    Include,
    /// Never.
    Ignore,
}

/// Tokens that come back over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBucket {
    /// Most tokens; it starts full.
    pub max_tokens: u32,
    /// Tokens that come back in each interval. Default 1.
    pub tokens_per_fill: u32,
    /// At least 50 ms.
    pub fill_interval: Duration,
}

/// A bucket for requests with this descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalDescriptor {
    /// Keys and values, in the order of the actions.
    pub entries: Vec<(String, String)>,
    /// Their bucket.
    pub bucket: TokenBucket,
}

/// How a request is told apart: all actions together make one descriptor; a request on which one of them says nothing has
/// none by this rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateLimitRule {
    /// For filters of this stage. Default 0.
    pub stage: u32,
    /// At least one.
    pub actions: Vec<RateLimitAction>,
    /// As how many requests one counts, at most 1,000,000,000; `None`: one.
    pub hits: Option<u64>,
    /// Where filters left a limit in place of the rate limit service's: namespace, and keys from there; empty: nowhere.
    pub limit: Vec<String>,
}

/// One entry of a descriptor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RateLimitAction {
    /// `source_cluster`: the cluster of the node.
    SourceCluster,
    /// A value of the metadata that filters left (`metadata` of source DYNAMIC).
    Metadata {
        /// Key of the entry.
        key: String,
        /// Namespace, and keys from there.
        path: Vec<String>,
        /// Where there is none, or an empty text; empty: see below.
        default: String,
        /// A request without the value still has a descriptor of the other entries.
        skip_if_absent: bool,
    },
    /// `destination_cluster`: the cluster of the route.
    DestinationCluster,
    /// The value of a request header.
    RequestHeader {
        /// Lower case.
        name: String,
        /// Key of the entry.
        key: String,
        /// A request without the header still has a descriptor of the other entries.
        skip_if_absent: bool,
    },
    /// The value of a query parameter.
    QueryParameter {
        /// Its name.
        name: String,
        /// Key of the entry.
        key: String,
        /// As above.
        skip_if_absent: bool,
    },
    /// `remote_address`: the client's address.
    RemoteAddress,
    /// `masked_remote_address`: the client's network, with prefixes of these lengths.
    MaskedRemoteAddress(u8, u8),
    /// A fixed entry: key (default `generic_key`) and value.
    Generic(String, String),
    /// A fixed entry for requests whose headers match: key (default `header_match`) and value.
    HeaderValueMatch {
        /// Key of the entry.
        key: String,
        /// Value of the entry.
        value: String,
        /// Whether the headers must match, or must not. Default true.
        expect_match: bool,
        /// All of them.
        headers: Vec<HeaderMatch>,
    },
    /// As above by the query: the key's default is `query_match`.
    QueryValueMatch {
        /// Key of the entry.
        key: String,
        /// Value of the entry.
        value: String,
        /// Whether the parameters must match, or must not. Default true.
        expect_match: bool,
        /// All of them.
        parameters: Vec<QueryMatch>,
    },
}
