//! Attributes of a span in one piece of memory, in the form in which they are sent: a sampled request makes some thirty of
//! them, and a text each of its own, or a message each, would cost more than all the rest of tracing.
//!
//! Source: OpenTelemetry protocol 1.x, `KeyValue` and `AnyValue`; protocol buffers' encoding.

use outrigger_wire::protobuf::{Kind, key, split_varint, varint, varint_size};
use std::fmt;

/// Value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanValue<'a> {
    /// A text.
    Text(&'a str),
    /// A number.
    Number(i64),
}

/// Names and values, in the order they were added. A name may stand there twice.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

/// `Span.attributes`, a message.
const ATTRIBUTE: u8 = key(9, Kind::Bytes) as u8;
/// `KeyValue.key`, a text.
const KEY: u8 = key(1, Kind::Bytes) as u8;
/// `KeyValue.value`, a message.
const VALUE: u8 = key(2, Kind::Bytes) as u8;
/// `AnyValue.string_value`.
const TEXT: u8 = key(1, Kind::Bytes) as u8;
/// `AnyValue.int_value`.
const NUMBER: u8 = key(3, Kind::Varint) as u8;

impl Attributes {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.begin(name, 1 + varint_size(value.len() as u64) + value.len());
        self.0.push(TEXT);
        varint(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
    }

    /// Adds a text; what is no UTF-8 in it is replaced.
    pub fn bytes(&mut self, name: &str, value: &[u8]) {
        match std::str::from_utf8(value) {
            Ok(value) => self.text(name, value),
            Err(_) => self.text(name, &String::from_utf8_lossy(value)),
        }
    }

    /// Adds a number.
    pub fn number(&mut self, name: &str, value: i64) {
        let wire = value.cast_unsigned();
        self.begin(name, 1 + varint_size(wire));
        self.0.push(NUMBER);
        varint(&mut self.0, wire);
    }

    /// Everything before an `AnyValue` of so many bytes.
    fn begin(&mut self, name: &str, value_size: usize) {
        let name_size = 1 + varint_size(name.len() as u64) + name.len();
        let whole = name_size + 1 + varint_size(value_size as u64) + value_size;
        if let (Ok(whole @ ..0x80), Ok(name_length), Ok(value_size)) =
            (u8::try_from(whole), u8::try_from(name.len()), u8::try_from(value_size))
        {
            // Nearly all: every length is one byte.
            self.0.extend_from_slice(&[ATTRIBUTE, whole, KEY, name_length]);
            self.0.extend_from_slice(name.as_bytes());
            self.0.extend_from_slice(&[VALUE, value_size]);
            return;
        }
        self.0.push(ATTRIBUTE);
        varint(&mut self.0, whole as u64);
        self.0.push(KEY);
        varint(&mut self.0, name.len() as u64);
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(VALUE);
        varint(&mut self.0, value_size as u64);
    }

    /// All of them as OTLP writes them: entries of `opentelemetry.proto.trace.v1.Span.attributes`.
    pub fn as_otlp(&self) -> &[u8] {
        &self.0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, SpanValue<'_>)> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (entry, after) = message(ATTRIBUTE, rest)?;
            rest = after;
            let (name, entry) = message(KEY, entry)?;
            let (value, _) = message(VALUE, entry)?;
            let value = match value.split_first()? {
                (&NUMBER, number) => SpanValue::Number(split_varint(number)?.0.cast_signed()),
                _ => SpanValue::Text(std::str::from_utf8(message(TEXT, value)?.0).ok()?),
            };
            Some((std::str::from_utf8(name).ok()?, value))
        })
    }

    /// The first of a name.
    pub fn get(&self, name: &str) -> Option<SpanValue<'_>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// The content of the field at the start, which must be this one, and what follows it.
fn message(field: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = split_varint(bytes.strip_prefix(&[field])?)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Given {
        Text(String, Vec<u8>),
        Number(String, i64),
    }

    fn given() -> impl Strategy<Value = Given> {
        prop_oneof![
            (".{0,20}", proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(n, v)| Given::Text(n, v)),
            (".{0,20}", any::<i64>()).prop_map(|(n, v)| Given::Number(n, v)),
        ]
    }

    proptest! {
        #[test]
        fn what_was_added_comes_back_in_order(all in proptest::collection::vec(given(), 0..20)) {
            let mut attributes = Attributes::with_capacity(8);
            for one in &all {
                match one {
                    Given::Text(name, value) => attributes.bytes(name, value),
                    Given::Number(name, value) => attributes.number(name, *value),
                }
            }
            let expected: Vec<String> = all.iter().map(|one| match one {
                Given::Text(name, value) => format!("{name}={}", String::from_utf8_lossy(value)),
                Given::Number(name, value) => format!("{name}:{value}"),
            }).collect();
            let found: Vec<String> = attributes.iter().map(|(name, value)| match value {
                SpanValue::Text(text) => format!("{name}={text}"),
                SpanValue::Number(number) => format!("{name}:{number}"),
            }).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
