//! What is done to a request head before it is routed: the path is normalised, hop-by-hop fields go, forwarding fields
//! come, the trace is joined.

use std::net::SocketAddr;

use outrigger_traffic::config::{HttpConnectionManager, Underscores};
use outrigger_wire::{Method, RequestHead, Version, syntax};

use super::normalize::{PathRules, PathVerdict, normalize};
use super::{Connection, Serving, forwarded, hop_by_hop};
use crate::error::ProxyError;
use crate::exchange::Notes;
use crate::telemetry::{HttpStats, RequestTrace, Sampling};

/// What follows for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// It is routed.
    Go,
    /// Its path had escaped slashes, and the client is sent to the path without them.
    RedirectToPath,
}

/// Prepares a request.
///
/// *Errors*: the path cannot be normalised or is refused; `connection` names more fields than we look for.
pub fn request(
    connection: &Connection,
    serving: &Serving,
    head: &mut RequestHead,
    upgrade: bool,
    notes: &mut Notes,
) -> Result<Prepared, ProxyError> {
    let config = serving.config();
    let worker = &connection.worker;
    hop_by_hop::strip_request(head, upgrade)
        .map_err(|_| ProxyError::BadRequest("http1.connection_header_rejected", 400))?;
    trim_host(connection, config, head);
    if config.headers_with_underscores != Underscores::Allow {
        underscores(serving.stats(worker), config.headers_with_underscores, head)?;
    }
    // Before anything is said of the client: a path that is refused is answered without (Envoy).
    let rules = PathRules::from(config);
    match normalize(head, rules, &mut connection.paths.borrow_mut()) {
        PathVerdict::Forward => {}
        PathVerdict::Redirect if notes.is_grpc => return Err(ProxyError::BadPath),
        PathVerdict::Redirect => return Ok(Prepared::RedirectToPath),
        PathVerdict::Reject => return Err(ProxyError::BadPath),
    }
    let ip = forwarded::request(head, config, &serving.client, &mut || worker.draw());
    // The port of a client behind other proxies is not known.
    notes.remote = if ip == connection.facts.remote.ip().to_canonical() {
        connection.facts.remote
    } else {
        SocketAddr::new(ip, 0)
    };
    if let Some(tracing) = &config.tracing {
        let stats = serving.stats(worker);
        let (trace, sampling) = RequestTrace::begin(head, tracing, &mut || worker.draw());
        match sampling {
            Sampling::Random => stats.tracing_random_sampling.inc(),
            Sampling::Client => stats.tracing_client_enabled.inc(),
            Sampling::Not => stats.tracing_not_traceable.inc(),
            Sampling::Parent => {}
        }
        notes.trace = Some(trace);
    }
    Ok(Prepared::Go)
}

/// Makes of the authority what routes are found by. Source: Envoy: `strip_port_mode`, `strip_trailing_host_dot`; a CONNECT
/// keeps its port.
fn trim_host(connection: &Connection, config: &HttpConnectionManager, head: &mut RequestHead) {
    let strips_port = config.strip_any_host_port || config.strip_matching_host_port;
    if !strips_port && !config.strip_trailing_host_dot {
        return;
    }
    let whole = head.authority();
    let host = syntax::host_of(whole);
    let port = whole.get(host.len()..).unwrap_or_default();
    let own = connection.facts.local.port();
    let matching = || {
        let digits = port.strip_prefix(b":").and_then(|p| std::str::from_utf8(p).ok());
        digits.and_then(|p| p.parse::<u16>().ok()) == Some(own)
    };
    let drops_port = head.method() != Method::Connect
        && (config.strip_any_host_port || config.strip_matching_host_port && matching());
    let mut trimmed = host.to_vec();
    if config.strip_trailing_host_dot && trimmed.last() == Some(&b'.') {
        trimmed.pop();
    }
    if !drops_port {
        trimmed.extend_from_slice(port);
    }
    if trimmed != whole {
        head.set_authority(&trimmed);
    }
}

/// Acts on header fields with underscores in their names.
fn underscores(stats: &HttpStats, action: Underscores, head: &mut RequestHead) -> Result<(), ProxyError> {
    let marked = head.fields.iter().filter(|(name, _)| name.contains(&b'_')).count();
    if marked == 0 {
        return Ok(());
    }
    if action == Underscores::RejectRequest {
        stats.requests_rejected_with_underscores_in_headers.inc();
        let is_h2 = head.version() == Version::Http2;
        let details = if is_h2 { "http2.unexpected_underscore" } else { "http1.unexpected_underscore" };
        return Err(ProxyError::BadRequest(details, 400));
    }
    stats.dropped_headers_with_underscores.add(marked as u64);
    head.fields.retain(|name, _| !name.contains(&b'_'));
    Ok(())
}
