//! Why a request failed, and the one table that says what follows from it.
//!
//! Every failure of an exchange is one [`ProxyError`]; its [`row`](ProxyError::row) gives the status and body a client
//! sees, the gRPC status, the response flag and details operators see, and whether the host is to blame. Apart from a
//! filter that answers a request itself nothing else decides these, and no text of a source error ever reaches a client. A new kind does not compile until its row exists.

use crate::telemetry::ResponseFlags;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// The head could not be read or breaks a rule of HTTP; the status says which kind.
    BadRequest(&'static str, u16),
    /// No virtual host or route matched.
    NoRoute,
    /// The route's cluster does not exist; answered with the route's status.
    ClusterNotFound(u16),
    /// The cluster has no host that may be picked.
    NoHealthyHost,
    /// A circuit breaker of the cluster is open.
    Overflow,
    /// No connection to the host: refused, unreachable, or the handshake failed.
    ConnectFailed,
    /// No connection to the host within the cluster's `connect_timeout`.
    ConnectTimeout,
    /// The upstream reset the stream.
    UpstreamReset,
    /// The upstream refused the stream unprocessed (`REFUSED_STREAM`, GOAWAY).
    UpstreamRefused,
    /// The upstream's connection ended before the response did.
    UpstreamClosed,
    /// The upstream sent something that is not HTTP.
    BadResponse,
    /// The route's timeout is over.
    ResponseTimeout,
    /// An attempt's timeout is over.
    PerTryTimeout,
    /// An attempt's idle timeout is over.
    PerTryIdleTimeout,
    /// Nothing moved on the stream for the stream idle timeout; `true` when the request had arrived completely.
    StreamIdle(bool),
    /// The stream's longest life is over; `true` when the request had arrived completely.
    MaxDuration(bool),
    /// The request did not arrive within `request_timeout`.
    RequestTimeout,
    /// The request head did not arrive within `request_headers_timeout`.
    HeaderTimeout,
    /// The downstream went away.
    ClientGone,
    /// The body breaks its framing.
    BadBody,
    /// An upgrade that the connection manager or route does not allow.
    UpgradeForbidden,
    /// The upstream did not switch protocols as asked.
    UpgradeFailed,
    /// HTTP/1.0 where it is not accepted.
    LowVersion,
    /// The path could not be normalised.
    BadPath,
    /// The proxy is draining and takes no more requests on the connection.
    Draining,
    /// Memory runs out, and new requests are refused for that.
    Overloaded,
    /// A defect of the proxy itself.
    Defect,
}

/// What follows from a [`ProxyError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Status of the local reply.
    pub status: u16,
    /// gRPC status when the request is gRPC.
    pub grpc_status: u8,
    /// Envoy's short code.
    pub flag: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
    /// Text of the local reply.
    pub body: &'static str,
    /// Whether the host is to blame, for outlier detection.
    pub counts_against_host: bool,
}

/// Envoy's details and text for an upstream that was lost.
macro_rules! reset {
    ($details:literal, $words:literal) => {
        (
            concat!("upstream_reset_before_response_started{", $details, "}"),
            concat!("upstream connect error or disconnect/reset before headers. reset reason: ", $words),
        )
    };
}

impl ProxyError {
    /// The one table.
    #[must_use]
    pub const fn row(self) -> Row {
        use ResponseFlags as F;
        let none = F::NONE;
        match self {
            Self::BadRequest(details, status) => row(status, 13, F::DOWNSTREAM_PROTOCOL_ERROR, details, ""),
            Self::NoRoute => row(404, 12, F::NO_ROUTE, "route_not_found", ""),
            Self::ClusterNotFound(status) => {
                row(status, grpc_of(status), F::NO_CLUSTER, "cluster_not_found", "")
            }
            Self::NoHealthyHost => {
                row(503, 14, F::NO_HEALTHY_UPSTREAM, "no_healthy_upstream", "no healthy upstream")
            }
            Self::Overflow => lost(503, F::UPSTREAM_OVERFLOW, reset!("overflow", "overflow")),
            Self::ConnectFailed => blamed(lost(
                503,
                F::UPSTREAM_CONNECTION_FAILURE,
                reset!("remote_connection_failure", "remote connection failure"),
            )),
            Self::ConnectTimeout => blamed(lost(
                503,
                F::UPSTREAM_CONNECTION_FAILURE,
                reset!("connection_timeout", "connection timeout"),
            )),
            Self::UpstreamReset | Self::UpstreamRefused => {
                blamed(lost(503, F::UPSTREAM_REMOTE_RESET, reset!("remote_reset", "remote reset")))
            }
            Self::UpstreamClosed => blamed(lost(
                503,
                F::UPSTREAM_TERMINATION,
                reset!("connection_termination", "connection termination"),
            )),
            Self::BadResponse => {
                blamed(lost(502, F::UPSTREAM_PROTOCOL_ERROR, reset!("protocol_error", "protocol error")))
            }
            Self::ResponseTimeout => blamed(row(
                504,
                4,
                F::UPSTREAM_TIMEOUT,
                "upstream_response_timeout",
                "upstream request timeout",
            )),
            Self::PerTryTimeout => blamed(row(
                504,
                4,
                F::UPSTREAM_TIMEOUT,
                "upstream_per_try_timeout",
                "upstream request timeout",
            )),
            Self::PerTryIdleTimeout => blamed(row(
                504,
                4,
                F::STREAM_IDLE_TIMEOUT,
                "upstream_per_try_idle_timeout",
                "upstream request timeout",
            )),
            Self::StreamIdle(complete) => {
                timed(complete, row(408, 4, F::STREAM_IDLE_TIMEOUT, "stream_idle_timeout", "stream timeout"))
            }
            Self::MaxDuration(complete) => timed(
                complete,
                row(408, 4, F::DURATION_TIMEOUT, "max_duration_timeout", "downstream duration timeout"),
            ),
            Self::RequestTimeout => row(408, 4, none, "request_overall_timeout", "request timeout"),
            Self::HeaderTimeout => row(408, 4, none, "request_header_timeout", "request header timeout"),
            // Never sent: there is no one left to read it. The status is what an access log shows.
            Self::ClientGone => row(0, 1, F::DOWNSTREAM_TERMINATION, "downstream_remote_disconnect", ""),
            Self::BadBody => row(400, 13, F::DOWNSTREAM_PROTOCOL_ERROR, "http1.codec_error", "Bad Request"),
            Self::UpgradeForbidden => row(403, 7, none, "upgrade_failed", ""),
            Self::UpgradeFailed => {
                blamed(lost(502, F::UPSTREAM_PROTOCOL_ERROR, reset!("protocol_error", "protocol error")))
            }
            Self::LowVersion => row(426, 13, none, "low_version", ""),
            Self::BadPath => row(400, 13, none, "path_normalization_failed", ""),
            Self::Draining => row(503, 14, none, "drain_time_close", ""),
            Self::Overloaded => row(503, 14, F::OVERLOAD, "overload", "envoy overloaded"),
            Self::Defect => row(500, 13, none, "internal_error", ""),
        }
    }

    /// `%RESPONSE_CODE_DETAILS%` when the response had begun and could only be cut off.
    #[must_use]
    pub const fn details_after_start(self) -> &'static str {
        match self {
            Self::UpstreamReset | Self::UpstreamRefused => {
                "upstream_reset_after_response_started{remote_reset}"
            }
            Self::UpstreamClosed => "upstream_reset_after_response_started{connection_termination}",
            Self::BadResponse => "upstream_reset_after_response_started{protocol_error}",
            other => other.row().details,
        }
    }
}

const fn lost(status: u16, flag: ResponseFlags, (details, body): (&'static str, &'static str)) -> Row {
    row(status, 14, flag, details, body)
}

const fn row(
    status: u16,
    grpc_status: u8,
    flag: ResponseFlags,
    details: &'static str,
    body: &'static str,
) -> Row {
    Row { status, grpc_status, flag, details, body, counts_against_host: false }
}

const fn blamed(row: Row) -> Row {
    Row { counts_against_host: true, ..row }
}

/// 408 says that the client was slow; once its request was complete, it was not (Envoy answers 504 then).
const fn timed(complete: bool, row: Row) -> Row {
    if complete { Row { status: 504, ..row } } else { row }
}

/// gRPC status for an HTTP status (grpc/doc/http-grpc-status-mapping.md).
#[must_use]
pub const fn grpc_of(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sent_error_has_an_error_status_and_details() {
        for error in [
            ProxyError::NoRoute,
            ProxyError::ClusterNotFound(503),
            ProxyError::NoHealthyHost,
            ProxyError::Overflow,
            ProxyError::ConnectFailed,
            ProxyError::ConnectTimeout,
            ProxyError::UpstreamReset,
            ProxyError::UpstreamRefused,
            ProxyError::UpstreamClosed,
            ProxyError::BadResponse,
            ProxyError::ResponseTimeout,
            ProxyError::PerTryTimeout,
            ProxyError::PerTryIdleTimeout,
            ProxyError::StreamIdle(true),
            ProxyError::MaxDuration(false),
            ProxyError::RequestTimeout,
            ProxyError::HeaderTimeout,
            ProxyError::BadBody,
            ProxyError::UpgradeForbidden,
            ProxyError::UpgradeFailed,
            ProxyError::LowVersion,
            ProxyError::BadPath,
            ProxyError::Draining,
            ProxyError::Defect,
        ] {
            let row = error.row();
            assert!((400..600).contains(&row.status), "{error:?}");
            assert!(!row.details.is_empty() && row.grpc_status != 0, "{error:?}");
        }
    }

    #[test]
    fn idle_timeout_blames_the_side_that_was_slow() {
        assert_eq!(ProxyError::StreamIdle(false).row().status, 408);
        assert_eq!(ProxyError::StreamIdle(true).row().status, 504);
    }
}
