//! Who may do what: compiled [`config::Rbac`].
//!
//! A policy matches when one of its permissions and one of its principals match ([`matcher`]). Rules of action `ALLOW`
//! let a request through when a policy matches; rules of `DENY` when none does; `LOG` always. Criteria that need a
//! request never match on a bare connection.

mod matcher;

use crate::config::{self, RbacAction};
use crate::metadata::Metadata;
use crate::view::RequestView;
pub(crate) use matcher::Network;
use matcher::{PermissionMatcher, PrincipalMatcher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What is known of a connection and, for HTTP, of a request.
#[derive(Clone, Copy)]
pub struct AuthzView<'a> {
    /// Local address of the connection.
    pub destination: SocketAddr,
    /// Peer of the connection.
    pub direct_remote: IpAddr,
    /// Client after x-forwarded-for; the same as above on a connection.
    pub remote: IpAddr,
    /// SNI.
    pub server_name: Option<&'a str>,
    /// The verified peer certificate's names; `None` where no certificate was verified.
    pub peer: Option<PeerNames<'a>>,
    /// The request; `None` on a connection.
    pub request: Option<&'a dyn RequestView>,
    /// What filters learned of the request.
    pub metadata: Option<&'a Metadata>,
}

/// Names in a verified certificate.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerNames<'a> {
    /// URI SANs, such as the SPIFFE id.
    pub uri_sans: &'a [String],
    /// DNS SANs.
    pub dns_sans: &'a [String],
    /// Subject, RFC 2253.
    pub subject: &'a str,
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'p> {
    /// Whether to go on.
    pub allowed: bool,
    /// The policy that matched.
    pub policy: Option<&'p str>,
    /// What the shadow rules would have said.
    pub shadow: Option<Shadow<'p>>,
    /// `Some` for rules of action `LOG`: whether a policy matched.
    pub log_hint: Option<bool>,
}

/// Result of the rules that are only evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadow<'p> {
    /// Whether they would have let it through.
    pub allowed: bool,
    /// The policy that matched.
    pub policy: Option<&'p str>,
}

/// Compiled rules of one filter.
#[derive(Debug)]
pub struct CompiledRbac {
    rules: Option<CompiledRules>,
    shadow: Option<CompiledRules>,
    /// Prefix of metrics and shadow results.
    pub stat_prefix: Arc<str>,
    /// There is nothing to evaluate: everything is allowed.
    pub is_empty: bool,
}

#[derive(Debug)]
struct CompiledRules {
    action: RbacAction,
    policies: Box<[(Arc<str>, CompiledPolicy)]>,
}

#[derive(Debug)]
struct CompiledPolicy {
    permissions: Box<[PermissionMatcher]>,
    principals: Box<[PrincipalMatcher]>,
}

impl CompiledRbac {
    /// Makes rules ready; `refuse` is told path and reason of everything wrong.
    pub fn new(from: &config::Rbac, refuse: &mut dyn FnMut(String, String)) -> Self {
        let mut side = |name: &str, rules: &Option<config::Rules>| {
            rules.as_ref().map(|r| CompiledRules::new(r, name, refuse))
        };
        let rules = side("rules", &from.rules);
        let shadow = side("shadow_rules", &from.shadow_rules);
        let is_empty = rules.is_none() && shadow.is_none();
        Self { rules, shadow, stat_prefix: from.stat_prefix.as_str().into(), is_empty }
    }

    /// Judges a connection or request. Cost: linear in the number of policies; no allocation.
    pub fn check(&self, view: &AuthzView<'_>) -> Verdict<'_> {
        let (allowed, policy) = self.rules.as_ref().map_or((true, None), |r| r.judge(view));
        let shadow = self.shadow.as_ref().map(|r| {
            let (allowed, policy) = r.judge(view);
            Shadow { allowed, policy }
        });
        let logs = self.rules.as_ref().is_some_and(|r| r.action == RbacAction::Log);
        Verdict { allowed, policy, shadow, log_hint: logs.then_some(policy.is_some()) }
    }
}

impl CompiledRules {
    fn new(from: &config::Rules, path: &str, refuse: &mut dyn FnMut(String, String)) -> Self {
        let mut policies = Vec::with_capacity(from.policies.len());
        let mut names = std::collections::BTreeSet::new();
        for (name, policy) in &from.policies {
            let path = format!("{path}.policies[{name}]");
            if !names.insert(name) {
                refuse(path.clone(), "policy name occurs more than once".into());
            }
            // As Envoy's validation: an empty list is a mistake, not "nobody" and not "anybody".
            for (list, is_empty) in
                [("permissions", policy.permissions.is_empty()), ("principals", policy.principals.is_empty())]
            {
                if is_empty {
                    refuse(format!("{path}.{list}"), "must not be empty".into());
                }
            }
            let permissions = policy.permissions.iter().enumerate();
            let permissions = permissions
                .filter_map(|(i, p)| {
                    PermissionMatcher::new(p, &format!("{path}.permissions[{i}]"), 0, refuse)
                })
                .collect();
            let principals = policy.principals.iter().enumerate();
            let principals = principals
                .filter_map(|(i, p)| PrincipalMatcher::new(p, &format!("{path}.principals[{i}]"), 0, refuse))
                .collect();
            policies.push((Arc::<str>::from(name.as_str()), CompiledPolicy { permissions, principals }));
        }
        policies.sort_by(|a, b| a.0.cmp(&b.0));
        Self { action: from.action, policies: policies.into() }
    }

    fn judge(&self, view: &AuthzView<'_>) -> (bool, Option<&str>) {
        let matched = self.policies.iter().find(|(_, p)| p.matches(view)).map(|(name, _)| &**name);
        let allowed = match self.action {
            RbacAction::Allow => matched.is_some(),
            RbacAction::Deny => matched.is_none(),
            RbacAction::Log => true,
        };
        (allowed, matched)
    }
}

impl CompiledPolicy {
    fn matches(&self, view: &AuthzView<'_>) -> bool {
        self.permissions.iter().any(|p| p.matches(view)) && self.principals.iter().any(|p| p.matches(view))
    }
}

#[cfg(test)]
mod tests;
