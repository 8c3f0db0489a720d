//! Who may call: PeerAuthentication into modes, AuthorizationPolicy into RBAC rules.

use std::collections::BTreeMap;

use outrigger_traffic::config::{
    HeaderMatch, HeaderValueMatch, Permission, Policy, Principal, Rbac, RbacAction, Rules, StringMatch,
    StringPattern,
};

use super::claims;
use crate::inventory::has_labels;
use crate::resource::authorization_policy::{
    Action, AuthorizationPolicy, Cidr, Condition, Operation, Rule, Source, Values,
};
use crate::resource::peer_authentication::{MtlsMode, PeerAuthentication};
use crate::resource::{Object, Spec};
use crate::world::{Settings, World};

/// Where no PeerAuthentication says anything. Istio's default is PERMISSIVE, for meshes that grow over running
/// plaintext services; here a member that forgot its proxy shall not be believed by accident.
pub const DEFAULT_MODE: MtlsMode = MtlsMode::Strict;

/// The PeerAuthentications of a world, those that hold first in front.
pub struct PeerRules<'a> {
    root: &'a str,
    list: Vec<(&'a Object, &'a PeerAuthentication)>,
}

impl<'a> PeerRules<'a> {
    /// Collects them.
    pub fn of(world: &'a World) -> Self {
        let mut list: Vec<(&Object, &PeerAuthentication)> = world
            .resources
            .iter()
            .filter_map(|o| match &o.spec {
                Spec::PeerAuthentication(peer) => Some((&**o, peer)),
                _ => None,
            })
            .collect();
        list.sort_by(|(a, _), (b, _)| a.metadata.name.cmp(&b.metadata.name));
        Self { root: &world.settings.root_namespace, list }
    }

    /// The mode of a port of a workload: the workload's own policy decides, else its namespace's, else the mesh's.
    pub fn mode(&self, namespace: &str, labels: &BTreeMap<String, String>, port: u16) -> MtlsMode {
        let find = |namespace: &str, fits: &dyn Fn(&PeerAuthentication) -> bool| {
            self.list.iter().find(|(o, p)| o.metadata.namespace == namespace && fits(p))
        };
        let own = find(namespace, &|p| p.selector.as_ref().is_some_and(|s| has_labels(labels, s)));
        let whole = find(namespace, &|p| p.selector.is_none());
        let mesh = find(self.root, &|p| p.selector.is_none());
        let of_port = own.and_then(|(_, p)| p.ports.get(&port).copied().flatten());
        let general = [own, whole, mesh].into_iter().flatten().find_map(|(_, p)| p.mode);
        of_port.or(general).unwrap_or(DEFAULT_MODE)
    }
}

/// What a set of rules protects.
#[derive(Clone, Copy)]
pub struct Guarded<'a> {
    /// Namespace of the workload or gateway.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Port as the application or gateway knows it.
    pub port: u16,
    /// Requests are seen; else connections only.
    pub http: bool,
}

/// The RBAC filters of a port: those that deny first. Empty: no policy concerns it.
pub fn filters(world: &World, guarded: Guarded<'_>) -> Vec<Rbac> {
    [Action::Deny, Action::Allow].into_iter().filter_map(|action| filter(world, guarded, action)).collect()
}

/// Whether any of the filters looks at paths, so that paths must be brought into one form first.
pub fn looks_at_paths(filters: &[Rbac]) -> bool {
    fn permission(p: &Permission) -> bool {
        match p {
            Permission::Path(_) => true,
            Permission::And(list) | Permission::Or(list) => list.iter().any(permission),
            Permission::Not(inner) => permission(inner),
            Permission::Any
            | Permission::Header(_)
            | Permission::DestinationIp(..)
            | Permission::DestinationPort(_)
            | Permission::DestinationPortRange(..)
            | Permission::RequestedServerName(_)
            | Permission::Metadata(_) => false,
        }
    }
    let rules = filters.iter().filter_map(|f| f.rules.as_ref());
    rules.flat_map(|r| &r.policies).flat_map(|(_, p)| &p.permissions).any(permission)
}

fn filter(world: &World, guarded: Guarded<'_>, action: Action) -> Option<Rbac> {
    let root = &world.settings.root_namespace;
    let mut policies: Vec<(String, Policy)> = Vec::new();
    let mut concerned = false;
    for object in &world.resources {
        let Spec::AuthorizationPolicy(policy) = &object.spec else { continue };
        let namespace = &object.metadata.namespace;
        let here = namespace == guarded.namespace || namespace == root;
        let selected = policy.selector.as_ref().is_none_or(|s| has_labels(guarded.labels, s));
        if policy.action == action && here && selected {
            concerned = true;
            add_rules(&world.settings, guarded, object, policy, &mut policies);
        }
    }
    if !concerned || (action == Action::Deny && policies.is_empty()) {
        return None;
    }
    policies.sort_by(|(a, _), (b, _)| a.cmp(b));
    let action = match action {
        Action::Allow => RbacAction::Allow,
        Action::Deny => RbacAction::Deny,
    };
    Some(Rbac { rules: Some(Rules { action, policies }), shadow_rules: None, stat_prefix: String::new() })
}

fn add_rules(
    settings: &Settings,
    guarded: Guarded<'_>,
    object: &Object,
    policy: &AuthorizationPolicy,
    policies: &mut Vec<(String, Policy)>,
) {
    let writer = Writer {
        settings,
        guarded,
        namespace: &object.metadata.namespace,
        deny: policy.action == Action::Deny,
    };
    for (i, rule) in policy.rules.iter().enumerate() {
        if let Some(policy) = writer.rule(rule) {
            policies.push((
                format!("ns[{}]-policy[{}]-rule[{i}]", object.metadata.namespace, object.metadata.name),
                policy,
            ));
        }
    }
}

/// Writes rules for one port.
///
/// What is known now is decided now: a rule about another port never matches and is left out. Where only connections are
/// seen, attributes of requests cannot be: a rule that allows and needs them never matches; a rule that denies is
/// enforced without them. Both err on the side of refusing, as Istio does.
struct Writer<'a> {
    settings: &'a Settings,
    guarded: Guarded<'a>,
    /// Of the policy: short service accounts are its own.
    namespace: &'a str,
    deny: bool,
}

/// One part of a conjunction.
enum Part<T> {
    /// Must hold.
    Needs(T),
    /// Holds, or asks nothing.
    Holds,
    /// Never holds.
    Never,
}

/// Collects parts; `None` when one of them never holds.
fn all<T>(parts: impl IntoIterator<Item = Part<T>>) -> Option<Vec<T>> {
    let mut list = Vec::new();
    for part in parts {
        match part {
            Part::Needs(part) => list.push(part),
            Part::Holds => {}
            Part::Never => return None,
        }
    }
    Some(list)
}

impl Writer<'_> {
    fn rule(&self, rule: &Rule) -> Option<Policy> {
        let mut permissions_when = Vec::new();
        let mut principals_when = Vec::new();
        for condition in &rule.when {
            match self.condition(condition) {
                Part::Never => return None,
                Part::Holds => {}
                Part::Needs(When::Permission(p)) => permissions_when.push(p),
                Part::Needs(When::Principal(p)) => principals_when.push(p),
            }
        }
        let mut permissions = Vec::new();
        for operation in &rule.to {
            if let Some(mut list) = self.operation(operation) {
                list.extend(permissions_when.iter().cloned());
                permissions.push(and_permissions(list));
            }
        }
        if rule.to.is_empty() {
            permissions.push(and_permissions(permissions_when));
        }
        let mut principals = Vec::new();
        for source in &rule.from {
            if let Some(mut list) = self.source(source) {
                list.extend(principals_when.iter().cloned());
                principals.push(and_principals(list));
            }
        }
        if rule.from.is_empty() {
            principals.push(and_principals(principals_when));
        }
        (!permissions.is_empty() && !principals.is_empty()).then_some(Policy { permissions, principals })
    }

    /// A part that needs requests to be seen.
    fn of_requests<T>(&self, part: Part<T>) -> Part<T> {
        match part {
            Part::Needs(_) | Part::Never if !self.guarded.http => {
                if self.deny {
                    Part::Holds
                } else {
                    Part::Never
                }
            }
            part => part,
        }
    }

    fn operation(&self, operation: &Operation) -> Option<Vec<Permission>> {
        let header = |name: &'static str, fold: bool| {
            move |text: &String| Permission::Header(header_match(name, text, fold))
        };
        all([
            self.of_requests(permission(&operation.hosts, header(":authority", true))),
            self.of_requests(permission(&operation.methods, header(":method", false))),
            self.of_requests(permission(&operation.paths, |text| Permission::Path(text_match(text, false)))),
            self.port(&operation.ports),
        ])
    }

    fn port<T>(&self, ports: &Values<u16>) -> Part<T> {
        let wanted = ports.any.is_empty() || ports.any.contains(&self.guarded.port);
        if wanted && !ports.none.contains(&self.guarded.port) { Part::Holds } else { Part::Never }
    }

    fn source(&self, source: &Source) -> Option<Vec<Principal>> {
        all([
            principal(&source.principals, |text| self.identity(text)),
            principal(&source.namespaces, |text| self.in_namespace(text)),
            principal(&source.service_accounts, |text| self.account(text)),
            self.of_requests(principal(&source.request_principals, |text| claims::request_principal(text))),
            principal(&source.ip_blocks, |(ip, length): &Cidr| Principal::DirectRemoteIp(*ip, *length)),
            self.of_requests(principal(&source.remote_ip_blocks, |(ip, length): &Cidr| {
                Principal::RemoteIp(*ip, *length)
            })),
        ])
    }

    fn condition(&self, condition: &Condition) -> Part<When> {
        let who = |part: Part<Principal>| map(part, When::Principal);
        let what = |part: Part<Permission>| map(part, When::Permission);
        match condition {
            Condition::Header(name, values) => self.of_requests(who(principal(values, |text| {
                Principal::Header(header_match(name, text, false))
            }))),
            Condition::SourceIp(values) => {
                who(principal(values, |(ip, n): &Cidr| Principal::DirectRemoteIp(*ip, *n)))
            }
            Condition::RemoteIp(values) => {
                self.of_requests(who(principal(values, |(ip, n): &Cidr| Principal::RemoteIp(*ip, *n))))
            }
            Condition::SourceNamespace(values) => who(principal(values, |text| self.in_namespace(text))),
            Condition::SourcePrincipal(values) => who(principal(values, |text| self.identity(text))),
            Condition::SourceServiceAccount(values) => who(principal(values, |text| self.account(text))),
            Condition::DestinationIp(values) => {
                what(permission(values, |(ip, n): &Cidr| Permission::DestinationIp(*ip, *n)))
            }
            Condition::DestinationPort(values) => self.port(values),
            Condition::Sni(values) => {
                what(permission(values, |text| Permission::RequestedServerName(text_match(text, true))))
            }
            Condition::RequestPrincipal(values) => {
                self.of_requests(who(principal(values, |text| claims::request_principal(text))))
            }
            Condition::Claim(path, values) => {
                self.of_requests(who(principal(values, |text| claims::claim(path, text))))
            }
        }
    }

    /// An identity as policies write it, without `spiffe://`; `cluster.local` stands for this mesh's trust domain.
    fn identity(&self, text: &str) -> Principal {
        if text == "*" {
            return Principal::Authenticated(None);
        }
        let own =
            text.strip_prefix("cluster.local/").map(|rest| format!("{}/{rest}", self.settings.trust_domain));
        let text = own.as_deref().unwrap_or(text);
        let pattern = match text.strip_prefix('*') {
            Some(rest) => StringPattern::Suffix(rest.to_owned()),
            None => match text.strip_suffix('*') {
                Some(rest) => StringPattern::Prefix(format!("spiffe://{rest}")),
                None => StringPattern::Exact(format!("spiffe://{text}")),
            },
        };
        Principal::Authenticated(Some(StringMatch { pattern, ignore_case: false }))
    }

    fn in_namespace(&self, text: &str) -> Principal {
        let domain = &self.settings.trust_domain;
        let pattern = if text == "*" {
            return Principal::Authenticated(None);
        } else if let Some(rest) = text.strip_prefix('*') {
            StringPattern::Regex(format!("spiffe://[^/]+/ns/[^/]*{}/sa/[^/]+", escape(rest)))
        } else if let Some(rest) = text.strip_suffix('*') {
            StringPattern::Regex(format!("spiffe://[^/]+/ns/{}[^/]*/sa/[^/]+", escape(rest)))
        } else {
            StringPattern::Prefix(format!("spiffe://{domain}/ns/{text}/sa/"))
        };
        Principal::Authenticated(Some(StringMatch { pattern, ignore_case: false }))
    }

    fn account(&self, text: &str) -> Principal {
        let (namespace, account) = text.split_once('/').unwrap_or((self.namespace, text));
        Principal::Authenticated(Some(StringMatch::exact(self.settings.spiffe_id(namespace, account))))
    }
}

enum When {
    Permission(Permission),
    Principal(Principal),
}

fn map<T, U>(part: Part<T>, f: impl Fn(T) -> U) -> Part<U> {
    match part {
        Part::Needs(value) => Part::Needs(f(value)),
        Part::Holds => Part::Holds,
        Part::Never => Part::Never,
    }
}

fn permission<T>(values: &Values<T>, write: impl Fn(&T) -> Permission) -> Part<Permission> {
    let mut parts = Vec::new();
    if !values.any.is_empty() {
        parts.push(Permission::Or(values.any.iter().map(&write).collect()));
    }
    if !values.none.is_empty() {
        parts.push(Permission::Not(Box::new(Permission::Or(values.none.iter().map(&write).collect()))));
    }
    if parts.is_empty() { Part::Holds } else { Part::Needs(and_permissions(parts)) }
}

fn principal<T>(values: &Values<T>, write: impl Fn(&T) -> Principal) -> Part<Principal> {
    let mut parts = Vec::new();
    if !values.any.is_empty() {
        parts.push(Principal::Or(values.any.iter().map(&write).collect()));
    }
    if !values.none.is_empty() {
        parts.push(Principal::Not(Box::new(Principal::Or(values.none.iter().map(&write).collect()))));
    }
    if parts.is_empty() { Part::Holds } else { Part::Needs(and_principals(parts)) }
}

fn and_permissions(mut list: Vec<Permission>) -> Permission {
    match list.len() {
        0 => Permission::Any,
        1 => list.remove(0),
        _ => Permission::And(list),
    }
}

fn and_principals(mut list: Vec<Principal>) -> Principal {
    match list.len() {
        0 => Principal::Any,
        1 => list.remove(0),
        _ => Principal::And(list),
    }
}

/// `*` means any value, but a value.
fn header_match(name: &str, text: &str, ignore_case: bool) -> HeaderMatch {
    let value = if text == "*" {
        HeaderValueMatch::Present(true)
    } else {
        HeaderValueMatch::Text(text_match(text, ignore_case))
    };
    HeaderMatch { name: name.to_owned(), value, invert: false, treat_missing_as_empty: false }
}

/// A policy's text: `*` at one end matches any rest. Alone it asks for a value, so that `connection.sni: "*"` does not
/// let a client in that names no host. Source: Istio, "presence match".
pub(super) fn text_match(text: &str, ignore_case: bool) -> StringMatch {
    if text == "*" {
        // Patterns have no use for the other.
        return StringMatch { pattern: StringPattern::Regex(".+".to_owned()), ignore_case: false };
    }
    let pattern = if let Some(rest) = text.strip_prefix('*') {
        StringPattern::Suffix(rest.to_owned())
    } else if let Some(rest) = text.strip_suffix('*') {
        StringPattern::Prefix(rest.to_owned())
    } else {
        StringPattern::Exact(text.to_owned())
    };
    StringMatch { pattern, ignore_case }
}

/// A text as a pattern that matches just it.
pub fn escape(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if !(c.is_alphanumeric() || matches!(c, '_' | '/' | '-' | ':' | ' ')) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
