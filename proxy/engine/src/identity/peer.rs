//! What a peer's certificate says.

use crate::io::PeerCert;
use rustls_pki_types::CertificateDer;
use std::fmt::Write;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Reads a peer's chain, leaf first. `None` when there is no leaf or it cannot be parsed.
pub fn peer_cert(chain: &[CertificateDer<'_>], verified: bool) -> Option<PeerCert> {
    let der = chain.first()?;
    let (_, leaf) = X509Certificate::from_der(der).ok()?;
    let mut peer = PeerCert {
        subject: leaf.subject().to_string().into(),
        issuer: leaf.issuer().to_string().into(),
        serial: format!("{:x}", leaf.serial).into(),
        sha256: sha256_hex(der).into(),
        der: der.as_ref().into(),
        intermediates: chain.iter().skip(1).map(|der| der.as_ref().into()).collect(),
        not_after: leaf.validity().not_after.timestamp(),
        verified,
        ..PeerCert::default()
    };
    if let Ok(Some(names)) = leaf.subject_alternative_name() {
        for name in &names.value.general_names {
            match name {
                GeneralName::URI(uri) => peer.uri_sans.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => peer.dns_sans.push((*dns).to_owned()),
                _ => {}
            }
        }
    }
    for der in chain.iter().skip(1) {
        if let Ok((_, cert)) = X509Certificate::from_der(der) {
            peer.not_after = peer.not_after.min(cert.validity().not_after.timestamp());
        }
    }
    Some(peer)
}

fn sha256_hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    if let Some(hash) = sha256() {
        let mut context = hash.start();
        context.update(bytes);
        for byte in context.finish().as_ref() {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
    }
    hex
}

/// SHA-256 of the TLS provider, taken from a suite that uses it.
fn sha256() -> Option<&'static dyn rustls::crypto::hash::Hash> {
    use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    match TLS13_AES_128_GCM_SHA256 {
        rustls::SupportedCipherSuite::Tls13(suite) => Some(suite.common.hash_provider),
        rustls::SupportedCipherSuite::Tls12(_) => None,
    }
}
