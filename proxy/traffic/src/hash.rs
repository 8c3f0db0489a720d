//! The hashes that consistent balancing is made of: XXH64 and the MurmurHash2 of GNU's C++ library.
//!
//! Not for tables that strangers could fill: neither is keyed. They are here because a request must go to the host that any
//! other proxy with the same hosts would send it to. Sources: the specification of XXH64 (xxhash_spec.md, "XXH64 algorithm
//! description"); MurmurHash64A by Austin Appleby, with the tail rule of `std::_Hash_bytes`.

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

const fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

const fn merge(sum: u64, lane: u64) -> u64 {
    (sum ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4)
}

/// XXH64 of `data`.
pub fn xxh64(data: &[u8], seed: u64) -> u64 {
    let mut stripes = data.chunks_exact(32);
    let mut sum = if data.len() >= 32 {
        let mut lanes =
            [seed.wrapping_add(P1).wrapping_add(P2), seed.wrapping_add(P2), seed, seed.wrapping_sub(P1)];
        for stripe in stripes.by_ref() {
            for (lane, input) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, word(input));
            }
        }
        let [a, b, c, d] = lanes;
        let turned = a
            .rotate_left(1)
            .wrapping_add(b.rotate_left(7))
            .wrapping_add(c.rotate_left(12))
            .wrapping_add(d.rotate_left(18));
        lanes.into_iter().fold(turned, merge)
    } else {
        seed.wrapping_add(P5)
    };
    sum = sum.wrapping_add(data.len() as u64);
    let mut eights = stripes.remainder().chunks_exact(8);
    for eight in eights.by_ref() {
        sum = (sum ^ round(0, word(eight))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
    }
    let mut rest = eights.remainder();
    if let Some((four, after)) = rest.split_at_checked(4) {
        sum = (sum ^ word(four).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        rest = after;
    }
    for byte in rest {
        sum = (sum ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    sum = (sum ^ sum >> 33).wrapping_mul(P2);
    sum = (sum ^ sum >> 29).wrapping_mul(P3);
    sum ^ sum >> 32
}

/// The seed of `std::hash`.
pub const MURMUR_SEED: u64 = 0xc70f_6907;

/// MurmurHash2 for 64 bits of `data`.
pub fn murmur2(data: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const fn mixed(value: u64) -> u64 {
        value ^ value >> 47
    }
    let mut sum = seed ^ (data.len() as u64).wrapping_mul(M);
    let mut eights = data.chunks_exact(8);
    for eight in eights.by_ref() {
        sum = (sum ^ mixed(word(eight).wrapping_mul(M)).wrapping_mul(M)).wrapping_mul(M);
    }
    if !eights.remainder().is_empty() {
        sum = (sum ^ word(eights.remainder())).wrapping_mul(M);
    }
    mixed(mixed(sum).wrapping_mul(M))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxh64_gives_the_published_values() {
        // Made with the reference program (`xxhsum -H1`).
        for (text, seed, expected) in [
            ("", 0, 0xEF46_DB37_51D8_E999),
            ("a", 0, 0xD24E_C4F1_A98C_6E5B),
            ("abc", 0, 0x44BC_2CF5_AD77_0999),
            ("foo", 0, 0x33BF_00A8_59C4_BA3F),
            ("Nobody inspects the spammish repetition", 0, 0xFBCE_A83C_8A37_8BF1),
        ] {
            assert_eq!(xxh64(text.as_bytes(), seed), expected, "{text}");
        }
    }

    #[test]
    fn every_byte_and_the_seed_count() {
        let data: Vec<u8> = (0..=99).collect();
        let mut seen = std::collections::HashSet::new();
        for end in 0..data.len() {
            assert!(seen.insert(xxh64(&data[..end], 0)) && seen.insert(xxh64(&data[..end], 1)));
            assert!(seen.insert(murmur2(&data[..end], MURMUR_SEED)));
        }
    }
}
