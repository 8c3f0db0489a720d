//! HTTP filters: the chain of a connection manager, and what route tables say about its members.

use super::{Compilation, routes};
use crate::authz::CompiledRbac;
use crate::config::{self, AuthzService, ExtAuthzRoute, FilterConfig, FilterOverride, RouteFilterConfig};
use crate::filter::{
    BandwidthLimit, CorsPolicy, CsrfPolicy, ExtAuthz, Fault, Filter, HeaderMutation, HeaderToMetadata,
    HealthChecks, HttpFilter, JwtAuthn, LocalRateLimit, Mutations, RateLimit, RateLimitRoute, RateLimitRule,
    RouteFilter, RouteFilters, SessionRoute, StatefulSession, Word,
};
use crate::route::PathMatcher;
use crate::snapshot::ClusterId;
use std::sync::Arc;

/// Where a filter's settings stand, and what they need of the compilation.
pub(crate) struct Cx<'c, 'p> {
    compilation: &'c mut Compilation<'p>,
    resource: &'c str,
    path: String,
}

impl Cx<'_, '_> {
    /// Notes a reason against a field.
    pub(crate) fn refuse(&mut self, field: &str, reason: impl Into<String>) {
        let path = if field.is_empty() { self.path.clone() } else { format!("{}.{field}", self.path) };
        self.compilation.refuse(self.resource, path, reason);
    }

    /// The number of a cluster that is named here.
    pub(crate) fn cluster(&mut self, name: &str) -> ClusterId {
        let number = self.compilation.clusters.number(name);
        self.compilation.referenced.insert(number);
        ClusterId(number)
    }

    /// The same, for those who know nothing of a compilation.
    fn note(&mut self) -> impl FnMut(String, String) {
        |field, reason| self.refuse(&field, reason)
    }
}

/// The filters of a connection manager at `path`.
pub(super) fn chain(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &[config::HttpFilter],
) -> Box<[HttpFilter]> {
    let mut out = Vec::with_capacity(from.len());
    for (i, filter) in from.iter().enumerate() {
        let slot = compilation.filter_names.slot(&filter.name);
        let path = format!("{path}.http_filters[{i}].typed_config");
        let mut cx = Cx { compilation, resource, path };
        if let Some(rules) = compiled(&mut cx, &filter.config) {
            out.push(HttpFilter {
                name: filter.name.as_str().into(),
                slot,
                disabled: filter.disabled,
                rules,
            });
        }
    }
    out.into()
}

fn compiled(cx: &mut Cx<'_, '_>, from: &FilterConfig) -> Option<Filter> {
    Some(match from {
        FilterConfig::Rbac(rbac) => Filter::Rbac(rules(cx, "", rbac)),
        FilterConfig::Fault(fault) => Filter::Fault(Box::new(Fault::new(fault, &mut cx.note()))),
        FilterConfig::Cors => Filter::Cors,
        FilterConfig::BandwidthLimit(limit) => {
            Filter::BandwidthLimit(Arc::new(BandwidthLimit::new(limit, false, &mut cx.note())))
        }
        FilterConfig::Csrf(policy) => Filter::Csrf(Box::new(CsrfPolicy::new(policy, &mut cx.note()))),
        FilterConfig::HeaderMutation(filter) => {
            Filter::HeaderMutation(Box::new(HeaderMutation::new(filter, &mut cx.note())))
        }
        FilterConfig::Jwt(authn) => Filter::Jwt(Box::new(jwt(cx, authn))),
        FilterConfig::LocalRateLimit(limit) => {
            Filter::LocalRateLimit(Box::new(LocalRateLimit::new(limit, &mut cx.note())))
        }
        FilterConfig::ExtAuthz(authz) => {
            let (name, field) = match &authz.service {
                AuthzService::Grpc(target) => (&target.cluster, "grpc_service.envoy_grpc.cluster_name"),
                AuthzService::Http(http) => (&http.target.cluster, "http_service.server_uri.cluster"),
            };
            if name.is_empty() {
                cx.refuse(field, "must not be empty");
            }
            let cluster = cx.cluster(name);
            Filter::ExtAuthz(Box::new(ExtAuthz::new(authz, cluster, &mut cx.note())))
        }
        FilterConfig::RateLimit(limit) => {
            let name = &limit.target.cluster;
            if name.is_empty() {
                cx.refuse("rate_limit_service.grpc_service.envoy_grpc.cluster_name", "must not be empty");
            }
            let cluster = cx.cluster(name);
            Filter::RateLimit(Box::new(RateLimit::new(limit, cluster, &mut cx.note())))
        }
        FilterConfig::HeaderToMetadata(rules) => {
            Filter::HeaderToMetadata(Arc::new(HeaderToMetadata::new(rules, &mut cx.note())))
        }
        FilterConfig::SetMetadata(values) => {
            for (i, _) in values.iter().enumerate().filter(|(_, one)| one.namespace.is_empty()) {
                cx.refuse(&format!("metadata[{i}].metadata_namespace"), "must not be empty");
            }
            Filter::SetMetadata(values.as_slice().into())
        }
        FilterConfig::Missing => Filter::Missing,
        FilterConfig::Compressor(compressor) => Filter::Compressor(compressor.clone()),
        FilterConfig::Decompressor(decompressor) => Filter::Decompressor(decompressor.clone()),
        FilterConfig::Buffer(limit) => Filter::Buffer(*limit),
        FilterConfig::HealthCheck(filter) => {
            Filter::HealthCheck(Box::new(HealthChecks::new(filter, &mut cx.note())))
        }
        FilterConfig::GrpcWeb => Filter::GrpcWeb,
        FilterConfig::StatefulSession(session) => {
            Filter::StatefulSession(Arc::new(StatefulSession::new(session, &mut cx.note())))
        }
        FilterConfig::Registered(name) => Filter::Registered(name.as_str().into()),
    })
}

fn jwt(cx: &mut Cx<'_, '_>, from: &config::JwtAuthn) -> JwtAuthn {
    let mut matches = Vec::with_capacity(from.rules.len());
    for (i, (one, _)) in from.rules.iter().enumerate() {
        let path = format!("{}.rules[{i}].match", cx.path);
        let criteria = routes::criteria(cx.compilation, cx.resource, &path, one);
        let matcher = routes::kept(cx.compilation, cx.resource, || path, PathMatcher::new(&one.path));
        // One that is left out is refused, and nothing comes of the whole.
        matches.extend(matcher.map(|matcher| (matcher, one.case_sensitive, criteria)));
    }
    let mut numbers = Vec::new();
    for provider in from.providers.values() {
        let name = provider.remote_jwks.as_ref().map(|remote| remote.target.cluster.as_str());
        numbers.extend(name.map(|name| (name.to_owned(), cx.cluster(name))));
    }
    let mut cluster = |name: &str| {
        // Every name that is asked for was numbered above.
        numbers.iter().find(|(known, _)| known == name).map_or(ClusterId(u32::MAX), |(_, id)| *id)
    };
    JwtAuthn::new(from, matches, &mut cluster, &mut cx.note())
}

fn rules(cx: &mut Cx<'_, '_>, prefix: &str, rbac: &config::Rbac) -> CompiledRbac {
    CompiledRbac::new(rbac, &mut |field, reason| cx.refuse(&format!("{prefix}{field}"), reason))
}

/// Rules of a level by which requests are told apart for rate limits.
pub(super) fn rate_limits(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &[config::RateLimitRule],
) -> Arc<[RateLimitRule]> {
    let mut out = Vec::with_capacity(from.len());
    for (i, rule) in from.iter().enumerate() {
        let path = format!("{path}.rate_limits[{i}]");
        out.push(RateLimitRule::new(rule, &mut |field, reason| {
            compilation.refuse(resource, format!("{path}.{field}"), reason);
        }));
    }
    out.into()
}

/// What a level says about filters, on top of the levels above.
pub(super) fn overrides(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: Option<&config::FilterOverrides>,
    above: &RouteFilters,
) -> RouteFilters {
    let Some(from) = from else { return above.clone() };
    let mut own = Vec::with_capacity(from.len());
    for (name, word) in from {
        let slot = compilation.filter_names.slot(name);
        let word = match word {
            FilterOverride::Off => Word::Runs(false),
            FilterOverride::On => Word::Runs(true),
            FilterOverride::With(settings) => {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}typed_per_filter_config[{name}]");
                let mut cx = Cx { compilation, resource, path };
                let Some(settings) = route_settings(&mut cx, settings) else { continue };
                Word::Settings(settings)
            }
        };
        own.push((slot, word));
    }
    above.with(own)
}

fn route_settings(cx: &mut Cx<'_, '_>, from: &RouteFilterConfig) -> Option<RouteFilter> {
    Some(match from {
        RouteFilterConfig::Rbac(rbac) => {
            RouteFilter::Rbac(rbac.as_ref().map(|rbac| rules(cx, "rbac.", rbac)))
        }
        RouteFilterConfig::Fault(fault) => RouteFilter::Fault(Box::new(Fault::new(fault, &mut cx.note()))),
        RouteFilterConfig::Cors(policy) => {
            RouteFilter::Cors(Box::new(CorsPolicy::new(policy, &mut cx.note())))
        }
        RouteFilterConfig::BandwidthLimit(limit) => {
            RouteFilter::BandwidthLimit(Arc::new(BandwidthLimit::new(limit, true, &mut cx.note())))
        }
        RouteFilterConfig::Csrf(policy) => {
            RouteFilter::Csrf(Box::new(CsrfPolicy::new(policy, &mut cx.note())))
        }
        RouteFilterConfig::HeaderMutation(mutations) => {
            let mut note = |field: String, reason: String| cx.refuse(&format!("mutations.{field}"), reason);
            RouteFilter::HeaderMutation(Box::new(Mutations::new(mutations, &mut note)))
        }
        RouteFilterConfig::Jwt(route) => RouteFilter::Jwt(route.clone()),
        RouteFilterConfig::LocalRateLimit(limit) => {
            RouteFilter::LocalRateLimit(Box::new(LocalRateLimit::new(limit, &mut cx.note())))
        }
        RouteFilterConfig::RateLimit(route) => {
            RouteFilter::RateLimit(Box::new(RateLimitRoute::new(route, &mut cx.note())))
        }
        RouteFilterConfig::ExtAuthz(route) => {
            let body = match route {
                ExtAuthzRoute::Check(check) => check.body.flatten(),
                ExtAuthzRoute::Disabled => None,
            };
            if body.is_some_and(|body| body.bytes_max == 0) {
                cx.refuse("check_settings.with_request_body.max_request_bytes", "must be greater than 0");
            }
            RouteFilter::ExtAuthz(route.clone())
        }
        RouteFilterConfig::HeaderToMetadata(rules) => {
            RouteFilter::HeaderToMetadata(Arc::new(HeaderToMetadata::new(rules, &mut cx.note())))
        }
        RouteFilterConfig::Compressor(route) => RouteFilter::Compressor(*route),
        RouteFilterConfig::Buffer(limit) => RouteFilter::Buffer(*limit),
        RouteFilterConfig::StatefulSession(route) => RouteFilter::StatefulSession(Arc::new(match &**route {
            config::SessionRoute::Disabled => SessionRoute::Disabled,
            config::SessionRoute::Instead(session) => {
                let mut note =
                    |field: String, reason: String| cx.refuse(&format!("stateful_session.{field}"), reason);
                SessionRoute::Instead(StatefulSession::new(session, &mut note))
            }
        })),
    })
}
