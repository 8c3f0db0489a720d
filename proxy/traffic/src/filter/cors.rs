//! What is answered to requests from other origins. Source: Envoy: CORS filter; Fetch Standard, "CORS protocol".

use super::{Override, RouteFilter};
use crate::config::{self, Fraction};
use crate::text::TextMatcher;

/// Compiled [`config::CorsPolicy`].
#[derive(Debug)]
pub struct CorsPolicy {
    config: config::CorsPolicy,
    origins: Box<[TextMatcher]>,
}

/// What the levels of a route say together: every property comes from the most specific level that has it.
#[derive(Clone, Copy, Debug)]
pub struct Cors<'r>(&'r Override);

impl CorsPolicy {
    pub(crate) fn new(from: &config::CorsPolicy, refuse: &mut dyn FnMut(String, String)) -> Self {
        let mut origins = Vec::with_capacity(from.allow_origin.len());
        for (i, origin) in from.allow_origin.iter().enumerate() {
            match TextMatcher::new(origin) {
                Ok(matcher) => origins.push(matcher),
                Err(reason) => refuse(format!("allow_origin_string_match[{i}]"), reason),
            }
        }
        Self { config: from.clone(), origins: origins.into() }
    }
}

impl<'r> Cors<'r> {
    /// Of a route; `None` where no level says anything.
    pub fn of(own: Option<&'r Override>) -> Option<Self> {
        own.filter(|own| !own.levels.is_empty()).map(Self)
    }

    fn policies(self) -> impl Iterator<Item = &'r CorsPolicy> {
        self.0.levels.iter().filter_map(|level| match &**level {
            RouteFilter::Cors(policy) => Some(&**policy),
            _ => None,
        })
    }

    fn first<T>(self, of: impl Fn(&'r config::CorsPolicy) -> Option<T>) -> Option<T> {
        self.policies().find_map(|policy| of(&policy.config))
    }

    fn text(self, of: impl Fn(&'r config::CorsPolicy) -> &'r str) -> &'r str {
        self.first(|policy| Some(of(policy)).filter(|text| !text.is_empty())).unwrap_or_default()
    }

    /// Whether it is in effect. The most specific level alone says so.
    pub fn is_enabled(self, draw: u32) -> bool {
        self.policies()
            .next()
            .is_some_and(|policy| policy.config.enabled.unwrap_or(Fraction::ONE).contains(draw))
    }

    /// Whether the request is counted without effect.
    pub fn is_shadowed(self, draw: u32) -> bool {
        self.policies()
            .next()
            .is_some_and(|policy| policy.config.shadow.unwrap_or(Fraction::ZERO).contains(draw))
    }

    /// Whether an origin is let in: the most specific level that names origins decides.
    pub fn lets_in(self, origin: &[u8]) -> bool {
        let origins = self.policies().map(|policy| &policy.origins).find(|origins| !origins.is_empty());
        origins.is_some_and(|origins| origins.iter().any(|one| one.is_match(b"*") || one.is_match(origin)))
    }

    /// `access-control-allow-methods`; may be empty.
    pub fn allow_methods(self) -> &'r str {
        self.text(|policy| &policy.allow_methods)
    }

    /// `access-control-allow-headers`; may be empty.
    pub fn allow_headers(self) -> &'r str {
        self.text(|policy| &policy.allow_headers)
    }

    /// `access-control-expose-headers`; may be empty.
    pub fn expose_headers(self) -> &'r str {
        self.text(|policy| &policy.expose_headers)
    }

    /// `access-control-max-age`; may be empty.
    pub fn max_age(self) -> &'r str {
        self.text(|policy| &policy.max_age)
    }

    /// Whether credentials may be sent.
    pub fn allow_credentials(self) -> bool {
        self.first(|policy| policy.allow_credentials).unwrap_or(false)
    }

    /// Whether pages of public networks may call into private ones.
    pub fn allow_private_network(self) -> bool {
        self.first(|policy| policy.allow_private_network_access).unwrap_or(false)
    }

    /// Whether preflights of other origins go on.
    pub fn forwards_not_matching_preflights(self) -> bool {
        self.first(|policy| policy.forward_not_matching_preflights).unwrap_or(true)
    }
}
