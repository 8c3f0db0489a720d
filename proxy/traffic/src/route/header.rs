//! Header criteria of routes, retries and authorization rules.

use crate::config::{HeaderMatch, HeaderValueMatch};
use crate::text::TextMatcher;
use crate::view::{FieldView, RequestView};

/// A compiled [`HeaderMatch`].
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    source: Source,
    value: ValueMatcher,
    invert: bool,
    treat_missing_as_empty: bool,
}

#[derive(Clone, Debug)]
enum Source {
    Method,
    Scheme,
    Authority,
    Path,
    /// `:status`, of responses only.
    Status,
    Field(Box<[u8]>),
}

#[derive(Clone, Debug)]
enum ValueMatcher {
    Present(bool),
    Text(TextMatcher),
    Range(i64, i64),
}

impl HeaderMatcher {
    /// Makes a criterion on a request ready.
    ///
    /// # Errors
    /// An empty or unknown pseudo-header name, a bad pattern, an empty range.
    pub fn for_request(from: &HeaderMatch) -> Result<Self, String> {
        let source = match from.name.as_str() {
            ":method" => Source::Method,
            ":scheme" => Source::Scheme,
            ":authority" | "host" => Source::Authority,
            ":path" => Source::Path,
            other => Source::Field(field_name(other)?),
        };
        Self::with(source, from)
    }

    /// Makes a criterion on a response ready.
    ///
    /// # Errors
    /// As above.
    pub fn for_response(from: &HeaderMatch) -> Result<Self, String> {
        let source = match from.name.as_str() {
            ":status" => Source::Status,
            other => Source::Field(field_name(other)?),
        };
        Self::with(source, from)
    }

    fn with(source: Source, from: &HeaderMatch) -> Result<Self, String> {
        let value = match &from.value {
            HeaderValueMatch::Present(there) => ValueMatcher::Present(*there),
            HeaderValueMatch::Text(text) => ValueMatcher::Text(TextMatcher::new(text)?),
            HeaderValueMatch::Range(start, end) => ValueMatcher::Range(*start, *end),
        };
        Ok(Self { source, value, invert: from.invert, treat_missing_as_empty: from.treat_missing_as_empty })
    }

    /// Whether a request satisfies it.
    pub fn matches<V: RequestView + ?Sized>(&self, view: &V) -> bool {
        match &self.source {
            Source::Method => self.judge(Some(view.method())),
            Source::Scheme => self.judge(Some(view.scheme())),
            Source::Authority => self.judge(present(view.authority())),
            Source::Path => self.judge(present(view.path())),
            Source::Status => self.judge(None),
            Source::Field(name) => self.judge_fields(name, view),
        }
    }

    /// Whether a response satisfies it.
    pub fn matches_response(&self, status: u16, fields: &dyn FieldView) -> bool {
        match &self.source {
            Source::Status => {
                let digits = [
                    b'0' + (status / 100 % 10) as u8,
                    b'0' + (status / 10 % 10) as u8,
                    b'0' + (status % 10) as u8,
                ];
                self.judge(Some(&digits))
            }
            Source::Field(name) => self.judge_fields(name, fields),
            Source::Method | Source::Scheme | Source::Authority | Source::Path => self.judge(None),
        }
    }

    fn judge_fields<V: FieldView + ?Sized>(&self, name: &[u8], view: &V) -> bool {
        let Some(first) = view.header(name) else { return self.judge(None) };
        if let ValueMatcher::Present(_) = self.value {
            return self.judge(Some(first));
        }
        // Of several fields one is enough (Envoy, since 1.40); an inverted criterion holds where none fits.
        let mut found = false;
        view.for_each_header(name, &mut |value| found |= self.judge(Some(value)) != self.invert);
        found != self.invert
    }

    fn judge(&self, value: Option<&[u8]>) -> bool {
        let matches = match (&self.value, value) {
            (ValueMatcher::Present(wanted), value) => {
                (value.is_some() || self.treat_missing_as_empty) == *wanted
            }
            (_, None) if !self.treat_missing_as_empty => return false,
            (ValueMatcher::Text(text), value) => text.is_match(value.unwrap_or_default()),
            (ValueMatcher::Range(start, end), value) => {
                decimal(value.unwrap_or_default()).is_some_and(|n| (*start..*end).contains(&n))
            }
        };
        matches != self.invert
    }
}

fn present(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
}

fn field_name(name: &str) -> Result<Box<[u8]>, String> {
    if name.is_empty() {
        return Err("header name must not be empty".into());
    }
    if name.starts_with(':') {
        return Err(format!("pseudo-header `{name}` cannot be matched here"));
    }
    Ok(name.to_ascii_lowercase().into_bytes().into())
}

/// A decimal integer, whole text, with an optional minus sign.
fn decimal(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StringMatch;
    use crate::route::tests::Head;

    fn matcher(name: &str, value: HeaderValueMatch, invert: bool, empty: bool) -> HeaderMatcher {
        HeaderMatcher::for_request(&HeaderMatch {
            name: name.into(),
            value,
            invert,
            treat_missing_as_empty: empty,
        })
        .unwrap()
    }

    #[test]
    fn header_criteria_follow_the_table() {
        use HeaderValueMatch as V;
        let text = |t: &str| V::Text(StringMatch::exact(t));
        let head = Head::get("h.test", "/p?q=1").with("x", "1").with("x", "2").with("n", "-5").with("e", "");
        let table: &[(&str, V, bool, bool, bool)] = &[
            ("x", text("1,2"), false, false, false),
            ("x", text("1"), false, false, true),
            ("x", text("2"), false, false, true),
            ("x", text("1"), true, false, false),
            ("x", text("3"), true, false, true),
            ("missing", text("1"), false, false, false),
            ("missing", text("1"), true, false, false),
            ("missing", text("1"), true, true, true),
            ("missing", text(""), false, true, true),
            ("missing", V::Present(true), false, false, false),
            ("missing", V::Present(true), true, false, true),
            ("missing", V::Present(false), false, false, true),
            ("missing", V::Present(false), false, true, false),
            ("missing", V::Present(true), false, true, true),
            ("e", V::Present(true), false, false, true),
            ("e", V::Present(false), true, false, true),
            ("n", V::Range(-10, 0), false, false, true),
            ("n", V::Range(-5, -4), false, false, true),
            ("n", V::Range(-10, -5), false, false, false),
            ("x", V::Range(2, 100), false, false, true),
            ("x", V::Range(1, 1), false, false, false),
            ("missing", V::Range(0, 1), true, true, true),
            (":method", text("GET"), false, false, true),
            (":authority", text("h.test"), false, false, true),
            ("host", text("h.test"), false, false, true),
            (":path", text("/p?q=1"), false, false, true),
            (":scheme", text("http"), false, false, true),
        ];
        for (name, value, invert, empty, expected) in table {
            let got = matcher(name, value.clone(), *invert, *empty).matches(&head);
            assert_eq!(got, *expected, "{name} {value:?} invert={invert} empty={empty}");
        }
    }

    #[test]
    fn response_criteria_see_status_and_fields() {
        let of = |name: &str, value: &str| {
            HeaderMatcher::for_response(&HeaderMatch {
                name: name.into(),
                value: HeaderValueMatch::Text(StringMatch::exact(value)),
                invert: false,
                treat_missing_as_empty: false,
            })
        };
        let head = Head::get("h", "/").with("x", "y");
        assert!(of(":status", "503").unwrap().matches_response(503, &head));
        assert!(!of(":status", "503").unwrap().matches_response(500, &head));
        assert!(of("x", "y").unwrap().matches_response(200, &head));
        assert!(of(":path", "y").is_err());
    }

    #[test]
    fn bad_header_criteria_are_refused() {
        for (name, value) in [("", HeaderValueMatch::Present(true)), (":x", HeaderValueMatch::Present(true))]
        {
            let m = HeaderMatch { name: name.into(), value, invert: false, treat_missing_as_empty: false };
            assert!(HeaderMatcher::for_request(&m).is_err(), "{name}");
        }
    }
}
