//! Which frame may come when, and what happens otherwise.

use super::*;

#[test]
fn request_and_response_pass() {
    let mut bench = Bench::server();
    assert_eq!(bench.feed(&bench.get(1, 5)), Ok(vec![Seen::Request(1, BodyLength::None, true)]));
    let mut head = RequestHead::default();
    bench.conn.swap_request(&mut head);
    assert_eq!((head.path(), head.authority()), (&b"/"[..], &b"h"[..]));
    bench.respond(1, false).unwrap();
    let key = bench.key(1);
    assert_eq!(bench.conn.send_data(key, b"hello", false), Ok(5));
    let mut trailers = FieldBlock::default();
    trailers.append(b"grpc-status", b"0");
    bench.conn.send_trailers(key, &trailers).unwrap();
    bench.conn.release(key);
    let kinds: Vec<_> = bench.output().into_iter().map(|(kind, flags, ..)| (kind, flags)).collect();
    assert_eq!(kinds, [(Kind::Headers, 4), (Kind::Data, 0), (Kind::Headers, 5)]);
    assert_eq!((bench.conn.open_streams(), bench.conn.lingering_streams()), (0, 0));
}

#[test]
fn octets_may_be_cut_anywhere() {
    let mut whole = Bench::server();
    let mut octets = whole.request(1, 4, &[("content-length", "7"), ("x-a", "b")]);
    octets.extend(frame(DATA, 0x8, 1, b"\x02hello\0\0"));
    octets.extend(frame(0xbe, 0, 1, b"unknown"));
    octets.extend(frame(DATA, 1, 1, b"!!"));
    let expected = whole.feed(&octets).unwrap();
    let body = |seen: &[Seen]| -> Vec<u8> {
        seen.iter()
            .filter_map(|one| match one {
                Seen::Data(_, data, _) => Some(data.clone()),
                _ => None,
            })
            .flatten()
            .collect()
    };
    assert_eq!(body(&expected), b"hello!!");
    for cut in 1..octets.len() {
        let mut bench = Bench::server();
        let mut seen = Vec::new();
        for part in octets.chunks(cut) {
            seen.extend(bench.feed(part).unwrap());
        }
        assert_eq!((&seen[0], body(&seen)), (&expected[0], b"hello!!".to_vec()), "{cut}");
        assert!(matches!(seen.last(), Some(Seen::Data(1, _, true))), "{cut}");
    }
}

#[test]
fn preface_is_demanded() {
    for bad in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"] {
        let mut bench = Bench { conn: Connection::new(Role::Server, options(), NOW), held: Vec::new() };
        assert_eq!(bench.feed(bad), Err(H2Error::BadPreface));
    }
    for first in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 1, 0, &[]), frame(HEADERS, 5, 1, &[0x82])] {
        let mut bench = Bench { conn: Connection::new(Role::Server, options(), NOW), held: Vec::new() };
        assert_eq!(bench.feed(PREFACE), Ok(vec![]));
        assert_eq!(bench.feed(&first), Err(H2Error::SettingsMissing));
    }
}

/// Frames that end the connection of a server on which stream 1 is open, 3 half-closed and 5 idle.
#[test]
fn wrong_frames_end_the_connection() {
    let zero = [0u8; 8];
    let of = Bench::block;
    for (octets, error) in [
        (frame(DATA, 0, 5, b"x"), H2Error::IdleStream),
        (frame(DATA, 0, 0, b"x"), H2Error::BadStreamId),
        (frame(DATA, 8, 1, b"\x05ab"), H2Error::BadPadding),
        (frame(HEADERS, 5, 0, &[0x82]), H2Error::BadStreamId),
        (frame(HEADERS, 5, 2, &[0x82]), H2Error::BadStreamId),
        (frame(HEADERS, 0xd, 5, b"\x05ab"), H2Error::BadPadding),
        (frame(HEADERS, 5, 5, &[0xff, 0xff, 0xff]), H2Error::Hpack),
        (frame(RESET, 0, 5, &zero[..4]), H2Error::IdleStream),
        (frame(RESET, 0, 1, &zero[..3]), H2Error::BadFrameLength),
        (frame(PRIORITY, 0, 5, &[0, 0, 0, 5, 1]), H2Error::SelfDependency),
        (frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]), H2Error::BadSetting),
        (frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), H2Error::BadInitialWindow),
        (frame(PUSH, 4, 1, &[0, 0, 0, 2, 0x82]), H2Error::PushNotAllowed),
        (frame(PING, 0, 0, &zero[..7]), H2Error::BadFrameLength),
        (frame(GO_AWAY, 0, 1, &zero), H2Error::BadStreamId),
        (frame(WINDOW, 0, 0, &zero[..4]), H2Error::ZeroWindowUpdate),
        (frame(WINDOW, 0, 5, &[0, 0, 0, 1]), H2Error::IdleStream),
        (frame(WINDOW, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), H2Error::WindowOverflow),
        (frame(CONTINUATION, 4, 1, &[0x82]), H2Error::BadContinuation),
        (frame(DATA, 0, 1, &[0; 16_385]), H2Error::FrameTooLarge),
        ([frame(HEADERS, 1, 5, &of(&[])), frame(PING, 0, 0, &zero)].concat(), H2Error::BadContinuation),
        ([frame(HEADERS, 1, 5, &of(&[])), frame(CONTINUATION, 4, 3, &[])].concat(), H2Error::BadContinuation),
    ] {
        let mut bench = Bench::server();
        bench.feed(&[bench.get(1, 4), bench.get(3, 5)].concat()).unwrap();
        bench.output();
        assert_eq!(bench.feed(&octets), Err(error), "{octets:x?}");
        assert_eq!(bench.told(), [(0, error.code())], "{octets:x?}");
        assert_eq!(bench.feed(&frame(PING, 0, 0, &zero)), Err(error), "it stays so");
    }
}

#[test]
fn wrong_frames_on_a_stream_reset_only_the_stream() {
    for (octets, stream, error) in [
        (frame(DATA, 0, 3, b"x"), 3, H2Error::ClosedStream),
        (frame(HEADERS, 5, 3, &[]), 3, H2Error::ClosedStream),
        (frame(HEADERS, 4, 1, &[]), 1, H2Error::MalformedTrailers),
        (frame(HEADERS, 5, 1, &[0x88]), 1, H2Error::MalformedTrailers),
        (frame(DATA, 1, 1, b"xy"), 1, H2Error::ContentLengthMismatch),
        (frame(DATA, 0, 1, b"xyzw"), 1, H2Error::ContentLengthMismatch),
        (frame(HEADERS, 5, 1, &[]), 1, H2Error::ContentLengthMismatch),
        (frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 1]), 1, H2Error::SelfDependency),
        (frame(PRIORITY, 0, 1, &[0, 0, 0, 3]), 1, H2Error::BadFrameLength),
        (frame(WINDOW, 0, 1, &[0; 4]), 1, H2Error::ZeroWindowUpdate),
        (frame(WINDOW, 0, 1, &[0x7f, 0xff, 0xff, 0xff]), 1, H2Error::WindowOverflow),
    ] {
        let mut bench = Bench::server();
        let open = [bench.request(1, 4, &[("content-length", "3")]), bench.get(3, 5)].concat();
        bench.feed(&open).unwrap();
        bench.output();
        let reset = Seen::Reset(stream, StreamEnd::Fault(error), stream == 3);
        assert_eq!(bench.feed(&octets), Ok(vec![reset]), "{octets:x?}");
        assert_eq!(bench.told(), [(stream, error.code())], "{octets:x?}");
        assert_eq!(bench.feed(&octets), Ok(vec![]), "frames on their way are ignored");
        assert_eq!(bench.told(), []);
    }
}

#[test]
fn malformed_request_is_reset_and_never_seen() {
    let mut bench = Bench::server();
    let bad = bench.request(1, 4, &[("connection", "close")]);
    assert_eq!(bench.feed(&bad), Ok(vec![]));
    assert_eq!(bench.told(), [(1, Code::PROTOCOL_ERROR)]);
    assert_eq!(bench.feed(&frame(DATA, 1, 1, b"late")), Ok(vec![]));
    assert_eq!(bench.told(), []);
    let ambiguous = bench.request(3, 5, &[("host", "evil")]);
    let refusal = HeadRefusal::Bad("http2.authority_host_mismatch");
    assert_eq!(bench.feed(&ambiguous), Ok(vec![Seen::Refused(3, refusal)]));
    bench.respond(3, true).unwrap();
}

#[test]
fn closed_streams_are_told_apart_from_reset_ones() {
    let mut bench = Bench::server();
    bench.feed(&bench.get(1, 5)).unwrap();
    bench.respond(1, true).unwrap();
    let key = bench.key(1);
    bench.conn.release(key);
    bench.output();
    assert_eq!(bench.feed(&frame(WINDOW, 0, 1, &[0, 0, 0, 1])), Ok(vec![]));
    assert_eq!(bench.feed(&frame(RESET, 0, 1, &[0; 4])), Ok(vec![]));
    assert_eq!(bench.feed(&frame(DATA, 0, 1, b"x")), Ok(vec![]));
    assert_eq!(bench.told(), [(1, Code::STREAM_CLOSED)]);
    // A stream that the peer passed over is closed as well.
    bench.feed(&bench.get(5, 5)).unwrap();
    assert_eq!(bench.feed(&bench.get(3, 5)), Err(H2Error::ClosedStream));
}

#[test]
fn early_answer_tells_that_the_rest_is_not_wanted() {
    let mut bench = Bench::server();
    bench.feed(&bench.get(1, 4)).unwrap();
    bench.respond(1, true).unwrap();
    let key = bench.key(1);
    bench.conn.release(key);
    assert_eq!(bench.told(), [(1, Code::NO_ERROR)]);
    let late = [frame(DATA, 0, 1, b"late"), frame(HEADERS, 5, 1, &[])].concat();
    assert_eq!(bench.feed(&late), Ok(vec![]));
    let mut client = Bench::client();
    let id = client.open(b"POST", false);
    let key = client.key(id);
    client.conn.release(key);
    assert_eq!(client.told(), [(1, Code::CANCEL)]);
}

#[test]
fn client_reads_responses() {
    let mut bench = Bench::client();
    assert_eq!((bench.open(b"GET", true), bench.open(b"HEAD", true), bench.open(b"POST", false)), (1, 3, 5));
    let octets = [
        bench.response(1, 4, "103", &[("link", "x")]),
        bench.response(1, 4, "200", &[("content-length", "2")]),
        frame(DATA, 1, 1, b"ok"),
        bench.response(3, 5, "200", &[("content-length", "20")]),
        bench.response(5, 4, "200", &[]),
        frame(DATA, 0, 5, b"a"),
        frame(HEADERS, 5, 5, &Bench::block(&[("grpc-status", "0")])),
    ];
    let expected = vec![
        Seen::Response(1, 103, BodyLength::None, false),
        Seen::Response(1, 200, BodyLength::Length(2), false),
        Seen::Data(1, b"ok".to_vec(), true),
        Seen::Response(3, 200, BodyLength::None, true),
        Seen::Response(5, 200, BodyLength::Chunked, false),
        Seen::Data(5, b"a".to_vec(), false),
        Seen::Trailers(5),
    ];
    assert_eq!(bench.feed(&octets.concat()), Ok(expected));
}

#[test]
fn broken_responses_reset_the_stream() {
    let of =
        |status: &str, flags: u8, more: &[(&str, &str)]| Bench::client().response(1, flags, status, more);
    for (octets, error) in [
        (frame(DATA, 1, 1, b"x"), H2Error::DataBeforeHead),
        (of("103", 5, &[]), H2Error::MalformedHead),
        (of("101", 4, &[]), H2Error::MalformedHead),
        (of("abc", 4, &[]), H2Error::MalformedHead),
        (of("200", 5, &[("content-length", "1")]), H2Error::MalformedHead),
        (of("200", 4, &[("transfer-encoding", "chunked")]), H2Error::MalformedHead),
        ([of("204", 4, &[]), frame(DATA, 1, 1, b"x")].concat(), H2Error::ContentLengthMismatch),
        (
            [of("200", 4, &[("content-length", "3")]), frame(DATA, 1, 1, b"x")].concat(),
            H2Error::ContentLengthMismatch,
        ),
        ([of("200", 5, &[]), of("200", 5, &[])].concat(), H2Error::ClosedStream),
    ] {
        let mut bench = Bench::client();
        bench.open(b"POST", false);
        bench.output();
        let seen = bench.feed(&octets).unwrap();
        let complete = error == H2Error::ClosedStream;
        assert_eq!(seen.last(), Some(&Seen::Reset(1, StreamEnd::Fault(error), complete)), "{octets:x?}");
        assert_eq!(bench.told(), [(1, error.code())]);
    }
    let mut bench = Bench::client();
    bench.open(b"GET", true);
    assert_eq!(bench.feed(&of("200", 5, &[])).map(|seen| seen.len()), Ok(1));
    assert_eq!(bench.feed(&frame(HEADERS, 5, 3, &[0x88])), Err(H2Error::IdleStream));
}

#[test]
fn long_heads_are_cut_into_frames_and_read_again() {
    let mut client = Bench::client();
    let mut head = RequestHead::default();
    assert!(head.set_authority(b"h") && head.set_path(b"/"));
    for at in 0..5 {
        head.fields.append(format!("x-{at}").as_bytes(), &[b'v'; 9000]);
    }
    client.conn.open(&head, true).unwrap();
    let frames = client.output();
    let kinds: Vec<_> = frames.iter().map(|(kind, flags, ..)| (*kind, *flags)).collect();
    assert_eq!(kinds, [(Kind::Headers, 1), (Kind::Continuation, 0), (Kind::Continuation, 4)]);
    let mut server = Bench::server();
    for (kind, flags, stream, payload) in frames {
        let kind = if kind == Kind::Headers { HEADERS } else { CONTINUATION };
        server.feed(&frame(kind, flags, stream, &payload)).unwrap();
    }
    let mut read = RequestHead::default();
    server.conn.swap_request(&mut read);
    assert_eq!(read.fields, head.fields);
}

#[test]
fn sending_out_of_order_is_refused() {
    let mut bench = Bench::server();
    bench.feed(&bench.get(1, 5)).unwrap();
    let key = bench.key(1);
    assert_eq!(bench.conn.send_data(key, b"x", true), Err(SendError::OutOfOrder));
    bench.respond(1, true).unwrap();
    assert_eq!(bench.respond(1, true), Err(SendError::OutOfOrder));
    bench.conn.release(key);
    assert_eq!(bench.conn.send_data(key, b"x", true), Err(SendError::Over));
}

#[test]
fn reset_of_the_peer_is_told_with_what_was_complete() {
    let mut bench = Bench::server();
    bench.feed(&[bench.get(1, 5), bench.get(3, 4)].concat()).unwrap();
    let reset = |stream| frame(RESET, 0, stream, &8u32.to_be_bytes());
    let end = StreamEnd::Peer(Code::CANCEL);
    assert_eq!(bench.feed(&reset(1)), Ok(vec![Seen::Reset(1, end, true)]));
    assert_eq!(bench.feed(&reset(3)), Ok(vec![Seen::Reset(3, end, false)]));
    assert_eq!(bench.feed(&reset(3)), Ok(vec![]));
    assert_eq!(bench.feed(&frame(DATA, 1, 3, b"after its own reset")), Ok(vec![]));
    assert_eq!(bench.told(), [(3, Code::STREAM_CLOSED)]);
    assert_eq!(bench.respond(1, true), Err(SendError::Over));
    assert_eq!(bench.conn.end_of(bench.key(1)), Some(end));
    assert_eq!((bench.conn.open_streams(), bench.conn.lingering_streams()), (0, 2));
    for id in [1, 3] {
        let key = bench.key(id);
        bench.conn.release(key);
    }
    assert_eq!((bench.conn.lingering_streams(), bench.told()), (0, vec![]));
}

#[test]
fn head_after_the_peers_own_reset_ends_the_connection() {
    for gone in [false, true] {
        let mut bench = Bench::server();
        bench.feed(&[bench.get(1, 4), frame(RESET, 0, 1, &[0; 4])].concat()).unwrap();
        if gone {
            let key = bench.key(1);
            bench.conn.release(key);
        }
        assert_eq!(bench.feed(&bench.get(1, 5)), Err(H2Error::ClosedStream));
    }
}
