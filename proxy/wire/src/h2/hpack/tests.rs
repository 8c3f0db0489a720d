//! RFC 7541 Appendix C, and properties.

use super::*;
use crate::field::FieldBlock;
use crate::h2::error::H2Error;
use crate::head::{RequestHead, ResponseHead};
use proptest::prelude::*;

#[derive(Default, Debug, PartialEq)]
struct List(Vec<(Vec<u8>, Vec<u8>)>);

impl FieldSink for List {
    fn field(&mut self, field: &Field<'_>) {
        let Field { class, name, value, shape, line } = *field;
        assert_eq!((class, shape), (NameClass::of(name), Shape::of(value)));
        assert!(line.is_empty() || line == [name, b": ", value, b"\r\n"].concat());
        self.0.push((name.to_vec(), value.to_vec()));
    }
}

impl List {
    fn text(&self) -> Vec<String> {
        let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.0.iter().map(|(name, value)| format!("{}: {}", show(name), show(value))).collect()
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter_map(crate::syntax::hex).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<List, H2Error> {
    let mut list = List::default();
    decoder.decode(block, &mut list)?;
    Ok(list)
}

#[test]
fn literals_of_appendix_c2_are_read() {
    for (block, expected) in [
        ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", "custom-key: custom-header"),
        ("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path"),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret"),
        ("82", ":method: GET"),
    ] {
        assert_eq!(decode(&mut Decoder::new(), &hex(block)).unwrap().text(), [expected]);
    }
}

#[test]
fn requests_of_appendix_c3_and_c4_are_read() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let expected: [&[&str]; 3] = [
        &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"],
        &[
            ":method: GET",
            ":scheme: http",
            ":path: /",
            ":authority: www.example.com",
            "cache-control: no-cache",
        ],
        &[
            ":method: GET",
            ":scheme: https",
            ":path: /index.html",
            ":authority: www.example.com",
            "custom-key: custom-value",
        ],
    ];
    for blocks in [plain, huffman] {
        let mut decoder = Decoder::new();
        for (block, expected) in blocks.iter().zip(expected) {
            assert_eq!(decode(&mut decoder, &hex(block)).unwrap().text(), expected);
        }
    }
}

#[test]
fn responses_of_appendix_c5_and_c6_are_read_with_evictions() {
    let plain = [
        "3fe101 4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
         3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f \
         6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b \
         2076 6572 7369 6f6e 3d31",
    ];
    let huffman = [
        "3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
         1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 \
         dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    let expected: [&[&str]; 3] = [
        &[
            ":status: 302",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "location: https://www.example.com",
        ],
        &[
            ":status: 307",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "location: https://www.example.com",
        ],
        &[
            ":status: 200",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:22 GMT",
            "location: https://www.example.com",
            "content-encoding: gzip",
            "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
        ],
    ];
    for blocks in [plain, huffman] {
        let mut decoder = Decoder::new();
        for (block, expected) in blocks.iter().zip(expected) {
            assert_eq!(decode(&mut decoder, &hex(block)).unwrap().text(), expected);
        }
    }
}

#[test]
fn malformed_blocks_are_refused() {
    for (block, why) in [
        ("80", "index 0"),
        ("be", "an entry that is not there"),
        ("c6", "an entry that is not there"),
        ("7f", "an index that is cut"),
        ("ff ff ff ff ff 0f", "a number that is too large"),
        ("ff 80 80 80 80 80 00", "zeros without end"),
        ("40 05 61", "a string that is cut"),
        ("00 01", "a string that is missing"),
        ("00 81 ff 00", "Huffman filling of eight ones"),
        ("00 84 ff ff ff ff 00", "EOS"),
        ("00 81 00 00", "Huffman filling of zeros"),
        ("82 20", "a size update behind a field"),
        ("3f e2 1f", "a table larger than allowed"),
    ] {
        assert_eq!(decode(&mut Decoder::new(), &hex(block)), Err(H2Error::Hpack), "{why}");
    }
    assert!(decode(&mut Decoder::new(), &hex("3f e1 1f 20 3f e1 1f 82")).is_ok(), "updates at the front");
}

#[test]
fn smaller_table_must_be_taken_up_by_the_next_block() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, &hex("4001 6101 62")).unwrap();
    decoder.allow_table(100);
    assert_eq!(decode(&mut decoder, &hex("be")), Err(H2Error::Hpack));
    let mut decoder = Decoder::new();
    decoder.allow_table(100);
    assert!(decode(&mut decoder, &hex("3f45 82")).is_ok());
    assert_eq!(decode(&mut decoder, &hex("3f46")), Err(H2Error::Hpack));
    let mut decoder = Decoder::new();
    decoder.allow_table(8192);
    assert!(decode(&mut decoder, &hex("82")).is_ok());
}

#[test]
fn huffman_covers_every_byte() {
    let all: Vec<u8> = (0..=255).collect();
    for text in [&all[..], b"", b"a", b"www.example.com", &[0xff; 100]] {
        let (mut coded, mut back) = (Vec::new(), Vec::new());
        huffman_encode(text, &mut coded);
        assert_eq!(coded.len(), huffman_encoded_len(text));
        assert!(huffman_decode(&coded, &mut back));
        assert_eq!(back, text);
    }
}

fn request(fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::default();
    assert!(head.set_authority(b"h") && head.set_path(b"/p"));
    for (name, value) in fields {
        assert!(head.fields.append(name.as_bytes(), value.as_bytes()));
    }
    head
}

#[test]
fn repeated_fields_shrink_to_an_index_and_ids_do_not_enter_the_table() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new());
    let mut sizes = Vec::new();
    for turn in 0..4 {
        let id = format!("00000000-{turn}");
        let head = request(&[("user-agent", "a-client/1.0"), ("x-request-id", &id), ("x-other", &id)]);
        let mut out = Vec::new();
        encoder.request(&head, &mut out);
        let list = decode(&mut decoder, &out).unwrap();
        assert_eq!(list.0[4], (b"user-agent".to_vec(), b"a-client/1.0".to_vec()));
        assert_eq!(list.0.len(), 7);
        sizes.push(out.len());
    }
    let ids = 2 + "x-request-id".len() + 1 + 10 + 1 + 1 + "x-other".len() + 1 + 10;
    // Method, scheme, authority, path, user-agent: one octet each.
    assert_eq!(sizes[2], ids + 5, "{sizes:?}");
    assert_eq!(sizes[2], sizes[3]);
}

#[test]
fn credentials_are_never_indexed() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new());
    let secrets = [
        ("authorization", "Bearer x"),
        ("proxy-authorization", "Basic x"),
        ("cookie", "a=b"),
        ("x-api-key", "k"),
        ("x-csrf-token", "t"),
    ];
    let mut last = Vec::new();
    for _ in 0..3 {
        let mut out = Vec::new();
        encoder.request(&request(&secrets), &mut out);
        assert_eq!(decode(&mut decoder, &out).unwrap().0.len(), 9);
        last = out;
    }
    // The literal of authorization: never indexed (0x10), name index 23.
    assert!(last.windows(3).any(|octets| octets == [0x1f, 23 - 15, 8]), "{last:x?}");
    assert!(last.windows(4).any(|octets| octets == [0x10, 9, b'x', b'-']), "{last:x?}");
}

#[test]
fn connection_fields_are_left_out() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new());
    let head = request(&[
        ("connection", "close"),
        ("te", "gzip"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "x"),
        ("te", "trailers"),
    ]);
    let mut out = Vec::new();
    encoder.request(&head, &mut out);
    assert_eq!(decode(&mut decoder, &out).unwrap().text()[4..], ["te: trailers"]);
}

#[test]
fn table_sizes_of_the_peer_are_followed() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new());
    let mut turn = |encoder: &mut Encoder, allowed: Option<usize>| {
        if let Some(bytes) = allowed {
            encoder.allow_table(bytes);
            decoder.allow_table(bytes);
        }
        let mut out = Vec::new();
        encoder.request(&request(&[("user-agent", "a-client/1.0")]), &mut out);
        assert_eq!(decode(&mut decoder, &out).unwrap().0.len(), 5);
        out
    };
    for allowed in [None, None, Some(0), None, Some(4096), None, None, Some(100), None, Some(1 << 20)] {
        turn(&mut encoder, allowed);
    }
    encoder.allow_table(0);
    encoder.allow_table(4096);
    let out = turn(&mut encoder, None);
    assert_eq!(out[..4], [0x20, 0x3f, 0xe1, 0x1f], "the least size in between, and the last");
}

fn arbitrary_fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let name = prop_oneof![
        Just("user-agent".to_owned()),
        Just("accept-encoding".to_owned()),
        Just("content-type".to_owned()),
        Just("set-cookie".to_owned()),
        Just("x-session".to_owned()),
        "[a-z0-9-]{1,12}",
    ];
    let value = prop_oneof![
        Just(b"gzip, deflate".to_vec()),
        Just(b"repeated".to_vec()),
        prop::collection::vec(prop_oneof![0x21u8..0x7f, 0x80u8..=0xff], 0..40),
        prop::collection::vec(0x61u8..0x64, 0..3),
    ];
    prop::collection::vec((name, value), 0..12)
}

proptest! {
    #[test]
    fn blocks_survive_the_round_trip(
        messages in prop::collection::vec((100u16..1000, arbitrary_fields()), 1..30),
        sizes in prop::collection::vec(prop::option::of(0usize..600), 30),
    ) {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new());
        for ((status, fields), size) in messages.into_iter().zip(sizes) {
            if let Some(size) = size {
                encoder.allow_table(size);
                decoder.allow_table(size);
            }
            let mut head = ResponseHead { status, fields: FieldBlock::default() };
            for (name, value) in &fields {
                prop_assert!(head.fields.append(name.as_bytes(), value));
            }
            let mut out = Vec::new();
            encoder.response(&head, &mut out);
            let mut expected = vec![(b":status".to_vec(), status.to_string().into_bytes())];
            expected.extend(
                head.fields
                    .iter_known()
                    .filter(|(known, _, value)| {
                        !crate::h2::head::is_connection_specific(*known)
                            && *known != crate::field::Known::Host
                            && (*known != crate::field::Known::Te || *value == b"trailers")
                    })
                    .map(|(_, name, value)| (name.to_vec(), value.to_vec())),
            );
            prop_assert_eq!(decode(&mut decoder, &out).unwrap().0, expected);
        }
    }

    #[test]
    fn huffman_survives_the_round_trip(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut coded, mut back) = (Vec::new(), Vec::new());
        huffman_encode(&text, &mut coded);
        prop_assert_eq!(coded.len(), huffman_encoded_len(&text));
        prop_assert!(huffman_decode(&coded, &mut back));
        prop_assert_eq!(back, text);
    }

    #[test]
    fn what_huffman_accepts_is_the_only_code_of_its_text(coded in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut text = Vec::new();
        if huffman_decode(&coded, &mut text) {
            let mut again = Vec::new();
            huffman_encode(&text, &mut again);
            prop_assert_eq!(again, coded);
        }
    }

    #[test]
    fn any_octets_are_read_or_refused(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..5)) {
        let mut decoder = Decoder::new();
        for block in blocks {
            if decode(&mut decoder, &block).is_err() {
                break;
            }
        }
    }
}
