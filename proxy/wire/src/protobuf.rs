//! Protocol buffers as they are written and read: numbers of variable length, keys, fields.
//!
//! For the few messages of the data path whose generated types would cost more than all else that is done with them (spans),
//! and for those that filters send. Source: protocol buffers' encoding.

/// How a field's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A number of variable length: whole numbers, truth values, enumerations.
    Varint = 0,
    /// Eight bytes.
    Fixed64 = 1,
    /// A length and so many bytes: bytes, texts, messages.
    Bytes = 2,
    /// Four bytes.
    Fixed32 = 5,
}

/// What stands before a value.
pub const fn key(field: u32, kind: Kind) -> u64 {
    (field as u64) << 3 | kind as u64
}

/// Appends a number: seven bits a byte, the lowest first.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`varint`] appends.
pub const fn varint_size(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// The number at the start, and what follows it. `None`: it does not end, or is longer than ten bytes. Bits beyond the
/// sixty-fourth are dropped, as in Google's readers.
pub fn split_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

/// Appends a field that is a number, a truth value or an enumeration.
pub fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, key(field, Kind::Varint));
    varint(out, value);
}

/// Appends a field that is bytes, a text or a message.
pub fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    varint(out, key(field, Kind::Bytes));
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Appends a field of eight bytes.
pub fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, key(field, Kind::Fixed64));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field of four bytes.
pub fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    varint(out, key(field, Kind::Fixed32));
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_numbers_are_those_written_and_read() {
        for value in (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, u64::MAX >> bit]) {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out.len(), varint_size(value), "{value}");
            assert_eq!(split_varint(&out), Some((value, &[][..])));
            assert_eq!(split_varint(&out[..out.len() - 1]), None, "{value} is cut");
        }
        assert_eq!(split_varint(&[0x80; 11]), None);
        assert_eq!(split_varint(&[0xff; 10]), None, "ten bytes, and the tenth says there is an eleventh");
    }

    #[test]
    fn fields_are_as_in_the_description_of_the_encoding() {
        let mut out = Vec::new();
        number(&mut out, 1, 150);
        bytes(&mut out, 2, b"testing");
        fixed32(&mut out, 16, 1);
        fixed64(&mut out, 3, 2);
        assert_eq!(out, b"\x08\x96\x01\x12\x07testing\x85\x01\x01\0\0\0\x19\x02\0\0\0\0\0\0\0");
    }
}
