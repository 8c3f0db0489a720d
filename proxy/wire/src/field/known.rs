//! Field names the proxy looks at, as one byte each.
//!
//! A name is recognised once, when a field is stored; every later question ("is there a
//! `content-length`?") compares a byte or tests a bit instead of comparing text.

macro_rules! known {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// A field name the proxy knows, or [`Known::Other`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known {
            /// A name that is not in this list.
            Other,
            $(#[doc = concat!("`", $name, "`")] $variant,)+
        }

        /// Name by discriminant; the first entry stands for [`Known::Other`].
        const NAMES: &[&[u8]] = &[b"", $($name.as_bytes(),)+];
        /// Variant by discriminant.
        const ALL: &[Known] = &[Known::Other, $(Known::$variant,)+];
    };
}

known! {
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AccessControlAllowOrigin = "access-control-allow-origin",
    AccessControlRequestHeaders = "access-control-request-headers",
    AccessControlRequestMethod = "access-control-request-method",
    Age = "age",
    AltSvc = "alt-svc",
    Authorization = "authorization",
    B3 = "b3",
    Baggage = "baggage",
    CacheControl = "cache-control",
    Connection = "connection",
    ContentEncoding = "content-encoding",
    ContentLength = "content-length",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Early = "early-data",
    Etag = "etag",
    Expect = "expect",
    Expires = "expires",
    Forwarded = "forwarded",
    GrpcAcceptEncoding = "grpc-accept-encoding",
    GrpcEncoding = "grpc-encoding",
    GrpcMessage = "grpc-message",
    GrpcRetryPushback = "grpc-retry-pushback-ms",
    GrpcStatus = "grpc-status",
    GrpcStatusDetails = "grpc-status-details-bin",
    GrpcTimeout = "grpc-timeout",
    Host = "host",
    Http2Settings = "http2-settings",
    IfMatch = "if-match",
    IfModifiedSince = "if-modified-since",
    IfNoneMatch = "if-none-match",
    KeepAlive = "keep-alive",
    LastModified = "last-modified",
    Location = "location",
    Origin = "origin",
    Pragma = "pragma",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    ProxyStatus = "proxy-status",
    RateLimitReset = "x-ratelimit-reset",
    Referer = "referer",
    RetryAfter = "retry-after",
    SecWebSocketAccept = "sec-websocket-accept",
    SecWebSocketKey = "sec-websocket-key",
    SecWebSocketVersion = "sec-websocket-version",
    Server = "server",
    SetCookie = "set-cookie",
    Te = "te",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Vary = "vary",
    Via = "via",
    WwwAuthenticate = "www-authenticate",
    XB3Flags = "x-b3-flags",
    XB3ParentSpanId = "x-b3-parentspanid",
    XB3Sampled = "x-b3-sampled",
    XB3SpanId = "x-b3-spanid",
    XB3TraceId = "x-b3-traceid",
    XClientTraceId = "x-client-trace-id",
    XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
    XEnvoyDegraded = "x-envoy-degraded",
    XEnvoyDownstreamServiceCluster = "x-envoy-downstream-service-cluster",
    XEnvoyDownstreamServiceNode = "x-envoy-downstream-service-node",
    XEnvoyExpectedRequestTimeoutMs = "x-envoy-expected-rq-timeout-ms",
    XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyForceTrace = "x-envoy-force-trace",
    XEnvoyHedgeOnPerTryTimeout = "x-envoy-hedge-on-per-try-timeout",
    XEnvoyImmediateHealthCheckFail = "x-envoy-immediate-health-check-fail",
    XEnvoyInternal = "x-envoy-internal",
    XEnvoyIpTags = "x-envoy-ip-tags",
    XEnvoyMaxRetries = "x-envoy-max-retries",
    XEnvoyOriginalHost = "x-envoy-original-host",
    XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyOriginalUrl = "x-envoy-original-url",
    XEnvoyOverloaded = "x-envoy-overloaded",
    XEnvoyRateLimited = "x-envoy-ratelimited",
    XEnvoyRetriableHeaderNames = "x-envoy-retriable-header-names",
    XEnvoyRetriableStatusCodes = "x-envoy-retriable-status-codes",
    XEnvoyRetryGrpcOn = "x-envoy-retry-grpc-on",
    XEnvoyRetryOn = "x-envoy-retry-on",
    XEnvoyUpstreamAltStatName = "x-envoy-upstream-alt-stat-name",
    XEnvoyUpstreamCanary = "x-envoy-upstream-canary",
    XEnvoyUpstreamHealthCheckedCluster = "x-envoy-upstream-healthchecked-cluster",
    XEnvoyUpstreamRequestPerTryTimeoutMs = "x-envoy-upstream-rq-per-try-timeout-ms",
    XEnvoyUpstreamRequestTimeoutAltResponse = "x-envoy-upstream-rq-timeout-alt-response",
    XEnvoyUpstreamRequestTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    XEnvoyUpstreamStreamDurationMs = "x-envoy-upstream-stream-duration-ms",
    XForwardedClientCert = "x-forwarded-client-cert",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedProto = "x-forwarded-proto",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
}

/// Slots of the recognition table; sparse, so that a seed without collisions is found quickly.
const SLOTS: usize = 1024;
/// What `slot` shifts by to leave a number below `SLOTS`.
const SHIFT: u32 = 32 - SLOTS.trailing_zeros();

/// Multiplier under which no two names share a slot. When a new name collides, the build fails in
/// [`table`]: try another odd number here.
const SEED: u32 = 0x4ff9_83c7;
static TABLE: [u8; SLOTS] = table();

/// Slot of a name, from its length and four of its bytes.
#[inline]
const fn slot(name: &[u8]) -> usize {
    let ([first, ..], [.., last]) = (name, name) else { return 0 };
    let (_, second_half) = name.split_at(name.len() / 2);
    let (_, last_quarter) = second_half.split_at(second_half.len() / 2);
    let ([middle, ..], [quarter, ..]) = (second_half, last_quarter) else { return 0 };
    let sample = (name.len() as u32) ^ (*first as u32) << 8 ^ (*middle as u32) << 16 ^ (*last as u32) << 24;
    let mixed = (sample ^ (*quarter as u32).wrapping_mul(0x9e37_79b1)).wrapping_mul(SEED);
    ((mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b) >> SHIFT) as usize
}

#[allow(clippy::indexing_slicing, clippy::panic)] // evaluated by the compiler; a failure is a build error
const fn table() -> [u8; SLOTS] {
    assert!(NAMES.len() <= 128, "the presence set of a field block has 128 bits");
    let mut table = [0u8; SLOTS];
    let mut index = 1;
    while index < NAMES.len() {
        let at = slot(NAMES[index]);
        assert!(table[at] == 0, "two known names share a slot: choose another SEED");
        table[at] = index as u8;
        index += 1;
    }
    table
}

impl Known {
    /// Recognises a **lower-case** name; anything else is [`Known::Other`].
    #[inline]
    #[must_use]
    pub fn from_lower(name: &[u8]) -> Self {
        let index = TABLE.get(slot(name)).copied().unwrap_or(0);
        let index = usize::from(index);
        match (NAMES.get(index), ALL.get(index)) {
            (Some(known), Some(variant)) if *known == name => *variant,
            _ => Self::Other,
        }
    }

    /// The name in lower case; empty for [`Known::Other`].
    #[must_use]
    pub fn name(self) -> &'static [u8] {
        NAMES.get(self as usize).copied().unwrap_or(b"")
    }

    /// The bit of this name in a presence set; [`Known::Other`] has one too.
    pub(crate) const fn bit(self) -> u128 {
        1 << (self as u8)
    }

    /// Every known name, without [`Known::Other`].
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.iter().copied().skip(1)
    }

    /// Whether the field belongs to one connection and must not be forwarded as received
    /// (RFC 9110 §7.6.1), whatever `connection` says.
    #[must_use]
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::Te
                | Self::Http2Settings
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_recognised_as_itself() {
        for known in Known::all() {
            assert_eq!(Known::from_lower(known.name()), known);
            assert_eq!(known.name(), known.name().to_ascii_lowercase());
        }
    }

    #[test]
    fn similar_names_are_other() {
        for known in Known::all() {
            let mut longer = known.name().to_vec();
            longer.push(b'x');
            assert_eq!(Known::from_lower(&longer), Known::Other);
            let shorter = known.name().split_last().map_or(&b""[..], |(_, rest)| rest);
            if !Known::all().any(|other| other.name() == shorter) {
                assert_eq!(Known::from_lower(shorter), Known::Other);
            }
        }
        assert_eq!(Known::from_lower(b""), Known::Other);
        assert_eq!(Known::from_lower(b"Host"), Known::Other);
        assert_eq!(Known::from_lower(b"x"), Known::Other);
    }
}
