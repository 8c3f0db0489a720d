//! Plain values, enumerations, durations and free JSON, as the protobuf JSON mapping writes them.

use super::Findings;
use super::tree::{Shape, Tree};
use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use bytes::Bytes;
use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, MapKey, MessageDescriptor, Value};
use std::collections::HashMap;

/// Largest duration of the protobuf mapping, seconds (10,000 years).
const DURATION_MAX_S: i64 = 315_576_000_000;

/// Whether a message is one of the boxes around a plain value.
pub(super) fn is_wrapper(name: &str) -> bool {
    matches!(
        name,
        "google.protobuf.BoolValue"
            | "google.protobuf.BytesValue"
            | "google.protobuf.DoubleValue"
            | "google.protobuf.FloatValue"
            | "google.protobuf.Int32Value"
            | "google.protobuf.Int64Value"
            | "google.protobuf.StringValue"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.UInt64Value"
    )
}

/// A value that is neither a message nor an enumeration.
pub(super) fn plain(tree: &Tree, kind: &Kind) -> Result<Value, String> {
    let wrong = |what: &str| Err(format!("expected {what}, found {}", tree.value.noun()));
    match kind {
        Kind::Bool => match tree.value {
            Shape::Bool(v) => Ok(Value::Bool(v)),
            _ => wrong("true or false"),
        },
        Kind::String => match &tree.value {
            Shape::Text(v) => Ok(Value::String(v.clone())),
            Shape::Bool(_) | Shape::Int(_) | Shape::Float(_) => {
                wrong("a text").map_err(|e: String| e + "; put it in quotes")
            }
            _ => wrong("a text"),
        },
        Kind::Bytes => match &tree.value {
            Shape::Text(v) => match base64(v) {
                Some(v) => Ok(Value::Bytes(Bytes::from(v))),
                None => Err("expected base64".into()),
            },
            _ => wrong("base64"),
        },
        Kind::Double | Kind::Float => {
            let number = match &tree.value {
                Shape::Int(v) => *v as f64,
                Shape::Float(v) => *v,
                Shape::Text(v) => match v.parse::<f64>() {
                    Ok(v) => v,
                    Err(_) => return wrong("a number"),
                },
                _ => return wrong("a number"),
            };
            Ok(if matches!(kind, Kind::Float) { Value::F32(number as f32) } else { Value::F64(number) })
        }
        _ => integer(tree, kind),
    }
}

fn integer(tree: &Tree, kind: &Kind) -> Result<Value, String> {
    let number = match &tree.value {
        Shape::Int(v) => *v,
        Shape::Float(v) if v.fract() == 0.0 && v.abs() < 9.0e15 => *v as i128,
        Shape::Text(v) => match v.parse::<i128>() {
            Ok(v) => v,
            Err(_) => return Err("expected an integer, found a text".into()),
        },
        other => return Err(format!("expected an integer, found {}", other.noun())),
    };
    let value = match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => i32::try_from(number).ok().map(Value::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => i64::try_from(number).ok().map(Value::I64),
        Kind::Uint32 | Kind::Fixed32 => u32::try_from(number).ok().map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => u64::try_from(number).ok().map(Value::U64),
        _ => None,
    };
    value.ok_or_else(|| format!("{number} does not fit into {kind:?}").to_lowercase())
}

/// Standard or URL-safe, with or without padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text: String = text
        .chars()
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            c => c,
        })
        .collect();
    GeneralPurpose::new(&base64::alphabet::STANDARD, config)
        .decode(&text)
        .or_else(|_| general_purpose::STANDARD.decode(&text))
        .ok()
}

/// An enumeration by name or number.
pub(super) fn enumeration(
    tree: &Tree,
    descriptor: &EnumDescriptor,
    path: &str,
    findings: &mut Findings,
) -> Option<Value> {
    let name = descriptor.full_name();
    match &tree.value {
        Shape::Text(text) => {
            // The official parser takes names in any case, and published configurations rely on it.
            let found = descriptor
                .get_value_by_name(text)
                .or_else(|| descriptor.values().find(|v| v.name().eq_ignore_ascii_case(text)));
            if let Some(value) = found {
                return Some(Value::EnumNumber(value.number()));
            }
            if crate::official::value_by_name(name, text).is_some() {
                findings.refuse(path, format!("`{text}` is not supported by Outrigger"));
                return None;
            }
            let known: Vec<String> = descriptor.values().map(|v| v.name().to_owned()).collect();
            findings
                .refuse(path, format!("`{text}` is not a value of {name}; known are {}", known.join(", ")));
            None
        }
        Shape::Int(number) => {
            let number = i32::try_from(*number).ok();
            if let Some(value) = number.and_then(|n| descriptor.get_value(n)) {
                return Some(Value::EnumNumber(value.number()));
            }
            match number.and_then(|n| crate::official::value_by_number(name, n)) {
                Some(value) => findings.refuse(path, format!("`{value}` is not supported by Outrigger")),
                None => findings.refuse(path, format!("not a value of {name}")),
            }
            None
        }
        other => {
            findings.refuse(path, format!("expected a value of {name}, found {}", other.noun()));
            None
        }
    }
}

/// `"1.5s"`.
pub(super) fn duration(
    tree: &Tree,
    descriptor: &MessageDescriptor,
    path: &str,
    findings: &mut Findings,
) -> Option<DynamicMessage> {
    let parsed = match &tree.value {
        Shape::Text(text) => parse_duration(text),
        _ => None,
    };
    let Some((seconds, nanos)) = parsed else {
        findings.refuse(path, "expected a duration in seconds such as `1.5s`");
        return None;
    };
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field_by_name("seconds", Value::I64(seconds));
    message.set_field_by_name("nanos", Value::I32(nanos));
    Some(message)
}

fn parse_duration(text: &str) -> Option<(i64, i32)> {
    let number = text.strip_suffix('s')?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let seconds: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    if seconds > DURATION_MAX_S {
        return None;
    }
    Some(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

/// `Struct`, `Value` and `ListValue`: any JSON.
pub(super) fn json_like(
    tree: &Tree,
    descriptor: &MessageDescriptor,
    path: &str,
    findings: &mut Findings,
) -> Option<DynamicMessage> {
    let expected = match (descriptor.full_name(), &tree.value) {
        ("google.protobuf.Struct", Shape::Map(_)) => None,
        ("google.protobuf.Struct", _) => Some("a mapping"),
        ("google.protobuf.ListValue", Shape::List(_)) => None,
        ("google.protobuf.ListValue", _) => Some("a list"),
        _ => None,
    };
    if let Some(expected) = expected {
        findings.refuse(path, format!("expected {expected}, found {}", tree.value.noun()));
        return None;
    }
    let built = build_json(tree, descriptor);
    if built.is_none() {
        findings.refuse(path, "cannot be expressed as JSON");
    }
    built
}

fn build_json(tree: &Tree, descriptor: &MessageDescriptor) -> Option<DynamicMessage> {
    let pool = descriptor.parent_pool();
    let of = |name: &str| pool.get_message_by_name(name);
    let mut message = DynamicMessage::new(descriptor.clone());
    match descriptor.full_name() {
        "google.protobuf.Struct" => {
            let Shape::Map(entries) = &tree.value else { return None };
            let value = of("google.protobuf.Value")?;
            let mut fields = HashMap::new();
            for (key, _, item) in entries {
                fields.insert(MapKey::String(key.clone()), Value::Message(build_json(item, &value)?));
            }
            message.set_field_by_name("fields", Value::Map(fields));
        }
        "google.protobuf.ListValue" => {
            let Shape::List(items) = &tree.value else { return None };
            let value = of("google.protobuf.Value")?;
            let values: Option<Vec<Value>> =
                items.iter().map(|item| build_json(item, &value).map(Value::Message)).collect();
            message.set_field_by_name("values", Value::List(values?));
        }
        _ => match &tree.value {
            Shape::Null => message.set_field_by_name("null_value", Value::EnumNumber(0)),
            Shape::Bool(v) => message.set_field_by_name("bool_value", Value::Bool(*v)),
            Shape::Int(v) => message.set_field_by_name("number_value", Value::F64(*v as f64)),
            Shape::Float(v) => message.set_field_by_name("number_value", Value::F64(*v)),
            Shape::Text(v) => message.set_field_by_name("string_value", Value::String(v.clone())),
            Shape::List(_) => {
                let list = build_json(tree, &of("google.protobuf.ListValue")?)?;
                message.set_field_by_name("list_value", Value::Message(list));
            }
            Shape::Map(_) => {
                let map = build_json(tree, &of("google.protobuf.Struct")?)?;
                message.set_field_by_name("struct_value", Value::Message(map));
            }
        },
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::parse_duration;

    #[test]
    fn durations_read_as_the_mapping_says() {
        for (text, expected) in [
            ("1s", Some((1, 0))),
            ("0.25s", Some((0, 250_000_000))),
            ("1.000000001s", Some((1, 1))),
            ("-1.5s", Some((-1, -500_000_000))),
            ("0s", Some((0, 0))),
            ("", None),
            ("s", None),
            ("1", None),
            ("1m", None),
            ("1.0000000001s", None),
            ("+1s", None),
            ("1e3s", None),
            ("315576000000s", Some((315_576_000_000, 0))),
            ("315576000001s", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }
}
