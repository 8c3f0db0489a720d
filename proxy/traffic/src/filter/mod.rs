//! HTTP filters, compiled: what each of them decides, without doing it.
//!
//! A connection manager has a chain of [`HttpFilter`]s. Route tables say what holds for their requests instead: that is
//! resolved for every route when it is compiled ([`RouteFilters`]), level by level (table, virtual host, route, weighted
//! cluster), so that a request only looks into an array at the filter's [`Slot`].

pub mod compression;
pub mod cors;
pub mod csrf;
pub mod ext_authz;
pub mod fault;
pub mod global_rate_limit;
pub mod header_mutation;
pub mod header_to_metadata;
pub mod health_check;
pub mod jwt;
pub mod pace;
pub mod rate_limit;
pub mod stateful_session;
pub mod token_bucket;

use crate::authz::CompiledRbac;
use crate::config::{
    BufferLimit, Compressor, CompressorRoute, Decompressor, ExtAuthzRoute, JwtRoute, SetMetadata,
};
use crate::snapshot::ClusterId;
use std::collections::HashMap;
use std::sync::Arc;

pub use cors::{Cors, CorsPolicy};
pub use csrf::CsrfPolicy;
pub use ext_authz::ExtAuthz;
pub use fault::Fault;
pub use global_rate_limit::{RateLimit, RateLimitRoute};
pub use header_mutation::{HeaderMutation, Mutations};
pub use header_to_metadata::HeaderToMetadata;
pub use health_check::HealthChecks;
pub use jwt::JwtAuthn;
pub use pace::{BandwidthLimit, Pace};
pub use rate_limit::{LocalRateLimit, RateLimitRule, RateLimitRules};
pub use stateful_session::{SessionRoute, StatefulSession};

/// A filter of a connection manager.
#[derive(Debug)]
pub struct HttpFilter {
    /// Its name.
    pub name: Arc<str>,
    /// Where routes speak of it.
    pub slot: Slot,
    /// It runs only where a route says so.
    pub disabled: bool,
    /// What it does.
    pub rules: Filter,
}

/// What a filter does.
#[derive(Debug)]
pub enum Filter {
    /// Authorization by rules.
    Rbac(CompiledRbac),
    /// Faults put in on purpose.
    Fault(Box<Fault>),
    /// Cross-origin requests.
    Cors,
    /// Bodies that take their time.
    BandwidthLimit(Arc<BandwidthLimit>),
    /// Cross-site request forgery.
    Csrf(Box<CsrfPolicy>),
    /// Header edits.
    HeaderMutation(Box<HeaderMutation>),
    /// JSON Web Tokens.
    Jwt(Box<JwtAuthn>),
    /// Rate limits that need no service.
    LocalRateLimit(Box<LocalRateLimit>),
    /// Authorization by a service.
    ExtAuthz(Box<ExtAuthz>),
    /// Header fields become metadata.
    HeaderToMetadata(Arc<HeaderToMetadata>),
    /// Fixed values become metadata.
    SetMetadata(Box<[SetMetadata]>),
    /// Its settings have not arrived.
    Missing,
    /// Rate limits that a service keeps.
    RateLimit(Box<RateLimit>),
    /// Compression of bodies.
    Compressor(Box<Compressor>),
    /// Decompression of bodies.
    Decompressor(Box<Decompressor>),
    /// Requests are held until they are here as a whole.
    Buffer(BufferLimit),
    /// Answers to health checks.
    HealthCheck(Box<HealthChecks>),
    /// gRPC-Web becomes gRPC.
    GrpcWeb,
    /// Sessions that stay with their host.
    StatefulSession(Arc<StatefulSession>),
    /// A filter that the embedding program registered under this name.
    Registered(Arc<str>),
}

/// What a route's settings do.
#[derive(Debug)]
pub enum RouteFilter {
    /// Rules in place of the filter's; `None`: none at all.
    Rbac(Option<CompiledRbac>),
    /// Faults in place of the filter's.
    Fault(Box<Fault>),
    /// What holds for other origins.
    Cors(Box<CorsPolicy>),
    /// A limit in place of the filter's.
    BandwidthLimit(Arc<BandwidthLimit>),
    /// In place of the filter's policy.
    Csrf(Box<CsrfPolicy>),
    /// Edits beside the filter's.
    HeaderMutation(Box<Mutations>),
    /// What its requests need in place of what the rules say.
    Jwt(JwtRoute),
    /// Limits in place of the filter's.
    LocalRateLimit(Box<LocalRateLimit>),
    /// What the rate limit service is told instead.
    RateLimit(Box<RateLimitRoute>),
    /// Whether the service is asked, and what it is told too.
    ExtAuthz(ExtAuthzRoute),
    /// Rules in place of the filter's.
    HeaderToMetadata(Arc<HeaderToMetadata>),
    /// Whether, and how else, responses are compressed.
    Compressor(CompressorRoute),
    /// A limit in place of the filter's; `None`: requests are not held.
    Buffer(Option<BufferLimit>),
    /// Sessions in place of the filter's, or none.
    StatefulSession(Arc<SessionRoute>),
}

impl HttpFilter {
    /// The clusters that it asks.
    pub fn clusters(&self) -> Vec<ClusterId> {
        match &self.rules {
            Filter::Jwt(authn) => authn.clusters().collect(),
            Filter::ExtAuthz(authz) => vec![authz.cluster],
            Filter::RateLimit(limit) => vec![limit.cluster],
            Filter::Rbac(_)
            | Filter::Fault(_)
            | Filter::Cors
            | Filter::BandwidthLimit(_)
            | Filter::Csrf(_)
            | Filter::HeaderMutation(_)
            | Filter::LocalRateLimit(_)
            | Filter::HeaderToMetadata(_)
            | Filter::SetMetadata(_)
            | Filter::Missing
            | Filter::Compressor(_)
            | Filter::Decompressor(_)
            | Filter::Buffer(_)
            | Filter::HealthCheck(_)
            | Filter::GrpcWeb
            | Filter::StatefulSession(_)
            | Filter::Registered(_) => Vec::new(),
        }
    }

    /// Whether it runs, as the route has it.
    pub fn runs(&self, own: Option<&Override>) -> bool {
        own.and_then(|own| own.runs).unwrap_or(!self.disabled)
    }
}

/// Where the overrides of a filter stand in [`RouteFilters`]: one number per name of a filter, in a snapshot and all that
/// follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub(crate) u32);

/// Names of filters and their places. Names are never forgotten: there are as many as an operator thinks of.
#[derive(Clone, Debug, Default)]
pub(crate) struct FilterNames(HashMap<Arc<str>, u32>);

impl FilterNames {
    pub(crate) fn slot(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.0.get(name) {
            return Slot(*slot);
        }
        let slot = self.0.len() as u32;
        self.0.insert(name.into(), slot);
        Slot(slot)
    }
}

/// What a route and the levels above it say about filters, by [`Slot`].
#[derive(Clone, Debug, Default)]
pub struct RouteFilters(Arc<[Option<Override>]>);

/// What the levels of a route say about one filter.
#[derive(Clone, Debug, Default)]
pub struct Override {
    /// Whether it runs; `None`: as the connection manager has it.
    pub runs: Option<bool>,
    /// The settings of all levels that have some, the most specific first.
    pub levels: Box<[Arc<RouteFilter>]>,
}

impl Override {
    /// The most specific settings.
    pub fn settings(&self) -> Option<&RouteFilter> {
        self.levels.first().map(|settings| &**settings)
    }
}

/// What one level says, on its way into a [`RouteFilters`].
pub(crate) enum Word {
    Runs(bool),
    Settings(RouteFilter),
}

impl RouteFilters {
    /// What holds for a filter; `None`: as the connection manager has it.
    ///
    /// Cost: one look into an array.
    pub fn of(&self, slot: Slot) -> Option<&Override> {
        self.0.get(slot.0 as usize)?.as_ref()
    }

    /// The same with what a more specific level says.
    pub(crate) fn with(&self, own: Vec<(Slot, Word)>) -> Self {
        let mut all = self.0.to_vec();
        for (slot, word) in own {
            let at = slot.0 as usize;
            if all.len() <= at {
                all.resize(at + 1, None);
            }
            let Some(entry) = all.get_mut(at) else { continue };
            let entry = entry.get_or_insert_default();
            match word {
                Word::Runs(runs) => entry.runs = Some(runs),
                Word::Settings(settings) => {
                    entry.runs = Some(true);
                    let above = std::mem::take(&mut entry.levels);
                    entry.levels = std::iter::once(Arc::new(settings)).chain(above).collect();
                }
            }
        }
        Self(all.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specific_level_decides_and_settings_of_all_levels_stay() {
        let mut names = FilterNames::default();
        let (a, b) = (names.slot("a"), names.slot("b"));
        assert_eq!(names.slot("a"), a);
        let rules = || Word::Settings(RouteFilter::Rbac(None));
        let host = RouteFilters::default().with(vec![(b, rules())]);
        assert!(host.of(a).is_none() && host.of(b).is_some_and(|own| own.runs == Some(true)));
        let route = host.with(vec![(b, Word::Runs(false)), (a, rules())]);
        assert_eq!(route.of(b).map(|own| (own.runs, own.levels.len())), Some((Some(false), 1)));
        let share = route.with(vec![(a, rules())]);
        assert_eq!(share.of(a).map(|own| own.levels.len()), Some(2));
        assert_eq!(route.of(a).map(|own| own.levels.len()), Some(1), "the level above keeps its own");
        assert!(share.of(Slot(7)).is_none());
    }
}
