//! Tracing of requests.

use super::Fraction;
use serde::{Deserialize, Serialize};

/// `tracing`: parent-based sampling; spans leave by the exporter of the proxy's tracing provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tracing {
    /// Share of requests with a client-forced trace (`x-client-trace-id`) that are sampled. Default all.
    pub client_sampling: Fraction,
    /// Share of other root requests that are sampled. Default all in Envoy.
    pub random_sampling: Fraction,
    /// Limit on the whole. Default all.
    pub overall_sampling: Fraction,
    /// `service.name` of spans; empty: the node's cluster.
    pub service_name: String,
    /// Cluster to which spans are sent.
    pub collector_cluster: String,
    /// In which form they are sent. Default OTLP over gRPC.
    pub export: SpanExport,
    /// What spans say.
    pub spans: SpanOptions,
    /// Make trace ids of 128 bits. Default true.
    pub wide_trace_ids: bool,
    /// Send B3 fields (`x-b3-…`) to hosts even if the request came without; one that came with a single field `b3` leaves
    /// with that. Default false.
    pub always_b3: bool,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            client_sampling: Fraction::ONE,
            random_sampling: Fraction::ONE,
            overall_sampling: Fraction::ONE,
            service_name: String::new(),
            collector_cluster: String::new(),
            export: SpanExport::OtlpGrpc,
            spans: SpanOptions::default(),
            wide_trace_ids: true,
            always_b3: false,
        }
    }
}

/// How spans travel to their collector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SpanExport {
    /// OTLP over gRPC.
    #[default]
    OtlpGrpc,
    /// OTLP over HTTP, as binary protobuf.
    OtlpHttp {
        /// `host:port` of the URI: `host` of requests.
        host: String,
        /// Path, with its slash.
        path: String,
        /// Further fields.
        headers: Vec<(String, String)>,
    },
    /// Zipkin's JSON, version 2, over HTTP.
    Zipkin {
        /// `host` of requests.
        host: String,
        /// Path, with its slash.
        path: String,
    },
}

/// What spans say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpanOptions {
    /// Attributes of every span.
    pub tags: Vec<CustomTag>,
    /// Longest path in an attribute, bytes; the rest is cut off. Default 256.
    pub path_bytes_max: u32,
    /// The phases of a request are events of its span. Default false.
    pub verbose: bool,
    /// Every attempt has a span of its own. Default true.
    pub attempts: bool,
    /// Name of a request's span, a text with command operators; empty: method and route.
    pub operation: String,
    /// Name of an attempt's span, likewise.
    pub upstream_operation: String,
}

impl Default for SpanOptions {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            path_bytes_max: 256,
            verbose: false,
            attempts: true,
            operation: String::new(),
            upstream_operation: String::new(),
        }
    }
}

/// An attribute of spans (`CustomTag`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomTag {
    /// Its name.
    pub name: String,
    /// Its value, a text with command operators.
    pub value: String,
    /// Its value where that gives none; empty: there is no such attribute then.
    pub default_value: String,
}

/// What a route says of the traces of its requests; what it leaves open is the connection manager's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteTracing {
    /// As [`Tracing::client_sampling`].
    pub client_sampling: Option<Fraction>,
    /// As [`Tracing::random_sampling`].
    pub random_sampling: Option<Fraction>,
    /// As [`Tracing::overall_sampling`].
    pub overall_sampling: Option<Fraction>,
    /// Further attributes; one of a name that the connection manager has too takes its place.
    pub tags: Vec<CustomTag>,
    /// As [`SpanOptions::operation`].
    pub operation: String,
    /// As [`SpanOptions::upstream_operation`].
    pub upstream_operation: String,
}
