//! A server connection bears every octet a client may send, however it is cut: it writes whole frames, holds no more than
//! one frame, and lets go of every stream.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger_wire::h2::{Event, PREFACE, Role};
use outrigger_wire::{RequestHead, ResponseHead};

mod h2_common;

use h2_common::{End, SETTINGS};

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let mut end = End::new(Role::Server);
    if mode & 1 == 0 {
        assert!(end.feed(PREFACE, 24, |_, _| {}) && end.feed(SETTINGS, 9, |_, _| {}));
    }
    let eager = mode & 2 != 0;
    let answer = move |end: &mut End, event: &Event<'_>| match event {
        Event::Request { stream, .. } | Event::Refused { stream, .. } => {
            let mut head = RequestHead::default();
            end.conn.swap_request(&mut head);
            assert!(head.byte_size() <= 60 << 10);
            let response = ResponseHead { status: 200, ..ResponseHead::default() };
            end.conn.send_response(*stream, &response, false).expect("a stream that just began");
            if eager {
                let _ = end.conn.send_data(*stream, &[0; 5000], true);
                end.conn.release(*stream);
            } else {
                end.streams.push(*stream);
            }
        }
        Event::Data { stream, octets, .. } => end.conn.consumed(*stream, octets.len()),
        Event::Window { stream } => {
            let _ = end.conn.send_data(*stream, &[0; 500], false);
        }
        Event::Reset { stream, .. } => end.conn.release(*stream),
        Event::Response { .. } => unreachable!("servers get none"),
        Event::Trailers { .. }
        | Event::Room
        | Event::Settings
        | Event::GoAway { .. }
        | Event::Pong => {}
    };
    if end.feed(data, usize::from(mode >> 2) + 1, answer) {
        end.finish();
    }
});
