//! How a body is delimited and what becomes of the connection (RFC 9112 §6 and §9).

use crate::field::{FieldBlock, Known};
use crate::head::Version;

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection ends; responses only.
    UntilClose,
}

impl BodyLength {
    /// The framing to use towards a peer of this version: HTTP/1.0 knows no chunks, so the body ends
    /// with the connection.
    #[must_use]
    pub const fn for_version(self, version: Version) -> Self {
        match (self, version) {
            (Self::Chunked, Version::Http10) => Self::UntilClose,
            _ => self,
        }
    }

    /// Whether no body byte will come: no body, or one of length 0.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// What a request head says about its body and connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFraming {
    /// How the body is delimited; never [`BodyLength::UntilClose`].
    pub body: BodyLength,
    /// Whether the downstream wants the connection kept after the response.
    pub keep_alive: bool,
    /// Whether it waits for `100 (Continue)` before it sends the body (RFC 9110 §10.1.1).
    pub expect_continue: bool,
    /// Whether it asks to change protocols: `connection: upgrade` and an `upgrade` field, in HTTP/1.1.
    pub upgrade: bool,
    /// Whether the request is HTTP/1.0.
    pub http10: bool,
}

/// What a response head says about its body and connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFraming {
    /// How the body is delimited.
    pub body: BodyLength,
    /// Whether the upstream keeps the connection after this response.
    pub keep_alive: bool,
    /// A 1xx other than 101: the final response follows.
    pub informational: bool,
    /// From here on the connection is a tunnel: 101, or 2xx to CONNECT.
    pub switching: bool,
}

/// RFC 9112 §9.3.
pub(super) fn keeps_alive(fields: &FieldBlock, http10: bool) -> bool {
    if !fields.contains_known(Known::Connection) {
        return !http10;
    }
    if fields.has_token(Known::Connection, b"close") {
        return false;
    }
    !http10 || fields.has_token(Known::Connection, b"keep-alive")
}
