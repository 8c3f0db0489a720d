//! The little of protobuf's wire format that the services need which filters ask. The messages are few and small; they are
//! written and read here by hand, so that the data path knows no generated types.
//!
//! Source: protobuf encoding. Unknown fields are passed over, groups are refused.

use outrigger_wire::protobuf;
use serde_json::{Map, Number, Value};

/// Deepest nesting of a `google.protobuf.Value` that is read.
const DEPTH_MAX: usize = 32;

/// A message being written. Values that are their type's default are left out, as in proto3.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// What was written.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A number, truth value or enumerator.
    pub(crate) fn number(&mut self, field: u32, number: u64) {
        if number != 0 {
            protobuf::number(&mut self.0, field, number);
        }
    }

    /// Bytes, or a text that is UTF-8.
    pub(crate) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.always(field, bytes);
        }
    }

    /// Bytes, also when there are none: of a field with presence, such as a member of a `oneof` or of a list.
    pub(crate) fn always(&mut self, field: u32, bytes: &[u8]) {
        protobuf::bytes(&mut self.0, field, bytes);
    }

    /// A text; bytes that are not UTF-8 are exclamation marks, as in Envoy.
    pub(crate) fn text(&mut self, field: u32, text: &[u8]) {
        if std::str::from_utf8(text).is_ok() {
            return self.bytes(field, text);
        }
        let mut clean = Vec::with_capacity(text.len());
        for chunk in text.utf8_chunks() {
            clean.extend_from_slice(chunk.valid().as_bytes());
            clean.resize(clean.len() + chunk.invalid().len(), b'!');
        }
        self.bytes(field, &clean);
    }

    /// A message.
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.always(field, &inner.0);
    }

    /// An entry of a map of texts.
    pub(crate) fn entry(&mut self, field: u32, key: &[u8], value: &[u8]) {
        self.message(field, |entry| {
            entry.text(1, key);
            entry.text(2, value);
        });
    }

    /// The fields of a `google.protobuf.Struct`.
    pub(crate) fn structure(&mut self, map: &Map<String, Value>) {
        for (key, value) in map {
            self.message(1, |entry| {
                entry.text(1, key.as_bytes());
                entry.message(2, |w| w.value(value));
            });
        }
    }

    /// The fields of a `google.protobuf.Value`.
    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => protobuf::number(&mut self.0, 1, 0),
            Value::Number(number) => {
                protobuf::fixed64(&mut self.0, 2, number.as_f64().unwrap_or_default().to_bits());
            }
            Value::String(text) => self.always(3, text.as_bytes()),
            Value::Bool(truth) => protobuf::number(&mut self.0, 4, (*truth).into()),
            Value::Object(map) => self.message(5, |w| w.structure(map)),
            Value::Array(list) => self.message(6, |w| {
                for value in list {
                    w.message(1, |w| w.value(value));
                }
            }),
        }
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    /// A number of variable length.
    Number(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
    /// Eight bytes.
    Fixed(u64),
}

impl<'a> Field<'a> {
    /// The bytes; none where it is something else.
    pub(crate) const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) | Self::Fixed(_) => &[],
        }
    }

    /// The text.
    pub(crate) fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// The number; 0 where it is something else.
    pub(crate) const fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) | Self::Fixed(_) => 0,
        }
    }
}

/// The message is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// Calls `see` with number and value of every field.
pub(crate) fn read<'a>(
    mut message: &'a [u8],
    mut see: impl FnMut(u32, Field<'a>) -> Result<(), Broken>,
) -> Result<(), Broken> {
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let field = u32::try_from(key >> 3).map_err(|_| Broken)?;
        let value = match key & 7 {
            0 => Field::Number(varint(&mut message)?),
            1 => {
                let (bytes, rest) = message.split_first_chunk::<8>().ok_or(Broken)?;
                message = rest;
                Field::Fixed(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| Broken)?;
                let (bytes, rest) = message.split_at_checked(length).ok_or(Broken)?;
                message = rest;
                Field::Bytes(bytes)
            }
            5 => {
                message = message.get(4..).ok_or(Broken)?;
                continue;
            }
            _ => return Err(Broken),
        };
        see(field, value)?;
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Broken> {
    let (value, rest) = protobuf::split_varint(bytes).ok_or(Broken)?;
    *bytes = rest;
    Ok(value)
}

/// Reads a `google.protobuf.Struct`.
pub(crate) fn structure(message: &[u8]) -> Result<Map<String, Value>, Broken> {
    structure_at(message, 0)
}

/// Reads a `google.protobuf.Value`.
pub(crate) fn value(message: &[u8]) -> Result<Value, Broken> {
    value_at(message, 0)
}

fn structure_at(message: &[u8], depth: usize) -> Result<Map<String, Value>, Broken> {
    let mut map = Map::new();
    read(message, |field, entry| {
        if field != 1 {
            return Ok(());
        }
        let (mut name, mut content) = (String::new(), Value::Null);
        read(entry.bytes(), |field, part| {
            match field {
                1 => name = part.text(),
                2 => content = value_at(part.bytes(), depth + 1)?,
                _ => {}
            }
            Ok(())
        })?;
        map.insert(name, content);
        Ok(())
    })?;
    Ok(map)
}

fn value_at(message: &[u8], depth: usize) -> Result<Value, Broken> {
    if depth > DEPTH_MAX {
        return Err(Broken);
    }
    let mut found = Value::Null;
    read(message, |field, part| {
        found = match (field, part) {
            (2, Field::Fixed(bits)) => number(f64::from_bits(bits)),
            (3, part) => Value::String(part.text()),
            (4, part) => Value::Bool(part.number() != 0),
            (5, part) => Value::Object(structure_at(part.bytes(), depth + 1)?),
            (6, part) => {
                let mut list = Vec::new();
                read(part.bytes(), |field, item| {
                    if field == 1 {
                        list.push(value_at(item.bytes(), depth + 1)?);
                    }
                    Ok(())
                })?;
                Value::Array(list)
            }
            _ => Value::Null,
        };
        Ok(())
    })?;
    Ok(found)
}

/// A whole number keeps its shape: 1, not 1.0.
fn number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9.0e15 {
        return Value::Number((number as i64).into());
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn structures_come_back_as_they_went() {
        let value = json!({"s": "text", "e": "", "n": 2.5, "i": -7, "b": true, "f": false, "z": null, "l": [1, "x", [], {}], "o": {"in": {"deep": 1}}});
        let Value::Object(map) = value else { panic!() };
        let mut writer = Writer::default();
        writer.structure(&map);
        assert_eq!(structure(&writer.into_bytes()), Ok(map));
    }

    #[test]
    fn fields_of_every_kind_are_read_and_broken_messages_refused() {
        let mut writer = Writer::default();
        writer.number(1, 300);
        writer.number(2, 0);
        writer.text(3, b"a\xff");
        writer.entry(4, b"k", b"");
        let bytes = writer.into_bytes();
        let mut seen = Vec::new();
        read(&bytes, |field, value| {
            seen.push((field, value));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen[0], (1, Field::Number(300)));
        assert_eq!((seen[1].0, seen[1].1.text().as_str()), (3, "a!"));
        assert_eq!(seen[2], (4, Field::Bytes(b"\x0a\x01k")));
        for end in [2, 4, bytes.len() - 1] {
            assert_eq!(read(&bytes[..end], |_, _| Ok(())), Err(Broken), "{end}");
        }
        assert_eq!(read(&[0x0d, 1, 2, 3, 4, 0x0b], |_, _| Ok(())), Err(Broken), "a group");
        assert_eq!(read(&[0x80; 11], |_, _| Ok(())), Err(Broken));
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        let mut writer = Writer::default();
        writer.value(&deep);
        assert_eq!(value(&writer.into_bytes()), Err(Broken));
    }
}
