//! What a field value is, found out once per table entry or literal.

use crate::syntax;

/// A field value as RFC 9113 §8.2.1 sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// No control character, no white space around it: it can be written as it is in any version.
    Clean,
    /// White space before or behind it, and otherwise clean.
    Padded,
    /// Bytes that no value may have.
    Dirty,
}

impl Shape {
    /// Judges a value.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        if !is_clean(value) {
            Self::Dirty
        } else if matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']) {
            Self::Padded
        } else {
            Self::Clean
        }
    }
}

/// What [`syntax::is_field_value`] is, eight bytes at a time: most values are too short for vectors.
fn is_clean(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks::<8>();
    let mut suspect = words.iter().fold(0, |suspect, word| suspect | suspicion(u64::from_ne_bytes(*word)));
    match value.last_chunk::<8>() {
        Some(last) => suspect |= suspicion(u64::from_ne_bytes(*last)),
        None => return syntax::is_field_value(rest),
    }
    suspect == 0 || syntax::is_field_value(value)
}

/// Not 0 when a byte is a control character, HTAB among them.
const fn suspicion(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = word ^ (ONES * 0x7f);
    (controls | (delete.wrapping_sub(ONES) & !delete)) & (ONES * 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shape_is_what_a_look_at_every_byte_says(value in prop::collection::vec(any::<u8>(), 0..40)) {
            let dirty = value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f);
            let padded = [value.first(), value.last()].into_iter().flatten().any(|byte| b" \t".contains(byte));
            let expected = if dirty { Shape::Dirty } else if padded { Shape::Padded } else { Shape::Clean };
            prop_assert_eq!(Shape::of(&value), expected);
        }

        #[test]
        fn bytes_of_values_are_told_apart(at in 0usize..24, byte in any::<u8>()) {
            let mut value = [b'x'; 24];
            value[at] = byte;
            let dirty = (byte < 0x20 && byte != b'\t') || byte == 0x7f;
            prop_assert_eq!(Shape::of(&value) == Shape::Dirty, dirty);
        }
    }
}
