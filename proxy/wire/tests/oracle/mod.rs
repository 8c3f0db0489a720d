//! A slow, obvious reader of chunked bodies, and the decoder driven with any split of its input.
//! Shared by the property tests and the fuzz targets.

use outrigger_wire::h1::{BodyDecoder, BodyLength, BodyStep, H1Error, Limits};

/// A decoded body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) rest: Vec<u8>,
}

/// Decodes with the input arriving in pieces of these sizes, in turn.
pub(crate) fn decode_split(wire: &[u8], splits: &[usize]) -> Result<Read, H1Error> {
    let limits = Limits::default();
    let mut decoder = BodyDecoder::new(BodyLength::Chunked);
    let mut read = Read::default();
    let (mut start, mut end) = (0, 0);
    let mut sizes = splits.iter().cycle();
    loop {
        match decoder.step(&wire[start..end], &limits)? {
            BodyStep::Data { skip, len } => {
                assert!(len > 0);
                read.body.extend_from_slice(&wire[start + skip..start + skip + len]);
                start += skip + len;
            }
            BodyStep::NeedMore { consumed } => {
                start += consumed;
                assert_eq!(start, end, "framing left behind");
                if end == wire.len() {
                    decoder.end_of_input()?;
                    panic!("incomplete, yet a proper end");
                }
                end = end.saturating_add(*sizes.next().unwrap()).min(wire.len());
            }
            BodyStep::End { consumed } => {
                assert!(decoder.is_complete() && decoder.end_of_input().is_ok());
                read.rest = wire[start + consumed..].to_vec();
                if let Some(trailers) = decoder.trailers() {
                    read.trailers = trailers.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
                }
                return Ok(read);
            }
        }
    }
}

/// What the slow reader says.
#[derive(Debug)]
pub(crate) enum Oracle {
    Complete(Read),
    Incomplete,
    Refused,
}

/// Takes a line; `Err(true)` when what is there cannot become a line, `Err(false)` when more could.
fn line<'a>(wire: &mut &'a [u8]) -> Result<&'a [u8], bool> {
    for at in 0..wire.len() {
        match wire[at] {
            b'\n' => return Err(true),
            b'\r' if at + 1 == wire.len() => return Err(false),
            b'\r' if wire[at + 1] == b'\n' => {
                let found = &wire[..at];
                *wire = &wire[at + 2..];
                return Ok(found);
            }
            b'\r' => return Err(true),
            _ => {}
        }
    }
    Err(false)
}

/// Could the start of a size line, or a whole one, be right? `whole` also demands a digit.
fn size_line_ok(text: &[u8], whole: bool) -> bool {
    let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let rest = &text[digits..];
    (digits > 0 || (text.is_empty() && !whole))
        && digits <= 16
        && (digits < 16 || text[0] < b'8')
        && (rest.is_empty()
            || (rest[0] == b';' && rest.iter().all(|b| *b == b'\t' || (0x20..0x7f).contains(b))))
}

/// The grammar of RFC 9112 §7.1 as we accept it, on the whole input at once.
pub(crate) fn oracle(wire: &[u8]) -> Oracle {
    let mut rest = wire;
    let mut read = Read::default();
    loop {
        let before = rest;
        let text = match line(&mut rest) {
            Ok(text) => text,
            Err(true) => return Oracle::Refused,
            Err(false) => {
                let open = before.strip_suffix(b"\r").unwrap_or(before);
                let ended = open.len() != before.len();
                return if size_line_ok(open, ended) { Oracle::Incomplete } else { Oracle::Refused };
            }
        };
        if !size_line_ok(text, true) {
            return Oracle::Refused;
        }
        let digits: Vec<u8> = text.iter().copied().take_while(u8::is_ascii_hexdigit).collect();
        let size = usize::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        if rest.len() < size {
            return Oracle::Incomplete;
        }
        read.body.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        match rest {
            [b'\r', b'\n', ..] => rest = &rest[2..],
            [] | [b'\r'] => return Oracle::Incomplete,
            _ => return Oracle::Refused,
        }
    }
    let mut bad = false;
    loop {
        match line(&mut rest) {
            Ok(b"") if bad || read.trailers.len() > Limits::default().max_trailer_fields => {
                return Oracle::Refused;
            }
            Ok(b"") => {
                read.rest = rest.to_vec();
                return Oracle::Complete(read);
            }
            Ok(text) => match text.split(|b| *b == b':').next() {
                Some(name)
                    if name.len() < text.len() && name_ok(name) && text.iter().all(|b| value_ok(*b)) =>
                {
                    let value = text[name.len() + 1..].trim_ascii();
                    read.trailers.push((name.to_ascii_lowercase(), value.to_vec()));
                }
                // The decoder judges the trailer section when it is complete.
                _ => bad = true,
            },
            Err(true) => return Oracle::Refused,
            Err(false) => return Oracle::Incomplete,
        }
    }
}

/// A token that is neither connection-specific nor framing, nor reads like framing.
fn name_ok(name: &[u8]) -> bool {
    const FORBIDDEN: [&str; 10] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "te",
        "http2-settings",
        "content-length",
        "host",
        "trailer",
    ];
    let lower = String::from_utf8_lossy(name).to_lowercase();
    let dashed = lower.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    outrigger_wire::syntax::is_token(name)
        && !FORBIDDEN.contains(&lower.as_str())
        && dashed != "content-length"
        && dashed != "transfer-encoding"
}

fn value_ok(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}
