//! `Secret`.

use super::{At, tls};
use outrigger_api::envoy::extensions::transport_sockets::tls::v3::{Secret as ProtoSecret, secret};
use outrigger_traffic::config::{Secret, SecretValue};

/// A secret; `None` when it has no usable content (noted).
pub(super) fn secret(message: &ProtoSecret, at: &At<'_>) -> Option<Secret> {
    at.field("name").need_text(&message.name);
    let value = match &message.r#type {
        Some(secret::Type::TlsCertificate(certificate)) => {
            SecretValue::Certificate(tls::certificate(certificate, &at.field("tls_certificate"))?)
        }
        Some(secret::Type::ValidationContext(context)) => {
            SecretValue::Validation(tls::validation_context(context, &at.field("validation_context")))
        }
        None => {
            at.refuse("`tls_certificate` or `validation_context` is required");
            return None;
        }
    };
    Some(Secret { name: message.name.clone(), value })
}
