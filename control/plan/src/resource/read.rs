//! Reading of untyped documents, with every problem found and none passed over.
//!
//! A [`Node`] is a value and the path by which an operator would name it. Reading never stops at a problem: it is put
//! down in [`Problems`], a harmless value takes its place, and the caller refuses the document at the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use outrigger_traffic::config::{ConfigError, StringMatch, StringPattern};
use serde_json::{Map, Value};

use super::shape::{self, Shape};

/// Most problems kept per document: a document of another kind altogether would otherwise fill a screen.
pub const PROBLEMS_MAX: usize = 100;

/// What was wrong so far with one document.
#[derive(Debug, Default)]
pub struct Problems {
    resource: String,
    list: RefCell<Vec<ConfigError>>,
}

impl Problems {
    /// None yet, for a resource named as in `VirtualService/demo/b`.
    pub fn of(resource: impl Into<String>) -> Self {
        Self { resource: resource.into(), list: RefCell::default() }
    }

    /// Puts one down. Beyond [`PROBLEMS_MAX`] they are dropped: the document is refused all the same.
    pub fn add(&self, path: impl Into<String>, reason: impl Into<String>) {
        let mut list = self.list.borrow_mut();
        if list.len() < PROBLEMS_MAX {
            list.push(ConfigError::new(self.resource.clone(), path, reason));
        }
    }

    /// Everything put down.
    pub fn into_list(self) -> Vec<ConfigError> {
        self.list.into_inner()
    }
}

/// A value and its path.
#[derive(Clone)]
pub struct Node<'a> {
    value: &'a Value,
    path: String,
    problems: &'a Problems,
}

impl<'a> Node<'a> {
    /// The top of a document.
    pub fn root(value: &'a Value, problems: &'a Problems) -> Self {
        Self { value, path: String::new(), problems }
    }

    /// Puts down a problem with this value.
    pub fn problem(&self, reason: impl Into<String>) {
        self.problems.add(self.path.clone(), reason);
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value as it is.
    pub fn raw(&self) -> &'a Value {
        self.value
    }

    fn wrong(&self, wanted: &str) {
        self.problem(format!("must be {wanted}, not {}", kind_of(self.value)));
    }

    /// Reads a message: `read` takes its fields, then every key that `shape` does not support is refused.
    pub fn message<T>(&self, shape: &'static Shape, read: impl FnOnce(&Fields<'a>) -> T) -> Option<T> {
        let Value::Object(map) = self.value else {
            self.wrong("an object");
            return None;
        };
        let fields = Fields { map, path: self.path.clone(), problems: self.problems, shape };
        let value = read(&fields);
        fields.refuse_others();
        Some(value)
    }

    /// A text. Numbers and booleans are not taken for texts: quoting was forgotten, and `1.10` would become `1.1`.
    pub fn text(&self) -> String {
        if let Value::String(text) = self.value {
            return text.clone();
        }
        self.wrong("a string");
        String::new()
    }

    /// A text that is not empty.
    pub fn name(&self) -> String {
        let text = self.text();
        if text.is_empty() && self.value.is_string() {
            self.problem("must not be empty");
        }
        text
    }

    /// A boolean.
    pub fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or_else(|| {
            self.wrong("true or false");
            false
        })
    }

    /// A number in a range.
    pub fn decimal(&self, min: f64, max: f64) -> f64 {
        match self.raw().as_f64() {
            Some(value) if (min..=max).contains(&value) => value,
            _ => {
                self.problem(format!("must be a number between {min} and {max}"));
                min
            }
        }
    }

    /// A whole number in a range.
    pub fn number(&self, min: u32, max: u32) -> u32 {
        let Some(number) = self.value.as_i64() else {
            self.wrong("a whole number");
            return min;
        };
        match u32::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => number,
            _ => {
                self.problem(format!("must be between {min} and {max}"));
                min
            }
        }
    }

    /// A port.
    pub fn port(&self) -> u16 {
        u16::try_from(self.number(1, 65_535)).unwrap_or(1)
    }

    /// A duration in Istio's form: `1.5s`, `100ms`, `1h30m`.
    pub fn duration(&self) -> Duration {
        let text = self.text();
        if text.is_empty() {
            return Duration::ZERO;
        }
        parse_duration(&text).unwrap_or_else(|reason| {
            self.problem(reason);
            Duration::ZERO
        })
    }

    /// The elements of a list.
    pub fn list(&self) -> Vec<Node<'a>> {
        let Value::Array(list) = self.value else {
            self.wrong("a list");
            return Vec::new();
        };
        let child = |(i, value)| Node { value, path: format!("{}[{i}]", self.path), problems: self.problems };
        list.iter().enumerate().map(child).collect()
    }

    /// The entries of a map with free keys.
    pub fn entries(&self) -> Vec<(String, Node<'a>)> {
        let Value::Object(map) = self.value else {
            self.wrong("an object");
            return Vec::new();
        };
        let child = |(key, value): (&String, &'a Value)| {
            let path = format!("{}[{key:?}]", self.path);
            (key.clone(), Node { value, path, problems: self.problems })
        };
        map.iter().map(child).collect()
    }

    /// A map of texts.
    pub fn texts_by_key(&self) -> BTreeMap<String, String> {
        self.entries().into_iter().map(|(key, node)| (key, node.text())).collect()
    }

    /// A list of texts.
    pub fn texts(&self) -> Vec<String> {
        self.list().iter().map(Node::name).collect()
    }

    /// One of a fixed set of words. `others` are official words that are refused by name.
    pub fn word<T: Copy>(&self, words: &[(&str, T)], others: &[&str]) -> Option<T> {
        let text = self.text();
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        if others.contains(&text.as_str()) {
            self.problem(format!("value {text:?} is not supported yet"));
        } else if self.value.is_string() {
            let list: Vec<&str> = words.iter().map(|(word, _)| *word).filter(|w| !w.is_empty()).collect();
            self.problem(format!("unknown value {text:?}; one of {} is expected", list.join(", ")));
        }
        None
    }

    /// `StringMatch`: exactly one of `exact`, `prefix` and `regex`; `None` for `{}`, which stands for presence.
    pub fn string_match(&self, ignore_case: bool) -> Option<StringMatch> {
        let found = self.message(&shape::STRING_MATCH, |f| {
            let exact = f.field("exact").map(|n| StringPattern::Exact(n.text()));
            let prefix = f.field("prefix").map(|n| StringPattern::Prefix(n.text()));
            let regex = f.field("regex").map(|n| StringPattern::Regex(n.name()));
            let mut given = [exact, prefix, regex].into_iter().flatten();
            let first = given.next();
            if given.next().is_some() {
                self.problem("only one of exact, prefix and regex can be given");
            }
            first
        });
        let pattern = found.flatten()?;
        let ignore_case = ignore_case && !matches!(pattern, StringPattern::Regex(_));
        Some(StringMatch { pattern, ignore_case })
    }
}

/// The fields of a message being read.
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
    problems: &'a Problems,
    shape: &'static Shape,
}

impl<'a> Fields<'a> {
    /// A field that is present and not null. `name` must be a supported field of the shape.
    pub fn field(&self, name: &'static str) -> Option<Node<'a>> {
        debug_assert!(self.shape.supported.contains(&name), "{}.{name}", self.shape.message);
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        Some(Node { value, path: self.path_of(name), problems: self.problems })
    }

    /// A field that must be there.
    pub fn required(&self, name: &'static str) -> Option<Node<'a>> {
        let field = self.field(name);
        if field.is_none() {
            self.problem(name, "is required");
        }
        field
    }

    /// The elements of a list field; empty where it is absent.
    pub fn list(&self, name: &'static str) -> Vec<Node<'a>> {
        self.field(name).map(|n| n.list()).unwrap_or_default()
    }

    /// A list of texts; empty where it is absent.
    pub fn texts(&self, name: &'static str) -> Vec<String> {
        self.field(name).map(|n| n.texts()).unwrap_or_default()
    }

    /// A map of texts; empty where it is absent.
    pub fn texts_by_key(&self, name: &'static str) -> BTreeMap<String, String> {
        self.field(name).map(|n| n.texts_by_key()).unwrap_or_default()
    }

    /// A text; empty where it is absent.
    pub fn text(&self, name: &'static str) -> String {
        self.field(name).map(|n| n.text()).unwrap_or_default()
    }

    /// Puts down a problem with a field, or with the message when `name` is empty.
    pub fn problem(&self, name: &str, reason: impl Into<String>) {
        let path = if name.is_empty() { self.path.clone() } else { self.path_of(name) };
        self.problems.add(path, reason);
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn refuse_others(&self) {
        for key in self.map.keys() {
            if self.shape.supported.contains(&key.as_str()) {
                continue;
            }
            if self.shape.not_yet.contains(&key.as_str()) {
                self.problem(key, "not supported yet");
                continue;
            }
            match nearest(key, self.shape) {
                Some(hint) => self.problem(key, format!("unknown field; did you mean {hint:?}?")),
                None => self.problem(key, format!("unknown field of {}", self.shape.message)),
            }
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number (quote it if it is meant as text)",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The field whose name is closest to `key`, when it is close at all.
fn nearest(key: &str, shape: &Shape) -> Option<&'static str> {
    let lower = key.to_ascii_lowercase();
    shape
        .supported
        .iter()
        .chain(shape.not_yet)
        .map(|name| (distance(&lower, &name.to_ascii_lowercase()), *name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

/// Edit distance (Levenshtein), of short names only.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            row.push((above[j] + usize::from(x != *y)).min(above[j + 1] + 1).min(row[j] + 1));
        }
        above = row;
    }
    above[b.len()]
}

/// Longest duration taken: a year. Longer ones are mistakes of unit.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads `1h2m3.5s` and `100ms` (Go's form, which Istio's YAML takes).
///
/// *Errors*: what is wrong, for the operator.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is no duration; write it as 1.5s, 100ms, 2m or 1h30m");
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refuse)?;
        let (number, tail) = rest.split_at_checked(digits).ok_or_else(refuse)?;
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit).ok_or_else(refuse)?;
        let seconds: f64 = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(refuse()),
        };
        let number: f64 = number.parse().map_err(|_| refuse())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| refuse())?;
        sum = sum.checked_add(part).filter(|sum| *sum <= DURATION_MAX).ok_or_else(refuse)?;
        rest = tail;
    }
    // Floating point leaves crumbs below a nanosecond; microseconds are as fine as any timer here.
    Ok(Duration::from_micros(u64::try_from((sum.as_nanos() + 500) / 1000).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_forms_are_read() {
        for (text, micros) in [
            ("1s", 1_000_000),
            ("0.5s", 500_000),
            ("100ms", 100_000),
            ("1h1m1s", 3_661_000_000),
            ("1.5h", 5_400_000_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for text in ["1", "s", "-1s", "1d", "1s ", "9999999h", ".s", "1..2s", "ñ"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn distance_is_levenshtein() {
        for (a, b, d) in [
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("timeout", "timeout", 0),
            ("timout", "timeout", 1),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(a, b), d, "{a} {b}");
            assert_eq!(distance(b, a), d, "{b} {a}");
        }
    }

    #[test]
    fn unknown_field_is_refused_with_a_hint_and_unsupported_by_name() {
        let value = serde_json::json!({"timout": "1s", "delegate": {}, "zzzzzzz": 1, "timeout": 3});
        let problems = Problems::of("VirtualService/demo/b");
        Node { value: &value, path: "spec.http[0]".into(), problems: &problems }
            .message(&shape::HTTP_ROUTE, |f| f.field("timeout").map(|n| n.duration()));
        let texts: Vec<String> = problems.into_list().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "VirtualService/demo/b: spec.http[0].timeout: must be a string, not a number (quote it if it is meant as text)",
                "VirtualService/demo/b: spec.http[0].timout: unknown field; did you mean \"timeout\"?",
                "VirtualService/demo/b: spec.http[0].delegate: not supported yet",
                "VirtualService/demo/b: spec.http[0].zzzzzzz: unknown field of HTTPRoute",
            ]
        );
    }
}
