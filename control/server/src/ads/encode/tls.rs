//! TLS contexts.

use outrigger_api::any;
use outrigger_api::envoy::config::core::v3::proxy_protocol_config::Version;
use outrigger_api::envoy::config::core::v3::{ProxyProtocolConfig, TransportSocket, transport_socket};
use outrigger_api::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use outrigger_api::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use outrigger_api::envoy::extensions::transport_sockets::tls::v3 as proto;
use outrigger_traffic::config::{
    CertificateSource, DownstreamTls, ProxyProtocolVersion, SanMatch, SanType, TlsCertificate, TlsParams,
    TlsVersion, UpstreamTls, ValidationContext, ValidationSource,
};

use super::value::{ads, string_match, text};

const SOCKET: &str = "envoy.transport_sockets.tls";

pub(super) fn downstream(value: &DownstreamTls) -> TransportSocket {
    use proto::downstream_tls_context::SessionTicketKeysType as T;
    let resumption =
        value.disable_stateless_session_resumption.then_some(T::DisableStatelessSessionResumption(true));
    let context = proto::DownstreamTlsContext {
        common_tls_context: Some(common(
            &value.certificates,
            value.validation.as_ref(),
            &value.alpn,
            value.params,
        )),
        require_client_certificate: Some(value.require_client_certificate),
        session_ticket_keys_type: resumption,
    };
    socket(any(&context))
}

pub(super) fn upstream(value: &UpstreamTls) -> TransportSocket {
    let certificates: Vec<CertificateSource> = value.certificate.iter().cloned().collect();
    let context = proto::UpstreamTlsContext {
        common_tls_context: Some(common(&certificates, value.validation.as_ref(), &value.alpn, value.params)),
        sni: value.sni.clone(),
        max_session_keys: Some(value.max_session_keys),
    };
    socket(any(&context))
}

/// A PROXY header before whatever else is spoken.
pub(super) fn proxied(version: ProxyProtocolVersion, tls: Option<&UpstreamTls>) -> TransportSocket {
    let plain = || TransportSocket {
        name: "envoy.transport_sockets.raw_buffer".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(&RawBuffer {}))),
    };
    let version = match version {
        ProxyProtocolVersion::V1 => Version::V1,
        ProxyProtocolVersion::V2 => Version::V2,
    };
    let transport = ProxyProtocolUpstreamTransport {
        config: Some(ProxyProtocolConfig { version: version.into() }),
        transport_socket: Some(tls.map_or_else(plain, upstream)),
    };
    TransportSocket {
        name: "envoy.transport_sockets.upstream_proxy_protocol".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(&transport))),
    }
}

fn socket(context: prost_types::Any) -> TransportSocket {
    TransportSocket {
        name: SOCKET.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(context)),
    }
}

fn common(
    certificates: &[CertificateSource],
    validation: Option<&ValidationSource>,
    alpn: &[String],
    params: TlsParams,
) -> proto::CommonTlsContext {
    use proto::common_tls_context as c;
    let mut context = proto::CommonTlsContext { alpn_protocols: alpn.to_vec(), ..Default::default() };
    if params != TlsParams::default() {
        context.tls_params = Some(proto::TlsParameters {
            tls_minimum_protocol_version: version(params.min),
            tls_maximum_protocol_version: version(params.max),
        });
    }
    for source in certificates {
        match source {
            CertificateSource::Inline(inline) => context.tls_certificates.push(certificate(inline)),
            CertificateSource::Sds(name) => context.tls_certificate_sds_secret_configs.push(sds(name)),
        }
    }
    context.validation_context_type = validation.map(|source| match source {
        ValidationSource::Inline(inline) => {
            c::ValidationContextType::ValidationContext(validation_context(inline))
        }
        ValidationSource::Sds(name) => c::ValidationContextType::ValidationContextSdsSecretConfig(sds(name)),
        ValidationSource::Combined { default, sds: name } => {
            c::ValidationContextType::CombinedValidationContext(c::CombinedCertificateValidationContext {
                default_validation_context: Some(validation_context(default)),
                validation_context_sds_secret_config: Some(sds(name)),
            })
        }
    });
    context
}

fn version(value: Option<TlsVersion>) -> i32 {
    use proto::tls_parameters::TlsProtocol as T;
    match value {
        None => T::TlsAuto,
        Some(TlsVersion::V1_2) => T::TlSv12,
        Some(TlsVersion::V1_3) => T::TlSv13,
    }
    .into()
}

fn sds(name: &str) -> proto::SdsSecretConfig {
    proto::SdsSecretConfig { name: name.to_owned(), sds_config: Some(ads()) }
}

pub(super) fn certificate(value: &TlsCertificate) -> proto::TlsCertificate {
    proto::TlsCertificate {
        certificate_chain: Some(text(&value.chain_pem)),
        private_key: Some(text(&value.key_pem)),
    }
}

pub(super) fn validation_context(value: &ValidationContext) -> proto::CertificateValidationContext {
    use proto::certificate_validation_context::SystemRootCerts;
    proto::CertificateValidationContext {
        trusted_ca: value.trusted_ca_pem.as_deref().map(text),
        match_typed_subject_alt_names: value.sans.iter().map(san).collect(),
        system_root_certs: value.system_roots.then_some(SystemRootCerts {}),
    }
}

fn san(value: &SanMatch) -> proto::SubjectAltNameMatcher {
    use proto::subject_alt_name_matcher::SanType as S;
    let kind = match value.kind {
        SanType::Dns => S::Dns,
        SanType::Uri => S::Uri,
        SanType::Email => S::Email,
        SanType::Ip => S::IpAddress,
    };
    proto::SubjectAltNameMatcher { san_type: kind.into(), matcher: Some(string_match(&value.text)) }
}
