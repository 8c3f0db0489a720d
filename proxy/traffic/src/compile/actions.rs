//! What routes do: forwarding, redirects, direct responses.

use super::routes::{Above, HostDefaults, kept, level};
use super::{Compilation, filters};
use crate::balance::Criteria;
use crate::config;
use crate::retry::RetryPolicy;
use crate::route::split::Share;
use crate::route::{
    Action, Choice, Direct, Forward, HashRules, HostRewriter, MirrorTarget, PathRewriter, Redirect,
};
use crate::snapshot::ClusterId;
use std::sync::Arc;

/// Source: Envoy: `max_direct_response_body_size_bytes`.
const DIRECT_BODY_MAX: usize = 4096;

/// The action of a route; `above` are the merged edits of route and everything above it.
pub(super) fn action(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::Action,
    above: &Above,
    defaults: &HostDefaults,
) -> Option<Action> {
    Some(match from {
        config::Action::Forward(a) => Action::Forward(Arc::new(forward(
            compilation,
            resource,
            &format!("{path}.route"),
            a,
            above,
            defaults,
        )?)),
        config::Action::Redirect(r) => {
            Action::Redirect(redirect(compilation, resource, &format!("{path}.redirect"), r)?)
        }
        config::Action::Direct(d) => {
            Action::Direct(direct(compilation, resource, &format!("{path}.direct_response"), d)?)
        }
    })
}

pub(super) fn retry(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::RetryPolicy,
) -> Option<Arc<RetryPolicy>> {
    match RetryPolicy::new(from) {
        Ok(policy) => Some(Arc::new(policy)),
        Err(errors) => {
            for (field, reason) in errors {
                compilation.refuse(resource, format!("{path}.{field}"), reason);
            }
            None
        }
    }
}

fn forward(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::RouteAction,
    above: &Above,
    defaults: &HostDefaults,
) -> Option<Forward> {
    let choice = choice(compilation, resource, path, &from.cluster, &from.metadata_match, above);
    let path_rewrite = from
        .path_rewrite
        .as_ref()
        .and_then(|r| kept(compilation, resource, || format!("{path}.regex_rewrite"), PathRewriter::new(r)));
    let host_rewrite = from
        .host_rewrite
        .as_ref()
        .and_then(|r| kept(compilation, resource, || format!("{path}.host_rewrite"), HostRewriter::new(r)));
    if !(100..=599).contains(&from.cluster_not_found_status) {
        compilation.refuse(
            resource,
            format!("{path}.cluster_not_found_response_code"),
            "must be between 100 and 599",
        );
    }
    let retry = match &from.retry_policy {
        Some(policy) => retry(compilation, resource, &format!("{path}.retry_policy"), policy),
        None => defaults.retry.clone(),
    };
    if (from.connect_ends || from.post_ends)
        && !from.upgrades.iter().any(|one| one.upgrade_type.eq_ignore_ascii_case("connect"))
    {
        let at = format!("{path}.upgrade_configs");
        compilation.refuse(resource, at, "connect_config needs an upgrade of type CONNECT");
    }
    for (i, upgrade) in from.upgrades.iter().enumerate() {
        if upgrade.upgrade_type.is_empty() {
            compilation.refuse(
                resource,
                format!("{path}.upgrade_configs[{i}].upgrade_type"),
                "must not be empty",
            );
        }
    }
    let hash = HashRules::new(&from.hash_policy).unwrap_or_else(|(i, field, reason)| {
        compilation.refuse(resource, format!("{path}.hash_policy[{i}].{field}"), reason);
        HashRules::default()
    });
    let mirrors = match from.mirrors.as_slice() {
        [] => defaults.mirrors.clone(),
        own => mirrors(compilation, resource, &format!("{path}.request_mirror_policies"), own),
    };
    if let Some(redirects) = &from.internal_redirect
        && let Some(status) = redirects.statuses.iter().find(|s| !matches!(s, 301 | 302 | 303 | 307 | 308))
    {
        let reason = format!("{status} is none of 301, 302, 303, 307, 308");
        let at = format!("{path}.internal_redirect_policy.redirect_response_codes");
        compilation.refuse(resource, at, reason);
    }
    Some(Forward {
        grpc_timeout_header_offset: from.grpc_timeout_header_offset,
        split_header: from.split_header.as_ref().map(|name| name.to_ascii_lowercase().into_bytes().into()),
        mirrors,
        internal_redirect: from.internal_redirect.clone().map(Arc::new),
        choice: choice?,
        cluster_not_found_status: from.cluster_not_found_status,
        path_rewrite,
        host_rewrite,
        append_x_forwarded_host: from.append_x_forwarded_host,
        timeout: from.timeout,
        idle_timeout: from.idle_timeout,
        max_stream_duration: from.max_stream_duration,
        grpc_timeout_header_max: from.grpc_timeout_header_max,
        retry,
        upgrades: from.upgrades.as_slice().into(),
        connect_ends: from.connect_ends,
        post_ends: from.post_ends,
        high_priority: from.high_priority,
        hash,
        criteria: Criteria::new(from.metadata_match.iter()).map(Arc::new),
    })
}

/// Targets of copies.
pub(super) fn mirrors(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &[config::Mirror],
) -> Arc<[MirrorTarget]> {
    let mut targets = Vec::with_capacity(from.len());
    for (i, one) in from.iter().enumerate() {
        let cluster = match &one.cluster {
            config::MirrorCluster::Single(name) | config::MirrorCluster::Header(name) if name.is_empty() => {
                compilation.refuse(resource, format!("{path}[{i}].cluster"), "must not be empty");
                continue;
            }
            config::MirrorCluster::Single(name) => {
                Choice::Single(ClusterId(compilation.clusters.number(name)))
            }
            config::MirrorCluster::Header(name) => {
                Choice::Header(name.to_ascii_lowercase().into_bytes().into())
            }
        };
        targets.push(MirrorTarget {
            cluster,
            fraction: one.fraction,
            trace_sampled: one.trace_sampled,
            keep_host: one.keep_host,
            host_rewrite: one.host_rewrite.as_ref().map(|host| host.as_bytes().into()),
        });
    }
    targets.into()
}

/// A cluster choice; `above` are the edits of the levels above shares.
pub(super) fn choice(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::ClusterChoice,
    demands: &[(String, config::LbValue)],
    above: &Above,
) -> Option<Choice> {
    match from {
        config::ClusterChoice::Single(name) if name.is_empty() => {
            compilation.refuse(resource, format!("{path}.cluster"), "must not be empty");
            None
        }
        config::ClusterChoice::Single(name) => {
            Some(Choice::Single(ClusterId(compilation.clusters.number(name))))
        }
        config::ClusterChoice::Header(name) if name.is_empty() => {
            compilation.refuse(resource, format!("{path}.cluster_header"), "must not be empty");
            None
        }
        config::ClusterChoice::Header(name) => {
            Some(Choice::Header(name.to_ascii_lowercase().into_bytes().into()))
        }
        config::ClusterChoice::Weighted(shares) => {
            weighted(compilation, resource, &format!("{path}.weighted_clusters"), shares, demands, above)
        }
    }
}

fn weighted(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &[config::WeightedCluster],
    demands: &[(String, config::LbValue)],
    above: &Above,
) -> Option<Choice> {
    let mut sum = 0u64;
    let mut shares = Vec::with_capacity(from.len());
    for (i, share) in from.iter().enumerate() {
        let path = format!("{path}.clusters[{i}]");
        if share.name.is_empty() == share.cluster_header.is_none() {
            let reason = "one of the name of a cluster and a header that names it is needed";
            compilation.refuse(resource, format!("{path}.name"), reason);
        }
        sum += u64::from(share.weight);
        let level = level(compilation, resource, &format!("{path}."), &share.headers);
        // The share's come first, whichever level is to win (Envoy).
        let response_edits = level.response.then(&above.level.response);
        let host_rewrite = share.host_rewrite.as_ref().and_then(|h| {
            let rewrite = HostRewriter::new(&config::HostRewrite::Literal(h.clone()));
            kept(compilation, resource, || format!("{path}.host_rewrite_literal"), rewrite)
        });
        shares.push(Share {
            cluster: ClusterId(compilation.clusters.number(&share.name)),
            cluster_header: share.cluster_header.as_ref().map(|h| h.to_ascii_lowercase().into_bytes().into()),
            upper: u32::try_from(sum).unwrap_or(u32::MAX),
            request_edits: level.request,
            response_edits,
            host_rewrite,
            filters: filters::overrides(compilation, resource, &path, share.filters.as_ref(), &above.filters),
            criteria: Criteria::new(demands.iter().chain(&share.metadata_match)).map(Arc::new),
        });
    }
    if sum == 0 || sum > u64::from(u32::MAX) {
        let reason = format!("the sum of weights is {sum}; it must be between 1 and 4294967295");
        compilation.refuse(resource, path, reason);
        return None;
    }
    Some(Choice::Weighted(shares.into()))
}

/// Clusters that a choice names.
pub(super) fn choice_references(choice: &Choice) -> impl Iterator<Item = ClusterId> + '_ {
    let (one, many) = match choice {
        Choice::Single(cluster) => (Some(*cluster), &[][..]),
        Choice::Weighted(shares) => (None, &**shares),
        Choice::Header(_) => (None, &[][..]),
    };
    let named = many.iter().filter(|share| share.cluster_header.is_none());
    one.into_iter().chain(named.map(|s| s.cluster))
}

fn redirect(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::Redirect,
) -> Option<Redirect> {
    if !matches!(from.status, 301 | 302 | 303 | 307 | 308) {
        let reason = format!("{} is none of 301, 302, 303, 307, 308", from.status);
        compilation.refuse(resource, format!("{path}.response_code"), reason);
    }
    if from.path.is_some() && from.path_rewrite.is_some() {
        compilation.refuse(resource, format!("{path}.path_redirect"), "excludes a rewrite of the path");
    }
    let is_clean = |text: &str| text.bytes().all(|b| b > b' ' && b != 0x7f);
    for (name, text) in
        [("scheme_redirect", &from.scheme), ("host_redirect", &from.host), ("path_redirect", &from.path)]
    {
        if text.as_deref().is_some_and(|t| !is_clean(t)) {
            compilation.refuse(
                resource,
                format!("{path}.{name}"),
                "has a character that is not allowed in a URI",
            );
        }
    }
    let path_rewrite = match &from.path_rewrite {
        Some(r) => {
            Some(kept(compilation, resource, || format!("{path}.regex_rewrite"), PathRewriter::new(r))?)
        }
        None => None,
    };
    let bytes = |text: &Option<String>| text.as_ref().map(|t| t.as_bytes().into());
    Some(Redirect {
        status: from.status,
        scheme: bytes(&from.scheme),
        host: bytes(&from.host),
        port: from.port.map(|p| p.to_string().into_bytes().into()),
        path: bytes(&from.path),
        path_rewrite,
        strip_query: from.strip_query,
        keeps_authority: false,
    })
}

fn direct(
    compilation: &mut Compilation<'_>,
    resource: &str,
    path: &str,
    from: &config::DirectResponse,
) -> Option<Direct> {
    if !(200..=599).contains(&from.status) {
        let reason = format!("{} is not between 200 and 599", from.status);
        compilation.refuse(resource, format!("{path}.status"), reason);
    }
    if from.body.len() > DIRECT_BODY_MAX {
        let reason = format!("{} bytes are more than {DIRECT_BODY_MAX}", from.body.len());
        compilation.refuse(resource, format!("{path}.body"), reason);
    }
    Some(Direct {
        status: from.status,
        body: from.body.as_slice().into(),
        content_type: from.content_type.as_deref().map(Into::into),
    })
}
