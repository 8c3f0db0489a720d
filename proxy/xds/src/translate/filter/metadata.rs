//! Filters that write metadata: `header_to_metadata.v3.Config` and `set_metadata.v3.Config`.

use super::super::At;
use super::super::metadata::map;
use super::super::value::{header_name, regex};
use outrigger_api::envoy::extensions::filters::http::header_to_metadata::v3 as header;
use outrigger_api::envoy::extensions::filters::http::set_metadata::v3 as set;
use outrigger_traffic::config::{
    HeaderToMetadata, MetadataKind, MetadataRule, MetadataSource, MetadataTarget, SetMetadata,
};
use prost_types::Struct;

/// Namespace of rules that name none. Source: Envoy.
const NAMESPACE: &str = "envoy.filters.http.header_to_metadata";

/// Header fields that become metadata.
pub(super) fn from_headers(message: &header::Config, at: &At<'_>) -> HeaderToMetadata {
    let side = |rules: &[header::config::Rule], field: &str| {
        rules.iter().enumerate().filter_map(|(i, one)| rule(one, &at.item(field, i))).collect()
    };
    HeaderToMetadata {
        request: side(&message.request_rules, "request_rules"),
        response: side(&message.response_rules, "response_rules"),
    }
}

fn rule(message: &header::config::Rule, at: &At<'_>) -> Option<MetadataRule> {
    let source = match (message.header.as_str(), message.cookie.as_str()) {
        ("", "") => {
            at.refuse("one of `header` and `cookie` is required");
            return None;
        }
        (name, "") => MetadataSource::Header(header_name(name, true, &at.field("header"))),
        ("", name) => MetadataSource::Cookie(name.to_owned()),
        _ => {
            at.refuse("only one of `header` and `cookie` may be given");
            return None;
        }
    };
    let target = |one: &Option<header::config::KeyValuePair>, field: &str| {
        one.as_ref().map(|one| target(one, &at.field(field)))
    };
    Some(MetadataRule {
        source,
        present: target(&message.on_header_present, "on_header_present"),
        missing: target(&message.on_header_missing, "on_header_missing"),
        remove: message.remove,
    })
}

fn target(message: &header::config::KeyValuePair, at: &At<'_>) -> MetadataTarget {
    use header::config::{ValueEncode as E, ValueType as T};
    at.field("key").need_text(&message.key);
    let kind = match T::try_from(message.r#type) {
        Ok(T::String) => MetadataKind::Text,
        Ok(T::Number) => MetadataKind::Number,
        Ok(T::ProtobufValue) => MetadataKind::Message,
        Err(_) => {
            at.field("type").refuse("is not known");
            MetadataKind::Text
        }
    };
    let base64 = match E::try_from(message.encode) {
        Ok(encode) => encode == E::Base64,
        Err(_) => {
            at.field("encode").refuse("is not known");
            false
        }
    };
    let rewrite = message.regex_value_rewrite.as_ref().and_then(|rewrite| {
        let at = at.field("regex_value_rewrite");
        if !message.value.is_empty() {
            at.refuse("cannot be given together with `value`");
        }
        let pattern = at.field("pattern").need(rewrite.pattern.as_ref())?;
        Some((regex(pattern, &at.field("pattern")), rewrite.substitution.clone()))
    });
    MetadataTarget {
        namespace: match message.metadata_namespace.as_str() {
            "" => NAMESPACE.to_owned(),
            name => name.to_owned(),
        },
        key: message.key.clone(),
        value: message.value.clone(),
        rewrite,
        kind,
        base64,
    }
}

/// Fixed metadata. The two fields of the message itself are the older way to say the same, with `allow_overwrite`.
pub(super) fn fixed(message: &set::Config, at: &At<'_>) -> Vec<SetMetadata> {
    let values = |value: Option<&Struct>, at: &At<'_>| match value {
        None => Some(serde_json::Map::new()),
        Some(value) => map(value).or_else(|| {
            at.field("value").refuse("holds a number that JSON cannot express");
            None
        }),
    };
    let mut all = Vec::new();
    if !message.metadata_namespace.is_empty() {
        let value = values(message.value.as_ref(), at).unwrap_or_default();
        all.push(SetMetadata { namespace: message.metadata_namespace.clone(), overwrite: true, value });
    } else if message.value.is_some() {
        at.field("value").refuse("needs `metadata_namespace`");
    }
    for (i, one) in message.metadata.iter().enumerate() {
        let at = at.item("metadata", i);
        at.field("metadata_namespace").need_text(&one.metadata_namespace);
        let value = values(one.value.as_ref(), &at).unwrap_or_default();
        all.push(SetMetadata {
            namespace: one.metadata_namespace.clone(),
            overwrite: one.allow_overwrite,
            value,
        });
    }
    all
}
