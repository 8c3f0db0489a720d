//! What is known of a request or connection when it is over; the input of counters, logs and spans.

use super::flags::ResponseFlags;
use super::trace::RequestTrace;
use crate::io::TlsFacts;
use crate::listener::ConnFacts;
use crate::live::{LiveChain, LiveCluster};
use outrigger_traffic::cluster::Host;
use outrigger_traffic::metadata::Metadata;
use outrigger_traffic::route::Route;
use outrigger_traffic::template::Moment;
use outrigger_wire::{RequestHead, ResponseHead, Trailers, Version};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// When the phases of a request began and ended. What did not happen is `None`.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    /// First byte of the request head arrived.
    pub start: Instant,
    /// Last byte of the request arrived (`%REQUEST_DURATION%`).
    pub request_end: Option<Instant>,
    /// First byte was sent to the host of the last attempt.
    pub upstream_start: Option<Instant>,
    /// Last byte was sent to that host.
    pub upstream_request_end: Option<Instant>,
    /// First byte of the response arrived (`%RESPONSE_DURATION%`).
    pub response_start: Option<Instant>,
    /// Last byte of the response arrived.
    pub response_end: Option<Instant>,
    /// Last byte was sent downstream, or the request was given up; `None`: now.
    pub end: Option<Instant>,
}

impl Timeline {
    /// A request that begins.
    pub const fn starting(start: Instant) -> Self {
        Self {
            start,
            request_end: None,
            upstream_start: None,
            upstream_request_end: None,
            response_start: None,
            response_end: None,
            end: None,
        }
    }

    /// From the start to `at`; `None` where that did not happen.
    pub fn since_start(&self, at: Option<Instant>) -> Option<Duration> {
        at.map(|at| at.saturating_duration_since(self.start))
    }

    /// When a moment was; the end is now where it is still to come.
    pub fn at(&self, moment: Moment) -> Option<Instant> {
        match moment {
            Moment::DownstreamReceiveBegin => Some(self.start),
            Moment::DownstreamReceiveEnd => self.request_end,
            Moment::UpstreamSendBegin => self.upstream_start,
            Moment::UpstreamSendEnd => self.upstream_request_end,
            // A response head is passed on as soon as it is there.
            Moment::UpstreamReceiveBegin | Moment::DownstreamSendBegin => self.response_start,
            Moment::UpstreamReceiveEnd => self.response_end,
            Moment::DownstreamSendEnd => Some(self.end.unwrap_or_else(Instant::now)),
        }
    }

    /// From the start to the end, or to now.
    pub fn total(&self) -> Duration {
        self.end.unwrap_or_else(Instant::now).saturating_duration_since(self.start)
    }
}

/// Where the last attempt went.
#[derive(Clone, Debug)]
pub struct UpstreamFacts {
    /// The host.
    pub host: Arc<Host>,
    /// Our end of the connection; `None` where there was none.
    pub local: Option<SocketAddr>,
    /// TLS to the host.
    pub tls: Option<Arc<TlsFacts>>,
    /// Protocol spoken.
    pub protocol: Version,
    /// Why no connection could be made; empty otherwise (`%UPSTREAM_TRANSPORT_FAILURE_REASON%`).
    pub failure: String,
}

/// A request that is over. Filled by the exchange, given to [`super::finish`].
#[derive(Clone, Copy, Debug)]
pub struct RequestRecord<'a> {
    /// What filters learned of it.
    pub metadata: Option<&'a Metadata>,
    /// The connection it came on.
    pub connection: &'a ConnFacts,
    /// The chain that served it.
    pub chain: &'a LiveChain,
    /// The client's address after x-forwarded-for was taken into account (`%DOWNSTREAM_REMOTE_ADDRESS%`).
    pub remote: SocketAddr,
    /// The head, as it was when the request ended (after edits, as in Envoy).
    pub request: &'a RequestHead,
    /// The path before it was rewritten, where it was.
    pub original_path: Option<&'a [u8]>,
    /// The head that was sent downstream.
    pub response: Option<&'a ResponseHead>,
    /// Trailers that were sent downstream.
    pub trailers: Option<&'a Trailers>,
    /// Status that was sent downstream; 0: none.
    pub status: u16,
    /// `content-type` was gRPC's.
    pub is_grpc: bool,
    /// `grpc-status` of head or trailers; `None` where there was none or it is no number.
    pub grpc_status: Option<u32>,
    /// Why it ended so.
    pub flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`; empty: none.
    pub details: &'a str,
    /// It is a health check.
    pub is_health_check: bool,
    /// What the body of a response made here would be, while it is made.
    pub local_body: Option<&'a [u8]>,
    /// Name of the route; may be empty.
    pub route: &'a str,
    /// The route.
    pub rule: Option<&'a Route>,
    /// Where it was to go.
    pub cluster: Option<&'a Arc<LiveCluster>>,
    /// Where the last attempt went.
    pub upstream: Option<&'a UpstreamFacts>,
    /// Attempts made (`%UPSTREAM_REQUEST_ATTEMPT_COUNT%`).
    pub attempts: u32,
    /// When.
    pub timeline: &'a Timeline,
    /// Bytes of the request body (`%BYTES_RECEIVED%`).
    pub request_body_bytes: u64,
    /// Bytes of the response body (`%BYTES_SENT%`).
    pub response_body_bytes: u64,
    /// Its trace; `None` where the connection manager does not trace.
    pub trace: Option<&'a RequestTrace>,
}

/// A connection that a TCP proxy served and that is over. Given to [`super::finish_connection`].
#[derive(Clone, Copy, Debug)]
pub struct ConnectionRecord<'a> {
    /// The connection.
    pub connection: &'a ConnFacts,
    /// The chain that served it.
    pub chain: &'a LiveChain,
    /// Why it ended.
    pub flags: ResponseFlags,
    /// Where it went.
    pub cluster: Option<&'a Arc<LiveCluster>>,
    /// Where exactly.
    pub upstream: Option<&'a UpstreamFacts>,
    /// Connection attempts made.
    pub attempts: u32,
    /// When.
    pub timeline: &'a Timeline,
    /// Bytes from downstream.
    pub received_bytes: u64,
    /// Bytes to downstream.
    pub sent_bytes: u64,
}
