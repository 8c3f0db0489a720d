//! From decoded fields to our heads, checked on the way.
//!
//! What arrives over HTTP/2 may leave as HTTP/1.1, so everything that could mean something else there is refused here
//! (RFC 9113 §8.2 and §10.3). After a refusal the rest of a block is still decoded, because the compression state needs
//! it, but nothing more is stored.

mod request;
mod response;
#[cfg(test)]
mod tests;

pub use request::RequestSink;
pub use response::{ResponseSink, TrailerSink};

use super::hpack::{ENTRY_OVERHEAD, Field, FieldSink, NameClass, Shape};
use crate::field::{FieldBlock, Known};
use crate::h1::BodyLength;
use crate::syntax;

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadRefusal {
    /// Malformed (RFC 9113 §8.1.1): the stream is reset.
    Malformed,
    /// Well-formed HTTP/2 that would be ambiguous elsewhere; the stream is answered with 400 and these details.
    Bad(&'static str),
    /// More fields than the limit; answered with 431.
    TooMany,
    /// More bytes than the limit, each field counted with an overhead of 32 (RFC 9113 §6.5.2); answered with 431.
    TooLarge,
}

/// Limits of a head or trailer section.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Most fields, pseudo-headers not counted.
    pub fields: usize,
    /// Most bytes, as SETTINGS_MAX_HEADER_LIST_SIZE counts them.
    pub bytes: usize,
}

/// Fields that belong to one HTTP/1.1 connection and have no place in HTTP/2 (RFC 9113 §8.2.2).
#[must_use]
pub const fn is_connection_specific(known: Known) -> bool {
    matches!(
        known,
        Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Http2Settings
    )
}

/// What all sinks count and refuse alike.
#[derive(Debug)]
struct Checks {
    limits: HeadLimits,
    fields: usize,
    bytes: usize,
    /// A field that is not a pseudo-header was seen.
    regular: bool,
    refusal: Option<HeadRefusal>,
}

impl Checks {
    const fn new(limits: HeadLimits) -> Self {
        Self { limits, fields: 0, bytes: 0, regular: false, refusal: None }
    }

    /// The first refusal stands, but nothing is milder than malformed.
    fn refuse(&mut self, refusal: HeadRefusal) {
        if self.refusal.is_none() || refusal == HeadRefusal::Malformed {
            self.refusal = Some(refusal);
        }
    }

    /// Counts a field before it is stored; `false` when the head was refused.
    fn count(&mut self, field: &Field<'_>) -> bool {
        let Field { class, name, value, shape, .. } = *field;
        self.bytes = self.bytes.saturating_add(name.len() + value.len() + ENTRY_OVERHEAD);
        if self.bytes > self.limits.bytes {
            self.refuse(HeadRefusal::TooLarge);
        }
        if let NameClass::Field(known) = class {
            self.regular = true;
            self.fields += 1;
            if self.fields > self.limits.fields {
                self.refuse(HeadRefusal::TooMany);
            }
            if is_connection_specific(known) || (known == Known::Te && value != b"trailers") {
                self.refuse(HeadRefusal::Malformed);
            }
        } else if self.regular || class == NameClass::Bad {
            // Pseudo-headers come first (RFC 9113 §8.3).
            self.refuse(HeadRefusal::Malformed);
        }
        if shape == Shape::Dirty {
            self.refuse(HeadRefusal::Malformed);
        }
        self.refusal.is_none()
    }
}

/// Stores a field whose value is clean, as one line where it is at hand; one that is padded without its padding.
fn store(fields: &mut FieldBlock, known: Known, field: &Field<'_>) -> bool {
    if field.shape == Shape::Clean && !field.line.is_empty() {
        return fields.push_ready(known, field.line, field.name.len());
    }
    fields.push_known(known, field.name, syntax::trim_ows(field.value))
}

/// How a message that arrived over HTTP/2 is delimited when it leaves over HTTP/1.1; `None` when its `content-length`
/// is not one number, or announces data that does not come.
#[must_use]
pub fn body_length(fields: &FieldBlock, ended: bool) -> Option<BodyLength> {
    let mut lengths = fields.get_all_known(Known::ContentLength);
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(text), None) => Some(syntax::decimal(text)?),
        (Some(_), Some(_)) => return None,
    };
    Some(match (ended, length) {
        (true, Some(length)) if length > 0 => return None,
        (true, Some(_)) => BodyLength::Length(0),
        (true, None) => BodyLength::None,
        (false, Some(length)) => BodyLength::Length(length),
        (false, None) => BodyLength::Chunked,
    })
}

/// Takes nothing: for blocks of streams that are gone, which only keep the compression state right.
#[derive(Debug)]
pub struct NullSink;

impl FieldSink for NullSink {
    fn field(&mut self, _: &Field<'_>) {}
}
