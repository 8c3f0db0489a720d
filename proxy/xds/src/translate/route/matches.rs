//! Which requests a route is for.

use crate::translate::At;
use crate::translate::metadata::metadata_match;
use crate::translate::value::{header_name, regex, runtime_fraction, string_match};
use outrigger_api::envoy::config::route::v3 as proto;
use outrigger_api::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use outrigger_traffic::config::{
    HeaderMatch, HeaderValueMatch, PathMatch, QueryMatch, QueryValueMatch, RouteMatch, StringMatch,
    StringPattern, TlsMatch,
};

/// The criteria of a route; `None` when there is none on the path (noted).
pub(in crate::translate) fn route_match(message: &proto::RouteMatch, at: &At<'_>) -> Option<RouteMatch> {
    use proto::route_match::PathSpecifier as P;
    let path = match &message.path_specifier {
        Some(P::Prefix(text)) => Some(PathMatch::Prefix(text.clone())),
        Some(P::Path(text)) => Some(PathMatch::Exact(text.clone())),
        Some(P::SafeRegex(pattern)) => Some(PathMatch::Regex(regex(pattern, &at.field("safe_regex")))),
        Some(P::PathSeparatedPrefix(text)) => {
            if text.is_empty() || text.ends_with('/') || text.contains(['?', '#']) {
                at.field("path_separated_prefix")
                    .refuse("must not be empty, end with a slash, or contain `?` or `#`");
            }
            Some(PathMatch::PathSeparatedPrefix(text.clone()))
        }
        Some(P::PathMatchPolicy(policy)) => {
            let at = at.field("path_match_policy");
            at.extension::<UriTemplateMatchConfig>(policy).map(|m| PathMatch::Template(m.path_template))
        }
        Some(P::ConnectMatcher(_)) => Some(PathMatch::Connect),
        None => {
            at.refuse("a criterion on the path is required");
            None
        }
    };
    let headers = message
        .headers
        .iter()
        .enumerate()
        .filter_map(|(i, h)| header_match(h, &at.item("headers", i)))
        .collect();
    let query = message
        .query_parameters
        .iter()
        .enumerate()
        .filter_map(|(i, q)| query_match(q, &at.item("query_parameters", i)))
        .collect();
    let fraction =
        message.runtime_fraction.as_ref().and_then(|f| runtime_fraction(f, &at.field("runtime_fraction")));
    let metadata = message.dynamic_metadata.iter().enumerate();
    let metadata = metadata.filter_map(|(i, m)| metadata_match(m, &at.item("dynamic_metadata", i))).collect();
    Some(RouteMatch {
        metadata,
        path: path?,
        case_sensitive: message.case_sensitive.unwrap_or(true),
        headers,
        query,
        grpc: message.grpc.is_some(),
        fraction,
        tls: message
            .tls_context
            .as_ref()
            .map(|t| TlsMatch { presented: t.presented, validated: t.validated }),
    })
}

/// One criterion on a header. Without any, presence is asked for, as in Envoy.
pub(in crate::translate) fn header_match(message: &proto::HeaderMatcher, at: &At<'_>) -> Option<HeaderMatch> {
    use proto::header_matcher::HeaderMatchSpecifier as H;
    let text =
        |pattern: StringPattern| Some(HeaderValueMatch::Text(StringMatch { pattern, ignore_case: false }));
    let needed = |value: &str, field: &str| {
        at.field(field).need_text(value);
        value.to_owned()
    };
    let value = match &message.header_match_specifier {
        None => Some(HeaderValueMatch::Present(true)),
        Some(H::PresentMatch(present)) => Some(HeaderValueMatch::Present(*present)),
        Some(H::StringMatch(matcher)) => {
            string_match(matcher, &at.field("string_match")).map(HeaderValueMatch::Text)
        }
        Some(H::RangeMatch(range)) => Some(HeaderValueMatch::Range(range.start, range.end)),
        Some(H::ExactMatch(value)) => text(StringPattern::Exact(value.clone())),
        Some(H::PrefixMatch(value)) => text(StringPattern::Prefix(needed(value, "prefix_match"))),
        Some(H::SuffixMatch(value)) => text(StringPattern::Suffix(needed(value, "suffix_match"))),
        Some(H::ContainsMatch(value)) => text(StringPattern::Contains(needed(value, "contains_match"))),
        Some(H::SafeRegexMatch(pattern)) => {
            text(StringPattern::Regex(regex(pattern, &at.field("safe_regex_match"))))
        }
    };
    Some(HeaderMatch {
        name: header_name(&message.name, true, &at.field("name")),
        value: value?,
        invert: message.invert_match,
        treat_missing_as_empty: message.treat_missing_header_as_empty,
    })
}

pub(in crate::translate) fn query_match(
    message: &proto::QueryParameterMatcher,
    at: &At<'_>,
) -> Option<QueryMatch> {
    use proto::query_parameter_matcher::QueryParameterMatchSpecifier as Q;
    at.field("name").need_text(&message.name);
    let value = match &message.query_parameter_match_specifier {
        None => QueryValueMatch::Present(true),
        Some(Q::PresentMatch(present)) => QueryValueMatch::Present(*present),
        Some(Q::StringMatch(matcher)) => {
            QueryValueMatch::Text(string_match(matcher, &at.field("string_match"))?)
        }
    };
    Some(QueryMatch { name: message.name.clone(), value })
}
