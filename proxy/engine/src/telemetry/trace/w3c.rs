//! W3C Trace Context: `traceparent` and `tracestate`.

use super::{Incoming, RequestTrace, read_hex, write_hex};
use outrigger_wire::{Known, RequestHead};

const TRACEPARENT: &[u8] = b"traceparent";
const TRACESTATE: &[u8] = b"tracestate";

/// §3.3.1.1: more members than this may be discarded.
const STATE_MEMBERS_MAX: usize = 32;

/// Reads the context. An invalid `traceparent`, or more than one, is removed together with `tracestate` (§4.3: the
/// trace is restarted); an invalid `tracestate` alone is removed alone.
pub(super) fn extract(head: &mut RequestHead) -> Option<Incoming> {
    let incoming = {
        let mut fields = head.fields.get_all(TRACEPARENT);
        match (fields.next(), fields.next()) {
            (Some(one), None) => parse_parent(one),
            _ => None,
        }
    };
    if incoming.is_none() {
        if head.fields.contains(TRACEPARENT) {
            head.fields.remove(TRACEPARENT);
        }
        if head.fields.contains(TRACESTATE) {
            head.fields.remove(TRACESTATE);
        }
        return None;
    }
    clean_state(head);
    incoming
}

/// `version "-" trace-id "-" parent-id "-" trace-flags`, and for versions above 00 perhaps more.
fn parse_parent(text: &[u8]) -> Option<Incoming> {
    let (known, rest) = text.split_at_checked(55)?;
    let mut parts = known.split(|b| *b == b'-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some()
        || version.len() != 2
        || trace.len() != 32
        || parent.len() != 16
        || flags.len() != 2
    {
        return None;
    }
    let version = read_hex(version, false)?;
    let ends_well = rest.is_empty() || (version > 0 && rest.first() == Some(&b'-'));
    if version == 0xff || !ends_well {
        return None;
    }
    let trace_id = read_hex(trace, false)?;
    let span_id = u64::try_from(read_hex(parent, false)?).ok()?;
    let flags = u8::try_from(read_hex(flags, false)?).ok()?;
    if trace_id == 0 || span_id == 0 {
        return None;
    }
    // Bit 1 (level 2: the trace id is random) is handed on; others are unknown and must be zero.
    Some(Incoming { trace_id, span_id, sampled: Some(flags & 1 != 0), other_flags: flags & 2 })
}

/// Leaves at most one, valid, `tracestate` field.
fn clean_state(head: &mut RequestHead) {
    let mut fields = head.fields.get_all(TRACESTATE);
    let Some(first) = fields.next() else { return };
    let Some(second) = fields.next() else {
        drop(fields);
        if !is_valid_state(first) {
            head.fields.remove(TRACESTATE);
        }
        return;
    };
    let mut joined = first.to_vec();
    for more in std::iter::once(second).chain(fields) {
        joined.push(b',');
        joined.extend_from_slice(more);
    }
    head.fields.remove(TRACESTATE);
    if is_valid_state(&joined) {
        head.fields.set(TRACESTATE, &joined);
    }
}

/// Whether it has 1 to 32 members of valid syntax; empty members are allowed beside others (§3.3.1.1).
fn is_valid_state(text: &[u8]) -> bool {
    let mut members = 0;
    for member in text.split(|b| *b == b',') {
        let member = trim_ows(member);
        if member.is_empty() {
            continue;
        }
        members += 1;
        let Some(equals) = member.iter().position(|b| *b == b'=') else { return false };
        let (key, value) = member.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        if members > STATE_MEMBERS_MAX || !is_valid_key(key) || !is_valid_value(value) {
            return false;
        }
    }
    members > 0
}

/// `( lcalpha / DIGIT ) 0*255( keychar )`, of level 2 (§3.3.1.3.1); that of level 1, where a key had at most one `@`, is
/// part of it.
fn is_valid_key(key: &[u8]) -> bool {
    let is_keychar = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= 256
        && key.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && key.iter().all(is_keychar)
}

fn is_valid_value(value: &[u8]) -> bool {
    (1..=256).contains(&value.len())
        && value.iter().all(|b| matches!(b, 0x20..=0x2b | 0x2d..=0x3c | 0x3e..=0x7e))
        && value.last() != Some(&b' ')
}

fn trim_ows(text: &[u8]) -> &[u8] {
    let is_text = |b: &u8| *b != b' ' && *b != b'\t';
    let start = text.iter().position(is_text).unwrap_or(text.len());
    let end = text.iter().rposition(is_text).map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}

/// Writes `traceparent`, version 00.
pub(super) fn inject(trace: &RequestTrace, head: &mut RequestHead, span_id: u64) -> bool {
    let mut text = *b"00-................................-................-..";
    let fields = [
        (3..35, trace.trace_id),
        (36..52, u128::from(span_id)),
        (53..55, u128::from(u8::from(trace.sampled) | trace.other_flags)),
    ];
    for (place, value) in fields {
        if let Some(place) = text.get_mut(place) {
            write_hex(place, value);
        }
    }
    head.fields.put(Known::Traceparent, &text)
}
