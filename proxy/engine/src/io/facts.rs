//! What a finished TLS handshake says about the connection.

use std::sync::Arc;

/// The outcome of a TLS handshake.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name of the cipher suite, as Envoy logs it.
    pub cipher: &'static str,
    /// The protocol agreed on by ALPN.
    pub alpn: Option<Vec<u8>>,
    /// Server name of the ClientHello: received on listeners, sent towards hosts.
    pub sni: Option<Arc<str>>,
    /// The peer's verified certificate.
    pub peer: Option<Arc<PeerCert>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// The certificate a peer proved to own. On listeners it was verified against the trust roots.
#[derive(Clone, Debug, Default)]
pub struct PeerCert {
    /// URI SANs in order; the first one is the principal.
    pub uri_sans: Vec<String>,
    /// DNS SANs in order.
    pub dns_sans: Vec<String>,
    /// Subject as in RFC 2253 (most specific part first).
    pub subject: Arc<str>,
    /// Issuer as in RFC 2253.
    pub issuer: Arc<str>,
    /// Serial number, lower-case hexadecimal.
    pub serial: Arc<str>,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub sha256: Arc<str>,
    /// The certificate.
    pub der: Arc<[u8]>,
    /// The certificates the peer sent behind it, in order.
    pub intermediates: Vec<Arc<[u8]>>,
    /// End of validity of the chain's earliest ending certificate, seconds since 1970.
    pub not_after: i64,
    /// Whether the chain was verified to a trust root.
    pub verified: bool,
}
