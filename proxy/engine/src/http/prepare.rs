//! What is done to a request head before it is routed: the path is normalised, hop-by-hop fields go, forwarding fields
//! come, the trace is joined.

use std::net::SocketAddr;

use outrigger_wire::{Method, RequestHead, syntax};

use super::normalize::{PathRules, PathVerdict, normalize};
use super::{Connection, Serving, forwarded, hop_by_hop};
use crate::error::ProxyError;
use crate::exchange::Notes;
use crate::telemetry::{RequestTrace, Sampling};

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
    if config.strip_any_host_port && head.method() != Method::Connect {
        let host = syntax::host_of(head.authority()).to_vec();
        head.set_authority(&host);
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
