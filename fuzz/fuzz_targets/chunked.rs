//! The chunk decoder agrees with a slow reader of the same grammar, however the input is split.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger_wire::h1::H1Error;

#[path = "../../proxy/wire/tests/oracle/mod.rs"]
mod oracle;

use oracle::{Oracle, decode_split, oracle as slow};

fuzz_target!(|data: &[u8]| {
    let Some((split, wire)) = data.split_first() else { return };
    let fast = decode_split(wire, &[usize::from(*split).max(1), 1, 3]);
    assert_eq!(fast, decode_split(wire, &[usize::MAX]), "the split made a difference");
    match slow(wire) {
        Oracle::Complete(expected) => assert_eq!(fast, Ok(expected)),
        Oracle::Incomplete => assert_eq!(fast, Err(H1Error::UnexpectedEof)),
        Oracle::Refused => assert!(!matches!(fast, Ok(_) | Err(H1Error::UnexpectedEof)), "{fast:?}"),
    }
});
