//! `HeaderMutation`.

use super::super::At;
use super::super::route::headers::{editable, header_edit};
use super::super::value::string_match;
use outrigger_api::envoy::config::common::mutation_rules::v3 as rules;
use outrigger_api::envoy::extensions::filters::http::header_mutation::v3 as proto;
use outrigger_traffic::config::{HeaderMutation, HeaderMutations};
use rules::header_mutation::Action as A;

pub(super) fn mutations(message: Option<&proto::Mutations>, at: &At<'_>) -> HeaderMutations {
    let at = at.field("mutations");
    let Some(message) = message else { return HeaderMutations::default() };
    HeaderMutations {
        request: side(&message.request_mutations, "request_mutations", &at),
        response: side(&message.response_mutations, "response_mutations", &at),
    }
}

fn side(list: &[rules::HeaderMutation], field: &str, at: &At<'_>) -> Vec<HeaderMutation> {
    list.iter().enumerate().filter_map(|(i, one)| mutation(one, &at.item(field, i))).collect()
}

fn mutation(message: &rules::HeaderMutation, at: &At<'_>) -> Option<HeaderMutation> {
    Some(match at.need(message.action.as_ref())? {
        A::Remove(name) => HeaderMutation::Remove(editable(name, &at.field("remove"))),
        A::Append(option) => HeaderMutation::Set(header_edit(option, &at.field("append"))?),
        A::RemoveOnMatch(matcher) => {
            let at = at.field("remove_on_match");
            let at = at.field("key_matcher");
            HeaderMutation::RemoveMatching(string_match(at.need(matcher.key_matcher.as_ref())?, &at)?)
        }
    })
}
