//! From a tree to messages, by their descriptors (the protobuf JSON mapping, without its silences).

use super::scalar;
use super::tree::{Shape, Tree};
use super::{DEPTH_MAX, Findings, join, resolve};
use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use std::collections::HashMap;

/// The message that a tree says, as far as it can be read; whatever cannot be is among the findings.
pub(super) fn read(tree: &Tree, descriptor: &MessageDescriptor, findings: &mut Findings) -> DynamicMessage {
    match message(tree, descriptor, "", 0, findings) {
        Some(message) => message,
        None => DynamicMessage::new(descriptor.clone()),
    }
}

fn message(
    tree: &Tree,
    descriptor: &MessageDescriptor,
    path: &str,
    depth: usize,
    findings: &mut Findings,
) -> Option<DynamicMessage> {
    at(tree.line, path, findings);
    if depth > DEPTH_MAX {
        findings.refuse(path, format!("nested deeper than {DEPTH_MAX}"));
        return None;
    }
    match descriptor.full_name() {
        "google.protobuf.Any" => return any(tree, descriptor, path, depth, findings),
        "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => {
            return scalar::json_like(tree, descriptor, path, findings);
        }
        // As a mapping of seconds and nanoseconds it is read like any other message: the official parser takes both.
        "google.protobuf.Duration" if !matches!(tree.value, Shape::Map(_)) => {
            return scalar::duration(tree, descriptor, path, findings);
        }
        name if scalar::is_wrapper(name) => {
            let field = descriptor.get_field_by_name("value")?;
            let value = single(tree, &field.kind(), path, depth, findings)?;
            let mut message = DynamicMessage::new(descriptor.clone());
            message.set_field(&field, value);
            return Some(message);
        }
        _ => {}
    }
    let Shape::Map(entries) = &tree.value else {
        findings.refuse(path, format!("expected a mapping, found {}", tree.value.noun()));
        return None;
    };
    Some(fields(entries, descriptor, path, depth, findings))
}

fn fields(
    entries: &[(String, u64, Tree)],
    descriptor: &MessageDescriptor,
    path: &str,
    depth: usize,
    findings: &mut Findings,
) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    let mut given: Vec<u32> = Vec::new();
    let mut oneofs: HashMap<String, String> = HashMap::new();
    for (key, line, tree) in entries {
        let found = descriptor.get_field_by_name(key).or_else(|| descriptor.get_field_by_json_name(key));
        let Some(field) = found else {
            at(*line, "", findings);
            unknown_key(key, descriptor, path, findings);
            continue;
        };
        let path = join(path, field.name());
        at(*line, &path, findings);
        if given.contains(&field.number()) {
            findings.refuse(&path, "given twice");
            continue;
        }
        given.push(field.number());
        if matches!(tree.value, Shape::Null) && !takes_null(&field) {
            continue;
        }
        if let Some(oneof) = field.containing_oneof().filter(|o| !o.is_synthetic())
            && let Some(other) = oneofs.insert(oneof.name().to_owned(), field.name().to_owned())
        {
            findings.refuse(&path, format!("cannot be given together with `{other}`"));
            continue;
        }
        if let Some(value) = field_value(tree, &field, &path, depth, findings) {
            message.set_field(&field, value);
        }
    }
    message
}

/// Only `google.protobuf.Value` has a meaning for null; elsewhere it is absence.
fn takes_null(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(m) if m.full_name() == "google.protobuf.Value")
}

fn unknown_key(key: &str, descriptor: &MessageDescriptor, path: &str, findings: &mut Findings) {
    let name = descriptor.full_name();
    let snake = snake_case(key);
    let official = crate::official::field_by_name(name, key)
        .map(|number| (key, number))
        .or_else(|| crate::official::field_by_name(name, &snake).map(|number| (snake.as_str(), number)));
    if let Some((field, number)) = official {
        findings.official_field(name, field, number, &join(path, field));
        return;
    }
    let mut reason = format!("unknown field of {name}");
    let mut known: Vec<String> = descriptor.fields().map(|f| f.name().to_owned()).collect();
    known.extend(crate::official::fields(name).map(str::to_owned));
    let nearest = known.into_iter().map(|known| (distance(&snake, &known), known)).min();
    if let Some((_, known)) = nearest.filter(|(d, known)| *d <= 1 + known.len() / 5) {
        reason.push_str(&format!("; did you mean `{known}`?"));
    }
    findings.refuse(&join(path, key), reason);
}

fn field_value(
    tree: &Tree,
    field: &FieldDescriptor,
    path: &str,
    depth: usize,
    findings: &mut Findings,
) -> Option<Value> {
    if field.is_map() {
        return map(tree, field, path, depth, findings);
    }
    if !field.is_list() {
        return single(tree, &field.kind(), path, depth, findings);
    }
    // The official parser takes a lone value for a list of one, and published configurations rely on it.
    let items = match &tree.value {
        Shape::List(items) => items.as_slice(),
        _ => std::slice::from_ref(tree),
    };
    let values = items
        .iter()
        .enumerate()
        .filter_map(|(i, item)| single(item, &field.kind(), &format!("{path}[{i}]"), depth, findings))
        .collect();
    Some(Value::List(values))
}

fn map(
    tree: &Tree,
    field: &FieldDescriptor,
    path: &str,
    depth: usize,
    findings: &mut Findings,
) -> Option<Value> {
    let (Shape::Map(entries), Kind::Message(entry)) = (&tree.value, field.kind()) else {
        findings.refuse(path, format!("expected a mapping, found {}", tree.value.noun()));
        return None;
    };
    let kind = entry.map_entry_value_field().kind();
    let mut values = HashMap::new();
    for (key, line, item) in entries {
        let path = format!("{path}[{key}]");
        at(*line, &path, findings);
        let Some(map_key) = map_key(key, &entry.map_entry_key_field().kind()) else {
            findings.refuse(&path, "the key has the wrong type");
            continue;
        };
        if let Some(value) = single(item, &kind, &path, depth, findings) {
            values.insert(map_key, value);
        }
    }
    Some(Value::Map(values))
}

fn map_key(key: &str, kind: &Kind) -> Option<MapKey> {
    match kind {
        Kind::String => Some(MapKey::String(key.to_owned())),
        Kind::Bool => key.parse().ok().map(MapKey::Bool),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => key.parse().ok().map(MapKey::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => key.parse().ok().map(MapKey::I64),
        Kind::Uint32 | Kind::Fixed32 => key.parse().ok().map(MapKey::U32),
        Kind::Uint64 | Kind::Fixed64 => key.parse().ok().map(MapKey::U64),
        _ => None,
    }
}

fn single(tree: &Tree, kind: &Kind, path: &str, depth: usize, findings: &mut Findings) -> Option<Value> {
    at(tree.line, path, findings);
    match kind {
        Kind::Message(descriptor) => message(tree, descriptor, path, depth + 1, findings).map(Value::Message),
        Kind::Enum(descriptor) => scalar::enumeration(tree, descriptor, path, findings),
        _ => match scalar::plain(tree, kind) {
            Ok(value) => Some(value),
            Err(reason) => {
                findings.refuse(path, reason);
                None
            }
        },
    }
}

/// `{"@type": …, fields…}`; well-known types carry their value in `value`.
fn any(
    tree: &Tree,
    descriptor: &MessageDescriptor,
    path: &str,
    depth: usize,
    findings: &mut Findings,
) -> Option<DynamicMessage> {
    let Shape::Map(entries) = &tree.value else {
        findings.refuse(path, format!("expected a mapping with `@type`, found {}", tree.value.noun()));
        return None;
    };
    let type_url = entries.iter().find_map(|(key, _, value)| match &value.value {
        Shape::Text(text) if key == "@type" => Some(text.as_str()),
        _ => None,
    });
    let Some(type_url) = type_url else {
        if entries.is_empty() && super::may_be_empty(path) {
            return Some(DynamicMessage::new(descriptor.clone()));
        }
        findings.refuse(path, "has no `@type`");
        return None;
    };
    let content = match resolve(type_url) {
        Ok(content) => content,
        Err(name) => {
            findings.unknown_type(name, path);
            return None;
        }
    };
    let rest: Vec<(String, u64, Tree)> = entries.iter().filter(|(key, ..)| key != "@type").cloned().collect();
    let inner = match rest.as_slice() {
        [(key, _, value)] if key == "value" && content.full_name().starts_with("google.protobuf.") => {
            message(value, &content, path, depth + 1, findings)?
        }
        _ => {
            let tree = Tree { line: tree.line, value: Shape::Map(rest) };
            message(&tree, &content, path, depth + 1, findings)?
        }
    };
    let mut any = DynamicMessage::new(descriptor.clone());
    any.set_field_by_name("type_url", Value::String(type_url.to_owned()));
    any.set_field_by_name("value", Value::Bytes(Bytes::from(inner.encode_to_vec())));
    Some(any)
}

/// Remembers where the walk is.
fn at(line: u64, path: &str, findings: &mut Findings) {
    if line == 0 {
        return;
    }
    findings.line = Some(line);
    if !path.is_empty() {
        findings.lines.0.entry(path.to_owned()).or_insert(line);
    }
}

/// `someName` as `some_name`.
fn snake_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Levenshtein's distance, for hints.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(usize::MAX - 1);
            let cell = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            diagonal = above;
            if let Some(slot) = row.get_mut(j) {
                *slot = left;
            }
            left = cell;
        }
        if let Some(last) = row.last_mut() {
            *last = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{distance, snake_case};

    #[test]
    fn distance_counts_edits() {
        for (a, b, d) in
            [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("routes", "route", 1), ("abc", "abc", 0)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (d, d), "{a} {b}");
        }
    }

    #[test]
    fn camel_case_becomes_snake_case() {
        assert_eq!(snake_case("httpFilters"), "http_filters");
        assert_eq!(snake_case("plain_name"), "plain_name");
    }
}
