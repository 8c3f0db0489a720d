//! Edits of headers, merged over share, route, virtual host and table at compile time.
//!
//! Within a level, removals come before what replaces fields, and that before what adds some. Levels follow each other in Envoy's order: share, route, virtual
//! host, table (the last one wins), or the other way round with `most_specific_header_mutations_wins`.

use crate::config::{HeaderAppend, HeaderEdit, HeaderEdits, HeaderMutation};
use crate::template::Template;
use crate::text::TextMatcher;
use std::sync::Arc;

/// What to do to the headers of a message, in order.
#[derive(Clone, Debug, Default)]
pub struct Edits(Option<Arc<[Edit]>>);

/// One step.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Remove all fields of this lower-case name.
    Remove(Arc<str>),
    /// Remove all fields whose names match.
    RemoveMatching(Arc<TextMatcher>),
    /// Add or replace a field.
    Set {
        /// Lower case.
        name: Arc<str>,
        /// Its value. [`Template::literal`] gives it without rendering where it is plain text.
        value: Arc<Template>,
        /// What happens to a field that is there already.
        append: HeaderAppend,
        /// Set it even when the value came out empty.
        keep_empty: bool,
    },
    /// Several [`Edit::Set`] of one level: all see the message as it is before the first of them, those that replace a
    /// field are made first, then those that add one.
    Together(Arc<[Edit]>),
}

impl Edits {
    /// The steps.
    pub fn steps(&self) -> &[Edit] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Edits of one level, as those of a route; `refuse` is told the path and reason of everything wrong.
    pub fn of_level(field: &str, from: &[HeaderEdit], refuse: &mut dyn FnMut(String, String)) -> Self {
        one_side("", from, &[], &mut |at, reason| {
            let at = at.trim_start_matches("_to_add");
            refuse(format!("{field}{at}"), reason);
        })
    }

    /// The edits of a filter, in order; `refuse` is told the path and reason of everything wrong.
    pub(crate) fn of_mutations(
        field: &str,
        from: &[HeaderMutation],
        refuse: &mut dyn FnMut(String, String),
    ) -> Self {
        let mut steps = Vec::with_capacity(from.len());
        for (i, mutation) in from.iter().enumerate() {
            let step = match mutation {
                HeaderMutation::Remove(name) => editable(name).map(Edit::Remove),
                HeaderMutation::Set(edit) => set(edit),
                HeaderMutation::RemoveMatching(text) => {
                    TextMatcher::new(text).map(|matcher| Edit::RemoveMatching(Arc::new(matcher)))
                }
            };
            match step {
                Ok(step) => steps.push(step),
                Err(reason) => refuse(format!("{field}[{i}]"), reason),
            }
        }
        if steps.is_empty() { Self(None) } else { Self(Some(steps.into())) }
    }

    /// One after the other; shares memory where one of them is empty.
    pub(crate) fn then(&self, next: &Self) -> Self {
        match (&self.0, &next.0) {
            (None, _) => next.clone(),
            (_, None) => self.clone(),
            (Some(a), Some(b)) => Self(Some(a.iter().chain(b.iter()).cloned().collect())),
        }
    }
}

/// Request and response edits of one level.
#[derive(Clone, Debug, Default)]
pub(crate) struct Level {
    pub(crate) request: Edits,
    pub(crate) response: Edits,
}

impl Level {
    /// Makes a level ready; `refuse` is told the path and reason of everything wrong.
    pub(crate) fn new(from: &HeaderEdits, refuse: &mut dyn FnMut(&str, String)) -> Self {
        Self {
            request: one_side("request_headers", &from.request_add, &from.request_remove, refuse),
            response: one_side("response_headers", &from.response_add, &from.response_remove, refuse),
        }
    }

    /// This level and the one above it.
    pub(crate) fn under(&self, above: &Self, most_specific_wins: bool) -> Self {
        let (first, last) = if most_specific_wins { (above, self) } else { (self, above) };
        Self { request: first.request.then(&last.request), response: first.response.then(&last.response) }
    }
}

fn one_side(
    side: &str,
    add: &[HeaderEdit],
    remove: &[String],
    refuse: &mut dyn FnMut(&str, String),
) -> Edits {
    let mut steps = Vec::with_capacity(add.len() + remove.len());
    for (i, name) in remove.iter().enumerate() {
        match editable(name) {
            Ok(name) => steps.push(Edit::Remove(name)),
            Err(reason) => refuse(&format!("{side}_to_remove[{i}]"), reason),
        }
    }
    let mut sets = Vec::with_capacity(add.len());
    for (i, edit) in add.iter().enumerate() {
        let name = editable(&edit.name);
        let value = Template::parse(&edit.value);
        match (name, value) {
            (Ok(name), Ok(value)) => {
                let append = edit.append;
                sets.push(Edit::Set {
                    name,
                    value: Arc::new(value),
                    append,
                    keep_empty: edit.keep_empty_value,
                });
            }
            (name, value) => {
                for reason in [name.err(), value.err()].into_iter().flatten() {
                    refuse(&format!("{side}_to_add[{i}].header"), reason);
                }
            }
        }
    }
    if sets.len() > 1 {
        steps.push(Edit::Together(sets.into()));
    } else {
        steps.append(&mut sets);
    }
    if steps.is_empty() { Edits(None) } else { Edits(Some(steps.into())) }
}

fn set(edit: &HeaderEdit) -> Result<Edit, String> {
    Ok(Edit::Set {
        name: editable(&edit.name)?,
        value: Arc::new(Template::parse(&edit.value)?),
        append: edit.append,
        keep_empty: edit.keep_empty_value,
    })
}

/// A header that may be edited: a token (RFC 9110 §5.6.2), not a pseudo-header, not `host`.
fn editable(name: &str) -> Result<Arc<str>, String> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(format!("`{name}` cannot be edited; use a rewrite"));
    }
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("`{name}` is not a header name"));
    }
    Ok(name.to_ascii_lowercase().into())
}
