//! HTTP rules of VirtualServices into routes.

use std::time::Duration;

use outrigger_traffic::config::{
    Action, ClusterChoice, DirectResponse, HashPolicy, HeaderAppend, HeaderEdit, HeaderEdits, HeaderMatch,
    HeaderValueMatch, HostRewrite, Mirror, PathMatch, PathRewrite, QueryMatch, QueryValueMatch, Redirect,
    RetryPolicy, Route, RouteAction, RouteMatch, StringMatch, StringPattern, WeightedCluster,
};

use super::filters;
use super::security::escape;
use crate::inventory::has_labels;
use crate::node::Flavour;
use crate::resource::Object;
use crate::resource::virtual_service::{
    Headers, HttpAction, HttpDestination, HttpMatch, HttpRoute, Layer4Match, PathRewriteRule, Retries,
    Rewrite,
};
use crate::retry;
use crate::scope::{Scope, gateway_name};

/// Annotation of a VirtualService that allows its routes to send a non-idempotent request again after the application may
/// have received it.
pub const RETRY_ANNOTATION: &str = "outrigger.dev/retry-non-idempotent";

/// Where rules are read for.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The node's view.
    pub scope: &'a Scope<'a>,
    /// `mesh`, or the gateway as `namespace/name`.
    pub gateway: &'a str,
    /// Port the traffic came for.
    pub port: u16,
}

impl Place<'_> {
    fn is_meant(
        &self,
        object: &Object,
        port: Option<u16>,
        gateways: &[String],
        labels: &std::collections::BTreeMap<String, String>,
        namespace: Option<&str>,
    ) -> bool {
        let node = self.scope.node;
        port.is_none_or(|p| p == self.port)
            && (gateways.is_empty()
                || gateways.iter().any(|g| gateway_name(g, &object.metadata.namespace) == self.gateway))
            && has_labels(&node.labels, labels)
            && namespace.is_none_or(|n| n == node.namespace)
    }

    /// Whether a match can hold here at all, as far as that is known now.
    pub fn layer4(&self, object: &Object, matched: &Layer4Match) -> bool {
        self.is_meant(
            object,
            matched.port,
            &matched.gateways,
            &matched.source_labels,
            matched.source_namespace.as_deref(),
        )
    }

    fn http(&self, object: &Object, matched: &HttpMatch) -> bool {
        self.is_meant(
            object,
            matched.port,
            &matched.gateways,
            &matched.source_labels,
            matched.source_namespace.as_deref(),
        )
    }
}

/// The routes of a VirtualService at a place, in order.
pub fn of_virtual_service(place: Place<'_>, object: &Object, rules: &[HttpRoute]) -> Vec<Route> {
    let mut routes = Vec::new();
    for rule in rules {
        let all = HttpMatch::default();
        let matches: Vec<&HttpMatch> =
            if rule.matches.is_empty() { vec![&all] } else { rule.matches.iter().collect() };
        for matched in matches.into_iter().filter(|m| place.http(object, m)) {
            routes.push(route(place, object, rule, matched));
            if is_everything(matched) {
                // Nothing after it can match.
                return routes;
            }
        }
    }
    routes
}

fn is_everything(matched: &HttpMatch) -> bool {
    let rest = HttpMatch {
        name: String::new(),
        port: None,
        gateways: Vec::new(),
        source_labels: Default::default(),
        source_namespace: None,
        ..matched.clone()
    };
    rest == HttpMatch { ignore_uri_case: matched.ignore_uri_case, ..HttpMatch::default() }
}

/// The route to a service that no VirtualService is about.
pub fn to_cluster(scope: &Scope<'_>, cluster: String, hash: Option<HashPolicy>) -> Route {
    let mut action = RouteAction::to(cluster);
    action.hash_policy.extend(hash);
    action.timeout = None;
    action.retry_policy = for_client(scope, default_retries(scope));
    plain("default", RouteMatch::prefix("/"), Action::Forward(Box::new(action)))
}

/// The answer where nothing is known of a host: 502 says that it is the mesh, not the application, that has no way there.
pub fn to_nowhere() -> Route {
    let response = DirectResponse { status: 502, body: Vec::new(), content_type: None };
    plain("block_all", RouteMatch::prefix("/"), Action::Direct(response))
}

fn plain(name: &str, matches: RouteMatch, action: Action) -> Route {
    Route {
        name: name.to_owned(),
        matches,
        action,
        headers: HeaderEdits::default(),
        filters: None,
        per_request_buffer_limit_bytes: None,
        decorator: None,
        tracing: None,
    }
}

fn route(place: Place<'_>, object: &Object, rule: &HttpRoute, matched: &HttpMatch) -> Route {
    let name = match (rule.name.as_str(), matched.name.as_str()) {
        (rule, "") => rule.to_owned(),
        ("", matched) => matched.to_owned(),
        (rule, matched) => format!("{rule}.{matched}"),
    };
    let action = match &rule.action {
        HttpAction::Route(destinations) => {
            Action::Forward(Box::new(forward(place, object, rule, matched, destinations)))
        }
        HttpAction::Redirect(redirect) => Action::Redirect(Redirect {
            status: redirect.status,
            scheme: redirect.scheme.clone(),
            host: redirect.authority.clone(),
            port: redirect.port,
            path: redirect.uri.clone(),
            path_rewrite: None,
            strip_query: false,
        }),
        HttpAction::Respond(respond) => Action::Direct(DirectResponse {
            status: respond.status,
            body: respond.body.clone(),
            content_type: None,
        }),
    };
    let mut route = plain(&name, conditions(matched), action);
    route.headers = edits(&rule.headers);
    route.filters = filters::of_rule(place.scope, rule);
    route
}

fn forward(
    place: Place<'_>,
    object: &Object,
    rule: &HttpRoute,
    matched: &HttpMatch,
    destinations: &[HttpDestination],
) -> RouteAction {
    let cluster = |d: &HttpDestination| place.scope.cluster(object, &d.destination, place.port);
    let choice = match destinations {
        [only] if only.headers == Headers::default() => ClusterChoice::Single(cluster(only)),
        several => ClusterChoice::Weighted(
            several
                .iter()
                .map(|d| WeightedCluster {
                    name: cluster(d),
                    cluster_header: None,
                    weight: d.weight,
                    headers: edits(&d.headers),
                    host_rewrite: authority(&d.headers),
                    filters: None,
                    metadata_match: Vec::new(),
                })
                .collect(),
        ),
    };
    let mut action = RouteAction::to(String::new());
    action.cluster = choice;
    action.hash_policy =
        place.scope.hash_policies(object, destinations.iter().map(|d| &d.destination), place.port);
    action.timeout = rule.timeout.filter(|t| !t.is_zero());
    let told = rule.rewrite.as_ref().and_then(|r| r.authority.clone()).or_else(|| authority(&rule.headers));
    action.host_rewrite = told.map(HostRewrite::Literal);
    action.path_rewrite = rule.rewrite.as_ref().and_then(|r| path_rewrite(r, matched));
    action.retry_policy = for_client(place.scope, retries(place.scope, object, rule.retries.as_ref()));
    action.mirrors = rule
        .mirrors
        .iter()
        .map(|mirror| {
            let cluster = place.scope.cluster(object, &mirror.destination, place.port);
            Mirror { fraction: mirror.share, ..Mirror::to(cluster) }
        })
        .collect();
    action
}

fn path_rewrite(rewrite: &Rewrite, matched: &HttpMatch) -> Option<PathRewrite> {
    match rewrite.path.as_ref()? {
        PathRewriteRule::Regex { pattern, substitution } => {
            Some(PathRewrite::Regex { pattern: pattern.clone(), substitution: substitution.clone() })
        }
        PathRewriteRule::Matched(to) => match matched.uri.as_ref().map(|m| &m.pattern) {
            // `/api` replaced by `/` would turn `/api/x` into `//x`.
            Some(StringPattern::Prefix(prefix))
                if to == "/" && !prefix.ends_with('/') && !matched.ignore_uri_case =>
            {
                Some(PathRewrite::Regex {
                    pattern: format!("^{}(/?)(.*)", escape(prefix)),
                    substitution: "/\\2".into(),
                })
            }
            _ => Some(PathRewrite::Prefix(to.clone())),
        },
    }
}

fn conditions(matched: &HttpMatch) -> RouteMatch {
    let mut conditions = RouteMatch::prefix("/");
    conditions.case_sensitive = !matched.ignore_uri_case;
    if let Some(uri) = &matched.uri {
        conditions.path = match &uri.pattern {
            StringPattern::Exact(path) => PathMatch::Exact(path.clone()),
            StringPattern::Prefix(path) => PathMatch::Prefix(path.clone()),
            StringPattern::Regex(pattern) if matched.ignore_uri_case => {
                PathMatch::Regex(format!("(?i){pattern}"))
            }
            StringPattern::Regex(pattern) => PathMatch::Regex(pattern.clone()),
            // Not in Istio's StringMatch.
            StringPattern::Suffix(text) => PathMatch::Regex(format!(".*{}", escape(text))),
            StringPattern::Contains(text) => PathMatch::Regex(format!(".*{}.*", escape(text))),
        };
    }
    let pseudo =
        [(":scheme", &matched.scheme), (":method", &matched.method), (":authority", &matched.authority)];
    for (name, wanted) in pseudo {
        if let Some(wanted) = wanted {
            conditions.headers.push(header(name, Some(wanted), false));
        }
    }
    conditions
        .headers
        .extend(matched.headers.iter().map(|(name, wanted)| header(name, wanted.as_ref(), false)));
    conditions
        .headers
        .extend(matched.without_headers.iter().map(|(name, wanted)| header(name, wanted.as_ref(), true)));
    conditions.query = matched
        .query
        .iter()
        .map(|(name, wanted)| QueryMatch {
            name: name.clone(),
            value: wanted.clone().map_or(QueryValueMatch::Present(true), QueryValueMatch::Text),
        })
        .collect();
    conditions
}

/// A header that is absent does not have the value that must not be there.
fn header(name: &str, wanted: Option<&StringMatch>, without: bool) -> HeaderMatch {
    HeaderMatch {
        name: name.to_owned(),
        value: wanted.cloned().map_or(HeaderValueMatch::Present(true), HeaderValueMatch::Text),
        invert: without,
        treat_missing_as_empty: without && wanted.is_some(),
    }
}

fn authority(headers: &Headers) -> Option<String> {
    headers
        .request
        .set
        .iter()
        .find(|(name, _)| matches!(name.as_str(), "host" | ":authority"))
        .map(|(_, value)| value.clone())
}

fn edits(headers: &Headers) -> HeaderEdits {
    let list = |set: &[(String, String)], add: &[(String, String)]| {
        let edit = |append: HeaderAppend| {
            move |(name, value): &(String, String)| HeaderEdit {
                name: name.clone(),
                value: value.clone(),
                append,
                keep_empty_value: false,
            }
        };
        let is_field = |(name, _): &&(String, String)| !matches!(name.as_str(), "host" | ":authority");
        let mut edits: Vec<HeaderEdit> =
            set.iter().filter(is_field).map(edit(HeaderAppend::OverwriteIfExistsOrAdd)).collect();
        edits.extend(add.iter().map(edit(HeaderAppend::AppendIfExistsOrAdd)));
        edits
    };
    HeaderEdits {
        request_add: list(&headers.request.set, &headers.request.add),
        request_remove: headers.request.remove.clone(),
        response_add: list(&headers.response.set, &headers.response.add),
        response_remove: headers.response.remove.clone(),
    }
}

/// The mesh's default. Our own proxies also try again after a reset, because they never do so with a request that is not
/// idempotent; Envoy would.
pub fn default_retries(scope: &Scope<'_>) -> RetryPolicy {
    let mut policy = retry::default_policy();
    policy.retry_on.reset = scope.node.flavour == Flavour::Outrigger;
    policy
}

/// gRPC refuses a policy of no retries (gRFC A44); none at all says the same.
fn for_client(scope: &Scope<'_>, policy: RetryPolicy) -> Option<RetryPolicy> {
    (scope.node.flavour != Flavour::Grpc || policy.num_retries > 0).then_some(policy)
}

fn retries(scope: &Scope<'_>, object: &Object, told: Option<&Retries>) -> RetryPolicy {
    let mut policy = default_retries(scope);
    policy.retry_non_idempotent =
        object.metadata.annotations.get(RETRY_ANNOTATION).is_some_and(|v| v == "true");
    let Some(told) = told else { return policy };
    policy.num_retries = told.attempts;
    policy.per_try_timeout = told.per_try_timeout;
    if !told.ignore_previous_hosts {
        policy.avoid_previous_hosts = false;
        policy.host_selection_max_attempts = 1;
    }
    if let Some(base) = told.backoff {
        policy.base_interval = base;
        policy.max_interval = base.checked_mul(10).unwrap_or(Duration::MAX);
    }
    if let Some(words) = &told.retry_on {
        policy.retry_on = Default::default();
        for word in words {
            if let Ok(set) = retry::condition(word) {
                set(&mut policy.retry_on);
            }
            policy.retriable_status_codes.extend(retry::status(word));
        }
    }
    policy
}
