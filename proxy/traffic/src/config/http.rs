//! The HTTP connection manager (`envoy.extensions.filters.network.http_connection_manager.v3`).

use super::{AccessLog, HttpFilter, LocalReply, RouteConfig, ScopedRoutes, Tracing};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How connections of a chain are served as HTTP. [`HttpConnectionManager::new`] has Envoy's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpConnectionManager {
    /// Prefix of its metrics.
    pub stat_prefix: String,
    /// Which codec serves the connection.
    pub codec_type: CodecType,
    /// The route table.
    pub routes: RouteSource,
    /// Filters in order; the router is implied at the end.
    pub http_filters: Vec<HttpFilter>,
    /// Setting of the router: add no `x-envoy-` field of its own (expected timeout, original path, service time, overloaded)
    /// to requests and responses. Fields of other parts (attempt count, external address) stay. Default false.
    pub suppress_envoy_headers: bool,
    /// HTTP/1.1 settings.
    pub http1: Http1Options,
    /// HTTP/2 settings.
    pub http2: Http2Options,
    /// Largest request head, KiB. Default 60.
    pub max_request_headers_kb: u32,
    /// Most request header fields. Default 100.
    pub max_headers_count: u32,
    /// Connection without a stream is closed after this. Default 1 h; `None` never.
    pub idle_timeout: Option<Duration>,
    /// Connection is drained after this age. Default never.
    pub max_connection_duration: Option<Duration>,
    /// Connection is drained after so many requests. Default no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Longest life of a stream. Default none.
    pub max_stream_duration: Option<Duration>,
    /// Stream without activity is reset (408 or 504) after this. Default 5 min; `None` never.
    pub stream_idle_timeout: Option<Duration>,
    /// Whole request must have arrived after this. Default none.
    pub request_timeout: Option<Duration>,
    /// Request head must have arrived after this. Default none.
    pub request_headers_timeout: Option<Duration>,
    /// Between the first GOAWAY and the last one. Default 5 s.
    pub drain_timeout: Duration,
    /// What is done to `server:` of responses. Default overwrite with `server_name`.
    pub server_header: ServerHeader,
    /// Default `envoy` in Envoy; `outrigger` here.
    pub server_name: String,
    /// Appended to `via` of requests and responses; empty: not touched.
    pub via: String,
    /// Trust the connection's peer address and append it to x-forwarded-for (edge). Default false.
    pub use_remote_address: bool,
    /// How many proxies in front of us are trusted in x-forwarded-for. Default 0.
    pub xff_num_trusted_hops: u32,
    /// Do not append to x-forwarded-for. Default false.
    pub skip_xff_append: bool,
    /// Make an x-request-id where there is none. Default true.
    pub generate_request_id: bool,
    /// Keep an external client's x-request-id. Default false.
    pub preserve_external_request_id: bool,
    /// Also send x-request-id in responses. Default false.
    pub always_set_request_id_in_response: bool,
    /// x-forwarded-client-cert rule. Default sanitize.
    pub forward_client_cert: ForwardClientCert,
    /// Which details are set in x-forwarded-client-cert where the rule sets it.
    pub set_client_cert_details: SetClientCertDetails,
    /// RFC 3986 normalisation of the path before matching. Default false, as in Envoy.
    pub normalize_path: bool,
    /// Adjacent slashes become one. Default false.
    pub merge_slashes: bool,
    /// What happens to `%2F` and `%5C`. Default keep.
    pub escaped_slashes: EscapedSlashes,
    /// Port is removed from the authority before routing (`strip_any_host_port`/`strip_matching_host_port` for any port).
    pub strip_any_host_port: bool,
    /// As `strip_any_host_port`, where the port is that of the connection's own address alone. Default false.
    pub strip_matching_host_port: bool,
    /// The dot at the end of the authority's host is removed before routing. Default false.
    pub strip_trailing_host_dot: bool,
    /// What happens to header fields with underscores in their names. Default allow.
    pub headers_with_underscores: Underscores,
    /// Scheme forced on requests (`scheme_header_transformation.scheme_to_overwrite`).
    pub scheme_override: Option<String>,
    /// Upgrades allowed, such as `websocket`.
    pub upgrades: Vec<Upgrade>,
    /// Where requests are logged.
    pub access_log: Vec<AccessLog>,
    /// Tracing of requests; `None` passes trace headers on untouched.
    pub tracing: Option<Tracing>,
    /// Keep an HTTP/1.1 connection open after an invalid request was answered, where it is known where that request ends.
    /// Default false: the connection is closed. On HTTP/2 an invalid request always ends its stream only (RFC 9113
    /// §8.1.1), because other clients' requests may share the connection.
    pub stream_error_on_invalid_http_message: bool,
    /// How responses look that are made here; `None`: as they are.
    pub local_reply: Option<LocalReply>,
    /// Leave it to the upstream to answer `expect: 100-continue`. Default false: it is answered here.
    pub proxy_100_continue: bool,
}

impl HttpConnectionManager {
    /// Envoy's defaults with a name and a route table.
    pub fn new(stat_prefix: impl Into<String>, routes: RouteSource) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            codec_type: CodecType::Auto,
            routes,
            http_filters: Vec::new(),
            suppress_envoy_headers: false,
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            max_request_headers_kb: 60,
            max_headers_count: 100,
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_stream_duration: None,
            stream_idle_timeout: Some(Duration::from_secs(300)),
            request_timeout: None,
            request_headers_timeout: None,
            drain_timeout: Duration::from_secs(5),
            server_header: ServerHeader::Overwrite,
            server_name: "outrigger".into(),
            via: String::new(),
            use_remote_address: false,
            xff_num_trusted_hops: 0,
            skip_xff_append: false,
            generate_request_id: true,
            preserve_external_request_id: false,
            always_set_request_id_in_response: false,
            forward_client_cert: ForwardClientCert::Sanitize,
            set_client_cert_details: SetClientCertDetails::default(),
            normalize_path: false,
            merge_slashes: false,
            escaped_slashes: EscapedSlashes::KeepUnchanged,
            strip_any_host_port: false,
            strip_matching_host_port: false,
            strip_trailing_host_dot: false,
            headers_with_underscores: Underscores::Allow,
            scheme_override: None,
            upgrades: Vec::new(),
            access_log: Vec::new(),
            tracing: None,
            stream_error_on_invalid_http_message: false,
            local_reply: None,
            proxy_100_continue: false,
        }
    }
}

/// Where the routes of a connection manager come from.
#[allow(clippy::large_enum_variant)] // there is one in each connection manager
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RouteSource {
    /// A [`RouteConfig`] of the configuration, by name (RDS).
    Named(String),
    /// Written here.
    Inline(RouteConfig),
    /// One of several, by what the headers of the request say.
    Scoped(Box<ScopedRoutes>),
}

/// `HttpConnectionManager.CodecType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CodecType {
    /// By ALPN, else by the connection preface.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// `Http1ProtocolOptions`, downstream and upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http1Options {
    /// Accept absolute-form targets. Always on (RFC 9112 §3.2.2 requires it), as is Envoy's default.
    pub accept_http_10: bool,
    /// Authority for HTTP/1.0 requests without Host.
    pub default_host_for_http_10: String,
    /// Pass trailers on. Default false, as in Envoy.
    pub enable_trailers: bool,
}

/// `Http2ProtocolOptions`, downstream and upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http2Options {
    /// HPACK table size, bytes. Default 4096.
    pub hpack_table_size: u32,
    /// Most streams at a time. Default 1024 (Envoy ≥ 1.35; 2^31−1 before).
    pub max_concurrent_streams: u32,
    /// Per-stream window, bytes, 65,535..=2^31−1. Default 16 MiB (Envoy ≥ 1.35; 256 MiB before).
    pub initial_stream_window_size: u32,
    /// Connection window, bytes. Default 24 MiB (Envoy ≥ 1.35).
    pub initial_connection_window_size: u32,
    /// RFC 8441 extended CONNECT (WebSocket over HTTP/2), and plain CONNECT on a stream, from clients; which upgrades are
    /// allowed is another matter. Towards hosts it changes nothing: an upgrade always speaks HTTP/1.1 there. Default
    /// false.
    pub allow_connect: bool,
    /// PING interval to find dead peers; `None` sends none.
    pub keepalive_interval: Option<Duration>,
    /// PING must be answered within this.
    pub keepalive_timeout: Duration,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            initial_stream_window_size: 16 << 20,
            initial_connection_window_size: 24 << 20,
            allow_connect: false,
            keepalive_interval: None,
            keepalive_timeout: Duration::from_secs(10),
        }
    }
}

/// `server_header_transformation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerHeader {
    /// Always ours.
    Overwrite,
    /// Ours where the upstream sent none.
    AppendIfAbsent,
    /// The upstream's, or none.
    PassThrough,
}

/// `forward_client_cert_details`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardClientCert {
    /// Remove the header.
    Sanitize,
    /// Pass it on when the connection is mutual TLS.
    ForwardOnly,
    /// Append ours to it when the connection is mutual TLS.
    AppendForward,
    /// Replace it by ours when the connection is mutual TLS.
    SanitizeSet,
    /// Pass it on always.
    AlwaysForwardOnly,
}

/// `set_current_client_cert_details`; `By` and `Hash` are always set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetClientCertDetails {
    /// Subject.
    pub subject: bool,
    /// The certificate, URL-encoded PEM.
    pub cert: bool,
    /// The chain, URL-encoded PEM.
    pub chain: bool,
    /// DNS names.
    pub dns: bool,
    /// URI names.
    pub uri: bool,
}

/// `path_with_escaped_slashes_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EscapedSlashes {
    /// Leave as they are.
    KeepUnchanged,
    /// Answer 400.
    RejectRequest,
    /// Redirect (307) to the path with them decoded.
    UnescapeAndRedirect,
    /// Decode them and go on.
    UnescapeAndForward,
}

/// `headers_with_underscores_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Underscores {
    /// They are fields like others.
    Allow,
    /// The request is answered with 400 (HTTP/1.1), or its stream is reset (HTTP/2).
    RejectRequest,
    /// They are left out.
    DropHeader,
}

/// `upgrade_configs[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// Token of `Upgrade:`, such as `websocket`, compared without regard to case.
    pub upgrade_type: String,
    /// Whether it is allowed where a route does not say.
    pub enabled: bool,
}
