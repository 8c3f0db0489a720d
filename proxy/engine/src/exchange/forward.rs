//! Sending a request to a cluster: everything that is decided once, before the first attempt.

use std::sync::Arc;
use std::time::Duration;

use outrigger_traffic::balance::Criteria;
use outrigger_traffic::config::Upgrade;
use outrigger_traffic::route::{Edits, Forward, HostRewriter, Matched, PathRewriter};
use outrigger_traffic::template::Template;
use outrigger_wire::h1::ConnectionHeader;
use outrigger_wire::{Known, Method, Version};
use tokio::time::Instant;

use super::mirror::Mirrors;
use super::notes::Notes;
use super::{Exchange, Front, affinity, respond};
use crate::error::ProxyError;
use crate::filter::Place;
use crate::http::Serving;
use crate::http::view::{HeadView, grpc_timeout};
use crate::live::LiveCluster;
use crate::telemetry;
use crate::text::Digits;

/// What stays the same in every attempt.
#[derive(Debug)]
pub(super) struct Plan {
    /// The route's action.
    pub(super) forward: Arc<Forward>,
    /// Header edits of the response.
    pub(super) response_edits: Edits,
    /// Where to.
    pub(super) cluster: Arc<LiveCluster>,
    /// The route's timeout, or the client's (`grpc-timeout`).
    pub(super) timeout: Option<Duration>,
    /// The authority becomes the picked host's name.
    pub(super) host_from_pick: bool,
    /// The request changes protocols.
    pub(super) connection: ConnectionHeader,
    /// The response may be a switch to another protocol.
    pub(super) tunnel: bool,
    /// The tunnel ends here: the host is connected to, not asked.
    pub(super) connect_ends: bool,
    /// Tell the upstream the number of the attempt.
    pub(super) tell_attempts: bool,
    /// Largest body kept for another attempt, bytes.
    pub(super) replay_limit: usize,
    /// Trailers of the request may travel on.
    pub(super) request_trailers_down: bool,
    /// What decides about the host, where the cluster goes by that.
    pub(super) hash: Option<u64>,
    /// What the route demands of hosts.
    pub(super) criteria: Option<Arc<Criteria>>,
    /// Cookies that keep the client with its host, made here.
    pub(super) set_cookies: Vec<Vec<u8>>,
    /// Copies that leave when the request is here as a whole.
    pub(super) mirrors: Option<Box<Mirrors>>,
}

impl Plan {
    /// Whether it takes more than sending the request and passing the response on.
    pub(super) fn is_unusual(&self) -> bool {
        self.tunnel || self.mirrors.is_some() || self.forward.internal_redirect.is_some()
    }

    /// Whether the body is kept although there may be no retry.
    pub(super) fn keeps_body(&self) -> bool {
        self.mirrors.is_some() || self.forward.internal_redirect.is_some()
    }
}

/// Makes the plan, and of the request what the upstream is to see of it.
pub(super) fn plan(
    x: &mut Exchange,
    notes: &mut Notes,
    place: &Place<'_>,
    matched: Matched<'_>,
    forward: &Arc<Forward>,
) -> Result<Plan, ProxyError> {
    let serving = &**place.serving;
    let stats = serving.stats(x.front.worker());
    let chosen = matched.route.choose(&serving.live.snapshot, &HeadView(&x.front.request), place.draw);
    let target = match chosen {
        Some(Ok(target)) => target,
        Some(Err(missing)) => {
            stats.no_cluster.inc();
            return Err(ProxyError::ClusterNotFound(missing.0));
        }
        None => return Err(ProxyError::Defect),
    };
    let Some(cluster) = serving.live.cluster(target.cluster).cloned() else {
        stats.no_cluster.inc();
        return Err(ProxyError::ClusterNotFound(forward.cluster_not_found_status));
    };
    stats.rq_total.inc();
    notes.cluster = Some(cluster.clone());
    notes.tell_attempts = matched.virtual_host.include_attempt_count_in_response;
    let post_ends = forward.post_ends && x.front.request.method() == Method::Post;
    let tunnel = admit_upgrade(x, serving, forward)? || post_ends;
    let mut set_cookies = Vec::new();
    // As the client sent it, hence before the rewrites.
    let hash = if cluster.cluster.config.lb_policy.is_hashing() && !forward.hash.is_empty() {
        affinity::hash(&x.front, notes, &forward.hash, &mut set_cookies)
    } else {
        None
    };
    if let Some(edits) = target.share_edits {
        respond::edit_request(&mut x.front, notes, edits);
    }
    if let Some(host) = target.share_host {
        let mut new = Vec::new();
        if host.rewrite(&HeadView(&x.front.request), &mut new) && !x.front.request.set_authority(&new) {
            return Err(ProxyError::BadRequest("host_rewrite_failed", 400));
        }
    }
    respond::edit_request(&mut x.front, notes, target.request_edits);
    rewrite(&mut x.front, notes, matched, forward, target.host_rewrite)?;
    let timeout = limits(&mut x.front, notes, forward);
    let buffer =
        matched.route.per_request_buffer_limit_bytes.map_or(serving.buffer_limit(), |limit| limit as usize);
    let down_h1 = x.front.request.version() != Version::Http2;
    let mirrors = if forward.mirrors.is_empty() || tunnel {
        None
    } else {
        Mirrors::new(&x.front, notes, serving, &forward.mirrors, timeout)
    };
    Ok(Plan {
        mirrors,
        forward: forward.clone(),
        response_edits: target.response_edits.clone(),
        cluster,
        timeout,
        host_from_pick: matches!(target.host_rewrite, Some(HostRewriter::Auto)),
        connection: if tunnel && x.front.request.method() != Method::Connect {
            ConnectionHeader::Upgrade
        } else {
            ConnectionHeader::None
        },
        tunnel,
        connect_ends: forward.connect_ends
            && tunnel
            && (post_ends || x.front.request.method() == Method::Connect),
        tell_attempts: matched.virtual_host.include_request_attempt_count,
        replay_limit: buffer,
        hash,
        criteria: target.criteria.cloned(),
        set_cookies,
        request_trailers_down: !down_h1 || serving.config().http1.enable_trailers,
    })
}

/// Whether the exchange may become a tunnel; the route's word goes before the connection manager's.
fn admit_upgrade(x: &mut Exchange, serving: &Serving, forward: &Forward) -> Result<bool, ProxyError> {
    let connect = x.front.request.method() == Method::Connect;
    if !x.upgrade && !connect {
        return Ok(false);
    }
    let kind: &[u8] = if connect {
        b"connect"
    } else {
        x.front.request.fields.get_known(Known::Upgrade).unwrap_or_default()
    };
    let says = |list: &[Upgrade]| {
        list.iter().find(|one| one.upgrade_type.as_bytes().eq_ignore_ascii_case(kind)).map(|one| one.enabled)
    };
    let allowed = says(&forward.upgrades).or_else(|| says(&serving.config().upgrades)).unwrap_or(false);
    let h2 = x.front.request.version() == Version::Http2;
    if allowed && (!h2 || serving.config().http2.allow_connect) {
        return Ok(true);
    }
    // An HTTP/2 stream that was opened for another protocol has no other use.
    if !h2 && !connect && !kind.eq_ignore_ascii_case(b"websocket") {
        // A server may ignore an upgrade it does not want (RFC 9110 §7.8); h2c in particular is often only an offer.
        x.front.request.fields.remove_known(Known::Upgrade);
        x.front.request.fields.remove(b"http2-settings");
        return Ok(false);
    }
    serving.stats(x.front.worker()).downstream_rq_ws_on_non_ws_route.inc();
    Err(ProxyError::UpgradeForbidden)
}

fn rewrite(
    x: &mut Front,
    notes: &mut Notes,
    matched: Matched<'_>,
    forward: &Forward,
    host: Option<&HostRewriter>,
) -> Result<(), ProxyError> {
    let mut new = Vec::new();
    // The host first: it may be made from the path as the client sent it.
    if let Some(host) = host
        && (host.rewrite(&HeadView(&x.request), &mut new) || written(x, notes, host.format(), b"-", &mut new))
    {
        if forward.append_x_forwarded_host {
            let old = x.request.authority().to_vec();
            x.request.fields.join(b"x-forwarded-host", b",", &old);
        }
        if !x.serving.config().suppress_envoy_headers {
            let old = x.request.authority().to_vec();
            x.request.fields.set(b"x-envoy-original-host", &old);
        }
        if !x.request.set_authority(&new) {
            return Err(ProxyError::BadRequest("host_rewrite_failed", 400));
        }
    }
    new.clear();
    let format = forward.path_rewrite.as_ref().and_then(PathRewriter::format);
    let is_rewritten = match format {
        None => matched.route.rewrite_path(x.request.path(), &mut new),
        Some(_) => {
            let is_written = written(x, notes, format, b"", &mut new);
            if is_written && let Some(query) = x.request.query() {
                new.push(b'?');
                new.extend_from_slice(query);
            }
            is_written
        }
    };
    if is_rewritten {
        let old = x.request.path().to_vec();
        if !x.serving.config().suppress_envoy_headers {
            x.request.fields.set(b"x-envoy-original-path", &old);
        }
        notes.original_path = Some(old);
        if !x.request.set_path(&new) {
            return Err(ProxyError::BadPath);
        }
    }
    Ok(())
}

/// Writes a text with commands; false where there is none, or nothing came of it.
fn written(x: &Front, notes: &Notes, format: Option<&Template>, absent: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(format) = format else { return false };
    let record = notes.record(&x.connection, &x.serving, &x.request, None, (0, 0));
    telemetry::render_with(&x.connection.worker, &record, format, absent, out);
    !out.is_empty()
}

/// Sets the time limits of the route; returns its timeout.
fn limits(x: &mut Front, notes: &Notes, forward: &Forward) -> Option<Duration> {
    let mut timeout = forward.timeout.filter(|timeout| !timeout.is_zero());
    if notes.is_grpc
        && let (Some(most), Some(asked)) = (forward.grpc_timeout_header_max, grpc_timeout(&x.request.fields))
    {
        // A client with no more time than that gets none: it would not hear the answer any more.
        let asked = asked.saturating_sub(forward.grpc_timeout_header_offset).max(Duration::from_millis(1));
        timeout = Some(if most.is_zero() { asked } else { asked.min(most) });
    }
    if let Some(idle) = forward.idle_timeout {
        x.clock.set_idle(Some(idle));
    }
    if let Some(longest) = forward.max_stream_duration {
        x.clock.set_longest(Some(longest));
    }
    tell_expected(x, timeout, forward);
    timeout
}

/// Tells the upstream how long it has. Source: Envoy: x-envoy-expected-rq-timeout-ms; the shorter of the two limits that it
/// will meet.
fn tell_expected(x: &mut Front, left: Option<Duration>, forward: &Forward) {
    let per_try = forward.retry.as_ref().and_then(|retry| retry.config.per_try_timeout);
    let expected = match (left, per_try) {
        (Some(left), Some(per_try)) => Some(left.min(per_try)),
        (left, per_try) => left.or(per_try),
    };
    if let Some(expected) = expected
        && !x.serving.config().suppress_envoy_headers
    {
        let mut digits = Digits::default();
        let text = digits.write(u64::try_from(expected.as_millis()).unwrap_or(u64::MAX));
        x.request.fields.put(Known::XEnvoyExpectedRequestTimeoutMs, text);
    }
}

/// The same for another attempt, for which there is less time.
pub(super) fn tell_time_left(x: &mut Front, plan: &Plan, now: Instant) {
    let since = now.saturating_duration_since(x.arrived);
    let left = plan.timeout.map(|timeout| timeout.saturating_sub(since).max(Duration::from_millis(1)));
    tell_expected(x, left, &plan.forward);
}
