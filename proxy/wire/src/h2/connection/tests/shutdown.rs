//! Orderly ends, of both sides.

use super::*;

#[test]
fn server_announces_first_and_serves_what_is_on_its_way() {
    let mut bench = Bench::server();
    bench.feed(&bench.get(1, 5)).unwrap();
    bench.conn.shut_down();
    bench.conn.shut_down();
    let frames = bench.output();
    assert_eq!(frames.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(), [Kind::GoAway, Kind::Ping]);
    assert_eq!(frame::number(&frames[0].3), Some(STREAM_ID_MAX));
    assert_eq!(bench.feed(&bench.get(3, 5)).unwrap().len(), 1);
    bench.feed(&frame(PING, 1, 0, &frames[1].3)).unwrap();
    let frames = bench.output();
    assert_eq!((frames[0].0, frame::number(&frames[0].3)), (Kind::GoAway, Some(3)));
    // Too late: ignored with everything that belongs to it.
    assert_eq!(bench.feed(&[bench.get(5, 4), frame(DATA, 1, 5, b"x")].concat()), Ok(vec![]));
    assert!(bench.output().is_empty() && !bench.conn.is_done());
    for id in [1, 3] {
        bench.respond(id, true).unwrap();
        let key = bench.key(id);
        bench.conn.release(key);
    }
    assert!(bench.conn.is_done());
}

#[test]
fn client_goes_away_at_once() {
    let mut bench = Bench::client();
    bench.conn.shut_down();
    assert!(bench.conn.is_done() && bench.conn.is_used_up());
    assert_eq!(bench.told(), [(0, Code::NO_ERROR)]);
}

#[test]
fn streams_above_the_peers_last_are_told_to_be_unprocessed() {
    let mut bench = Bench::client();
    for _ in 0..3 {
        bench.open(b"POST", false);
    }
    let payload = [3u32.to_be_bytes(), 0u32.to_be_bytes()].concat();
    let expected = vec![Seen::GoAway(Code::NO_ERROR), Seen::Reset(5, StreamEnd::Unprocessed, false)];
    assert_eq!(bench.feed(&frame(GO_AWAY, 0, 0, &payload)), Ok(expected));
    assert_eq!((bench.conn.streams_left(), bench.conn.is_used_up()), (0, true));
    assert_eq!(bench.conn.open(&RequestHead::default(), true), Err(SendError::NoRoom));
    assert_eq!(bench.feed(&bench.response(3, 5, "200", &[])).unwrap().len(), 1);
    let payload = [1u32.to_be_bytes(), 2u32.to_be_bytes()].concat();
    assert_eq!(
        bench.feed(&frame(GO_AWAY, 0, 0, &payload)),
        Ok(vec![Seen::GoAway(Code::INTERNAL_ERROR), Seen::Reset(3, StreamEnd::Unprocessed, false)])
    );
}

#[test]
fn client_opens_as_many_streams_as_it_may() {
    let conn = Connection::new(Role::Client, options(), NOW);
    assert_eq!(conn.streams_left(), STREAMS_BEFORE_SETTINGS);
    let mut bench = Bench::client();
    bench.feed(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 2])).unwrap();
    bench.open(b"GET", true);
    bench.open(b"GET", true);
    assert_eq!(bench.conn.streams_left(), 0);
    assert_eq!(bench.conn.open(&RequestHead::default(), true), Err(SendError::NoRoom));
    bench.feed(&bench.response(1, 5, "200", &[])).unwrap();
    assert_eq!(bench.conn.streams_left(), 1);
}

#[test]
fn heads_larger_than_the_peer_takes_are_not_sent() {
    let mut bench = Bench::client();
    bench.feed(&frame(SETTINGS, 0, 0, &[0, 6, 0, 0, 1, 0])).unwrap();
    bench.output();
    let mut head = RequestHead::default();
    assert!(head.set_authority(b"h") && head.set_path(b"/"));
    let base = head.byte_size() + 5 * 32;
    head.fields.append(b"x", &vec![b'v'; 256 - base - 1]);
    assert!(bench.conn.open(&head, true).is_ok());
    head.fields.set(b"x", &vec![b'v'; 256 - base]);
    assert_eq!(bench.conn.open(&head, true), Err(SendError::TooLarge));
}

#[test]
fn pings_are_answered_both_ways() {
    let mut bench = Bench::client();
    bench.conn.ping();
    let ping = bench.output().pop().unwrap();
    assert_eq!(bench.feed(&frame(PING, 1, 0, &ping.3)), Ok(vec![Seen::Pong]));
    assert_eq!(bench.feed(&frame(PING, 1, 0, b"whatever")), Ok(vec![]));
    assert_eq!(bench.feed(&frame(PING, 0, 0, b"whatever")), Ok(vec![]));
    assert_eq!(bench.output(), [(Kind::Ping, 1, 0, b"whatever".to_vec())]);
}

#[test]
fn last_stream_id_can_be_used_once() {
    let mut bench = Bench::client();
    bench.conn.next_id = STREAM_ID_MAX - 2;
    assert_eq!(bench.conn.streams_left(), 2);
    assert_eq!(bench.open(b"GET", true), STREAM_ID_MAX - 2);
    assert_eq!((bench.open(b"GET", true), bench.conn.streams_left()), (STREAM_ID_MAX, 0));
    assert!(bench.conn.is_used_up());
}
