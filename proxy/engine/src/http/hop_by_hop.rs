//! Fields that concern one connection end with it (RFC 9110 §7.6.1).

use outrigger_wire::{FieldBlock, Known, KnownSet, RequestHead, ResponseHead, syntax};
use smallvec::SmallVec;

/// Most fields `connection` may nominate; real messages nominate one or two.
pub const NOMINATED_MAX: usize = 32;

/// `connection` nominated more than [`NOMINATED_MAX`] fields; the message is refused (400, or 502).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NominatedTooMany;

/// Removes the fields of a request that must not be forwarded.
///
/// `upgrade` stays when `upgrading`; `te` stays, as `trailers`, when it said so, because gRPC asks for it
/// end to end. `content-length` stays for filters and for HTTP/2; HTTP/1.1 framing is written anew.
///
/// # Errors
/// [`NominatedTooMany`]; the head is then half done and must not be used.
pub fn strip_request(head: &mut RequestHead, upgrading: bool) -> Result<(), NominatedTooMany> {
    let fields = &mut head.fields;
    if only_te_trailers(fields) {
        return Ok(());
    }
    if fields.contains_known(Known::Te) && fields.has_token(Known::Te, b"trailers") {
        strip(fields, upgrading)?;
        fields.put(Known::Te, b"trailers");
        return Ok(());
    }
    strip(fields, upgrading)
}

/// Whether `te: trailers`, as gRPC writes it, is all that could have to go.
fn only_te_trailers(fields: &FieldBlock) -> bool {
    const OTHERS: KnownSet = KnownSet::of(&[
        Known::Connection,
        Known::KeepAlive,
        Known::ProxyConnection,
        Known::TransferEncoding,
        Known::Http2Settings,
        Known::Upgrade,
    ]);
    if fields.may_have(OTHERS) {
        return false;
    }
    let mut values = fields.get_all_known(Known::Te);
    values.next() == Some(b"trailers") && values.next().is_none()
}

/// Removes the fields of a response that must not be forwarded; `upgrade` stays when `switching`.
///
/// # Errors
/// [`NominatedTooMany`]; the head is then half done and must not be used.
pub fn strip_response(head: &mut ResponseHead, switching: bool) -> Result<(), NominatedTooMany> {
    strip(&mut head.fields, switching)
}

fn strip(fields: &mut FieldBlock, keep_upgrade: bool) -> Result<(), NominatedTooMany> {
    const ALL: [Known; 7] = [
        Known::Connection,
        Known::KeepAlive,
        Known::ProxyConnection,
        Known::TransferEncoding,
        Known::Te,
        Known::Http2Settings,
        Known::Upgrade,
    ];
    const SET: KnownSet = KnownSet::of(&ALL);
    if !fields.may_have(SET) {
        return Ok(());
    }
    strip_nominated(fields)?;
    for known in ALL.iter().take(6) {
        fields.remove_known(*known);
    }
    if !keep_upgrade {
        fields.remove_known(Known::Upgrade);
    }
    Ok(())
}

fn strip_nominated(fields: &mut FieldBlock) -> Result<(), NominatedTooMany> {
    if !fields.contains_known(Known::Connection) {
        return Ok(());
    }
    let mut nominated: SmallVec<[Vec<u8>; 2]> = SmallVec::new();
    for value in fields.get_all_known(Known::Connection) {
        for member in syntax::list_members(value) {
            if is_option(member) {
                continue;
            }
            if nominated.len() == NOMINATED_MAX {
                return Err(NominatedTooMany);
            }
            nominated.push(member.to_ascii_lowercase());
        }
    }
    if !nominated.is_empty() {
        fields.retain_known(|known, name, _| {
            is_protected(known) || !nominated.iter().any(|field| field == name)
        });
    }
    Ok(())
}

/// Members of `connection` that name no field to remove, or one that is removed anyway.
fn is_option(member: &[u8]) -> bool {
    const OPTIONS: [&[u8]; 6] =
        [b"close", b"keep-alive", b"upgrade", b"te", b"transfer-encoding", b"http2-settings"];
    OPTIONS.iter().any(|option| member.eq_ignore_ascii_case(option))
}

/// Fields a client may not make us drop by nominating them: those that say who it is and how the message
/// is read. They are end-to-end, so nominating them is never right (RFC 9110 §7.6.1).
const fn is_protected(known: Known) -> bool {
    matches!(
        known,
        Known::Authorization
            | Known::ContentLength
            | Known::ContentType
            | Known::Cookie
            | Known::Forwarded
            | Known::Via
            | Known::XEnvoyExternalAddress
            | Known::XForwardedClientCert
            | Known::XForwardedFor
            | Known::XForwardedHost
            | Known::XForwardedPort
            | Known::XForwardedProto
            | Known::XRequestId
            | Known::Upgrade
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::default();
        for (name, value) in fields {
            assert!(head.fields.append(name.as_bytes(), value.as_bytes()));
        }
        head
    }

    fn names(fields: &FieldBlock) -> Vec<String> {
        fields
            .iter()
            .map(|(n, v)| format!("{}={}", String::from_utf8_lossy(n), String::from_utf8_lossy(v)))
            .collect()
    }

    #[test]
    fn fixed_and_nominated_fields_removed() {
        let mut head = request(&[
            ("a", "1"),
            ("Connection", "close, X-Mine , x-other"),
            ("connection", "X-Third"),
            ("x-mine", "1"),
            ("X-OTHER", "2"),
            ("x-third", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("te", "gzip"),
            ("content-length", "1"),
        ]);
        assert_eq!(strip_request(&mut head, false), Ok(()));
        assert_eq!(names(&head.fields), ["a=1", "content-length=1"]);
    }

    #[test]
    fn te_trailers_and_a_wanted_upgrade_stay() {
        let mut head = request(&[
            ("te", "gzip;q=0.5, Trailers"),
            ("connection", "upgrade, te"),
            ("upgrade", "websocket"),
        ]);
        assert_eq!(strip_request(&mut head, true), Ok(()));
        assert_eq!(names(&head.fields), ["upgrade=websocket", "te=trailers"]);
        let mut response = ResponseHead { status: 101, fields: head.fields.clone() };
        assert_eq!(strip_response(&mut response, true), Ok(()));
        assert_eq!(names(&response.fields), ["upgrade=websocket"]);
        assert_eq!(strip_response(&mut response, false), Ok(()));
        assert!(response.fields.is_empty());
    }

    #[test]
    fn identity_fields_survive_nomination() {
        let mut head = request(&[
            (
                "connection",
                "close, X-Forwarded-For, x-forwarded-client-cert, content-length, authorization, host",
            ),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-client-cert", "By=x"),
            ("content-length", "3"),
            ("authorization", "b"),
        ]);
        assert_eq!(strip_request(&mut head, false), Ok(()));
        assert_eq!(head.fields.len(), 4);
    }

    #[test]
    fn nominations_at_limit_accepted_and_one_past_refused() {
        let list = |count: usize| (0..count).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(strip_request(&mut request(&[("connection", &list(NOMINATED_MAX))]), false), Ok(()));
        let mut head = request(&[("connection", &list(NOMINATED_MAX + 1))]);
        assert_eq!(strip_request(&mut head, false), Err(NominatedTooMany));
    }
}
