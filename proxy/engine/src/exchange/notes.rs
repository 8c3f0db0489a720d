//! What is learned of a request on its way and told at its end.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_traffic::balance::Wanted;
use outrigger_traffic::metadata::Metadata;
use outrigger_traffic::route::Route;
use outrigger_wire::{RequestHead, ResponseHead, Trailers};
use tokio::time::Instant;

use crate::error::ProxyError;
use crate::exchange::Front;
use crate::filter::After;
use crate::http::staged::Stages;
use crate::http::{Connection, Serving};
use crate::live::LiveCluster;
use crate::telemetry::{RequestRecord, RequestTrace, ResponseFlags, Timeline, UpstreamFacts};

/// What is learned of a request on its way.
#[derive(Debug)]
pub struct Notes {
    /// When.
    pub timeline: Timeline,
    /// The client's address after x-forwarded-for was taken into account.
    pub remote: SocketAddr,
    /// Whether the request comes from inside, as x-forwarded-for has it (`x-envoy-internal`).
    pub internal: bool,
    /// The request is gRPC.
    pub is_grpc: bool,
    /// `grpc-status` of the response.
    pub grpc_status: Option<u32>,
    /// Its trace.
    pub trace: Option<RequestTrace>,
    /// The path before a rewrite.
    pub original_path: Option<Vec<u8>>,
    /// The route.
    pub route: Option<Arc<Route>>,
    /// The cluster.
    pub cluster: Option<Arc<LiveCluster>>,
    /// The host of the last attempt.
    pub upstream: Option<UpstreamFacts>,
    /// Attempts made.
    pub attempts: u32,
    /// `x-envoy-attempt-count` goes into the response.
    pub tell_attempts: bool,
    /// Why it ended so.
    pub flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
    /// Details that hold a policy's name; used instead of `details` when not empty.
    pub details_named: String,
    /// Status sent downstream; 0: none.
    pub status: u16,
    /// Trailers sent downstream.
    pub trailers: Option<Trailers>,
    /// Bytes of a tunnel: received, sent.
    pub tunnelled: (u64, u64),
    /// Redirects followed.
    pub redirects: u32,
    /// Routes they led to, where each may be taken only once.
    pub redirect_routes: Vec<Arc<Route>>,
    /// What filters do to the response, in the order of the filters. Never allocates where none has anything to do.
    pub(crate) after: Vec<After>,
    /// What filters learned of it, for those behind them. Allocated only when there is something.
    pub metadata: Option<Box<Metadata>>,
    /// It came as gRPC-Web, whose clients read the HTTP status of what is answered here (Envoy).
    pub(crate) is_grpc_web: bool,
    /// Edits of the answer made here are not told its status.
    pub(super) hides_status: bool,
    /// It is a health check that this proxy was asked to know.
    pub(crate) is_health_check: bool,
    /// What the body of a response made here would be, while it is made.
    pub(crate) local_body: Option<Vec<u8>>,
    /// A filter may change the response's body: it is passed on by a task.
    pub(crate) shapes_response: bool,
    /// The response has a body.
    pub(crate) has_body: bool,
    /// What the response's body goes through, in this order.
    pub(crate) stages: Stages,
    /// A filter changed the request so that its route must be looked for again.
    pub(crate) reroute: bool,
    /// The host that its session wants, for the first attempt.
    pub(crate) wanted: Option<Wanted>,
}

impl Notes {
    /// Of a request that begins.
    pub const fn new(start: Instant, remote: SocketAddr) -> Self {
        Self {
            timeline: Timeline::starting(start),
            remote,
            internal: false,
            is_grpc: false,
            grpc_status: None,
            trace: None,
            original_path: None,
            route: None,
            cluster: None,
            upstream: None,
            attempts: 0,
            tell_attempts: false,
            flags: ResponseFlags::NONE,
            details: "",
            details_named: String::new(),
            status: 0,
            trailers: None,
            tunnelled: (0, 0),
            redirects: 0,
            redirect_routes: Vec::new(),
            after: Vec::new(),
            metadata: None,
            is_grpc_web: false,
            hides_status: false,
            is_health_check: false,
            local_body: None,
            shapes_response: false,
            has_body: false,
            stages: Vec::new(),
            reroute: false,
            wanted: None,
        }
    }

    /// Notes what a filter learned; what is above the limit is left out and counted.
    pub(crate) fn learn(&mut self, x: &Front, namespace: &str, key: &str, value: serde_json::Value) {
        if !self.metadata.get_or_insert_default().put(namespace, key, value) {
            x.serving.stats(x.worker()).dynamic_metadata_overflow.inc();
        }
    }

    /// Takes over what the table says of an error.
    pub fn blame(&mut self, error: ProxyError, response_started: bool) {
        let row = error.row();
        self.flags |= row.flag;
        self.details = if response_started { error.details_after_start() } else { row.details };
    }

    /// Everything known so far, for logs and header templates.
    pub fn record<'a>(
        &'a self,
        connection: &'a Connection,
        serving: &'a Serving,
        request: &'a RequestHead,
        response: Option<&'a ResponseHead>,
        bytes: (u64, u64),
    ) -> RequestRecord<'a> {
        RequestRecord {
            connection: &connection.facts,
            chain: &serving.chain,
            remote: self.remote,
            request,
            original_path: self.original_path.as_deref(),
            response,
            trailers: self.trailers.as_ref(),
            status: self.status,
            is_grpc: self.is_grpc,
            grpc_status: self.grpc_status,
            flags: self.flags,
            details: if self.details_named.is_empty() { self.details } else { &self.details_named },
            is_health_check: self.is_health_check,
            local_body: self.local_body.as_deref(),
            route: self.route.as_ref().map_or("", |route| &route.name),
            rule: self.route.as_deref(),
            cluster: self.cluster.as_ref(),
            upstream: self.upstream.as_ref(),
            attempts: self.attempts,
            timeline: &self.timeline,
            request_body_bytes: bytes.0,
            response_body_bytes: bytes.1,
            trace: self.trace.as_ref(),
            metadata: self.metadata.as_deref(),
        }
    }
}
