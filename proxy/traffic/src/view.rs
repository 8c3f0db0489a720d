//! How decisions look at a message: without owning it, without copying it.

use crate::metadata::Metadata;

/// The header fields of a request or response.
pub trait FieldView {
    /// Value of the first field with this name. `lower` is in lower case; `host` is asked as `:authority` elsewhere.
    fn header(&self, lower: &[u8]) -> Option<&[u8]>;

    /// Calls `f` with the value of every field with this name, in order.
    fn for_each_header(&self, lower: &[u8], f: &mut dyn FnMut(&[u8]));
}

/// A request head.
pub trait RequestView: FieldView {
    /// `GET`, `POST`, …
    fn method(&self) -> &[u8];
    /// `http` or `https`: what the client spoke, after `x-forwarded-proto` was taken into account.
    fn scheme(&self) -> &[u8];
    /// Host and port as the client wrote them.
    fn authority(&self) -> &[u8];
    /// Path with query. Empty for plain `CONNECT`.
    fn path(&self) -> &[u8];
    /// What is known of the client's certificate.
    fn client_certificate(&self) -> ClientCertificate {
        ClientCertificate::default()
    }
    /// What filters learned of it.
    fn metadata(&self) -> Option<&Metadata> {
        None
    }
}

/// What is known of a client's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The client showed one.
    pub presented: bool,
    /// It is valid.
    pub validated: bool,
}

/// A message without fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFields;

impl FieldView for NoFields {
    fn header(&self, _lower: &[u8]) -> Option<&[u8]> {
        None
    }
    fn for_each_header(&self, _lower: &[u8], _f: &mut dyn FnMut(&[u8])) {}
}

/// The path of a target, without query and fragment.
pub fn path_only(target: &[u8]) -> &[u8] {
    match memchr::memchr2(b'?', b'#', target) {
        Some(end) => target.get(..end).unwrap_or(target),
        None => target,
    }
}

/// The query of a target without its question mark and without fragment; `None` where there is no question mark.
pub fn query_only(target: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'#', target).unwrap_or(target.len());
    let target = target.get(..end)?;
    let start = memchr::memchr(b'?', target)?;
    target.get(start + 1..)
}
