//! How requests are told apart for rate limits, and the limits that need no service. Source: Envoy: rate limit filter
//! (actions), local rate limit filter.

use super::token_bucket::{Taken, TokenBucket};
use crate::config::{self, RateLimitAction, VirtualHostRules};
use crate::metadata::Metadata;
use crate::route::{Edits, HeaderMatcher, QueryMatcher, query};
use crate::view::{RequestView, query_only};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// Compiled [`config::RateLimitRule`].
#[derive(Debug)]
pub struct RateLimitRule {
    stage: u32,
    actions: Box<[Action]>,
    hits: Option<u64>,
    limit: Box<[String]>,
}

/// What a rule says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described<'a> {
    /// By what it is told apart, in order.
    pub entries: Vec<Entry<'a>>,
    /// As how many requests it counts; `None`: one.
    pub hits: Option<u64>,
    /// A limit in place of the service's: requests, and the unit (`envoy.type.v3.RateLimitUnit`).
    pub limit: Option<(u32, u32)>,
}

/// The units of a limit, by their numbers.
const UNITS: [&str; 7] = ["UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR"];

/// The rules of a route and of its virtual host.
#[derive(Clone, Debug, Default)]
pub struct RateLimitRules {
    /// The route's.
    pub route: Arc<[RateLimitRule]>,
    /// The virtual host's.
    pub virtual_host: Arc<[RateLimitRule]>,
}

#[derive(Debug)]
enum Action {
    SourceCluster,
    Metadata(Box<str>, Box<[String]>, Box<str>, bool),
    DestinationCluster,
    RequestHeader(Box<[u8]>, Box<str>, bool),
    QueryParameter(Box<[u8]>, Box<str>, bool),
    RemoteAddress,
    MaskedRemoteAddress(u8, u8),
    Fixed(Box<str>, Box<str>),
    HeaderValueMatch(Box<str>, Box<str>, bool, Box<[HeaderMatcher]>),
    QueryValueMatch(Box<str>, Box<str>, bool, Box<[QueryMatcher]>),
}

/// What the actions see of a request.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Its head.
    pub view: &'a dyn RequestView,
    /// The client's address.
    pub remote: IpAddr,
    /// The cluster it goes to.
    pub cluster: Option<&'a str>,
    /// The cluster of the node.
    pub source: &'a str,
    /// What filters learned of it.
    pub metadata: Option<&'a Metadata>,
}

/// One entry of a descriptor.
pub type Entry<'a> = (&'a str, Cow<'a, [u8]>);

impl RateLimitRule {
    pub(crate) fn new(from: &config::RateLimitRule, refuse: &mut dyn FnMut(String, String)) -> Self {
        if from.actions.is_empty() {
            refuse("actions".into(), "must not be empty".into());
        }
        if from.stage > 10 {
            refuse("stage".into(), "must be at most 10".into());
        }
        let actions = from.actions.iter().enumerate();
        let actions = actions
            .map(|(i, action)| {
                Action::new(action, &mut |field, reason| refuse(format!("actions[{i}].{field}"), reason))
            })
            .collect();
        if from.hits.is_some_and(|hits| hits > 1_000_000_000) {
            refuse("hits_addend.number".into(), "must be at most 1000000000".into());
        }
        if from.limit.len() == 1 || from.limit.iter().any(String::is_empty) {
            refuse(
                "limit.dynamic_metadata.metadata_key".into(),
                "needs a namespace and a path of keys".into(),
            );
        }
        Self { stage: from.stage, actions, hits: from.hits, limit: from.limit.as_slice().into() }
    }

    /// The limit that a filter left: an object with `requests_per_unit` and `unit`.
    fn limit_of(&self, metadata: Option<&Metadata>) -> Option<(u32, u32)> {
        let (namespace, path) = self.limit.split_first()?;
        let left = metadata?.find(namespace, path)?;
        let requests = left.get("requests_per_unit")?.as_f64()?;
        let unit = left.get("unit")?.as_str()?;
        let unit = UNITS.iter().position(|name| *name == unit)?;
        // In range by the check: the cast only cuts a fraction off.
        (0.0..=f64::from(u32::MAX))
            .contains(&requests)
            .then_some((requests as u32, u32::try_from(unit).ok()?))
    }

    /// The descriptor of a request; `None` where an action has nothing to say.
    pub(super) fn descriptor<'a>(&'a self, subject: &Subject<'a>) -> Option<Described<'a>> {
        let mut entries = Vec::with_capacity(self.actions.len());
        for action in &self.actions {
            match action.entry(subject) {
                Said::Entry(key, value) => entries.push((key, value)),
                Said::Skip => {}
                Said::Nothing => return None,
            }
        }
        let is_empty = entries.is_empty();
        (!is_empty).then(|| Described { entries, hits: self.hits, limit: self.limit_of(subject.metadata) })
    }
}

enum Said<'a> {
    Entry(&'a str, Cow<'a, [u8]>),
    Skip,
    Nothing,
}

impl Action {
    fn new(from: &RateLimitAction, refuse: &mut dyn FnMut(&str, String)) -> Self {
        let or = |text: &str, default: &str| -> Box<str> {
            if text.is_empty() { default.into() } else { text.into() }
        };
        match from {
            RateLimitAction::SourceCluster => Self::SourceCluster,
            RateLimitAction::Metadata { key, path, default, skip_if_absent } => {
                if path.len() < 2 || path.iter().any(String::is_empty) {
                    refuse("metadata.metadata_key", "needs a namespace and a path of keys".into());
                }
                let (key, default) = (key.as_str().into(), default.as_str().into());
                Self::Metadata(key, path.as_slice().into(), default, *skip_if_absent)
            }
            RateLimitAction::DestinationCluster => Self::DestinationCluster,
            RateLimitAction::RequestHeader { name, key, skip_if_absent } => {
                Self::RequestHeader(name.as_bytes().into(), key.as_str().into(), *skip_if_absent)
            }
            RateLimitAction::QueryParameter { name, key, skip_if_absent } => {
                Self::QueryParameter(name.as_bytes().into(), key.as_str().into(), *skip_if_absent)
            }
            RateLimitAction::RemoteAddress => Self::RemoteAddress,
            RateLimitAction::MaskedRemoteAddress(v4, v6) => {
                if *v4 > 32 || *v6 > 128 {
                    refuse("masked_remote_address", "a prefix is longer than the address".into());
                }
                Self::MaskedRemoteAddress(*v4, *v6)
            }
            RateLimitAction::Generic(key, value) => {
                Self::Fixed(or(key, "generic_key"), value.as_str().into())
            }
            RateLimitAction::HeaderValueMatch { key, value, expect_match, headers } => {
                let mut matchers = Vec::with_capacity(headers.len());
                for header in headers {
                    match HeaderMatcher::for_request(header) {
                        Ok(matcher) => matchers.push(matcher),
                        Err(reason) => refuse("header_value_match.headers", reason),
                    }
                }
                let (key, value) = (or(key, "header_match"), value.as_str().into());
                Self::HeaderValueMatch(key, value, *expect_match, matchers.into())
            }
            RateLimitAction::QueryValueMatch { key, value, expect_match, parameters } => {
                let mut matchers = Vec::with_capacity(parameters.len());
                for parameter in parameters {
                    match QueryMatcher::new(parameter) {
                        Ok(matcher) => matchers.push(matcher),
                        Err(reason) => refuse("query_parameter_value_match.query_parameters", reason),
                    }
                }
                let (key, value) = (or(key, "query_match"), value.as_str().into());
                Self::QueryValueMatch(key, value, *expect_match, matchers.into())
            }
        }
    }

    fn entry<'a>(&'a self, subject: &Subject<'a>) -> Said<'a> {
        let absent = |skip: bool| if skip { Said::Skip } else { Said::Nothing };
        let fixed = |key: &'a str, value: &'a str, holds: bool| match holds {
            true => Said::Entry(key, Cow::Borrowed(value.as_bytes())),
            false => Said::Nothing,
        };
        match self {
            Self::DestinationCluster => match subject.cluster {
                Some(cluster) => Said::Entry("destination_cluster", Cow::Borrowed(cluster.as_bytes())),
                None => Said::Nothing,
            },
            Self::SourceCluster => Said::Entry("source_cluster", Cow::Borrowed(subject.source.as_bytes())),
            Self::Metadata(key, path, default, skip) => {
                let value = path.split_first().and_then(|(namespace, path)| {
                    subject.metadata?.find(namespace, path)?.as_str().filter(|text| !text.is_empty())
                });
                match value {
                    Some(text) => Said::Entry(key, Cow::Borrowed(text.as_bytes())),
                    None if !default.is_empty() => Said::Entry(key, Cow::Borrowed(default.as_bytes())),
                    None => absent(*skip),
                }
            }
            Self::RequestHeader(name, key, skip) => match subject.view.header(name) {
                Some(value) => Said::Entry(key, Cow::Borrowed(value)),
                None => absent(*skip),
            },
            Self::QueryParameter(name, key, skip) => {
                let query = query_only(subject.view.path()).unwrap_or_default();
                match query::parameter(query, name) {
                    Some(value) => Said::Entry(key, Cow::Borrowed(value)),
                    None => absent(*skip),
                }
            }
            Self::RemoteAddress => {
                Said::Entry("remote_address", Cow::Owned(subject.remote.to_string().into_bytes()))
            }
            Self::MaskedRemoteAddress(v4, v6) => Said::Entry(
                "masked_remote_address",
                Cow::Owned(masked(subject.remote, *v4, *v6).into_bytes()),
            ),
            Self::Fixed(key, value) => fixed(key, value, true),
            Self::HeaderValueMatch(key, value, expected, headers) => {
                fixed(key, value, headers.iter().all(|h| h.matches(subject.view)) == *expected)
            }
            Self::QueryValueMatch(key, value, expected, parameters) => {
                fixed(key, value, query::all_match(parameters, subject.view.path()) == *expected)
            }
        }
    }
}

/// A network in the form `address/length`.
fn masked(address: IpAddr, v4: u8, v6: u8) -> String {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(v4.min(32))).unwrap_or(0);
            format!("{}/{v4}", std::net::Ipv4Addr::from(u32::from(ip) & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(v6.min(128))).unwrap_or(0);
            format!("{}/{v6}", std::net::Ipv6Addr::from(u128::from(ip) & mask))
        }
    }
}

/// Compiled [`config::LocalRateLimit`].
#[derive(Debug)]
pub struct LocalRateLimit {
    /// As it was asked for.
    pub config: config::LocalRateLimit,
    /// Edits of requests above the rate that are not refused.
    pub request_edits: Edits,
    /// Edits of the answers.
    pub response_edits: Edits,
    /// Those of the proxy.
    shared: Buckets,
    rules: Box<[RateLimitRule]>,
    identity: Arc<()>,
}

/// The buckets of a limit: of the proxy, or of a connection.
#[derive(Debug)]
pub struct Buckets {
    bucket: Option<TokenBucket>,
    descriptors: Box<[Descriptor]>,
}

/// The buckets of one connection, by the limits that they belong to.
#[derive(Debug, Default)]
pub struct OwnBuckets(Vec<(Arc<()>, Buckets)>);

/// A key and its value.
type Configured = (Box<str>, Box<[u8]>);

#[derive(Debug)]
struct Descriptor {
    /// In their order, which counts, as in Envoy.
    entries: Box<[Configured]>,
    bucket: TokenBucket,
}

impl LocalRateLimit {
    pub(crate) fn new(from: &config::LocalRateLimit, refuse: &mut dyn FnMut(String, String)) -> Self {
        let shared = Buckets::new(from, refuse);
        if from.status < 400 {
            refuse("status".into(), "must be at least 400".into());
        }
        let rules = from.rules.iter().enumerate();
        let rules = rules
            .map(|(i, rule)| {
                RateLimitRule::new(rule, &mut |f, reason| refuse(format!("rate_limits[{i}].{f}"), reason))
            })
            .collect();
        let mut edits = |field: &str, list: &[config::HeaderEdit]| {
            let list: Vec<_> = list.iter().cloned().map(config::HeaderMutation::Set).collect();
            Edits::of_mutations(field, &list, refuse)
        };
        let request_edits =
            edits("request_headers_to_add_when_not_enforced", &from.request_add_when_not_enforced);
        let response_edits = edits("response_headers_to_add", &from.response_add);
        let identity = Arc::new(());
        Self { config: from.clone(), request_edits, response_edits, shared, rules, identity }
    }

    /// Whether a request is looked at.
    pub fn is_enabled(&self, draw: u32) -> bool {
        self.config.enabled.contains(draw)
    }

    /// Whether a request above the rate is refused.
    pub fn is_enforced(&self, draw: u32) -> bool {
        self.config.enforced.contains(draw)
    }

    /// Takes a token for a request; `None` where no bucket is for it. `now` is as in [`TokenBucket::take`]; `own` gives
    /// access to the buckets of the request's connection.
    pub fn take(
        &self,
        rules: Option<&RateLimitRules>,
        subject: &Subject<'_>,
        now: u64,
        own: impl FnOnce(&mut dyn FnMut(&mut OwnBuckets)),
    ) -> Option<Taken> {
        if !self.config.per_connection {
            return self.shared.take(self, rules, subject, now);
        }
        let mut taken = None;
        own(&mut |own| taken = own.of(self).and_then(|buckets| buckets.take(self, rules, subject, now)));
        taken
    }

    fn rules_for<'a>(
        &'a self,
        levels: Option<&'a RateLimitRules>,
    ) -> impl Iterator<Item = &'a RateLimitRule> {
        rules_for(&self.rules, self.config.virtual_host, self.config.stage, levels)
    }
}

impl OwnBuckets {
    /// Those of a limit; full ones when it is the first time.
    fn of(&mut self, limit: &LocalRateLimit) -> Option<&Buckets> {
        if !self.0.iter().any(|(of, _)| Arc::ptr_eq(of, &limit.identity)) {
            // Limits of configurations that are gone.
            self.0.retain(|(of, _)| Arc::strong_count(of) > 1);
            let buckets = Buckets::new(&limit.config, &mut |_, _| {});
            self.0.push((limit.identity.clone(), buckets));
        }
        self.0.iter().find(|(of, _)| Arc::ptr_eq(of, &limit.identity)).map(|(_, buckets)| buckets)
    }
}

impl Buckets {
    fn new(from: &config::LocalRateLimit, refuse: &mut dyn FnMut(String, String)) -> Self {
        let bucket = from.bucket.as_ref().and_then(|b| kept("token_bucket", TokenBucket::new(b), refuse));
        let mut descriptors = Vec::with_capacity(from.descriptors.len());
        for (i, descriptor) in from.descriptors.iter().enumerate() {
            let at = format!("descriptors[{i}]");
            if descriptor.entries.is_empty()
                || descriptor.entries.iter().any(|e| e.0.is_empty() || e.1.is_empty())
            {
                refuse(format!("{at}.entries"), "needs a key and a value each".into());
            }
            let at = format!("{at}.token_bucket");
            let Some(bucket) = kept(&at, TokenBucket::new(&descriptor.bucket), refuse) else { continue };
            let entries: Vec<(Box<str>, Box<[u8]>)> =
                descriptor.entries.iter().map(|(k, v)| (k.as_str().into(), v.as_bytes().into())).collect();
            descriptors.push(Descriptor { entries: entries.into(), bucket });
        }
        // The slowest bucket is asked first: a request that it refuses takes no token of the others. Source: Envoy.
        descriptors.sort_by_key(|descriptor| std::cmp::Reverse(descriptor.bucket.period()));
        Self { bucket, descriptors: descriptors.into() }
    }

    fn take(
        &self,
        limit: &LocalRateLimit,
        rules: Option<&RateLimitRules>,
        subject: &Subject<'_>,
        now: u64,
    ) -> Option<Taken> {
        let mut first = None;
        if !self.descriptors.is_empty() {
            let requested: Vec<Described<'_>> =
                limit.rules_for(rules).filter_map(|rule| rule.descriptor(subject)).collect();
            for descriptor in &self.descriptors {
                let Some(one) = requested.iter().find(|one| descriptor.is(&one.entries)) else { continue };
                let taken = descriptor.bucket.take(now, one.hits.unwrap_or(1));
                if !taken.allowed {
                    return Some(taken);
                }
                first = first.or(Some(taken));
            }
        }
        match (&self.bucket, first) {
            (Some(bucket), None) => Some(bucket.take(now, 1)),
            (Some(bucket), Some(first)) if limit.config.always_consume_default => {
                let taken = bucket.take(now, 1);
                Some(if taken.allowed { first } else { taken })
            }
            (_, first) => first,
        }
    }
}

/// The rules that count: a filter's `own` where it has some, else those of the levels.
pub(super) fn rules_for<'a>(
    own: &'a [RateLimitRule],
    host: VirtualHostRules,
    stage: u32,
    levels: Option<&'a RateLimitRules>,
) -> impl Iterator<Item = &'a RateLimitRule> {
    let (route, host): (&[RateLimitRule], &[RateLimitRule]) = match levels {
        _ if !own.is_empty() => (own, &[]),
        None => (&[], &[]),
        Some(levels) => {
            let with_host = match host {
                VirtualHostRules::Include => true,
                VirtualHostRules::Override => levels.route.is_empty(),
                VirtualHostRules::Ignore => false,
            };
            (&levels.route, if with_host { &levels.virtual_host } else { &[] })
        }
    };
    route.iter().chain(host).filter(move |rule| rule.stage == stage)
}

impl Descriptor {
    fn is(&self, entries: &[Entry<'_>]) -> bool {
        self.entries.len() == entries.len()
            && self.entries.iter().zip(entries).all(|((ka, va), (kb, vb))| **ka == **kb && **va == **vb)
    }
}

fn kept<T>(
    at: &str,
    value: Result<T, (&'static str, &'static str)>,
    refuse: &mut dyn FnMut(String, String),
) -> Option<T> {
    value.map_err(|(field, reason)| refuse(format!("{at}.{field}"), reason.into())).ok()
}
