//! Query criteria. As in Envoy, the first parameter of a name counts; names and values are not decoded.

use crate::config::{QueryMatch, QueryValueMatch};
use crate::text::TextMatcher;
use crate::view::query_only;

/// A compiled [`QueryMatch`].
#[derive(Clone, Debug)]
pub struct QueryMatcher {
    name: Box<[u8]>,
    value: ValueMatcher,
}

#[derive(Clone, Debug)]
enum ValueMatcher {
    Present(bool),
    Text(TextMatcher),
}

impl QueryMatcher {
    /// Makes a criterion ready.
    ///
    /// # Errors
    /// An empty name or a bad pattern.
    pub fn new(from: &QueryMatch) -> Result<Self, String> {
        if from.name.is_empty() {
            return Err("query parameter name must not be empty".into());
        }
        let value = match &from.value {
            QueryValueMatch::Present(there) => ValueMatcher::Present(*there),
            QueryValueMatch::Text(text) => ValueMatcher::Text(TextMatcher::new(text)?),
        };
        Ok(Self { name: from.name.as_bytes().into(), value })
    }

    fn matches(&self, query: &[u8]) -> bool {
        let value = parameter(query, &self.name);
        match &self.value {
            ValueMatcher::Present(wanted) => value.is_some() == *wanted,
            ValueMatcher::Text(text) => value.is_some_and(|v| text.is_match(v)),
        }
    }
}

/// Whether a target's query satisfies all criteria.
pub fn all_match(criteria: &[QueryMatcher], target: &[u8]) -> bool {
    let query = query_only(target).unwrap_or_default();
    criteria.iter().all(|c| c.matches(query))
}

/// Value of the first parameter of a name; empty for a parameter without `=`.
pub(crate) fn parameter<'q>(query: &'q [u8], name: &[u8]) -> Option<&'q [u8]> {
    if query.is_empty() {
        return None;
    }
    query.split(|b| *b == b'&').find_map(|pair| match memchr::memchr(b'=', pair) {
        Some(at) if pair.get(..at)? == name => pair.get(at + 1..),
        None if pair == name => Some(&[][..]),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{StringMatch, StringPattern};

    #[test]
    fn query_criteria_follow_the_table() {
        use QueryValueMatch as V;
        let text = |t: &str| V::Text(StringMatch::exact(t));
        let table: &[(&str, &str, V, bool)] = &[
            ("/?a=1", "a", text("1"), true),
            ("/?b=2&a=1&a=3", "a", text("1"), true),
            ("/?b=2&a=1&a=3", "a", text("3"), false),
            ("/?a", "a", V::Present(true), true),
            ("/?a", "a", text(""), true),
            ("/", "a", V::Present(true), false),
            ("/", "a", V::Present(false), true),
            ("/", "a", text(""), false),
            ("/?a=1=2", "a", text("1=2"), true),
            ("/?a=%31", "a", text("1"), false),
            ("/?ab=1", "a", V::Present(true), false),
            ("/?a=1#a=2", "a", text("1"), true),
            ("/?", "a", V::Present(true), false),
            (
                "/?a=xyz",
                "a",
                V::Text(StringMatch { pattern: StringPattern::Regex("x.z".into()), ignore_case: false }),
                true,
            ),
        ];
        for (target, name, value, expected) in table {
            let matcher =
                QueryMatcher::new(&QueryMatch { name: (*name).into(), value: value.clone() }).unwrap();
            assert_eq!(all_match(&[matcher], target.as_bytes()), *expected, "{target} {name} {value:?}");
        }
    }
}
