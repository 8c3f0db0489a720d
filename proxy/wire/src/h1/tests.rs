//! Behaviour of the public interface that needs no table of its own; see `tests/` for the tables.

use super::*;
use crate::{RequestHead, ResponseHead};

#[test]
fn smoke_request_parse_and_encode() {
    let mut head = RequestHead::default();
    let text = b"GET /a?b HTTP/1.1\r\nHost: h\r\nX-A:  1 \r\n\r\nrest";
    let parsed = parse_request(text, &Limits::default(), &mut head).unwrap();
    assert!(matches!(parsed, Parsed::Complete { consumed, .. } if consumed == text.len() - 4));
    let mut out = Vec::new();
    encode_request(&head, BodyLength::None, ConnectionHeader::None, &mut out);
    assert_eq!(out, b"GET /a?b HTTP/1.1\r\nhost: h\r\nx-a: 1\r\n\r\n");
}

#[test]
fn smoke_response_parse_and_encode() {
    let mut head = ResponseHead::default();
    let text = b"HTTP/1.1 404 nope\r\nContent-Length: 3\r\n\r\nabc";
    let parsed = parse_response(text, crate::Method::Get, &Limits::default(), &mut head).unwrap();
    let Parsed::Complete { framing, .. } = parsed else { panic!("partial") };
    assert_eq!(framing.body, BodyLength::Length(3));
    let mut out = Vec::new();
    encode_response(&head, framing.body, ConnectionHeader::Close, &mut out);
    assert_eq!(out, b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\nconnection: close\r\n\r\n");
}

#[test]
fn field_lines_of_any_shape_are_written_in_one() {
    let mut head = RequestHead::default();
    let text = b"GET / HTTP/1.1\r\nA:1\r\nB:  2\r\nHost: h\r\nC: 3 \t\r\nD:\r\nE: \t\r\nF: 4\r\nConnection: x\r\nG: 5\r\n\r\n";
    assert!(matches!(parse_request(text, &Limits::default(), &mut head), Ok(Parsed::Complete { .. })));
    let mut out = Vec::new();
    encode_request(&head, BodyLength::Length(0), ConnectionHeader::Close, &mut out);
    let expected = "GET / HTTP/1.1\r\nhost: h\r\na: 1\r\nb: 2\r\nc: 3\r\nd: \r\ne: \r\nf: 4\r\ng: 5\r\n\
                    content-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&out), expected);
    // Every line plain but the one whose end differs.
    let text = b"GET / HTTP/1.1\r\nHost: h\r\nA: 1 \r\nB: 2\r\n\r\n";
    assert!(matches!(parse_request(text, &Limits::default(), &mut head), Ok(Parsed::Complete { .. })));
    out.clear();
    encode_request(&head, BodyLength::None, ConnectionHeader::None, &mut out);
    assert_eq!(String::from_utf8_lossy(&out), "GET / HTTP/1.1\r\nhost: h\r\na: 1\r\nb: 2\r\n\r\n");
}

#[test]
fn chunk_heads_are_lower_case_hexadecimal() {
    for (len, expected) in [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (0xdead_beef, "deadbeef\r\n")] {
        let mut out = Vec::new();
        encode_chunk_head(len, &mut out);
        assert_eq!(out, expected.as_bytes());
    }
}

#[test]
fn response_heads_say_only_what_their_status_allows() {
    let written = |status, body, connection, declared: Option<&str>| {
        let mut head = ResponseHead { status, ..ResponseHead::default() };
        if let Some(declared) = declared {
            head.fields.append(b"content-length", declared.as_bytes());
        }
        head.fields.append(b"upgrade", b"websocket");
        let mut out = Vec::new();
        encode_response(&head, body, connection, &mut out);
        String::from_utf8(out).unwrap().split_once("\r\n").unwrap().1.to_owned()
    };
    use BodyLength::{Chunked, Length, None as No, UntilClose};
    for (status, body, connection, declared, expected) in [
        (200, Length(5), ConnectionHeader::None, Some("9"), "content-length: 5\r\n\r\n"),
        (200, No, ConnectionHeader::None, Some("9"), "content-length: 9\r\n\r\n"),
        (200, No, ConnectionHeader::None, Some("9, 9"), "\r\n"),
        (304, No, ConnectionHeader::None, Some("9"), "content-length: 9\r\n\r\n"),
        (204, No, ConnectionHeader::None, Some("9"), "\r\n"),
        (204, Length(0), ConnectionHeader::None, None, "\r\n"),
        (103, Chunked, ConnectionHeader::None, None, "\r\n"),
        (
            200,
            Chunked,
            ConnectionHeader::Close,
            Some("9"),
            "transfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        ),
        (200, UntilClose, ConnectionHeader::KeepAlive, None, "connection: close\r\n\r\n"),
        (
            200,
            Length(0),
            ConnectionHeader::KeepAlive,
            None,
            "content-length: 0\r\nconnection: keep-alive\r\n\r\n",
        ),
        (101, No, ConnectionHeader::Upgrade, None, "upgrade: websocket\r\nconnection: upgrade\r\n\r\n"),
    ] {
        assert_eq!(written(status, body, connection, declared), expected, "{status} {body:?} {connection:?}");
    }
}
