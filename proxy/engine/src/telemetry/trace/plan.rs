//! What the spans of a connection manager say: names, attributes that were asked for, lengths.

use super::Attributes;
use crate::telemetry::Telemetry;
use crate::telemetry::facts::RequestView;
use crate::telemetry::record::RequestRecord;
use outrigger_traffic::config::SpanOptions;
use outrigger_traffic::template::{Command, Template};
use outrigger_traffic::tracing::{SpanTag, operation, tags};

/// Compiled [`SpanOptions`].
#[derive(Debug)]
pub struct SpanPlan {
    tags: Box<[SpanTag]>,
    path_bytes_max: usize,
    verbose: bool,
    attempts: bool,
    operation: Option<Template>,
    upstream_operation: Option<Template>,
}

impl SpanPlan {
    /// Makes options ready, which were found to be good before.
    pub fn new(from: &SpanOptions) -> Self {
        let mut refuse = |_: String, _: String| {};
        Self {
            tags: tags(&from.tags, &mut refuse),
            path_bytes_max: usize::try_from(from.path_bytes_max).unwrap_or(usize::MAX),
            verbose: from.verbose,
            attempts: from.attempts,
            operation: operation(&from.operation, "", &mut refuse),
            upstream_operation: operation(&from.upstream_operation, "", &mut refuse),
        }
    }

    /// Whether every attempt has a span of its own.
    pub const fn has_attempts(&self) -> bool {
        self.attempts
    }
}

/// The plan of a record's chain together with its route's word.
pub(super) struct Wishes<'a>(&'a RequestRecord<'a>, &'a Telemetry);

impl<'a> Wishes<'a> {
    pub(super) const fn new(record: &'a RequestRecord<'a>, telemetry: &'a Telemetry) -> Self {
        Self(record, telemetry)
    }

    fn plan(&self) -> Option<&SpanPlan> {
        self.0.chain.spans.as_deref()
    }

    /// Whether phases are events.
    pub(super) fn is_verbose(&self) -> bool {
        self.plan().is_some_and(|plan| plan.verbose)
    }

    /// A path as long as it may be.
    pub(super) fn cut<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        let most = self.plan().map_or(usize::MAX, |plan| plan.path_bytes_max);
        path.get(..most).unwrap_or(path)
    }

    /// The name of a request's span, where one is wished for: by the route, its decorator, or the connection manager.
    pub(super) fn operation(&self) -> Option<String> {
        let route = self.0.rule.and_then(|rule| rule.tracing.as_ref());
        if let Some(name) = self.written(route.and_then(|route| route.operation.as_ref())) {
            return Some(name);
        }
        let decorator = self.0.rule.and_then(|rule| rule.decorator.as_deref());
        decorator
            .map(str::to_owned)
            .or_else(|| self.written(self.plan().and_then(|plan| plan.operation.as_ref())))
    }

    /// The name of an attempt's span, where one is wished for.
    pub(super) fn upstream_operation(&self) -> Option<String> {
        let route = self.0.rule.and_then(|rule| rule.tracing.as_ref());
        let of_route = self.written(route.and_then(|route| route.upstream_operation.as_ref()));
        of_route.or_else(|| self.written(self.plan().and_then(|plan| plan.upstream_operation.as_ref())))
    }

    /// Adds the attributes that were asked for.
    pub(super) fn tag(&self, attributes: &mut Attributes) {
        let route = self.0.rule.and_then(|rule| rule.tracing.as_ref()).map_or(&[][..], |route| &route.tags);
        let chain = self.plan().map_or(&[][..], |plan| &plan.tags);
        let of_chain = chain.iter().filter(|tag| route.iter().all(|other| other.name != tag.name));
        for tag in of_chain.chain(route) {
            let found = match tag.value.only_command() {
                // A variable that is not set has no value here, unlike in a text.
                Some(Command::Environment(variable)) => std::env::var(&**variable).ok(),
                _ => self.written(Some(&tag.value)),
            };
            let value = found.unwrap_or_else(|| tag.default_value.to_string());
            if !value.is_empty() {
                attributes.text(&tag.name, &value);
            }
        }
    }

    fn written(&self, template: Option<&Template>) -> Option<String> {
        let total = self.0.timeline.total();
        let view = RequestView { record: self.0, total, telemetry: self.1, is_logged: false };
        let mut out = Vec::new();
        template?.render_with(&view, b"", &mut out);
        (!out.is_empty()).then(|| String::from_utf8_lossy(&out).into_owned())
    }
}

/// Whether attempts of a connection manager have spans of their own.
pub(crate) fn spans_of_attempts(record: &RequestRecord<'_>) -> bool {
    record.chain.spans.as_ref().is_none_or(|plan| plan.has_attempts())
}
