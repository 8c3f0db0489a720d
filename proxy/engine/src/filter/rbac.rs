//! The RBAC filter (`envoy.filters.http.rbac`): the filter's rules, or what the route says in their place.

use outrigger_traffic::authz::{AuthzView, CompiledRbac, PeerNames};
use outrigger_traffic::filter::RouteFilter;

use super::{Answer, Verdict};
use crate::exchange::{Exchange, Notes};
use crate::http::view::HeadView;

/// Judges a request.
pub(super) fn check(
    x: &Exchange,
    notes: &Notes,
    rules: &CompiledRbac,
    settings: Option<&RouteFilter>,
) -> Verdict {
    match settings {
        Some(RouteFilter::Rbac(None)) => Verdict::Next,
        Some(RouteFilter::Rbac(Some(own))) => judge(x, notes, own),
        _ => judge(x, notes, rules),
    }
}

fn judge(x: &Exchange, notes: &Notes, rules: &CompiledRbac) -> Verdict {
    if rules.is_empty {
        return Verdict::Next;
    }
    let head = HeadView(&x.front.request);
    let facts = &x.front.connection.facts;
    let peer = facts.tls.as_ref().and_then(|tls| tls.peer.as_ref()).filter(|peer| peer.verified);
    let view = AuthzView {
        destination: facts.local,
        direct_remote: facts.peer.ip(),
        remote: notes.remote.ip(),
        server_name: facts.server_name.as_deref(),
        peer: peer.map(|peer| PeerNames {
            uri_sans: &peer.uri_sans,
            dns_sans: &peer.dns_sans,
            subject: &peer.subject,
        }),
        request: Some(&head),
        metadata: notes.metadata.as_deref(),
    };
    let verdict = rules.check(&view);
    let stats = x.front.serving.stats(x.front.worker());
    if let Some(shadow) = verdict.shadow {
        if shadow.allowed { stats.rbac_shadow_allowed.inc() } else { stats.rbac_shadow_denied.inc() }
    }
    if verdict.allowed {
        stats.rbac_allowed.inc();
        return Verdict::Next;
    }
    stats.rbac_denied.inc();
    // Source: Envoy: `rbac_access_denied_matched_policy[NAME]`; spaces would break log formats.
    let policy = verdict.policy.unwrap_or("none").replace(char::is_whitespace, "_");
    let details = format!("rbac_access_denied_matched_policy[{policy}]");
    Verdict::Answer(Answer::new(403, "RBAC: access denied", details))
}
