//! `hash_policy`.

use super::action::substitution;
use crate::translate::At;
use crate::translate::value::{cookie_text, duration, header_name};
use outrigger_api::envoy::config::route::v3::route_action as ra;
use outrigger_traffic::config::{HashCookie, HashPolicy, HashSource};
use ra::hash_policy::PolicySpecifier as P;

/// The policies of a route.
pub(super) fn hash_policy(messages: &[ra::HashPolicy], at: &At<'_>) -> Vec<HashPolicy> {
    let all = messages.iter().enumerate();
    all.filter_map(|(i, message)| one(message, &at.item("hash_policy", i))).collect()
}

fn one(message: &ra::HashPolicy, at: &At<'_>) -> Option<HashPolicy> {
    let source = match at.field("policy_specifier").need(message.policy_specifier.as_ref())? {
        P::Header(header) => {
            let at = at.field("header");
            HashSource::Header {
                name: header_name(&header.header_name, true, &at.field("header_name")),
                rewrite: match &header.regex_rewrite {
                    Some(rewrite) => Some(substitution(rewrite, &at.field("regex_rewrite"))?),
                    None => None,
                },
            }
        }
        P::Cookie(cookie) => {
            let at = at.field("cookie");
            at.field("name").need_text(&cookie.name);
            HashSource::Cookie(HashCookie {
                name: cookie_text(&cookie.name, &at.field("name")),
                ttl: cookie.ttl.as_ref().and_then(|ttl| duration(ttl, &at.field("ttl"))),
                path: cookie_text(&cookie.path, &at.field("path")),
                attributes: cookie
                    .attributes
                    .iter()
                    .enumerate()
                    .map(|(i, one)| {
                        let at = at.item("attributes", i);
                        at.field("name").need_text(&one.name);
                        (
                            cookie_text(&one.name, &at.field("name")),
                            cookie_text(&one.value, &at.field("value")),
                        )
                    })
                    .collect(),
            })
        }
        // Switched off, it says nothing.
        P::ConnectionProperties(properties) if !properties.source_ip => return None,
        P::ConnectionProperties(_) => HashSource::SourceIp,
        P::QueryParameter(parameter) => {
            at.field("query_parameter").field("name").need_text(&parameter.name);
            HashSource::Query(parameter.name.clone())
        }
    };
    Some(HashPolicy { source, terminal: message.terminal })
}
