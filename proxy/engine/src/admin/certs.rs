//! `/certs`: certificates in use and when they end.

use super::server::{Context, Reply};
use crate::identity::CertificateFacts;
use crate::telemetry::collect::{certificates, unix_seconds};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Envoy's fields; each certificate once per user (`listener/NAME`, `cluster/NAME`).
pub(super) fn certs(context: &Context<'_>) -> Reply {
    let live = context.steering.shared.live.load_full();
    let now = unix_seconds();
    let all: Vec<Value> = certificates(&live)
        .into_iter()
        .map(|used| json!({"used_by": used.user, "cert_chain": [certificate_json(&used.facts, now)], "ca_cert": []}))
        .collect();
    Reply::json(&json!({"certificates": all}))
}

fn certificate_json(facts: &CertificateFacts, now: i64) -> Value {
    let names: Vec<Value> = (facts.dns_sans.iter().map(|n| json!({"dns": n})))
        .chain(facts.uri_sans.iter().map(|n| json!({"uri": n})))
        .chain(facts.ip_sans.iter().map(|n| json!({"ip_address": n})))
        .collect();
    json!({
        "path": "<inline>",
        "subject": facts.subject,
        "serial_number": facts.serial,
        "subject_alt_names": names,
        "days_until_expiration": (facts.not_after.saturating_sub(now).max(0) / 86_400).to_string(),
        "valid_from": text(facts.not_before),
        "expiration_time": text(facts.not_after),
    })
}

fn text(unix_seconds: i64) -> String {
    Timestamp::from_second(unix_seconds).unwrap_or_default().to_string()
}
