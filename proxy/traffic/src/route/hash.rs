//! The hash of a request that ring hash and Maglev go by. Source: Envoy: route components, `hash_policy`; combined and
//! computed as there, so that both send a request to the same host.

use super::query::parameter;
use crate::config::{self, HashCookie, HashSource};
use crate::hash::xxh64;
use crate::text::{search_regex, substitution};
use crate::view::{FieldView, RequestView, query_only};
use regex::bytes::Regex;
use std::net::IpAddr;

/// The compiled policies of a route.
#[derive(Debug, Default)]
pub struct HashRules(Box<[Rule]>);

#[derive(Debug)]
struct Rule {
    source: Source,
    terminal: bool,
}

#[derive(Debug)]
enum Source {
    Header { name: Box<[u8]>, rewrite: Option<(Regex, Box<[u8]>)> },
    Cookie(HashCookie),
    Client,
    Query(Box<[u8]>),
}

impl HashRules {
    /// Makes policies ready.
    ///
    /// # Errors
    /// The position of the first bad one, its field, and the reason.
    pub fn new(from: &[config::HashPolicy]) -> Result<Self, (usize, &'static str, String)> {
        let rules = from.iter().enumerate().map(|(i, policy)| {
            let source = Source::new(&policy.source).map_err(|(field, reason)| (i, field, reason))?;
            Ok(Rule { source, terminal: policy.terminal })
        });
        Ok(Self(rules.collect::<Result<_, _>>()?))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hash of a request that comes from `client`; `None` where no policy finds anything. `make` is called for a cookie
    /// that is not there and has a lifetime, and gives its value.
    pub fn hash<V: RequestView + ?Sized>(
        &self,
        view: &V,
        client: IpAddr,
        make: &mut dyn FnMut(&HashCookie) -> Vec<u8>,
    ) -> Option<u64> {
        let mut hash: Option<u64> = None;
        for rule in &self.0 {
            if let Some(part) = rule.source.hash(view, client, make) {
                // Turned, so that the same part twice does not cancel itself out.
                hash = Some(hash.map_or(0, |old| old.rotate_left(1)) ^ part);
            }
            if rule.terminal && hash.is_some() {
                break;
            }
        }
        hash
    }
}

impl Source {
    fn new(from: &HashSource) -> Result<Self, (&'static str, String)> {
        let need = |text: &str, field| {
            if text.is_empty() { Err((field, "must not be empty".to_owned())) } else { Ok(()) }
        };
        Ok(match from {
            HashSource::Header { name, rewrite } => {
                need(name, "header.header_name")?;
                let rewrite = match rewrite {
                    Some((pattern, text)) => {
                        let regex = search_regex(pattern).map_err(|e| ("header.regex_rewrite.pattern", e))?;
                        let text = substitution(text, &regex)
                            .map_err(|e| ("header.regex_rewrite.substitution", e))?;
                        Some((regex, text))
                    }
                    None => None,
                };
                Self::Header { name: name.as_bytes().into(), rewrite }
            }
            HashSource::Cookie(cookie) => {
                need(&cookie.name, "cookie.name")?;
                Self::Cookie(cookie.clone())
            }
            HashSource::SourceIp => Self::Client,
            HashSource::Query(name) => {
                need(name, "query_parameter.name")?;
                Self::Query(name.as_bytes().into())
            }
        })
    }

    fn hash<V: RequestView + ?Sized>(
        &self,
        view: &V,
        client: IpAddr,
        make: &mut dyn FnMut(&HashCookie) -> Vec<u8>,
    ) -> Option<u64> {
        match self {
            Self::Header { name, rewrite } => header(view, name, rewrite.as_ref()),
            Self::Cookie(wanted) => {
                let mut found = None;
                view.for_each_header(b"cookie", &mut |value| {
                    if found.is_none() {
                        found = cookie(value, wanted.name.as_bytes())
                            .filter(|value| !value.is_empty())
                            .map(|value| xxh64(value, 0));
                    }
                });
                found.or_else(|| wanted.ttl.map(|_| xxh64(&make(wanted), 0)))
            }
            Self::Client => {
                let mut text = Text { bytes: [0; 48], length: 0 };
                // The longest address fits.
                let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{client}"));
                Some(xxh64(text.bytes(), 0))
            }
            Self::Query(name) => parameter(query_only(view.path())?, name).map(|value| xxh64(value, 0)),
        }
    }
}

/// Several values of a header are sorted, so that their order does not matter, and hashed one after the other.
fn header<V: FieldView + ?Sized>(view: &V, name: &[u8], rewrite: Option<&(Regex, Box<[u8]>)>) -> Option<u64> {
    let mut count = 0;
    let mut one = 0;
    view.for_each_header(name, &mut |value| {
        count += 1;
        if count == 1 && rewrite.is_none() {
            one = chained(value, 0);
        }
    });
    match count {
        0 => return None,
        1 if rewrite.is_none() => return Some(one),
        _ => {}
    }
    let mut values: Vec<Vec<u8>> = Vec::with_capacity(count);
    view.for_each_header(name, &mut |value| {
        values.push(match rewrite {
            Some((regex, text)) => regex.replace_all(value, &**text).into_owned(),
            None => value.to_vec(),
        });
    });
    values.sort_unstable();
    Some(values.iter().fold(0, |hash, value| chained(value, hash)))
}

fn chained(value: &[u8], before: u64) -> u64 {
    xxh64(value, before)
}

/// The value of a cookie in one `cookie` header, without its quotes.
pub(crate) fn cookie<'h>(header: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    header.split(|b| *b == b';').find_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        let (found, value) = (pair.get(..at)?.trim_ascii(), pair.get(at + 1..)?.trim_ascii());
        if found != name {
            return None;
        }
        Some(value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// Room for an address as text.
struct Text {
    bytes: [u8; 48],
    length: usize,
}

impl Text {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HashPolicy;
    use crate::route::tests::Head;
    use std::time::Duration;

    fn rules(policies: &[(HashSource, bool)]) -> HashRules {
        let policies: Vec<HashPolicy> = policies
            .iter()
            .map(|(source, terminal)| HashPolicy { source: source.clone(), terminal: *terminal })
            .collect();
        HashRules::new(&policies).unwrap()
    }

    fn named(name: &str) -> HashSource {
        HashSource::Header { name: name.into(), rewrite: None }
    }

    fn hash(rules: &HashRules, request: &Head) -> Option<u64> {
        rules.hash(request, [192, 0, 2, 7].into(), &mut |_| b"made".to_vec())
    }

    fn request(headers: &[(&str, &str)]) -> Head {
        headers.iter().fold(Head::get("h", "/a?x=1&y=2"), |head, (name, value)| head.with(name, value))
    }

    #[test]
    fn parts_are_hashed_turned_and_combined() {
        let request = request(&[("x-user", "alice"), ("x-shop", "7"), ("cookie", "a=1; sid=\"s1\"")]);
        let h = |text: &str| xxh64(text.as_bytes(), 0);
        let cookie = |name: &str, ttl| {
            let (path, attributes) = (String::new(), Vec::new());
            HashSource::Cookie(HashCookie { name: name.into(), ttl, path, attributes })
        };
        for (policies, expected) in [
            (vec![(named("x-user"), false)], Some(h("alice"))),
            (vec![(named("x-none"), false)], None),
            (vec![(named("x-none"), true), (named("x-shop"), false)], Some(h("7"))),
            (vec![(named("x-user"), true), (named("x-shop"), false)], Some(h("alice"))),
            (
                vec![(named("x-user"), false), (named("x-shop"), false)],
                Some(h("alice").rotate_left(1) ^ h("7")),
            ),
            (
                vec![(named("x-user"), false), (named("x-user"), false)],
                Some(h("alice").rotate_left(1) ^ h("alice")),
            ),
            (vec![(HashSource::SourceIp, false)], Some(h("192.0.2.7"))),
            (vec![(HashSource::Query("y".into()), false)], Some(h("2"))),
            (vec![(HashSource::Query("z".into()), false)], None),
            (vec![(cookie("sid", None), false)], Some(h("s1"))),
            (vec![(cookie("new", None), false)], None),
            (vec![(cookie("new", Some(Duration::ZERO)), false)], Some(h("made"))),
        ] {
            assert_eq!(hash(&rules(&policies), &request), expected, "{policies:?}");
        }
    }

    #[test]
    fn order_of_a_headers_values_does_not_matter_and_matches_are_replaced() {
        let one = rules(&[(named("x"), false)]);
        assert_eq!(
            hash(&one, &request(&[("x", "a"), ("x", "b")])),
            hash(&one, &request(&[("x", "b"), ("x", "a")]))
        );
        let rewrite = Some(("([0-9]+)-.*".to_owned(), r"\1".to_owned()));
        let cut = rules(&[(HashSource::Header { name: "x".into(), rewrite }, false)]);
        assert_eq!(hash(&cut, &request(&[("x", "12-ab")])), Some(xxh64(b"12", 0)));
    }

    #[test]
    fn bad_policies_are_refused_by_field() {
        for (source, field) in [
            (named(""), "header.header_name"),
            (HashSource::Query(String::new()), "query_parameter.name"),
            (
                HashSource::Header { name: "x".into(), rewrite: Some(("(".into(), String::new())) },
                "header.regex_rewrite.pattern",
            ),
        ] {
            let error = HashRules::new(&[HashPolicy { source, terminal: false }]).unwrap_err();
            assert_eq!((error.0, error.1), (0, field));
        }
    }
}
