//! The part of an attempt that waits for nothing: pick a host, take a permit, start the request on a connection that is
//! there. [`super::attempt`] goes on from here in a task, [`super::express`] without one.

use std::sync::Arc;

use outrigger_traffic::balance::PickContext;
use outrigger_traffic::breaker::Permit;
use outrigger_traffic::cluster::{Host, InFlight};
use outrigger_traffic::retry::Reached;
use outrigger_wire::{Known, RequestHead, Version};
use tokio::time::Instant;

use super::attempt::{Call, End, Lost};
use super::forward::{self, Plan};
use super::notes::Notes;
use super::retry::Attempts;
use super::{Exchange, Front};
use crate::cluster::{destination, note_destination, note_way, proxied};
use crate::error::ProxyError;
use crate::http::body::BodyError;
use crate::listener::ConnFacts;
use crate::telemetry::{ClusterStats, Raised, UpstreamFacts};
use crate::text::Digits;
use crate::upstream::pool::{Checked, UpstreamStream, Want, breaker};

/// An attempt that has a host and may be made.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) host: Arc<Host>,
    /// Its place in the trace; 0 where nothing is traced.
    pub(super) span_id: u64,
    permit: Permit,
}

/// What an attempt holds from its connection to its end.
pub(super) struct Held {
    pub(super) host: Arc<Host>,
    pub(super) span_id: u64,
    /// The connection had carried requests before.
    pub(super) reused: bool,
    /// When the request began to be sent.
    pub(super) sent: Instant,
    _permit: Permit,
    _in_flight: InFlight,
    _active: Raised<ClusterStats>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("host", &self.host.address).finish_non_exhaustive()
    }
}

impl Held {
    /// The attempt as those see it who work on it.
    pub(super) const fn call<'a>(&'a self, plan: &'a Plan) -> Call<'a> {
        Call { plan, host: &self.host, reused: self.reused, sent: self.sent }
    }
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) held: Held,
    pub(super) stream: UpstreamStream,
}

/// Picks a host and takes the permit of a request.
pub(super) fn begin(
    x: &mut Front,
    notes: &mut Notes,
    plan: &Plan,
    shared: &mut Attempts,
) -> Result<Begun, End> {
    notes.attempts += 1;
    // The first attempt begins as soon as the head is there; nothing is waited for in between.
    let now = if notes.attempts <= 1 { x.arrived } else { Instant::now() };
    let host = pick(x, notes, plan, shared, now).map_err(End::Failed)?;
    notes.upstream = Some(UpstreamFacts {
        host: host.clone(),
        local: None,
        tls: None,
        protocol: Version::Http11,
        failure: String::new(),
    });
    let Ok(permit) = breaker(&plan.cluster.cluster, plan.forward.high_priority).try_request() else {
        plan.cluster.stats.at(x.worker().id).upstream_rq_pending_overflow.inc();
        return Err(Lost::unsent(ProxyError::Overflow));
    };
    let span_id = inject_trace(x, notes);
    if plan.host_from_pick && !host.hostname.is_empty() {
        x.request.set_authority(host.hostname.as_bytes());
    }
    if shared.is_another() {
        forward::tell_time_left(x, plan, now);
    }
    if plan.tell_attempts {
        let mut digits = Digits::default();
        x.request.fields.put(Known::XEnvoyAttemptCount, digits.write(notes.attempts.into()));
    }
    Ok(Begun { host, span_id, permit })
}

/// Starts the request on its connection, at the time `sent`.
pub(super) fn start(
    x: &mut Exchange,
    notes: &mut Notes,
    plan: &Plan,
    begun: Begun,
    checked: Checked,
    sent: Instant,
) -> Result<(Held, UpstreamStream), End> {
    let reused = checked.is_reused();
    if let Some(upstream) = &mut notes.upstream {
        upstream.local = Some(checked.local_addr());
        upstream.tls = checked.tls_facts();
        upstream.protocol = checked.protocol();
    }
    let stream = match checked.open(&x.front.request, x.body, plan.connection) {
        Ok(stream) => stream,
        Err(BodyError::Refused) => {
            return Err(End::Lost(Lost {
                error: ProxyError::UpstreamRefused,
                reached: Reached::No,
                reused,
                refused: true,
            }));
        }
        Err(_) => return Err(End::Failed(ProxyError::BadRequest("http2.unwritable_head", 400))),
    };
    let Begun { host, span_id, permit } = begun;
    let worker_id = x.front.worker().id;
    let in_flight = host.start_request();
    let active = Raised::new(plan.cluster.stats.clone(), worker_id, |stats| &stats.upstream_rq_active);
    plan.cluster.stats.at(worker_id).upstream_rq_total.inc();
    notes.timeline.upstream_start = Some(sent);
    let config = plan.forward.retry.as_ref().map(|retry| &retry.config);
    // From the connection on: waiting for one has limits of its own (Envoy: per_try_timeout).
    x.front.clock.start_attempt(
        sent,
        config.and_then(|c| c.per_try_timeout),
        config.and_then(|c| c.per_try_idle_timeout),
    );
    let held = Held { host, span_id, reused, sent, _permit: permit, _in_flight: in_flight, _active: active };
    Ok((held, stream))
}

/// Gives the attempt its place in the trace; 0 where nothing is traced.
fn inject_trace(x: &mut Front, notes: &Notes) -> u64 {
    let Some(trace) = &notes.trace else { return 0 };
    let worker = x.worker().clone();
    let own = x.serving.chain.spans.as_ref().is_none_or(|plan| plan.has_attempts());
    let span_id = if own { trace.attempt_span_id(&mut || worker.draw()) } else { trace.span_id };
    trace.inject(&mut x.request, span_id);
    span_id
}

fn pick(
    x: &Front,
    notes: &Notes,
    plan: &Plan,
    shared: &mut Attempts,
    now: Instant,
) -> Result<Arc<Host>, ProxyError> {
    let worker = x.worker();
    let mut draw = || worker.draw();
    let mut context = PickContext::new(now.into_std(), &mut draw);
    context.hash = plan.hash;
    context.criteria = plan.criteria.as_deref();
    if notes.wanted.is_some() && shared.tried.is_empty() {
        // Retries go where the policy says (Envoy).
        context.wanted = notes.wanted;
    }
    if let Some(config) = plan.forward.retry.as_ref().map(|retry| &retry.config)
        && config.avoid_previous_hosts
    {
        context.avoid = &shared.tried;
        context.attempts_max = config.host_selection_max_attempts.max(1);
    }
    if let Some(original) = plan.cluster.cluster.original_dst() {
        context.destination = destination(original, &x.connection.facts, Some(&x.request));
    }
    let picked = plan.cluster.cluster.pick(&mut context);
    note_destination(&plan.cluster, worker, &context);
    note_way(&plan.cluster, worker, &context);
    match picked {
        Ok(host) => {
            shared.tried.push(host.id);
            Ok(host)
        }
        Err(_) => {
            plan.cluster.stats.at(worker.id).upstream_cx_none_healthy.inc();
            Err(ProxyError::NoHealthyHost)
        }
    }
}

/// What the request needs of a connection to be started on it.
pub(super) fn want<'x>(
    request: &'x RequestHead,
    facts: &ConnFacts,
    plan: &Plan,
    shared: &Attempts,
) -> Want<'x> {
    let http = &plan.cluster.cluster.config.http;
    let name = (http.auto_sni || http.auto_san_validation)
        .then(|| std::str::from_utf8(outrigger_wire::syntax::host_of(request.authority())).ok())
        .flatten();
    Want {
        downstream: request.version(),
        sni: name,
        high_priority: plan.forward.high_priority,
        upgrade: plan.tunnel,
        fresh: shared.fresh,
        proxied: proxied(&plan.cluster.cluster, facts),
    }
}
