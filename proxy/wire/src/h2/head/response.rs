//! Response heads, and trailer sections of either direction.

use super::{Checks, HeadLimits, HeadRefusal, is_connection_specific, store};
use crate::field::{FieldBlock, Known};
use crate::h2::hpack::{Field, FieldSink, NameClass};
use crate::head::ResponseHead;
use crate::syntax;

/// Stores a response.
#[derive(Debug)]
pub struct ResponseSink<'h> {
    head: &'h mut ResponseHead,
    checks: Checks,
}

impl<'h> ResponseSink<'h> {
    /// Clears `head`.
    pub fn new(head: &'h mut ResponseHead, limits: HeadLimits) -> Self {
        head.clear();
        Self { head, checks: Checks::new(limits) }
    }

    /// Judges the whole.
    ///
    /// *Errors*: see [`HeadRefusal`].
    pub fn finish(self) -> Result<(), HeadRefusal> {
        match self.checks.refusal {
            Some(refusal) => Err(refusal),
            // HTTP/2 has no 101 (RFC 9113 §8.6).
            None if self.head.status < 100 || self.head.status == 101 => Err(HeadRefusal::Malformed),
            None => Ok(()),
        }
    }
}

impl FieldSink for ResponseSink<'_> {
    fn field(&mut self, field: &Field<'_>) {
        if !self.checks.count(field) {
            return;
        }
        let value = field.value;
        match field.class {
            NameClass::Status if self.head.status == 0 && value.len() == 3 => {
                match syntax::decimal(value).and_then(|status| u16::try_from(status).ok()) {
                    Some(status) => self.head.status = status,
                    None => self.checks.refuse(HeadRefusal::Malformed),
                }
            }
            NameClass::Field(known) => {
                // Padding is taken off, as a reader of HTTP/1.1 would; nothing hides in a response that way.
                let stored = known == Known::Host || store(&mut self.head.fields, known, field);
                if !stored {
                    self.checks.refuse(HeadRefusal::Malformed);
                }
            }
            _ => self.checks.refuse(HeadRefusal::Malformed),
        }
    }
}

/// Stores a trailer section; fields that may not be trailers are left out (RFC 9110 §6.5.1).
#[derive(Debug)]
pub struct TrailerSink<'h> {
    trailers: &'h mut FieldBlock,
    checks: Checks,
}

impl<'h> TrailerSink<'h> {
    /// Clears `trailers`.
    pub fn new(trailers: &'h mut FieldBlock, limits: HeadLimits) -> Self {
        trailers.clear();
        Self { trailers, checks: Checks::new(limits) }
    }

    /// Judges the whole.
    ///
    /// *Errors*: see [`HeadRefusal`].
    pub fn finish(self) -> Result<(), HeadRefusal> {
        self.checks.refusal.map_or(Ok(()), Err)
    }
}

impl FieldSink for TrailerSink<'_> {
    fn field(&mut self, field: &Field<'_>) {
        if !self.checks.count(field) {
            return;
        }
        let NameClass::Field(known) = field.class else {
            self.checks.refuse(HeadRefusal::Malformed);
            return;
        };
        let banned = is_connection_specific(known)
            || matches!(known, Known::Host | Known::ContentLength | Known::Te | Known::Trailer);
        if !banned && !store(self.trailers, known, field) {
            self.checks.refuse(HeadRefusal::Malformed);
        }
    }
}
