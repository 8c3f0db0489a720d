//! Binary resources: walked as they lie, in search of what we do not have.
//!
//! Nothing is decoded: the walk reads tags and lengths beside the tables of [`super::schema`], into every `Any`, and
//! allocates nothing unless something is wrong. What passes here decodes as its generated type.

use super::schema::{Enum, Field, Kind, Message, SLOTS_MAX};
use super::{DEPTH_MAX, Findings};
use std::fmt::Write;

/// Walks the content of an `Any`. False, with the reason among the findings, where there is no such type.
pub(super) fn walk(type_url: &str, bytes: &[u8], findings: &mut Findings) -> bool {
    any(type_url, bytes, &Path::Root, 0, findings)
}

/// Where the walk is, without a text until one is asked for.
enum Path<'a> {
    Root,
    Field { above: &'a Path<'a>, name: &'a str, item: Item<'a> },
}

/// Which element of a field.
#[derive(Clone, Copy)]
enum Item<'a> {
    None,
    Number(u32),
    Key(&'a str),
}

impl Path<'_> {
    fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) {
        let Path::Field { above, name, item } = self else { return };
        above.write(out);
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(name);
        // Writing to a text cannot fail.
        let _ = match item {
            Item::None => Ok(()),
            Item::Number(number) => write!(out, "[{number}]"),
            Item::Key(key) => write!(out, "[{key}]"),
        };
    }

    fn with(&self, name: &str) -> String {
        Path::Field { above: self, name, item: Item::None }.text()
    }
}

fn any(type_url: &str, bytes: &[u8], path: &Path<'_>, depth: usize, findings: &mut Findings) -> bool {
    let name = type_url.rsplit('/').next().unwrap_or(type_url);
    match Message::named(name) {
        Some(of) => message(of, bytes, path, depth, findings),
        None if name.is_empty() && super::may_be_empty(&path.text()) => return true,
        None if name.is_empty() => findings.refuse(&path.text(), "has no type"),
        None => findings.unknown_type(name, &path.text()),
    }
    Message::named(name).is_some()
}

fn message(of: &Message, bytes: &[u8], path: &Path<'_>, depth: usize, findings: &mut Findings) {
    if depth > DEPTH_MAX {
        findings.refuse(&path.text(), format!("nested deeper than {DEPTH_MAX}"));
        return;
    }
    if walk_fields(of, bytes, path, depth, findings).is_none() {
        findings.refuse(&path.text(), format!("does not decode as {}", of.name()));
    }
}

/// What one message has shown so far.
struct Seen {
    /// Fields, by position.
    once: u128,
    counts: [u32; SLOTS_MAX],
    unknown: Vec<u32>,
}

/// `None`: the bytes are no encoding of such a message.
fn walk_fields(
    of: &Message,
    bytes: &[u8],
    path: &Path<'_>,
    depth: usize,
    findings: &mut Findings,
) -> Option<()> {
    let mut rest = bytes;
    let mut seen = Seen { once: 0, counts: [0; SLOTS_MAX], unknown: Vec::new() };
    let (mut type_url, mut content) = ("", &[][..]);
    while !rest.is_empty() {
        let tag = u32::try_from(varint(&mut rest)?).ok()?;
        let (number, wire) = (tag >> 3, tag & 7);
        let value = Value::read(&mut rest, wire)?;
        if number == 0 {
            return None;
        }
        let Some((position, field)) = of.field(number) else {
            unknown(of, number, path, &mut seen, findings);
            continue;
        };
        let again = seen.once & (1 << position) != 0;
        seen.once |= 1 << position;
        if again && !field.repeated && matches!(field.kind, Kind::Message(_)) {
            // Decoders put the parts together; what comes out of that is not what was walked.
            findings.refuse(&path.with(field.name()), "is given more than once");
            continue;
        }
        if of.name() == "google.protobuf.Any" {
            match (number, value) {
                (1, Value::Bytes(text)) => type_url = std::str::from_utf8(text).ok()?,
                (_, Value::Bytes(bytes)) => content = bytes,
                _ => return None,
            }
            continue;
        }
        let item = count(field, &mut seen);
        one(field, &value, &At { path, item, depth }, findings)?;
    }
    if of.name() == "google.protobuf.Any" {
        any(type_url, content, path, depth + 1, findings);
    }
    Some(())
}

fn unknown(of: &Message, number: u32, path: &Path<'_>, seen: &mut Seen, findings: &mut Findings) {
    if seen.unknown.contains(&number) {
        return;
    }
    seen.unknown.push(number);
    let name = of.name();
    match crate::official::field_by_number(name, number) {
        Some(field) => findings.official_field(name, field, number, &path.with(field)),
        None => findings
            .refuse(&path.with(&format!("#{number}")), format!("field #{number} of {name} is not known")),
    }
}

/// Which element of its field comes now.
fn count(field: &Field, seen: &mut Seen) -> Item<'static> {
    let Some(count) = field.slot.and_then(|slot| seen.counts.get_mut(usize::from(slot))) else {
        return Item::None;
    };
    *count += 1;
    Item::Number(*count - 1)
}

/// Where a value stands.
struct At<'a> {
    path: &'a Path<'a>,
    item: Item<'a>,
    depth: usize,
}

impl<'a> At<'a> {
    fn path(&self, name: &'a str) -> Path<'a> {
        Path::Field { above: self.path, name, item: self.item }
    }
}

/// One value of a field. `None`: it has another form than the field's.
fn one(field: &Field, value: &Value<'_>, at: &At<'_>, findings: &mut Findings) -> Option<()> {
    match (field.kind, value) {
        (Kind::Message(of), Value::Bytes(bytes)) => {
            let of = Message::at(of)?;
            if of.is_map {
                return entry(field, of, bytes, at, findings);
            }
            message(of, bytes, &at.path(field.name()), at.depth + 1, findings);
        }
        (Kind::Enum(of), Value::Varint(value)) => enumerated(Enum::at(of)?, *value, field, at, findings),
        (Kind::Enum(of), Value::Bytes(packed)) if field.repeated => {
            let mut packed = *packed;
            while !packed.is_empty() {
                enumerated(Enum::at(of)?, varint(&mut packed)?, field, at, findings);
            }
        }
        (Kind::Text, Value::Bytes(text)) => drop(std::str::from_utf8(text).ok()?),
        (Kind::Bytes, Value::Bytes(_))
        | (Kind::Varint, Value::Varint(_))
        | (Kind::Fixed32, Value::Fixed32)
        | (Kind::Fixed64, Value::Fixed64) => {}
        (Kind::Varint, Value::Bytes(packed)) if field.repeated => {
            let mut packed = *packed;
            while !packed.is_empty() {
                varint(&mut packed)?;
            }
        }
        (Kind::Fixed32, Value::Bytes(packed)) if field.repeated && packed.len().is_multiple_of(4) => {}
        (Kind::Fixed64, Value::Bytes(packed)) if field.repeated && packed.len().is_multiple_of(8) => {}
        _ => return None,
    }
    Some(())
}

fn enumerated(of: &Enum, value: u64, field: &Field, at: &At<'_>, findings: &mut Findings) {
    // Negative values are ten bytes long; what counts is the lower half (protobuf encoding, `int32`).
    let number = value as i32;
    if of.has(number) {
        return;
    }
    let (path, name) = (at.path(field.name()).text(), of.name());
    match crate::official::value_by_number(name, number) {
        Some(value) => findings.refuse(&path, format!("`{value}` is not supported by Outrigger")),
        None => findings.refuse(&path, format!("{number} is not a value of {name}")),
    }
}

/// An entry of a map: its value stands under its key.
fn entry(field: &Field, of: &Message, bytes: &[u8], at: &At<'_>, findings: &mut Findings) -> Option<()> {
    let mut rest = bytes;
    let (mut key, mut values) = (String::new(), Vec::new());
    while !rest.is_empty() {
        let tag = u32::try_from(varint(&mut rest)?).ok()?;
        let value = Value::read(&mut rest, tag & 7)?;
        let (position, part) = of.field(tag >> 3)?;
        match (position, &value) {
            (0, Value::Bytes(text)) => std::str::from_utf8(text).ok()?.clone_into(&mut key),
            (0, Value::Varint(number)) => key = number.to_string(),
            (0, _) => return None,
            _ => values.push((part, value)),
        }
    }
    if values.len() > 1 {
        findings.refuse(&at.path(field.name()).text(), "has an entry with two values");
    }
    let above = At { path: at.path, item: Item::Key(&key), depth: at.depth };
    let path = above.path(field.name());
    for (part, value) in values {
        match (part.kind, &value) {
            (Kind::Message(of), Value::Bytes(bytes)) => {
                message(Message::at(of)?, bytes, &path, at.depth + 1, findings);
            }
            _ => one(part, &value, &At { path: at.path, item: above.item, depth: at.depth }, findings)?,
        }
    }
    Some(())
}

/// A value as it lies.
enum Value<'a> {
    Varint(u64),
    Fixed64,
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn read(rest: &mut &'a [u8], wire: u32) -> Option<Self> {
        Some(match wire {
            0 => Self::Varint(varint(rest)?),
            1 => {
                *rest = rest.get(8..)?;
                Self::Fixed64
            }
            2 => {
                let length = usize::try_from(varint(rest)?).ok()?;
                let (bytes, after) = rest.split_at_checked(length)?;
                *rest = after;
                Self::Bytes(bytes)
            }
            5 => {
                *rest = rest.get(4..)?;
                Self::Fixed32
            }
            // Groups (3, 4) are in none of our messages, nor in any of the official ones.
            _ => return None,
        })
    }
}

/// A number of variable length; at most ten bytes.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        if shift == 63 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}
