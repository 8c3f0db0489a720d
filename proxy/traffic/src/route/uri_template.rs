//! URI templates: paths with variables, such as `/v1/{user}/files/{rest=**}`, and the paths that are made of them.
//!
//! `*` is one segment (at least one character, no slash), `**` is any number of segments, even none; `{name}` is the
//! variable `name` of one segment, `{name=pattern}` one of what `pattern` matches. `**` must be the last operator.
//! Source: Envoy: `envoy.path.match.uri_template`, `envoy.path.rewrite.uri_template`.

use crate::text::whole_regex;
use regex::bytes::Regex;

/// Most variables of a template.
const VARIABLES_MAX: usize = 5;
/// Longest name of a variable.
const NAME_BYTES_MAX: usize = 16;
/// What a segment may consist of (RFC 3986 `pchar`, with percent-encoded bytes).
const SEGMENT_CHARACTER: &str = r"[a-zA-Z0-9\-._~%!$&'()*+,;:@=]";

/// A compiled template that paths are compared with.
#[derive(Clone, Debug)]
pub struct UriTemplate {
    regex: Regex,
    /// Variables, in the order of the groups of the expression.
    names: Box<[Box<str>]>,
}

/// A template that a path is made of.
#[derive(Clone, Debug)]
pub struct UriRewrite(Box<[Piece]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<[u8]>),
    Variable(Box<str>),
}

impl UriTemplate {
    /// Makes a template ready.
    ///
    /// # Errors
    /// It does not begin with a slash, an operator stands after `**`, a variable is unnamed, named twice or not closed,
    /// there are more than five of them, or a character may not stand in a path.
    pub fn new(text: &str) -> Result<Self, String> {
        let refused = |reason: &str| format!("`{text}` is no URI template: {reason}");
        if !text.starts_with('/') {
            return Err(refused("it must begin with a slash"));
        }
        let mut parsed = Parsed::default();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first == '{' {
                let (inside, after) = rest
                    .get(1..)
                    .and_then(|r| r.split_once('}'))
                    .ok_or_else(|| refused("`{` is not closed"))?;
                parsed.variable(inside).map_err(|reason| refused(&reason))?;
                rest = after;
            } else {
                rest = parsed.one(rest).map_err(|reason| refused(&reason))?;
            }
        }
        Ok(Self { regex: whole_regex(&parsed.pattern)?, names: parsed.names.into() })
    }

    /// Whether a path, without query, matches.
    pub fn is_match(&self, path: &[u8]) -> bool {
        self.regex.is_match(path)
    }

    /// Whether it has a variable of this name.
    fn names(&self, name: &str) -> bool {
        self.names.iter().any(|one| **one == *name)
    }
}

#[derive(Default)]
struct Parsed {
    pattern: String,
    names: Vec<Box<str>>,
    /// A `**` was read.
    ended: bool,
}

impl Parsed {
    /// Reads an operator or a character; gives what is left.
    fn one<'t>(&mut self, text: &'t str) -> Result<&'t str, String> {
        if let Some(rest) = text.strip_prefix('*') {
            if self.ended {
                return Err("nothing but text may follow `**`".into());
            }
            if let Some(rest) = rest.strip_prefix('*') {
                self.ended = true;
                let segments = SEGMENT_CHARACTER.replace("[a", "[/a");
                self.pattern.push_str(&format!("{segments}*"));
                return Ok(rest);
            }
            self.pattern.push_str(&format!("{SEGMENT_CHARACTER}+"));
            return Ok(rest);
        }
        let Some(character) = text.chars().next() else { return Ok(text) };
        let is_allowed = character.is_ascii_alphanumeric() || "/-._~%!$&'()+,;:@=".contains(character);
        if !is_allowed {
            return Err(format!("`{character}` may not stand in it"));
        }
        self.pattern.push_str(&regex::escape(character.encode_utf8(&mut [0; 4])));
        Ok(text.get(character.len_utf8()..).unwrap_or_default())
    }

    /// Reads what stands between braces.
    fn variable(&mut self, inside: &str) -> Result<(), String> {
        let (name, pattern) = inside.split_once('=').unwrap_or((inside, "*"));
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.len() <= NAME_BYTES_MAX
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            return Err(format!("`{name}` is no name of a variable"));
        }
        if pattern.is_empty() || pattern.contains(['{', '}']) {
            return Err(format!("the pattern of `{name}` is empty or has a variable"));
        }
        if self.names.iter().any(|one| **one == *name) {
            return Err(format!("`{name}` is given twice"));
        }
        if self.names.len() == VARIABLES_MAX {
            return Err(format!("it has more than {VARIABLES_MAX} variables"));
        }
        self.names.push(name.into());
        self.pattern.push('(');
        let mut rest = pattern;
        while !rest.is_empty() {
            rest = self.one(rest)?;
        }
        self.pattern.push(')');
        Ok(())
    }
}

impl UriRewrite {
    /// Makes a template ready.
    ///
    /// # Errors
    /// It does not begin with a slash, or a variable is unnamed or not closed.
    pub fn new(text: &str) -> Result<Self, String> {
        let refused = |reason: &str| format!("`{text}` is no URI template of a rewrite: {reason}");
        if !text.starts_with('/') {
            return Err(refused("it must begin with a slash"));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, after) = match rest.find('{') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            };
            if literal.contains(['}', '*', '?', '#', ' ']) || literal.contains("//") {
                return Err(refused("a character may not stand in it"));
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.as_bytes().into()));
            }
            rest = after;
            if let Some(inside) = after.strip_prefix('{') {
                let (name, after) = inside.split_once('}').ok_or_else(|| refused("`{` is not closed"))?;
                if name.is_empty() {
                    return Err(refused("a variable has no name"));
                }
                pieces.push(Piece::Variable(name.into()));
                rest = after;
            }
        }
        Ok(Self(pieces.into()))
    }

    /// Whether every variable is one of `template`.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self, template: &UriTemplate) -> Result<(), String> {
        for piece in &self.0 {
            if let Piece::Variable(name) = piece
                && !template.names(name)
            {
                return Err(format!("the matched template has no variable `{name}`"));
            }
        }
        Ok(())
    }

    /// Appends the path that `path`, which `template` matches, becomes.
    pub(crate) fn write(&self, template: &UriTemplate, path: &[u8], out: &mut Vec<u8>) {
        let Some(groups) = template.regex.captures(path) else { return out.extend_from_slice(path) };
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Variable(name) => {
                    let at = template.names.iter().position(|one| one == name);
                    let value = at.and_then(|at| groups.get(at + 1));
                    out.extend_from_slice(value.map(|group| group.as_bytes()).unwrap_or_default());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_segments_and_rests() {
        for (template, matching, other) in [
            ("/a/*", &["/a/b", "/a/b.c"][..], &["/a", "/a/", "/a/b/c"][..]),
            ("/a/**", &["/a/", "/a/b", "/a/b/c"], &["/a", "/b"]),
            ("/{user}/x", &["/me/x"], &["//x", "/me/you/x", "/me/x/"]),
            ("/v/{rest=**}", &["/v/", "/v/a/b"], &["/v"]),
            ("/{a=b/*}/c", &["/b/z/c"], &["/b/c", "/x/z/c"]),
            ("/**.m3u8", &["/a/b.m3u8"], &["/a/b.ts"]),
            ("/a.b", &["/a.b"], &["/axb"]),
        ] {
            let compiled = UriTemplate::new(template).unwrap();
            for path in matching {
                assert!(compiled.is_match(path.as_bytes()), "{template} {path}");
            }
            for path in other {
                assert!(!compiled.is_match(path.as_bytes()), "{template} {path}");
            }
        }
    }

    #[test]
    fn rewrites_put_variables_where_they_are_named() {
        let template = UriTemplate::new("/api/{user}/{rest=**}").unwrap();
        for (rewrite, path, new) in [
            ("/u/{user}", "/api/me/x/y", "/u/me"),
            ("/{rest}/of/{user}", "/api/me/x/y", "/x/y/of/me"),
            ("/fixed", "/api/me/", "/fixed"),
        ] {
            let rewrite = UriRewrite::new(rewrite).unwrap();
            rewrite.check(&template).unwrap();
            let mut out = Vec::new();
            rewrite.write(&template, path.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), new);
        }
        assert!(UriRewrite::new("/{nobody}").unwrap().check(&template).is_err());
    }

    #[test]
    fn texts_that_are_no_templates_are_refused() {
        for bad in [
            "",
            "a",
            "/{a",
            "/{}",
            "/{1a}",
            "/{a}/{a}",
            "/**/*",
            "/**/{a}",
            "/{a={b}}",
            "/{a=}",
            "/a b",
            "/a?b",
            "/{abcdefghijklmnopq}",
            "/{a}/{b}/{c}/{d}/{e}/{f}",
        ] {
            assert!(UriTemplate::new(bad).is_err(), "{bad}");
        }
        for bad in ["", "a", "/{a", "/{}", "/a}", "/*", "/a?b"] {
            assert!(UriRewrite::new(bad).is_err(), "{bad}");
        }
    }
}
