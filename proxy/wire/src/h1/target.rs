//! The four forms of a request target (RFC 9112 §3.2).

use super::H1Error;
use crate::head::{Method, RequestHead, Scheme};
use crate::syntax;

/// Stores `target` in `head`, whose method is set. Returns whether the target named the authority,
/// which then wins over `host` (RFC 9112 §3.2.2).
pub(super) fn store_target(target: &[u8], head: &mut RequestHead) -> Result<bool, H1Error> {
    if !syntax::is_target(target) {
        return Err(H1Error::BadTarget);
    }
    if head.method() == Method::Connect {
        if !syntax::is_authority_with_port(target) {
            return Err(H1Error::TargetFormMismatch);
        }
        head.put_authority(target);
        return Ok(true);
    }
    match target {
        [b'/', ..] => {
            head.put_path(target);
            Ok(false)
        }
        b"*" if head.method() == Method::Options => {
            head.put_path(target);
            Ok(false)
        }
        b"*" => Err(H1Error::TargetFormMismatch),
        _ => store_absolute(target, head).map(|()| true),
    }
}

fn store_absolute(target: &[u8], head: &mut RequestHead) -> Result<(), H1Error> {
    let colon = memchr::memchr(b':', target).ok_or(H1Error::BadTarget)?;
    let (scheme, rest) = target.split_at(colon);
    let scheme = Scheme::from_bytes(scheme).ok_or(H1Error::BadTarget)?;
    let rest = rest.strip_prefix(b"://").ok_or(H1Error::BadTarget)?;
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !syntax::is_authority(authority) {
        return Err(H1Error::BadTarget);
    }
    head.set_scheme(scheme);
    head.put_authority(authority);
    match path {
        [b'/', ..] => head.put_path(path),
        // RFC 9112 §3.2.4: the last proxy turns it into the asterisk form.
        [] if head.method() == Method::Options => head.put_path(b"*"),
        query => head.put_root_path(query),
    }
    Ok(())
}
