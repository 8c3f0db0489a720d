//! Properties: what is written is read back; where the input is split makes no difference; the chunk
//! decoder agrees with a slow one; no input makes a parser panic.

mod oracle;

use outrigger_wire::h1::{
    BodyLength, CHUNK_END, ConnectionHeader, H1Error, Limits, Parsed, encode_chunk_head, encode_last_chunk,
    encode_request, encode_response, parse_request, parse_response,
};
use outrigger_wire::{FieldBlock, Known, Method, RequestHead, ResponseHead};
use proptest::prelude::*;

use oracle::{Oracle, decode_split, oracle};

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => "[a-z!#$%&'*+.^_`|~0-9-]{1,12}".prop_map(String::into_bytes),
        1 => prop::sample::select(vec!["via", "cookie", "te", "upgrade", "x-request-id", "accept", "content-type"])
            .prop_map(|name| name.as_bytes().to_vec()),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(b' '), Just(b'\t'), 0x21u8..0x7f, 0x80u8..=0xff], 0..40)
}

fn block() -> impl Strategy<Value = FieldBlock> {
    prop::collection::vec((name(), value()), 0..12).prop_map(|fields| {
        let mut block = FieldBlock::default();
        for (name, value) in fields {
            block.append(&name, &value);
        }
        block
    })
}

fn request() -> impl Strategy<Value = RequestHead> {
    let authority = prop_oneof!["[a-z0-9.-]{1,20}", "[a-z]{1,8}:[0-9]{1,4}", Just("[::1]:80".to_owned())];
    ("(GET|HEAD|POST|PUT|DELETE|PATCH|PURGE|x)", authority, "/[a-zA-Z0-9/%?&=._~|{}-]{0,60}", block())
        .prop_map(|(method, authority, path, fields)| {
            let mut head = RequestHead::default();
            assert!(head.set_method(method.as_bytes()) && head.set_authority(authority.as_bytes()));
            assert!(head.set_path(path.as_bytes()));
            head.fields = fields;
            head
        })
}

fn body_length() -> impl Strategy<Value = BodyLength> {
    prop_oneof![
        Just(BodyLength::None),
        (0..=i64::MAX as u64).prop_map(BodyLength::Length),
        Just(BodyLength::Chunked)
    ]
}

fn connection() -> impl Strategy<Value = ConnectionHeader> {
    prop::sample::select(vec![
        ConnectionHeader::None,
        ConnectionHeader::KeepAlive,
        ConnectionHeader::Close,
        ConnectionHeader::Upgrade,
    ])
}

/// The fields a message carries besides those the encoder decides on.
fn carried(fields: &FieldBlock) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rest = FieldBlock::default();
    rest.clone_from(fields);
    rest.retain_known(|known, _, _| {
        !matches!(known, Known::Connection | Known::ContentLength | Known::TransferEncoding | Known::Upgrade)
    });
    rest.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn request_written_is_read_back(head in request(), body in body_length(), connection in connection()) {
        let mut out = b"before".to_vec();
        encode_request(&head, body, connection, &mut out);
        let written = &out[6..];
        let mut read = RequestHead::default();
        let parsed = parse_request(written, &Limits::default(), &mut read).unwrap();
        let Parsed::Complete { consumed, framing } = parsed else { panic!("partial") };
        prop_assert_eq!(consumed, written.len());
        prop_assert_eq!(read.method_bytes(), head.method_bytes());
        prop_assert_eq!(read.authority(), head.authority());
        prop_assert_eq!(read.path(), head.path());
        prop_assert_eq!(carried(&read.fields), carried(&head.fields));
        let expected = if body == BodyLength::None && head.method().expects_body() { BodyLength::Length(0) } else { body };
        prop_assert_eq!(framing.body, expected);
        prop_assert_eq!(framing.keep_alive, connection != ConnectionHeader::Close);
        let upgrades = connection == ConnectionHeader::Upgrade && head.fields.contains_known(Known::Upgrade);
        prop_assert_eq!(framing.upgrade, upgrades);
    }

    #[test]
    fn response_written_is_read_back(
        status in 200u16..600, fields in block(), body in body_length(), connection in connection(),
    ) {
        let head = ResponseHead { status, fields };
        let body = if matches!(status, 204 | 304) { BodyLength::None } else { body };
        let method = if body == BodyLength::None { Method::Head } else { Method::Get };
        let mut out = Vec::new();
        encode_response(&head, body, connection, &mut out);
        let mut read = ResponseHead::default();
        let parsed = parse_response(&out, method, &Limits::default(), &mut read).unwrap();
        let Parsed::Complete { consumed, framing } = parsed else { panic!("partial") };
        prop_assert_eq!((consumed, read.status, framing.body), (out.len(), status, body));
        prop_assert_eq!(carried(&read.fields), carried(&head.fields));
    }

    #[test]
    fn split_of_a_head_makes_no_difference(head in request(), body in body_length()) {
        let mut out = Vec::new();
        encode_request(&head, body, ConnectionHeader::None, &mut out);
        let (mut whole, mut part) = (RequestHead::default(), RequestHead::default());
        let parsed = parse_request(&out, &Limits::default(), &mut whole).unwrap();
        for end in 0..out.len() {
            prop_assert_eq!(parse_request(&out[..end], &Limits::default(), &mut part), Ok(Parsed::Partial), "{}", end);
        }
        out.extend_from_slice(b"next");
        prop_assert_eq!(parse_request(&out, &Limits::default(), &mut part), Ok(parsed));
        prop_assert_eq!(part, whole);
    }

    #[test]
    fn chunked_body_written_is_read_back_however_split(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
        trailers in prop::option::of(block()),
        splits in prop::collection::vec(1usize..50, 1..20),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            encode_chunk_head(chunk.len(), &mut wire);
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(CHUNK_END);
        }
        let mut trailers = trailers;
        if let Some(trailers) = &mut trailers {
            trailers.retain_known(|known, _, _| !known.is_hop_by_hop());
        }
        encode_last_chunk(trailers.as_ref(), &mut wire);
        wire.extend_from_slice(b"next");
        let read = decode_split(&wire, &splits).unwrap();
        prop_assert_eq!(&read.body, &chunks.concat());
        prop_assert_eq!(read.rest, b"next");
        let expected = trailers.as_ref().map(|t| t.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect::<Vec<_>>());
        prop_assert_eq!(read.trailers, expected.unwrap_or_default());
    }

    #[test]
    fn chunk_decoder_agrees_with_a_slow_one(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "0", "1", "5", "a", "A", "g", "00", "\r\n", "\r", "\n", ";", ";x=y", "\"", " ", "\t", "hello", "h", "x: y",
                "x : y", "content-length: 1", "0\r\n\r\n", "5\r\nhello\r\n", "1\r\nx\r\n", "\0", "\u{7f}", "+", "-", "_",
            ]),
            0..14,
        ),
        splits in prop::collection::vec(1usize..6, 1..20),
    ) {
        let wire = pieces.concat().into_bytes();
        let fast = decode_split(&wire, &splits);
        let once = decode_split(&wire, &[usize::MAX]);
        prop_assert_eq!(&fast, &once, "split");
        match oracle(&wire) {
            Oracle::Complete(expected) => prop_assert_eq!(fast, Ok(expected)),
            Oracle::Incomplete => prop_assert_eq!(fast, Err(H1Error::UnexpectedEof)),
            Oracle::Refused => prop_assert!(!matches!(fast, Ok(_) | Err(H1Error::UnexpectedEof)), "{:?}", fast),
        }
    }

    #[test]
    fn no_input_panics_and_partial_is_monotonic(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::sample::select(vec![
                    "GET ", "POST ", "/", "http://h/", " HTTP/1.1\r\n", " HTTP/1.0\r\n", "Host: h\r\n", "HTTP/1.1 200 OK\r\n",
                    "\r\n", "\r", "\n", ":", " ", "a", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "\0", "\t",
                ]).prop_map(|text| text.as_bytes().to_vec()),
                prop::collection::vec(any::<u8>(), 0..4),
            ],
            0..12,
        ),
    ) {
        let wire = pieces.concat();
        let (mut request, mut response) = (RequestHead::default(), ResponseHead::default());
        let limits = Limits { max_head_bytes: 200, ..Limits::default() };
        let whole = parse_request(&wire, &limits, &mut request);
        for end in 0..wire.len() {
            match parse_request(&wire[..end], &limits, &mut request) {
                Ok(Parsed::Partial) => {}
                complete @ Ok(Parsed::Complete { .. }) => prop_assert_eq!(&complete, &whole),
                // The same bytes cannot be refused and then accepted when more follow.
                Err(_) => prop_assert!(whole.is_err(), "{} {:?}", end, whole),
            }
        }
        let _ = parse_response(&wire, Method::Get, &limits, &mut response);
    }
}
