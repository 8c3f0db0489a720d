//! A response head that is accepted means one thing only; see `h1_request`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger_wire::h1::{BodyLength, ConnectionHeader, Limits, Parsed, encode_response, parse_response};
use outrigger_wire::{Method, ResponseHead};

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let method = [Method::Get, Method::Head, Method::Connect, Method::Post][usize::from(*choice & 3)];
    let (mut head, mut other) = (ResponseHead::default(), ResponseHead::default());
    let limits = Limits::default();
    let Ok(Parsed::Complete { consumed, framing }) = parse_response(data, method, &limits, &mut head) else {
        return;
    };
    assert_eq!(parse_response(&data[..consumed - 1], method, &limits, &mut other), Ok(Parsed::Partial));
    assert!((100..1000).contains(&head.status));
    if framing.switching || framing.informational || framing.body == BodyLength::UntilClose {
        assert!(!framing.keep_alive || framing.informational);
    }
    if framing.switching {
        return;
    }
    let mut out = Vec::new();
    encode_response(&head, framing.body, ConnectionHeader::None, &mut out);
    let parsed = parse_response(&out, method, &limits, &mut other);
    let Ok(Parsed::Complete { consumed, framing: written }) = parsed else {
        panic!("what we write is not readable: {parsed:?}");
    };
    assert_eq!(consumed, out.len());
    assert_eq!((other.status, written.body), (head.status, framing.body));
});
