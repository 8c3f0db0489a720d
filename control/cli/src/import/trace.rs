//! Reading with a memory: which fields of the input were carried over, and what became of the others.
//!
//! A [`Cursor`] is a value and its path. Reading a leaf through it puts its path down as carried over; a leaf that is
//! never read is reported. So a field nobody thought of can be missing in the result, but not in the report.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// What became of a field that was not carried over as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Its effect is gone.
    Lost,
    /// Its effect is there in another form; the reason says in which.
    Changed,
    /// Bookkeeping of AWS without an effect on traffic.
    Record,
}

impl Level {
    /// In reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Changed => "changed",
            Self::Record => "record",
        }
    }
}

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Source and path, as in `mesh.json: $.route.spec.priority`.
    pub path: String,
    /// How bad.
    pub level: Level,
    /// Why, for people.
    pub reason: String,
}

impl Finding {
    /// For programs.
    pub fn value(&self) -> Value {
        json!({"path": self.path, "level": self.level.word(), "reason": self.reason})
    }
}

const UNKNOWN: &str = "this field has no counterpart, or its value is not understood";

/// What was read, and what is said about paths.
#[derive(Default)]
pub struct Trace {
    used: RefCell<BTreeSet<String>>,
    /// Of a path and all below it, whether read or not.
    verdicts: RefCell<BTreeMap<String, (Level, String)>>,
    /// Of a path alone, in addition.
    notes: RefCell<BTreeMap<String, String>>,
}

impl Trace {
    /// The root of an input. `name` tells inputs apart, e.g. the file's name.
    pub fn root<'a>(&'a self, name: &str, value: &'a Value) -> Cursor<'a> {
        Cursor { value, path: format!("{name}: $"), trace: self }
    }

    /// What is to be reported of an input, in its order. Every leaf is either in here or was carried over.
    pub fn findings(&self, name: &str, value: &Value) -> Vec<Finding> {
        let mut found = Vec::new();
        self.walk(&format!("{name}: $"), value, None, &mut found);
        found
    }

    fn walk(&self, path: &str, value: &Value, above: Option<&(Level, String)>, found: &mut Vec<Finding>) {
        let own = self.verdicts.borrow().get(path).cloned();
        let verdict = own.as_ref().or(above);
        if let Some(note) = self.notes.borrow().get(path) {
            found.push(Finding { path: path.to_owned(), level: Level::Changed, reason: note.clone() });
        }
        match value {
            Value::Object(map) if !map.is_empty() => {
                map.iter().for_each(|(key, child)| self.walk(&key_path(path, key), child, verdict, found));
            }
            Value::Array(list) if !list.is_empty() => {
                let children = list.iter().enumerate();
                children.for_each(|(i, child)| self.walk(&format!("{path}[{i}]"), child, verdict, found));
            }
            _ => {
                let silent = verdict.is_none() && self.used.borrow().contains(path);
                if !silent {
                    let (level, reason) = verdict.cloned().unwrap_or((Level::Lost, UNKNOWN.to_owned()));
                    found.push(Finding { path: path.to_owned(), level, reason });
                }
            }
        }
    }

    /// What counts as carried over.
    #[cfg(test)]
    pub fn used(&self) -> BTreeSet<String> {
        self.used.borrow().clone()
    }

    /// Says what became of a path and everything below it. The first word stands.
    pub fn verdict(&self, path: &str, level: Level, reason: impl Into<String>) {
        self.verdicts.borrow_mut().entry(path.to_owned()).or_insert_with(|| (level, reason.into()));
    }
}

fn key_path(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain { format!("{path}.{key}") } else { format!("{path}[{key:?}]") }
}

/// A value of the input and where it stands.
#[derive(Clone)]
pub struct Cursor<'a> {
    value: &'a Value,
    path: String,
    trace: &'a Trace,
}

impl<'a> Cursor<'a> {
    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// As it is, without counting as read.
    pub fn peek(&self) -> &'a Value {
        self.value
    }

    /// Counts it as carried over.
    pub fn mark(&self) {
        self.trace.used.borrow_mut().insert(self.path.clone());
    }

    /// A field that is there and not null.
    pub fn get(&self, key: &str) -> Option<Self> {
        if self.value.as_object().is_some_and(serde_json::Map::is_empty) {
            // Nothing is in it that could get lost.
            self.mark();
        }
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Self { value, path: key_path(&self.path, key), trace: self.trace })
    }

    /// A field of a field.
    pub fn dig(&self, keys: &[&str]) -> Option<Self> {
        keys.iter().try_fold(self.clone(), |at, key| at.get(key))
    }

    /// The elements of a list; none of anything else.
    pub fn list(&self) -> Vec<Self> {
        let Value::Array(list) = self.value else { return Vec::new() };
        if list.is_empty() {
            self.mark();
        }
        let child = |(i, value)| Self { value, path: format!("{}[{i}]", self.path), trace: self.trace };
        list.iter().enumerate().map(child).collect()
    }

    /// The elements of a list field.
    pub fn items(&self, key: &str) -> Vec<Self> {
        self.get(key).map(|at| at.list()).unwrap_or_default()
    }

    /// The fields of an object.
    pub fn fields(&self) -> Vec<(&'a str, Self)> {
        let Value::Object(map) = self.value else { return Vec::new() };
        let child = |(key, value): (&'a String, &'a Value)| {
            (key.as_str(), Self { value, path: key_path(&self.path, key), trace: self.trace })
        };
        map.iter().map(child).collect()
    }

    /// A text that is not empty.
    pub fn text(&self) -> Option<&'a str> {
        let text = self.value.as_str().filter(|text| !text.is_empty())?;
        self.mark();
        Some(text)
    }

    /// A text field that is not empty.
    pub fn text_of(&self, key: &str) -> Option<&'a str> {
        self.get(key)?.text()
    }

    /// A whole number within limits.
    pub fn number(&self, min: u64, max: u64) -> Option<u64> {
        let number = self.value.as_u64().filter(|number| (min..=max).contains(number))?;
        self.mark();
        Some(number)
    }

    /// A number field within limits.
    pub fn number_of(&self, key: &str, min: u64, max: u64) -> Option<u64> {
        self.get(key)?.number(min, max)
    }

    /// A port.
    pub fn port_of(&self, key: &str) -> Option<u16> {
        self.number_of(key, 1, 65_535).and_then(|port| u16::try_from(port).ok())
    }

    /// A yes or no.
    pub fn flag_of(&self, key: &str) -> Option<bool> {
        let at = self.get(key)?;
        let flag = at.value.as_bool()?;
        at.mark();
        Some(flag)
    }

    /// One of some words.
    pub fn word_of<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        self.get(key)?.word(words)
    }

    /// One of some words.
    pub fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.value.as_str()?;
        let (_, found) = words.iter().find(|(word, _)| *word == text)?;
        self.mark();
        Some(*found)
    }

    /// It and everything below it has no effect in what was made.
    pub fn lost(&self, reason: impl Into<String>) {
        self.trace.verdict(&self.path, Level::Lost, reason);
    }

    /// It and everything below it is done in another way.
    pub fn changed(&self, reason: impl Into<String>) {
        self.trace.verdict(&self.path, Level::Changed, reason);
    }

    /// It and everything below it is bookkeeping.
    pub fn record(&self, reason: impl Into<String>) {
        self.trace.verdict(&self.path, Level::Record, reason);
    }

    /// It was carried over, but the operator must know something.
    pub fn note(&self, text: impl Into<String>) {
        let mut notes = self.trace.notes.borrow_mut();
        let text = text.into();
        notes
            .entry(self.path.clone())
            .and_modify(|all| {
                if !all.contains(&text) {
                    *all = format!("{all}; {text}");
                }
            })
            .or_insert(text);
    }
}
