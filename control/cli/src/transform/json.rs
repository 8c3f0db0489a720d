//! Reading and editing JSON in place. What has another type than expected was refused before ([`super::definition`]).

use serde_json::{Value, json};

/// The items of a list; none when it is absent or null.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// A text; empty when it is absent.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// A port; 0 when it is absent.
pub(super) fn port(value: &Value, key: &str) -> u16 {
    value[key].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(0)
}

/// The list, made when it is absent or null.
pub(super) fn list_mut<'a>(value: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    let slot = &mut value[key];
    if !slot.is_array() {
        *slot = json!([]);
    }
    slot.as_array_mut().expect("it was made a list if it was none")
}

/// Sets a field unless it has a value.
pub(super) fn set_absent(value: &mut Value, key: &str, to: Value) {
    if value[key].is_null() {
        value[key] = to;
    }
}

/// The item of a list whose `key` has this value.
pub(super) fn find<'a>(items: &'a [Value], key: &str, is: &Value) -> Option<&'a Value> {
    items.iter().find(|item| item[key] == *is)
}

/// Sets the fields of the item that has the same `key`, or adds it.
pub(super) fn upsert(items: &mut Vec<Value>, key: &str, item: Value) {
    let known = items.iter_mut().find(|known| known[key] == item[key]);
    match (known, item) {
        (Some(known), Value::Object(fields)) => {
            for (field, value) in fields {
                known[&field] = value;
            }
        }
        (Some(known), item) => *known = item,
        (None, item) => items.push(item),
    }
}

/// The value of a variable of a container.
pub(super) fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    find(list(container, "environment"), "name", &name.into())?["value"].as_str()
}

/// Paths at which two documents differ; where one has nothing at all, only that place.
pub(super) fn differences(path: &str, before: &Value, after: &Value, paths: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
            for key in keys {
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (old.get(key), new.get(key)) {
                    (Some(old), Some(new)) => differences(&at, old, new, paths),
                    _ => paths.push(at),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for at in 0..old.len().max(new.len()) {
                let path = format!("{path}[{at}]");
                match (old.get(at), new.get(at)) {
                    (Some(old), Some(new)) => differences(&path, old, new, paths),
                    _ => paths.push(path),
                }
            }
        }
        _ if before != after => paths.push(path.to_owned()),
        _ => {}
    }
}
