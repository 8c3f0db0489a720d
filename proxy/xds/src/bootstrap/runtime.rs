//! `layered_runtime`: there is no runtime, so only what would change nothing is accepted.

use crate::translate::At;
use outrigger_api::envoy::config::bootstrap::v3::LayeredRuntime;
use outrigger_api::envoy::config::bootstrap::v3::runtime_layer::LayerSpecifier;
use outrigger_traffic::config::ConfigError;
use prost_types::{Struct, value::Kind};

/// Keys that only concern Envoy's own implementation, as prefixes of dotted names.
const HARMLESS: &[&str] = &["envoy.reloadable_features.", "envoy.restart_features.", "re2.max_program_size."];

/// Refuses every key that could change traffic and returns a notice for each of the others.
pub(super) fn check(message: &LayeredRuntime, at: &At<'_>) -> Vec<ConfigError> {
    let mut notices = Vec::new();
    for (i, layer) in message.layers.iter().enumerate() {
        let at = at.item("layers", i);
        at.field("name").need_text(&layer.name);
        match &layer.layer_specifier {
            // Without values of its own, a layer for the admin server changes nothing.
            Some(LayerSpecifier::AdminLayer(_)) => {}
            Some(LayerSpecifier::StaticLayer(values)) => {
                let mut keys = Vec::new();
                flatten("", values, &mut keys);
                for key in keys {
                    if HARMLESS.iter().any(|h| key.starts_with(h)) {
                        let path = format!("layered_runtime.layers[{i}].static_layer.{key}");
                        notices.push(ConfigError::new(
                            "",
                            path,
                            "has no effect: it is about Envoy's own code",
                        ));
                    } else {
                        at.field("static_layer").field(&key).refuse("runtime values are not supported");
                    }
                }
            }
            None => at.refuse("`static_layer` or `admin_layer` is required"),
        }
    }
    notices
}

/// Keys may be written dotted or nested; both mean the same.
fn flatten(prefix: &str, values: &Struct, keys: &mut Vec<String>) {
    for (name, value) in &values.fields {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match &value.kind {
            Some(Kind::StructValue(inner)) if !inner.fields.contains_key("numerator") => {
                flatten(&key, inner, keys);
            }
            _ => keys.push(key),
        }
    }
}
