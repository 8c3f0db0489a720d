//! The handshake of WebSocket (RFC 6455 §4), made here for clients that opened the socket as an HTTP/2 stream.
//!
//! RFC 8441 leaves `sec-websocket-key` and `sec-websocket-accept` out, but a host reached over HTTP/1.1 expects the one
//! and answers with the other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_wire::{FieldBlock, Known};

/// Follows the key before it is hashed (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY: &[u8] = b"sec-websocket-key";
const ACCEPT: &[u8] = b"sec-websocket-accept";

/// Whether a request asks for WebSocket.
#[must_use]
pub fn is_wanted(request: &FieldBlock) -> bool {
    request.get_known(Known::Upgrade).is_some_and(|kind| kind.eq_ignore_ascii_case(b"websocket"))
}

/// Sets a fresh key in a request. It proves to nobody anything but that the host speaks WebSocket.
pub fn offer(request: &mut FieldBlock, nonce: [u8; 16]) {
    request.set(KEY, STANDARD.encode(nonce).as_bytes());
}

/// Whether a response accepts the key of the request.
#[must_use]
pub fn is_accepted(request: &FieldBlock, response: &FieldBlock) -> bool {
    let (Some(key), Some(accept)) = (request.get(KEY), response.get(ACCEPT)) else { return false };
    let mut text = key.to_vec();
    text.extend_from_slice(GUID);
    STANDARD.encode(sha1(&text)).as_bytes() == accept
}

/// Removes what has no place in an answer over HTTP/2.
pub fn strip_accept(response: &mut FieldBlock) {
    response.remove(ACCEPT);
}

/// SHA-1 (FIPS 180-4 §6.1.3, with its window of 16 words), which the handshake demands; nothing here relies on it for
/// security.
fn sha1(data: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = data.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - data.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    padded.truncate(padded.len() - 8);
    padded.extend((data.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words = [0u32; 16];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for step in 0..80 {
            let (mix, constant) = match step {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let [word, _, second, .., eighth, _, _, _, _, thirteenth, _, _] = words;
            let next =
                a.rotate_left(5).wrapping_add(mix).wrapping_add(e).wrapping_add(constant).wrapping_add(word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
            words.rotate_left(1);
            words[15] = (word ^ second ^ eighth ^ thirteenth).rotate_left(1);
        }
        for (word, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *word = word.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_to_every_key_is_the_one_of_an_independent_server() {
        for seed in 0..50u8 {
            let (mut request, mut response) = (FieldBlock::default(), FieldBlock::default());
            offer(&mut request, [seed; 16]);
            let key = std::str::from_utf8(request.get(KEY).unwrap()).unwrap().to_owned();
            assert_eq!(key.len(), 24);
            assert!(!is_accepted(&request, &response));
            response.set(ACCEPT, outrigger_testkit::websocket::accept_value(&key).as_bytes());
            assert!(is_accepted(&request, &response));
            offer(&mut request, [seed + 1; 16]);
            assert!(!is_accepted(&request, &response));
        }
    }

    #[test]
    fn hash_of_every_padding_is_right() {
        let hex = |data: &[u8]| sha1(data).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // FIPS 180-4 examples, and lengths on both sides of where the length needs a block of its own.
        for (data, expected) in [
            (&b""[..], "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            (b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
            ),
        ] {
            assert_eq!(hex(data), expected);
        }
        assert_eq!(hex(&[b'a'; 55]), "c1c8bbdc22796e28c0e15163d20899b65621d65a");
        assert_eq!(hex(&[b'a'; 64]), "0098ba824b5c16427bd7a1122a5a442a25ec644d");
    }
}
