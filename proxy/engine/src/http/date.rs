//! The `date` field (RFC 9110 §6.6.1), formatted once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_wire::{FieldBlock, Known};
use tokio::time::Instant;

/// The last formatted date of a worker.
#[derive(Debug, Default)]
pub struct DateCache(RefCell<Last>);

#[derive(Debug, Default)]
struct Last {
    /// When its second is over; `None` before the first.
    until: Option<Instant>,
    text: String,
}

impl DateCache {
    /// Sets `date` where it is absent. `now` is a time read before; the calendar is read once a second.
    pub fn fill(&self, fields: &mut FieldBlock, now: Instant) {
        if fields.contains_known(Known::Date) {
            return;
        }
        let mut last = self.0.borrow_mut();
        if last.until.is_none_or(|until| now >= until) {
            let calendar = SystemTime::now();
            let into_second = calendar.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
            last.until = Some(now + Duration::from_nanos(u64::from(1_000_000_000 - into_second)));
            last.text = httpdate::fmt_http_date(calendar);
        }
        fields.put(Known::Date, last.text.as_bytes());
    }
}
