//! Conditions on metadata.

use outrigger_api::envoy::r#type::matcher::v3 as proto;
use outrigger_api::envoy::r#type::v3::DoubleRange;
use outrigger_traffic::config::{MetadataMatch, ValueMatch};

use super::value::string_match;

pub(super) fn metadata_match(value: &MetadataMatch) -> proto::MetadataMatcher {
    use proto::metadata_matcher::{PathSegment, path_segment::Segment};
    proto::MetadataMatcher {
        filter: value.filter.clone(),
        path: value.path.iter().map(|key| PathSegment { segment: Some(Segment::Key(key.clone())) }).collect(),
        value: Some(value_match(&value.value)),
        invert: value.invert,
    }
}

fn value_match(value: &ValueMatch) -> proto::ValueMatcher {
    use proto::double_matcher::MatchPattern as D;
    use proto::value_matcher::{MatchPattern as P, NullMatch};
    let number = |pattern| P::DoubleMatch(proto::DoubleMatcher { match_pattern: Some(pattern) });
    let pattern = match value {
        ValueMatch::Null => P::NullMatch(NullMatch {}),
        ValueMatch::Number(exact) => number(D::Exact(*exact)),
        ValueMatch::NumberRange(start, end) => number(D::Range(DoubleRange { start: *start, end: *end })),
        ValueMatch::Text(text) => P::StringMatch(string_match(text)),
        ValueMatch::Bool(truth) => P::BoolMatch(*truth),
        ValueMatch::Present(present) => P::PresentMatch(*present),
        ValueMatch::OneOf(one) => P::ListMatch(Box::new(proto::ListMatcher {
            match_pattern: Some(proto::list_matcher::MatchPattern::OneOf(Box::new(value_match(one)))),
        })),
        ValueMatch::Any(several) => {
            P::OrMatch(proto::OrMatcher { value_matchers: several.iter().map(value_match).collect() })
        }
    };
    proto::ValueMatcher { match_pattern: Some(pattern) }
}
