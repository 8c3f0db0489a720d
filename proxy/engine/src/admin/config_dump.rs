//! `/config_dump`: what is in effect.

use super::server::{Context, Reply};
use http::StatusCode;
use outrigger_traffic::config::{Config, SecretValue};
use regex::RegexBuilder;
use serde_json::{Value, json};

const REDACTED: &str = "[redacted]";

/// Names of fields that hold private keys, in our model and in Envoy's.
const SECRET_FIELDS: [&str; 4] = ["key_pem", "private_key", "password", "session_ticket_keys"];

/// `configs[]`: the resources of the configuration feed in Envoy's JSON (where the program gives them), then the
/// proxy's own model. `resource=FIELD` shows one array of the feed's dumps, `name_regex=REGEX` narrows by name. Private keys never appear.
pub(super) fn config_dump(context: &Context<'_>) -> Reply {
    let mut config = context.steering.applier().config().clone();
    redact_model(&mut config);
    let model = match serde_json::to_value(&config) {
        Ok(model) => model,
        Err(error) => return Reply::status(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    };
    let mut configs = context.sources.config_dump.as_ref().map(|source| source.configs()).unwrap_or_default();
    configs.push(json!({
        "@type": "type.googleapis.com/outrigger.admin.v1.ModelDump",
        "version": context.steering.shared.live.load().version,
        "config": model,
    }));
    for config in &mut configs {
        redact(config);
    }
    if let Some(pattern) = context.parameter("name_regex") {
        // Compiled once with a limit; the text comes from whoever can reach the port.
        let Ok(regex) = RegexBuilder::new(&pattern).size_limit(1 << 20).build() else {
            return Reply::status(StatusCode::BAD_REQUEST, "name_regex is no valid regular expression\n");
        };
        configs.iter_mut().for_each(|config| keep_named(config, &|name| regex.is_match(name)));
    }
    if let Some(resource) = context.parameter("resource") {
        let found: Vec<Value> =
            configs.iter().filter_map(|c| c.get(&resource)?.as_array()).flatten().cloned().collect();
        if found.is_empty() {
            return Reply::status(StatusCode::NOT_FOUND, format!("{resource} not found in config dump\n"));
        }
        configs = found;
    }
    Reply::json(&json!({"configs": configs}))
}

/// Keys of the model are redacted where they are, so that no later change of a field's name can let one through.
fn redact_model(config: &mut Config) {
    for secret in &mut config.secrets {
        if let SecretValue::Certificate(pair) = &mut secret.value {
            REDACTED.clone_into(&mut pair.key_pem);
        }
    }
}

/// Replaces every value of a field that holds a secret, wherever it stands.
fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if SECRET_FIELDS.contains(&name.as_str()) && !value.is_null() {
                    *value = redacted(value);
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A data source keeps its form, with base64 of Envoy's `[redacted]` as its bytes.
fn redacted(value: &Value) -> Value {
    if value.is_object() { json!({"inline_bytes": "W3JlZGFjdGVkXQ=="}) } else { json!(REDACTED) }
}

/// Drops the elements of every array of named things whose name is not wanted.
fn keep_named(value: &mut Value, wanted: &dyn Fn(&str) -> bool) {
    let Some(fields) = value.as_object_mut() else { return };
    for (field, value) in fields.iter_mut() {
        if let Value::Array(elements) = value {
            elements.retain(|element| name_of(element).is_none_or(wanted));
        } else if field == "config" {
            keep_named(value, wanted);
        }
    }
}

fn name_of(element: &Value) -> Option<&str> {
    element.get("name").or_else(|| element.get("cluster_name")).and_then(Value::as_str).or_else(|| {
        // Envoy wraps resources: `{"version_info": …, "cluster": {"name": …}}`.
        element.as_object()?.values().find_map(|v| v.get("name").or_else(|| v.get("cluster_name"))?.as_str())
    })
}
