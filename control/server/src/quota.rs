//! How many of something there may be: in all, and from one source.
//!
//! A source is an IPv4 address, or the /64 an IPv6 address is in, which is the least one host is given.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The two limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Of all sources together.
    pub total: usize,
    /// Of each.
    pub of_one_source: usize,
}

/// See the module. Clones count together.
#[derive(Clone)]
pub struct Quota {
    share: Share,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    total: usize,
    /// No entry: none.
    by_source: HashMap<IpAddr, usize>,
}

/// One that was counted; counted no more when dropped.
pub struct Counted {
    source: IpAddr,
    held: Arc<Mutex<Held>>,
}

impl Quota {
    /// With nothing counted yet.
    pub fn new(share: Share) -> Self {
        Self { share, held: Arc::default() }
    }

    /// Counts one more, if there may be.
    pub fn enter(&self, from: IpAddr) -> Option<Counted> {
        let source = source_of(from);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = held.by_source.get(&source).copied().unwrap_or(0);
        if held.total >= self.share.total || of_source >= self.share.of_one_source {
            return None;
        }
        held.total += 1;
        held.by_source.insert(source, of_source + 1);
        Some(Counted { source, held: Arc::clone(&self.held) })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total = held.total.saturating_sub(1);
        if let Some(count) = held.by_source.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.by_source.remove(&self.source);
            }
        }
    }
}

fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn limits_hold_in_all_and_for_each_source_and_who_leaves_makes_room() {
        let quota = Quota::new(Share { total: 3, of_one_source: 2 });
        let one = quota.enter(ip("192.0.2.1")).unwrap();
        let _two = quota.clone().enter(ip("::ffff:192.0.2.1")).unwrap();
        assert!(quota.enter(ip("192.0.2.1")).is_none(), "one past the limit of a source");
        let _three = quota.enter(ip("192.0.2.2")).unwrap();
        assert!(quota.enter(ip("192.0.2.3")).is_none(), "one past the limit of all");
        drop(one);
        let again = quota.enter(ip("192.0.2.1")).unwrap();
        drop((again, _two, _three));
        let held = quota.held.lock().unwrap();
        assert_eq!((held.total, held.by_source.len()), (0, 0), "nothing is remembered of who left");
    }

    #[test]
    fn addresses_of_one_v6_network_are_one_source() {
        let quota = Quota::new(Share { total: 9, of_one_source: 1 });
        let _one = quota.enter(ip("2001:db8:1:2::1")).unwrap();
        assert!(quota.enter(ip("2001:db8:1:2:ffff::9")).is_none());
        assert!(quota.enter(ip("2001:db8:1:3::1")).is_some());
    }
}
