//! Windows in both directions.

use super::*;
use crate::h2::limit::OUTPUT_BYTES;

fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW, 0, stream, &by.to_be_bytes())
}

fn answering(window: u32) -> (Bench, StreamKey) {
    let mut bench = Bench::server();
    bench.feed(&settings(4, window)).unwrap();
    bench.feed(&bench.get(1, 5)).unwrap();
    bench.respond(1, false).unwrap();
    bench.output();
    let key = bench.key(1);
    (bench, key)
}

#[test]
fn data_stops_at_the_stream_window_and_goes_on_when_it_grows() {
    let (mut bench, key) = answering(10);
    assert_eq!(bench.conn.send_data(key, &[1; 20], true), Ok(10));
    assert_eq!(bench.conn.send_data(key, &[1; 10], true), Ok(0));
    assert_eq!(bench.feed(&window(1, 4)), Ok(vec![Seen::Window(1)]));
    assert_eq!(bench.conn.send_data(key, &[1; 10], true), Ok(4));
    assert_eq!(bench.feed(&settings(4, 12)), Ok(vec![Seen::Room]));
    assert_eq!(bench.conn.send_data(key, &[1; 6], true), Ok(2));
    bench.feed(&settings(4, 0)).unwrap();
    bench.feed(&window(1, 12)).unwrap();
    assert_eq!(bench.conn.send_data(key, &[1; 4], true), Ok(0), "the window was negative");
    bench.feed(&window(1, 4)).unwrap();
    assert_eq!(bench.conn.send_data(key, &[1; 4], true), Ok(4));
    let data: Vec<_> = bench.output().into_iter().filter(|(kind, ..)| *kind == Kind::Data).collect();
    assert_eq!(data.iter().map(|(.., payload)| payload.len()).collect::<Vec<_>>(), [10, 4, 2, 4]);
    assert_eq!(data.iter().map(|(_, flags, ..)| *flags).collect::<Vec<_>>(), [0, 0, 0, 1]);
}

#[test]
fn end_needs_no_window() {
    let (mut bench, key) = answering(0);
    assert_eq!(bench.conn.send_data(key, b"", true), Ok(0));
    let last = bench.output().pop().unwrap();
    assert_eq!((last.0, last.1), (Kind::Data, 1));
}

#[test]
fn data_stops_at_the_connection_window() {
    let (mut bench, key) = answering(1 << 20);
    let mut sent = 0;
    loop {
        let n = bench.conn.send_data(key, &[1; 20_000], false).unwrap();
        sent += n;
        bench.output();
        if n == 0 {
            break;
        }
    }
    assert_eq!(sent, 65_535);
    assert_eq!(bench.feed(&window(0, 5)), Ok(vec![Seen::Room]));
    assert_eq!(bench.conn.send_data(key, &[1; 20], false), Ok(5));
}

#[test]
fn data_stops_when_enough_waits_to_be_sent() {
    let (mut bench, key) = answering(1 << 20);
    bench.feed(&window(0, 1 << 20)).unwrap();
    bench.output();
    let n = bench.conn.send_data(key, &vec![1; 1 << 20], false).unwrap();
    assert_eq!(n, OUTPUT_BYTES);
    assert_eq!(bench.conn.send_data(key, b"x", false), Ok(0));
    let frames = bench.output();
    assert!(frames.iter().all(|(.., payload)| payload.len() <= 16_384));
    assert_eq!(bench.conn.send_data(key, b"x", false), Ok(1));
}

#[test]
fn credit_is_granted_when_data_was_used() {
    let mut bench = Bench::server();
    bench.feed(&bench.get(1, 4)).unwrap();
    bench.feed(&frame(DATA, 0, 1, &[1; 16_384]).repeat(3)).unwrap();
    let key = bench.key(1);
    assert_eq!(bench.output(), []);
    bench.conn.consumed(key, 16_384);
    assert_eq!(bench.output(), []);
    bench.conn.consumed(key, 16_384);
    let granted: Vec<_> = bench
        .output()
        .into_iter()
        .map(|(kind, _, stream, payload)| (kind, stream, frame::number(&payload).unwrap()))
        .collect();
    assert_eq!(granted, [(Kind::WindowUpdate, 1, 32_768), (Kind::WindowUpdate, 0, 32_768)]);
    bench.conn.consumed(key, 1 << 20);
    bench.feed(&frame(DATA, 0, 1, &[1; 16_384]).repeat(2)).unwrap();
    bench.conn.release(key);
    let frames = bench.output();
    let back =
        frames.iter().find(|(kind, _, stream, _)| (*kind, *stream) == (Kind::WindowUpdate, 0)).unwrap();
    assert_eq!(frame::number(&back.3), Some(3 * 16_384), "what nobody used is given back to the connection");
}

#[test]
fn data_beyond_the_window_is_an_error() {
    let mut bench = Bench::server();
    bench.feed(&bench.get(1, 4)).unwrap();
    bench.feed(&frame(DATA, 0, 1, &[1; 16_384]).repeat(3)).unwrap();
    assert!(bench.feed(&frame(DATA, 0, 1, &[1; 16_383])).is_ok());
    assert_eq!(bench.feed(&frame(DATA, 0, 1, b"x")), Err(H2Error::WindowExceeded));
    let mut options = options();
    options.connection_window = 1 << 20;
    let mut bench = Bench::of(Role::Server, options);
    bench.feed(&bench.get(1, 4)).unwrap();
    bench.feed(&frame(DATA, 0, 1, &[1; 16_384]).repeat(3)).unwrap();
    bench.feed(&frame(DATA, 0, 1, &[1; 16_383])).unwrap();
    let end = StreamEnd::Fault(H2Error::WindowExceeded);
    assert_eq!(bench.feed(&frame(DATA, 0, 1, b"x")), Ok(vec![Seen::Reset(1, end, false)]));
    assert_eq!(bench.told(), [(1, Code::FLOW_CONTROL_ERROR)]);
}

#[test]
fn window_changes_overflowing_end_the_connection() {
    let (mut bench, _) = answering(65_535);
    bench.feed(&window(1, 0x7fff_ffff - 65_535)).unwrap();
    assert_eq!(bench.feed(&settings(4, 65_536)), Err(H2Error::WindowOverflow));
}

#[test]
fn padding_is_given_back_at_once() {
    let mut bench = Bench::server();
    bench.feed(&bench.get(1, 4)).unwrap();
    let mut padded = vec![255];
    padded.resize(256, 0);
    bench.feed(&frame(DATA, 8, 1, &padded).repeat(80)).unwrap();
    bench.feed(&frame(DATA, 8, 1, &[&[255, b'x'][..], &[0; 255]].concat()).repeat(200)).unwrap();
    assert!(bench.output().iter().any(|(kind, ..)| *kind == Kind::WindowUpdate));
}
