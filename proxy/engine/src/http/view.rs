//! How the decisions of `outrigger_traffic` look at heads, and what gRPC means for one.

use crate::listener::ConnFacts;
use outrigger_traffic::metadata::Metadata;
use outrigger_traffic::view::ClientCertificate;
use outrigger_traffic::{FieldView, RequestView};
use outrigger_wire::{FieldBlock, Known, KnownSet, RequestHead};
use std::time::Duration;

/// A request head as the route table and authorization rules see it.
#[derive(Clone, Copy, Debug)]
pub struct HeadView<'a>(pub &'a RequestHead);

impl FieldView for HeadView<'_> {
    fn header(&self, lower: &[u8]) -> Option<&[u8]> {
        match lower {
            b":authority" | b"host" => Some(self.0.authority()).filter(|authority| !authority.is_empty()),
            b":path" => Some(self.0.path()),
            b":method" => Some(self.0.method_bytes()),
            b":scheme" => Some(self.0.scheme().as_bytes()),
            _ => self.0.fields.get(lower),
        }
    }

    fn for_each_header(&self, lower: &[u8], f: &mut dyn FnMut(&[u8])) {
        if lower.first() == Some(&b':') || lower == b"host" {
            if let Some(value) = self.header(lower) {
                f(value);
            }
            return;
        }
        for value in self.0.fields.get_all(lower) {
            f(value);
        }
    }
}

impl RequestView for HeadView<'_> {
    fn method(&self) -> &[u8] {
        self.0.method_bytes()
    }

    fn scheme(&self) -> &[u8] {
        self.0.scheme().as_bytes()
    }

    fn authority(&self) -> &[u8] {
        self.0.authority()
    }

    fn path(&self) -> &[u8] {
        self.0.path()
    }
}

/// A request head and the connection it came on, as the route table sees them.
#[derive(Clone, Copy, Debug)]
pub struct ClientView<'a> {
    /// The head.
    pub head: HeadView<'a>,
    /// The connection.
    pub facts: &'a ConnFacts,
    /// What filters learned of it.
    pub metadata: Option<&'a Metadata>,
}

impl FieldView for ClientView<'_> {
    fn header(&self, lower: &[u8]) -> Option<&[u8]> {
        self.head.header(lower)
    }

    fn for_each_header(&self, lower: &[u8], f: &mut dyn FnMut(&[u8])) {
        self.head.for_each_header(lower, f);
    }
}

impl RequestView for ClientView<'_> {
    fn method(&self) -> &[u8] {
        self.head.method()
    }

    fn scheme(&self) -> &[u8] {
        self.head.scheme()
    }

    fn authority(&self) -> &[u8] {
        self.head.authority()
    }

    fn path(&self) -> &[u8] {
        self.head.path()
    }

    fn metadata(&self) -> Option<&Metadata> {
        self.metadata
    }

    fn client_certificate(&self) -> ClientCertificate {
        // A certificate that is not valid ends the handshake.
        let shown = self.facts.tls.as_ref().is_some_and(|tls| tls.peer.is_some());
        ClientCertificate { presented: shown, validated: shown }
    }
}

/// A field block as conditions on responses see it.
#[derive(Clone, Copy, Debug)]
pub struct FieldsView<'a>(pub &'a FieldBlock);

impl FieldView for FieldsView<'_> {
    fn header(&self, lower: &[u8]) -> Option<&[u8]> {
        self.0.get(lower)
    }

    fn for_each_header(&self, lower: &[u8], f: &mut dyn FnMut(&[u8])) {
        for value in self.0.get_all(lower) {
            f(value);
        }
    }
}

/// Fields of which a request has one: several of a name are joined. Source: Envoy, which keeps one value of each of these.
pub const JOINED_IN_REQUESTS: KnownSet = KnownSet::of(&[
    Known::Accept,
    Known::AcceptEncoding,
    Known::AccessControlRequestHeaders,
    Known::AccessControlRequestMethod,
    Known::Authorization,
    Known::CacheControl,
    Known::ContentEncoding,
    Known::ContentType,
    Known::Expect,
    Known::GrpcAcceptEncoding,
    Known::GrpcTimeout,
    Known::IfMatch,
    Known::IfModifiedSince,
    Known::IfNoneMatch,
    Known::Origin,
    Known::Pragma,
    Known::Referer,
    Known::UserAgent,
    Known::Via,
    Known::XClientTraceId,
    Known::XForwardedFor,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedProto,
    Known::XRequestId,
]);

/// Fields of which a response has one; see [`JOINED_IN_REQUESTS`].
pub const JOINED_IN_RESPONSES: KnownSet = KnownSet::of(&[
    Known::AccessControlAllowOrigin,
    Known::Age,
    Known::CacheControl,
    Known::ContentEncoding,
    Known::ContentType,
    Known::Etag,
    Known::Expires,
    Known::GrpcMessage,
    Known::GrpcStatus,
    Known::LastModified,
    Known::Location,
    Known::Server,
    Known::Vary,
    Known::Via,
    Known::XRequestId,
]);

/// Whether a request is gRPC, by its content type.
#[must_use]
pub fn is_grpc(fields: &FieldBlock) -> bool {
    let Some(kind) = fields.get_known(Known::ContentType) else { return false };
    matches!(kind.strip_prefix(b"application/grpc"), Some([] | [b'+' | b';', ..]))
}

/// The value of `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").
#[must_use]
pub fn grpc_timeout(fields: &FieldBlock) -> Option<Duration> {
    let (unit, digits) = fields.get_known(Known::GrpcTimeout)?.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount = outrigger_wire::syntax::decimal(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(amount.saturating_mul(3600)),
        b'M' => Duration::from_secs(amount.saturating_mul(60)),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The number in `grpc-status`.
#[must_use]
pub fn grpc_status(fields: &FieldBlock) -> Option<u32> {
    let text = fields.get_known(Known::GrpcStatus)?;
    u32::try_from(outrigger_wire::syntax::decimal(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> FieldBlock {
        let mut fields = FieldBlock::default();
        assert!(fields.append(name.as_bytes(), value.as_bytes()));
        fields
    }

    #[test]
    fn grpc_timeout_units_and_limits() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("999999999S", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
        ] {
            assert_eq!(grpc_timeout(&with("grpc-timeout", text)), expected, "{text}");
        }
    }

    #[test]
    fn grpc_content_types() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&with("content-type", kind)), expected, "{kind}");
        }
    }
}
