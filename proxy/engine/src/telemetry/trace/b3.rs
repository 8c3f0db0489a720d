//! B3: one `b3` header, or several `x-b3-*` headers.

use super::{Incoming, RequestTrace, read_hex, write_hex};
use outrigger_wire::RequestHead;

const SINGLE: &[u8] = b"b3";
const TRACE_ID: &[u8] = b"x-b3-traceid";
const SPAN_ID: &[u8] = b"x-b3-spanid";
const PARENT: &[u8] = b"x-b3-parentspanid";
const SAMPLED: &[u8] = b"x-b3-sampled";
const FLAGS: &[u8] = b"x-b3-flags";

/// Reads and removes `b3`; `found` tells whether the request speaks this format.
pub(super) fn extract_single(head: &mut RequestHead, found: &mut bool) -> Option<Incoming> {
    let incoming = parse_single(head.fields.get(SINGLE)?);
    head.fields.remove(SINGLE);
    *found = incoming.is_some();
    incoming
}

/// `{trace}-{span}[-{sampled}[-{parent}]]`, or the decision alone.
fn parse_single(text: &[u8]) -> Option<Incoming> {
    if let Some(sampled) = decision(text) {
        return Some(Incoming { sampled: Some(sampled), ..Incoming::default() });
    }
    let mut parts = text.split(|b| *b == b'-');
    let mut incoming = ids(parts.next()?, parts.next()?)?;
    if let Some(sampled) = parts.next() {
        incoming.sampled = Some(decision(sampled)?);
    }
    if let Some(parent) = parts.next() {
        (parent.len() == 16).then(|| read_hex(parent, true)).flatten()?;
    }
    parts.next().is_none().then_some(incoming)
}

/// Reads and removes `x-b3-*`.
pub(super) fn extract_multi(head: &mut RequestHead, found: &mut bool) -> Option<Incoming> {
    if ![TRACE_ID, SPAN_ID, SAMPLED, FLAGS].iter().any(|name| head.fields.contains(name)) {
        return None;
    }
    let incoming = parse_multi(head);
    for name in [TRACE_ID, SPAN_ID, PARENT, SAMPLED, FLAGS] {
        head.fields.remove(name);
    }
    *found = incoming.is_some();
    incoming
}

fn parse_multi(head: &RequestHead) -> Option<Incoming> {
    let mut incoming = match (head.fields.get(TRACE_ID), head.fields.get(SPAN_ID)) {
        (Some(trace), Some(span)) => ids(trace, span)?,
        (None, None) => Incoming::default(),
        _ => return None,
    };
    if let Some(sampled) = head.fields.get(SAMPLED) {
        incoming.sampled = Some(match sampled {
            b"1" | b"true" => true,
            b"0" | b"false" => false,
            _ => return None,
        });
    }
    if head.fields.get(FLAGS) == Some(b"1") {
        incoming.sampled = Some(true);
    }
    Some(incoming)
}

fn decision(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"d" => Some(true),
        b"0" => Some(false),
        _ => None,
    }
}

fn ids(trace: &[u8], span: &[u8]) -> Option<Incoming> {
    if !matches!(trace.len(), 16 | 32) || span.len() != 16 {
        return None;
    }
    let trace_id = read_hex(trace, true)?;
    let span_id = u64::try_from(read_hex(span, true)?).ok()?;
    (trace_id != 0 && span_id != 0).then_some(Incoming { trace_id, span_id, ..Incoming::default() })
}

/// Writes `b3`.
pub(super) fn inject_single(trace: &RequestTrace, head: &mut RequestHead, span_id: u64) -> bool {
    let (trace_hex, span_hex) = hex(trace, span_id);
    let sampled: &[u8] = if trace.sampled { b"-1" } else { b"-0" };
    head.fields.set_parts(SINGLE, &[&trace_hex, b"-", &span_hex, sampled])
}

/// Writes `x-b3-*`.
pub(super) fn inject_multi(trace: &RequestTrace, head: &mut RequestHead, span_id: u64) -> bool {
    let (trace_hex, span_hex) = hex(trace, span_id);
    let mut fits = head.fields.set(TRACE_ID, &trace_hex);
    fits &= head.fields.set(SPAN_ID, &span_hex);
    if trace.sampled && span_id != trace.span_id {
        let mut parent_hex = [0_u8; 16];
        write_hex(&mut parent_hex, u128::from(trace.span_id));
        fits &= head.fields.set(PARENT, &parent_hex);
    }
    fits && head.fields.set(SAMPLED, if trace.sampled { b"1" } else { b"0" })
}

fn hex(trace: &RequestTrace, span_id: u64) -> ([u8; 32], [u8; 16]) {
    let (mut trace_hex, mut span_hex) = ([0_u8; 32], [0_u8; 16]);
    write_hex(&mut trace_hex, trace.trace_id);
    write_hex(&mut span_hex, u128::from(span_id));
    (trace_hex, span_hex)
}
