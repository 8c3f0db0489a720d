//! `Secret`.

use outrigger_api::envoy::extensions::transport_sockets::tls::v3 as proto;
use outrigger_traffic::config::{Secret, SecretValue};

use super::tls;

/// A named certificate or named trust roots.
pub fn secret(value: &Secret) -> proto::Secret {
    use proto::secret::Type;
    let content = match &value.value {
        SecretValue::Certificate(certificate) => Type::TlsCertificate(tls::certificate(certificate)),
        SecretValue::Validation(context) => Type::ValidationContext(tls::validation_context(context)),
    };
    proto::Secret { name: value.name.clone(), r#type: Some(content) }
}
