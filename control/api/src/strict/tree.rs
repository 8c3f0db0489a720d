//! YAML and JSON as a tree that knows its lines.

use super::{DEPTH_MAX, Problem};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::fmt;

/// Which text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2, one document.
    Yaml,
    /// JSON.
    Json,
}

/// A value with the line it begins on; 0 where the parser gives none.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) line: u64,
    pub(super) value: Shape,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, u64, Tree)>),
}

impl Shape {
    /// For messages, with its article.
    pub(super) fn noun(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Reads a text.
pub(super) fn parse(text: &str, format: Format) -> Result<Tree, Problem> {
    match format {
        Format::Json => {
            let value: serde_json::Value = serde_json::from_str(text).map_err(|error| Problem {
                path: String::new(),
                line: Some(error.line() as u64),
                reason: format!("not valid JSON: {error}"),
            })?;
            Ok(from_json(value))
        }
        Format::Yaml => {
            let mut options = serde_saphyr::Options::default();
            options.strict_booleans = true;
            // Ten thousand routes are a large but honest configuration; the parser's own limit is below that.
            if let Some(budget) = &mut options.budget {
                budget.max_nodes = 4_000_000;
                budget.max_events = 8_000_000;
                budget.max_depth = DEPTH_MAX;
                budget.max_documents = 1;
                budget.flow_nesting_limit = DEPTH_MAX;
            }
            let ignored = ignored_keys(text);
            let tree = |yaml| from_yaml(yaml, &ignored);
            serde_saphyr::from_str_with_options::<Spanned<Yaml>>(text, options).map(tree).map_err(|error| {
                Problem {
                    path: String::new(),
                    line: error.location().map(|l| l.line()),
                    reason: format!("not valid YAML: {}", error.without_snippet()),
                }
            })
        }
    }
}

fn from_json(value: serde_json::Value) -> Tree {
    use serde_json::Value as J;
    let value = match value {
        J::Null => Shape::Null,
        J::Bool(v) => Shape::Bool(v),
        J::Number(v) => match (v.as_i64(), v.as_u64()) {
            (Some(v), _) => Shape::Int(v.into()),
            (None, Some(v)) => Shape::Int(v.into()),
            (None, None) => Shape::Float(v.as_f64().unwrap_or(f64::NAN)),
        },
        J::String(v) => Shape::Text(v),
        J::Array(items) => Shape::List(items.into_iter().map(from_json).collect()),
        J::Object(entries) => Shape::Map(entries.into_iter().map(|(k, v)| (k, 0, from_json(v))).collect()),
    };
    Tree { line: 0, value }
}

/// Keys with Envoy's tag `!ignore`, by their lines: their values are only there to be named by anchors.
fn ignored_keys(text: &str) -> BTreeMap<u64, &str> {
    let lines = text.lines().zip(1..);
    lines
        .filter_map(|(line, number)| Some((number, line.trim_start().strip_prefix("!ignore ")?.trim())))
        .collect()
}

fn from_yaml(spanned: Spanned<Yaml>, ignored: &BTreeMap<u64, &str>) -> Tree {
    let value = match spanned.value {
        Yaml::Scalar(shape) => shape,
        Yaml::List(items) => Shape::List(items.into_iter().map(|item| from_yaml(item, ignored)).collect()),
        Yaml::Map(entries) => {
            let is_kept = |key: &Spanned<String>| {
                ignored.get(&key.referenced.line()).is_none_or(|text| !text.starts_with(key.value.as_str()))
            };
            let entries = entries.into_iter().filter(|(key, _)| is_kept(key));
            Shape::Map(entries.map(|(k, v)| (k.value, k.referenced.line(), from_yaml(v, ignored))).collect())
        }
    };
    Tree { line: spanned.referenced.line(), value }
}

enum Yaml {
    Scalar(Shape),
    List(Vec<Spanned<Yaml>>),
    Map(Vec<(Spanned<String>, Spanned<Yaml>)>),
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyShape)
    }
}

struct AnyShape;

impl<'de> Visitor<'de> for AnyShape {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Shape::Null))
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Shape::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
        Yaml::deserialize(deserializer)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Shape::Bool(v)))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Shape::Int(v.into())))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Shape::Int(v.into())))
    }

    fn visit_i128<E>(self, v: i128) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Shape::Int(v)))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Shape::Float(v)))
    }

    fn visit_str<E>(self, v: &str) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Shape::Text(v.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Yaml, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Yaml::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Yaml, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Yaml::Map(entries))
    }
}
