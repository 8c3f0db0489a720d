//! Header edits as a filter (`envoy.filters.http.header_mutation`).

use outrigger_traffic::filter::{HeaderMutation, Override};

use super::{After, Verdict};
use crate::exchange::{self, Exchange, Notes};

/// Edits the request, and leaves the edits of the response to be done.
pub(super) fn on_request(
    x: &mut Exchange,
    notes: &mut Notes,
    filter: &HeaderMutation,
    own: Option<&Override>,
) -> Verdict {
    for edits in filter.edits(own, false) {
        exchange::edit_request(&mut x.front, notes, edits);
    }
    on_response(notes, filter, own);
    Verdict::Next
}

/// Leaves the edits of the response to be done: the last one left is done first.
pub(super) fn on_response(notes: &mut Notes, filter: &HeaderMutation, own: Option<&Override>) {
    let at = notes.after.len();
    for edits in filter.edits(own, true) {
        notes.after.insert(at, After::Edits(edits.clone()));
    }
}
