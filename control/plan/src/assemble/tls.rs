//! TLS contexts: the mesh's own, and those of DestinationRules.

use outrigger_traffic::config::{
    CertificateSource, DownstreamTls, SanMatch, SanType, StringMatch, StringPattern, TlsParams, TlsVersion,
    UpstreamTls, ValidationContext, ValidationSource,
};

use crate::resource::destination_rule::{ClientTls, TlsMode};
use crate::world::Settings;

/// Secret with the proxy's own certificate. Our proxies resolve it themselves; others are sent it.
pub const OWN_CERTIFICATE: &str = "default";

/// Secret with the roots of the mesh.
pub const MESH_ROOTS: &str = "ROOTCA";

/// TLS 1.2 and 1.3, said in full because Envoy's own default for clients ends at 1.2.
pub const VERSIONS: TlsParams = TlsParams { min: Some(TlsVersion::V1_2), max: Some(TlsVersion::V1_3) };

/// A URI SAN that is exactly this.
pub fn uri_san(uri: &str) -> SanMatch {
    SanMatch { kind: SanType::Uri, text: StringMatch::exact(uri) }
}

fn uri_prefix(prefix: String) -> SanMatch {
    let text = StringMatch { pattern: StringPattern::Prefix(prefix), ignore_case: false };
    SanMatch { kind: SanType::Uri, text }
}

/// Roots of the mesh, and names that one of which must be there.
pub fn mesh_validation(sans: Vec<SanMatch>) -> ValidationSource {
    let default = ValidationContext { sans, ..ValidationContext::default() };
    ValidationSource::Combined { default, sds: MESH_ROOTS.into() }
}

/// TLS of the mesh, accepting: the peer needs a certificate of this trust domain.
pub fn mesh_downstream(settings: &Settings, alpn: &[&str]) -> DownstreamTls {
    let members = uri_prefix(format!("spiffe://{}/", settings.trust_domain));
    DownstreamTls {
        certificates: vec![CertificateSource::Sds(OWN_CERTIFICATE.into())],
        validation: Some(mesh_validation(vec![members])),
        require_client_certificate: true,
        alpn: alpn.iter().map(|a| (*a).to_owned()).collect(),
        params: VERSIONS,
        disable_stateless_session_resumption: false,
    }
}

/// TLS of the mesh, calling: the peer must have one of these identities. When none is known, any service account of the
/// service's namespace is taken; never anyone.
pub fn mesh_upstream(
    settings: &Settings,
    identities: &[String],
    namespace: &str,
    sni: String,
    alpn: &[&str],
) -> UpstreamTls {
    let mut sans: Vec<SanMatch> = identities.iter().map(|id| uri_san(id)).collect();
    if sans.is_empty() {
        sans.push(uri_prefix(format!("spiffe://{}/ns/{namespace}/sa/", settings.trust_domain)));
    }
    UpstreamTls {
        sni,
        certificate: Some(CertificateSource::Sds(OWN_CERTIFICATE.into())),
        validation: Some(mesh_validation(sans)),
        alpn: alpn.iter().map(|a| (*a).to_owned()).collect(),
        params: VERSIONS,
        max_session_keys: 1,
    }
}

/// TLS as a DestinationRule wants it, to `host`. `None` for the modes that are not its own.
///
/// Without `subjectAltNames` the certificate must be for the name asked for.
pub fn own_upstream(
    tls: &ClientTls,
    host: &str,
    secret: Option<&CredentialNames>,
    alpn: &[&str],
) -> Option<UpstreamTls> {
    if !matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual) {
        return None;
    }
    let sni = if tls.sni.is_empty() { host.trim_start_matches("*.").to_owned() } else { tls.sni.clone() };
    let san = |name: &String| {
        let kind = if name.contains("://") { SanType::Uri } else { SanType::Dns };
        SanMatch { kind, text: StringMatch::exact(name.clone()) }
    };
    let names =
        if tls.subject_alt_names.is_empty() { vec![sni.clone()] } else { tls.subject_alt_names.clone() };
    let sans: Vec<SanMatch> = names.iter().map(san).collect();
    let roots = secret.and_then(|names| names.roots.clone());
    let validation = match (tls.insecure_skip_verify, roots) {
        (true, _) => None,
        (false, Some(sds)) => Some(ValidationSource::Combined {
            default: ValidationContext { sans, ..ValidationContext::default() },
            sds,
        }),
        (false, None) => Some(ValidationSource::Inline(ValidationContext {
            trusted_ca_pem: None,
            system_roots: true,
            sans,
        })),
    };
    let certificate = secret.and_then(|names| names.certificate.clone()).map(CertificateSource::Sds);
    Some(UpstreamTls {
        sni,
        certificate: certificate.filter(|_| tls.mode == TlsMode::Mutual),
        validation,
        alpn: alpn.iter().map(|a| (*a).to_owned()).collect(),
        params: VERSIONS,
        max_session_keys: 1,
    })
}

/// Names of the SDS secrets made from one Secret resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialNames {
    /// Certificate and key, where it has them.
    pub certificate: Option<String>,
    /// Trust roots, where it has them.
    pub roots: Option<String>,
}
