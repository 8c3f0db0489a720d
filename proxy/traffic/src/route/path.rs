//! Which routes a path can belong to, without looking at all of them.
//!
//! Prefixes, exact paths and path-separated prefixes of a virtual host stand in one radix tree (a second one, in lower
//! case, for routes that ignore case); regular expressions and CONNECT routes stand in a list. One walk down the tree
//! visits every prefix of the path. Routes keep their order: of all candidates the one with the smallest number wins,
//! which is the same as trying them one after the other.

use super::UriTemplate;
use crate::config::PathMatch;
use crate::text::whole_regex;
use regex::bytes::Regex;

/// A compiled path criterion.
#[derive(Clone, Debug)]
pub enum PathMatcher {
    /// Begins with.
    Prefix(Box<[u8]>),
    /// Equals.
    Exact(Box<[u8]>),
    /// The whole path matches.
    Regex(Regex),
    /// Equals, or begins with it and a slash.
    PathSeparatedPrefix(Box<[u8]>),
    /// A URI template matches.
    Template(UriTemplate),
    /// CONNECT requests.
    Connect,
}

impl PathMatcher {
    /// Makes a criterion ready.
    ///
    /// # Errors
    /// A bad regular expression; a path-separated prefix that is empty, ends in a slash or has a query; an exact path
    /// or prefix that can never match because it does not start with a slash (empty prefixes match all).
    pub fn new(from: &PathMatch) -> Result<Self, String> {
        Ok(match from {
            PathMatch::Prefix(p) => Self::Prefix(p.as_bytes().into()),
            PathMatch::Exact(p) => Self::Exact(p.as_bytes().into()),
            PathMatch::Regex(r) => Self::Regex(whole_regex(r)?),
            PathMatch::PathSeparatedPrefix(p) => {
                if !p.starts_with('/') || p.len() < 2 || p.ends_with('/') || p.contains(['?', '#']) {
                    return Err(format!(
                        "path_separated_prefix `{p}` must begin with a slash, not end with one, and have no query"
                    ));
                }
                Self::PathSeparatedPrefix(p.as_bytes().into())
            }
            PathMatch::Template(t) => Self::Template(UriTemplate::new(t)?),
            PathMatch::Connect => Self::Connect,
        })
    }

    /// How many bytes of a matching path `prefix_rewrite` replaces: the prefix, or else everything.
    pub fn replaced_length(&self, path: &[u8]) -> usize {
        match self {
            Self::Prefix(p) | Self::PathSeparatedPrefix(p) => p.len().min(path.len()),
            Self::Exact(_) | Self::Regex(_) | Self::Template(_) | Self::Connect => path.len(),
        }
    }
}

/// The routes of a virtual host by path.
#[derive(Debug, Default)]
pub struct PathIndex {
    sensitive: Tree,
    folded: Tree,
    /// Regular expressions, templates and CONNECT, in order.
    listed: Vec<(u32, PathMatcher)>,
}

impl PathIndex {
    /// Indexes the criteria of routes `0..`, each with whether case counts.
    pub fn new<'a>(routes: impl Iterator<Item = (&'a PathMatcher, bool)>) -> Self {
        let (mut sensitive, mut folded, mut listed) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (matcher, case_sensitive)) in routes.enumerate() {
            let number = number as u32;
            let (kind, text) = match matcher {
                PathMatcher::Prefix(p) => (Kind::Prefix, p),
                PathMatcher::Exact(p) => (Kind::Exact, p),
                PathMatcher::PathSeparatedPrefix(p) => (Kind::Separated, p),
                PathMatcher::Regex(_) | PathMatcher::Template(_) | PathMatcher::Connect => {
                    listed.push((number, matcher.clone()));
                    continue;
                }
            };
            if case_sensitive {
                sensitive.push((text.to_vec(), kind, number));
            } else {
                folded.push((text.to_ascii_lowercase(), kind, number));
            }
        }
        Self { sensitive: Tree::new(sensitive), folded: Tree::new(folded), listed }
    }

    /// The smallest number whose path criterion matches and for which `holds` says yes.
    /// A path is empty only for plain CONNECT, which nothing but a CONNECT criterion matches.
    pub fn first(&self, path: &[u8], is_connect: bool, mut holds: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut best = u32::MAX;
        if !path.is_empty() {
            self.sensitive.walk::<false>(path, &mut best, &mut holds);
            if !self.folded.nodes.is_empty() {
                self.folded.walk::<true>(path, &mut best, &mut holds);
            }
        }
        for (number, matcher) in &self.listed {
            if *number >= best {
                break;
            }
            let matches = match matcher {
                PathMatcher::Regex(r) => !path.is_empty() && r.is_match(path),
                PathMatcher::Template(t) => t.is_match(path),
                PathMatcher::Connect => is_connect,
                PathMatcher::Prefix(_) | PathMatcher::Exact(_) | PathMatcher::PathSeparatedPrefix(_) => false,
            };
            if matches && holds(*number) {
                best = *number;
            }
        }
        (best != u32::MAX).then_some(best)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Prefix,
    Exact,
    Separated,
}

/// A radix tree: every edge has a label of one or more bytes; no two edges of a node begin alike.
#[derive(Debug, Default)]
struct Tree {
    /// The root is the first; empty when there is no text.
    nodes: Vec<Node>,
    /// Routes of all nodes, ascending within a node.
    routes: Vec<(u32, Kind)>,
    /// First bytes and targets of all edges, by node.
    firsts: Vec<u8>,
    targets: Vec<u32>,
    labels: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    label: (u32, u32),
    routes: (u32, u32),
    edges: (u32, u32),
}

impl Tree {
    fn new(mut texts: Vec<(Vec<u8>, Kind, u32)>) -> Self {
        let mut tree = Self::default();
        if texts.is_empty() {
            return tree;
        }
        texts.sort_by(|a, b| a.0.cmp(&b.0).then(a.2.cmp(&b.2)));
        tree.nodes.push(Node::default());
        // (node, texts below it, how many bytes of them are consumed); depth-first without recursion, so that a
        // chain of many nested prefixes cannot exhaust the stack.
        let mut open = vec![(0usize, 0..texts.len(), 0usize)];
        while let Some((node, range, consumed)) = open.pop() {
            tree.fill(node, &texts, range, consumed, &mut open);
        }
        tree
    }

    fn fill(
        &mut self,
        node: usize,
        texts: &[(Vec<u8>, Kind, u32)],
        range: std::ops::Range<usize>,
        consumed: usize,
        open: &mut Vec<(usize, std::ops::Range<usize>, usize)>,
    ) {
        let all = texts.get(range.clone()).unwrap_or_default();
        // Sorted, so texts that end here come first.
        let ending = all.iter().take_while(|(t, ..)| t.len() == consumed).count();
        let routes_start = self.routes.len() as u32;
        self.routes.extend(all.iter().take(ending).map(|(_, kind, number)| (*number, *kind)));
        let edges_start = self.firsts.len() as u32;
        let mut at = ending;
        while let Some((text, ..)) = all.get(at) {
            let first = text.get(consumed).copied();
            let count = all
                .get(at..)
                .unwrap_or_default()
                .iter()
                .take_while(|(t, ..)| t.get(consumed).copied() == first)
                .count();
            let last = all.get(at + count - 1).map_or(text, |(t, ..)| t);
            // Sorted: what the first and the last have in common, all between have in common.
            let common = text.iter().zip(last).take_while(|(a, b)| a == b).count();
            let label_start = self.labels.len() as u32;
            self.labels.extend_from_slice(text.get(consumed..common).unwrap_or_default());
            self.firsts.push(first.unwrap_or_default());
            self.targets.push(self.nodes.len() as u32);
            open.push((self.nodes.len(), range.start + at..range.start + at + count, common));
            self.nodes.push(Node { label: (label_start, self.labels.len() as u32), ..Node::default() });
            at += count;
        }
        if let Some(node) = self.nodes.get_mut(node) {
            node.routes = (routes_start, self.routes.len() as u32);
            node.edges = (edges_start, self.firsts.len() as u32);
        }
    }

    /// Lowers `best` to the smallest matching number for which `holds` says yes.
    fn walk<const FOLD: bool>(&self, path: &[u8], best: &mut u32, holds: &mut impl FnMut(u32) -> bool) {
        let Some(mut node) = self.nodes.first() else { return };
        let mut rest = path;
        loop {
            let routes = self.routes.get(node.routes.0 as usize..node.routes.1 as usize).unwrap_or_default();
            for (number, kind) in routes {
                if *number >= *best {
                    break;
                }
                let matches = match kind {
                    Kind::Prefix => true,
                    Kind::Exact => rest.is_empty(),
                    Kind::Separated => matches!(rest, [] | [b'/', ..]),
                };
                if matches && holds(*number) {
                    *best = *number;
                    break;
                }
            }
            let Some(&byte) = rest.first() else { return };
            let byte = if FOLD { byte.to_ascii_lowercase() } else { byte };
            let edges = node.edges.0 as usize..node.edges.1 as usize;
            let firsts = self.firsts.get(edges.clone()).unwrap_or_default();
            let Some(at) = position(firsts, byte) else { return };
            let Some(next) = self.targets.get(edges.start + at).and_then(|t| self.nodes.get(*t as usize))
            else {
                return;
            };
            let label = self.labels.get(next.label.0 as usize..next.label.1 as usize).unwrap_or_default();
            let Some((head, tail)) = rest.split_at_checked(label.len()) else { return };
            let same = if FOLD { head.eq_ignore_ascii_case(label) } else { head == label };
            if !same {
                return;
            }
            rest = tail;
            node = next;
        }
    }
}

/// Where a byte stands among the first bytes of a node's edges. Few edges are the rule; a plain loop beats a search.
fn position(firsts: &[u8], byte: u8) -> Option<usize> {
    if firsts.len() <= 16 { firsts.iter().position(|b| *b == byte) } else { memchr::memchr(byte, firsts) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(routes: &[(PathMatch, bool)]) -> PathIndex {
        let matchers: Vec<_> = routes.iter().map(|(p, c)| (PathMatcher::new(p).unwrap(), *c)).collect();
        PathIndex::new(matchers.iter().map(|(m, c)| (m, *c)))
    }

    fn slow(routes: &[(PathMatch, bool)], path: &str) -> Option<u32> {
        let position = routes.iter().position(|(matcher, case)| {
            let fold = |t: &str| if *case { t.to_string() } else { t.to_ascii_lowercase() };
            let text = fold(path);
            match matcher {
                PathMatch::Prefix(p) => text.starts_with(&fold(p)),
                PathMatch::Exact(p) => text == fold(p),
                PathMatch::PathSeparatedPrefix(p) => {
                    text == fold(p) || text.starts_with(&format!("{}/", fold(p)))
                }
                PathMatch::Regex(r) => whole_regex(r).unwrap().is_match(path.as_bytes()),
                PathMatch::Template(_) | PathMatch::Connect => false,
            }
        });
        position.map(|p| p as u32)
    }

    fn criterion() -> impl Strategy<Value = (PathMatch, bool)> {
        let kinds = prop_oneof![
            4 => "/[abA/]{0,5}".prop_map(PathMatch::Prefix),
            3 => "/[abA/]{0,5}".prop_map(PathMatch::Exact),
            3 => "/[abA/]{0,3}[ab]".prop_map(PathMatch::PathSeparatedPrefix),
            1 => "/[ab]{0,2}\\.\\*".prop_map(PathMatch::Regex),
        ];
        (kinds, prop::bool::weighted(0.8))
    }

    proptest! {
        #[test]
        fn path_index_agrees_with_trying_one_after_the_other(
            routes in prop::collection::vec(criterion(), 0..12),
            paths in prop::collection::vec("/[abA/]{0,7}", 1..8),
        ) {
            let index = index(&routes);
            for path in paths {
                prop_assert_eq!(index.first(path.as_bytes(), false, |_| true), slow(&routes, &path), "{}", path);
            }
        }
    }

    #[test]
    fn candidates_refused_by_other_criteria_fall_through_in_order() {
        let routes: Vec<_> =
            ["/a", "/a", "/", "/a/b"].iter().map(|p| (PathMatch::Prefix((*p).into()), true)).collect();
        let index = index(&routes);
        assert_eq!(index.first(b"/a/b", false, |n| n != 0), Some(1));
        assert_eq!(index.first(b"/a/b", false, |n| n > 1), Some(2));
        assert_eq!(index.first(b"/a/b", false, |n| n == 3), Some(3));
        assert_eq!(index.first(b"/a/b", false, |_| false), None);
    }

    #[test]
    fn connect_without_path_matches_only_connect_routes() {
        let index = index(&[(PathMatch::Prefix(String::new()), true), (PathMatch::Connect, true)]);
        assert_eq!(index.first(b"", true, |_| true), Some(1));
        assert_eq!(index.first(b"/", true, |_| true), Some(0));
        assert_eq!(index.first(b"", false, |_| true), None);
    }

    #[test]
    fn deeply_nested_prefixes_are_indexed_without_recursion() {
        let routes: Vec<_> =
            (1..5000).rev().map(|n| (PathMatch::Prefix(format!("/{}", "a".repeat(n))), true)).collect();
        let index = index(&routes);
        assert_eq!(index.first(format!("/{}", "a".repeat(6000)).as_bytes(), false, |_| true), Some(0));
        assert_eq!(index.first(b"/aa", false, |_| true), Some(4997));
    }

    #[test]
    fn path_separated_prefixes_of_the_wrong_form_are_refused() {
        for bad in ["", "/", "a", "/a/", "/a?b", "/a#b"] {
            assert!(PathMatcher::new(&PathMatch::PathSeparatedPrefix(bad.into())).is_err(), "{bad}");
        }
    }
}
