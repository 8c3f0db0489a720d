//! Authorization rules, for connections and requests.

use super::At;
use super::metadata::metadata_match;
use super::route::matches::header_match;
use super::value::{cidr, port, string_match};
use outrigger_api::envoy::config::rbac::v3 as proto;
use outrigger_api::envoy::extensions::filters::http::rbac::v3 as http;
use outrigger_api::envoy::extensions::filters::network::rbac::v3 as network;
use outrigger_api::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};
use outrigger_traffic::config::{
    MetadataMatch, Permission, Policy, Principal, Rbac, RbacAction, Rules, StringMatch,
};

/// The filter of connections.
pub(super) fn network_filter(message: &network::Rbac, at: &At<'_>) -> Rbac {
    at.field("stat_prefix").need_text(&message.stat_prefix);
    Rbac {
        rules: message.rules.as_ref().map(|r| rules(r, &at.field("rules"))),
        shadow_rules: message.shadow_rules.as_ref().map(|r| rules(r, &at.field("shadow_rules"))),
        stat_prefix: message.stat_prefix.clone(),
    }
}

/// The filter of requests.
pub(super) fn http_filter(message: &http::Rbac, at: &At<'_>) -> Rbac {
    Rbac {
        rules: message.rules.as_ref().map(|r| rules(r, &at.field("rules"))),
        shadow_rules: message.shadow_rules.as_ref().map(|r| rules(r, &at.field("shadow_rules"))),
        stat_prefix: message.shadow_rules_stat_prefix.clone(),
    }
}

fn rules(message: &proto::Rbac, at: &At<'_>) -> Rules {
    use proto::rbac::Action as A;
    let action = match A::try_from(message.action) {
        Ok(A::Allow) => RbacAction::Allow,
        Ok(A::Deny) => RbacAction::Deny,
        Ok(A::Log) => RbacAction::Log,
        Err(_) => {
            at.field("action").refuse("is not known");
            RbacAction::Deny
        }
    };
    let policies = message
        .policies
        .iter()
        .map(|(name, p)| (name.clone(), policy(p, &at.key("policies", name))))
        .collect();
    Rules { action, policies }
}

fn policy(message: &proto::Policy, at: &At<'_>) -> Policy {
    Policy {
        permissions: permissions(&message.permissions, "permissions", at),
        principals: principals(&message.principals, "principals", at),
    }
}

fn permissions(from: &[proto::Permission], field: &str, at: &At<'_>) -> Vec<Permission> {
    if from.is_empty() {
        at.field(field).refuse("at least one is required");
    }
    from.iter().enumerate().filter_map(|(i, p)| permission(p, &at.item(field, i))).collect()
}

fn permission(message: &proto::Permission, at: &At<'_>) -> Option<Permission> {
    use proto::permission::Rule as R;
    Some(match at.need(message.rule.as_ref())? {
        R::AndRules(set) => Permission::And(permissions(&set.rules, "rules", &at.field("and_rules"))),
        R::OrRules(set) => Permission::Or(permissions(&set.rules, "rules", &at.field("or_rules"))),
        R::NotRule(inner) => Permission::Not(Box::new(permission(inner, &at.field("not_rule"))?)),
        R::Any(any) => {
            must_be_true(*any, &at.field("any"));
            Permission::Any
        }
        R::Header(matcher) => Permission::Header(header_match(matcher, &at.field("header"))?),
        R::UrlPath(matcher) => Permission::Path(path(matcher, &at.field("url_path"))?),
        R::DestinationIp(range) => {
            let (ip, length) = cidr(range, &at.field("destination_ip"))?;
            Permission::DestinationIp(ip, length)
        }
        R::DestinationPort(value) => Permission::DestinationPort(port(*value, &at.field("destination_port"))),
        R::DestinationPortRange(range) => {
            let at = at.field("destination_port_range");
            let bound = |value: i32, field: &str| {
                u16::try_from(value).unwrap_or_else(|_| {
                    at.field(field).refuse(format!("{value} is not a port"));
                    0
                })
            };
            let (start, end) = (bound(range.start, "start"), bound(range.end, "end"));
            if start >= end {
                at.refuse("is empty: the end is not part of it");
            }
            Permission::DestinationPortRange(start, end)
        }
        R::RequestedServerName(matcher) => {
            Permission::RequestedServerName(string_match(matcher, &at.field("requested_server_name"))?)
        }
        R::Metadata(matcher) => Permission::Metadata(metadata_match(matcher, &at.field("metadata"))?),
        R::SourcedMetadata(matcher) => Permission::Metadata(sourced(matcher, &at.field("sourced_metadata"))?),
    })
}

fn principals(from: &[proto::Principal], field: &str, at: &At<'_>) -> Vec<Principal> {
    if from.is_empty() {
        at.field(field).refuse("at least one is required");
    }
    from.iter().enumerate().filter_map(|(i, p)| principal(p, &at.item(field, i))).collect()
}

fn principal(message: &proto::Principal, at: &At<'_>) -> Option<Principal> {
    use proto::principal::Identifier as I;
    Some(match at.need(message.identifier.as_ref())? {
        I::AndIds(set) => Principal::And(principals(&set.ids, "ids", &at.field("and_ids"))),
        I::OrIds(set) => Principal::Or(principals(&set.ids, "ids", &at.field("or_ids"))),
        I::NotId(inner) => Principal::Not(Box::new(principal(inner, &at.field("not_id"))?)),
        I::Any(any) => {
            must_be_true(*any, &at.field("any"));
            Principal::Any
        }
        I::Authenticated(peer) => {
            let at = at.field("authenticated");
            Principal::Authenticated(match &peer.principal_name {
                None => None,
                Some(name) => Some(string_match(name, &at.field("principal_name"))?),
            })
        }
        I::DirectRemoteIp(range) => {
            let (ip, length) = cidr(range, &at.field("direct_remote_ip"))?;
            Principal::DirectRemoteIp(ip, length)
        }
        I::RemoteIp(range) => {
            let (ip, length) = cidr(range, &at.field("remote_ip"))?;
            Principal::RemoteIp(ip, length)
        }
        I::Header(matcher) => Principal::Header(header_match(matcher, &at.field("header"))?),
        I::UrlPath(matcher) => Principal::Path(path(matcher, &at.field("url_path"))?),
        I::Metadata(matcher) => Principal::Metadata(metadata_match(matcher, &at.field("metadata"))?),
        I::SourcedMetadata(matcher) => Principal::Metadata(sourced(matcher, &at.field("sourced_metadata"))?),
    })
}

/// A condition on metadata, which must be that of filters.
fn sourced(message: &proto::SourcedMetadata, at: &At<'_>) -> Option<MetadataMatch> {
    if message.metadata_source != i32::from(proto::MetadataSource::Dynamic) {
        at.field("metadata_source").refuse("only DYNAMIC is supported");
    }
    let at = at.field("metadata_matcher");
    metadata_match(at.need(message.metadata_matcher.as_ref())?, &at)
}

/// Envoy's rule for `any`: `false` would be a rule that never matches, which nobody means.
fn must_be_true(any: bool, at: &At<'_>) {
    if !any {
        at.refuse("must be true");
    }
}

fn path(message: &PathMatcher, at: &At<'_>) -> Option<StringMatch> {
    let path_matcher::Rule::Path(matcher) = at.need(message.rule.as_ref())?;
    string_match(matcher, &at.field("path"))
}
