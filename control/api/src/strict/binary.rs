//! Binary resources: decoded by reflection, then walked in search of what we do not have.

use super::{DEPTH_MAX, Findings, join, resolve};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

/// The message inside an `Any`, or `None` with the reason among the findings.
pub(super) fn read(type_url: &str, bytes: &[u8], findings: &mut Findings) -> Option<DynamicMessage> {
    read_any(type_url, bytes, "", 0, findings)
}

fn read_any(
    type_url: &str,
    bytes: &[u8],
    path: &str,
    depth: usize,
    findings: &mut Findings,
) -> Option<DynamicMessage> {
    if depth > DEPTH_MAX {
        findings.refuse(path, format!("nested deeper than {DEPTH_MAX}"));
        return None;
    }
    let descriptor = match resolve(type_url) {
        Ok(descriptor) => descriptor,
        Err("") => {
            findings.refuse(path, "has no type");
            return None;
        }
        Err(name) => {
            findings.unknown_type(name, path);
            return None;
        }
    };
    match DynamicMessage::decode(descriptor, bytes) {
        Ok(message) => {
            walk(&message, path, depth, findings);
            Some(message)
        }
        Err(error) => {
            findings.refuse(path, format!("does not decode: {error}"));
            None
        }
    }
}

fn walk(message: &DynamicMessage, path: &str, depth: usize, findings: &mut Findings) {
    let descriptor = message.descriptor();
    let name = descriptor.full_name();
    if depth > DEPTH_MAX {
        findings.refuse(path, format!("nested deeper than {DEPTH_MAX}"));
        return;
    }
    if name == "google.protobuf.Any" {
        let type_url = message.get_field_by_name("type_url");
        let value = message.get_field_by_name("value");
        let type_url = type_url.as_deref().and_then(Value::as_str).unwrap_or_default();
        let bytes = value.as_deref().and_then(Value::as_bytes).cloned().unwrap_or_default();
        read_any(type_url, &bytes, path, depth + 1, findings);
        return;
    }
    let mut seen = Vec::new();
    for unknown in message.unknown_fields() {
        let number = unknown.number();
        if seen.contains(&number) {
            continue;
        }
        seen.push(number);
        match crate::official::field_by_number(name, number) {
            Some(field) => findings.official_field(name, field, number, &join(path, field)),
            None => findings.refuse(
                &join(path, &format!("#{number}")),
                format!("field #{number} of {name} is not known"),
            ),
        }
    }
    for (field, value) in message.fields() {
        let path = join(path, field.name());
        match value {
            Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    one(&field.kind(), item, &format!("{path}[{i}]"), depth, findings);
                }
            }
            Value::Map(entries) => map(&field, entries, &path, depth, findings),
            single => one(&field.kind(), single, &path, depth, findings),
        }
    }
}

fn map(
    field: &FieldDescriptor,
    entries: &std::collections::HashMap<MapKey, Value>,
    path: &str,
    depth: usize,
    findings: &mut Findings,
) {
    let Kind::Message(entry) = field.kind() else { return };
    let kind = entry.map_entry_value_field().kind();
    let mut named: Vec<(String, &Value)> =
        entries.iter().map(|(key, value)| (format!("{path}[{}]", key_text(key)), value)).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, value) in named {
        one(&kind, value, &path, depth, findings);
    }
}

fn one(kind: &Kind, value: &Value, path: &str, depth: usize, findings: &mut Findings) {
    match (kind, value) {
        (_, Value::Message(message)) => walk(message, path, depth + 1, findings),
        (Kind::Enum(kind), Value::EnumNumber(number)) if kind.get_value(*number).is_none() => {
            let name = kind.full_name();
            match crate::official::value_by_number(name, *number) {
                Some(value) => findings.refuse(path, format!("`{value}` is not supported by Outrigger")),
                None => findings.refuse(path, format!("{number} is not a value of {name}")),
            }
        }
        _ => {}
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => text.clone(),
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(value) => value.to_string(),
        MapKey::I64(value) => value.to_string(),
        MapKey::U32(value) => value.to_string(),
        MapKey::U64(value) => value.to_string(),
    }
}
