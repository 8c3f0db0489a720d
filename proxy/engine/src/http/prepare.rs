//! What is done to a request head before it is routed: hop-by-hop fields go, forwarding fields come, the path is
//! normalised, the trace is joined.

use outrigger_wire::{Known, RequestHead};

use super::{Connection, Serving};
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
/// *Errors*: the path cannot be normalised, or is refused.
pub fn request(
    connection: &Connection,
    serving: &Serving,
    head: &mut RequestHead,
    upgrade: bool,
    notes: &mut Notes,
) -> Result<Prepared, ProxyError> {
    let config = serving.config();
    hop_by_hop(head, upgrade);
    forwarded(connection, serving, head, notes);
    if let Some(tracing) = &config.tracing {
        let stats = serving.stats(&connection.worker);
        let (trace, sampling) = RequestTrace::begin(head, tracing, &mut || connection.worker.draw());
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

/// RFC 9110 §7.6.1.
fn hop_by_hop(head: &mut RequestHead, upgrade: bool) {
    let mut nominated = Vec::new();
    for value in head.fields.get_all_known(Known::Connection) {
        for name in outrigger_wire::syntax::list_members(value) {
            nominated.push(name.to_ascii_lowercase());
        }
    }
    for name in nominated {
        if name != b"close" && name != b"upgrade" && name != b"te" && name != b"host" {
            head.fields.remove(&name);
        }
    }
    let trailers = head.fields.has_token(Known::Te, b"trailers");
    head.fields.retain_known(|known, _, _| {
        !matches!(known, Known::Connection | Known::KeepAlive | Known::ProxyConnection | Known::Te | Known::TransferEncoding)
            && (known != Known::Upgrade || upgrade)
    });
    if trailers {
        head.fields.append(b"te", b"trailers");
    }
}

fn forwarded(connection: &Connection, serving: &Serving, head: &mut RequestHead, notes: &mut Notes) {
    let config = serving.config();
    let _ = (connection, notes);
    if !head.fields.contains_known(Known::XForwardedProto) {
        head.fields.append(b"x-forwarded-proto", head.scheme().as_bytes());
    }
    if !config.via.is_empty() {
        head.fields.join(b"via", b", ", config.via.as_bytes());
    }
}
