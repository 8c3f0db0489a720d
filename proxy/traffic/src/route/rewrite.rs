//! Rewrites of path and authority.

use super::{PathMatcher, UriRewrite};
use crate::config;
use crate::template::Template;
use crate::text::{search_regex, substitution};
use crate::view::{RequestView, path_only};
use regex::bytes::Regex;

/// A compiled [`config::PathRewrite`].
#[derive(Clone, Debug)]
pub enum PathRewriter {
    /// What the route matched is replaced by this.
    Prefix(Box<[u8]>),
    /// Every match is replaced.
    Regex(Regex, Box<[u8]>),
    /// Made of variables of the template that the route matched.
    Template(UriRewrite),
    /// Written by the engine, which knows the values.
    Format(Template),
}

impl PathRewriter {
    /// Makes a rewrite ready.
    ///
    /// # Errors
    /// A bad regular expression or substitution.
    pub fn new(from: &config::PathRewrite) -> Result<Self, String> {
        Ok(match from {
            config::PathRewrite::Prefix(text) => Self::Prefix(text.as_bytes().into()),
            config::PathRewrite::Regex { pattern, substitution: text } => {
                let regex = search_regex(pattern)?;
                let text = substitution(text, &regex)?;
                Self::Regex(regex, text)
            }
            config::PathRewrite::Template(text) => Self::Template(UriRewrite::new(text)?),
            config::PathRewrite::Format(text) => Self::Format(Template::parse(text)?),
        })
    }

    /// The text with commands where the rewrite is one: the engine writes it, in place of the path.
    pub fn format(&self) -> Option<&Template> {
        match self {
            Self::Format(template) => Some(template),
            Self::Prefix(_) | Self::Regex(..) | Self::Template(_) => None,
        }
    }

    /// Appends the rewritten target to `out`; query and fragment are kept as they are.
    pub(crate) fn rewrite(&self, matched: &PathMatcher, target: &[u8], out: &mut Vec<u8>) {
        let path = path_only(target);
        match self {
            Self::Prefix(new) => {
                out.extend_from_slice(new);
                out.extend_from_slice(path.get(matched.replaced_length(path)..).unwrap_or_default());
            }
            Self::Regex(regex, new) => out.extend_from_slice(&regex.replace_all(path, &**new)),
            Self::Template(new) => match matched {
                PathMatcher::Template(template) => new.write(template, path, out),
                // Refused when it is compiled: there are no variables.
                _ => out.extend_from_slice(path),
            },
            Self::Format(_) => out.extend_from_slice(path),
        }
        out.extend_from_slice(target.get(path.len()..).unwrap_or_default());
    }
}

/// A compiled [`config::HostRewrite`].
#[derive(Clone, Debug)]
pub enum HostRewriter {
    /// To this text.
    Literal(Box<[u8]>),
    /// To the host name of the picked host; the engine does it, for only it knows the pick.
    Auto,
    /// To the value of this request header; unchanged where it is absent.
    Header(Box<[u8]>),
    /// Regex over the path gives the host.
    PathRegex(Regex, Box<[u8]>),
    /// Written by the engine, which knows the values.
    Format(Template),
}

impl HostRewriter {
    /// Makes a rewrite ready.
    ///
    /// # Errors
    /// A bad regular expression or substitution; an empty literal or header name.
    pub fn new(from: &config::HostRewrite) -> Result<Self, String> {
        Ok(match from {
            config::HostRewrite::Literal(text) if text.is_empty() => {
                return Err("host rewrite must not be empty".into());
            }
            config::HostRewrite::Literal(text) => Self::Literal(text.as_bytes().into()),
            config::HostRewrite::Auto => Self::Auto,
            config::HostRewrite::Header(name) if name.is_empty() => {
                return Err("header name must not be empty".into());
            }
            config::HostRewrite::Header(name) => Self::Header(name.to_ascii_lowercase().into_bytes().into()),
            config::HostRewrite::PathRegex { pattern, substitution: text } => {
                let regex = search_regex(pattern)?;
                let text = substitution(text, &regex)?;
                Self::PathRegex(regex, text)
            }
            config::HostRewrite::Format(text) => Self::Format(Template::parse(text)?),
        })
    }

    /// The text with commands where the rewrite is one: the engine writes it.
    pub fn format(&self) -> Option<&Template> {
        match self {
            Self::Format(template) => Some(template),
            Self::Literal(_) | Self::Auto | Self::Header(_) | Self::PathRegex(..) => None,
        }
    }

    /// Appends the new authority to `out` and says true; false where the authority stays, or
    /// the engine makes it ([`HostRewriter::Auto`], [`HostRewriter::Format`]).
    pub fn rewrite<V: RequestView + ?Sized>(&self, view: &V, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Literal(text) => out.extend_from_slice(text),
            Self::Auto | Self::Format(_) => return false,
            Self::Header(name) => match view.header(name) {
                Some(value) if !value.is_empty() => out.extend_from_slice(value),
                _ => return false,
            },
            Self::PathRegex(regex, new) => {
                out.extend_from_slice(&regex.replace_all(path_only(view.path()), &**new));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostRewrite, PathMatch, PathRewrite};
    use crate::route::tests::Head;

    #[test]
    fn paths_are_rewritten_by_what_the_route_matched() {
        let prefix = |t: &str| PathRewrite::Prefix(t.into());
        let regex = |p: &str, s: &str| PathRewrite::Regex { pattern: p.into(), substitution: s.into() };
        let table: &[(PathMatch, PathRewrite, &str, &str)] = &[
            (PathMatch::Prefix("/a/".into()), prefix("/"), "/a/b?c=/a/", "/b?c=/a/"),
            (PathMatch::Prefix("/a".into()), prefix("/x"), "/ab", "/xb"),
            (PathMatch::Prefix("/".into()), prefix("/x/"), "/b", "/x/b"),
            (PathMatch::Exact("/a".into()), prefix("/x"), "/a?q", "/x?q"),
            (PathMatch::PathSeparatedPrefix("/a".into()), prefix("/x"), "/a/b", "/x/b"),
            (PathMatch::Regex("/a.*".into()), prefix("/x"), "/abc?q", "/x?q"),
            (
                PathMatch::Prefix("/".into()),
                regex("one", "two"),
                "/xxx/one/yyy/one/zzz?one",
                "/xxx/two/yyy/two/zzz?one",
            ),
            (
                PathMatch::Prefix("/".into()),
                regex("^/service/([^/]+)(/.*)$", r"\2/instance/\1"),
                "/service/foo/v1/api",
                "/v1/api/instance/foo",
            ),
            (PathMatch::Prefix("/".into()), regex("a", "$1"), "/a", "/$1"),
        ];
        for (matched, rewrite, target, expected) in table {
            let mut out = Vec::new();
            let matcher = PathMatcher::new(matched).unwrap();
            PathRewriter::new(rewrite).unwrap().rewrite(&matcher, target.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), *expected);
        }
    }

    #[test]
    fn hosts_are_rewritten_from_text_header_or_path() {
        let head = Head::get("old", "/tenant/x?q").with("to", "new");
        let of = |rewrite: HostRewrite| {
            let mut out = Vec::new();
            HostRewriter::new(&rewrite)
                .unwrap()
                .rewrite(&head, &mut out)
                .then(|| String::from_utf8(out).unwrap())
        };
        assert_eq!(of(HostRewrite::Literal("l".into())).as_deref(), Some("l"));
        assert_eq!(of(HostRewrite::Header("to".into())).as_deref(), Some("new"));
        assert_eq!(of(HostRewrite::Header("absent".into())), None);
        assert_eq!(of(HostRewrite::Auto), None);
        let regex =
            HostRewrite::PathRegex { pattern: "^/tenant/(.+)$".into(), substitution: r"\1.test".into() };
        assert_eq!(of(regex).as_deref(), Some("x.test"));
    }
}
