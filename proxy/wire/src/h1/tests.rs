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
