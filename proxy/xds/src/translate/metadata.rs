//! Conditions on metadata, and values of it.

use super::At;
use super::value::string_match;
use outrigger_api::envoy::r#type::matcher::v3 as proto;
use outrigger_traffic::config::{MetadataMatch, ValueMatch};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde_json::{Map, Number, Value as Json};

/// Deepest nesting of conditions and values.
const DEPTH_MAX: usize = 32;

/// A condition on the value at a place.
pub(super) fn metadata_match(message: &proto::MetadataMatcher, at: &At<'_>) -> Option<MetadataMatch> {
    use proto::metadata_matcher::path_segment::Segment;
    at.field("filter").need_text(&message.filter);
    if message.path.is_empty() {
        at.field("path").refuse("must not be empty");
    }
    let path = message.path.iter().enumerate().filter_map(|(i, segment)| {
        let Segment::Key(key) = at.item("path", i).need(segment.segment.as_ref())?;
        Some(key.clone())
    });
    let path = path.collect();
    let at_value = at.field("value");
    let value = value_match(at_value.need(message.value.as_ref())?, 0, &at_value)?;
    Some(MetadataMatch { filter: message.filter.clone(), path, value, invert: message.invert })
}

fn value_match(message: &proto::ValueMatcher, depth: usize, at: &At<'_>) -> Option<ValueMatch> {
    use proto::value_matcher::MatchPattern as P;
    if depth > DEPTH_MAX {
        at.refuse(format!("nested deeper than {DEPTH_MAX}"));
        return None;
    }
    Some(match at.need(message.match_pattern.as_ref())? {
        P::NullMatch(_) => ValueMatch::Null,
        P::DoubleMatch(number) => {
            let at = at.field("double_match");
            match at.need(number.match_pattern.as_ref())? {
                proto::double_matcher::MatchPattern::Exact(number) => ValueMatch::Number(*number),
                proto::double_matcher::MatchPattern::Range(range) => {
                    ValueMatch::NumberRange(range.start, range.end)
                }
            }
        }
        P::StringMatch(text) => ValueMatch::Text(string_match(text, &at.field("string_match"))?),
        P::BoolMatch(truth) => ValueMatch::Bool(*truth),
        P::PresentMatch(present) => ValueMatch::Present(*present),
        P::ListMatch(list) => {
            let at = at.field("list_match");
            let proto::list_matcher::MatchPattern::OneOf(one) = at.need(list.match_pattern.as_ref())?;
            ValueMatch::OneOf(Box::new(value_match(one, depth + 1, &at.field("one_of"))?))
        }
        P::OrMatch(several) => {
            let at = at.field("or_match");
            if several.value_matchers.len() < 2 {
                at.field("value_matchers").refuse("at least two are required");
            }
            let each = several.value_matchers.iter().enumerate();
            ValueMatch::Any(
                each.map(|(i, one)| value_match(one, depth + 1, &at.item("value_matchers", i)))
                    .collect::<Option<_>>()?,
            )
        }
    })
}

/// The values of a structure; `None`: a number that JSON cannot express.
pub(super) fn map(from: &Struct) -> Option<Map<String, Json>> {
    from.fields.iter().map(|(key, value)| Some((key.clone(), json(value)?))).collect()
}

fn json(from: &Value) -> Option<Json> {
    Some(match &from.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(v)) => Json::Bool(*v),
        // A whole number keeps its shape: 1, not 1.0.
        Some(Kind::NumberValue(v)) if v.fract() == 0.0 && v.abs() < 9.0e15 => {
            Json::Number((*v as i64).into())
        }
        Some(Kind::NumberValue(v)) => Json::Number(Number::from_f64(*v)?),
        Some(Kind::StringValue(v)) => Json::String(v.clone()),
        Some(Kind::ListValue(v)) => Json::Array(v.values.iter().map(json).collect::<Option<_>>()?),
        Some(Kind::StructValue(v)) => Json::Object(map(v)?),
    })
}
