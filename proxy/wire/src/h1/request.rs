//! Reading a request head.

use httparse::{Header, ParserConfig, Request, Status};

use super::framing::keeps_alive;
use super::plain::{self, Plain};
use super::target::store_target;
use super::token::{self, FramingFields};
use super::{BodyLength, H1Error, Limits, Parsed, RequestFraming};
use crate::field::Known;
use crate::head::{Method, RequestHead, Version};
use crate::syntax;

/// Reads the request head at the start of `buffer` into `head`, which is cleared first.
///
/// One empty line before the request is skipped (RFC 9112 §2.2). Everything two readers might
/// understand differently is refused; the table in `tests/smuggling.rs` lists the families.
///
/// # Errors
/// The first thing found wrong; see [`H1Error::status`] for the answer it deserves. A head that is
/// incomplete and already as large as the limit is an error as well.
pub fn parse_request(
    buffer: &[u8],
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Parsed<RequestFraming>, H1Error> {
    head.clear();
    let (skipped, input) = match buffer {
        [] | [b'\r'] => return Ok(Parsed::Partial),
        [b'\r', b'\n', rest @ ..] => (2, rest),
        _ => (0, buffer),
    };
    if matches!(input, [b'\r' | b'\n', ..]) {
        return Err(H1Error::BadLineEnd);
    }
    let window = token::within_limit(input, limits);
    if let Some(parsed) = plain_request(window, skipped, limits, head) {
        return parsed;
    }
    head.clear();
    tokenised(window, skipped, limits, head)
}

/// A head that is plain; see [`plain`].
fn plain_request(
    window: &[u8],
    skipped: usize,
    limits: &Limits,
    head: &mut RequestHead,
) -> Option<Result<Parsed<RequestFraming>, H1Error>> {
    let Plain { start_line, framing, consumed } =
        plain::read(window, true, limits.max_fields, &mut head.fields)?;
    let (method, target, http10) = plain::request_line(start_line)?;
    head.put_method(method);
    head.set_version(if http10 { Version::Http10 } else { Version::Http11 });
    let target_names_authority = store_target(target, head).ok()?;
    let judged = judge(framing, target_names_authority, head);
    Some(judged.map(|framing| Parsed::Complete { consumed: consumed + skipped, framing }))
}

/// Any head.
pub(super) fn tokenised(
    window: &[u8],
    skipped: usize,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Parsed<RequestFraming>, H1Error> {
    let mut room = token::inline_room();
    let mut request = Request::new(&mut []);
    let status = ParserConfig::default().parse_request_with_uninit_headers(&mut request, window, &mut room);
    let parsed = match status {
        Err(httparse::Error::TooManyHeaders) if limits.max_fields > token::FIELDS_INLINE => {
            let mut room = vec![httparse::EMPTY_HEADER; limits.max_fields];
            let mut request = Request::new(&mut room);
            let status = request.parse(window);
            store(status, &request, window, limits, head)
        }
        status => store(status, &request, window, limits, head),
    };
    match parsed? {
        Parsed::Complete { consumed, framing } => {
            Ok(Parsed::Complete { consumed: consumed + skipped, framing })
        }
        Parsed::Partial => Ok(Parsed::Partial),
    }
}

fn store<'a>(
    status: httparse::Result<usize>,
    request: &Request<'_, 'a>,
    window: &'a [u8],
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Parsed<RequestFraming>, H1Error> {
    let consumed = match status {
        Ok(Status::Complete(consumed)) => consumed,
        Ok(Status::Partial) => return token::over_limit(window, limits).map_or(Ok(Parsed::Partial), Err),
        Err(error) => return Err(H1Error::from_tokeniser(error)),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(H1Error::BadStartLine);
    };
    if request.headers.len() > limits.max_fields {
        return Err(H1Error::TooManyFields);
    }
    head.put_method(method.as_bytes());
    head.set_version(if minor == 0 { Version::Http10 } else { Version::Http11 });
    let bytes = window.get(..consumed).unwrap_or_default();
    let framing = store_fields(bytes, target.as_bytes(), request.headers, head)?;
    Ok(Parsed::Complete { consumed, framing })
}

fn store_fields<'a>(
    bytes: &'a [u8],
    target: &[u8],
    tokens: &[Header<'a>],
    head: &mut RequestHead,
) -> Result<RequestFraming, H1Error> {
    let target_names_authority = store_target(target, head)?;
    let framing = FramingFields::collect(bytes, tokens, true, &mut head.fields)?;
    judge(framing, target_names_authority, head)
}

/// What the stored fields mean for the framing of a request.
fn judge(
    framing: FramingFields<'_>,
    target_names_authority: bool,
    head: &mut RequestHead,
) -> Result<RequestFraming, H1Error> {
    let http10 = head.version() == Version::Http10;
    match framing.host {
        // Checked even where the target's authority wins: an invalid `host` is an error of its own.
        Some(host) if !syntax::is_authority(host) => return Err(H1Error::BadHost),
        Some(host) if !target_names_authority => head.put_authority(host),
        Some(_) => {}
        None if http10 => {}
        None => return Err(H1Error::MissingHost),
    }
    if framing.is_chunked && http10 {
        // RFC 9112 §6.1: a 1.0 sender cannot mean it, so the framing is faulty.
        return Err(H1Error::TransferEncodingNotAllowed);
    }
    let body = match framing.content_length {
        _ if framing.is_chunked => BodyLength::Chunked,
        Some(length) => BodyLength::Length(length),
        None => BodyLength::None,
    };
    if head.method() == Method::Connect && !body.is_empty() {
        // RFC 9110 §9.3.6: content of CONNECT has no meaning; what follows could be read as the tunnel.
        return Err(H1Error::ContentNotAllowed);
    }
    let expect_continue = !http10
        && !body.is_empty()
        && head
            .fields
            .get_known(Known::Expect)
            .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    let upgrade = !http10
        && head.fields.contains_known(Known::Upgrade)
        && head.fields.has_token(Known::Connection, b"upgrade");
    Ok(RequestFraming {
        body,
        keep_alive: keeps_alive(&head.fields, http10),
        expect_continue,
        upgrade,
        http10,
    })
}
