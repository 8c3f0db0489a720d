//! HTTP/1.1 on the wire (RFC 9112): strict reading, framing written only by us.
//!
//! A message comes in as: [`parse_request`] or [`parse_response`] on the buffered bytes, then a
//! [`BodyDecoder`] made from the framing the head declared, stepped over whatever arrives next.
//! It goes out as: [`encode_request`] or [`encode_response`], then [`encode_chunk_head`] and
//! [`encode_last_chunk`] when the framing is chunked. Framing fields are never copied from the message
//! that came in, so what leaves can be read in one way only.
//!
//! The buffer may be read again from its start after each read from the socket; [`ends_head`] tells
//! cheaply whether that can succeed, so that a head sent byte by byte does not cost quadratic work.

mod body;
mod chunk;
mod encode;
mod error;
mod framing;
mod plain;
mod request;
mod response;
mod target;
mod token;

#[cfg(test)]
mod plain_tests;
#[cfg(test)]
mod tests;

pub use body::{BodyDecoder, BodyStep, LengthDecoder};
pub use chunk::{ChunkDecoder, ChunkStep};
pub use encode::{
    CHUNK_END, ConnectionHeader, LAST_CHUNK, encode_chunk_head, encode_last_chunk, encode_request,
    encode_response, reason_phrase,
};
pub use error::H1Error;
pub use framing::{BodyLength, RequestFraming, ResponseFraming};
pub use request::parse_request;
pub use response::parse_response;

/// Bounds of what one message may make the reader hold or do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, start line and blank line included. Default 60 KiB
    /// (Envoy: `max_request_headers_kb`).
    pub max_head_bytes: usize,
    /// Fields of a head. Default 100 (Envoy: `max_headers_count`).
    pub max_fields: usize,
    /// Bytes of a trailer section. Default 60 KiB (Envoy counts trailers by the same limit).
    pub max_trailer_bytes: usize,
    /// Fields of a trailer section. Default 100.
    pub max_trailer_fields: usize,
    /// Bytes of chunk extensions: of one chunk, and of a whole body beyond what its data earns (a
    /// small allowance per chunk and twice its length), so that extensions cannot be the bulk of what
    /// is sent. Default 16 KiB.
    pub max_chunk_extension_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head_bytes: 60 * 1024,
            max_fields: 100,
            max_trailer_bytes: 60 * 1024,
            max_trailer_fields: 100,
            max_chunk_extension_bytes: 16 * 1024,
        }
    }
}

/// What reading a head gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<F> {
    /// No error so far, and not all of it: read more and start again.
    Partial,
    /// The whole head.
    Complete {
        /// Bytes the head took from the start of the buffer; the body begins there.
        consumed: usize,
        /// How the body is delimited and what becomes of the connection.
        framing: F,
    },
}

/// Whether a head may end in the part of `buffer` that begins at `seen`, where the previous attempt
/// to parse stopped. `false` proves that parsing again would be [`Parsed::Partial`] once more, unless a
/// limit has been passed: when the buffer holds `max_head_bytes`, parse regardless.
#[must_use]
pub fn ends_head(buffer: &[u8], seen: usize) -> bool {
    let fresh = buffer.get(seen..).unwrap_or_default();
    memchr::memchr_iter(b'\n', fresh).any(|at| blank_line(buffer, seen + at))
}

/// Whether the line that ends with the LF at `at` is empty.
fn blank_line(buffer: &[u8], at: usize) -> bool {
    matches!(buffer.get(..at), Some([.., b'\n'] | [.., b'\n', b'\r']))
}
