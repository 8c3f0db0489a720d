//! Authorization by a service: which requests it is asked about, and what it is told. Source: Envoy: external authorization
//! filter.

use crate::config::{self, AuthzBody, AuthzService, ExtAuthzRoute, StringMatch};
use crate::filter::{Override, RouteFilter};
use crate::metadata::{Metadata, MetadataMatcher};
use crate::snapshot::ClusterId;
use crate::text::TextMatcher;
use std::collections::BTreeMap;

/// Compiled [`config::ExtAuthz`].
#[derive(Debug)]
pub struct ExtAuthz {
    /// As it was asked for.
    pub config: config::ExtAuthz,
    /// The service's cluster.
    pub cluster: ClusterId,
    /// Fields of an HTTP service's answers.
    pub answers: Answers,
    enabled_metadata: Option<MetadataMatcher>,
    allowed: Option<Names>,
    disallowed: Names,
}

/// Names of fields.
#[derive(Debug, Default)]
pub struct Names(Box<[TextMatcher]>);

/// What becomes of the fields of an HTTP service's answers.
#[derive(Debug, Default)]
pub struct Answers {
    /// Set in the request.
    pub upstream: Names,
    /// Joined to those of the request.
    pub upstream_append: Names,
    /// For the client, with a refusal; nothing said: all.
    pub client: Option<Names>,
    /// For the client, with the response.
    pub client_success: Names,
    /// Become metadata.
    pub metadata: Names,
}

impl Names {
    fn new(from: &[StringMatch], field: &str, refuse: &mut dyn FnMut(String, String)) -> Self {
        let each = from.iter().enumerate();
        let matchers = each.filter_map(|(i, one)| {
            TextMatcher::new(one).map_err(|reason| refuse(format!("{field}.patterns[{i}]"), reason)).ok()
        });
        Self(matchers.collect())
    }

    /// Whether a lower-case name is one of them.
    pub fn contain(&self, name: &[u8]) -> bool {
        self.0.iter().any(|one| one.is_match(name))
    }
}

impl ExtAuthz {
    /// Makes it ready.
    pub(crate) fn new(
        from: &config::ExtAuthz,
        cluster: ClusterId,
        refuse: &mut dyn FnMut(String, String),
    ) -> Self {
        let answers = match &from.service {
            AuthzService::Grpc(_) => Answers::default(),
            AuthzService::Http(http) => {
                let at = "http_service.authorization_response";
                let mut names =
                    |list: &[StringMatch], field: &str| Names::new(list, &format!("{at}.{field}"), refuse);
                Answers {
                    upstream: names(&http.upstream_headers, "allowed_upstream_headers"),
                    upstream_append: names(
                        &http.upstream_headers_to_append,
                        "allowed_upstream_headers_to_append",
                    ),
                    client: (!http.client_headers.is_empty())
                        .then(|| names(&http.client_headers, "allowed_client_headers")),
                    client_success: names(
                        &http.client_headers_on_success,
                        "allowed_client_headers_on_success",
                    ),
                    metadata: names(&http.metadata_from_headers, "dynamic_metadata_from_headers"),
                }
            }
        };
        let enabled_metadata = from.enabled_metadata.as_ref().and_then(|matcher| {
            let made = MetadataMatcher::new(matcher);
            made.map_err(|reason| refuse("filter_enabled_metadata".into(), reason)).ok()
        });
        if from.body.is_some_and(|body| body.bytes_max == 0) {
            refuse("with_request_body.max_request_bytes".into(), "must be greater than 0".into());
        }
        Self {
            config: from.clone(),
            cluster,
            answers,
            enabled_metadata,
            allowed: from.allowed_headers.as_ref().map(|list| Names::new(list, "allowed_headers", refuse)),
            disallowed: Names::new(&from.disallowed_headers, "disallowed_headers", refuse),
        }
    }

    /// Whether a request is asked about, as chance has it.
    pub fn is_enabled(&self, draw: u32, metadata: Option<&Metadata>) -> bool {
        self.config.enabled.contains(draw)
            && self.enabled_metadata.as_ref().is_none_or(|matcher| matcher.matches(metadata))
    }

    /// Whether the service is told a header (lower case).
    pub fn tells(&self, name: &[u8]) -> bool {
        if self.disallowed.contain(name) {
            return false;
        }
        match (&self.allowed, &self.config.service) {
            (Some(allowed), AuthzService::Grpc(_)) => allowed.contain(name),
            (Some(allowed), AuthzService::Http(_)) => name == b"authorization" || allowed.contain(name),
            (None, AuthzService::Grpc(_)) => true,
            (None, AuthzService::Http(_)) => name == b"authorization",
        }
    }
}

impl ExtAuthz {
    /// What the service is told of the body, as the most specific level has it.
    pub fn body(&self, own: Option<&Override>) -> Option<AuthzBody> {
        match own.and_then(Override::settings) {
            Some(RouteFilter::ExtAuthz(ExtAuthzRoute::Check(check))) => {
                check.body.unwrap_or(self.config.body)
            }
            _ => self.config.body,
        }
    }
}

/// What the levels of a route say: `None`: its requests are not asked about; else what the service is told too, of which
/// the more specific level decides.
pub fn extensions(own: Option<&Override>) -> Option<BTreeMap<&str, &str>> {
    let mut all = BTreeMap::new();
    let levels = own.map(|own| &*own.levels).unwrap_or_default();
    if let Some(RouteFilter::ExtAuthz(ExtAuthzRoute::Disabled)) = levels.first().map(|level| &**level) {
        return None;
    }
    for level in levels.iter().rev() {
        if let RouteFilter::ExtAuthz(ExtAuthzRoute::Check(own)) = &**level {
            all.extend(own.extensions.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        }
    }
    Some(all)
}
