//! TLS contexts and secrets (`envoy.extensions.transport_sockets.tls.v3`).

use super::StringMatch;
use serde::{Deserialize, Serialize};
use std::fmt;

/// TLS terminated at a filter chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DownstreamTls {
    /// Certificates; the one whose names fit the SNI is used, else the first.
    pub certificates: Vec<CertificateSource>,
    /// How client certificates are verified; `None`: none is asked for.
    pub validation: Option<ValidationSource>,
    /// Refuse clients without a certificate.
    pub require_client_certificate: bool,
    /// ALPN, in order of preference.
    pub alpn: Vec<String>,
    /// Versions.
    pub params: TlsParams,
    /// No session tickets and no resumption.
    pub disable_stateless_session_resumption: bool,
}

/// TLS towards the hosts of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamTls {
    /// SNI; empty: none, unless derived from the authority.
    pub sni: String,
    /// Client certificate.
    pub certificate: Option<CertificateSource>,
    /// How the host's certificate is verified. `None` accepts any certificate, as Envoy does; a warning is logged.
    pub validation: Option<ValidationSource>,
    /// ALPN, in order of preference.
    pub alpn: Vec<String>,
    /// Versions.
    pub params: TlsParams,
    /// Sessions kept for resumption per cluster. Default 1; 0 none.
    pub max_session_keys: u32,
}

/// `tls_params`: minimum and maximum version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsParams {
    /// Default TLS 1.2.
    pub min: Option<TlsVersion>,
    /// Default TLS 1.3 (Envoy's client default is 1.2; ours is 1.3).
    pub max: Option<TlsVersion>,
}

/// TLS versions spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    /// 1.2.
    V1_2,
    /// 1.3.
    V1_3,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CertificateSource {
    /// Written here.
    Inline(TlsCertificate),
    /// A [`Secret`] by name (SDS).
    Sds(String),
}

/// A certificate chain and its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsCertificate {
    /// PEM, leaf first.
    pub chain_pem: String,
    /// PEM: PKCS#8, PKCS#1 or SEC1. Never shown by `Debug`.
    pub key_pem: String,
}

impl fmt::Debug for TlsCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCertificate")
            .field("chain_pem", &self.chain_pem)
            .field("key_pem", &"[redacted]")
            .finish()
    }
}

/// Where trust comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ValidationSource {
    /// Written here.
    Inline(ValidationContext),
    /// A [`Secret`] by name (SDS).
    Sds(String),
    /// Roots from a secret, the rest (such as SAN matchers) written here (`combined_validation_context`).
    Combined {
        /// Written part; its roots are used when the secret has none.
        default: ValidationContext,
        /// Secret name.
        sds: String,
    },
}

/// How a peer certificate is verified (`CertificateValidationContext`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ValidationContext {
    /// Trust roots, PEM. `None`: the chain is not verified (refused on listeners that require a certificate).
    pub trusted_ca_pem: Option<String>,
    /// Use the roots shipped with the proxy (`system_root_certs`).
    pub system_roots: bool,
    /// At least one must match a SAN of the leaf; empty: any name.
    pub sans: Vec<SanMatch>,
}

/// A SAN criterion (`SubjectAltNameMatcher`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SanMatch {
    /// Which kind of name.
    pub kind: SanType,
    /// Its text.
    pub text: StringMatch,
}

/// Kinds of SAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SanType {
    /// DNS name. An exact matcher honours a wildcard in the certificate.
    Dns,
    /// URI, such as a SPIFFE id.
    Uri,
    /// E-mail.
    Email,
    /// IP address.
    Ip,
}

/// A named certificate or named trust roots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Secret {
    /// Unique name.
    pub name: String,
    /// Content.
    pub value: SecretValue,
}

/// Content of a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SecretValue {
    /// Certificate and key.
    Certificate(TlsCertificate),
    /// Trust roots and matchers.
    Validation(ValidationContext),
}
