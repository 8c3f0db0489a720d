//! A certificate chain with its key, from PEM.

use super::provider;
use outrigger_traffic::config::TlsCertificate;
use rustls::InconsistentKeys;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What operators want to know of a certificate in use (`/certs`, days until expiry).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Subject, RFC 2253.
    pub subject: String,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// URI SANs.
    pub uri_sans: Vec<String>,
    /// DNS SANs.
    pub dns_sans: Vec<String>,
    /// IP SANs.
    pub ip_sans: Vec<String>,
    /// Start of validity, seconds since 1970.
    pub not_before: i64,
    /// End of validity, seconds since 1970.
    pub not_after: i64,
}

impl CertificateFacts {
    /// Reads them from a certificate; `None` when it cannot be parsed.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let mut facts = Self {
            subject: cert.subject().to_string(),
            serial: format!("{:x}", cert.serial),
            not_before: cert.validity().not_before.timestamp(),
            not_after: cert.validity().not_after.timestamp(),
            ..Self::default()
        };
        if let Ok(Some(names)) = cert.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::URI(uri) => facts.uri_sans.push((*uri).to_owned()),
                    GeneralName::DNSName(dns) => facts.dns_sans.push((*dns).to_owned()),
                    GeneralName::IPAddress(ip) => facts.ip_sans.extend(super::san::ip_text(ip)),
                    _ => {}
                }
            }
        }
        Some(facts)
    }
}

/// A parsed [`TlsCertificate`].
pub(super) struct KeyPair {
    /// What was parsed; for comparing with what comes next.
    pub(super) source: TlsCertificate,
    /// For rustls.
    pub(super) key: Arc<CertifiedKey>,
    /// Of the leaf.
    pub(super) facts: CertificateFacts,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// Whether the first certificate holds the key's public half.
fn has_public_key(key: &CertifiedKey) -> bool {
    let (Some(leaf), Some(public)) = (key.cert.first(), key.key.public_key()) else { return false };
    memchr::memmem::find(leaf, public.as_ref()).is_some()
}

impl KeyPair {
    /// Parses and checks that key and leaf belong together.
    pub(super) fn parse(source: &TlsCertificate) -> Result<Self, String> {
        let chain = certificates(&source.chain_pem)?;
        let leaf = chain.first().ok_or("no certificate in the chain")?;
        let facts = CertificateFacts::parse(leaf).ok_or("the first certificate cannot be parsed")?;
        let key = PrivateKeyDer::from_pem_slice(source.key_pem.as_bytes())
            .map_err(|_| "no private key in PKCS#8, PKCS#1 or SEC1 form".to_owned())?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|_| "the private key is of a kind that is not supported".to_owned())?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err("the private key does not belong to the first certificate".into());
            }
            // Certificates of version 1 (as small tools make them) are served all the same, as by Envoy: whether the key
            // belongs to one is seen from the public key that lies in it.
            Err(rustls::Error::InvalidCertificate(_)) if has_public_key(&key) => {}
            Err(error) => return Err(format!("the first certificate cannot be used: {error}")),
        }
        Ok(Self { source: source.clone(), key: Arc::new(key), facts })
    }

    /// Whether the leaf is made for a DNS name (lower case); `exact` without wildcards.
    pub(super) fn serves(&self, name: &str, exact: bool) -> bool {
        self.facts.dns_sans.iter().any(|san| {
            if exact { san.eq_ignore_ascii_case(name) } else { super::san::wildcard_covers(san, name) }
        })
    }
}

/// The certificates of a PEM text, in order.
pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not PEM: {error}"))
}
