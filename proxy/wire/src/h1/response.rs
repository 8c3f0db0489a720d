//! Reading a response head.

use httparse::{Header, ParserConfig, Response, Status};

use super::framing::keeps_alive;
use super::plain::{self, Plain};
use super::token::{self, FramingFields};
use super::{BodyLength, H1Error, Limits, Parsed, ResponseFraming};
use crate::head::{Method, ResponseHead};

/// Reads the response head at the start of `buffer` into `head`, which is cleared first.
///
/// `method` is that of the request answered: it decides whether there can be a body (RFC 9112 §6.3).
///
/// # Errors
/// The first thing found wrong, or a limit passed; the connection cannot be used again.
pub fn parse_response(
    buffer: &[u8],
    method: Method,
    limits: &Limits,
    head: &mut ResponseHead,
) -> Result<Parsed<ResponseFraming>, H1Error> {
    head.clear();
    if matches!(buffer, [b'\r' | b'\n', ..]) {
        return Err(H1Error::BadLineEnd);
    }
    let window = token::within_limit(buffer, limits);
    if let Some(parsed) = plain_response(window, method, limits, head) {
        return parsed;
    }
    head.clear();
    tokenised(window, method, limits, head)
}

/// A head that is plain; see [`plain`].
fn plain_response(
    window: &[u8],
    method: Method,
    limits: &Limits,
    head: &mut ResponseHead,
) -> Option<Result<Parsed<ResponseFraming>, H1Error>> {
    let Plain { start_line, framing, consumed } =
        plain::read(window, false, limits.max_fields, &mut head.fields)?;
    head.status = plain::status_line(start_line)?;
    let judged = judge(framing, method, false, head);
    Some(judged.map(|framing| Parsed::Complete { consumed, framing }))
}

/// Any head.
pub(super) fn tokenised(
    window: &[u8],
    method: Method,
    limits: &Limits,
    head: &mut ResponseHead,
) -> Result<Parsed<ResponseFraming>, H1Error> {
    let mut room = token::inline_room();
    let mut response = Response::new(&mut []);
    let status = ParserConfig::default().parse_response_with_uninit_headers(&mut response, window, &mut room);
    match status {
        Err(httparse::Error::TooManyHeaders) if limits.max_fields > token::FIELDS_INLINE => {
            let mut room = vec![httparse::EMPTY_HEADER; limits.max_fields];
            let mut response = Response::new(&mut room);
            let status = response.parse(window);
            store(status, &response, window, method, limits, head)
        }
        status => store(status, &response, window, method, limits, head),
    }
}

fn store<'a>(
    status: httparse::Result<usize>,
    response: &Response<'_, 'a>,
    window: &'a [u8],
    method: Method,
    limits: &Limits,
    head: &mut ResponseHead,
) -> Result<Parsed<ResponseFraming>, H1Error> {
    let consumed = match status {
        Ok(Status::Complete(consumed)) => consumed,
        Ok(Status::Partial) => {
            return token::over_limit(window, limits)
                .map_or(Ok(Parsed::Partial), |_| Err(H1Error::HeadTooLarge));
        }
        Err(error) => return Err(H1Error::from_tokeniser(error)),
    };
    let (Some(code), Some(minor)) = (response.code, response.version) else {
        return Err(H1Error::BadStartLine);
    };
    if !(100..=999).contains(&code) {
        return Err(H1Error::BadStatus);
    }
    if response.headers.len() > limits.max_fields {
        return Err(H1Error::TooManyFields);
    }
    head.status = code;
    let bytes = window.get(..consumed).unwrap_or_default();
    let framing = store_fields(bytes, method, minor == 0, response.headers, head)?;
    Ok(Parsed::Complete { consumed, framing })
}

fn store_fields<'a>(
    bytes: &'a [u8],
    method: Method,
    http10: bool,
    tokens: &[Header<'a>],
    head: &mut ResponseHead,
) -> Result<ResponseFraming, H1Error> {
    let framing = FramingFields::collect(bytes, tokens, false, &mut head.fields)?;
    judge(framing, method, http10, head)
}

/// What the stored fields and the request mean for the framing of a response.
fn judge(
    framing: FramingFields<'_>,
    method: Method,
    http10: bool,
    head: &ResponseHead,
) -> Result<ResponseFraming, H1Error> {
    if framing.is_chunked && http10 {
        return Err(H1Error::TransferEncodingNotAllowed);
    }
    let status = head.status;
    let informational = (100..200).contains(&status);
    let switching = status == 101 || (method == Method::Connect && (200..300).contains(&status));
    if informational || status == 204 || switching {
        // RFC 9112 §6.1 and RFC 9110 §8.6: a sender that frames content here disagrees with every
        // reader about where the message ends. `content-length: 0` is common and harmless.
        if framing.is_chunked && !(switching && status != 101) {
            return Err(H1Error::TransferEncodingNotAllowed);
        }
        if framing.content_length.is_some_and(|length| length != 0) && !(switching && status != 101) {
            return Err(H1Error::ContentNotAllowed);
        }
    }
    let body = if informational || switching || method == Method::Head || matches!(status, 204 | 304) {
        BodyLength::None
    } else if framing.is_chunked {
        BodyLength::Chunked
    } else {
        framing.content_length.map_or(BodyLength::UntilClose, BodyLength::Length)
    };
    let keep_alive = !switching && body != BodyLength::UntilClose && keeps_alive(&head.fields, http10);
    Ok(ResponseFraming { body, keep_alive, informational: informational && !switching, switching })
}
