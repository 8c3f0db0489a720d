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
    loop {
        let (text, after) = line(rest)?;
        if text.is_empty() {
            rest = after;
            break;
        }
        if fields.len() + usize::from(framing.host.is_some()) >= max_fields {
            return None;
        }
        let (name_len, has_upper) = name(text)?;
        let (name, value) = text.split_at_checked(name_len)?;
        let value = value.strip_prefix(b": ")?;
        if !is_plain_value(value) {
            return None;
        }
        if take_host && name_len == 4 && name.eq_ignore_ascii_case(b"host") {
            if framing.host.replace(value).is_some() {
                return None;
            }
        } else {
            let whole = rest.get(..text.len() + 2)?;
            match fields.push_line(whole, name_len, value.len(), has_upper)? {
                Known::ContentLength => {
                    if framing.content_length.replace(syntax::decimal(value)?).is_some() {
                        return None;
                    }
                }
                Known::TransferEncoding => {
                    if framing.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return None;
                    }
                    framing.is_chunked = true;
                }
                Known::Other if is_framing_look_alike(name) => return None,
                _ => {}
            }
        }
        rest = after;
    }
    if framing.is_chunked && framing.content_length.is_some() {
        return None;
    }
    Some(Plain { start_line, framing, consumed: window.len() - rest.len() })
}

/// A line without its CR LF, and what follows it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = bytes.split_at_checked(memchr::memchr(b'\r', bytes)?)?;
    Some((line, rest.strip_prefix(b"\r\n")?))
}

/// Length of the name before the colon, and whether it has upper-case letters.
fn name(line: &[u8]) -> Option<(usize, bool)> {
    let mut seen = 0;
    for (at, byte) in line.iter().enumerate() {
        let class = syntax::class(*byte);
        if class & syntax::TOKEN == 0 {
            return (*byte == b':' && at > 0).then_some((at, seen & syntax::UPPER != 0));
        }
        seen |= class;
    }
    None
}

/// Whether a value is visible bytes and single spaces of any number between them: no tab, no control byte, no white space
/// at either end, and not empty.
fn is_plain_value(value: &[u8]) -> bool {
    if matches!(value, [] | [b' ', ..] | [.., b' ']) {
        return false;
    }
    let (words, rest) = value.as_chunks::<8>();
    let mut bad = words.iter().fold(0, |bad, word| bad | controls(u64::from_le_bytes(*word)));
    if !rest.is_empty() {
        let mut word = [b' '; 8];
        word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        bad |= controls(u64::from_le_bytes(word));
    }
    bad == 0
}

/// Not 0 when one of eight bytes is below 0x20 or is DEL.
const fn controls(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let deletes = word ^ (ONES * 0x7f);
    (word.wrapping_sub(ONES * 0x20) & !word | deletes.wrapping_sub(ONES) & !deletes) & (ONES * 0x80)
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
    if !(reason.is_empty() || is_plain_value(reason)) {
        return None;
    }
    let status = u16::try_from(syntax::decimal(digits)?).ok()?;
    (100..=999).contains(&status).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_are_found_at_every_place() {
        for length in 1..20 {
            for at in 0..length {
                for byte in 0..=255u8 {
                    let mut value = vec![b'x'; length];
                    value[at] = byte;
                    let edge = byte == b' ' && (at == 0 || at == length - 1);
                    let expected = byte >= 0x20 && byte != 0x7f && !edge;
                    assert_eq!(is_plain_value(&value), expected, "{byte} at {at} of {length}");
                }
            }
        }
        assert!(!is_plain_value(b""));
    }
}
