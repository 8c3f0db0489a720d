//! Authorization rules.

use outrigger_api::envoy::config::rbac::v3 as proto;
use outrigger_api::envoy::extensions::filters::http::rbac::v3 as http;
use outrigger_api::envoy::extensions::filters::network::rbac::v3 as network;
use outrigger_api::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};
use outrigger_api::envoy::r#type::v3::Int32Range;
use outrigger_traffic::config::{
    MetadataMatch, Permission, Policy, Principal, Rbac, RbacAction, Rules, StringMatch,
};

use super::metadata::metadata_match;
use super::route::header_match;
use super::value::{cidr, string_match};

pub(super) fn network_filter(value: &Rbac) -> network::Rbac {
    network::Rbac {
        rules: value.rules.as_ref().map(rules),
        shadow_rules: value.shadow_rules.as_ref().map(rules),
        stat_prefix: value.stat_prefix.clone(),
        enforcement_type: network::rbac::EnforcementType::OneTimeOnFirstByte.into(),
    }
}

pub(super) fn http_filter(value: &Rbac) -> http::Rbac {
    http::Rbac {
        rules: value.rules.as_ref().map(rules),
        shadow_rules: value.shadow_rules.as_ref().map(rules),
        shadow_rules_stat_prefix: value.stat_prefix.clone(),
    }
}

fn rules(value: &Rules) -> proto::Rbac {
    let action = match value.action {
        RbacAction::Allow => proto::rbac::Action::Allow,
        RbacAction::Deny => proto::rbac::Action::Deny,
        RbacAction::Log => proto::rbac::Action::Log,
    };
    proto::Rbac {
        action: action.into(),
        policies: value.policies.iter().map(|(name, p)| (name.clone(), policy(p))).collect(),
    }
}

fn policy(value: &Policy) -> proto::Policy {
    proto::Policy {
        permissions: value.permissions.iter().map(permission).collect(),
        principals: value.principals.iter().map(principal).collect(),
    }
}

fn permission(value: &Permission) -> proto::Permission {
    use proto::permission::{Rule, Set};
    let set = |list: &[Permission]| Set { rules: list.iter().map(permission).collect() };
    let rule = match value {
        Permission::Any => Rule::Any(true),
        Permission::And(list) => Rule::AndRules(set(list)),
        Permission::Or(list) => Rule::OrRules(set(list)),
        Permission::Not(inner) => Rule::NotRule(Box::new(permission(inner))),
        Permission::Header(matcher) => Rule::Header(header_match(matcher)),
        Permission::Path(text) => Rule::UrlPath(path(text)),
        Permission::DestinationIp(ip, length) => Rule::DestinationIp(cidr((*ip, *length))),
        Permission::DestinationPort(port) => Rule::DestinationPort((*port).into()),
        Permission::DestinationPortRange(start, end) => {
            Rule::DestinationPortRange(Int32Range { start: (*start).into(), end: (*end).into() })
        }
        Permission::RequestedServerName(text) => Rule::RequestedServerName(string_match(text)),
        Permission::Metadata(matcher) => Rule::SourcedMetadata(sourced(matcher)),
    };
    proto::Permission { rule: Some(rule) }
}

fn principal(value: &Principal) -> proto::Principal {
    use proto::principal::{Authenticated, Identifier, Set};
    let set = |list: &[Principal]| Set { ids: list.iter().map(principal).collect() };
    let identifier = match value {
        Principal::Any => Identifier::Any(true),
        Principal::And(list) => Identifier::AndIds(set(list)),
        Principal::Or(list) => Identifier::OrIds(set(list)),
        Principal::Not(inner) => Identifier::NotId(Box::new(principal(inner))),
        Principal::Authenticated(name) => {
            Identifier::Authenticated(Authenticated { principal_name: name.as_ref().map(string_match) })
        }
        Principal::DirectRemoteIp(ip, length) => Identifier::DirectRemoteIp(cidr((*ip, *length))),
        Principal::RemoteIp(ip, length) => Identifier::RemoteIp(cidr((*ip, *length))),
        Principal::Header(matcher) => Identifier::Header(header_match(matcher)),
        Principal::Path(text) => Identifier::UrlPath(path(text)),
        Principal::Metadata(matcher) => Identifier::SourcedMetadata(sourced(matcher)),
    };
    proto::Principal { identifier: Some(identifier) }
}

fn sourced(value: &MetadataMatch) -> proto::SourcedMetadata {
    proto::SourcedMetadata {
        metadata_matcher: Some(metadata_match(value)),
        metadata_source: proto::MetadataSource::Dynamic.into(),
    }
}

fn path(text: &StringMatch) -> PathMatcher {
    PathMatcher { rule: Some(path_matcher::Rule::Path(string_match(text))) }
}
