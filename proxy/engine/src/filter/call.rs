//! How a filter asks a service: one request to a cluster, over the worker's own connections.
//!
//! The cluster's host choice, circuit breakers, connection pools, TLS and counters are those of every request; outlier
//! detection learns of the result. The answer is kept whole, up to a limit. gRPC is a unary call on top ([`unary`]).
//!
//! *Cancel safety*: a call that is dropped resets its stream, or closes its connection, and gives its permits back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use outrigger_traffic::balance::PickContext;
use outrigger_traffic::config::{CallRetry, GrpcTarget, HttpTarget};
use outrigger_traffic::outcome::Outcome;
use outrigger_traffic::snapshot::ClusterId;
use outrigger_wire::h1::{BodyLength, ConnectionHeader};
use outrigger_wire::{RequestHead, ResponseHead, Scheme, Trailers, Version};
use tokio::time::Instant;

use crate::http::body::Fill;
use crate::http::view;
use crate::live::{Live, LiveCluster};
use crate::telemetry::{ClusterStats, Raised};
use crate::upstream::pool::{PoolError, UpstreamStream, Want, breaker};
use crate::worker::Worker;

/// A question.
#[derive(Debug)]
pub(crate) struct Call {
    /// Its head.
    pub(crate) head: RequestHead,
    /// Its body.
    pub(crate) body: bytes::Bytes,
    /// For everything, waiting for a connection included; zero: no limit.
    pub(crate) timeout: Duration,
    /// Longest body of the answer that is taken, bytes.
    pub(crate) answer_max: usize,
}

/// An answer.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// Its head.
    pub(crate) head: ResponseHead,
    /// Its body.
    pub(crate) body: Vec<u8>,
    /// Its trailers.
    pub(crate) trailers: Option<Trailers>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The cluster is not there.
    #[error("no such cluster")]
    NoCluster,
    /// The cluster has no host that may be asked.
    #[error("no healthy host")]
    NoHost,
    /// A circuit breaker is open.
    #[error("a circuit breaker is open")]
    Overflow,
    /// There is no connection.
    #[error("no connection")]
    Connect,
    /// The question cannot be written.
    #[error("the request cannot be written")]
    Unwritable,
    /// The stream ended before the answer did.
    #[error("the answer broke off")]
    Reset,
    /// It took too long.
    #[error("timeout")]
    Timeout,
    /// The answer is too long.
    #[error("the answer is too large")]
    TooLarge,
    /// The answer is none of the protocol.
    #[error("the answer is malformed")]
    Malformed,
    /// A gRPC status other than OK.
    #[error("gRPC status {0}")]
    Status(u32),
}

impl Call {
    /// A request to an HTTP service; `None`: it cannot be written.
    pub(crate) fn http(target: &HttpTarget, method: &[u8], path: &[u8]) -> Option<Self> {
        let mut head = RequestHead::default();
        let good = head.set_method(method)
            && head.set_authority(target.authority.as_bytes())
            && head.set_path(path)
            && head.fields.append(b"x-envoy-internal", b"true");
        head.set_scheme(if target.https { Scheme::Https } else { Scheme::Http });
        good.then(|| Self { head, body: bytes::Bytes::new(), timeout: target.timeout, answer_max: 1 << 20 })
    }
}

/// The cluster of a number.
pub(crate) fn cluster(live: &Live, id: ClusterId) -> Result<Arc<LiveCluster>, CallError> {
    live.cluster(id).cloned().ok_or(CallError::NoCluster)
}

/// Asks, and again where the rules say so: after no answer, and after one of 500 or above.
pub(crate) async fn ask_again(
    worker: &Rc<Worker>,
    cluster: &Arc<LiveCluster>,
    call: &Call,
    retry: Option<CallRetry>,
) -> Result<Reply, CallError> {
    let mut made = 0;
    loop {
        let answer = ask(worker, cluster, call).await;
        let is_bad = answer.as_ref().map_or(true, |reply| reply.head.status >= 500);
        let Some(retry) = retry.filter(|retry| is_bad && made < retry.retries) else { return answer };
        let interval = retry.base_interval.saturating_mul(1 << made.min(16)).min(retry.max_interval);
        made += 1;
        cluster.stats.at(worker.id).upstream_rq_retry.inc();
        let share = worker.rng.borrow_mut().f64();
        tokio::time::sleep(interval.mul_f64(share)).await;
    }
}

/// Asks once. A connection that turns out to have been closed while it was idle does not count.
pub(crate) async fn ask(
    worker: &Rc<Worker>,
    cluster: &Arc<LiveCluster>,
    call: &Call,
) -> Result<Reply, CallError> {
    let both = async {
        match Box::pin(attempt(worker, cluster, call, false)).await {
            Err((CallError::Reset, true)) => Box::pin(attempt(worker, cluster, call, true)).await,
            other => other,
        }
    };
    let answer = if call.timeout.is_zero() {
        both.await
    } else {
        // Exact: these times are short.
        match tokio::time::timeout(call.timeout, both).await {
            Ok(answer) => answer,
            Err(_) => {
                cluster.stats.at(worker.id).upstream_rq_timeout.inc();
                Err((CallError::Timeout, false))
            }
        }
    };
    answer.map_err(|(error, _)| error)
}

/// What failed, and whether on a connection that had been used before.
type Failed = (CallError, bool);

async fn attempt(
    worker: &Rc<Worker>,
    cluster: &Arc<LiveCluster>,
    call: &Call,
    fresh: bool,
) -> Result<Reply, Failed> {
    let fail = |error| (error, false);
    let stats = cluster.stats.at(worker.id);
    let mut draw = || worker.draw();
    let now = Instant::now().into_std();
    let Ok(host) = cluster.cluster.pick(&mut PickContext::new(now, &mut draw)) else {
        stats.upstream_cx_none_healthy.inc();
        return Err(fail(CallError::NoHost));
    };
    let Ok(_permit) = breaker(&cluster.cluster, false).try_request() else {
        stats.upstream_rq_pending_overflow.inc();
        return Err(fail(CallError::Overflow));
    };
    let http = &cluster.cluster.config.http;
    let authority = outrigger_wire::syntax::host_of(call.head.authority());
    let name = (http.auto_sni || http.auto_san_validation).then(|| std::str::from_utf8(authority).ok());
    let want = Want {
        downstream: call.head.version(),
        sni: name.flatten(),
        high_priority: false,
        upgrade: false,
        fresh,
        proxied: None,
    };
    let checked = match worker.pools.checkout(worker, cluster, &host, want).await {
        Ok(checked) => checked,
        Err(PoolError::Overflow) => return Err(fail(CallError::Overflow)),
        Err(PoolError::Connect(error)) => {
            tracing::debug!(cluster = %cluster.name, endpoint = %host.address, error = %error, "connect failed");
            return Err(fail(CallError::Connect));
        }
    };
    let reused = checked.is_reused();
    let length = match call.body.len() {
        0 if !call.head.method().expects_body() => BodyLength::None,
        length => BodyLength::Length(length as u64),
    };
    let mut stream =
        checked.open(&call.head, length, ConnectionHeader::None).map_err(|error| match error {
            crate::http::body::BodyError::Refused => (CallError::Reset, true),
            _ => fail(CallError::Unwritable),
        })?;
    let _in_flight = host.start_request();
    let _active = Raised::new(cluster.stats.clone(), worker.id, |s: &ClusterStats| &s.upstream_rq_active);
    stats.upstream_rq_total.inc();
    let mut reply = Reply::default();
    let talk = converse(&mut stream, call, &mut reply).await;
    let now = Instant::now();
    let outcome = match talk {
        Ok(_) => {
            stats.count_status(reply.head.status);
            Outcome::Response(reply.head.status)
        }
        Err(_) => {
            stats.upstream_rq_rx_reset.inc();
            Outcome::Reset
        }
    };
    cluster.report(worker, &host, outcome, now.into_std());
    stream.give_back(worker, talk == Ok(true), now);
    talk.map(|_| reply).map_err(|error| (error, reused))
}

/// Sends what follows the head and reads the answer. Gives whether the connection may be used again.
async fn converse(stream: &mut UpstreamStream, call: &Call, reply: &mut Reply) -> Result<bool, CallError> {
    let lost = |_| CallError::Reset;
    let writer = &mut stream.halves.writer;
    let mut rest: &[u8] = &call.body;
    while !rest.is_empty() && !writer.is_finished() {
        let sent = writer.send(rest, true).await.map_err(lost)?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    if !writer.is_finished() {
        writer.finish(None).map_err(lost)?;
    }
    writer.flush().await.map_err(lost)?;
    let reader = &mut stream.halves.reader;
    let keep_alive = loop {
        let head = &mut reply.head;
        let framing = std::future::poll_fn(|cx| UpstreamStream::poll_response(reader, cx, &call.head, head));
        let framing = framing.await.map_err(lost)?;
        if framing.switching {
            return Err(CallError::Malformed);
        }
        if !framing.informational {
            break framing.keep_alive;
        }
    };
    loop {
        match std::future::poll_fn(|cx| reader.poll_fill(cx)).await.map_err(lost)? {
            Fill::End => break,
            Fill::Data => {
                let data = reader.data();
                if reply.body.len().saturating_add(data.len()) > call.answer_max {
                    return Err(CallError::TooLarge);
                }
                reply.body.extend_from_slice(data);
                let length = data.len();
                reader.consume(length);
            }
        }
    }
    reply.trailers = reader.take_trailers();
    Ok(keep_alive)
}

/// Bytes before a gRPC message.
const FRAME: usize = 5;

/// A unary gRPC call: its answer's message.
///
/// Source: gRPC over HTTP/2. Compressed messages are never asked for.
pub(crate) async fn unary(
    worker: &Rc<Worker>,
    cluster: &Arc<LiveCluster>,
    target: &GrpcTarget,
    path: &[u8],
    message: &[u8],
    prepare: impl FnOnce(&mut RequestHead),
) -> Result<Vec<u8>, CallError> {
    let mut head = RequestHead::default();
    let authority = if target.authority.is_empty() { &*cluster.name } else { &target.authority };
    let good = head.set_method(b"POST")
        && head.set_path(path)
        // The name of a cluster may be no authority; then the service is not told one.
        && (head.set_authority(authority.as_bytes()) || head.set_authority(b"service"));
    head.set_version(Version::Http2);
    head.fields.append(b"te", b"trailers");
    head.fields.append(b"content-type", b"application/grpc");
    if !target.timeout.is_zero() {
        let limit = format!("{}m", target.timeout.as_millis().clamp(1, 99_999_999));
        head.fields.append(b"grpc-timeout", limit.as_bytes());
    }
    for (name, value) in &target.metadata {
        head.fields.append(name.as_bytes(), value.as_bytes());
    }
    prepare(&mut head);
    let Ok(length) = u32::try_from(message.len()) else { return Err(CallError::Unwritable) };
    if !good {
        return Err(CallError::Unwritable);
    }
    let mut body = Vec::with_capacity(FRAME + message.len());
    body.push(0);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(message);
    let call = Call { head, body: body.into(), timeout: target.timeout, answer_max: 4 << 20 };
    let mut reply = ask(worker, cluster, &call).await?;
    if reply.head.status != 200 {
        return Err(CallError::Status(crate::error::grpc_of(reply.head.status).into()));
    }
    let status = reply.trailers.as_ref().and_then(view::grpc_status);
    match status.or_else(|| view::grpc_status(&reply.head.fields)) {
        Some(0) => {}
        Some(status) => return Err(CallError::Status(status)),
        None => return Err(CallError::Malformed),
    }
    let Some(([compressed, length @ ..], rest)) = reply.body.split_first_chunk::<FRAME>() else {
        return Err(CallError::Malformed);
    };
    if *compressed != 0 || u32::from_be_bytes(*length) as usize != rest.len() {
        return Err(CallError::Malformed);
    }
    reply.body.drain(..FRAME);
    Ok(reply.body)
}
