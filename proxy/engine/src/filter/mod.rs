//! HTTP filters between the connection manager and the router, in order. Authorization comes first.

mod rbac;

use outrigger_traffic::route::Route;
use outrigger_wire::RequestHead;

use crate::error::ProxyError;
use crate::exchange::Notes;
use crate::http::{Connection, Serving};

/// Runs the request side of the chain.
///
/// *Errors*: a filter answers the request itself.
pub fn on_request(
    connection: &Connection,
    serving: &Serving,
    request: &RequestHead,
    route: &Route,
    notes: &mut Notes,
) -> Result<(), ProxyError> {
    rbac::check(connection, serving, request, route, notes)
}
