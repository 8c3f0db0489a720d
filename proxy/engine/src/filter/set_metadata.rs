//! Fixed values that become metadata (`envoy.filters.http.set_metadata`).

use outrigger_traffic::config::SetMetadata;

use super::Verdict;
use crate::exchange::{Exchange, Notes};

/// Writes the values.
pub(super) fn on_request(x: &Exchange, notes: &mut Notes, values: &[SetMetadata]) -> Verdict {
    let stats = x.front.serving.stats(x.front.worker());
    for one in values {
        let metadata = notes.metadata.get_or_insert_default();
        let is_there = metadata.space(&one.namespace).is_some();
        let kept = match (is_there, one.overwrite) {
            (true, false) => {
                stats.set_metadata_overwrite_denied.inc();
                true
            }
            (true, true) => metadata.join(&one.namespace, &one.value),
            (false, _) => metadata.put_all(&one.namespace, one.value.clone()),
        };
        if !kept {
            stats.dynamic_metadata_overflow.inc();
        }
    }
    Verdict::Next
}
