//! What was worked out of a certificate chain once and holds for every connection that shows the same chain.
//!
//! Peers in a mesh are few and come back: checking two signatures and reading a certificate again for each of their
//! connections is half of what a full handshake costs us beside the key exchange, and thousands of idle connections need
//! not hold the same text thousands of times. A chain is the same only if all its bytes are.

use rustls_pki_types::CertificateDer;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::peer_cert;
use crate::io::PeerCert;

/// Chains remembered in one place. When there are more, those not seen for longest go, half of them at a time.
pub(super) const CHAINS_MAX: usize = 512;

/// Longest chain remembered, bytes: with [`CHAINS_MAX`] it bounds a memory to 4 MiB. A chain of three is about 2 KiB.
pub(super) const CHAIN_BYTES_MAX: usize = 8 << 10;

type Chains<V> = HashMap<Box<[u8]>, Known<V>, foldhash::fast::RandomState>;

/// Values by certificate chain, in two generations: what is used moves to the young one, and when that is full, it
/// becomes the old one.
#[derive(Debug)]
pub(super) struct ChainMemo<V> {
    young: Chains<V>,
    old: Chains<V>,
}

#[derive(Debug)]
struct Known<V> {
    intermediates: Box<[Box<[u8]>]>,
    value: V,
}

impl<V> Default for ChainMemo<V> {
    fn default() -> Self {
        Self { young: Chains::default(), old: Chains::default() }
    }
}

impl<V> Known<V> {
    fn is(&self, intermediates: &[CertificateDer<'_>]) -> bool {
        self.intermediates.len() == intermediates.len()
            && self.intermediates.iter().zip(intermediates).all(|(a, b)| **a == **b)
    }
}

impl<V: Clone> ChainMemo<V> {
    /// What is known of exactly this chain.
    pub(super) fn find(&mut self, leaf: &[u8], intermediates: &[CertificateDer<'_>]) -> Option<V> {
        if let Some(known) = self.young.get(leaf) {
            return known.is(intermediates).then(|| known.value.clone());
        }
        let (leaf, known) = self.old.remove_entry(leaf)?;
        let found = known.is(intermediates).then(|| known.value.clone());
        self.put(leaf, known);
        found
    }

    /// Remembers it; a chain that is too long is not.
    pub(super) fn remember(&mut self, leaf: &[u8], intermediates: &[CertificateDer<'_>], value: V) {
        let bytes = leaf.len() + intermediates.iter().map(|one| one.len()).sum::<usize>();
        if bytes <= CHAIN_BYTES_MAX {
            let intermediates = intermediates.iter().map(|one| one.as_ref().into()).collect();
            self.put(leaf.into(), Known { intermediates, value });
        }
    }

    fn put(&mut self, leaf: Box<[u8]>, known: Known<V>) {
        if self.young.len() >= CHAINS_MAX / 2 && !self.young.contains_key(&leaf) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(leaf, known);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// Chains that were verified by one set of rules, and the time in which that holds. Shared by all workers; the lock is
/// taken once in a full handshake, for the time of a look.
#[derive(Debug, Default)]
pub(super) struct VerifiedChains(Mutex<ChainMemo<Validity>>);

/// From when to when every certificate of a chain is valid, seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validity {
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

impl VerifiedChains {
    /// Whether exactly this chain was verified before and is valid at `now` (seconds since 1970).
    pub(super) fn contain(&self, leaf: &[u8], intermediates: &[CertificateDer<'_>], now: u64) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).find(leaf, intermediates);
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        known.is_some_and(|known| known.not_before <= now && now <= known.not_after)
    }

    /// Remembers a chain that was verified.
    pub(super) fn insert(&self, leaf: &[u8], intermediates: &[CertificateDer<'_>], validity: Validity) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remember(leaf, intermediates, validity);
    }
}

/// What the certificates of a worker's peers say. Only of verified chains: others can be made up without end.
#[derive(Debug, Default)]
pub struct Peers(ChainMemo<Arc<PeerCert>>);

impl Peers {
    /// What a peer's chain says, leaf first. `None` when there is no leaf or it cannot be parsed.
    pub(crate) fn read(&mut self, chain: &[CertificateDer<'_>], verified: bool) -> Option<Arc<PeerCert>> {
        let (leaf, intermediates) = chain.split_first()?;
        if !verified {
            return peer_cert(chain, false).map(Arc::new);
        }
        if let Some(known) = self.0.find(leaf, intermediates) {
            return Some(known);
        }
        let peer = Arc::new(peer_cert(chain, true)?);
        self.0.remember(leaf, intermediates, peer.clone());
        Some(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(bytes: &[u8]) -> CertificateDer<'static> {
        bytes.to_vec().into()
    }

    #[test]
    fn chain_is_found_only_with_the_same_bytes_in_every_certificate() {
        let mut memo = ChainMemo::default();
        let (a, b) = (der(b"a"), der(b"b"));
        memo.remember(b"leaf", std::slice::from_ref(&a), 1);
        assert_eq!(memo.find(b"leaf", std::slice::from_ref(&a)), Some(1));
        assert_eq!(memo.find(b"leaf", std::slice::from_ref(&b)), None);
        assert_eq!(memo.find(b"leaf", &[]), None);
        assert_eq!(memo.find(b"leaf", &[a.clone(), b]), None);
        assert_eq!(memo.find(b"lea", &[a]), None);
    }

    #[test]
    fn memo_keeps_what_is_used_and_never_more_than_its_limit() {
        let mut memo = ChainMemo::default();
        let name = |n: usize| n.to_be_bytes();
        for n in 0..3 * CHAINS_MAX {
            memo.remember(&name(n), &[], n);
            assert_eq!(memo.find(&name(0), &[]), Some(0), "used all the time");
            assert!(memo.len() <= CHAINS_MAX, "{}", memo.len());
        }
        assert_eq!(memo.find(&name(1), &[]), None, "not used since");
        assert_eq!(memo.find(&name(3 * CHAINS_MAX - 1), &[]), Some(3 * CHAINS_MAX - 1));
    }

    #[test]
    fn chain_at_the_size_limit_is_remembered_and_one_byte_more_is_not() {
        let mut memo = ChainMemo::default();
        let rest = [der(&[0; 100])];
        memo.remember(&[1; CHAIN_BYTES_MAX - 100], &rest, ());
        assert!(memo.find(&[1; CHAIN_BYTES_MAX - 100], &rest).is_some());
        memo.remember(&[1; CHAIN_BYTES_MAX - 99], &rest, ());
        assert!(memo.find(&[1; CHAIN_BYTES_MAX - 99], &rest).is_none());
    }

    #[test]
    fn verified_chain_counts_only_while_all_of_it_is_valid() {
        let chains = VerifiedChains::default();
        chains.insert(b"leaf", &[], Validity { not_before: 10, not_after: 20 });
        let counts = [9, 10, 20, 21].map(|now| chains.contain(b"leaf", &[], now));
        assert_eq!(counts, [false, true, true, false]);
        assert!(!chains.contain(b"other", &[], 15));
    }
}
