//! Subsets, and the metadata that they are made by.

use outrigger_api::envoy::config::cluster::v3::cluster::LbSubsetConfig;
use outrigger_api::envoy::config::cluster::v3::cluster::lb_subset_config::LbSubsetSelector;
use outrigger_api::envoy::config::core::v3::Metadata;
use outrigger_traffic::config::{LbValue, SubsetFallback, Subsets};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use std::collections::BTreeMap;

/// Where Envoy looks for it.
pub(super) const NAMESPACE: &str = "envoy.lb";

/// Values by key.
pub(super) fn fields(pairs: &[(String, LbValue)]) -> BTreeMap<String, Value> {
    let read = |value: &LbValue| serde_json::from_str(&value.text).unwrap_or(serde_json::Value::Null);
    pairs.iter().map(|(key, value)| (key.clone(), protobuf(read(value)))).collect()
}

/// What a route demands.
pub(super) fn demanded(pairs: &[(String, LbValue)]) -> Option<Metadata> {
    (!pairs.is_empty()).then(|| Metadata {
        filter_metadata: [(NAMESPACE.to_owned(), Struct { fields: fields(pairs) })].into(),
    })
}

fn protobuf(value: serde_json::Value) -> Value {
    use serde_json::Value as J;
    let kind = match value {
        J::Null => Kind::NullValue(0),
        J::Bool(flag) => Kind::BoolValue(flag),
        J::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        J::String(text) => Kind::StringValue(text),
        J::Array(list) => Kind::ListValue(ListValue { values: list.into_iter().map(protobuf).collect() }),
        J::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(key, value)| (key, protobuf(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

/// `lb_subset_config`.
pub(super) fn subsets(value: &Subsets) -> LbSubsetConfig {
    let number = |fallback: SubsetFallback| match fallback {
        SubsetFallback::None => 0,
        SubsetFallback::AnyEndpoint => 1,
        SubsetFallback::DefaultSubset => 2,
    };
    let default = Struct { fields: fields(&value.default_subset) };
    LbSubsetConfig {
        fallback_policy: number(value.fallback),
        default_subset: (!value.default_subset.is_empty()).then_some(default),
        subset_selectors: value
            .selectors
            .iter()
            .map(|selector| LbSubsetSelector {
                keys: selector.keys.clone(),
                // A selector's policies begin with "not defined".
                fallback_policy: selector.fallback.map_or(0, |fallback| number(fallback) + 1),
            })
            .collect(),
        locality_weight_aware: value.locality_weight_aware,
        panic_mode_any: value.panic_mode_any,
        list_as_any: value.list_as_any,
    }
}
