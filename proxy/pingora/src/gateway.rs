//! A request of a Pingora gateway.
//!
//! ```text
//!  request_filter ─ route? ─▶ answered here (redirect, direct response, no route, no cluster)
//!        │ a cluster
//!        ▼
//!  upstream_peer ─ permit, host ─▶ fail_to_connect ──────┐ again, after a pause, as the policy says
//!        │                      ─▶ error_while_proxy ────┤
//!        ▼                      ─▶ a response to retry ──┘
//!  response_filter ─▶ logging: the end gives everything back
//! ```

use crate::decisions::Decisions;
use crate::message::{Fields, Head, edit};
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, header};
use outrigger_traffic::Snapshot;
use outrigger_traffic::balance::{Criteria, PickContext};
use outrigger_traffic::breaker::Permit;
use outrigger_traffic::cluster::{Cluster, Host, HostId, InFlight};
use outrigger_traffic::config::HttpUpstream;
use outrigger_traffic::listener::Terminal;
use outrigger_traffic::outcome::Outcome;
use outrigger_traffic::retry::{AttemptResult, Decision, Ended, Reached, ResetKind};
use outrigger_traffic::route::{Action, Direct, Edits, Forward, HostRewriter, Redirect, Route};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An attempt whose response is one to try again.
const RETRIED: ErrorType = ErrorType::Custom("a response that the retry policy names");

/// Serves requests by the route table of a listener.
#[derive(Clone, Debug)]
pub struct Gateway {
    decisions: Arc<Decisions>,
    listener: Arc<str>,
    tls: bool,
}

impl Gateway {
    /// By the routes of the listener of this name, which need not exist yet.
    pub fn new(decisions: Arc<Decisions>, listener: impl Into<Arc<str>>) -> Self {
        Self { decisions, listener: listener.into(), tls: false }
    }

    /// The same for a service on which Pingora terminates TLS: the scheme of requests is https.
    #[must_use]
    pub fn over_tls(self) -> Self {
        Self { tls: true, ..self }
    }

    /// What it decides by.
    pub fn decisions(&self) -> &Arc<Decisions> {
        &self.decisions
    }

    fn head<'a>(&self, session: &'a Session) -> Head<'a> {
        Head { request: session.req_header(), tls: self.tls }
    }

    /// The route of a request, in the configuration that it is served by from now on.
    fn route(&self, session: &Session, snapshot: &Snapshot) -> Option<Arc<Route>> {
        let chain = snapshot.listener(&self.listener)?.chains.first()?.clone();
        let Terminal::Http(http) = &chain.terminal else { return None };
        let table = snapshot.table(http.table)?;
        Some(table.find(&self.head(session), fastrand::u32(..))?.route.clone())
    }
}

/// What is known of a request on its way: the context of a [`Gateway`].
#[derive(Debug, Default)]
pub struct Journey {
    plan: Option<Plan>,
    tried: Vec<HostId>,
    retries: u32,
    pause: Option<Duration>,
    retry_permit: Option<Permit>,
    attempt: Option<Attempt>,
}

impl Journey {
    /// The host of the last attempt, while there is one.
    pub fn host(&self) -> Option<&Arc<Host>> {
        self.attempt.as_ref().map(|attempt| &attempt.host)
    }

    /// The cluster.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.plan.as_ref().map(|plan| &plan.cluster)
    }

    /// Retries made.
    pub const fn retries(&self) -> u32 {
        self.retries
    }
}

/// What stays the same in every attempt.
#[derive(Debug)]
struct Plan {
    forward: Arc<Forward>,
    cluster: Arc<Cluster>,
    /// Those of the chosen share of a split, before the route's.
    share_edits: Option<Edits>,
    request_edits: Edits,
    response_edits: Edits,
    host: Option<HostRewriter>,
    /// The path after its rewrite.
    path: Option<Vec<u8>>,
    hash: Option<u64>,
    criteria: Option<Arc<Criteria>>,
    deadline: Option<Instant>,
}

/// What an attempt holds; dropping it gives everything back.
#[derive(Debug)]
struct Attempt {
    host: Arc<Host>,
    _in_flight: InFlight,
    _permit: Permit,
    _retry: Option<Permit>,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Journey;

    fn new_ctx(&self) -> Journey {
        Journey::default()
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Journey) -> Result<bool> {
        let snapshot = self.decisions.snapshot();
        let Some(route) = self.route(session, &snapshot) else {
            session.respond_error(404).await?;
            return Ok(true);
        };
        let forward = match &route.action {
            Action::Forward(forward) => forward,
            Action::Redirect(redirect) => {
                let answer = self.redirect(session, redirect, &route)?;
                return answered(session, answer, Bytes::new()).await;
            }
            Action::Direct(direct) => {
                let answer = direct_answer(direct, &route)?;
                return answered(session, answer, Bytes::copy_from_slice(&direct.body)).await;
            }
        };
        let plan = self.plan(session, &snapshot, &route, forward);
        match plan {
            Ok(plan) => {
                if plan.forward.retry.is_some() {
                    session.as_mut().enable_retry_buffering();
                }
                ctx.plan = Some(plan);
                Ok(false)
            }
            Err(status) => {
                session.respond_error(status).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Journey) -> Result<Box<HttpPeer>> {
        ctx.attempt = None;
        if let Some(pause) = ctx.pause.take() {
            tokio::time::sleep(pause).await;
        }
        let Some(plan) = &ctx.plan else { return Err(Error::new_in(ErrorType::InternalError)) };
        let now = Instant::now();
        let left = match plan.deadline.map(|deadline| deadline.saturating_duration_since(now)) {
            Some(Duration::ZERO) => return Err(status(504, "the route's time is over")),
            left => left,
        };
        let Ok(permit) = plan.cluster.breaker(plan.forward.high_priority).try_request() else {
            return Err(status(503, "too many requests under way"));
        };
        let retry = plan.forward.retry.as_ref().map(|retry| &retry.config);
        let mut draw = || fastrand::u64(..);
        let mut context = PickContext::new(now, &mut draw);
        (context.hash, context.criteria) = (plan.hash, plan.criteria.as_deref());
        if let Some(config) = retry.filter(|config| config.avoid_previous_hosts) {
            context.avoid = &ctx.tried;
            context.attempts_max = config.host_selection_max_attempts.max(1);
        }
        let Ok(host) = plan.cluster.pick(&mut context) else {
            return Err(status(503, "no healthy host"));
        };
        ctx.tried.push(host.id);
        let mut peer = HttpPeer::new(host.address, false, String::new());
        let options = &mut peer.options;
        options.connection_timeout = Some(plan.cluster.config.connect_timeout);
        options.total_connection_timeout = Some(plan.cluster.config.connect_timeout);
        let per_try = retry.and_then(|config| config.per_try_timeout);
        options.read_timeout = [left, per_try].into_iter().flatten().min();
        if plan.cluster.config.http.protocol == HttpUpstream::Http2 {
            options.set_http_version(2, 2);
        }
        ctx.attempt = Some(Attempt {
            _in_flight: host.start_request(),
            host,
            _permit: permit,
            _retry: ctx.retry_permit.take(),
        });
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Journey,
    ) -> Result<()> {
        let Some(plan) = &ctx.plan else { return Ok(()) };
        let mut authority = Vec::new();
        let written = match (&plan.host, &ctx.attempt) {
            (Some(HostRewriter::Auto), Some(attempt)) if !attempt.host.hostname.is_empty() => {
                authority.extend_from_slice(attempt.host.hostname.as_bytes());
                true
            }
            (Some(rewriter), _) => rewriter.rewrite(&self.head(session), &mut authority),
            (None, _) => false,
        };
        if written {
            if plan.forward.append_x_forwarded_host {
                let old =
                    HeaderValue::from_bytes(outrigger_traffic::RequestView::authority(&self.head(session)));
                request.append_header("x-forwarded-host", old.map_err(|_| status(400, "bad authority"))?)?;
            }
            let value = HeaderValue::from_bytes(&authority).map_err(|_| status(400, "bad authority"))?;
            request.insert_header(header::HOST, value)?;
        }
        if let Some(edits) = &plan.share_edits {
            edit(request, edits)?;
        }
        edit(request, &plan.request_edits)?;
        match &plan.path {
            Some(path) => request.set_raw_path(path),
            None => Ok(()),
        }
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Journey,
    ) -> Result<()> {
        if response.status.is_informational() && response.status != 101 {
            return Ok(());
        }
        let code = response.status.as_u16();
        report(ctx, Outcome::Response(code));
        let ended = Ended::Response { status: code, fields: &Fields(response) };
        if self.again(session, ctx, ended, Reached::Yes) {
            let mut error = Error::new_up(RETRIED);
            error.set_retry(true);
            return Err(error);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Journey,
    ) -> Result<()> {
        match &ctx.plan {
            Some(plan) => edit(response, &plan.response_edits),
            None => Ok(()),
        }
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _: &HttpPeer,
        ctx: &mut Journey,
        mut error: Box<Error>,
    ) -> Box<Error> {
        report(ctx, Outcome::ConnectFailed);
        let again = self.again(session, ctx, Ended::Reset(ResetKind::ConnectFailed), Reached::No);
        error.set_retry(again);
        error
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Journey,
        reused: bool,
    ) -> Box<Error> {
        if *error.etype() == RETRIED {
            return error;
        }
        if *error.esource() == ErrorSource::Downstream {
            error.set_retry(false);
            return error;
        }
        let (outcome, kind) = match error.etype() {
            ErrorType::ReadTimedout | ErrorType::WriteTimedout => {
                (Outcome::Timeout, ResetKind::PerTryTimeout)
            }
            ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::InvalidH2 => {
                (Outcome::Reset, ResetKind::Protocol)
            }
            _ => (Outcome::Reset, ResetKind::Remote),
        };
        // A kept connection that was closed meanwhile says nothing about the host, and costs no retry.
        if reused && error.retry() && session.req_header().method.is_idempotent() && self.replays(session) {
            return error;
        }
        report(ctx, outcome);
        let again = self.again(session, ctx, Ended::Reset(kind), Reached::Maybe);
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, _: &mut Journey) -> FailToProxy {
        let error_code = match (error.etype(), error.esource()) {
            (ErrorType::HTTPStatus(code), _) => *code,
            (_, ErrorSource::Downstream) => 0,
            // Source: Envoy: statuses of local replies.
            (ErrorType::ReadTimedout | ErrorType::WriteTimedout, ErrorSource::Upstream) => 504,
            (
                ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::InvalidH2,
                ErrorSource::Upstream,
            ) => 502,
            (_, ErrorSource::Upstream) => 503,
            _ => 500,
        };
        if error_code > 0 && session.response_written().is_none() {
            // The client may be gone: nobody else is left to tell.
            let _ = session.respond_error(error_code).await;
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, _: &mut Session, _: Option<&Error>, ctx: &mut Journey) {
        ctx.attempt = None;
        ctx.retry_permit = None;
    }
}

impl Gateway {
    fn plan(
        &self,
        session: &Session,
        snapshot: &Snapshot,
        route: &Arc<Route>,
        forward: &Arc<Forward>,
    ) -> std::result::Result<Plan, u16> {
        let head = self.head(session);
        let target = match route.choose(snapshot, &head, fastrand::u64(..)) {
            Some(Ok(target)) => target,
            Some(Err(missing)) => return Err(missing.0),
            None => return Err(500),
        };
        let Some(cluster) = snapshot.cluster(target.cluster).cloned() else {
            return Err(forward.cluster_not_found_status);
        };
        let client = session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip());
        let hash = match client {
            Some(client) if cluster.config.lb_policy.is_hashing() => {
                forward.hash.hash(&head, client, &mut |_| Vec::new())
            }
            _ => None,
        };
        let mut path = Vec::new();
        let path = route.rewrite_path(outrigger_traffic::RequestView::path(&head), &mut path).then_some(path);
        Ok(Plan {
            path,
            hash,
            share_edits: target.share_edits.cloned(),
            request_edits: target.request_edits.clone(),
            response_edits: target.response_edits.clone(),
            host: target.host_rewrite.or(target.share_host).cloned(),
            criteria: target.criteria.cloned(),
            deadline: forward.timeout.filter(|time| !time.is_zero()).map(|time| Instant::now() + time),
            forward: forward.clone(),
            cluster,
        })
    }

    fn redirect(&self, session: &Session, redirect: &Redirect, route: &Route) -> Result<ResponseHeader> {
        let mut location = Vec::new();
        route.location(&self.head(session), &mut location);
        let mut answer = ResponseHeader::build(redirect.status, Some(2))?;
        let value = HeaderValue::from_bytes(&location).map_err(|_| status(400, "bad target"))?;
        answer.insert_header(header::LOCATION, value)?;
        answer.set_content_length(0)?;
        edit(&mut answer, &route.response_edits)?;
        Ok(answer)
    }

    /// Whether the body of the request can be sent again.
    fn replays(&self, session: &Session) -> bool {
        !session.as_ref().retry_buffer_truncated()
    }

    /// Asks the policy whether there is another attempt, and remembers when.
    fn again(&self, session: &Session, ctx: &mut Journey, ended: Ended<'_>, reached: Reached) -> bool {
        let Some(plan) = &ctx.plan else { return false };
        let Some(policy) = &plan.forward.retry else { return false };
        if !self.replays(session) {
            return false;
        }
        let result = AttemptResult {
            request: &self.head(session),
            ended,
            reached,
            response_started: session.response_written().is_some(),
            retries_made: ctx.retries,
            unix_now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            draw: fastrand::u64(..),
        };
        match policy.decide(&result, plan.cluster.breaker(plan.forward.high_priority)) {
            Decision::Retry { after, permit, .. } => {
                ctx.retries += 1;
                (ctx.pause, ctx.retry_permit) = (Some(after), Some(permit));
                true
            }
            Decision::No(why) => {
                tracing::debug!(cluster = plan.cluster.name(), reason = why.as_str(), "no retry");
                false
            }
        }
    }
}

/// Tells the cluster how an attempt ended.
fn report(ctx: &Journey, outcome: Outcome) {
    if let (Some(plan), Some(attempt)) = (&ctx.plan, &ctx.attempt) {
        plan.cluster.report(&attempt.host, outcome, Instant::now(), fastrand::u32(..));
    }
}

fn direct_answer(direct: &Direct, route: &Route) -> Result<ResponseHeader> {
    let mut answer = ResponseHeader::build(direct.status, Some(2))?;
    answer.set_content_length(direct.body.len())?;
    if let Some(kind) = &direct.content_type {
        let value = HeaderValue::from_str(kind).map_err(|_| status(500, "bad content type"))?;
        answer.insert_header(header::CONTENT_TYPE, value)?;
    }
    edit(&mut answer, &route.response_edits)?;
    Ok(answer)
}

async fn answered(session: &mut Session, head: ResponseHeader, body: Bytes) -> Result<bool> {
    let is_head = session.req_header().method == http::Method::HEAD;
    let empty = is_head || body.is_empty();
    session.write_response_header(Box::new(head), empty).await?;
    if !empty {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(true)
}

fn status(code: u16, why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(code), why)
}
