//! Whether a connection may go on after the configuration changed.

use super::ConnFacts;
use crate::live::{Live, LiveChainRef};
use outrigger_traffic::listener::{ConnView, FilterChain, Listener};
use smallvec::SmallVec;
use std::sync::Arc;

/// Looks up, in the present configuration, the chain that a connection accepted under an older one would take now.
///
/// `Some`: the connection goes on with this chain, so that a new rule or route holds for its very next request. `None`:
/// the listener or chain is gone, serves something else, or would admit the peer by other rules (TLS where there was
/// none, other trust roots, other expected names); the connection must be drained.
pub fn reconsider(live: &Live, facts: &ConnFacts, current: &LiveChainRef) -> Option<LiveChainRef> {
    let listener = live.listeners.get(&facts.listener)?;
    let chosen = choose(&listener.listener, facts)?;
    let next = listener.chain(chosen)?;
    if Arc::ptr_eq(next, current) {
        return Some(next.clone());
    }
    let same_tls = match (&current.tls, &next.tls) {
        (None, None) => true,
        (Some(old), Some(new)) => new.admits_as(old),
        _ => false,
    };
    let same_kind =
        std::mem::discriminant(&current.chain.terminal) == std::mem::discriminant(&next.chain.terminal);
    (same_tls && same_kind).then(|| next.clone())
}

/// The chain of a listener that a connection takes.
pub(super) fn choose<'l>(listener: &'l Listener, facts: &ConnFacts) -> Option<&'l Arc<FilterChain>> {
    let offered: SmallVec<[&[u8]; 4]> = facts.offered_alpn.iter().map(Vec::as_slice).collect();
    listener.chain_for(&ConnView {
        destination: facts.local,
        source: facts.remote,
        server_name: facts.server_name.as_deref(),
        transport_protocol: facts.transport_protocol,
        application_protocols: &offered,
    })
}
