//! TLS contexts.

use super::value::string_match;
use super::{At, files, source};
use crate::ads::Kind;
use outrigger_api::envoy::config::core::v3::proxy_protocol_config::Version;
use outrigger_api::envoy::config::core::v3::{TransportSocket, transport_socket};
use outrigger_api::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use outrigger_api::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use outrigger_api::envoy::extensions::transport_sockets::tls::v3 as proto;
use outrigger_traffic::config::{
    CertificateSource, DownstreamTls, ProxyProtocolVersion, SanMatch, SanType, TlsCertificate, TlsParams,
    TlsVersion, UpstreamTls, ValidationContext, ValidationSource,
};
use prost::{Message, Name};
use proto::common_tls_context::ValidationContextType as V;

/// Longest name of a host (RFC 6066 §3).
const SNI_BYTES_MAX: usize = 255;

/// The transport socket of a filter chain; `None` is plaintext (or refused).
pub(super) fn downstream_socket(socket: &TransportSocket, at: &At<'_>) -> Option<DownstreamTls> {
    context::<proto::DownstreamTlsContext>(socket, at)
        .and_then(|context| downstream(&context, &at.field("typed_config")))
}

/// The transport socket of a cluster, and the PROXY header sent before it.
pub(super) fn upstream_socket_or_proxied(
    socket: &TransportSocket,
    at: &At<'_>,
) -> (Option<UpstreamTls>, Option<ProxyProtocolVersion>) {
    if let Some(transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type
        && let Some(found) = at.field("typed_config").unpack::<ProxyProtocolUpstreamTransport>(any)
    {
        at.field("name").need_text(&socket.name);
        let at = at.field("typed_config");
        let Some(message) = found.message() else { return (None, None) };
        let version = match message.config.as_ref().map(|config| Version::try_from(config.version)) {
            None | Some(Ok(Version::V1)) => ProxyProtocolVersion::V1,
            Some(Ok(Version::V2)) => ProxyProtocolVersion::V2,
            Some(Err(_)) => {
                at.field("config").field("version").refuse("is not known");
                ProxyProtocolVersion::V1
            }
        };
        let at = at.field("transport_socket");
        let inner = at.need(message.transport_socket.as_ref());
        return (inner.and_then(|inner| upstream_socket(inner, &at)), Some(version));
    }
    (upstream_socket(socket, at), None)
}

/// The transport socket of a cluster; `None` is plaintext (or refused).
fn upstream_socket(socket: &TransportSocket, at: &At<'_>) -> Option<UpstreamTls> {
    context::<proto::UpstreamTlsContext>(socket, at)
        .and_then(|context| upstream(&context, &at.field("typed_config")))
}

fn context<M: Message + Name + Default>(socket: &TransportSocket, at: &At<'_>) -> Option<M> {
    at.field("name").need_text(&socket.name);
    let at = at.field("typed_config");
    let Some(transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type else {
        // The name alone configures the one socket that has nothing to be configured.
        if socket.name != "envoy.transport_sockets.raw_buffer" {
            at.refuse("is required");
        }
        return None;
    };
    if at.unpack::<RawBuffer>(any).is_some() {
        return None;
    }
    let Some(context) = at.unpack::<M>(any) else {
        at.refuse_type(any);
        return None;
    };
    context.message()
}

fn downstream(message: &proto::DownstreamTlsContext, at: &At<'_>) -> Option<DownstreamTls> {
    use proto::downstream_tls_context::SessionTicketKeysType as T;
    let require_client_certificate = message.require_client_certificate.unwrap_or(false);
    let at_common = at.field("common_tls_context");
    let common = at_common.need(message.common_tls_context.as_ref())?;
    let certificates = certificates(common, &at_common);
    if common.tls_certificates.is_empty() && common.tls_certificate_sds_secret_configs.is_empty() {
        at_common.refuse("`tls_certificates` or `tls_certificate_sds_secret_configs` is required");
    }
    let validation = validation(common, &at_common);
    if require_client_certificate && common.validation_context_type.is_none() {
        at.field("require_client_certificate")
            .refuse("needs a validation context, else any certificate would do");
    }
    Some(DownstreamTls {
        certificates,
        validation,
        require_client_certificate,
        alpn: alpn(common, &at_common),
        params: params(common, &at_common),
        disable_stateless_session_resumption: matches!(
            message.session_ticket_keys_type,
            Some(T::DisableStatelessSessionResumption(true))
        ),
    })
}

fn upstream(message: &proto::UpstreamTlsContext, at: &At<'_>) -> Option<UpstreamTls> {
    if message.sni.len() > SNI_BYTES_MAX {
        at.field("sni").refuse(format!("must be at most {SNI_BYTES_MAX} bytes"));
    }
    let at_common = at.field("common_tls_context");
    // Envoy takes an absent common part for an empty one.
    let absent = proto::CommonTlsContext::default();
    let common = message.common_tls_context.as_ref().unwrap_or(&absent);
    let mut certificates = certificates(common, &at_common);
    if certificates.len() > 1 {
        at_common.refuse("towards a cluster one certificate at most is supported");
    }
    Some(UpstreamTls {
        sni: message.sni.clone(),
        certificate: certificates.pop(),
        validation: validation(common, &at_common),
        alpn: alpn(common, &at_common),
        params: params(common, &at_common),
        max_session_keys: message.max_session_keys.unwrap_or(1),
    })
}

fn certificates(common: &proto::CommonTlsContext, at: &At<'_>) -> Vec<CertificateSource> {
    if !common.tls_certificates.is_empty() && !common.tls_certificate_sds_secret_configs.is_empty() {
        at.field("tls_certificate_sds_secret_configs")
            .refuse("cannot be given together with `tls_certificates`");
    }
    let inline =
        common.tls_certificates.iter().enumerate().filter_map(|(i, c)| {
            certificate(c, &at.item("tls_certificates", i)).map(CertificateSource::Inline)
        });
    let named = common
        .tls_certificate_sds_secret_configs
        .iter()
        .enumerate()
        .map(|(i, c)| CertificateSource::Sds(sds(c, &at.item("tls_certificate_sds_secret_configs", i))));
    inline.chain(named).collect()
}

/// A certificate with its key; both are required.
pub(super) fn certificate(message: &proto::TlsCertificate, at: &At<'_>) -> Option<TlsCertificate> {
    let part = |source: Option<&_>, field: &str| {
        let at = at.field(field);
        at.need(source).and_then(|source| files::text(source, &at))
    };
    let chain = part(message.certificate_chain.as_ref(), "certificate_chain");
    let key = part(message.private_key.as_ref(), "private_key");
    Some(TlsCertificate { chain_pem: chain?, key_pem: key? })
}

/// The name of a secret that the stream (or the bootstrap's own secrets) brings.
fn sds(message: &proto::SdsSecretConfig, at: &At<'_>) -> String {
    at.field("name").need_text(&message.name);
    if let Some(from) = &message.sds_config {
        source::want(Kind::Secret, &message.name, from, &at.field("sds_config"));
    }
    message.name.clone()
}

fn validation(common: &proto::CommonTlsContext, at: &At<'_>) -> Option<ValidationSource> {
    Some(match common.validation_context_type.as_ref()? {
        V::ValidationContext(context) => {
            ValidationSource::Inline(validation_context(context, &at.field("validation_context")))
        }
        V::ValidationContextSdsSecretConfig(config) => {
            ValidationSource::Sds(sds(config, &at.field("validation_context_sds_secret_config")))
        }
        V::CombinedValidationContext(combined) => {
            let at = at.field("combined_validation_context");
            let at_default = at.field("default_validation_context");
            let default = at_default.need(combined.default_validation_context.as_ref())?;
            let at_sds = at.field("validation_context_sds_secret_config");
            let config = at_sds.need(combined.validation_context_sds_secret_config.as_ref())?;
            ValidationSource::Combined {
                default: validation_context(default, &at_default),
                sds: sds(config, &at_sds),
            }
        }
    })
}

/// Trust roots and conditions on names.
pub(super) fn validation_context(
    message: &proto::CertificateValidationContext,
    at: &At<'_>,
) -> ValidationContext {
    let trusted_ca_pem =
        message.trusted_ca.as_ref().and_then(|source| files::text(source, &at.field("trusted_ca")));
    let sans = message
        .match_typed_subject_alt_names
        .iter()
        .enumerate()
        .filter_map(|(i, m)| san(m, &at.item("match_typed_subject_alt_names", i)))
        .collect();
    ValidationContext { trusted_ca_pem, system_roots: message.system_root_certs.is_some(), sans }
}

fn san(message: &proto::SubjectAltNameMatcher, at: &At<'_>) -> Option<SanMatch> {
    use proto::subject_alt_name_matcher::SanType as S;
    let kind = match S::try_from(message.san_type) {
        Ok(S::Email) => Some(SanType::Email),
        Ok(S::Dns) => Some(SanType::Dns),
        Ok(S::Uri) => Some(SanType::Uri),
        Ok(S::IpAddress) => Some(SanType::Ip),
        Ok(S::Unspecified) | Err(_) => {
            at.field("san_type").refuse("is required");
            None
        }
    };
    let at = at.field("matcher");
    let text = at.need(message.matcher.as_ref()).and_then(|m| string_match(m, &at));
    Some(SanMatch { kind: kind?, text: text? })
}

fn alpn(common: &proto::CommonTlsContext, at: &At<'_>) -> Vec<String> {
    for (i, name) in common.alpn_protocols.iter().enumerate() {
        // RFC 7301 §3.1: 1 to 255 bytes.
        if name.is_empty() || name.len() > 255 {
            at.item("alpn_protocols", i).refuse("must have 1 to 255 bytes");
        }
    }
    // One text may hold several, as Envoy's own examples have it.
    let each = common.alpn_protocols.iter().flat_map(|names| names.split(','));
    each.map(|name| name.trim().to_owned()).collect()
}

fn params(common: &proto::CommonTlsContext, at: &At<'_>) -> TlsParams {
    use proto::tls_parameters::TlsProtocol as T;
    let Some(params) = &common.tls_params else { return TlsParams::default() };
    let at = at.field("tls_params");
    let version = |value: i32, field: &str| match T::try_from(value) {
        Ok(T::TlsAuto) => None,
        Ok(T::TlSv12) => Some(TlsVersion::V1_2),
        Ok(T::TlSv13) => Some(TlsVersion::V1_3),
        Err(_) => {
            at.field(field).refuse("is not known");
            None
        }
    };
    let min = version(params.tls_minimum_protocol_version, "tls_minimum_protocol_version");
    let max = version(params.tls_maximum_protocol_version, "tls_maximum_protocol_version");
    if let (Some(least), Some(most)) = (min, max)
        && least > most
    {
        at.refuse("the minimum version is above the maximum");
    }
    TlsParams { min, max }
}
