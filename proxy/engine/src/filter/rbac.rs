//! The RBAC filter (`envoy.filters.http.rbac`): each filter's rules, or what the route says in its
//! place.

use outrigger_traffic::authz::{AuthzView, CompiledRbac, PeerNames};
use outrigger_traffic::route::Route;
use outrigger_wire::RequestHead;

use crate::error::ProxyError;
use crate::exchange::Notes;
use crate::http::view::HeadView;
use crate::http::{Connection, Serving};

/// Judges a request.
///
/// *Errors*: [`ProxyError::Denied`]; the notes then name the policy.
pub(super) fn check(
    connection: &Connection,
    serving: &Serving,
    request: &RequestHead,
    route: &Route,
    notes: &mut Notes,
) -> Result<(), ProxyError> {
    let view = HeadView(request);
    serving.rbac().iter().try_for_each(|filter| match route.rbac.of(&filter.name) {
        None => judge(connection, serving, &filter.rules, &view, notes),
        Some(None) => Ok(()),
        Some(Some(rules)) => judge(connection, serving, rules, &view, notes),
    })
}

fn judge(
    connection: &Connection,
    serving: &Serving,
    rules: &CompiledRbac,
    request: &HeadView<'_>,
    notes: &mut Notes,
) -> Result<(), ProxyError> {
    if rules.is_empty {
        return Ok(());
    }
    let facts = &connection.facts;
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
        request: Some(request),
    };
    let verdict = rules.check(&view);
    let stats = serving.stats(&connection.worker);
    if let Some(shadow) = verdict.shadow {
        if shadow.allowed { stats.rbac_shadow_allowed.inc() } else { stats.rbac_shadow_denied.inc() }
    }
    if verdict.allowed {
        stats.rbac_allowed.inc();
        return Ok(());
    }
    stats.rbac_denied.inc();
    // Source: Envoy: `rbac_access_denied_matched_policy[NAME]`; spaces would break log formats.
    let policy = verdict.policy.unwrap_or("none").replace(char::is_whitespace, "_");
    notes.details_named = format!("rbac_access_denied_matched_policy[{policy}]");
    Err(ProxyError::Denied)
}
