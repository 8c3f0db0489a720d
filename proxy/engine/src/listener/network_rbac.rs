//! Authorization of a connection as such, before its first request.

use super::ConnFacts;
use crate::live::LiveChain;
use crate::telemetry::ListenerStats;
use outrigger_traffic::authz::{AuthzView, PeerNames};

/// Whether every network authorization filter of the chain lets the connection through.
pub(super) fn allows(chain: &LiveChain, facts: &ConnFacts, stats: &ListenerStats) -> bool {
    let filters = &chain.chain.network_rbac;
    if filters.is_empty() {
        return true;
    }
    let view = view(facts);
    filters.iter().all(|filter| {
        let verdict = filter.check(&view);
        match verdict.shadow.map(|shadow| shadow.allowed) {
            Some(true) => stats.rbac_shadow_allowed.inc(),
            Some(false) => stats.rbac_shadow_denied.inc(),
            None => {}
        }
        if verdict.allowed {
            stats.rbac_allowed.inc();
        } else {
            stats.rbac_denied.inc();
            tracing::debug!(
                listener = &*facts.listener,
                peer = %facts.peer,
                principal = &*facts.principal,
                policy = verdict.policy.unwrap_or("none matched"),
                "connection denied"
            );
        }
        verdict.allowed
    })
}

/// Whether they would let an open connection through. Counts nothing.
pub(super) fn would_allow(chain: &LiveChain, facts: &ConnFacts) -> bool {
    let filters = &chain.chain.network_rbac;
    filters.is_empty() || {
        let view = view(facts);
        filters.iter().all(|filter| filter.check(&view).allowed)
    }
}

/// A connection as authorization sees it.
fn view(facts: &ConnFacts) -> AuthzView<'_> {
    let peer = facts.tls.as_ref().and_then(|tls| tls.peer.as_ref()).filter(|peer| peer.verified);
    AuthzView {
        destination: facts.local,
        direct_remote: facts.peer.ip(),
        remote: facts.remote.ip(),
        server_name: facts.server_name.as_deref(),
        peer: peer.map(|peer| PeerNames {
            uri_sans: &peer.uri_sans,
            dns_sans: &peer.dns_sans,
            subject: &peer.subject,
        }),
        request: None,
        metadata: None,
    }
}
