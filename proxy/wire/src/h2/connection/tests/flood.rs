//! Every limit, at it and one past.

use super::*;
use crate::h2::limit::*;

fn repeat(bench: &mut Bench, octets: &[u8], times: usize) -> Result<(), H2Error> {
    for _ in 0..times {
        bench.feed(octets)?;
        bench.output();
    }
    Ok(())
}

#[test]
fn control_frames() {
    for octets in [frame(PING, 0, 0, &[1; 8]), frame(PING, 1, 0, &[1; 8]), frame(SETTINGS, 0, 0, &[])] {
        let mut bench = Bench::server();
        // The acknowledgement of our SETTINGS was one.
        assert_eq!(repeat(&mut bench, &octets, CONTROL_FRAMES as usize - 1), Ok(()));
        assert_eq!(bench.feed(&octets), Err(H2Error::ControlFlood));
    }
}

#[test]
fn idle_frames() {
    for octets in [
        frame(PRIORITY, 0, 7, &[0, 0, 0, 3, 1]),
        frame(0xfa, 0, 0, b"x"),
        frame(WINDOW, 0, 1, &[0, 0, 0, 1]),
        frame(RESET, 0, 1, &[0; 4]),
    ] {
        let mut bench = Bench::server();
        bench.feed(&bench.get(1, 4)).unwrap();
        assert_eq!(repeat(&mut bench, &octets, IDLE_FRAMES as usize), Ok(()));
        assert_eq!(bench.feed(&octets), Err(H2Error::IdleFrameFlood));
    }
}

#[test]
fn empty_data() {
    let mut bench = Bench::server();
    bench.feed(&bench.get(1, 4)).unwrap();
    let empty = frame(DATA, 0, 1, &[]);
    assert_eq!(repeat(&mut bench, &empty, EMPTY_DATA_FRAMES as usize), Ok(()));
    assert_eq!(bench.feed(&empty), Err(H2Error::EmptyDataFlood));
    assert_eq!(H2Error::EmptyDataFlood.code(), Code::ENHANCE_YOUR_CALM);
}

#[test]
fn rapid_reset() {
    let mut bench = Bench::server();
    let mut turn = |id: u32| {
        let octets = [bench.get(id, 5), frame(RESET, 0, id, &[0, 0, 0, 8])].concat();
        let seen = bench.feed(&octets).map(|_| ());
        if let Some(key) = bench.conn.streams.find(id) {
            bench.conn.release(key);
        }
        bench.output();
        seen
    };
    for at in 0..RESET_SAMPLE - 1 {
        assert_eq!(turn(2 * at + 1), Ok(()));
    }
    assert_eq!(turn(2 * RESET_SAMPLE - 1), Err(H2Error::RapidReset));
}

#[test]
fn answered_streams_may_be_reset() {
    let mut bench = Bench::server();
    for at in 0..3 * RESET_SAMPLE {
        let id = 2 * at + 1;
        bench.feed(&bench.get(id, 5)).unwrap();
        bench.respond(id, false).unwrap();
        bench.feed(&frame(RESET, 0, id, &[0, 0, 0, 8])).unwrap();
        let key = bench.key(id);
        bench.conn.release(key);
        bench.output();
    }
}

#[test]
fn resets_pending() {
    let mut bench = Bench::server();
    // Answered, so that only their owner's slowness counts.
    let mut turn = |at: usize| {
        let id = 2 * at as u32 + 1;
        bench.feed(&bench.get(id, 5))?;
        bench.respond(id, false).unwrap();
        bench.output();
        bench.feed(&frame(RESET, 0, id, &[0, 0, 0, 8])).map(|_| ())
    };
    for at in 0..RESETS_PENDING {
        assert_eq!(turn(at), Ok(()));
    }
    assert_eq!(turn(RESETS_PENDING), Err(H2Error::ResetsPending));
}

#[test]
fn resets_provoked() {
    let mut bench = Bench::server();
    let mut turn = |at: u32| {
        let id = 2 * at + 1;
        let octets = [bench.get(id, 5), frame(WINDOW, 0, id, &[0; 4])].concat();
        let seen = bench.feed(&octets).map(|_| ());
        if let Some(key) = bench.conn.streams.find(id) {
            bench.conn.release(key);
        }
        bench.output();
        seen
    };
    for at in 0..RESETS_PROVOKED {
        assert_eq!(turn(at), Ok(()));
    }
    assert_eq!(turn(RESETS_PROVOKED), Err(H2Error::ResetsProvoked));
}

#[test]
fn continuation_frames() {
    let mut bench = Bench::server();
    let first =
        frame(HEADERS, 1, 1, &Bench::block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]));
    bench.feed(&first).unwrap();
    for _ in 0..CONTINUATION_FRAMES - 1 {
        assert_eq!(bench.feed(&frame(CONTINUATION, 0, 1, &[])), Ok(vec![]));
    }
    let last = frame(CONTINUATION, 4, 1, &Bench::block(&[(":authority", "h")]));
    assert_eq!(bench.feed(&last), Ok(vec![Seen::Request(1, BodyLength::None, true)]));
    let mut bench = Bench::server();
    bench.feed(&first).unwrap();
    for _ in 0..CONTINUATION_FRAMES {
        assert_eq!(bench.feed(&frame(CONTINUATION, 0, 1, &[])), Ok(vec![]));
    }
    assert_eq!(bench.feed(&last), Err(H2Error::ContinuationFlood));
}

#[test]
fn header_block() {
    let most = (60 << 10) * BLOCK_SHARE;
    for (more, expected) in [(0, Ok(vec![])), (1, Err(H2Error::HeaderBlockTooLarge))] {
        let mut bench = Bench::server();
        bench.feed(&frame(HEADERS, 1, 1, &[])).unwrap();
        let mut left = most;
        while left > 16_384 {
            bench.feed(&frame(CONTINUATION, 0, 1, &[0; 16_384])).unwrap();
            left -= 16_384;
        }
        assert_eq!(bench.feed(&frame(CONTINUATION, 0, 1, &vec![0; left + more])), expected);
    }
}

#[test]
fn header_list_is_counted_and_refused_without_being_stored() {
    let mut bench = Bench::server();
    // One entry of 4 kB, referred to a thousand times.
    let mut block =
        Bench::block(&[(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/")]);
    block.extend([0x40, 1, b'b', 0x7f, 0x80 | 0x49, 0x1e]);
    block.extend([b'z'; 127 + 0x49 + (0x1e << 7)]);
    block.extend([0xbe; 1000]);
    let seen = bench.feed(&frame(HEADERS, 5, 1, &block)).unwrap();
    assert_eq!(seen, [Seen::Refused(1, HeadRefusal::TooLarge)]);
    let mut head = RequestHead::default();
    bench.conn.swap_request(&mut head);
    assert!(head.byte_size() <= 60 << 10);
    bench.respond(1, true).unwrap();
}

#[test]
fn streams_above_the_limit_are_refused() {
    let mut options = options();
    options.settings.max_concurrent_streams = 2;
    let mut bench = Bench::of(Role::Server, options);
    for id in [1, 3] {
        assert_eq!(bench.feed(&bench.get(id, 4)).unwrap().len(), 1);
    }
    assert_eq!(bench.feed(&[bench.get(5, 4), frame(DATA, 0, 5, b"x")].concat()), Ok(vec![]));
    assert_eq!(bench.told(), [(5, Code::REFUSED_STREAM)]);
    bench.feed(&frame(RESET, 0, 1, &[0; 4])).unwrap();
    assert_eq!(bench.feed(&bench.get(7, 4)).unwrap().len(), 1);
}

#[test]
fn interim_responses() {
    let mut bench = Bench::client();
    bench.open(b"GET", true);
    let interim = bench.response(1, 4, "103", &[]);
    assert_eq!(repeat(&mut bench, &interim, INTERIM_RESPONSES as usize), Ok(()));
    let end = StreamEnd::Fault(H2Error::InterimFlood);
    assert_eq!(bench.feed(&interim), Ok(vec![Seen::Reset(1, end, false)]));
}

#[test]
fn streams_above_a_known_limit() {
    let mut options = options();
    options.settings.max_concurrent_streams = 0;
    let mut bench = Bench::of(Role::Server, options);
    let mut id = 1;
    for _ in 0..RESETS_PROVOKED {
        assert_eq!(bench.feed(&bench.get(id, 4)), Ok(vec![]));
        id += 2;
        bench.output();
    }
    assert_eq!(bench.feed(&bench.get(id, 4)), Err(H2Error::ResetsProvoked));
}

#[test]
fn control_output() {
    let mut options = options();
    options.settings.max_concurrent_streams = 0;
    // The peer has not acknowledged our SETTINGS.
    let mut bench = Bench { conn: Connection::new(Role::Server, options, NOW), held: Vec::new() };
    bench.feed(&[&PREFACE[..], &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    bench.output();
    let octets = 13;
    let most = CONTROL_OUTPUT_BYTES / octets;
    for at in 0..most as u32 {
        bench.feed(&bench.get(2 * at + 1, 5)).unwrap();
    }
    assert_eq!(bench.feed(&bench.get(2 * most as u32 + 1, 5)), Err(H2Error::ControlOutput));
}
