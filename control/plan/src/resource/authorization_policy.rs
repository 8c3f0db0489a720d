//! `AuthorizationPolicy`: who may call what.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::peer_authentication::read_selector;
use super::read::{Fields, Node};
use super::shape;

/// Rules for the workloads that carry some labels.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationPolicy {
    /// Labels; `None`: the whole namespace, or the mesh when it stands in the root namespace.
    pub selector: Option<BTreeMap<String, String>>,
    /// What a match means.
    pub action: Action,
    /// Any of these. None at all matches nothing: an ALLOW policy without rules denies everything.
    pub rules: Vec<Rule>,
}

/// `AuthorizationPolicy.Action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Allowed, unless denied.
    Allow,
    /// Denied.
    Deny,
}

/// Holds when any source, any operation and all conditions hold; an empty list holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Who.
    pub from: Vec<Source>,
    /// What.
    pub to: Vec<Operation>,
    /// Further conditions.
    pub when: Vec<Condition>,
}

/// Values wanted and values refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values<T> {
    /// Any of these; empty: any value.
    pub any: Vec<T>,
    /// None of these.
    pub none: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { any: Vec::new(), none: Vec::new() }
    }
}

impl<T> Values<T> {
    /// Nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

/// An address range.
pub type Cidr = (IpAddr, u8);

/// Who: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Identities without `spiffe://`; `*` at an end matches any rest.
    pub principals: Values<String>,
    /// Namespaces of identities.
    pub namespaces: Values<String>,
    /// Service accounts as `namespace/name`.
    pub service_accounts: Values<String>,
    /// Who a token is about, as `issuer/subject`.
    pub request_principals: Values<String>,
    /// Address of the connection.
    pub ip_blocks: Values<Cidr>,
    /// Address of the client, after x-forwarded-for.
    pub remote_ip_blocks: Values<Cidr>,
}

/// What: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Hosts of requests, without regard to case.
    pub hosts: Values<String>,
    /// Ports of the application.
    pub ports: Values<u16>,
    /// Methods.
    pub methods: Values<String>,
    /// Paths.
    pub paths: Values<String>,
}

/// A further condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `request.headers[name]`.
    Header(String, Values<String>),
    /// `source.ip`.
    SourceIp(Values<Cidr>),
    /// `remote.ip`.
    RemoteIp(Values<Cidr>),
    /// `source.namespace`.
    SourceNamespace(Values<String>),
    /// `source.principal`.
    SourcePrincipal(Values<String>),
    /// `source.serviceAccount`.
    SourceServiceAccount(Values<String>),
    /// `destination.ip`.
    DestinationIp(Values<Cidr>),
    /// `destination.port`.
    DestinationPort(Values<u16>),
    /// `connection.sni`.
    Sni(Values<String>),
    /// `request.auth.principal`.
    RequestPrincipal(Values<String>),
    /// `request.auth.audiences`, `request.auth.presenter`, `request.auth.claims[…]`: a claim, by names one below the other.
    Claim(Vec<String>, Values<String>),
}

impl AuthorizationPolicy {
    pub(super) fn read(spec: &Node<'_>) -> Option<Self> {
        spec.message(&shape::AUTHORIZATION_POLICY, |f| {
            let actions = [("ALLOW", Action::Allow), ("DENY", Action::Deny)];
            let action = f
                .field("action")
                .and_then(|n| n.word(&actions, &["AUDIT", "CUSTOM"]))
                .unwrap_or(Action::Allow);
            Self {
                selector: read_selector(f),
                action,
                rules: f.list("rules").iter().filter_map(Rule::read).collect(),
            }
        })
    }
}

impl Rule {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::RULE, |f| {
            let source = |n: &Node<'_>| {
                n.message(&shape::RULE_FROM, |f| f.required("source").and_then(|n| Source::read(&n)))
                    .flatten()
            };
            let operation = |n: &Node<'_>| {
                n.message(&shape::RULE_TO, |f| f.required("operation").and_then(|n| Operation::read(&n)))
                    .flatten()
            };
            Self {
                from: some(f, "from").iter().filter_map(source).collect(),
                to: some(f, "to").iter().filter_map(operation).collect(),
                when: some(f, "when").iter().filter_map(Condition::read).collect(),
            }
        })
    }
}

/// A list that, when written, must not be empty: an empty `from` would read as nobody and mean everybody.
fn some<'a>(f: &Fields<'a>, name: &'static str) -> Vec<Node<'a>> {
    let list = f.list(name);
    if f.field(name).is_some() && list.is_empty() {
        f.problem(name, "must not be empty; leave the field out to match everything");
    }
    list
}

fn values<T>(
    f: &Fields<'_>,
    any: &'static str,
    none: &'static str,
    read: impl Fn(&Node<'_>) -> T,
) -> Values<T> {
    Values { any: some(f, any).iter().map(&read).collect(), none: some(f, none).iter().map(&read).collect() }
}

impl Source {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::SOURCE, |f| {
            let source = Self {
                principals: values(f, "principals", "notPrincipals", read_pattern),
                namespaces: values(f, "namespaces", "notNamespaces", read_pattern),
                service_accounts: values(f, "serviceAccounts", "notServiceAccounts", read_account),
                request_principals: values(f, "requestPrincipals", "notRequestPrincipals", read_pattern),
                ip_blocks: values(f, "ipBlocks", "notIpBlocks", read_cidr),
                remote_ip_blocks: values(f, "remoteIpBlocks", "notRemoteIpBlocks", read_cidr),
            };
            if source == Self::default() && node.raw().as_object().is_some_and(serde_json::Map::is_empty) {
                node.problem("must not be empty; leave from out to match everyone");
            }
            source
        })
    }
}

impl Operation {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::OPERATION, |f| {
            if node.raw().as_object().is_some_and(serde_json::Map::is_empty) {
                node.problem("must not be empty; leave to out to match everything");
            }
            Self {
                hosts: values(f, "hosts", "notHosts", read_pattern),
                ports: values(f, "ports", "notPorts", read_port),
                methods: values(f, "methods", "notMethods", read_pattern),
                paths: values(f, "paths", "notPaths", read_path),
            }
        })
    }
}

impl Condition {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::CONDITION, |f| {
            let key = f.required("key").map(|n| n.name()).unwrap_or_default();
            let texts = || values(f, "values", "notValues", read_pattern);
            let ranges = || values(f, "values", "notValues", read_cidr);
            if f.field("values").is_none() && f.field("notValues").is_none() {
                f.problem("", "one of values and notValues is needed");
            }
            let header = key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']'));
            Some(match (key.as_str(), header) {
                (_, Some(name)) if !name.is_empty() => Self::Header(name.to_ascii_lowercase(), texts()),
                ("source.ip", _) => Self::SourceIp(ranges()),
                ("remote.ip", _) => Self::RemoteIp(ranges()),
                ("source.namespace", _) => Self::SourceNamespace(texts()),
                ("source.principal", _) => Self::SourcePrincipal(texts()),
                ("source.serviceAccount", _) => {
                    Self::SourceServiceAccount(values(f, "values", "notValues", read_account))
                }
                ("destination.ip", _) => Self::DestinationIp(ranges()),
                ("destination.port", _) => Self::DestinationPort(values(f, "values", "notValues", read_port)),
                ("connection.sni", _) => Self::Sni(texts()),
                ("request.auth.principal", _) => Self::RequestPrincipal(texts()),
                ("request.auth.audiences", _) => Self::Claim(vec!["aud".to_owned()], texts()),
                ("request.auth.presenter", _) => Self::Claim(vec!["azp".to_owned()], texts()),
                (key, _) if claim_path(key).is_some() => {
                    Self::Claim(claim_path(key).unwrap_or_default(), texts())
                }
                _ => {
                    let _ = texts();
                    let later = key.starts_with("experimental.");
                    f.problem(
                        "key",
                        if later {
                            format!("condition {key:?} is not supported yet")
                        } else {
                            format!("unknown condition {key:?}")
                        },
                    );
                    return None;
                }
            })
        })
        .flatten()
    }
}

/// The names in `request.auth.claims[a][b]`.
fn claim_path(key: &str) -> Option<Vec<String>> {
    let inner = key.strip_prefix("request.auth.claims[")?.strip_suffix(']')?;
    let path: Vec<String> = inner.split("][").map(str::to_owned).collect();
    path.iter().all(|name| !name.is_empty() && !name.contains(['[', ']'])).then_some(path)
}

/// A text with at most one `*`, at one end.
fn read_pattern(node: &Node<'_>) -> String {
    let text = node.name();
    let middle = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(&text);
    if middle.contains('*') {
        node.problem(format!("{text:?}: \"*\" can stand at the beginning or at the end only"));
    }
    text
}

fn read_path(node: &Node<'_>) -> String {
    let text = node.text();
    if text.contains('{') {
        node.problem("path templates are not supported yet");
        return text;
    }
    read_pattern(node)
}

fn read_account(node: &Node<'_>) -> String {
    let text = node.name();
    if text.contains('*') || text.matches('/').count() > 1 {
        node.problem(format!("{text:?} must be a service account, or namespace/account, without \"*\""));
    }
    text
}

fn read_port(node: &Node<'_>) -> u16 {
    let text = node.name();
    text.parse().ok().filter(|port| *port > 0).unwrap_or_else(|| {
        node.problem(format!("{text:?} is no port number"));
        1
    })
}

fn read_cidr(node: &Node<'_>) -> Cidr {
    let text = node.name();
    parse_cidr(&text).unwrap_or_else(|| {
        node.problem(format!("{text:?} is neither an IP address nor a range such as 10.0.0.0/8"));
        (IpAddr::from([0, 0, 0, 0]), 32)
    })
}

fn parse_cidr(text: &str) -> Option<Cidr> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(full);
    (length <= full).then_some((address, length))
}
