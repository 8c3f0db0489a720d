//! What a finished handshake agreed on, in the words of logs.

use super::Peers;
use crate::io::TlsFacts;
use rustls::{CipherSuite, Connection, HandshakeKind, ProtocolVersion};
use std::sync::Arc;

/// Reads the outcome of a finished handshake. `verified`: the peer's chain was verified. `sni` is the name received or
/// sent. `peers` knows the certificates read before.
pub(crate) fn negotiated(
    connection: &Connection,
    verified: bool,
    sni: Option<Arc<str>>,
    peers: &mut Peers,
) -> TlsFacts {
    let peer = connection.peer_certificates().and_then(|chain| peers.read(chain, verified));
    TlsFacts {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "",
        },
        cipher: connection.negotiated_cipher_suite().map_or("", |suite| openssl_name(suite.suite())),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        sni,
        peer,
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

/// OpenSSL's name, which Envoy's logs use.
fn openssl_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}
