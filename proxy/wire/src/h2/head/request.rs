//! Request heads.

use super::{Checks, HeadLimits, HeadRefusal, body_length, store};
use crate::field::Known;
use crate::h1::BodyLength;
use crate::h2::hpack::{Field, FieldSink, NameClass, Shape};
use crate::head::{Method, RequestHead, Scheme, Version};

/// Stores a request.
#[derive(Debug)]
pub struct RequestSink<'h> {
    head: &'h mut RequestHead,
    checks: Checks,
    method: bool,
    scheme: bool,
    path: bool,
    authority: Seen,
    /// `:protocol` of an extended CONNECT (RFC 8441). Rare, so that it may allocate.
    protocol: Option<Vec<u8>>,
    connect_allowed: bool,
}

/// Where the authority came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Pseudo,
    Host,
    Both,
}

impl<'h> RequestSink<'h> {
    /// Clears `head`. `connect_allowed` tells that we announced SETTINGS_ENABLE_CONNECT_PROTOCOL.
    pub fn new(head: &'h mut RequestHead, limits: HeadLimits, connect_allowed: bool) -> Self {
        head.clear();
        head.set_version(Version::Http2);
        Self {
            head,
            checks: Checks::new(limits),
            method: false,
            scheme: false,
            path: false,
            authority: Seen::Nothing,
            protocol: None,
            connect_allowed,
        }
    }

    /// Judges the whole. `secure` tells what the connection is, which decides the scheme whatever the peer wrote;
    /// `ended` that no body follows.
    ///
    /// An extended CONNECT becomes what it means elsewhere: a GET with `upgrade`. Such a request, like a plain CONNECT,
    /// has no body; what follows on the stream belongs to the tunnel.
    ///
    /// *Errors*: see [`HeadRefusal`].
    pub fn finish(mut self, ended: bool, secure: bool) -> Result<BodyLength, HeadRefusal> {
        self.head.set_scheme(if secure { Scheme::Https } else { Scheme::Http });
        if let Some(refusal) = self.checks.refusal {
            return Err(refusal);
        }
        let connect = self.head.method() == Method::Connect;
        let complete = match (connect, &self.protocol) {
            // RFC 9113 §8.5: neither scheme nor path.
            (true, None) => !self.scheme && !self.path && self.authority != Seen::Nothing,
            (false, Some(_)) => false,
            (true, Some(_)) => self.connect_allowed && self.scheme && self.path,
            (false, None) => self.scheme && self.path,
        };
        if !self.method || !complete {
            return Err(HeadRefusal::Malformed);
        }
        if self.authority == Seen::Nothing {
            return Err(HeadRefusal::Bad("missing_host_header"));
        }
        if self.head.path() == b"*" && self.head.method() != Method::Options {
            return Err(HeadRefusal::Bad("http2.invalid.path"));
        }
        if connect {
            return self.finish_connect();
        }
        body_length(&self.head.fields, ended).ok_or(HeadRefusal::Bad("http2.invalid.content_length"))
    }

    fn finish_connect(&mut self) -> Result<BodyLength, HeadRefusal> {
        if self.head.fields.contains_known(Known::ContentLength) {
            return Err(HeadRefusal::Bad("http2.invalid.content_length"));
        }
        if let Some(kind) = &self.protocol
            && (kind.is_empty()
                || !self.head.set_method(b"GET")
                || !self.head.fields.append(b"upgrade", kind))
        {
            return Err(HeadRefusal::Bad("http2.invalid.protocol"));
        }
        Ok(BodyLength::None)
    }

    fn host(&mut self, value: &[u8]) {
        match self.authority {
            Seen::Host | Seen::Both => self.checks.refuse(HeadRefusal::Bad("http2.multiple_host")),
            Seen::Pseudo => {
                self.authority = Seen::Both;
                if !value.eq_ignore_ascii_case(self.head.authority()) {
                    self.checks.refuse(HeadRefusal::Bad("http2.authority_host_mismatch"));
                }
            }
            Seen::Nothing => {
                self.authority = Seen::Host;
                if !self.head.set_authority(value) {
                    self.checks.refuse(HeadRefusal::Bad("http2.invalid.authority"));
                }
            }
        }
    }

    fn pseudo(&mut self, class: NameClass, value: &[u8]) -> Result<(), HeadRefusal> {
        let (seen, good) = match class {
            NameClass::Method => (std::mem::replace(&mut self.method, true), self.head.set_method(value)),
            // Which scheme it is does not matter here, but it has to be one.
            NameClass::Scheme => {
                let good = value.first().is_some_and(u8::is_ascii_alphabetic);
                (std::mem::replace(&mut self.scheme, true), good)
            }
            NameClass::Path => (std::mem::replace(&mut self.path, true), self.head.set_path(value)),
            NameClass::Authority => {
                let seen = self.authority != Seen::Nothing;
                // RFC 9113 §8.3.1: an empty one says nothing.
                if !value.is_empty() {
                    self.authority = Seen::Pseudo;
                }
                (seen, value.is_empty() || self.head.set_authority(value))
            }
            NameClass::Protocol => (self.protocol.replace(value.to_vec()).is_some(), true),
            NameClass::Status | NameClass::Bad | NameClass::Field(_) => return Err(HeadRefusal::Malformed),
        };
        if seen || !good { Err(HeadRefusal::Malformed) } else { Ok(()) }
    }
}

impl FieldSink for RequestSink<'_> {
    fn field(&mut self, field: &Field<'_>) {
        if !self.checks.count(field) {
            return;
        }
        let Field { class, value, .. } = *field;
        let NameClass::Field(known) = class else {
            if let Err(refusal) = self.pseudo(class, value) {
                self.checks.refuse(refusal);
            }
            return;
        };
        // Our own form trims values; a reader behind us may have seen another one.
        if field.shape == Shape::Padded {
            self.checks.refuse(HeadRefusal::Bad("http2.invalid.header_field"));
            return;
        }
        let stored = match known {
            Known::Host => {
                self.host(value);
                true
            }
            // RFC 9113 §8.2.3: crumbs are one field elsewhere.
            Known::Cookie => self.head.fields.join(b"cookie", b"; ", value),
            _ => store(&mut self.head.fields, known, field),
        };
        if !stored {
            self.checks.refuse(HeadRefusal::Bad("http2.invalid.header_field"));
        }
    }
}
