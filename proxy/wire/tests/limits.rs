//! Every limit at its value and one past it.

use outrigger_wire::h1::{
    BodyStep, ChunkDecoder, H1Error, Limits, Parsed, ends_head, parse_request, parse_response,
};
use outrigger_wire::{Method, RequestHead, ResponseHead};

fn head_of(bytes: usize) -> Vec<u8> {
    let start = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
    format!("{start}{}\r\n\r\n", "a".repeat(bytes - start.len() - 4)).into_bytes()
}

fn fields(count: usize) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(count - 1)).into_bytes()
}

#[test]
fn head_bytes_at_limit_accepted_and_one_past_refused() {
    let limits = Limits::default();
    let mut head = RequestHead::default();
    let text = head_of(limits.max_head_bytes);
    assert!(matches!(parse_request(&text, &limits, &mut head), Ok(Parsed::Complete { .. })));
    let text = head_of(limits.max_head_bytes + 1);
    assert_eq!(parse_request(&text, &limits, &mut head), Err(H1Error::HeadTooLarge));
    // Incomplete: the error comes as soon as it cannot complete within the limit.
    assert_eq!(parse_request(&text[..limits.max_head_bytes - 1], &limits, &mut head), Ok(Parsed::Partial));
    assert_eq!(parse_request(&text[..limits.max_head_bytes], &limits, &mut head), Err(H1Error::HeadTooLarge));
    let target = format!("GET /{}", "a".repeat(limits.max_head_bytes)).into_bytes();
    assert_eq!(parse_request(&target, &limits, &mut head), Err(H1Error::UriTooLong));
    // A body behind the head does not count.
    let with_body = [&head_of(200)[..], &[b'x'; 100_000]].concat();
    assert!(matches!(
        parse_request(&with_body, &limits, &mut head),
        Ok(Parsed::Complete { consumed: 200, .. })
    ));
}

#[test]
fn fields_at_limit_accepted_and_one_past_refused() {
    for max_fields in [100, 128, 129, 300] {
        let limits = Limits { max_fields, ..Limits::default() };
        let mut head = RequestHead::default();
        assert!(matches!(
            parse_request(&fields(max_fields), &limits, &mut head),
            Ok(Parsed::Complete { .. })
        ));
        assert_eq!(head.fields.len(), max_fields - 1);
        assert_eq!(parse_request(&fields(max_fields + 1), &limits, &mut head), Err(H1Error::TooManyFields));
        let mut response = ResponseHead::default();
        for (count, accepted) in [(max_fields, true), (max_fields + 1, false)] {
            let text = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(count));
            let parsed = parse_response(text.as_bytes(), Method::Get, &limits, &mut response);
            assert_eq!(parsed.is_ok(), accepted, "{parsed:?}");
        }
    }
}

fn chunked(text: &[u8], limits: &Limits) -> Result<(), H1Error> {
    let mut decoder = ChunkDecoder::default();
    let mut rest = text;
    loop {
        match decoder.step(rest, limits)? {
            BodyStep::Data { skip, len } => rest = &rest[skip + len..],
            BodyStep::NeedMore { .. } => panic!("incomplete"),
            BodyStep::End { .. } => return Ok(()),
        }
    }
}

#[test]
fn chunk_extension_at_limit_accepted_and_one_past_refused() {
    let limits = Limits::default();
    let body = |extension: usize| format!("5{:a<extension$}\r\nhello\r\n0\r\n\r\n", ";").into_bytes();
    assert_eq!(chunked(&body(limits.max_chunk_extension_bytes), &limits), Ok(()));
    assert_eq!(
        chunked(&body(limits.max_chunk_extension_bytes + 1), &limits),
        Err(H1Error::ChunkExtensionTooLarge)
    );
}

#[test]
fn chunk_extensions_of_a_body_limited_by_what_its_data_earns() {
    let limits = Limits::default();
    // 26 bytes of extension on each 1-byte chunk: 8 beyond what the chunk earns (16 + 2 × 1).
    let chunk = format!("1{:a<26}\r\nx\r\n", ";");
    let most = limits.max_chunk_extension_bytes / 8;
    assert_eq!(chunked(format!("{}0\r\n\r\n", chunk.repeat(most)).as_bytes(), &limits), Ok(()));
    let over = format!("{}0\r\n\r\n", chunk.repeat(most + 1));
    assert_eq!(chunked(over.as_bytes(), &limits), Err(H1Error::ChunkExtensionTooLarge));
    // Signed chunks as object stores send them: 85 bytes on 1 KiB, for as long as they like.
    let signed = format!("400{:a<85}\r\n{}\r\n", ";", "x".repeat(1024));
    assert_eq!(chunked(format!("{}0\r\n\r\n", signed.repeat(2000)).as_bytes(), &limits), Ok(()));
}

#[test]
fn trailers_at_limits_accepted_and_one_past_refused() {
    let limits = Limits { max_trailer_bytes: 100, max_trailer_fields: 3, ..Limits::default() };
    let one = |bytes: usize| format!("0\r\nx: {}\r\n\r\n", "a".repeat(bytes - 5));
    assert_eq!(chunked(one(100).as_bytes(), &limits), Ok(()));
    assert_eq!(chunked(one(101).as_bytes(), &limits), Err(H1Error::TrailersTooLarge));
    let many = |count| format!("0\r\n{}\r\n", "x: a\r\n".repeat(count));
    assert_eq!(chunked(many(3).as_bytes(), &limits), Ok(()));
    assert_eq!(chunked(many(4).as_bytes(), &limits), Err(H1Error::TrailersTooLarge));
}

#[test]
fn chunk_sizes_at_limit_accepted_and_one_past_refused() {
    let first = |text: &str| ChunkDecoder::default().step(text.as_bytes(), &Limits::default());
    assert_eq!(first("0000000000000005\r\nab"), Ok(BodyStep::Data { skip: 18, len: 2 }));
    assert_eq!(first("00000000000000005\r\nab"), Err(H1Error::BadChunkSize));
    assert_eq!(first("7fffffffffffffff\r\nab"), Ok(BodyStep::Data { skip: 18, len: 2 }));
    assert_eq!(first("8000000000000000\r\nab"), Err(H1Error::BadChunkSize));
    assert_eq!(first("ffffffffffffffff\r\nab"), Err(H1Error::BadChunkSize));
    assert_eq!(first("10000000000000005\r\nab"), Err(H1Error::BadChunkSize));
}

#[test]
fn ends_head_never_misses_the_byte_that_completes_a_head() {
    for text in [&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..], b"\r\nGET / HTTP/1.0\r\n\r\n"] {
        for seen in 0..text.len() {
            assert!(ends_head(text, seen), "{seen}");
            assert!(!ends_head(&text[..text.len() - 1], seen), "{seen}");
        }
    }
    // Bare line ends may complete it too: the parser must see them to refuse them.
    assert!(ends_head(b"GET / HTTP/1.1\nHost: h\n\n", 0) && ends_head(b"a\n\r\n", 3));
}
