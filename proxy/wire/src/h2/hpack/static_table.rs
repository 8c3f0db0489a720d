//! The static table (RFC 7541 Appendix A).

use super::NameClass;
use super::NameClass::{Authority, Field, Method, Path, Scheme, Status};
use crate::field::Known::{self, Other};

/// Name, what it is, value.
pub(super) type Entry = (&'static [u8], NameClass, &'static [u8]);

/// Entries of the static table.
pub(super) const STATIC_LEN: usize = 61;

macro_rules! entries {
    ($($class:expr, $name:literal, $value:literal;)+) => {
        [$(($name.as_bytes(), $class, $value.as_bytes()),)+]
    };
}

/// Index 1 is the first.
static STATIC: [Entry; STATIC_LEN] = entries! {
    Authority, ":authority", "";
    Method, ":method", "GET";
    Method, ":method", "POST";
    Path, ":path", "/";
    Path, ":path", "/index.html";
    Scheme, ":scheme", "http";
    Scheme, ":scheme", "https";
    Status, ":status", "200";
    Status, ":status", "204";
    Status, ":status", "206";
    Status, ":status", "304";
    Status, ":status", "400";
    Status, ":status", "404";
    Status, ":status", "500";
    Field(Other), "accept-charset", "";
    Field(Known::AcceptEncoding), "accept-encoding", "gzip, deflate";
    Field(Other), "accept-language", "";
    Field(Other), "accept-ranges", "";
    Field(Known::Accept), "accept", "";
    Field(Known::AccessControlAllowOrigin), "access-control-allow-origin", "";
    Field(Known::Age), "age", "";
    Field(Other), "allow", "";
    Field(Known::Authorization), "authorization", "";
    Field(Known::CacheControl), "cache-control", "";
    Field(Other), "content-disposition", "";
    Field(Known::ContentEncoding), "content-encoding", "";
    Field(Other), "content-language", "";
    Field(Known::ContentLength), "content-length", "";
    Field(Other), "content-location", "";
    Field(Other), "content-range", "";
    Field(Known::ContentType), "content-type", "";
    Field(Known::Cookie), "cookie", "";
    Field(Known::Date), "date", "";
    Field(Known::Etag), "etag", "";
    Field(Known::Expect), "expect", "";
    Field(Known::Expires), "expires", "";
    Field(Other), "from", "";
    Field(Known::Host), "host", "";
    Field(Known::IfMatch), "if-match", "";
    Field(Known::IfModifiedSince), "if-modified-since", "";
    Field(Known::IfNoneMatch), "if-none-match", "";
    Field(Other), "if-range", "";
    Field(Other), "if-unmodified-since", "";
    Field(Known::LastModified), "last-modified", "";
    Field(Other), "link", "";
    Field(Known::Location), "location", "";
    Field(Other), "max-forwards", "";
    Field(Known::ProxyAuthenticate), "proxy-authenticate", "";
    Field(Known::ProxyAuthorization), "proxy-authorization", "";
    Field(Other), "range", "";
    Field(Known::Referer), "referer", "";
    Field(Other), "refresh", "";
    Field(Known::RetryAfter), "retry-after", "";
    Field(Known::Server), "server", "";
    Field(Known::SetCookie), "set-cookie", "";
    Field(Other), "strict-transport-security", "";
    Field(Known::TransferEncoding), "transfer-encoding", "";
    Field(Known::UserAgent), "user-agent", "";
    Field(Known::Vary), "vary", "";
    Field(Known::Via), "via", "";
    Field(Known::WwwAuthenticate), "www-authenticate", "";
};

/// The entry of an index from 1 to [`STATIC_LEN`].
#[inline]
pub(super) fn get(index: usize) -> Option<&'static Entry> {
    STATIC.get(index.wrapping_sub(1))
}

/// Index of the first entry with this name.
pub(super) fn find_name(class: NameClass, name: &[u8]) -> Option<usize> {
    Some(match class {
        Authority => 1,
        Method => 2,
        Path => 4,
        Scheme => 6,
        Status => 8,
        Field(Known::AcceptEncoding) => 16,
        Field(Known::Accept) => 19,
        Field(Known::AccessControlAllowOrigin) => 20,
        Field(Known::Age) => 21,
        Field(Known::Authorization) => 23,
        Field(Known::CacheControl) => 24,
        Field(Known::ContentEncoding) => 26,
        Field(Known::ContentLength) => 28,
        Field(Known::ContentType) => 31,
        Field(Known::Cookie) => 32,
        Field(Known::Date) => 33,
        Field(Known::Etag) => 34,
        Field(Known::Expect) => 35,
        Field(Known::Expires) => 36,
        Field(Known::Host) => 38,
        Field(Known::IfMatch) => 39,
        Field(Known::IfModifiedSince) => 40,
        Field(Known::IfNoneMatch) => 41,
        Field(Known::LastModified) => 44,
        Field(Known::Location) => 46,
        Field(Known::ProxyAuthenticate) => 48,
        Field(Known::ProxyAuthorization) => 49,
        Field(Known::Referer) => 51,
        Field(Known::RetryAfter) => 53,
        Field(Known::Server) => 54,
        Field(Known::SetCookie) => 55,
        Field(Known::TransferEncoding) => 57,
        Field(Known::UserAgent) => 58,
        Field(Known::Vary) => 59,
        Field(Known::Via) => 60,
        Field(Known::WwwAuthenticate) => 61,
        Field(Other) => return find_other(name),
        _ => return None,
    })
}

fn find_other(name: &[u8]) -> Option<usize> {
    Some(match name {
        b"accept-charset" => 15,
        b"accept-language" => 17,
        b"accept-ranges" => 18,
        b"allow" => 22,
        b"content-disposition" => 25,
        b"content-language" => 27,
        b"content-location" => 29,
        b"content-range" => 30,
        b"from" => 37,
        b"if-range" => 42,
        b"if-unmodified-since" => 43,
        b"link" => 45,
        b"max-forwards" => 47,
        b"range" => 50,
        b"refresh" => 52,
        b"strict-transport-security" => 56,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_classified_and_found_by_its_name() {
        for index in 1..=STATIC_LEN {
            let (name, class, _) = get(index).unwrap();
            assert_eq!(NameClass::of(name), *class);
            let first = (1..=STATIC_LEN).find(|at| get(*at).unwrap().0 == *name).unwrap();
            assert_eq!(find_name(*class, name), Some(first), "{}", String::from_utf8_lossy(name));
        }
        assert!(get(0).is_none() && get(STATIC_LEN + 1).is_none());
        assert_eq!(find_name(Field(Other), b"x-other"), None);
    }
}
