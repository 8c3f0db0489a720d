//! Dynamic metadata: what filters learned of a request, for those behind them.
//!
//! A namespace (by custom the name of the filter that wrote it) holds named JSON values. There is a limit on the whole,
//! because part of it comes from clients.

use crate::config::{MetadataMatch, ValueMatch};
use crate::text::TextMatcher;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Most bytes of names and values of one request; what does not fit is left out.
pub const BYTES_MAX: usize = 64 * 1024;

/// Deepest nesting of values that are looked into or put together.
const DEPTH_MAX: usize = 32;

/// What filters learned of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    spaces: BTreeMap<Box<str>, Map<String, Value>>,
    bytes: usize,
}

/// Bytes that a value stands for in the limit.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 8,
        Value::Array(list) => 8 + list.iter().map(weight).sum::<usize>(),
        Value::Object(map) => 8 + map.iter().map(|(key, value)| key.len() + weight(value)).sum::<usize>(),
    }
}

impl Metadata {
    /// What a namespace holds.
    pub fn space(&self, namespace: &str) -> Option<&Map<String, Value>> {
        self.spaces.get(namespace)
    }

    /// All namespaces.
    pub fn spaces(&self) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.spaces.iter().map(|(name, values)| (&**name, values))
    }

    /// The value at the end of a path; an empty path has none.
    pub fn find<S: AsRef<str>>(&self, namespace: &str, path: &[S]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        let mut value = self.space(namespace)?.get(first.as_ref())?;
        for key in rest {
            value = value.get(key.as_ref())?;
        }
        Some(value)
    }

    /// Writes a value in place of what had its key; `false`, with nothing written: there is no room.
    pub fn put(&mut self, namespace: &str, key: &str, value: Value) -> bool {
        let more = namespace.len() + key.len() + weight(&value);
        if self.bytes.saturating_add(more) > BYTES_MAX {
            return false;
        }
        self.bytes += more;
        match self.spaces.get_mut(namespace) {
            Some(space) => drop(space.insert(key.to_owned(), value)),
            None => drop(self.spaces.insert(namespace.into(), Map::from_iter([(key.to_owned(), value)]))),
        }
        true
    }

    /// Writes several values.
    pub fn put_all(&mut self, namespace: &str, values: Map<String, Value>) -> bool {
        values.into_iter().fold(true, |all, (key, value)| self.put(namespace, &key, value) && all)
    }

    /// Puts values together with those that are there: objects become one, lists are joined, other values replaced.
    pub fn join(&mut self, namespace: &str, values: &Map<String, Value>) -> bool {
        let mut all = Value::Object(self.space(namespace).cloned().unwrap_or_default());
        unite(&mut all, &Value::Object(values.clone()), 0);
        let Value::Object(all) = all else { return false };
        // Part of it was weighed before; the limit is on what was ever written.
        self.put_all(namespace, all)
    }
}

/// Source: Envoy: set metadata filter (`StructUtil::update`).
fn unite(old: &mut Value, new: &Value, depth: usize) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) if depth < DEPTH_MAX => {
            for (key, value) in new {
                match old.get_mut(key) {
                    Some(there) => unite(there, value, depth + 1),
                    None => drop(old.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => old.extend(new.iter().cloned()),
        (old, new) => *old = new.clone(),
    }
}

/// A compiled [`MetadataMatch`].
#[derive(Debug)]
pub struct MetadataMatcher {
    filter: Box<str>,
    path: Box<[String]>,
    value: ValueMatcher,
    invert: bool,
}

#[derive(Debug)]
enum ValueMatcher {
    Null,
    Number(f64),
    NumberRange(f64, f64),
    Text(TextMatcher),
    Bool(bool),
    Present(bool),
    OneOf(Box<Self>),
    Any(Box<[Self]>),
}

impl MetadataMatcher {
    /// Makes it ready.
    ///
    /// # Errors
    /// A path without a key, or a text that cannot be compared with.
    pub fn new(from: &MetadataMatch) -> Result<Self, String> {
        if from.filter.is_empty() {
            return Err("filter must not be empty".into());
        }
        if from.path.is_empty() || from.path.iter().any(String::is_empty) {
            return Err("path needs keys that are not empty".into());
        }
        Ok(Self {
            filter: from.filter.as_str().into(),
            path: from.path.clone().into(),
            value: ValueMatcher::new(&from.value, 0)?,
            invert: from.invert,
        })
    }

    /// Whether it holds; without metadata nothing is there.
    pub fn matches(&self, metadata: Option<&Metadata>) -> bool {
        let value = metadata.and_then(|metadata| metadata.find(&self.filter, &self.path));
        self.value.matches(value) != self.invert
    }
}

impl ValueMatcher {
    fn new(from: &ValueMatch, depth: usize) -> Result<Self, String> {
        if depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        Ok(match from {
            ValueMatch::Null => Self::Null,
            ValueMatch::Number(number) => Self::Number(*number),
            ValueMatch::NumberRange(from, to) => Self::NumberRange(*from, *to),
            ValueMatch::Text(text) => Self::Text(TextMatcher::new(text)?),
            ValueMatch::Bool(truth) => Self::Bool(*truth),
            ValueMatch::Present(present) => Self::Present(*present),
            ValueMatch::OneOf(one) => Self::OneOf(Box::new(Self::new(one, depth + 1)?)),
            ValueMatch::Any(several) => {
                Self::Any(several.iter().map(|one| Self::new(one, depth + 1)).collect::<Result<_, _>>()?)
            }
        })
    }

    fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Any(several), value) => several.iter().any(|one| one.matches(value)),
            (Self::Present(present), value) => *present && value.is_some(),
            (Self::Null, Some(Value::Null)) => true,
            (Self::Number(wanted), Some(Value::Number(number))) => number.as_f64() == Some(*wanted),
            (Self::NumberRange(from, to), Some(Value::Number(number))) => {
                number.as_f64().is_some_and(|number| (*from..*to).contains(&number))
            }
            (Self::Text(text), Some(Value::String(value))) => text.is_match(value.as_bytes()),
            (Self::Bool(wanted), Some(Value::Bool(truth))) => wanted == truth,
            (Self::OneOf(one), Some(Value::Array(list))) => list.iter().any(|item| one.matches(Some(item))),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{StringMatch, StringPattern};
    use serde_json::json;

    fn matches(value: ValueMatch, path: &[&str], invert: bool) -> bool {
        let mut metadata = Metadata::default();
        let values =
            json!({"s": "text", "n": 2.5, "b": true, "z": null, "l": ["x", "y"], "o": {"in": "deep"}});
        let Value::Object(values) = values else { panic!() };
        assert!(metadata.put_all("f", values));
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        MetadataMatcher::new(&MetadataMatch { filter: "f".into(), path, value, invert })
            .unwrap()
            .matches(Some(&metadata))
    }

    fn text(text: &str) -> ValueMatch {
        ValueMatch::Text(StringMatch { pattern: StringPattern::Exact(text.into()), ignore_case: false })
    }

    #[test]
    fn values_are_found_by_path_and_kind() {
        for (value, path, expected) in [
            (text("text"), &["s"][..], true),
            (text("deep"), &["o", "in"], true),
            (text("deep"), &["o"], false),
            (text("2.5"), &["n"], false),
            (ValueMatch::Number(2.5), &["n"], true),
            (ValueMatch::NumberRange(2.0, 2.5), &["n"], false),
            (ValueMatch::NumberRange(2.5, 3.0), &["n"], true),
            (ValueMatch::Bool(true), &["b"], true),
            (ValueMatch::Null, &["z"], true),
            (ValueMatch::Null, &["gone"], false),
            (ValueMatch::Present(true), &["z"], true),
            (ValueMatch::Present(true), &["gone"], false),
            (ValueMatch::Present(false), &["gone"], false),
            (ValueMatch::OneOf(Box::new(text("y"))), &["l"], true),
            (ValueMatch::OneOf(Box::new(text("z"))), &["l"], false),
            (ValueMatch::Any(vec![text("a"), text("text")]), &["s"], true),
        ] {
            assert_eq!(matches(value.clone(), path, false), expected, "{value:?} at {path:?}");
            assert_eq!(matches(value.clone(), path, true), !expected, "not {value:?} at {path:?}");
        }
    }

    #[test]
    fn namespace_that_exists_is_joined() {
        let mut metadata = Metadata::default();
        let object = |value: Value| value.as_object().cloned().unwrap();
        assert!(metadata.join("f", &object(json!({"a": 1, "l": [1], "o": {"x": 1}}))));
        assert!(metadata.join("f", &object(json!({"a": 2, "l": [2], "o": {"y": 2}}))));
        let expected = object(json!({"a": 2, "l": [1, 2], "o": {"x": 1, "y": 2}}));
        assert_eq!(metadata.space("f"), Some(&expected));
    }

    #[test]
    fn value_at_the_limit_is_kept_and_one_byte_more_is_not() {
        let room = BYTES_MAX - "f".len() - "k".len() - 8;
        assert!(Metadata::default().put("f", "k", Value::String("x".repeat(room))));
        let mut metadata = Metadata::default();
        assert!(!metadata.put("f", "k", Value::String("x".repeat(room + 1))));
        assert_eq!(metadata, Metadata::default());
    }
}
