//! The Huffman code of HPACK (RFC 7541 §5.2 and Appendix B).
//!
//! The code is canonical: symbols of one length have consecutive codes in the order of their values, and longer codes
//! follow shorter ones. So the lengths say it all, and the compiler makes every table from them. Decoding looks eight
//! bits up at once, which is a whole symbol for nearly all text; longer codes are found by their length.

/// Symbols with the one that ends a string (EOS).
const SYMBOLS: usize = 257;
/// Longest code, bits.
const LONGEST: usize = 30;
/// What is looked up at once, bits.
const QUICK: u32 = 8;

/// Code lengths by symbol, bits (RFC 7541 Appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// One length of codes: the symbols that have it lie in a row in [`Tables::sorted`].
#[derive(Clone, Copy)]
struct Length {
    /// First code of this length, at the top of 32 bits.
    first: u32,
    /// One past the last, at the top of 32 bits (in 64, because the longest ends at 2^32).
    end: u64,
    /// Where its symbols begin in the sorted list.
    at: u16,
}

struct Tables {
    codes: [u32; SYMBOLS],
    /// Symbols by code.
    sorted: [u16; SYMBOLS],
    lengths: [Length; LONGEST + 1],
    /// By the next eight bits: symbol, and length of its code; length 0: a longer code.
    quick: [(u8, u8); 1 << QUICK],
}

static TABLES: Tables = tables();

#[allow(clippy::indexing_slicing, clippy::panic)] // evaluated by the compiler; a failure is a build error
const fn tables() -> Tables {
    let mut made = Tables {
        codes: [0; SYMBOLS],
        sorted: [0; SYMBOLS],
        lengths: [Length { first: 0, end: 0, at: 0 }; LONGEST + 1],
        quick: [(0, 0); 1 << QUICK],
    };
    let (mut code, mut count, mut bits) = (0u64, 0, 1);
    while bits <= LONGEST {
        code <<= 1;
        let shift = 32 - bits as u32;
        made.lengths[bits].first = (code << shift) as u32;
        made.lengths[bits].at = count as u16;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == bits {
                made.codes[symbol] = code as u32;
                made.sorted[count] = symbol as u16;
                count += 1;
                if bits as u32 <= QUICK {
                    let from = (code << (QUICK - bits as u32)) as usize;
                    let mut at = from;
                    while at < from + (1 << (QUICK - bits as u32)) {
                        made.quick[at] = (symbol as u8, bits as u8);
                        at += 1;
                    }
                }
                code += 1;
            }
            symbol += 1;
        }
        made.lengths[bits].end = code << shift;
        bits += 1;
    }
    assert!(count == SYMBOLS && code == 1 << LONGEST, "the lengths are not those of a complete code");
    made
}

/// Bytes `text` takes when it is encoded.
#[must_use]
pub fn encoded_len(text: &[u8]) -> usize {
    let bits: usize =
        text.iter().map(|byte| LENGTHS.get(usize::from(*byte)).copied().unwrap_or(0) as usize).sum();
    bits.div_ceil(8)
}

/// Appends the code of `text`, filled up with ones.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut held, mut bits) = (0u64, 0u32);
    for byte in text {
        let at = usize::from(*byte);
        let (Some(code), Some(length)) = (TABLES.codes.get(at), LENGTHS.get(at)) else { continue };
        held = held << u32::from(*length) | u64::from(*code);
        bits += u32::from(*length);
        while bits >= 8 {
            bits -= 8;
            out.push((held >> bits & 0xff) as u8);
        }
    }
    if bits > 0 {
        out.push(((held << (8 - bits) | (0xff >> bits)) & 0xff) as u8);
    }
}

/// Appends what `coded` says; `false` when it is not a code: EOS inside, or an end that is not filled up with at most
/// seven ones.
#[must_use]
pub fn decode(coded: &[u8], out: &mut Vec<u8>) -> bool {
    out.reserve(coded.len() * 8 / 5 + 1);
    // `held` has its `bits` valid bits at the top and zeros below.
    let (mut held, mut bits, mut rest) = (0u64, 0u32, coded);
    loop {
        if bits < 32 {
            if let Some(word) = rest.first_chunk::<8>() {
                let taken = (63 - bits) / 8;
                held |= u64::from_be_bytes(*word) >> bits;
                bits += taken * 8;
                held &= !(u64::MAX >> bits);
                rest = rest.get(taken as usize..).unwrap_or_default();
            }
            while bits <= 56
                && let Some((byte, tail)) = rest.split_first()
            {
                held |= u64::from(*byte) << (56 - bits);
                bits += 8;
                rest = tail;
            }
        }
        if bits >= QUICK {
            let (symbol, length) = TABLES.quick.get((held >> 56) as usize).copied().unwrap_or((0, 0));
            if length > 0 {
                out.push(symbol);
                held <<= length;
                bits -= u32::from(length);
                continue;
            }
        } else {
            // At the end: a short symbol, or the filling.
            let (symbol, length) = TABLES.quick.get((held >> 56) as usize).copied().unwrap_or((0, 0));
            if length > 0 && u32::from(length) <= bits {
                out.push(symbol);
                held <<= length;
                bits -= u32::from(length);
                continue;
            }
            return held == !(u64::MAX >> bits);
        }
        let Some((symbol, length)) = long((held >> 32) as u32) else { return false };
        if length > bits {
            // All ones, and too many of them to be filling, or a code that was cut.
            return false;
        }
        out.push(symbol);
        held <<= length;
        bits -= length;
    }
}

/// The symbol at the top of `code`, when it is longer than [`QUICK`]; `None` is EOS.
fn long(code: u32) -> Option<(u8, u32)> {
    let from = QUICK as usize + 1;
    for (bits, length) in TABLES.lengths.iter().enumerate().skip(from) {
        if u64::from(code) < length.end {
            let nth = (code - length.first) >> (32 - bits);
            let symbol = TABLES.sorted.get(usize::from(length.at) + nth as usize)?;
            return Some((u8::try_from(*symbol).ok()?, bits as u32));
        }
    }
    None
}
