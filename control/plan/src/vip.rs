//! Virtual addresses: what a name of the mesh resolves to for an application whose connections are redirected.
//!
//! Nobody has them; a connection to one tells the sidecar which service is meant. They come out of 240.240.0.0/16, a range
//! that is reserved and routed nowhere (RFC 1112 section 4: class E), as in Istio. A name's address follows from the name,
//! so that it is the same in every control service and after every restart, unless two names want the same one: then the
//! later one gets the next free, and keeps it for as long as somebody remembers ([`VirtualIps::assign`]'s `held`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

/// Usable addresses: all but the first and the last of the range.
const COUNT: u32 = 65_534;

/// The addresses of names. Cheap to clone beside what it is made for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualIps {
    by_host: BTreeMap<String, Ipv4Addr>,
}

impl VirtualIps {
    /// Gives every host an address: the one in `held` where it has one. Hosts that are gone keep theirs while there is room,
    /// so that a service that comes back is found where it was.
    pub fn assign<'h>(hosts: impl IntoIterator<Item = &'h str>, held: &Self) -> Self {
        let asked: BTreeSet<&str> = hosts.into_iter().collect();
        let mut by_host = held.by_host.clone();
        let new: Vec<&str> = asked.iter().copied().filter(|host| !by_host.contains_key(*host)).collect();
        if by_host.len() + new.len() > COUNT as usize {
            by_host.retain(|host, _| asked.contains(host.as_str()));
        }
        if new.is_empty() {
            return Self { by_host };
        }
        let taken: BTreeSet<Ipv4Addr> = by_host.values().copied().collect();
        let mut free: BTreeSet<u32> = (0..COUNT).filter(|slot| !taken.contains(&address(*slot))).collect();
        for host in new {
            let wanted = slot(host);
            let next = free.range(wanted..).next().or_else(|| free.first()).copied();
            // More names than addresses: the rest has none, and is reached by the port of the sidecar only.
            let Some(next) = next else { break };
            free.remove(&next);
            by_host.insert(host.to_owned(), address(next));
        }
        Self { by_host }
    }

    /// Those of names whose own address another one had: the only ones that do not follow from the name. Who keeps these
    /// gives every name the address it had ([`VirtualIps::of_displaced`]).
    pub fn displaced(&self) -> BTreeMap<String, Ipv4Addr> {
        let is_displaced = |(host, at): &(&String, &Ipv4Addr)| address(slot(host)) != **at;
        self.by_host.iter().filter(is_displaced).map(|(host, at)| (host.clone(), *at)).collect()
    }

    /// As they were when [`VirtualIps::displaced`] was kept. An address that is not of the range, or that comes twice, is left out.
    pub fn of_displaced(kept: BTreeMap<String, Ipv4Addr>) -> Self {
        let mut taken = BTreeSet::new();
        let ours = |at: &Ipv4Addr| {
            matches!(at.octets(), [240, 240, ..]) && *at != address(COUNT) && u32::from(*at) & 0xffff != 0
        };
        Self { by_host: kept.into_iter().filter(|(_, at)| ours(at) && taken.insert(*at)).collect() }
    }

    /// The address of a host.
    pub fn of(&self, host: &str) -> Option<Ipv4Addr> {
        self.by_host.get(host).copied()
    }
}

fn slot(host: &str) -> u32 {
    let digest = Sha256::digest(host.as_bytes());
    let first = digest.iter().take(4).fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
    first % COUNT
}

fn address(slot: u32) -> Ipv4Addr {
    let [.., high, low] = (slot + 1).to_be_bytes();
    Ipv4Addr::new(240, 240, high, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_follows_from_the_name_and_stays() {
        let first = VirtualIps::assign(["b.demo.mesh", "a.demo.mesh"], &VirtualIps::default());
        let again = VirtualIps::assign(["a.demo.mesh", "c.demo.mesh", "b.demo.mesh"], &VirtualIps::default());
        for host in ["a.demo.mesh", "b.demo.mesh"] {
            assert_eq!(first.of(host), again.of(host));
            assert_eq!(first.of(host).unwrap().octets()[..2], [240, 240]);
        }
        assert_eq!(first.of("c.demo.mesh"), None);
    }

    #[test]
    fn names_that_want_the_same_address_get_two_and_the_first_keeps_its_own() {
        // Found by trying: with so many names some meet.
        let names: Vec<String> = (0..2000).map(|n| format!("s{n}.demo.mesh")).collect();
        let mut by_slot: BTreeMap<u32, &str> = BTreeMap::new();
        let pair = names
            .iter()
            .find_map(|name| by_slot.insert(slot(name), name).map(|other| (other, name.as_str())));
        let (one, other) = pair.expect("two of 2000 names meet");
        for (first, second) in [(one, other), (other, one)] {
            let alone = VirtualIps::assign([first], &VirtualIps::default());
            let both = VirtualIps::assign([first, second], &alone);
            assert_eq!(both.of(first), alone.of(first), "who was there stays");
            assert_ne!(both.of(first), both.of(second));
            let left = VirtualIps::assign([second], &both);
            assert_eq!((left.of(second), left.of(first)), (both.of(second), both.of(first)));
        }
    }

    #[test]
    fn what_is_displaced_is_all_that_must_be_kept() {
        let names: Vec<String> = (0..3000).map(|n| format!("s{n}.demo.mesh")).collect();
        // In an order that is not that of their names, as services come.
        let mut before = VirtualIps::default();
        for some in names.chunks(500).rev() {
            before = VirtualIps::assign(some.iter().map(String::as_str), &before);
        }
        let kept = before.displaced();
        assert!(!kept.is_empty() && kept.len() < 300, "{}", kept.len());
        let held = VirtualIps::of_displaced(kept);
        let after = VirtualIps::assign(names.iter().map(String::as_str), &held);
        assert_eq!(after, before);
        let without = VirtualIps::assign(names.iter().map(String::as_str), &VirtualIps::default());
        assert_ne!(without, before, "else there would be nothing to keep");
        let bad = [
            ("a", "10.0.0.1"),
            ("b", "240.240.0.0"),
            ("c", "240.240.255.255"),
            ("d", "240.240.1.1"),
            ("e", "240.240.1.1"),
        ];
        let bad = bad.map(|(host, at)| (host.to_owned(), at.parse().unwrap()));
        assert_eq!(VirtualIps::of_displaced(BTreeMap::from(bad)).by_host.len(), 1);
    }

    #[test]
    fn range_is_filled_to_its_end_and_no_further() {
        let names: Vec<String> = (0..=COUNT).map(|n| format!("s{n}")).collect();
        let all = VirtualIps::assign(names.iter().map(String::as_str), &VirtualIps::default());
        let given: BTreeSet<Ipv4Addr> = names.iter().filter_map(|name| all.of(name)).collect();
        assert_eq!(given.len(), COUNT as usize);
        assert_eq!(given.first(), Some(&Ipv4Addr::new(240, 240, 0, 1)));
        assert_eq!(given.last(), Some(&Ipv4Addr::new(240, 240, 255, 254)));
        // Where there is no room, those that are gone make it.
        let next = VirtualIps::assign(["fresh"], &all);
        assert!(next.of("fresh").is_some() && next.of("s1").is_none());
    }
}
