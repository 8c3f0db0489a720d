//! The `date` field (RFC 9110 §6.6.1), formatted once a second.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use outrigger_wire::{FieldBlock, Known};

/// The last formatted date of a worker.
#[derive(Debug, Default)]
pub struct DateCache(RefCell<(u64, String)>);

impl DateCache {
    /// Sets `date` where it is absent.
    pub fn fill(&self, fields: &mut FieldBlock) {
        if fields.contains_known(Known::Date) {
            return;
        }
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut last = self.0.borrow_mut();
        if last.0 != second || last.1.is_empty() {
            *last = (second, httpdate::fmt_http_date(now));
        }
        fields.append(b"date", last.1.as_bytes());
    }
}
