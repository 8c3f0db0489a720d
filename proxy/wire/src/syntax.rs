//! Which bytes may stand where: tokens, field values, request targets, authorities, numbers.
//!
//! The tables are stricter than the grammar only where software in the field disagrees about the
//! meaning of the extra freedom; each such place says so.

use std::net::Ipv6Addr;

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const REG_NAME: u8 = 4;
/// What RFC 3986 allows in a path and query.
const URI: u8 = 16;

/// Per byte, the sets it belongs to.
static CLASS: [u8; 256] = classes();

#[allow(clippy::indexing_slicing)] // evaluated by the compiler; an error here is a build error
const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut index = 0;
    while index < 256 {
        let byte = index as u8;
        let alphanumeric = byte.is_ascii_alphanumeric();
        // RFC 9110 §5.6.2: tchar.
        if alphanumeric || in_set(byte, b"!#$%&'*+-.^_`|~") {
            table[index] |= TOKEN;
        }
        // RFC 9112 §3.2 allows only URI characters; clients send the rest of visible ASCII (`|`, `{`,
        // `"`), and no reader takes those for a delimiter. `#` starts a fragment, which never
        // belongs in a request target.
        if byte > 0x20 && byte < 0x7f && byte != b'#' {
            table[index] |= TARGET;
        }
        // RFC 3986 §3.2.2: unreserved and sub-delims, without `,`: a comma is the trace of two Host
        // fields joined on the way. `%` is judged by its digits in `is_host`.
        if alphanumeric || in_set(byte, b"-._~!$&'()*+;=") {
            table[index] |= REG_NAME;
        }
        if alphanumeric || in_set(byte, b"-._~!$&'()*+,;=:@/?%") {
            table[index] |= URI;
        }
        index += 1;
    }
    table
}

#[allow(clippy::indexing_slicing)] // evaluated by the compiler
const fn in_set(byte: u8, set: &[u8]) -> bool {
    let mut index = 0;
    while index < set.len() {
        if set[index] == byte {
            return true;
        }
        index += 1;
    }
    false
}

/// `class` is one set. Without a branch per byte: nearly all texts are good, so that stopping early gains nothing.
#[inline]
fn all_in(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |all, byte| all & CLASS.get(usize::from(*byte)).copied().unwrap_or(0)) != 0
}

/// Whether `bytes` is made of what RFC 3986 allows in a path and query; stricter than [`is_target`].
pub(crate) fn is_uri(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all_in(bytes, URI)
}

/// Whether `bytes` is a token (RFC 9110 §5.6.2): a method or a field name.
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all_in(bytes, TOKEN)
}

/// Whether `bytes` may be a field value: HTAB, SP, visible ASCII and bytes from 0x80 (RFC 9110 §5.5).
#[must_use]
pub fn is_field_value(bytes: &[u8]) -> bool {
    // Not by the table: comparisons become vector instructions.
    !bytes.iter().fold(false, |bad, byte| bad | ((*byte < 0x20) & (*byte != b'\t')) | (*byte == 0x7f))
}

/// Whether a value is not empty and has no space at either end.
pub(crate) const fn is_trimmed(value: &[u8]) -> bool {
    !matches!(value, [] | [b' ', ..] | [.., b' '])
}

/// Whether a value can stay as it is: trimmed, and no control byte in it, not even a tab.
pub(crate) fn is_plain_value(value: &[u8]) -> bool {
    if !is_trimmed(value) {
        return false;
    }
    let (words, rest) = value.as_chunks::<8>();
    let bad = words.iter().fold(0, |bad, word| bad | controls(u64::from_le_bytes(*word)));
    bad == 0 && !rest.iter().fold(false, |bad, byte| bad | (*byte < 0x20) | (*byte == 0x7f))
}

/// Where the first colon is.
#[inline]
pub(crate) fn colon(line: &[u8]) -> Option<usize> {
    let (words, tail) = line.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        // A byte that is a colon becomes 0; the lowest 0 is marked exactly.
        let differs = u64::from_le_bytes(*word) ^ (u64::MAX / 255 * 0x3a);
        let found = differs.wrapping_sub(u64::MAX / 255) & !differs & (u64::MAX / 255 * 0x80);
        if found != 0 {
            return Some(at + (found.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    tail.iter().position(|byte| *byte == b':').map(|rest| at + rest)
}

/// Marks the first of eight bytes that is below 0x20 or DEL, and perhaps others above it; 0 when there is none.
pub(crate) const fn controls(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let deletes = word ^ (ONES * 0x7f);
    (word.wrapping_sub(ONES * 0x20) & !word | deletes.wrapping_sub(ONES) & !deletes) & (ONES * 0x80)
}

/// Whether every byte may stand in a request target: visible ASCII without `#`.
#[must_use]
pub fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all_in(bytes, TARGET)
}

/// Whether `bytes` is `host [":" port]` without user information (RFC 9110 §4.2.4 calls that an error).
///
/// The host is a registered name, an IPv4 address or an IPv6 address in brackets, and not empty; the
/// port may be empty and is at most 65535. Zone identifiers and `IPvFuture` are refused.
#[must_use]
pub fn is_authority(bytes: &[u8]) -> bool {
    let (host_ok, port) = match bytes.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let (address, after) = rest.split_at(end);
            let after = after.strip_prefix(b"]").unwrap_or(after);
            (is_ipv6(address), if after.is_empty() { None } else { Some(after) })
        }
        None => match memchr::memchr(b':', bytes) {
            Some(colon) => {
                let (host, port) = bytes.split_at(colon);
                (is_host(host), Some(port))
            }
            None => (is_host(bytes), None),
        },
    };
    host_ok && port.is_none_or(|port| port.strip_prefix(b":").is_some_and(is_port))
}

/// Whether `bytes` is an authority that also names a port, as CONNECT demands (RFC 9112 §3.2.3).
#[must_use]
pub fn is_authority_with_port(bytes: &[u8]) -> bool {
    is_authority(bytes) && port_of(bytes).is_some()
}

/// The port written in an authority; `None` when absent, empty or not a port.
#[must_use]
pub fn port_of(authority: &[u8]) -> Option<u16> {
    let colon = memchr::memrchr(b':', authority)?;
    let (before, port) = authority.split_at(colon);
    if before.first() == Some(&b'[') && before.last() != Some(&b']') {
        return None;
    }
    u16::try_from(decimal(port.strip_prefix(b":")?)?).ok()
}

/// The host part of an authority: without port, brackets kept.
#[must_use]
pub fn host_of(authority: &[u8]) -> &[u8] {
    let end = if authority.first() == Some(&b'[') {
        memchr::memchr(b']', authority).map_or(authority.len(), |at| at + 1)
    } else {
        memchr::memchr(b':', authority).unwrap_or(authority.len())
    };
    authority.get(..end).unwrap_or(authority)
}

fn is_ipv6(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// A registered name; percent-encoding only of bytes that could not be written plainly.
fn is_host(bytes: &[u8]) -> bool {
    if all_in(bytes, REG_NAME) {
        return !bytes.is_empty();
    }
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            if !all_in(&[*first], REG_NAME) {
                return false;
            }
            continue;
        }
        let [high, low, tail @ ..] = rest else { return false };
        rest = tail;
        match (hex(*high), hex(*low)) {
            // Encoded delimiters, controls or spaces would mean one host to us and another to a
            // reader that decodes.
            (Some(high), Some(low)) => {
                let byte = high << 4 | low;
                if byte < 0x80 && !byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte) {
                    return false;
                }
            }
            _ => return false,
        }
    }
    true
}

fn is_port(bytes: &[u8]) -> bool {
    bytes.is_empty() || (bytes.len() <= 5 && decimal(bytes).is_some_and(|port| port <= u64::from(u16::MAX)))
}

/// A decimal number of ASCII digits only, at most `i64::MAX`.
///
/// The bound is half of what `u64` holds, because a reader behind us may count in signed 64 bits; a
/// length above it is an attack or a mistake.
#[must_use]
pub fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    let mut number: u64 = 0;
    for byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (number <= i64::MAX.unsigned_abs()).then_some(number)
}

/// The value of one hexadecimal digit.
#[must_use]
pub const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// `bytes` without leading and trailing SP and HTAB (RFC 9110 §5.6.3, OWS).
#[must_use]
pub const fn trim_ows(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [b' ' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
    while let [body @ .., b' ' | b'\t'] = rest {
        rest = body;
    }
    rest
}

/// The members of a comma-separated list, trimmed, empty members skipped (RFC 9110 §5.6.1.2).
pub fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim_ows).filter(|member| !member.is_empty())
}

/// Eight lower-case hexadecimal digits, all at once.
#[must_use]
pub const fn hex_digits(value: u32) -> [u8; 8] {
    // Each nibble into a byte of its own.
    let mut spread = value as u64;
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in the bytes of ten and above, which are letters.
    let letters = (spread + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (spread + 0x3030_3030_3030_3030 + letters * 0x27).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colon_is_found_where_it_is_first() {
        for length in 0..20 {
            for at in 0..=length {
                for byte in [0, b'9', b';', 0xba, 0x3b, 0xff] {
                    let mut text = vec![byte; length];
                    assert_eq!(colon(&text), None);
                    text.insert(at, b':');
                    assert_eq!(colon(&text), Some(at), "{byte} {length}");
                    text.push(b':');
                    assert_eq!(colon(&text), Some(at), "{byte} {length}");
                }
            }
        }
    }

    #[test]
    fn hex_digits_are_those_of_the_formatter() {
        for value in [0, 9, 10, 0x0123_4567, 0x89ab_cdef, 0xa9f0_0f9a, u32::MAX] {
            assert_eq!(hex_digits(value), *format!("{value:08x}").as_bytes());
        }
    }

    #[test]
    fn authority_valid_forms_accepted() {
        for good in [
            "a",
            "a.b",
            "a:1",
            "a:",
            "a:65535",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:8080",
            "a_b",
            "a~b",
            "%c3%a9.example",
            "my-svc.ns",
            "[::ffff:1.2.3.4]:1",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
    }

    #[test]
    fn authority_bad_forms_refused() {
        for bad in [
            "",
            ":80",
            "a b",
            "a,b",
            "a@b",
            "u:p@b",
            "a/b",
            "a#b",
            "a?b",
            "a\\b",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]80",
            "a:b",
            "a:99999",
            "a:65536",
            "a:000080",
            "a\tb",
            "%00",
            "%2f",
            "%4",
            "%zz",
            "a:1:2",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "a\u{e9}",
            "[]",
            "a:+1",
            "a%",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn host_and_port_split() {
        let table: [(&[u8], &[u8], Option<u16>); 6] = [
            (b"a", b"a", None),
            (b"a:", b"a", None),
            (b"a:80", b"a", Some(80)),
            (b"[::1]", b"[::1]", None),
            (b"[::1]:443", b"[::1]", Some(443)),
            (b"", b"", None),
        ];
        for (authority, host, port) in table {
            assert_eq!(host_of(authority), host);
            assert_eq!(port_of(authority), port);
        }
    }

    #[test]
    fn decimal_at_and_past_the_bound() {
        assert_eq!(decimal(b"9223372036854775807"), Some(9_223_372_036_854_775_807));
        assert_eq!(decimal(b"9223372036854775808"), None);
        assert_eq!(decimal(b"18446744073709551616"), None);
        assert_eq!(decimal(b"00"), Some(0));
        for bad in [&b""[..], b"+1", b"-1", b"1 ", b" 1", b"0x1", b"1.0", b"1,1", b"\xd9\xa0"] {
            assert_eq!(decimal(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn list_members_skip_empty_and_trim() {
        let members: Vec<_> = list_members(b" a ,, b\t,c, ").collect();
        assert_eq!(members, [&b"a"[..], b"b", b"c"]);
    }
}
