//! The names that a DNS listener knows by itself.

use outrigger_traffic::config::DnsDomain;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

type Table = HashMap<Box<str>, Entry, foldhash::quality::RandomState>;

/// A table of names, compiled.
#[derive(Debug, Default)]
pub struct Names {
    exact: Table,
    /// By the suffix behind `*.`.
    below: Table,
}

/// What a name means.
#[derive(Debug)]
pub struct Entry {
    /// Its addresses of both families.
    pub addresses: Box<[IpAddr]>,
    /// How long an answer may be kept.
    pub ttl: Duration,
}

impl Names {
    /// Compiles a table.
    pub fn new(domains: &[DnsDomain]) -> Self {
        let mut names = Self::default();
        for domain in domains {
            let entry = Entry { addresses: domain.addresses.as_slice().into(), ttl: domain.ttl };
            match domain.name.strip_prefix("*.") {
                Some(suffix) => names.below.insert(suffix.into(), entry),
                None => names.exact.insert(domain.name.as_str().into(), entry),
            };
        }
        names
    }

    /// What a name means: lower case, without a final dot. The longest suffix wins among wildcards; one stands for one or more
    /// labels, as in Envoy.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        if let Some(entry) = self.exact.get(name) {
            return Some(entry);
        }
        if self.below.is_empty() {
            return None;
        }
        let mut rest = name;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(entry) = self.below.get(suffix) {
                return Some(entry);
            }
            rest = suffix;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_name_wins_over_the_longest_wildcard() {
        let domain = |name: &str, last| DnsDomain {
            name: name.into(),
            addresses: vec![IpAddr::from([240, 240, 0, last])],
            ttl: Duration::from_secs(5),
        };
        let names = Names::new(&[
            domain("b.demo.mesh", 1),
            domain("*.demo.mesh", 2),
            domain("*.mesh", 3),
            domain("*.x.demo.mesh", 4),
        ]);
        for (name, expected) in [
            ("b.demo.mesh", Some(1)),
            ("c.demo.mesh", Some(2)),
            ("a.b.demo.mesh", Some(2)),
            ("a.x.demo.mesh", Some(4)),
            ("demo.mesh", Some(3)),
            ("mesh", None),
            ("other.test", None),
        ] {
            let found = names.find(name).map(|entry| entry.addresses[0]);
            assert_eq!(found, expected.map(|last| IpAddr::from([240, 240, 0, last])), "{name}");
        }
    }
}
