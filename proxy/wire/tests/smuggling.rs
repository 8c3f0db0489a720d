//! Messages that two readers might understand differently, by family. Each is refused with the error
//! named, or accepted with exactly one meaning. RFC 9112 unless a line says otherwise.

use outrigger_wire::h1::{
    BodyLength, H1Error, Limits, Parsed, RequestFraming, parse_request, parse_response,
};
use outrigger_wire::{Method, RequestHead};

fn parse(text: &[u8]) -> Result<(RequestHead, RequestFraming, usize), H1Error> {
    let mut head = RequestHead::default();
    match parse_request(text, &Limits::default(), &mut head)? {
        Parsed::Complete { consumed, framing } => Ok((head, framing, consumed)),
        Parsed::Partial => panic!("partial: {:?}", String::from_utf8_lossy(text)),
    }
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("latin-1")).collect()
}

fn request_with(lines: &str) -> Vec<u8> {
    latin1(&format!("POST /c HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n"))
}

#[track_caller]
fn refused(text: &[u8], error: H1Error) {
    let shown = String::from_utf8_lossy(text).into_owned();
    match parse(text) {
        Err(found) => assert_eq!(found, error, "{shown:?}"),
        Ok((_, framing, _)) => panic!("accepted as {framing:?}: {shown:?}"),
    }
}

/// Refused, whatever the reason given: the tokeniser's choice among its errors is not ours to fix.
#[track_caller]
fn not_accepted(text: &[u8]) {
    if let Ok((_, framing, _)) = parse(text) {
        panic!("accepted as {framing:?}: {:?}", String::from_utf8_lossy(text));
    }
}

#[test]
fn transfer_encoding_chunked_in_any_case_accepted() {
    for field in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding:chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: Chunked",
        "Transfer-Encoding: CHUNKED",
        "TRANSFER-ENCODING: chunked \t",
        "Content-Encoding: x\r\nTransfer-Encoding: chunked",
        "transfer-encoding:chunked\r\nConnection: transfer-encoding",
    ] {
        let (_, framing, _) = parse(&request_with(field)).unwrap();
        assert_eq!(framing.body, BodyLength::Chunked, "{field}");
    }
}

#[test]
fn transfer_encoding_other_than_chunked_refused() {
    for value in [
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity, chunked",
        "chunked, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "identity",
        ",chunked",
        "chunked,",
        "\"chunked\"",
        "'chunked'",
        "chunked;a=b",
        "chunked ;q=1",
        "chu\tnked",
        "\u{a0}chunked",
        "chunked\u{ff}",
        "",
        " ",
        "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nX: y\r\ntransfer-encoding: chunked",
    ] {
        refused(&request_with(&format!("Transfer-Encoding: {value}")), H1Error::UnsupportedTransferCoding);
    }
}

#[test]
fn obfuscated_field_lines_refused() {
    for field in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "\tTransfer-Encoding: chunked",
        "Transfer-Encoding:\u{b}chunked",
        "Transfer-Encoding:\u{c}chunked",
        "Transfer-Encoding: \0chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding: chunked\u{b}",
        "Transfer-Encoding: chunked\r",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding:\n chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\r\rTransfer-Encoding: chunked",
        "Transfer-Encodin\u{c7}: chunked",
        "\0Transfer-Encoding: chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer\u{85}-Encoding: chunked",
        "Foo\r\nTransfer-Encoding: chunked",
        ": x\r\nTransfer-Encoding: chunked",
        "A\0: b",
        "A: b\0c",
        "A : b",
        " A: b",
        "A b: c",
        "A: b\u{1}",
        "A: b\u{7f}",
        "A: b\rc: d",
        "A: b\nC: d",
        "A",
        ":b",
        "A: b\r\n c",
        "A: b\r\n\tc",
        "A\u{e9}: b",
        "(A): b",
        "A/: b",
        "A[]: b",
        "A{}: b",
        "A\": b",
        "A@: b",
        "A,: b",
        "A;: b",
        "A<: b",
        "A=: b",
        "A?: b",
        "A\\: b",
        "A: b\r\n\r",
        "A: b\r\r",
        "A:\n",
        "\r",
    ] {
        not_accepted(&request_with(field));
    }
}

#[test]
fn names_others_read_as_framing_refused() {
    for name in [
        "Transfer_Encoding",
        "transfer.encoding",
        "TRANSFER~ENCODING",
        "Content_Length",
        "content.length",
        "Content!Length",
    ] {
        refused(&request_with(&format!("{name}: 1")), H1Error::FramingLookAlike);
    }
    for name in ["Transfer_Encodings", "Content_Lengt", "Content-Type", "contentalength"] {
        assert!(parse(&request_with(&format!("{name}: 1"))).is_ok(), "{name}");
    }
}

#[test]
fn content_length_shapes_refused() {
    for value in [
        "+0",
        "-0",
        "0x0",
        "0,0",
        "0, 5",
        "5, 0",
        "0;a",
        "0.0",
        "1e0",
        "",
        " ",
        "a",
        "18446744073709551616",
        "9223372036854775808",
        "99999999999999999999999",
        "-1",
        "\u{d9}\u{a0}",
        "0 0",
        "1_0",
    ] {
        refused(&request_with(&format!("Content-Length: {value}")), H1Error::BadContentLength);
    }
    for value in ["0\u{b}", "\0", "0\0", "0\r\n 5", "0\r"] {
        not_accepted(&request_with(&format!("Content-Length: {value}")));
    }
    for name in
        ["Content-Length ", "Content-Length\t", " Content-Length", "Content-Length\0", "content-length\u{ad}"]
    {
        not_accepted(&request_with(&format!("{name}: 0")));
    }
}

#[test]
fn content_length_digits_accepted_whatever_the_padding() {
    for (value, length) in
        [("0", 0), ("00", 0), (" 7", 7), ("7 ", 7), ("\t7", 7), ("9223372036854775807", i64::MAX as u64)]
    {
        let (_, framing, _) = parse(&request_with(&format!("Content-Length: {value}"))).unwrap();
        assert_eq!(framing.body, BodyLength::Length(length));
    }
}

#[test]
fn two_content_lengths_refused_even_when_equal() {
    for (first, second) in [("0", "0"), ("0", "5"), ("5", "0"), ("00", "0"), ("5 ", "5")] {
        refused(
            &request_with(&format!("Content-Length: {first}\r\nContent-Length: {second}")),
            H1Error::MultipleContentLength,
        );
    }
}

#[test]
fn content_length_beside_transfer_encoding_refused_in_both_orders() {
    refused(
        &request_with("Content-Length: 5\r\nTransfer-Encoding: chunked"),
        H1Error::LengthAndTransferEncoding,
    );
    refused(
        &request_with("Transfer-Encoding: chunked\r\nContent-Length: 5"),
        H1Error::LengthAndTransferEncoding,
    );
}

#[test]
fn transfer_encoding_in_http10_refused() {
    let text = b"POST /c HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n";
    refused(text, H1Error::TransferEncodingNotAllowed);
}

#[test]
fn request_lines_refused() {
    for line in [
        "GET /c",
        "GET  /c HTTP/1.1",
        "GET\t/c\tHTTP/1.1",
        "GET /c\u{b}HTTP/1.1",
        " GET /c HTTP/1.1",
        "GET /c HTTP/1.1 ",
        "GET /c HTTP/1.1\0",
        "GET /c\0 HTTP/1.1",
        "GET /c /d HTTP/1.1",
        "GET /a\rb HTTP/1.1",
        "G\0T /c HTTP/1.1",
        "G(T /c HTTP/1.1",
        "GET /c HTTP/1.1\n",
        "GET /c HTTP 1.1",
        "GET /c HTTPS/1.1",
        "GET /c HTTP/1,1",
        "GET",
        "GET  HTTP/1.1",
        "GET /c http/1.1",
        "GET /c HTTP/01.1",
        "/c HTTP/1.1",
        "GET /c\u{7f} HTTP/1.1",
    ] {
        not_accepted(&latin1(&format!("{line}\r\nHost: h\r\n\r\n")));
    }
    for version in ["HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/1.10", "HTTP/3.0"] {
        let text = format!("GET /c {version}\r\nHost: h\r\n\r\n");
        assert!(
            matches!(parse(text.as_bytes()), Err(H1Error::BadVersion | H1Error::BadLineEnd)),
            "{version}"
        );
    }
    refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", H1Error::BadVersion);
    not_accepted(b"GET /c HTTP/1.1\nHost: h\n\n");
    not_accepted(b"GET /c HTTP/1.1\rHost: h\r\r");
    not_accepted(b"GET /c HTTP/1.1\r\nHost: h\r\n\n");
    not_accepted(b"GET /c HTTP/1.1\r\nHost: h\n\r\n");
}

#[test]
fn request_targets_judged_by_form_and_method() {
    let text = |method: &str, target: &str| latin1(&format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    for target in [
        "c",
        "/c#frag",
        "/\u{e9}",
        "http://",
        "http:///c",
        "ftp://a/c",
        "http:/a",
        "http://a b/",
        "http://u@a/c",
        "http://u:p@a/c",
        "http://a:b/c",
        "http://a:99999/",
        "//",
        "http://[::1/c",
        "http://a#f",
        "https//a",
        "a:80",
    ] {
        if target != "//" {
            not_accepted(&text("GET", target));
        }
    }
    refused(&text("GET", "*"), H1Error::TargetFormMismatch);
    refused(&text("CONNECT", "/c"), H1Error::TargetFormMismatch);
    refused(&text("CONNECT", "h"), H1Error::TargetFormMismatch);
    refused(&text("CONNECT", "http://h:1/"), H1Error::TargetFormMismatch);
    refused(b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 5\r\n\r\n", H1Error::ContentNotAllowed);
    refused(
        b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\nTransfer-Encoding: chunked\r\n\r\n",
        H1Error::ContentNotAllowed,
    );
    for (method, target, authority, path) in [
        ("GET", "/c?d", "h", "/c?d"),
        ("GET", "//evil/c", "h", "//evil/c"),
        ("GET", "/%0d%0aX:%20y", "h", "/%0d%0aX:%20y"),
        ("GET", "http://a:8080/c?d", "a:8080", "/c?d"),
        ("GET", "HTTPS://a", "a", "/"),
        ("GET", "http://a?x=/y", "a", "/?x=/y"),
        ("OPTIONS", "*", "h", "*"),
        ("OPTIONS", "http://a", "a", "*"),
        ("CONNECT", "c:443", "c:443", ""),
        ("get", "/c", "h", "/c"),
    ] {
        let (head, _, _) = parse(&text(method, target)).unwrap();
        assert_eq!(
            (head.authority(), head.path()),
            (authority.as_bytes(), path.as_bytes()),
            "{method} {target}"
        );
    }
}

#[test]
fn hosts_missing_doubled_or_malformed_refused() {
    refused(b"GET /c HTTP/1.1\r\n\r\n", H1Error::MissingHost);
    refused(b"GET http://a/c HTTP/1.1\r\n\r\n", H1Error::MissingHost);
    refused(b"GET /c HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", H1Error::MultipleHost);
    refused(b"GET /c HTTP/1.1\r\nHost: h\r\nhost: x\r\n\r\n", H1Error::MultipleHost);
    for host in
        ["", " ", "a b", "a,b", "a@b", "a/b", "a#b", "a?b", "a\\b", "[::1", "a:b", "a:99999", "a\tb", "%00"]
    {
        refused(format!("GET /c HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), H1Error::BadHost);
    }
    refused(b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n", H1Error::BadHost);
    not_accepted(b"GET /c HTTP/1.1\r\nHost: \x01\r\n\r\n");
    let (head, framing, _) = parse(b"GET /c HTTP/1.0\r\n\r\n").unwrap();
    assert!(head.authority().is_empty() && framing.http10 && !framing.keep_alive);
}

#[test]
fn empty_line_before_a_request_skipped_once() {
    let request = b"GET /c HTTP/1.1\r\nHost: h\r\n\r\n";
    let (_, _, consumed) = parse(&[b"\r\n", &request[..]].concat()).unwrap();
    assert_eq!(consumed, request.len() + 2);
    refused(&[b"\r\n\r\n", &request[..]].concat(), H1Error::BadLineEnd);
    refused(&[b"\n", &request[..]].concat(), H1Error::BadLineEnd);
    not_accepted(&[b"\rG", &request[..]].concat());
}

#[test]
fn connection_and_expect_facts() {
    let facts = |lines: &str, version: &str| {
        let text = format!("POST /c HTTP/{version}\r\nHost: h\r\nContent-Length: 1\r\n{lines}\r\n\r\n");
        parse(text.as_bytes()).unwrap().1
    };
    assert!(facts("X: y", "1.1").keep_alive);
    assert!(!facts("Connection: x, Close", "1.1").keep_alive);
    assert!(!facts("Connection: keep-alive\r\nConnection: close", "1.1").keep_alive);
    assert!(!facts("X: y", "1.0").keep_alive);
    assert!(facts("Connection: Keep-Alive", "1.0").keep_alive);
    assert!(facts("Expect: 100-Continue", "1.1").expect_continue);
    assert!(!facts("Expect: y 100-continue", "1.1").expect_continue);
    assert!(!facts("Expect: 100-continue", "1.0").expect_continue);
    assert!(facts("Connection: Upgrade\r\nUpgrade: websocket", "1.1").upgrade);
    assert!(!facts("Upgrade: websocket", "1.1").upgrade);
    assert!(!facts("Connection: Upgrade", "1.1").upgrade);
    assert!(!facts("Connection: Upgrade\r\nUpgrade: websocket", "1.0").upgrade);
    let (_, none, _) =
        parse(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert!(!none.expect_continue);
}

#[test]
fn response_framing_by_status_and_method() {
    let framing = |text: &str, method| {
        let mut head = outrigger_wire::ResponseHead::default();
        match parse_response(text.as_bytes(), method, &Limits::default(), &mut head) {
            Ok(Parsed::Complete { consumed, framing }) => {
                assert_eq!(consumed, text.len());
                Ok(framing)
            }
            Ok(Parsed::Partial) => panic!("partial {text:?}"),
            Err(error) => Err(error),
        }
    };
    let cl = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let te = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let none = "HTTP/1.1 200\r\n\r\n";
    assert_eq!(framing(cl, Method::Get).unwrap().body, BodyLength::Length(5));
    assert_eq!(framing(te, Method::Get).unwrap().body, BodyLength::Chunked);
    let open = framing(none, Method::Get).unwrap();
    assert_eq!((open.body, open.keep_alive), (BodyLength::UntilClose, false));
    for text in [cl, te, none] {
        let head = framing(text, Method::Head).unwrap();
        assert_eq!((head.body, head.keep_alive), (BodyLength::None, true));
        let tunnel = framing(text, Method::Connect).unwrap();
        assert!(tunnel.switching && tunnel.body == BodyLength::None && !tunnel.keep_alive);
    }
    for status in [100, 103, 204, 304] {
        let response =
            framing(&format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"), Method::Get).unwrap();
        assert_eq!((response.body, response.informational), (BodyLength::None, status < 200));
    }
    assert_eq!(
        framing("HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n", Method::Get).unwrap().body,
        BodyLength::None
    );
    let switch =
        framing("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", Method::Get).unwrap();
    assert!(switch.switching && !switch.informational && !switch.keep_alive);
    assert!(
        !framing("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", Method::Get)
            .unwrap()
            .keep_alive
    );
    assert!(!framing("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Method::Get).unwrap().keep_alive);
    for (text, error) in [
        ("HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\n", H1Error::ContentNotAllowed),
        ("HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\n", H1Error::ContentNotAllowed),
        ("HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n", H1Error::TransferEncodingNotAllowed),
        ("HTTP/1.1 101 X\r\nTransfer-Encoding: chunked\r\n\r\n", H1Error::TransferEncodingNotAllowed),
        ("HTTP/1.0 200 X\r\nTransfer-Encoding: chunked\r\n\r\n", H1Error::TransferEncodingNotAllowed),
        ("HTTP/1.1 200 X\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", H1Error::UnsupportedTransferCoding),
        (
            "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            H1Error::LengthAndTransferEncoding,
        ),
        ("HTTP/1.1 200 X\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", H1Error::MultipleContentLength),
        ("HTTP/1.1 200 X\nContent-Length: 1\r\n\r\n", H1Error::BadLineEnd),
        ("\r\nHTTP/1.1 200 X\r\n\r\n", H1Error::BadLineEnd),
        ("HTTP/1.1 099 X\r\n\r\n", H1Error::BadStatus),
        ("HTTP/2.0 200 X\r\n\r\n", H1Error::BadVersion),
    ] {
        assert_eq!(framing(text, Method::Get), Err(error), "{text:?}");
    }
    for text in [
        "HTTP/1.1 20 X\r\n\r\n",
        "HTTP/1.1 2000 X\r\n\r\n",
        "HTTP/1.1 200 X\r\nA : b\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ] {
        assert!(framing(text, Method::Get).is_err(), "{text:?}");
    }
}
