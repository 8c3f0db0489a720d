//! `lb_subset_config`, the extension of the same meaning, and metadata that both sides are compared by.

use super::At;
use outrigger_api::envoy::config::cluster::v3::cluster::LbSubsetConfig;
use outrigger_api::envoy::config::core::v3::Metadata;
use outrigger_api::envoy::extensions::load_balancing_policies::subset::v3::Subset;
use outrigger_traffic::config::{LbValue, SubsetFallback, SubsetSelector, Subsets};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use std::fmt::Write as _;

/// Metadata of `envoy.lb`, by key.
pub(super) fn lb_metadata(metadata: Option<&Metadata>) -> Vec<(String, LbValue)> {
    values(metadata.and_then(|m| m.filter_metadata.get("envoy.lb")))
}

fn values(fields: Option<&Struct>) -> Vec<(String, LbValue)> {
    fields.into_iter().flat_map(|s| &s.fields).map(|(key, value)| (key.clone(), lb_value(value))).collect()
}

fn lb_value(value: &Value) -> LbValue {
    let elements = match &value.kind {
        Some(Kind::ListValue(list)) => list.values.iter().map(text).collect(),
        _ => Vec::new(),
    };
    LbValue { text: text(value), elements }
}

/// JSON; maps are ordered, so that equal values have equal texts.
fn text(value: &Value) -> String {
    let mut out = String::new();
    write_value(value, &mut out);
    out
}

fn write_value(value: &Value, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = match &value.kind {
        None | Some(Kind::NullValue(_)) => write!(out, "null"),
        Some(Kind::NumberValue(number)) => write!(out, "{number}"),
        Some(Kind::BoolValue(flag)) => write!(out, "{flag}"),
        Some(Kind::StringValue(text)) => write!(out, "{}", serde_json::Value::from(text.as_str())),
        Some(Kind::ListValue(list)) => {
            out.push('[');
            for (i, value) in list.values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(value, out);
            }
            out.push(']');
            Ok(())
        }
        Some(Kind::StructValue(fields)) => {
            out.push('{');
            for (i, (key, value)) in fields.fields.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                let _ = write!(out, "{}:", serde_json::Value::from(key.as_str()));
                write_value(value, out);
            }
            out.push('}');
            Ok(())
        }
    };
}

/// `lb_subset_config`.
pub(super) fn older(message: &LbSubsetConfig, at: &At<'_>) -> Subsets {
    let selectors = message.subset_selectors.iter().enumerate();
    Subsets {
        selectors: selectors.map(|(i, one)| selector(&one.keys, one.fallback_policy, i, at)).collect(),
        fallback: fallback(message.fallback_policy, at),
        default_subset: values(message.default_subset.as_ref()),
        locality_weight_aware: message.locality_weight_aware,
        panic_mode_any: message.panic_mode_any,
        list_as_any: message.list_as_any,
    }
}

/// The extension; the policy inside it is read where policies are.
pub(super) fn newer(message: &Subset, at: &At<'_>) -> Subsets {
    let selectors = message.subset_selectors.iter().enumerate();
    Subsets {
        selectors: selectors.map(|(i, one)| selector(&one.keys, one.fallback_policy, i, at)).collect(),
        fallback: fallback(message.fallback_policy, at),
        default_subset: values(message.default_subset.as_ref()),
        locality_weight_aware: message.locality_weight_aware,
        panic_mode_any: message.panic_mode_any,
        list_as_any: message.list_as_any,
    }
}

/// The numbers are the same in both forms.
fn fallback(number: i32, at: &At<'_>) -> SubsetFallback {
    match number {
        0 => SubsetFallback::None,
        1 => SubsetFallback::AnyEndpoint,
        2 => SubsetFallback::DefaultSubset,
        _ => {
            at.field("fallback_policy").refuse("is not supported");
            SubsetFallback::None
        }
    }
}

/// A selector's policies begin with "not defined".
fn selector(keys: &[String], policy: i32, number: usize, at: &At<'_>) -> SubsetSelector {
    let at = at.item("subset_selectors", number);
    if keys.is_empty() {
        at.field("keys").refuse("at least one is required");
    }
    let fallback = (policy != 0).then(|| fallback(policy - 1, &at));
    SubsetSelector { keys: keys.to_vec(), fallback }
}
