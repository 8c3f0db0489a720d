//! Verifying the peer's certificate: chain, names, and what SPIFFE forbids.

use super::memo::{Validity, VerifiedChains};
use super::provider;
use super::trust::Trust;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Client certificates: chain and purpose by webpki, then names.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust: Arc<Trust>,
    /// Chains that passed. Verification depends on nothing but the chain, the roots and criteria of this verifier, and the
    /// time; a change of roots or criteria makes another verifier. The peer still proves in every full handshake that it
    /// has the key.
    passed: VerifiedChains,
}

impl ClientVerifier {
    /// Fails (with the reason) when there are no roots to verify with.
    pub(super) fn new(trust: Arc<Trust>, mandatory: bool) -> Result<Self, String> {
        let Some(roots) = &trust.roots else {
            return Err("without trusted_ca every client certificate would be accepted".into());
        };
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
        if !mandatory {
            builder = builder.allow_unauthenticated();
        }
        let chain = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { chain, trust, passed: VerifiedChains::default() })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.passed.contain(leaf, intermediates, now.as_secs()) {
            return Ok(ClientCertVerified::assertion());
        }
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        check_names(leaf, &self.trust)?;
        if let Some(validity) = validity(leaf, intermediates) {
            self.passed.insert(leaf, intermediates, validity);
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Server certificates, as Envoy verifies them: the chain where roots are given, names where criteria are given, the
/// host name only where that was asked for.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    trust: Option<Arc<Trust>>,
    check_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    pub(super) fn new(trust: Option<Arc<Trust>>, check_name: bool) -> Self {
        Self { trust, check_name, algorithms: provider().signature_verification_algorithms }
    }

    fn verify_chain(
        &self,
        roots: &RootCertStore,
        leaf: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            leaf,
            roots,
            intermediates,
            now,
            self.algorithms.all,
        )
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        if let Some(trust) = &self.trust {
            if let Some(roots) = &trust.roots {
                self.verify_chain(roots, &parsed, intermediates, now)?;
            }
            check_names(leaf, trust)?;
        }
        if self.check_name {
            rustls::client::verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// In which time every certificate of a chain is valid; `None` when one cannot be read.
fn validity(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Option<Validity> {
    let mut all = Validity { not_before: i64::MIN, not_after: i64::MAX };
    for der in std::iter::once(leaf).chain(intermediates) {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        all.not_before = all.not_before.max(cert.validity().not_before.timestamp());
        all.not_after = all.not_after.min(cert.validity().not_after.timestamp());
    }
    Some(all)
}

/// Names against criteria; and for certificates that carry SPIFFE ids (or where URIs are asked for) the rules of the
/// X.509-SVID standard that a general verifier does not know: exactly one URI (section 2), a leaf that may not sign
/// certificates (sections 4.1 and 4.3).
fn check_names(leaf: &CertificateDer<'_>, trust: &Trust) -> Result<(), Error> {
    let (_, cert) = X509Certificate::from_der(leaf)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let refused = || Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
    let names = cert
        .subject_alternative_name()
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let mut uris = 0_usize;
    let mut spiffe = false;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) => {
                uris += 1;
                spiffe |= uri.get(..9).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe://"));
            }
            // A name that cannot be read might be a second URI.
            GeneralName::Invalid(..) => uris += 1,
            _ => {}
        }
    }
    if spiffe || trust.sans.asks_uri() {
        let is_ca = cert.basic_constraints().ok().flatten().is_some_and(|b| b.value.ca);
        let signs = cert
            .key_usage()
            .ok()
            .flatten()
            .is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
        if uris > 1 || is_ca || signs {
            return Err(refused());
        }
    }
    if trust.sans.is_empty() || trust.sans.accept(&cert) { Ok(()) } else { Err(refused()) }
}
