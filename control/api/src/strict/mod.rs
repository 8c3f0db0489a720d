//! The one way from outside to messages: nothing that is not implemented gets in.
//!
//! Both forms end in the same place. Binary resources are walked as they lie (`binary`, including inside every `Any`),
//! beside tables made by the build (`schema`); YAML and JSON are read into a tree that knows its lines (`tree`) and turned
//! into messages with the descriptors in hand (`text`). Either way **all** problems are returned, each with its path;
//! fields of the short list in [`crate::ignored`] become notices.
//!
//! Official fields that we lack are told from typing errors by [`crate::official`].

mod binary;
mod scalar;
mod schema;
mod text;
mod tree;

pub use tree::Format;

use prost::{Message, Name};
use prost_reflect::MessageDescriptor;
use std::fmt;

/// Deepest nesting of messages, `Any` included. The deepest accepted resource of the official API needs about 30.
const DEPTH_MAX: usize = 64;
/// Most problems collected for one resource; past this a document is not worth reading further.
const PROBLEMS_MAX: usize = 200;

/// One reason why a document or resource is refused, or (as a notice) what of it has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, as in `listeners[0].filter_chains[1].filters[0].typed_config.codec_type`; empty: the whole.
    pub path: String,
    /// Line in the YAML text, from 1; `None` for binary and JSON.
    pub line: Option<u64>,
    /// What is wrong, in lower case without a trailing dot.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

/// A message of which every field is implemented, or is on the list of those without effect.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Full name of its type.
    name: String,
    /// Its encoding.
    bytes: Vec<u8>,
    /// Fields that were given and have no effect.
    pub notices: Vec<Problem>,
    /// Lines of a YAML text by path, so that later findings can name theirs.
    pub lines: Lines,
}

impl Checked {
    /// The message as its generated type.
    ///
    /// *Errors*: the type is not the one that was decoded.
    pub fn into_typed<M: Message + Name + Default>(self) -> Result<M, Problem> {
        if self.name != M::full_name() {
            let reason = format!("expected {}, found {}", M::full_name(), self.name);
            return Err(Problem { path: String::new(), line: None, reason });
        }
        decode(&self.bytes)
    }
}

/// Lines of a YAML text by the path of the field.
#[derive(Clone, Debug, Default)]
pub struct Lines(std::collections::BTreeMap<String, u64>);

impl Lines {
    /// The line of the field at `path`, or of the nearest field around it.
    pub fn find(&self, path: &str) -> Option<u64> {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// Checks a binary resource.
///
/// *Errors*: an unknown type URL, bytes that do not decode, and every field or enum value that is not implemented.
pub fn from_binary(type_url: &str, bytes: &[u8]) -> Result<Checked, Vec<Problem>> {
    let notices = check_binary(type_url, bytes)?;
    let name = type_url.rsplit('/').next().unwrap_or(type_url).to_owned();
    Ok(Checked { name, bytes: bytes.to_vec(), notices, lines: Lines::default() })
}

/// As [`from_binary`], for bytes that the caller decodes himself; gives the fields that were given and have no effect.
///
/// *Errors*: as [`from_binary`].
///
/// *Cost*: one pass, without allocation where nothing is wrong; about a quarter of decoding.
pub fn check_binary(type_url: &str, bytes: &[u8]) -> Result<Vec<Problem>, Vec<Problem>> {
    let mut findings = Findings::default();
    let known = binary::walk(type_url, bytes, &mut findings);
    if known && findings.problems.is_empty() { Ok(findings.notices) } else { Err(findings.problems) }
}

/// A message of bytes that were checked.
///
/// *Errors*: none that the check would not have found before.
pub fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Problem> {
    M::decode(bytes).map_err(|e| Problem {
        path: String::new(),
        line: None,
        reason: format!("cannot be decoded: {e}"),
    })
}

/// Checks a YAML or JSON text that holds one message of the type `M`.
///
/// *Errors*: the text does not parse (with its line), and every key, value or type that is not understood.
pub fn from_text<M: Name>(text: &str, format: Format) -> Result<Checked, Vec<Problem>> {
    match read_text::<M>(text, format) {
        (Some(checked), problems) if problems.is_empty() => Ok(checked),
        (_, problems) => Err(problems),
    }
}

/// As [`from_text`], but gives what could be read beside the problems, so that a validation can go on and find the rest.
/// A message that comes with problems must not be used for anything else.
pub fn read_text<M: Name>(text: &str, format: Format) -> (Option<Checked>, Vec<Problem>) {
    let mut findings = Findings::default();
    let Some(descriptor) = crate::pool().get_message_by_name(&M::full_name()) else {
        findings.refuse("", format!("the message {} is not known", M::full_name()));
        return (None, findings.problems);
    };
    match tree::parse(text, format) {
        Err(problem) => (None, vec![problem]),
        Ok(tree) => {
            let message = text::read(&tree, &descriptor, &mut findings);
            let Findings { problems, notices, lines, .. } = findings;
            (Some(Checked { name: M::full_name(), bytes: message.encode_to_vec(), notices, lines }), problems)
        }
    }
}

/// What a walk has found so far.
#[derive(Default)]
struct Findings {
    problems: Vec<Problem>,
    notices: Vec<Problem>,
    lines: Lines,
    line: Option<u64>,
}

impl Findings {
    fn refuse(&mut self, path: &str, reason: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { path: path.to_owned(), line: self.line, reason: reason.into() });
        }
    }

    fn notice(&mut self, path: &str, reason: impl Into<String>) {
        if self.notices.len() < PROBLEMS_MAX {
            self.notices.push(Problem { path: path.to_owned(), line: self.line, reason: reason.into() });
        }
    }

    /// A field of the official API that we do not have: fine when it has no effect anyway, else refused.
    fn official_field(&mut self, message: &str, name: &str, number: u32, path: &str) {
        match crate::ignored::reason(message, name) {
            Some(reason) => self.notice(path, format!("has no effect: {reason}")),
            None => self.refuse(path, format!("not supported by Outrigger ({message}.{name}, #{number})")),
        }
    }

    /// An `Any` of a type that we do not have.
    fn unknown_type(&mut self, name: &str, path: &str) {
        if crate::official::is_message(name) {
            self.refuse(path, format!("the type `{name}` is not supported by Outrigger"));
        } else {
            self.refuse(path, format!("the type `{name}` is not known"));
        }
    }
}

/// The message that a type URL names, whatever its host part says.
fn resolve(type_url: &str) -> Result<MessageDescriptor, &str> {
    let name = type_url.rsplit('/').next().unwrap_or(type_url);
    crate::pool().get_message_by_name(name).ok_or(name)
}

/// `path` with a field behind it.
fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Whether an `Any` at this path may have no type: `FilterConfig.config` then means that the filter runs as it is.
fn may_be_empty(path: &str) -> bool {
    path.ends_with("].config") && path.contains("typed_per_filter_config[")
}

#[cfg(test)]
mod oracle;

#[cfg(test)]
mod tests;
