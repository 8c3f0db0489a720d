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
}

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
        Self { stage: from.stage, actions }
    }

    /// The descriptor of a request; `None` where an action has nothing to say.
    pub(super) fn descriptor<'a>(&'a self, subject: &Subject<'a>) -> Option<Vec<Entry<'a>>> {
        let mut entries = Vec::with_capacity(self.actions.len());
        for action in &self.actions {
            match action.entry(subject) {
                Said::Entry(key, value) => entries.push((key, value)),
                Said::Skip => {}
                Said::Nothing => return None,
            }
        }
        (!entries.is_empty()).then_some(entries)
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
    bucket: Option<TokenBucket>,
    descriptors: Box<[Descriptor]>,
    rules: Box<[RateLimitRule]>,
}

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
        Self {
            config: from.clone(),
            request_edits,
            response_edits,
            bucket,
            descriptors: descriptors.into(),
            rules,
        }
    }

    /// Whether a request is looked at.
    pub fn is_enabled(&self, draw: u32) -> bool {
        self.config.enabled.contains(draw)
    }

    /// Whether a request above the rate is refused.
    pub fn is_enforced(&self, draw: u32) -> bool {
        self.config.enforced.contains(draw)
    }

    /// Takes a token for a request; `None` where no bucket is for it. `now` is as in [`TokenBucket::take`].
    pub fn take(&self, rules: Option<&RateLimitRules>, subject: &Subject<'_>, now: u64) -> Option<Taken> {
        let mut first = None;
        if !self.descriptors.is_empty() {
            let requested: Vec<Vec<Entry<'_>>> =
                self.rules_for(rules).filter_map(|rule| rule.descriptor(subject)).collect();
            for descriptor in &self.descriptors {
                if !requested.iter().any(|entries| descriptor.is(entries)) {
                    continue;
                }
                let taken = descriptor.bucket.take(now);
                if !taken.allowed {
                    return Some(taken);
                }
                first = first.or(Some(taken));
            }
        }
        match (&self.bucket, first) {
            (Some(bucket), None) => Some(bucket.take(now)),
            (Some(bucket), Some(first)) if self.config.always_consume_default => {
                let taken = bucket.take(now);
                Some(if taken.allowed { first } else { taken })
            }
            (_, first) => first,
        }
    }

    fn rules_for<'a>(
        &'a self,
        levels: Option<&'a RateLimitRules>,
    ) -> impl Iterator<Item = &'a RateLimitRule> {
        rules_for(&self.rules, self.config.virtual_host, self.config.stage, levels)
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
