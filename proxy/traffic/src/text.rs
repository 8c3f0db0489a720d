//! Compiled text patterns: [`config::StringMatch`](crate::config::StringMatch) made ready for use.

use crate::config::{StringMatch, StringPattern};
use regex::bytes::{Regex, RegexBuilder};

/// Largest compiled size of one regular expression, bytes. Keeps one resource from eating the proxy's memory.
const REGEX_SIZE_MAX: usize = 1 << 20;

/// A compiled [`StringMatch`].
#[derive(Clone, Debug)]
pub enum TextMatcher {
    /// Equal.
    Exact(Box<[u8]>, Case),
    /// Begins with.
    Prefix(Box<[u8]>, Case),
    /// Ends with.
    Suffix(Box<[u8]>, Case),
    /// Contains.
    Contains(Box<[u8]>, Case),
    /// The whole text matches.
    Regex(Regex),
}

/// Whether ASCII case counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// It counts.
    Sensitive,
    /// It does not; the pattern is stored in lower case.
    Ignored,
}

impl TextMatcher {
    /// Makes a pattern ready.
    ///
    /// # Errors
    /// A regular expression that does not compile or is too large, or one with `ignore_case`.
    pub fn new(from: &StringMatch) -> Result<Self, String> {
        let case = if from.ignore_case { Case::Ignored } else { Case::Sensitive };
        let bytes = |text: &str| -> Box<[u8]> {
            match case {
                Case::Sensitive => text.as_bytes().into(),
                Case::Ignored => text.to_ascii_lowercase().into_bytes().into(),
            }
        };
        let required = |text: &str, kind: &str| -> Result<Box<[u8]>, String> {
            if text.is_empty() { Err(format!("{kind} must not be empty")) } else { Ok(bytes(text)) }
        };
        Ok(match &from.pattern {
            StringPattern::Exact(t) => Self::Exact(bytes(t), case),
            StringPattern::Prefix(t) => Self::Prefix(required(t, "prefix")?, case),
            StringPattern::Suffix(t) => Self::Suffix(required(t, "suffix")?, case),
            StringPattern::Contains(t) => Self::Contains(required(t, "contains")?, case),
            StringPattern::Regex(_) if from.ignore_case => {
                return Err("ignore_case has no effect on a regular expression; write (?i)".into());
            }
            StringPattern::Regex(t) => Self::Regex(whole_regex(t)?),
        })
    }

    /// Whether a text matches.
    pub fn is_match(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(p, Case::Sensitive) => **p == *text,
            Self::Exact(p, Case::Ignored) => p.eq_ignore_ascii_case(text),
            Self::Prefix(p, Case::Sensitive) => text.starts_with(p),
            Self::Prefix(p, Case::Ignored) => {
                text.get(..p.len()).is_some_and(|head| head.eq_ignore_ascii_case(p))
            }
            Self::Suffix(p, Case::Sensitive) => text.ends_with(p),
            Self::Suffix(p, Case::Ignored) => text
                .len()
                .checked_sub(p.len())
                .and_then(|at| text.get(at..))
                .is_some_and(|tail| tail.eq_ignore_ascii_case(p)),
            Self::Contains(p, Case::Sensitive) => memchr::memmem::find(text, p).is_some(),
            Self::Contains(p, Case::Ignored) => text.windows(p.len()).any(|w| w.eq_ignore_ascii_case(p)),
            Self::Regex(r) => r.is_match(text),
        }
    }
}

/// A regular expression that must match the whole text, as Envoy's `RE2::FullMatch`.
///
/// # Errors
/// The parser's reason.
pub fn whole_regex(pattern: &str) -> Result<Regex, String> {
    // A pattern such as `a)|(b` is balanced only by the group put around it, so it must stand alone as well.
    if pattern.contains(')') {
        search_regex(pattern)?;
    }
    build(&format!(r"\A(?:{pattern})\z"), pattern)
}

/// A regular expression that is searched for anywhere in the text.
///
/// # Errors
/// The parser's reason.
pub fn search_regex(pattern: &str) -> Result<Regex, String> {
    build(pattern, pattern)
}

fn build(pattern: &str, shown: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(REGEX_SIZE_MAX).build().map_err(|e| match e {
        regex::Error::CompiledTooBig(limit) => {
            format!("regular expression `{shown}` compiles to more than {limit} bytes")
        }
        other => {
            let text = other.to_string();
            let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("invalid").trim();
            format!("regular expression `{shown}`: {}", last.strip_prefix("error: ").unwrap_or(last))
        }
    })
}

/// Translates RE2's `\1` and `\\` into the replacement syntax of the regex crate, where `$` is special.
///
/// # Errors
/// A backslash before anything else, or a group the expression does not have.
pub fn substitution(text: &str, regex: &Regex) -> Result<Box<[u8]>, String> {
    let mut out = String::with_capacity(text.len() + 8);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some('\\') => out.push('\\'),
                Some(d) if d.is_ascii_digit() => {
                    let group = d as usize - '0' as usize;
                    if group >= regex.captures_len() {
                        return Err(format!(
                            "substitution refers to group {group}, which the regular expression does not have"
                        ));
                    }
                    out.push_str("${");
                    out.push(d);
                    out.push('}');
                }
                _ => {
                    return Err(
                        "a backslash in a substitution must be followed by a digit or a backslash".into()
                    );
                }
            },
            c => out.push(c),
        }
    }
    Ok(out.into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(pattern: StringPattern, ignore_case: bool) -> TextMatcher {
        TextMatcher::new(&StringMatch { pattern, ignore_case }).unwrap()
    }

    #[test]
    fn text_matchers_follow_their_kind_and_case() {
        use StringPattern as P;
        let table: &[(P, bool, &str, bool)] = &[
            (P::Exact("Ab".into()), false, "Ab", true),
            (P::Exact("Ab".into()), false, "ab", false),
            (P::Exact("Ab".into()), true, "aB", true),
            (P::Exact(String::new()), false, "", true),
            (P::Prefix("ab".into()), false, "abc", true),
            (P::Prefix("ab".into()), false, "a", false),
            (P::Prefix("ab".into()), true, "ABC", true),
            (P::Suffix("bc".into()), false, "abc", true),
            (P::Suffix("bc".into()), true, "aBC", true),
            (P::Suffix("bc".into()), true, "c", false),
            (P::Contains("b".into()), false, "abc", true),
            (P::Contains("BC".into()), true, "abcd", true),
            (P::Contains("x".into()), false, "abc", false),
            (P::Regex("a|ab".into()), false, "ab", true),
            (P::Regex("a".into()), false, "ab", false),
            (P::Regex("a.*".into()), false, "abc", true),
        ];
        for (pattern, ignore_case, text, expected) in table {
            let got = matcher(pattern.clone(), *ignore_case).is_match(text.as_bytes());
            assert_eq!(got, *expected, "{pattern:?} {ignore_case} {text}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_with_a_reason() {
        for pattern in ["(", "a)|(b", "[z-a]", r"(?P<x", r"a{1,100000}{1000}"] {
            let error = whole_regex(pattern).unwrap_err();
            assert!(error.contains(pattern), "{error}");
        }
        let both = StringMatch { pattern: StringPattern::Regex("a".into()), ignore_case: true };
        assert!(TextMatcher::new(&both).is_err());
        assert!(
            TextMatcher::new(&StringMatch {
                pattern: StringPattern::Prefix(String::new()),
                ignore_case: false
            })
            .is_err()
        );
    }

    #[test]
    fn substitutions_are_translated() {
        let regex = search_regex("(a)(b)").unwrap();
        assert_eq!(&*substitution(r"$\2\\\1", &regex).unwrap(), br"$$${2}\${1}");
        assert!(substitution(r"\3", &regex).is_err());
        assert!(substitution(r"\x", &regex).is_err());
        assert!(substitution("a\\", &regex).is_err());
    }
}
