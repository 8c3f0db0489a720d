//! Header fields that become metadata (`envoy.filters.http.header_to_metadata`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_traffic::config::{MetadataKind, MetadataSource};
use outrigger_traffic::filter::header_to_metadata::{Finding, Rule};
use outrigger_traffic::filter::{HeaderToMetadata, RouteFilter};
use outrigger_wire::FieldBlock;
use serde_json::Value;

use super::{After, Verdict, protobuf};
use crate::exchange::{Exchange, Front, Notes};
use crate::http::view::{FieldsView, HeadView};

/// Writes what the request's fields say.
pub(super) fn on_request(
    x: &mut Exchange,
    notes: &mut Notes,
    filter: &Arc<HeaderToMetadata>,
    settings: Option<&RouteFilter>,
) -> Verdict {
    let rules = chosen(filter, settings);
    for rule in &rules.request {
        let found = rule.find(&HeadView(&x.front.request)).and_then(|found| Some((value(&found)?, found)));
        if let Some((value, found)) = found {
            notes.learn(&x.front, &found.target.namespace, &found.target.key, value);
        }
        forget(&mut x.front.request.fields, rule);
    }
    on_answer(notes, filter, settings);
    Verdict::Next
}

/// Leaves what is to be done with the response.
pub(super) fn on_answer(notes: &mut Notes, filter: &Arc<HeaderToMetadata>, settings: Option<&RouteFilter>) {
    let rules = chosen(filter, settings);
    if !rules.response.is_empty() {
        notes.after.push(After::Metadata(rules.clone()));
    }
}

/// Writes what the response's fields say.
pub(super) fn on_response(x: &mut Front, notes: &mut Notes, rules: &HeaderToMetadata) {
    for rule in &rules.response {
        let found =
            rule.find(&FieldsView(&x.response.fields)).and_then(|found| Some((value(&found)?, found)));
        if let Some((value, found)) = found {
            notes.learn(x, &found.target.namespace, &found.target.key, value);
        }
        forget(&mut x.response.fields, rule);
    }
}

fn chosen<'f>(
    filter: &'f Arc<HeaderToMetadata>,
    settings: Option<&'f RouteFilter>,
) -> &'f Arc<HeaderToMetadata> {
    match settings {
        Some(RouteFilter::HeaderToMetadata(own)) => own,
        _ => filter,
    }
}

fn forget(fields: &mut FieldBlock, rule: &Rule) {
    if let (true, MetadataSource::Header(name)) = (rule.config.remove, &rule.config.source) {
        fields.remove(name.as_bytes());
    }
}

fn value(found: &Finding<'_>) -> Option<Value> {
    let decoded = if found.target.base64 { STANDARD.decode(&found.text).ok()? } else { found.text.clone() };
    if decoded.is_empty() {
        return None;
    }
    match found.target.kind {
        MetadataKind::Message => protobuf::value(&decoded).ok(),
        MetadataKind::Text | MetadataKind::Number => found.value(&decoded),
    }
}
