//! `CsrfPolicy`.

use super::super::At;
use super::super::value::{runtime_fraction, string_match};
use outrigger_api::envoy::extensions::filters::http::csrf::v3 as proto;
use outrigger_traffic::config::{CsrfPolicy, Fraction};

pub(super) fn policy(message: &proto::CsrfPolicy, at: &At<'_>) -> CsrfPolicy {
    let enabled = at.field("filter_enabled");
    let shadow = message.shadow_enabled.as_ref();
    CsrfPolicy {
        enabled: enabled
            .need(message.filter_enabled.as_ref())
            .and_then(|f| runtime_fraction(f, &enabled))
            .unwrap_or_default(),
        shadow: shadow
            .and_then(|f| runtime_fraction(f, &at.field("shadow_enabled")))
            .unwrap_or(Fraction::ZERO),
        additional_origins: message
            .additional_origins
            .iter()
            .enumerate()
            .filter_map(|(i, m)| string_match(m, &at.item("additional_origins", i)))
            .collect(),
    }
}
