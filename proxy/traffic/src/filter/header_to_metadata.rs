//! Header fields that become metadata. Source: Envoy: header-to-metadata filter.

use crate::config::{self, MetadataKind, MetadataRule, MetadataSource, MetadataTarget};
use crate::text::{search_regex, substitution};
use crate::view::FieldView;
use regex::bytes::Regex;
use serde_json::{Number, Value};
use std::borrow::Cow;

/// A longer value is left out. Source: Envoy.
const VALUE_MAX: usize = 8 * 1024;

/// Compiled [`config::HeaderToMetadata`].
#[derive(Debug)]
pub struct HeaderToMetadata {
    /// For requests.
    pub request: Box<[Rule]>,
    /// For responses.
    pub response: Box<[Rule]>,
}

/// A compiled [`MetadataRule`].
#[derive(Debug)]
pub struct Rule {
    /// As it was asked for.
    pub config: MetadataRule,
    rewrite: Option<(Regex, Box<[u8]>)>,
}

/// What a rule says of a message.
#[derive(Debug, PartialEq)]
pub struct Finding<'r> {
    /// Where it goes.
    pub target: &'r MetadataTarget,
    /// The text that becomes a value.
    pub text: Vec<u8>,
}

impl HeaderToMetadata {
    /// Makes it ready.
    pub(crate) fn new(from: &config::HeaderToMetadata, refuse: &mut dyn FnMut(String, String)) -> Self {
        let mut side = |name: &str, rules: &[MetadataRule]| -> Box<[Rule]> {
            let rules = rules.iter().enumerate();
            rules
                .map(|(i, rule)| {
                    Rule::new(rule, &mut |field, why| refuse(format!("{name}[{i}]{field}"), why))
                })
                .collect()
        };
        Self {
            request: side("request_rules", &from.request),
            response: side("response_rules", &from.response),
        }
    }
}

impl Rule {
    fn new(from: &MetadataRule, refuse: &mut dyn FnMut(&str, String)) -> Self {
        if from.present.is_none() && from.missing.is_none() {
            refuse("", "one of on_header_present and on_header_missing is required".into());
        }
        if from.missing.as_ref().is_some_and(|missing| missing.value.is_empty()) {
            refuse(
                ".on_header_missing.value",
                "must not be empty: there is no header to take it from".into(),
            );
        }
        if from.remove && matches!(from.source, MetadataSource::Cookie(_)) {
            refuse(".remove", "cookies cannot be removed".into());
        }
        let rewrite = from.present.as_ref().and_then(|present| present.rewrite.as_ref());
        let compiled = |(pattern, with): &(String, String)| -> Result<(Regex, Box<[u8]>), String> {
            let regex = search_regex(pattern)?;
            let with = substitution(with, &regex)?;
            Ok((regex, with))
        };
        let rewrite = rewrite.and_then(|rewrite| match compiled(rewrite) {
            Ok(rewrite) => Some(rewrite),
            Err(reason) => {
                refuse(".on_header_present.regex_value_rewrite", reason);
                None
            }
        });
        Self { config: from.clone(), rewrite }
    }

    /// What it says of a message with these fields.
    pub fn find<F: FieldView + ?Sized>(&self, fields: &F) -> Option<Finding<'_>> {
        let value = match &self.config.source {
            MetadataSource::Header(name) => {
                let mut all: Option<Vec<u8>> = None;
                fields.for_each_header(name.as_bytes(), &mut |value| match &mut all {
                    Some(all) => {
                        all.push(b',');
                        all.extend_from_slice(value);
                    }
                    None => all = Some(value.to_vec()),
                });
                all
            }
            MetadataSource::Cookie(name) => cookie(fields, name.as_bytes()),
        };
        let (target, text) = match value {
            Some(value) => {
                let target = self.config.present.as_ref()?;
                let text = match &self.rewrite {
                    _ if !target.value.is_empty() => target.value.clone().into_bytes(),
                    Some((pattern, with)) => pattern.replace_all(&value, &**with).into_owned(),
                    None => value,
                };
                (target, text)
            }
            None => {
                let target = self.config.missing.as_ref()?;
                (target, target.value.clone().into_bytes())
            }
        };
        (!text.is_empty() && text.len() < VALUE_MAX).then_some(Finding { target, text })
    }
}

/// The value of a cookie; quotes around it do not belong to it.
fn cookie<F: FieldView + ?Sized>(fields: &F, name: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    fields.for_each_header(b"cookie", &mut |line| {
        let mut pairs = line.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let value = pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="));
        found = found.take().or_else(|| value.map(<[u8]>::to_vec));
    });
    let value: Vec<u8> = found?;
    let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(&value);
    (!bare.is_empty()).then(|| bare.to_vec())
}

impl Finding<'_> {
    /// The value of a text or number; `decoded` is the text after base64. Nothing for a number that is none, and for
    /// [`MetadataKind::Message`], which is for those who read such messages.
    pub fn value(&self, decoded: &[u8]) -> Option<Value> {
        let text = String::from_utf8_lossy(decoded);
        match self.target.kind {
            MetadataKind::Text => Some(Value::String(Cow::into_owned(text))),
            MetadataKind::Number => {
                let number: f64 = text.trim().parse().ok()?;
                if number.fract() == 0.0 && number.abs() < 9.0e15 {
                    return Some(Value::Number((number as i64).into()));
                }
                Number::from_f64(number).map(Value::Number)
            }
            MetadataKind::Message => None,
        }
    }
}
