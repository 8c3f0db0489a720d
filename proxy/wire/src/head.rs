//! Request and response heads, the same for HTTP/1.1 and HTTP/2.
//!
//! A head owns a few byte buffers that are cleared and filled again for the next message. `host` is
//! never among the fields of a request: it is the [`authority`](RequestHead::authority).

use std::fmt;

use crate::field::FieldBlock;
use crate::syntax;

/// Request method. Methods outside this list are [`Method::Other`]; the head keeps their text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the documentation
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Other,
}

impl Method {
    /// Recognises a method; names are case-sensitive (RFC 9110 §9.1).
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match bytes {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// The method's text; empty for [`Method::Other`].
    #[must_use]
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Get => b"GET",
            Self::Head => b"HEAD",
            Self::Post => b"POST",
            Self::Put => b"PUT",
            Self::Delete => b"DELETE",
            Self::Connect => b"CONNECT",
            Self::Options => b"OPTIONS",
            Self::Trace => b"TRACE",
            Self::Patch => b"PATCH",
            Self::Other => b"",
        }
    }

    /// Whether the method only reads (RFC 9110 §9.2.1). Unknown methods are not safe.
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Whether sending the request twice means the same as once (RFC 9110 §9.2.2).
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }

    /// Whether a request of this method without a body says so with `content-length: 0`
    /// (RFC 9110 §8.6).
    #[must_use]
    pub const fn expects_body(self) -> bool {
        !matches!(self, Self::Get | Self::Head | Self::Delete | Self::Connect | Self::Trace)
    }
}

/// URI scheme of a request; the proxy serves no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

impl Scheme {
    /// Recognises `http` and `https` in any case.
    #[must_use]
    pub const fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.eq_ignore_ascii_case(b"http") {
            Some(Self::Http)
        } else if bytes.eq_ignore_ascii_case(b"https") {
            Some(Self::Https)
        } else {
            None
        }
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn as_bytes(self) -> &'static [u8] {
        self.as_str().as_bytes()
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// HTTP version of a message as received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

impl Version {
    /// As an access log writes it (Envoy: `%PROTOCOL%`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// Head of a request.
///
/// The setters check what they are given and return `false`, changing nothing, when it could not be
/// written to the wire without changing the message's meaning (white space, controls, a fragment).
#[derive(Default, PartialEq, Eq)]
pub struct RequestHead {
    method: Method,
    /// Text of a method that is `Method::Other`; empty otherwise.
    method_other: Vec<u8>,
    scheme: Scheme,
    version: Version,
    authority: Vec<u8>,
    path: Vec<u8>,
    /// Header fields, without `host`.
    pub fields: FieldBlock,
}

impl RequestHead {
    /// An empty head with room for an ordinary request, so that the first one allocates once.
    #[must_use]
    pub fn with_capacity() -> Self {
        Self { authority: Vec::with_capacity(64), path: Vec::with_capacity(256), ..Self::default() }
    }

    /// Makes the head empty and keeps its memory.
    pub fn clear(&mut self) {
        self.method = Method::Get;
        self.method_other.clear();
        self.scheme = Scheme::Http;
        self.version = Version::Http11;
        self.authority.clear();
        self.path.clear();
        self.fields.clear();
    }

    /// The method.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The method's text.
    #[must_use]
    pub fn method_bytes(&self) -> &[u8] {
        if self.method == Method::Other { &self.method_other } else { self.method.as_bytes() }
    }

    /// Sets the method; it must be a token.
    pub fn set_method(&mut self, method: &[u8]) -> bool {
        let good = syntax::is_token(method);
        if good {
            self.put_method(method);
        }
        good
    }

    /// See [`Method::is_idempotent`].
    #[must_use]
    pub const fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }

    /// See [`Method::is_safe`].
    #[must_use]
    pub const fn is_safe(&self) -> bool {
        self.method.is_safe()
    }

    /// The scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Sets the scheme.
    pub const fn set_scheme(&mut self, scheme: Scheme) {
        self.scheme = scheme;
    }

    /// The version the request arrived with.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Sets the version the request arrived with.
    pub const fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Host and optional port; empty only for an HTTP/1.0 request without `host`.
    #[must_use]
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// Sets the authority; see [`syntax::is_authority`].
    pub fn set_authority(&mut self, authority: &[u8]) -> bool {
        let good = syntax::is_authority(authority);
        if good {
            self.put_authority(authority);
        }
        good
    }

    /// Path and query as received; `*` for `OPTIONS *`, empty for CONNECT.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Sets path and query; it starts with `/` (or is `*`) and has only visible ASCII without `#`.
    pub fn set_path(&mut self, path: &[u8]) -> bool {
        let good = (path.first() == Some(&b'/') || path == b"*") && syntax::is_target(path);
        if good {
            self.put_path(path);
        }
        good
    }

    /// The path without the query.
    #[must_use]
    pub fn path_only(&self) -> &[u8] {
        let end = memchr::memchr(b'?', &self.path).unwrap_or(self.path.len());
        self.path.get(..end).unwrap_or_default()
    }

    /// The query without its `?`; `None` when there is no `?`.
    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        let mark = memchr::memchr(b'?', &self.path)?;
        self.path.get(mark + 1..)
    }

    /// Bytes of the head as Envoy counts them: method, scheme, authority, path and fields.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.method_bytes().len()
            + self.scheme.as_bytes().len()
            + self.authority.len()
            + self.path.len()
            + self.fields.byte_size()
    }

    pub(crate) fn put_method(&mut self, method: &[u8]) {
        self.method = Method::from_bytes(method);
        self.method_other.clear();
        if self.method == Method::Other {
            self.method_other.extend_from_slice(method);
        }
    }

    pub(crate) fn put_authority(&mut self, authority: &[u8]) {
        self.authority.clear();
        self.authority.extend_from_slice(authority);
    }

    pub(crate) fn put_path(&mut self, path: &[u8]) {
        self.path.clear();
        self.path.extend_from_slice(path);
    }

    /// Sets `/` and a query that begins with `?`, for an absolute target without a path.
    pub(crate) fn put_root_path(&mut self, query: &[u8]) {
        self.path.clear();
        self.path.push(b'/');
        self.path.extend_from_slice(query);
    }
}

impl Clone for RequestHead {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Copies `source` into the memory this head already has.
    fn clone_from(&mut self, source: &Self) {
        self.method = source.method;
        self.method_other.clone_from(&source.method_other);
        self.scheme = source.scheme;
        self.version = source.version;
        self.authority.clone_from(&source.authority);
        self.path.clone_from(&source.path);
        self.fields.clone_from(&source.fields);
    }
}

/// Shows no query and no field values: both may hold credentials.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &String::from_utf8_lossy(self.method_bytes()))
            .field("scheme", &self.scheme)
            .field("version", &self.version)
            .field("authority", &String::from_utf8_lossy(&self.authority))
            .field("path", &String::from_utf8_lossy(self.path_only()))
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

/// Head of a response. The reason phrase is not kept: it has no meaning (RFC 9112 §4).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code, 100 to 999; 0 in an empty head.
    pub status: u16,
    /// Header fields.
    pub fields: FieldBlock,
}

impl ResponseHead {
    /// Makes the head empty and keeps its memory.
    pub fn clear(&mut self) {
        self.status = 0;
        self.fields.clear();
    }

    /// Bytes of the head as Envoy counts them: status and fields.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        3 + self.fields.byte_size()
    }
}

impl Clone for ResponseHead {
    fn clone(&self) -> Self {
        Self { status: self.status, fields: self.fields.clone() }
    }

    /// Copies `source` into the memory this head already has.
    fn clone_from(&mut self, source: &Self) {
        self.status = source.status;
        self.fields.clone_from(&source.fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_split_at_first_mark() {
        let mut head = RequestHead::default();
        for (path, only, query) in [
            (&b"/a?b?c"[..], &b"/a"[..], Some(&b"b?c"[..])),
            (b"/a", b"/a", None),
            (b"/?", b"/", Some(b"")),
            (b"*", b"*", None),
        ] {
            assert!(head.set_path(path));
            assert_eq!((head.path_only(), head.query()), (only, query));
        }
    }

    #[test]
    fn setters_refuse_what_the_wire_cannot_carry() {
        let mut head = RequestHead::default();
        assert!(head.set_path(b"/ok") && head.set_authority(b"h:1") && head.set_method(b"PURGE"));
        for bad in [&b"/a b"[..], b"/a\r\nx: y", b"a", b"", b"/#f", b"/\xe9", b"/\x00"] {
            assert!(!head.set_path(bad), "{bad:?}");
        }
        assert!(!head.set_authority(b"a b") && !head.set_authority(b""));
        assert!(!head.set_method(b"") && !head.set_method(b"A B"));
        assert_eq!(
            (head.path(), head.authority(), head.method_bytes()),
            (&b"/ok"[..], &b"h:1"[..], &b"PURGE"[..])
        );
    }

    #[test]
    fn methods_keep_their_text_and_properties() {
        let mut head = RequestHead::default();
        for (text, safe, idempotent) in [
            ("GET", true, true),
            ("HEAD", true, true),
            ("OPTIONS", true, true),
            ("TRACE", true, true),
            ("PUT", false, true),
            ("DELETE", false, true),
            ("POST", false, false),
            ("PATCH", false, false),
            ("CONNECT", false, false),
            ("get", false, false),
            ("PURGE", false, false),
        ] {
            assert!(head.set_method(text.as_bytes()));
            assert_eq!(head.method_bytes(), text.as_bytes());
            assert_eq!((head.is_safe(), head.is_idempotent()), (safe, idempotent), "{text}");
        }
    }

    #[test]
    fn clone_from_copies_everything() {
        let mut source = RequestHead::default();
        source.set_method(b"PURGE");
        source.set_scheme(Scheme::Https);
        source.set_version(Version::Http2);
        source.set_authority(b"a");
        source.set_path(b"/p");
        source.fields.append(b"x", b"y");
        let mut copy = RequestHead::default();
        copy.fields.append(b"old", b"old");
        copy.clone_from(&source);
        assert_eq!(copy, source);
        copy.clear();
        assert_eq!(copy, RequestHead::default());
    }
}
