//! Attributes of a span in one piece of memory: a sampled request makes some thirty of them, and a text each of its own would
//! cost more than all the rest of tracing.

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
///
/// One entry after the other: kind (1 byte), length of the name (2), length of the value (4), name, value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

const TEXT: u8 = 0;
const NUMBER: u8 = 1;

impl Attributes {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a text; what is no UTF-8 in it is replaced. Names are cut at 65,535 bytes.
    pub fn text(&mut self, name: &str, value: &[u8]) {
        self.text_with(name, |out| out.extend_from_slice(value));
    }

    /// Adds a text that `write` appends.
    pub fn text_with(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let length_at = self.begin(TEXT, name);
        let start = self.0.len();
        write(&mut self.0);
        if let Err(bad) = std::str::from_utf8(self.0.get(start..).unwrap_or_default()) {
            let _ = bad;
            let fixed = String::from_utf8_lossy(self.0.get(start..).unwrap_or_default()).into_owned();
            self.0.truncate(start);
            self.0.extend_from_slice(fixed.as_bytes());
        }
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        if let Some(place) = self.0.get_mut(length_at..length_at + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    /// Adds a number.
    pub fn number(&mut self, name: &str, value: i64) {
        let length_at = self.begin(NUMBER, name);
        self.0.extend_from_slice(&value.to_le_bytes());
        if let Some(place) = self.0.get_mut(length_at..length_at + 4) {
            place.copy_from_slice(&8_u32.to_le_bytes());
        }
    }

    /// Everything up to the value; returns where the value's length is to be written.
    fn begin(&mut self, kind: u8, name: &str) -> usize {
        let mut most = name.len().min(usize::from(u16::MAX));
        while !name.is_char_boundary(most) {
            most -= 1;
        }
        let name = name.get(..most).unwrap_or_default();
        self.0.push(kind);
        self.0.extend_from_slice(&u16::try_from(name.len()).unwrap_or(0).to_le_bytes());
        let length_at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(name.as_bytes());
        length_at
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, SpanValue<'_>)> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (entry, after) = split(rest)?;
            rest = after;
            Some(entry)
        })
    }

    /// The first of a name.
    pub fn get(&self, name: &str) -> Option<SpanValue<'_>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// The first entry and what follows it.
fn split(bytes: &[u8]) -> Option<((&str, SpanValue<'_>), &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (name_length, rest) = rest.split_first_chunk::<2>()?;
    let (value_length, rest) = rest.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*name_length)))?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*value_length)).ok()?)?;
    let value = match *kind {
        NUMBER => SpanValue::Number(i64::from_le_bytes(value.try_into().ok()?)),
        _ => SpanValue::Text(std::str::from_utf8(value).ok()?),
    };
    Some(((std::str::from_utf8(name).ok()?, value), rest))
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
                    Given::Text(name, value) => attributes.text(name, value),
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

    #[test]
    fn name_longer_than_its_length_can_say_is_cut_at_a_character() {
        let mut attributes = Attributes::default();
        attributes.number(&"é".repeat(40_000), 1);
        attributes.text("next", b"x");
        let lengths: Vec<usize> = attributes.iter().map(|(name, _)| name.len()).collect();
        assert_eq!(lengths, [65_534, 4]);
        assert_eq!(attributes.get("next"), Some(SpanValue::Text("x")));
        assert_eq!(attributes.get("other"), None);
    }
}
