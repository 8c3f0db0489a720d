//! Text patterns (`envoy.type.matcher.v3.StringMatcher`).

use serde::{Deserialize, Serialize};

/// How a text is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StringPattern {
    /// The whole text.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// Its end.
    Suffix(String),
    /// Any part of it.
    Contains(String),
    /// The whole text, by a regular expression of RE2's syntax.
    Regex(String),
}

/// A pattern with its case rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StringMatch {
    /// What to compare with.
    pub pattern: StringPattern,
    /// Compare ASCII letters without regard to case. Has no meaning for `Regex` (refused there, as in Envoy).
    pub ignore_case: bool,
}

impl StringMatch {
    /// The whole text, with regard to case.
    pub fn exact(text: impl Into<String>) -> Self {
        Self { pattern: StringPattern::Exact(text.into()), ignore_case: false }
    }
}
