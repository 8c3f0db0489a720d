//! The fast lane judges exactly as the tokeniser does.

use proptest::prelude::*;

use super::{Limits, parse_request, parse_response, request, response};
use crate::{Method, RequestHead, ResponseHead};

fn line() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        4 => "[a-zA-Z0-9-]{1,16}",
        2 => "(Host|host|Content-Length|content-length|Transfer-Encoding|Connection|Upgrade|Expect|Te|content_length)",
        1 => "[ -~]{0,6}",
    ];
    let separator = prop_oneof![6 => Just(": "), 1 => Just(":"), 1 => Just(":  "), 1 => Just(" : ")];
    let value = prop_oneof![
        4 => "[a-zA-Z0-9 /;=,.-]{0,24}".prop_map(String::into_bytes),
        2 => "(chunked|10|0|close|keep-alive|h|h:80|100-continue|websocket)".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    let end = prop_oneof![12 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")];
    (name, separator, value, end).prop_map(|(name, separator, value, end)| {
        [name.as_bytes(), separator.as_bytes(), &value, end.as_bytes()].concat()
    })
}

fn start(request: bool) -> impl Strategy<Value = Vec<u8>> {
    if request {
        prop_oneof![
            4 => "(GET|POST|HEAD|OPTIONS|CONNECT|PURGE) /[a-z0-9?=&%/._~-]{0,30} HTTP/1\\.[01]",
            1 => "(GET|CONNECT|OPTIONS) (\\*|h:80|http://h/a|http://u@h/|https://h\\?q|/a b|/\\{\\}|/#f) HTTP/1\\.[012]",
            1 => "[ -~]{0,30}",
        ]
        .prop_map(String::into_bytes)
        .boxed()
    } else {
        prop_oneof![
            4 => "HTTP/1\\.[01] (200|204|304|101|100|503|099|999) [A-Za-z ]{0,12}",
            1 => "HTTP/1\\.1 [0-9]{1,4}( |)[ -~]{0,8}",
            1 => "[ -~]{0,30}",
        ]
        .prop_map(String::into_bytes)
        .boxed()
    }
}

fn message(request: bool) -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::collection::vec(line(), 0..7);
    let mutation = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
    let end = prop_oneof![9 => Just("\r\n"), 1 => Just("\n"), 1 => Just("")];
    (start(request), lines, end, mutation).prop_map(|(start, lines, end, mutation)| {
        let mut bytes =
            [start, b"\r\n".to_vec(), lines.concat(), end.as_bytes().to_vec(), b"rest".to_vec()].concat();
        if let Some((at, byte)) = mutation {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    (0usize..8, 20usize..300).prop_map(|(max_fields, max_head_bytes)| Limits {
        max_fields,
        max_head_bytes,
        ..Limits::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn requests_are_judged_alike(bytes in message(true), limits in prop_oneof![Just(Limits::default()), limits()]) {
        let (mut fast, mut slow) = (RequestHead::default(), RequestHead::default());
        let judged = parse_request(&bytes, &limits, &mut fast);
        // What comes before both.
        prop_assume!(!matches!(bytes[..], [b'\r' | b'\n', ..]));
        let window = bytes.get(..limits.max_head_bytes).unwrap_or(&bytes);
        let expected = request::tokenised(window, 0, &limits, &mut slow);
        prop_assert_eq!(&judged, &expected);
        if matches!(judged, Ok(super::Parsed::Complete { .. })) {
            prop_assert_eq!(fast, slow);
        }
    }

    #[test]
    fn responses_are_judged_alike(
        bytes in message(false),
        limits in prop_oneof![Just(Limits::default()), limits()],
        method in prop::sample::select(vec![Method::Get, Method::Head, Method::Connect]),
    ) {
        let (mut fast, mut slow) = (ResponseHead::default(), ResponseHead::default());
        prop_assume!(!matches!(bytes[..], [b'\r' | b'\n', ..]));
        let judged = parse_response(&bytes, method, &limits, &mut fast);
        let window = bytes.get(..limits.max_head_bytes).unwrap_or(&bytes);
        let expected = response::tokenised(window, method, &limits, &mut slow);
        prop_assert_eq!(&judged, &expected);
        if matches!(judged, Ok(super::Parsed::Complete { .. })) {
            prop_assert_eq!(fast, slow);
        }
    }
}
