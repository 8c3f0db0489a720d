//! `RouteConfiguration`: table, virtual hosts, routes.
//!
//! Reading order: `matches` (which requests) · `action` (what is done with them) · `retry` · `headers` · [`after`] (a table
//! that came again).

mod action;
pub(super) mod after;
mod hash_policy;
pub(super) mod headers;
pub(super) mod matches;
mod mirror;
mod retry;

use super::trace::route_tracing;
use super::value::{header_name, metadata, metadata_switch};
use super::{At, filter};
use headers::header_edits;
use outrigger_api::envoy::config::route::v3 as proto;
use outrigger_api::metadata::RETRY_NON_IDEMPOTENT;
use outrigger_traffic::config::{Route, RouteConfig, VirtualHost};
use std::collections::BTreeSet;

/// Envoy's limit on the body of a direct response, bytes.
const DIRECT_BODY_BYTES: u32 = 4096;

/// A route table. An `inline` one checks its clusters unless it says otherwise, one of its own (RDS) does not.
pub(super) fn route_config(message: &proto::RouteConfiguration, inline: bool, at: &At<'_>) -> RouteConfig {
    let body_bytes_max = message.max_direct_response_body_size_bytes.unwrap_or(DIRECT_BODY_BYTES);
    let mut names = BTreeSet::new();
    let virtual_hosts = message
        .virtual_hosts
        .iter()
        .enumerate()
        .map(|(i, host)| {
            let at = at.item("virtual_hosts", i);
            if !names.insert(host.name.as_str()) {
                at.field("name").refuse(format!("`{}` is given twice", host.name));
            }
            virtual_host(host, body_bytes_max, &at).into()
        })
        .collect();
    let internal = message.internal_only_headers.iter().enumerate();
    let internal = internal.map(|(i, name)| header_name(name, false, &at.item("internal_only_headers", i)));
    RouteConfig {
        name: message.name.clone(),
        virtual_hosts,
        internal_only_headers: internal.collect(),
        headers: header_edits(
            &message.request_headers_to_add,
            &message.request_headers_to_remove,
            &message.response_headers_to_add,
            &message.response_headers_to_remove,
            at,
        ),
        validate_clusters: message.validate_clusters.unwrap_or(inline),
        most_specific_header_mutations_wins: message.most_specific_header_mutations_wins,
        ignore_port_in_host_matching: message.ignore_port_in_host_matching,
        mirrors: mirror::mirrors(&message.request_mirror_policies, at),
        filters: filter::overrides(&message.typed_per_filter_config, at),
    }
}

fn virtual_host(message: &proto::VirtualHost, body_bytes_max: u32, at: &At<'_>) -> VirtualHost {
    use proto::virtual_host::TlsRequirementType as T;
    at.field("name").need_text(&message.name);
    if message.domains.is_empty() {
        at.field("domains").refuse("at least one is required");
    }
    for (i, domain) in message.domains.iter().enumerate() {
        at.item("domains", i).need_text(domain);
    }
    let require_tls = match T::try_from(message.require_tls) {
        Ok(T::None) => false,
        Ok(T::ExternalOnly) => {
            at.field("require_tls").notice("no request counts as internal here: TLS is required of all");
            true
        }
        Ok(T::All) => true,
        Err(_) => {
            at.field("require_tls").refuse("is not supported");
            false
        }
    };
    let retry_policy = message.retry_policy.as_ref().map(|p| {
        retry::retry_policy(p, non_idempotent(message.metadata.as_ref(), at), &at.field("retry_policy"))
    });
    VirtualHost {
        name: message.name.clone(),
        // Host names are compared without regard to case (RFC 9110 §4.2.3).
        domains: message.domains.iter().map(|d| d.to_ascii_lowercase()).collect(),
        routes: message
            .routes
            .iter()
            .enumerate()
            .filter_map(|(i, r)| route(r, body_bytes_max, &at.item("routes", i)))
            .collect(),
        headers: header_edits(
            &message.request_headers_to_add,
            &message.request_headers_to_remove,
            &message.response_headers_to_add,
            &message.response_headers_to_remove,
            at,
        ),
        rate_limits: filter::local_rate_limit::rules_of_level(&message.rate_limits, at),
        require_tls,
        retry_policy,
        include_request_attempt_count: message.include_request_attempt_count,
        include_attempt_count_in_response: message.include_attempt_count_in_response,
        per_request_buffer_limit_bytes: message.per_request_buffer_limit_bytes,
        filters: filter::overrides(&message.typed_per_filter_config, at),
        mirrors: mirror::mirrors(&message.request_mirror_policies, at),
    }
}

fn route(message: &proto::Route, body_bytes_max: u32, at: &At<'_>) -> Option<Route> {
    use proto::route::Action as A;
    let at_match = at.field("match");
    let found = at_match.need(message.r#match.as_ref()).and_then(|m| matches::route_match(m, &at_match));
    let non_idempotent = non_idempotent(message.metadata.as_ref(), at);
    let action = match &message.action {
        Some(A::Route(forward)) => action::forward(forward, non_idempotent, &at.field("route")),
        Some(A::Redirect(redirect)) => Some(action::redirect(redirect, &at.field("redirect"))),
        Some(A::DirectResponse(response)) => {
            Some(action::direct(response, body_bytes_max, &at.field("direct_response")))
        }
        None => {
            at.refuse("`route`, `redirect` or `direct_response` is required");
            None
        }
    };
    let decorator = message.decorator.as_ref().map(|d| {
        at.field("decorator").field("operation").need_text(&d.operation);
        d.operation.clone()
    });
    let headers = header_edits(
        &message.request_headers_to_add,
        &message.request_headers_to_remove,
        &message.response_headers_to_add,
        &message.response_headers_to_remove,
        at,
    );
    let filters = filter::overrides(&message.typed_per_filter_config, at);
    Some(Route {
        name: message.name.clone(),
        matches: found?,
        action: action?,
        headers,
        filters,
        per_request_buffer_limit_bytes: message.per_request_buffer_limit_bytes,
        decorator,
        tracing: message.tracing.as_ref().map(|t| route_tracing(t, &at.field("tracing"))),
    })
}

/// What the metadata says of the retry policy beside it.
fn non_idempotent(from: Option<&outrigger_api::envoy::config::core::v3::Metadata>, at: &At<'_>) -> bool {
    let at = at.field("metadata");
    let ours = metadata(from, &[RETRY_NON_IDEMPOTENT], &at);
    metadata_switch(ours.as_ref(), RETRY_NON_IDEMPOTENT, &at)
}
