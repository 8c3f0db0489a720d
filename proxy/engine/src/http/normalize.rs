//! One path for every spelling, before a route or an authorization rule looks at it.
//!
//! In Envoy's order: escaped slashes (`path_with_escaped_slashes_action`), RFC 3986 normalisation
//! (`normalize_path`), adjacent slashes (`merge_slashes`). The query is never touched. Applying the
//! same rules twice changes nothing the second time, and a path that needs no change costs a scan.

use outrigger_traffic::config::{EscapedSlashes, HttpConnectionManager};
use outrigger_wire::RequestHead;
use outrigger_wire::syntax::hex;

#[cfg(test)]
#[path = "normalize_tests.rs"]
mod tests;

/// What is done to paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRules {
    /// `normalize_path`: unreserved bytes decoded, `\` read as `/`, dot segments resolved.
    pub normalize: bool,
    /// `merge_slashes`: adjacent slashes become one.
    pub merge_slashes: bool,
    /// What happens to `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
}

impl From<&HttpConnectionManager> for PathRules {
    fn from(config: &HttpConnectionManager) -> Self {
        Self {
            normalize: config.normalize_path,
            merge_slashes: config.merge_slashes,
            escaped_slashes: config.escaped_slashes,
        }
    }
}

impl PathRules {
    /// Whether there is nothing to do for any path.
    const fn are_idle(self) -> bool {
        !self.normalize
            && !self.merge_slashes
            && matches!(self.escaped_slashes, EscapedSlashes::KeepUnchanged)
    }
}

/// What becomes of a request after its path was normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathVerdict {
    /// Go on with the path the head has now.
    Forward,
    /// Answer 307 with the head's path as location (gRPC requests are refused instead).
    Redirect,
    /// Answer 400.
    Reject,
}

/// Memory for the steps, kept by the worker so that a rewritten path allocates nothing.
#[derive(Debug, Default)]
pub struct PathScratch {
    from: Vec<u8>,
    to: Vec<u8>,
}

/// Normalises the path of `head` in place. `*` and the empty path of CONNECT are left alone.
pub fn normalize(head: &mut RequestHead, rules: PathRules, scratch: &mut PathScratch) -> PathVerdict {
    if rules.are_idle() || head.path().first() != Some(&b'/') {
        return PathVerdict::Forward;
    }
    let path = head.path_only();
    if !needs_work(path) {
        return PathVerdict::Forward;
    }
    scratch.from.clear();
    scratch.from.extend_from_slice(path);
    let mut unescaped = false;
    if contains_escaped_slash(&scratch.from) {
        match rules.escaped_slashes {
            EscapedSlashes::KeepUnchanged => {}
            EscapedSlashes::RejectRequest => return PathVerdict::Reject,
            EscapedSlashes::UnescapeAndRedirect | EscapedSlashes::UnescapeAndForward => {
                scratch.step(unescape_slashes);
                unescaped = true;
            }
        }
    }
    if rules.normalize {
        if contains_escaped_nul(&scratch.from) {
            return PathVerdict::Reject;
        }
        scratch.step(decode_unreserved);
        scratch.step(resolve_dot_segments);
    }
    if rules.merge_slashes {
        scratch.step(merge_slashes);
    }
    if scratch.from != path {
        scratch.to.clear();
        scratch.to.extend_from_slice(&scratch.from);
        if let Some(query) = head.query() {
            scratch.to.push(b'?');
            scratch.to.extend_from_slice(query);
        }
        if !head.set_path(&scratch.to) {
            // Cannot happen: the steps only remove bytes or write visible ones.
            return PathVerdict::Reject;
        }
    }
    if unescaped && rules.escaped_slashes == EscapedSlashes::UnescapeAndRedirect {
        PathVerdict::Redirect
    } else {
        PathVerdict::Forward
    }
}

impl PathScratch {
    /// Runs one step from `from` to `to`, whose result is `from` of the next.
    fn step(&mut self, step: impl Fn(&[u8], &mut Vec<u8>)) {
        self.to.clear();
        step(&self.from, &mut self.to);
        std::mem::swap(&mut self.from, &mut self.to);
    }
}

/// Whether any step could change `path`: an escape, a backslash, a segment that begins with a dot, or
/// two slashes.
fn needs_work(path: &[u8]) -> bool {
    let mut after_slash = false;
    path.iter().any(|byte| {
        let found = match byte {
            b'%' | b'\\' => true,
            b'.' | b'/' => after_slash,
            _ => false,
        };
        after_slash = *byte == b'/';
        found
    })
}

fn escapes(path: &[u8]) -> impl Iterator<Item = u8> {
    path.windows(3).filter_map(|window| match window {
        [b'%', high, low] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    })
}

fn contains_escaped_slash(path: &[u8]) -> bool {
    escapes(path).any(|byte| matches!(byte, b'/' | b'\\'))
}

/// An encoded NUL ends the path for readers in C.
fn contains_escaped_nul(path: &[u8]) -> bool {
    escapes(path).any(|byte| byte == 0)
}

/// Writes `%2F` as `/` and `%5C` as `\`.
fn unescape_slashes(path: &[u8], out: &mut Vec<u8>) {
    let mut rest = path;
    loop {
        rest = match rest {
            [b'%', b'2', b'F' | b'f', tail @ ..] => {
                out.push(b'/');
                tail
            }
            [b'%', b'5', b'C' | b'c', tail @ ..] => {
                out.push(b'\\');
                tail
            }
            [byte, tail @ ..] => {
                out.push(*byte);
                tail
            }
            [] => return,
        };
    }
}

/// Decodes escapes of unreserved bytes (RFC 3986 §6.2.2.2) and writes `\` as `/`, as browsers do.
///
/// A digit that would complete a broken escape before it stays encoded: `%2%46` must not become `%2F`,
/// which the next reader would decode once more.
fn decode_unreserved(path: &[u8], out: &mut Vec<u8>) {
    let mut rest = path;
    loop {
        rest = match rest {
            [b'%', high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                let byte = hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0);
                let completes = hex(byte).is_some() && ends_in_broken_escape(out);
                if (byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) && !completes {
                    out.push(byte);
                } else {
                    out.extend_from_slice(&[b'%', *high, *low]);
                }
                tail
            }
            [b'\\', tail @ ..] => {
                out.push(b'/');
                tail
            }
            [byte, tail @ ..] => {
                out.push(*byte);
                tail
            }
            [] => return,
        };
    }
}

fn ends_in_broken_escape(out: &[u8]) -> bool {
    match out {
        [.., b'%'] => true,
        [.., b'%', digit] => hex(*digit).is_some(),
        _ => false,
    }
}

/// RFC 3986 §5.2.4; empty segments are kept, and `..` above the root stays at the root.
fn resolve_dot_segments(path: &[u8], out: &mut Vec<u8>) {
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                let parent = out.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                out.truncate(parent);
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        if is_last {
            out.push(b'/');
        }
    }
}

fn merge_slashes(path: &[u8], out: &mut Vec<u8>) {
    if path.len() > 1 && path.iter().all(|byte| *byte == b'/') {
        // Source: Envoy, by behaviour: a path of slashes begins with one and ends with one.
        return out.extend_from_slice(b"//");
    }
    for byte in path {
        if *byte != b'/' || out.last() != Some(&b'/') {
            out.push(*byte);
        }
    }
}
