//! Writing heads and chunk framing.
//!
//! `content-length`, `transfer-encoding` and `connection` are written from what the caller decided,
//! never copied from the message that came in.

use super::{BodyLength, chunk};
use crate::field::{FieldBlock, Known};
use crate::head::{Method, RequestHead, ResponseHead};
use crate::syntax;

/// What the `connection` field of a message we write says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionHeader {
    /// Nothing: HTTP/1.1 keeps the connection.
    #[default]
    None,
    /// `keep-alive`, for an HTTP/1.0 peer that asked for it.
    KeepAlive,
    /// `close`.
    Close,
    /// `upgrade`, and the `upgrade` field of the head is sent along.
    Upgrade,
}

/// What follows the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Fields of a head that are never copied.
const OURS: u128 = Known::ContentLength.bit()
    | Known::TransferEncoding.bit()
    | Known::Connection.bit()
    | Known::KeepAlive.bit()
    | Known::ProxyConnection.bit()
    | Known::Http2Settings.bit();

/// Writes a request head to the end of `out`.
///
/// A method that usually has content says `content-length: 0` when it has none (RFC 9110 §8.6).
/// [`BodyLength::UntilClose`] does not exist for requests and is written as chunked.
pub fn encode_request(head: &RequestHead, body: BodyLength, connection: ConnectionHeader, out: &mut Vec<u8>) {
    let target = match head.method() {
        Method::Connect => head.authority(),
        _ if head.path().is_empty() => b"/",
        _ => head.path(),
    };
    out.reserve(head.fields.arena_len() + head.authority().len() + target.len() + 160);
    out.extend_from_slice(head.method_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(head.authority());
    out.extend_from_slice(b"\r\n");
    write_fields(&head.fields, connection, Known::Host.bit(), out);
    match body {
        BodyLength::None if head.method().expects_body() => out.extend_from_slice(b"content-length: 0\r\n"),
        BodyLength::None => {}
        BodyLength::Length(length) => write_length(length, out),
        BodyLength::Chunked | BodyLength::UntilClose => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n")
        }
    }
    write_connection(connection, head.fields.contains_known(Known::Te), out);
}

/// Writes a response head to the end of `out`.
///
/// [`BodyLength::None`] is for responses that cannot have a body (to HEAD, 1xx, 204, 304); the length a
/// HEAD or 304 response declares for the content it stands for is kept. An empty body of any other
/// response is `Length(0)`. [`BodyLength::UntilClose`] implies `connection: close`.
pub fn encode_response(
    head: &ResponseHead,
    body: BodyLength,
    connection: ConnectionHeader,
    out: &mut Vec<u8>,
) {
    out.reserve(head.fields.arena_len() + 160);
    write_status_line(head.status, out);
    write_fields(&head.fields, connection, 0, out);
    let may_declare = head.status >= 200 && head.status != 204;
    match body {
        BodyLength::None => {
            let declared = head.fields.get_known(Known::ContentLength).and_then(syntax::decimal);
            if let Some(length) = declared.filter(|_| may_declare) {
                write_length(length, out);
            }
        }
        BodyLength::Length(length) if may_declare => write_length(length, out),
        BodyLength::Chunked if may_declare => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        BodyLength::Length(_) | BodyLength::Chunked | BodyLength::UntilClose => {}
    }
    let connection = match (body, connection) {
        (_, ConnectionHeader::Upgrade) => ConnectionHeader::Upgrade,
        (BodyLength::UntilClose, _) => ConnectionHeader::Close,
        _ => connection,
    };
    write_connection(connection, false, out);
}

/// Writes the line before a chunk's data. `len` must not be 0: that would end the body.
pub fn encode_chunk_head(len: usize, out: &mut Vec<u8>) {
    debug_assert!(len > 0, "a chunk of no bytes ends the body");
    let mut digits = [0u8; 16];
    let mut rest = len;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef".get(rest & 15).copied().unwrap_or(b'0');
        used += 1;
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(16 - used..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk and the trailer section. Fields that may not be trailers are left out.
pub fn encode_last_chunk(trailers: Option<&FieldBlock>, out: &mut Vec<u8>) {
    let Some(trailers) = trailers else { return out.extend_from_slice(LAST_CHUNK) };
    out.extend_from_slice(b"0\r\n");
    let forbidden =
        Known::all().filter(|known| chunk::is_forbidden(*known)).fold(0, |set, known| set | known.bit());
    trailers.write_except(forbidden, out);
    out.extend_from_slice(b"\r\n");
}

fn write_fields(fields: &FieldBlock, connection: ConnectionHeader, also_skip: u128, out: &mut Vec<u8>) {
    let upgrade = if connection == ConnectionHeader::Upgrade { 0 } else { Known::Upgrade.bit() };
    fields.write_except(OURS | upgrade | also_skip, out);
}

/// Writes the `connection` field and the blank line. `te` travels only with its name in
/// `connection` (RFC 9110 §10.1.4).
fn write_connection(connection: ConnectionHeader, has_te: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(match (connection, has_te) {
        (ConnectionHeader::None, false) => b"\r\n",
        (ConnectionHeader::None, true) => b"connection: te\r\n\r\n",
        (ConnectionHeader::KeepAlive, false) => b"connection: keep-alive\r\n\r\n",
        (ConnectionHeader::KeepAlive, true) => b"connection: keep-alive, te\r\n\r\n",
        (ConnectionHeader::Close, false) => b"connection: close\r\n\r\n",
        (ConnectionHeader::Close, true) => b"connection: close, te\r\n\r\n",
        (ConnectionHeader::Upgrade, false) => b"connection: upgrade\r\n\r\n",
        (ConnectionHeader::Upgrade, true) => b"connection: upgrade, te\r\n\r\n",
    });
}

fn write_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    let mut digits = [0u8; 20];
    let mut rest = length;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        used += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - used..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

fn write_status_line(status: u16, out: &mut Vec<u8>) {
    if status == 200 {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    // A status outside three digits cannot be written; it can only be a defect of ours.
    let status = if (100..=999).contains(&status) { status } else { 500 };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[
        b'0' + (status / 100) as u8,
        b'0' + (status / 10 % 10) as u8,
        b'0' + (status % 10) as u8,
    ]);
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The registered reason phrase; empty for a code without one.
#[must_use]
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}
