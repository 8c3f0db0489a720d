//! A client connection bears every octet a server may send, however it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger_wire::h2::{Event, Role};
use outrigger_wire::{RequestHead, ResponseHead};

mod h2_common;

use h2_common::{End, SETTINGS};

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let mut end = End::new(Role::Client);
    if mode & 1 == 0 {
        assert!(end.feed(SETTINGS, 9, |_, _| {}));
    }
    for method in [&b"GET"[..], b"HEAD", b"POST"] {
        let mut head = RequestHead::default();
        assert!(head.set_method(method) && head.set_authority(b"h") && head.set_path(b"/"));
        let stream = end.conn.open(&head, method != b"POST").expect("room for three streams");
        end.streams.push(stream);
    }
    let last = end.streams[2];
    let _ = end.conn.send_data(last, &[0; 3000], mode & 2 != 0);
    let take = |end: &mut End, event: &Event<'_>| match event {
        Event::Response { framing, .. } => {
            let mut head = ResponseHead::default();
            end.conn.swap_response(&mut head);
            assert_eq!(framing.informational, head.status < 200);
        }
        Event::Data { stream, octets, .. } => end.conn.consumed(*stream, octets.len()),
        Event::Window { stream } => {
            let _ = end.conn.send_data(*stream, &[0; 500], false);
        }
        Event::Reset { stream, .. } => end.conn.release(*stream),
        Event::Request { .. } | Event::Refused { .. } => unreachable!("clients get none"),
        Event::Trailers { .. }
        | Event::Room
        | Event::Settings
        | Event::GoAway { .. }
        | Event::Pong => {}
    };
    if end.feed(data, usize::from(mode >> 2) + 1, take) {
        end.finish();
    }
});
