//! What is a head, what is refused, and how.

use super::*;
use crate::head::{RequestHead, ResponseHead};

const LIMITS: HeadLimits = HeadLimits { fields: 100, bytes: 60 * 1024 };
const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "h:1"), (":path", "/a?b=c")];

fn feed(sink: &mut impl FieldSink, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        let line = [name, b": ", value, b"\r\n"].concat();
        // As a literal gives them, and as an entry of a table does.
        let line = if name.len().is_multiple_of(2) { &line[..] } else { b"" };
        sink.field(&Field { class: NameClass::of(name), name, value, shape: Shape::of(value), line });
    }
}

fn read(fields: &[(&str, &str)], ended: bool) -> Result<(RequestHead, BodyLength), HeadRefusal> {
    let mut head = RequestHead::default();
    let mut sink = RequestSink::new(&mut head, LIMITS, true);
    feed(&mut sink, fields);
    let body = sink.finish(ended, false)?;
    Ok((head, body))
}

fn with(more: &[(&str, &str)]) -> Result<(RequestHead, BodyLength), HeadRefusal> {
    read(&[&GET[..], more].concat(), false)
}

#[test]
fn request_plain_is_stored() {
    let fields = [&GET[..], &[("x-a", "1"), ("cookie", "a=1"), ("cookie", "b=2"), ("host", "H:1")]].concat();
    let (head, body) = read(&fields, true).unwrap();
    assert_eq!((head.authority(), head.path(), body), (&b"h:1"[..], &b"/a?b=c"[..], BodyLength::None));
    let all: Vec<_> = head.fields.iter().collect();
    assert_eq!(all, [(&b"x-a"[..], &b"1"[..]), (b"cookie", b"a=1; b=2")]);
}

#[test]
fn host_stands_in_for_a_missing_or_empty_authority() {
    let bare = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
    for pseudo in [&bare[..], &[&bare[..], &[(":authority", "")]].concat()] {
        assert_eq!(read(&[pseudo, &[("host", "a")]].concat(), true).unwrap().0.authority(), b"a");
        assert_eq!(read(pseudo, true), Err(HeadRefusal::Bad("missing_host_header")));
        assert_eq!(
            read(&[pseudo, &[("host", "a"), ("host", "a")]].concat(), true),
            Err(HeadRefusal::Bad("http2.multiple_host"))
        );
        assert_eq!(
            read(&[pseudo, &[("host", "u@a")]].concat(), true),
            Err(HeadRefusal::Bad("http2.invalid.authority"))
        );
    }
}

#[test]
fn request_ambiguous_is_answered_with_details() {
    for (more, details) in [
        (&[("host", "evil")][..], "http2.authority_host_mismatch"),
        (&[("host", "h:1"), ("host", "h:1")], "http2.multiple_host"),
        (&[("content-length", "1"), ("content-length", "1")], "http2.invalid.content_length"),
        (&[("content-length", "+1")], "http2.invalid.content_length"),
        (&[("x-a", " padded")], "http2.invalid.header_field"),
        (&[("x-a", "padded\t")], "http2.invalid.header_field"),
    ] {
        assert_eq!(with(more), Err(HeadRefusal::Bad(details)), "{more:?}");
    }
    let announced = [&GET[..], &[("content-length", "30")]].concat();
    assert_eq!(read(&announced, true), Err(HeadRefusal::Bad("http2.invalid.content_length")));
    assert_eq!(read(&announced, false).unwrap().1, BodyLength::Length(30));
    let star = [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "*")];
    assert_eq!(read(&star, true), Err(HeadRefusal::Bad("http2.invalid.path")));
}

#[test]
fn request_malformed_is_refused() {
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "x"),
        ("proxy-connection", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "x"),
        ("te", "gzip"),
        ("Upper", "x"),
        ("a b", "x"),
        ("", "x"),
        ("x-a", "a\r\nb"),
        ("x-a", "a\0"),
        (":path", "/late"),
        (":other", "x"),
        (":status", "200"),
    ] {
        assert_eq!(with(&[(name, value)]), Err(HeadRefusal::Malformed), "{name}");
    }
    for missing in 0..2 {
        let mut fields = GET.to_vec();
        fields.remove(missing);
        assert_eq!(read(&fields, true), Err(HeadRefusal::Malformed), "{missing}");
    }
    for twice in GET {
        let mut fields = GET.to_vec();
        fields.push(twice);
        assert_eq!(read(&fields, true), Err(HeadRefusal::Malformed), "{twice:?}");
    }
    for (at, bad) in
        [(0, ""), (0, "G T"), (1, ""), (2, "u@h"), (2, "a b"), (3, ""), (3, "a"), (3, "/ "), (3, "/#x")]
    {
        let mut fields = GET.to_vec();
        fields[at].1 = bad;
        assert_eq!(read(&fields, true).map(|_| ()), Err(HeadRefusal::Malformed), "{at} {bad:?}");
    }
    assert!(with(&[("te", "trailers")]).is_ok());
}

#[test]
fn malformed_outweighs_what_was_found_before() {
    assert_eq!(with(&[("host", "evil"), ("connection", "x")]), Err(HeadRefusal::Malformed));
}

#[test]
fn connect_has_authority_only_and_extended_connect_becomes_an_upgrade() {
    let plain = [(":method", "CONNECT"), (":authority", "h:1")];
    let (head, body) = read(&plain, false).unwrap();
    assert_eq!((head.authority(), head.path(), body), (&b"h:1"[..], &b""[..], BodyLength::None));
    assert_eq!(read(&[plain[0]], false), Err(HeadRefusal::Malformed));
    assert_eq!(read(&[&plain[..], &[(":path", "/")]].concat(), false), Err(HeadRefusal::Malformed));
    assert_eq!(
        read(&[&plain[..], &[("content-length", "0")]].concat(), false),
        Err(HeadRefusal::Bad("http2.invalid.content_length"))
    );
    let extended =
        [&plain[..], &[(":scheme", "http"), (":path", "/ws"), (":protocol", "websocket")]].concat();
    let (head, body) = read(&extended, false).unwrap();
    assert_eq!((head.method_bytes(), head.path(), body), (&b"GET"[..], &b"/ws"[..], BodyLength::None));
    assert_eq!(head.fields.get(b"upgrade"), Some(&b"websocket"[..]));
    assert_eq!(with(&[]).unwrap().0.method_bytes(), b"GET");
    assert_eq!(read(&[&GET[..], &[(":protocol", "x")]].concat(), false), Err(HeadRefusal::Malformed));
    let mut head = RequestHead::default();
    let mut sink = RequestSink::new(&mut head, LIMITS, false);
    feed(&mut sink, &extended);
    assert_eq!(sink.finish(false, false), Err(HeadRefusal::Malformed), "not announced");
}

#[test]
fn fields_at_the_limit_pass_and_one_past_is_refused() {
    let names: Vec<String> = (0..101).map(|at| format!("x-{at}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    assert!(with(&many[..100]).is_ok());
    assert_eq!(with(&many), Err(HeadRefusal::TooMany));
}

#[test]
fn bytes_at_the_limit_pass_and_one_past_is_refused() {
    let used: usize = GET.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    let value = "v".repeat(LIMITS.bytes - used - 32 - 1);
    assert!(with(&[("x", &value)]).is_ok());
    assert_eq!(with(&[("xx", &value)]), Err(HeadRefusal::TooLarge));
}

#[test]
fn responses_are_checked() {
    let read = |fields: &[(&str, &str)]| {
        let mut head = ResponseHead::default();
        let mut sink = ResponseSink::new(&mut head, LIMITS);
        feed(&mut sink, fields);
        sink.finish().map(|()| head)
    };
    let head = read(&[(":status", "200"), ("x-a", " 1 "), ("host", "x")]).unwrap();
    assert_eq!((head.status, head.fields.len(), head.fields.get(b"x-a")), (200, 1, Some(&b"1"[..])));
    for bad in [
        &[][..],
        &[("x-a", "1")],
        &[(":status", "99")],
        &[(":status", "2000")],
        &[(":status", "+20")],
        &[(":status", "099")],
        &[(":status", "101")],
        &[(":status", "200"), (":status", "200")],
        &[(":status", "200"), (":path", "/")],
        &[("x-a", "1"), (":status", "200")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("transfer-encoding", "chunked")],
    ] {
        assert_eq!(read(bad), Err(HeadRefusal::Malformed), "{bad:?}");
    }
}

#[test]
fn trailers_lose_what_may_not_be_there() {
    let mut trailers = FieldBlock::default();
    let mut sink = TrailerSink::new(&mut trailers, LIMITS);
    feed(&mut sink, &[("grpc-status", "0"), ("content-length", "3"), ("host", "x"), ("trailer", "y")]);
    sink.finish().unwrap();
    assert_eq!(trailers.iter().collect::<Vec<_>>(), [(&b"grpc-status"[..], &b"0"[..])]);
    for bad in [(":status", "200"), ("connection", "close"), ("X", "y")] {
        let mut sink = TrailerSink::new(&mut trailers, LIMITS);
        feed(&mut sink, &[bad]);
        assert_eq!(sink.finish(), Err(HeadRefusal::Malformed));
    }
}
