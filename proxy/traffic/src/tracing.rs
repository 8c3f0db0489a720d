//! What spans say beside what every span says.

use crate::config::{self, Fraction};
use crate::template::Template;
use std::sync::Arc;

/// A compiled [`config::CustomTag`].
#[derive(Clone, Debug)]
pub struct SpanTag {
    /// Name of the attribute.
    pub name: Arc<str>,
    /// Its value.
    pub value: Template,
    /// Its value where that gives none; empty: there is no attribute then.
    pub default_value: Box<str>,
}

/// A compiled [`config::RouteTracing`].
#[derive(Debug)]
pub struct RouteTracing {
    /// Share of requests with a forced trace.
    pub client_sampling: Option<Fraction>,
    /// Share of other requests.
    pub random_sampling: Option<Fraction>,
    /// Limit on the whole.
    pub overall_sampling: Option<Fraction>,
    /// Further attributes.
    pub tags: Box<[SpanTag]>,
    /// Name of a request's span.
    pub operation: Option<Template>,
    /// Name of an attempt's span.
    pub upstream_operation: Option<Template>,
}

/// Makes attributes ready. Field and reason of what is wrong go to `refuse`.
pub fn tags(from: &[config::CustomTag], refuse: &mut dyn FnMut(String, String)) -> Box<[SpanTag]> {
    let mut out: Vec<SpanTag> = Vec::with_capacity(from.len());
    for (i, tag) in from.iter().enumerate() {
        if tag.name.is_empty() {
            refuse(format!("custom_tags[{i}].tag"), "must not be empty".into());
        }
        match Template::parse(&tag.value) {
            Ok(value) => out.push(SpanTag {
                name: tag.name.as_str().into(),
                value,
                default_value: tag.default_value.as_str().into(),
            }),
            Err(reason) => refuse(format!("custom_tags[{i}]"), reason),
        }
    }
    out.into()
}

/// Makes the name of a span ready; `None` where there is none.
pub fn operation(text: &str, field: &str, refuse: &mut dyn FnMut(String, String)) -> Option<Template> {
    if text.is_empty() {
        return None;
    }
    Template::parse(text).map_err(|reason| refuse(field.to_owned(), reason)).ok()
}

impl RouteTracing {
    /// Makes the settings of a route ready. Field and reason of what is wrong go to `refuse`.
    pub fn new(from: &config::RouteTracing, refuse: &mut dyn FnMut(String, String)) -> Self {
        Self {
            client_sampling: from.client_sampling,
            random_sampling: from.random_sampling,
            overall_sampling: from.overall_sampling,
            tags: tags(&from.tags, refuse),
            operation: operation(&from.operation, "operation", refuse),
            upstream_operation: operation(&from.upstream_operation, "upstream_operation", refuse),
        }
    }
}
