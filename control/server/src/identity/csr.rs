//! Certificate requests: the signature is verified, the public key is taken, all else is dropped.
//!
//! Names and extensions asked for are of no interest: what goes into the certificate follows from
//! who the caller proved to be, never from what it writes.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// Longest request accepted, in bytes. One with an RSA-8192 key has about 2,100.
pub const CSR_BYTES_MAX: usize = 16 * 1024;

/// Shortest RSA modulus accepted, in bits (NIST SP 800-57 part 1, table 2: 112-bit security).
pub const RSA_BITS_MIN: usize = 2048;

/// Longest RSA modulus accepted, in bits: verifying longer ones costs us and protects nobody.
pub const RSA_BITS_MAX: usize = 8192;

/// The public key of a request whose signature proved that the caller holds the private key.
#[derive(Debug)]
pub struct ProvenKey(SubjectPublicKeyInfo);

impl ProvenKey {
    /// The key, to be put into a certificate.
    pub fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.0
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`CSR_BYTES_MAX`].
    #[error("the certificate request is longer than {CSR_BYTES_MAX} bytes")]
    TooLong,
    /// Not a PKCS#10 request in DER, or followed by other bytes.
    #[error("not a certificate request in DER (PKCS#10)")]
    Malformed,
    /// Neither P-256, P-384, Ed25519 nor RSA of an accepted length.
    #[error("the key must be ECDSA P-256 or P-384, Ed25519, or RSA with 2048 to 8192 bits")]
    Key,
    /// The signature does not match the key.
    #[error("the signature of the certificate request does not match its key")]
    Signature,
}

/// Object identifiers of the accepted curves and key types (RFC 5480 section 2.1.1.1, RFC 8410).
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";
const OID_EC_KEY: &str = "1.2.840.10045.2.1";
const OID_RSA: &str = "1.2.840.113549.1.1.1";
const OID_ED25519: &str = "1.3.101.112";

/// Verifies a PKCS#10 request in DER and takes its public key.
///
/// *Errors*: [`CsrError`], one kind per reason.
pub fn verify(der: &[u8]) -> Result<ProvenKey, CsrError> {
    if der.len() > CSR_BYTES_MAX {
        return Err(CsrError::TooLong);
    }
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let spki = &request.certification_request_info.subject_pki;
    let algorithm = spki.algorithm.algorithm.to_id_string();
    let accepted = match algorithm.as_str() {
        OID_EC_KEY => spki
            .algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.as_oid().ok())
            .is_some_and(|curve| matches!(curve.to_id_string().as_str(), OID_P256 | OID_P384)),
        OID_RSA => match spki.parsed() {
            Ok(PublicKey::RSA(key)) => (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&modulus_bits(key.modulus)),
            _ => false,
        },
        OID_ED25519 => true,
        _ => false,
    };
    if !accepted {
        return Err(CsrError::Key);
    }
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    SubjectPublicKeyInfo::from_der(spki.raw).map(ProvenKey).map_err(|_| CsrError::Key)
}

/// Length of an unsigned big-endian integer, without the zero bytes in front.
fn modulus_bits(modulus: &[u8]) -> usize {
    let significant = modulus.iter().skip_while(|b| **b == 0).count();
    let top = modulus.iter().find(|b| **b != 0).copied().unwrap_or(0);
    (significant * 8).saturating_sub(top.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    fn request(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn accepted_key_types_pass() {
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
        {
            verify(&request(algorithm)).unwrap();
        }
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        let der = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        verify(&der).unwrap();
    }

    #[test]
    fn other_curve_is_refused() {
        let der = request(&rcgen::PKCS_ECDSA_P521_SHA512);
        assert_eq!(verify(&der).unwrap_err(), CsrError::Key);
    }

    #[test]
    fn request_changed_after_signing_is_refused() {
        let mut der = request(&rcgen::PKCS_ECDSA_P256_SHA256);
        let at = der.windows(12).position(|w| w == b"evil.example").unwrap();
        der[at] = b'E';
        assert_eq!(verify(&der).unwrap_err(), CsrError::Signature);
    }

    #[test]
    fn request_with_bytes_behind_it_or_cut_short_is_refused() {
        let mut der = request(&rcgen::PKCS_ECDSA_P256_SHA256);
        der.push(0);
        assert_eq!(verify(&der).unwrap_err(), CsrError::Malformed);
        for cut in [0, 1, 10, der.len() - 2] {
            assert!(verify(&der[..cut]).is_err());
        }
        assert_eq!(verify(&vec![0x30; CSR_BYTES_MAX + 1]).unwrap_err(), CsrError::TooLong);
        assert_eq!(verify(&vec![0x30; CSR_BYTES_MAX]).unwrap_err(), CsrError::Malformed);
    }

    #[test]
    fn modulus_length_ignores_leading_zeros() {
        assert_eq!(modulus_bits(&[0, 0x80, 0]), 16);
        assert_eq!(modulus_bits(&[1, 0]), 9);
        assert_eq!(modulus_bits(&[]), 0);
    }
}
