//! What a field name is, found out once per table entry or literal.

use crate::field::Known;
use crate::syntax;

/// A field name as HTTP/2 sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameClass {
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority`
    Authority,
    /// `:path`
    Path,
    /// `:protocol` (RFC 8441)
    Protocol,
    /// `:status`
    Status,
    /// A field. [`Known::Other`] is a good name that is not in the list.
    Field(Known),
    /// Another pseudo-header, upper case, or not a token: the message is malformed (RFC 9113 §8.2.1, §8.3).
    Bad,
}

impl NameClass {
    /// Recognises a name.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        if name.first() == Some(&b':') {
            return match name {
                b":method" => Self::Method,
                b":scheme" => Self::Scheme,
                b":authority" => Self::Authority,
                b":path" => Self::Path,
                b":protocol" => Self::Protocol,
                b":status" => Self::Status,
                _ => Self::Bad,
            };
        }
        match Known::from_lower(name) {
            Known::Other if !syntax::is_token(name) || name.iter().any(u8::is_ascii_uppercase) => Self::Bad,
            known => Self::Field(known),
        }
    }
}
