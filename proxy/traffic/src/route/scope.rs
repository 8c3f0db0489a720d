//! Which of several route tables a request has.
//!
//! The key of a request has one part for each [`KeyPart`]; where a part cannot be had, the request has no table. Source:
//! Envoy: "HTTP route scopes", `ScopedRoutes.ScopeKeyBuilder`.

use crate::config::{KeyElement, KeyPart};
use crate::snapshot::TableId;
use crate::view::FieldView;
use std::collections::HashMap;

/// Between the parts of a key: no field value has it (RFC 9110 section 5.5).
const BETWEEN: u8 = 0;

/// Scopes, compiled.
#[derive(Debug, Default)]
pub struct Scopes {
    parts: Box<[KeyPart]>,
    tables: HashMap<Box<[u8]>, TableId>,
}

impl Scopes {
    /// Scopes with keys of these parts, none yet.
    pub fn new(parts: &[KeyPart]) -> Self {
        Self { parts: parts.into(), tables: HashMap::new() }
    }

    /// Adds a scope; whether there was none with its key.
    pub fn insert(&mut self, key: &[String], table: TableId) -> bool {
        let mut bytes = Vec::new();
        for part in key {
            bytes.extend_from_slice(part.as_bytes());
            bytes.push(BETWEEN);
        }
        self.tables.insert(bytes.into(), table).is_none()
    }

    /// The table of a request.
    ///
    /// *Cost*: one allocation, which only requests of scoped routes pay.
    pub fn find(&self, request: &impl FieldView) -> Option<TableId> {
        let mut key = Vec::with_capacity(64);
        for part in &self.parts {
            key.extend_from_slice(element(part, request.header(part.header.as_bytes())?)?);
            key.push(BETWEEN);
        }
        self.tables.get(key.as_slice()).copied()
    }

    /// Every table.
    pub fn tables(&self) -> impl Iterator<Item = TableId> {
        self.tables.values().copied()
    }
}

/// The element of a value that a part names.
fn element<'v>(part: &'v KeyPart, value: &'v [u8]) -> Option<&'v [u8]> {
    let separator = part.separator.as_bytes();
    match &part.element {
        KeyElement::Index(index) => elements(value, separator).nth(*index as usize),
        KeyElement::Value { separator: between, key } => elements(value, separator).find_map(|element| {
            let (name, value) = match position(element, between.as_bytes()) {
                Some(at) => (element.get(..at)?, element.get(at + between.len()..)?),
                // An element without separator is a key without value.
                None => (element, &[][..]),
            };
            (name == key.as_bytes()).then_some(value)
        }),
    }
}

fn elements<'v>(value: &'v [u8], separator: &'v [u8]) -> impl Iterator<Item = &'v [u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let value = rest?;
        match position(value, separator) {
            Some(at) => {
                rest = value.get(at + separator.len()..);
                value.get(..at)
            }
            None => rest.take(),
        }
    })
}

fn position(value: &[u8], what: &[u8]) -> Option<usize> {
    if what.is_empty() { None } else { memchr::memmem::find(value, what) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fields(&'static [(&'static str, &'static str)]);

    impl FieldView for Fields {
        fn header(&self, lower: &[u8]) -> Option<&[u8]> {
            self.0.iter().find(|(name, _)| name.as_bytes() == lower).map(|(_, value)| value.as_bytes())
        }

        fn for_each_header(&self, lower: &[u8], f: &mut dyn FnMut(&[u8])) {
            self.0.iter().filter(|(name, _)| name.as_bytes() == lower).for_each(|(_, v)| f(v.as_bytes()));
        }
    }

    fn part(separator: &str, element: KeyElement) -> KeyPart {
        KeyPart { header: "k".into(), separator: separator.into(), element }
    }

    #[test]
    fn element_of_a_value_is_found_by_position_and_by_key() {
        let by_key = |key: &str| KeyElement::Value { separator: "=".into(), key: key.into() };
        for (part, value, expected) in [
            (part("", KeyElement::Index(0)), "a,b", Some("a,b")),
            (part(",", KeyElement::Index(1)), "a,b", Some("b")),
            (part(",", KeyElement::Index(2)), "a,b", None),
            (part(",", by_key("x")), "a=1,x=2,x=3", Some("2")),
            (part(",", by_key("x")), "a=1,x", Some("")),
            (part(",", by_key("x")), "a=1", None),
        ] {
            assert_eq!(element(&part, value.as_bytes()), expected.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn request_has_the_table_of_its_key_or_none() {
        let mut scopes = Scopes::new(&[part(",", KeyElement::Index(0)), part(",", KeyElement::Index(1))]);
        assert!(scopes.insert(&["a".into(), "b".into()], TableId(7)));
        assert!(!scopes.insert(&["a".into(), "b".into()], TableId(7)));
        assert_eq!(scopes.find(&Fields(&[("k", "a,b")])), Some(TableId(7)));
        assert_eq!(scopes.find(&Fields(&[("k", "ab,")])), None);
        assert_eq!(scopes.find(&Fields(&[("k", "a")])), None);
        assert_eq!(scopes.find(&Fields(&[])), None);
    }
}
