//! Integers and strings of HPACK (RFC 7541 §5).

use super::huffman;
use crate::h2::error::H2Error;

/// Largest integer taken: far above every limit, far below overflow.
const INTEGER_MAX: usize = 1 << 24;

/// What is left of a header block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, H2Error> {
        let (first, rest) = self.0.split_first().ok_or(H2Error::Hpack)?;
        self.0 = rest;
        Ok(*first)
    }

    /// The integer whose prefix is the low `bits` of `first`.
    #[inline]
    pub(super) fn integer(&mut self, first: u8, bits: u32) -> Result<usize, H2Error> {
        let mask = (1usize << bits) - 1;
        let prefix = usize::from(first) & mask;
        if prefix < mask {
            return Ok(prefix);
        }
        let mut value = mask;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if value > INTEGER_MAX {
                return Err(H2Error::Hpack);
            }
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
            // Zeros without end are no number either.
            if shift > 21 {
                return Err(H2Error::Hpack);
            }
        }
    }

    /// A string; Huffman-coded ones are decoded into `scratch`.
    #[inline]
    pub(super) fn string<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], H2Error>
    where
        'a: 's,
    {
        let first = self.byte()?;
        let length = self.integer(first, 7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(H2Error::Hpack)?;
        self.0 = rest;
        if first & 0x80 == 0 {
            return Ok(text);
        }
        scratch.clear();
        if huffman::decode(text, scratch) { Ok(scratch) } else { Err(H2Error::Hpack) }
    }
}

/// Writes an integer with a prefix of `bits`; `top` holds the bits above it.
#[inline]
pub(super) fn put_integer(out: &mut Vec<u8>, top: u8, bits: u32, value: usize) {
    let mask = (1usize << bits) - 1;
    if value < mask {
        out.push(top | low(value));
        return;
    }
    out.push(top | low(mask));
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(low(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.push(low(rest));
}

/// Writes a string as it is.
#[inline]
pub(super) fn put_plain(out: &mut Vec<u8>, text: &[u8]) {
    put_integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

/// Writes a string Huffman-coded where that is shorter.
pub(super) fn put_short(out: &mut Vec<u8>, text: &[u8]) {
    let coded = huffman::encoded_len(text);
    if coded < text.len() {
        put_integer(out, 0x80, 7, coded);
        huffman::encode(text, out);
    } else {
        put_plain(out, text);
    }
}

/// The low eight bits.
const fn low(value: usize) -> u8 {
    (value & 0xff) as u8
}
