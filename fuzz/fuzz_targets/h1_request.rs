//! A request head that is accepted means one thing only: written and read again it is the same, no
//! part of it is accepted with another meaning, and a reader that counts lines agrees on the framing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger_wire::RequestHead;
use outrigger_wire::h1::{
    BodyLength, ConnectionHeader, Limits, Parsed, RequestFraming, encode_request, ends_head, parse_request,
};

fn parse(text: &[u8], head: &mut RequestHead) -> Option<(usize, RequestFraming)> {
    match parse_request(text, &Limits::default(), head) {
        Ok(Parsed::Complete { consumed, framing }) => Some((consumed, framing)),
        Ok(Parsed::Partial) | Err(_) => None,
    }
}

fuzz_target!(|data: &[u8]| {
    let mut head = RequestHead::default();
    let Some((consumed, framing)) = parse(data, &mut head) else { return };
    let text = &data[..consumed];
    assert!(ends_head(data, 0));

    // No shorter input is a whole head, and what follows the head changes nothing.
    let mut other = RequestHead::default();
    for end in [consumed - 1, consumed / 2] {
        let part = parse_request(&data[..end], &Limits::default(), &mut other);
        assert_eq!(part, Ok(Parsed::Partial));
    }
    assert_eq!(parse(text, &mut other), Some((consumed, framing)));
    assert_eq!(other, head);

    // A reader that only splits lines at CR LF and names at the first colon sees the same framing.
    assert!(text.iter().enumerate().all(|(at, byte)| *byte != b'\n' || (at > 0 && text[at - 1] == b'\r')));
    assert!(!text.contains(&0));
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let count = |name: &str| {
        let is_it = |line: &&&[u8]| {
            let found = line.split(|byte| *byte == b':').next().unwrap_or_default();
            found.len() < line.len() && found.eq_ignore_ascii_case(name.as_bytes())
        };
        lines.iter().filter(is_it).count()
    };
    let expected = match framing.body {
        BodyLength::None => (0, 0),
        BodyLength::Length(_) => (1, 0),
        BodyLength::Chunked => (0, 1),
        BodyLength::UntilClose => unreachable!("requests have no such framing"),
    };
    assert_eq!((count("content-length"), count("transfer-encoding")), expected);
    assert!(framing.http10 || count("host") == 1);

    // Written again it has the same meaning, whatever connection fields it came with.
    if head.authority().is_empty() {
        return;
    }
    let mut out = Vec::new();
    encode_request(&head, framing.body, ConnectionHeader::None, &mut out);
    let (again, written) = parse(&out, &mut other).expect("what we write is readable");
    assert_eq!(again, out.len());
    let body = match framing.body {
        BodyLength::None if head.method().expects_body() => BodyLength::Length(0),
        body => body,
    };
    assert_eq!((written.body, written.keep_alive), (body, true));
    assert_eq!((other.method_bytes(), other.authority()), (head.method_bytes(), head.authority()));
    assert_eq!(other.path(), head.path());
});
