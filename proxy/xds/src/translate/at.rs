//! Where a translation stands: the resource, the path inside it, and what was refused so far.

use super::Surroundings;
use super::files::FileReader;
use crate::ingredients::Ingredients;
use crate::runtime::Runtime;
use crate::source::Wanted;
use outrigger_api::envoy::config::core::v3::TypedExtensionConfig;
use outrigger_traffic::config::ConfigError;
use prost::{Message, Name};
use std::cell::RefCell;
use std::fmt::Write;
use std::time::Duration;

/// Most refusals kept for one resource.
const ERRORS_MAX: usize = 200;

/// One resource being translated.
pub(crate) struct Cx<'a> {
    resource: String,
    errors: RefCell<Vec<ConfigError>>,
    surroundings: &'a Surroundings<'a>,
}

impl<'a> Cx<'a> {
    pub(crate) fn new(resource: String, surroundings: &'a Surroundings<'a>) -> Self {
        Self { resource, errors: RefCell::default(), surroundings }
    }

    pub(crate) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }
}

/// A place inside the resource. Paths are linked to their parents and written out only when something is refused.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    cx: &'a Cx<'a>,
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Item(&'a str, usize),
    Key(&'a str, &'a str),
}

impl<'a> At<'a> {
    pub(crate) fn root(cx: &'a Cx<'a>) -> Self {
        Self { cx, parent: None, step: Step::Root }
    }

    /// A field of the message here.
    pub(crate) fn field<'b>(&'b self, name: &'b str) -> At<'b> {
        At { cx: self.cx, parent: Some(self), step: Step::Field(name) }
    }

    /// An item of a repeated field.
    pub(crate) fn item<'b>(&'b self, name: &'b str, index: usize) -> At<'b> {
        At { cx: self.cx, parent: Some(self), step: Step::Item(name, index) }
    }

    /// A value of a map field.
    pub(crate) fn key<'b>(&'b self, name: &'b str, key: &'b str) -> At<'b> {
        At { cx: self.cx, parent: Some(self), step: Step::Key(name, key) }
    }

    /// Reads files.
    pub(crate) fn files(&self) -> &'a dyn FileReader {
        self.cx.surroundings.files
    }

    /// Where the resource came from.
    pub(crate) fn came_from(&self) -> super::CameFrom {
        self.cx.surroundings.came_from
    }

    /// Changes how long what was noted so far is waited for.
    pub(crate) fn hurry(&self, which: impl Fn(&Wanted) -> bool, time: Duration) {
        let mut wanted = self.cx.surroundings.wanted.borrow_mut();
        wanted.iter_mut().filter(|one| which(one)).for_each(|one| one.fetch_timeout = Some(time));
    }

    /// Runtime values.
    pub(crate) fn runtime(&self) -> &'a Runtime {
        &self.cx.surroundings.ingredients.runtime
    }

    /// What else the resource takes its meaning from.
    pub(crate) fn ingredients(&self) -> &'a Ingredients {
        &self.cx.surroundings.ingredients
    }

    /// Notes that a resource is to be taken from somewhere.
    pub(crate) fn want(&self, wanted: Wanted) {
        self.cx.surroundings.wanted.borrow_mut().push(wanted);
    }

    /// Notes something that is accepted without effect.
    pub(crate) fn notice(&self, reason: impl Into<String>) {
        let notice = ConfigError::new(self.cx.resource.clone(), self.path(), reason);
        let mut notices = self.cx.surroundings.notices.borrow_mut();
        if notices.len() < ERRORS_MAX {
            notices.push(notice);
        }
    }

    /// Notes a reason against the field here.
    pub(crate) fn refuse(&self, reason: impl Into<String>) {
        let mut errors = self.cx.errors.borrow_mut();
        if errors.len() < ERRORS_MAX {
            errors.push(ConfigError::new(self.cx.resource.clone(), self.path(), reason));
        }
    }

    /// Notes that a required field is missing, and gives the value back.
    pub(crate) fn need<T>(&self, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.refuse("is required");
        }
        value
    }

    /// Notes when a text is empty.
    pub(crate) fn need_text(&self, text: &str) {
        if text.is_empty() {
            self.refuse("must not be empty");
        }
    }

    /// The message in an `Any` of a type that is expected here, or `None` for another type.
    pub(crate) fn unpack<M: Message + Name + Default>(&self, any: &prost_types::Any) -> Option<Unpacked<M>> {
        if any.type_url.rsplit('/').next() != Some(M::full_name().as_str()) {
            return None;
        }
        Some(match M::decode(any.value.as_slice()) {
            Ok(message) => Unpacked::Message(message),
            Err(error) => {
                self.refuse(format!("does not decode: {error}"));
                Unpacked::Broken
            }
        })
    }

    /// The message of the only type of extension that is expected here; anything else is noted.
    pub(crate) fn extension<M: Message + Name + Default>(&self, from: &TypedExtensionConfig) -> Option<M> {
        self.field("name").need_text(&from.name);
        let at = self.field("typed_config");
        let any = at.need(from.typed_config.as_ref())?;
        let found = at.unpack::<M>(any);
        if found.is_none() {
            at.refuse_type(any);
        }
        found?.message()
    }

    /// Notes that an `Any` holds something that has no place here.
    pub(crate) fn refuse_type(&self, any: &prost_types::Any) {
        if any.type_url.is_empty() {
            self.refuse("has no type");
        } else {
            let name = any.type_url.rsplit('/').next().unwrap_or_default();
            self.refuse(format!("the type `{name}` is not supported here"));
        }
    }

    fn path(&self) -> String {
        let mut steps = Vec::new();
        let mut here = Some(self);
        while let Some(at) = here {
            steps.push(at.step);
            here = at.parent;
        }
        let mut path = String::new();
        for step in steps.iter().rev() {
            if !path.is_empty() && !matches!(step, Step::Root) {
                path.push('.');
            }
            // Writing into a String cannot fail.
            let _ = match step {
                Step::Root => Ok(()),
                Step::Field(name) => path.write_str(name),
                Step::Item(name, index) => write!(path, "{name}[{index}]"),
                Step::Key(name, key) => write!(path, "{name}[{key}]"),
            };
        }
        path
    }
}

/// An `Any` of the expected type.
pub(crate) enum Unpacked<M> {
    /// Its message.
    Message(M),
    /// It does not decode; noted.
    Broken,
}

impl<M> Unpacked<M> {
    pub(crate) fn message(self) -> Option<M> {
        match self {
            Self::Message(message) => Some(message),
            Self::Broken => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Surroundings;
    use super::{At, Cx};

    #[test]
    fn paths_are_written_as_envoy_writes_them() {
        let surroundings = Surroundings::default();
        let cx = Cx::new("listener/a".into(), &surroundings);
        let root = At::root(&cx);
        let chain = root.item("filter_chains", 1);
        let options = chain.key("typed_per_filter_config", "envoy.rbac");
        options.field("rules").refuse("no");
        root.refuse("whole");
        let errors: Vec<String> = cx.into_errors().iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "listener/a: filter_chains[1].typed_per_filter_config[envoy.rbac].rules: no",
                "listener/a: whole"
            ]
        );
    }
}
