//! Rate limits that a service keeps: which requests it is asked about, and how they are told apart. Source: Envoy: rate
//! limit filter.

use super::rate_limit::{Described, RateLimitRule, RateLimitRules, Subject, rules_for};
use crate::config::{self, RateLimited, VirtualHostRules};
use crate::route::Edits;
use crate::snapshot::ClusterId;

/// Compiled [`config::RateLimit`].
#[derive(Debug)]
pub struct RateLimit {
    /// As it was asked for.
    pub config: config::RateLimit,
    /// The service's cluster.
    pub cluster: ClusterId,
    /// Edits of the refusals.
    pub response_edits: Edits,
    rules: Box<[RateLimitRule]>,
}

/// Compiled [`config::RateLimitRoute`].
#[derive(Debug)]
pub struct RateLimitRoute {
    /// As it was asked for.
    pub config: config::RateLimitRoute,
    rules: Box<[RateLimitRule]>,
}

fn compiled(from: &[config::RateLimitRule], refuse: &mut dyn FnMut(String, String)) -> Box<[RateLimitRule]> {
    let each = from.iter().enumerate();
    each.map(|(i, rule)| {
        RateLimitRule::new(rule, &mut |f, reason| refuse(format!("rate_limits[{i}].{f}"), reason))
    })
    .collect()
}

impl RateLimitRoute {
    /// Makes it ready.
    pub(crate) fn new(from: &config::RateLimitRoute, refuse: &mut dyn FnMut(String, String)) -> Self {
        Self { config: from.clone(), rules: compiled(&from.rules, refuse) }
    }
}

impl RateLimit {
    /// Makes it ready.
    pub(crate) fn new(
        from: &config::RateLimit,
        cluster: ClusterId,
        refuse: &mut dyn FnMut(String, String),
    ) -> Self {
        if from.domain.is_empty() {
            refuse("domain".into(), "must not be empty".into());
        }
        if from.stage > 10 {
            refuse("stage".into(), "must be at most 10".into());
        }
        if from.status < 400 {
            refuse("rate_limited_status".into(), "must be at least 400".into());
        }
        let edits: Vec<_> = from.response_add.iter().cloned().map(config::HeaderMutation::Set).collect();
        Self {
            config: from.clone(),
            cluster,
            response_edits: Edits::of_mutations("response_headers_to_add", &edits, refuse),
            rules: compiled(&from.rules, refuse),
        }
    }

    /// Whether a request is asked about, by where it comes from and by chance.
    pub fn is_enabled(&self, internal: bool, draw: u32) -> bool {
        let concerned = match self.config.requests {
            RateLimited::All => true,
            RateLimited::Internal => internal,
            RateLimited::External => !internal,
        };
        concerned && self.config.enabled.contains(draw)
    }

    /// What the service is told of a request: whose limits, and the descriptors, in order. None: it is not asked.
    pub fn descriptors<'a>(
        &'a self,
        own: Option<&'a RateLimitRoute>,
        levels: Option<&'a RateLimitRules>,
        subject: &Subject<'a>,
    ) -> (&'a str, Vec<Described<'a>>) {
        let rules = own.map(|own| &*own.rules).filter(|rules| !rules.is_empty()).unwrap_or(&self.rules);
        let host = own.map_or(VirtualHostRules::Override, |own| own.config.virtual_host);
        let domain = own.map(|own| own.config.domain.as_str()).filter(|domain| !domain.is_empty());
        let rules = rules_for(rules, host, self.config.stage, levels);
        let descriptors = rules.filter_map(|rule| rule.descriptor(subject)).collect();
        (domain.unwrap_or(&self.config.domain), descriptors)
    }
}
