//! Certificates for tests: an authority, leaves with SPIFFE or DNS names, rustls configurations.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};

/// A self-signed certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, as PEM.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key (PKCS #8).
    pub key_pem: String,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl Authority {
    /// A new authority with an ECDSA P-256 key.
    ///
    /// # Panics
    /// When the key cannot be made.
    #[must_use]
    pub fn new(common_name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a CA certificate") }
    }

    /// The authority's certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A leaf for `spiffe://…` with no other name, for both sides of mutual TLS.
    #[must_use]
    pub fn spiffe(&self, id: &str) -> Leaf {
        self.leaf(&[id])
    }

    /// A leaf with the names given: `spiffe://…` becomes a URI, an address an IP, anything else DNS.
    #[must_use]
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        let now = SystemTime::now();
        self.leaf_valid(names, now - Duration::from_secs(3600), now + Duration::from_secs(24 * 3600))
    }

    /// Like [`leaf`](Self::leaf), valid between two moments (whole seconds).
    ///
    /// # Panics
    /// When a name cannot be put into a certificate.
    #[must_use]
    pub fn leaf_valid(&self, names: &[&str], not_before: SystemTime, not_after: SystemTime) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test leaf");
        params.subject_alt_names = names.iter().map(|name| subject_name(name)).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        self.sign(&params)
    }

    /// A certificate with a new key and whatever `params` say, for leaves that no one should accept.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn sign(&self, params: &CertificateParams) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a leaf");
        Leaf { cert_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    /// A store that trusts this authority alone.
    ///
    /// # Panics
    /// Never, for an authority made here.
    #[must_use]
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("our own CA");
        Arc::new(roots)
    }
}

fn subject_name(name: &str) -> SanType {
    if name.contains("://") {
        SanType::URI(name.try_into().expect("an ASCII URI"))
    } else if let Ok(address) = name.parse() {
        SanType::IpAddress(address)
    } else {
        SanType::DnsName(name.try_into().expect("an ASCII name"))
    }
}

impl Leaf {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.cert_pem.as_bytes()).map(|cert| cert.expect("PEM")).collect()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("PEM")
    }
}

/// A server's configuration; with `clients`, a certificate of that authority is demanded.
///
/// # Panics
/// When rustls refuses the leaf.
#[must_use]
pub fn server_config(leaf: &Leaf, clients: Option<&Authority>, alpn: &[&str]) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        Some(authority) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots(), provider()).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(leaf.chain(), leaf.key()).expect("a usable leaf");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A client's configuration that checks the chain and not the name, because a SPIFFE leaf has no name
/// that TLS would check; with `leaf`, it offers that certificate.
///
/// # Panics
/// When rustls refuses the leaf.
#[must_use]
pub fn client_config(servers: &Authority, leaf: Option<&Leaf>, alpn: &[&str]) -> Arc<ClientConfig> {
    client_config_versions(servers, leaf, alpn, rustls::DEFAULT_VERSIONS)
}

/// Like [`client_config`], with these versions of TLS only.
///
/// # Panics
/// When rustls refuses the leaf or there is no version.
#[must_use]
pub fn client_config_versions(
    servers: &Authority,
    leaf: Option<&Leaf>,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let chain =
        WebPkiServerVerifier::builder_with_provider(servers.roots(), provider()).build().expect("a verifier");
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyName(chain)));
    let mut config = match leaf {
        Some(leaf) => builder.with_client_auth_cert(leaf.chain(), leaf.key()).expect("a usable leaf"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// Checks a server's chain and signature, and accepts any name in it.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
