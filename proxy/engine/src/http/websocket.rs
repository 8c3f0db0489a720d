//! The handshake of WebSocket (RFC 6455 §4), made here for clients that opened the socket as an HTTP/2 stream.
//!
//! RFC 8441 leaves `sec-websocket-key` and `sec-websocket-accept` out, but a host reached over HTTP/1.1 expects the one
//! and answers with the other.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
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
    // The handshake demands this hash; nothing here relies on it for security.
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text)).as_bytes() == accept
}

/// Removes what has no place in an answer over HTTP/2.
pub fn strip_accept(response: &mut FieldBlock) {
    response.remove(ACCEPT);
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
}
