//! Which route a request takes.

use outrigger_traffic::route::Matched;

use super::Front;
use super::notes::Notes;
use crate::error::ProxyError;
use crate::http::Serving;
use crate::http::view::{ClientView, HeadView};

/// Finds the route.
///
/// *Errors*: none matches, or the table (RDS) has not arrived yet.
pub(super) fn find<'s>(
    x: &Front,
    serving: &'s Serving,
    _notes: &mut Notes,
) -> Result<Matched<'s>, ProxyError> {
    let table = serving.table();
    let draw = x.worker().draw_u32();
    match table.and_then(|table| {
        table.find(&ClientView { head: HeadView(&x.request), facts: &x.connection.facts }, draw)
    }) {
        Some(matched) => Ok(matched),
        None => {
            serving.stats(x.worker()).no_route.inc();
            Err(ProxyError::NoRoute)
        }
    }
}
