//! The way of nearly all heads: every line is `name: value CR LF` and holds nothing that needs a second look.
//!
//! Such a head is checked and stored in one pass. Whatever is written in another way, and every mistake, is left to the
//! tokeniser, which knows what may still be allowed and how a mistake is called; so there is one judge of what is strict,
//! and this is only its fast lane (a property test holds the two against each other).

use super::token::{FramingFields, is_framing_look_alike};
use crate::field::{FieldBlock, Known};
use crate::syntax;

/// A head as far as it is the same for requests and responses.
pub(super) struct Plain<'a> {
    /// The first line, without its end.
    pub(super) start_line: &'a [u8],
    /// What its fields say about framing.
    pub(super) framing: FramingFields<'a>,
    /// Bytes of the head.
    pub(super) consumed: usize,
}

/// Reads the head at the start of `window` and stores its fields; `None` when it is incomplete or not plain, and `fields`
/// then holds rubbish.
pub(super) fn read<'a>(
    window: &'a [u8],
    take_host: bool,
    max_fields: usize,
    fields: &mut FieldBlock,
) -> Option<Plain<'a>> {
    let (start_line, mut rest) = line(window)?;
    let mut framing = FramingFields::default();
    let mut left = max_fields;
    loop {
        let (text, after) = line(rest)?;
        if text.is_empty() {
            rest = after;
            break;
        }
        left = left.checked_sub(1)?;
        if take_host && let Some(value) = host(text) {
            if !syntax::is_trimmed(value) || framing.host.replace(value).is_some() {
                return None;
            }
            rest = after;
            continue;
        }
        let (known, name_len) = fields.push_line(rest.get(..text.len() + 2)?)?;
        let (name, value) = text.split_at_checked(name_len)?;
        let value = value.strip_prefix(b": ").filter(|value| syntax::is_trimmed(value))?;
        match known {
            // A second one.
            Known::ContentLength if framing.content_length.is_some() => return None,
            Known::ContentLength => framing.content_length = Some(syntax::decimal(value)?),
            Known::TransferEncoding => {
                if framing.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return None;
                }
                framing.is_chunked = true;
            }
            Known::Other if is_framing_look_alike(name) => return None,
            _ => {}
        }
        rest = after;
    }
    if framing.is_chunked && framing.content_length.is_some() {
        return None;
    }
    Some(Plain { start_line, framing, consumed: window.len() - rest.len() })
}

/// The value of a `host` line.
fn host(line: &[u8]) -> Option<&[u8]> {
    let (name, value) = line.split_at_checked(6)?;
    (matches!(name, [b'h' | b'H', ..]) && name.eq_ignore_ascii_case(b"host: ")).then_some(value)
}

/// A line without its CR LF, and what follows it. No byte in the line is a control byte, not even a tab.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        let found = syntax::controls(u64::from_le_bytes(*word));
        if found != 0 {
            // The lowest mark is exact; a borrow can only spoil those above it.
            at += (found.trailing_zeros() / 8) as usize;
            return cut(bytes, at);
        }
        at += 8;
    }
    at += tail.iter().position(|byte| *byte < 0x20 || *byte == 0x7f)?;
    cut(bytes, at)
}

fn cut(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    let (line, rest) = bytes.split_at_checked(at)?;
    Some((line, rest.strip_prefix(b"\r\n")?))
}

/// Method, target and whether it is HTTP/1.0, of a plain request line.
pub(super) fn request_line(line: &[u8]) -> Option<(&[u8], &[u8], bool)> {
    let (rest, version) = line.split_at_checked(line.len().checked_sub(9)?)?;
    let http10 = match version {
        b" HTTP/1.1" => false,
        b" HTTP/1.0" => true,
        _ => return None,
    };
    let (method, target) = rest.split_at_checked(memchr::memchr(b' ', rest)?)?;
    let target = target.strip_prefix(b" ")?;
    (syntax::is_token(method) && syntax::is_uri(target)).then_some((method, target, http10))
}

/// Status of a plain HTTP/1.1 status line.
pub(super) fn status_line(line: &[u8]) -> Option<u16> {
    let [digits @ .., b' '] = line.strip_prefix(b"HTTP/1.1 ")?.get(..4)? else { return None };
    let reason = line.get(13..)?;
    if !(reason.is_empty() || syntax::is_trimmed(reason)) {
        return None;
    }
    let status = u16::try_from(syntax::decimal(digits)?).ok()?;
    (100..=999).contains(&status).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_first_control_byte_and_only_at_cr_lf() {
        for length in 0..20 {
            for at in 0..length {
                for byte in 0..=255u8 {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    let good = byte >= 0x20 && byte != 0x7f;
                    let bytes = [&text[..], b"\r\nrest of it"].concat();
                    assert_eq!(line(&bytes).is_some(), good, "{byte} at {at} of {length}");
                }
            }
            let bytes = [&vec![0x80; length][..], b"\r\n\x01\x7f"].concat();
            assert_eq!(line(&bytes), Some((&vec![0x80; length][..], &b"\x01\x7f"[..])));
            assert_eq!(line(&bytes[..length + 1]), None);
        }
    }
}
