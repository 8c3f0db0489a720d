//! Which virtual host an authority belongs to.
//!
//! Order, as in Envoy: the exact domain; the longest matching `*suffix`; the longest matching `prefix*`; `*`.
//! Wildcards stand for at least one character. ASCII case does not count.

use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

type Map = HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>;

/// Domains to numbers of virtual hosts.
#[derive(Debug, Default)]
pub struct HostIndex {
    exact: Map,
    /// By length of the text beside the asterisk, longest first.
    suffixes: Vec<(usize, Map)>,
    prefixes: Vec<(usize, Map)>,
    any: Option<u32>,
    ignore_port: bool,
}

impl HostIndex {
    /// An index without domains. With `ignore_port`, the port of an authority does not count.
    pub fn new(ignore_port: bool) -> Self {
        Self { ignore_port, ..Self::default() }
    }

    /// Adds a domain of a virtual host.
    ///
    /// # Errors
    /// A domain that is there already, is empty, or has an asterisk elsewhere than at one end.
    pub fn insert(&mut self, domain: &str, number: u32) -> Result<(), String> {
        let lower = domain.to_ascii_lowercase();
        let duplicate = || format!("domain `{domain}` occurs more than once in the table");
        if lower.is_empty() {
            return Err("domain must not be empty".into());
        }
        if lower == "*" {
            return match self.any.replace(number) {
                None => Ok(()),
                Some(_) => Err(duplicate()),
            };
        }
        let (list, text) = match (lower.strip_prefix('*'), lower.strip_suffix('*')) {
            (Some(rest), _) => (Some(&mut self.suffixes), rest),
            (None, Some(rest)) => (Some(&mut self.prefixes), rest),
            (None, None) => (None, lower.as_str()),
        };
        if text.contains('*') {
            return Err(format!("domain `{domain}` may have one `*`, at its beginning or end"));
        }
        let map = match list {
            None => &mut self.exact,
            Some(list) => {
                let at = match list.binary_search_by_key(&Reverse(text.len()), |(n, _)| Reverse(*n)) {
                    Ok(at) => at,
                    Err(at) => {
                        list.insert(at, (text.len(), Map::default()));
                        at
                    }
                };
                match list.get_mut(at) {
                    Some((_, map)) => map,
                    None => return Err(duplicate()),
                }
            }
        };
        match map.entry(text.as_bytes().into()) {
            Entry::Vacant(free) => {
                free.insert(number);
                Ok(())
            }
            Entry::Occupied(_) => Err(duplicate()),
        }
    }

    /// The number of the virtual host for an authority.
    pub fn find(&self, authority: &[u8]) -> Option<u32> {
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.any;
        }
        let host = if self.ignore_port { without_port(authority) } else { authority };
        if host.iter().any(u8::is_ascii_uppercase) {
            let mut lower: SmallVec<[u8; 256]> = SmallVec::from_slice(host);
            lower.make_ascii_lowercase();
            return self.find_lower(&lower);
        }
        self.find_lower(host)
    }

    fn find_lower(&self, host: &[u8]) -> Option<u32> {
        if let Some(number) = self.exact.get(host) {
            return Some(*number);
        }
        for (length, map) in &self.suffixes {
            // `>`: the asterisk stands for at least one character.
            if host.len() > *length
                && let Some(tail) = host.get(host.len() - length..)
                && let Some(number) = map.get(tail)
            {
                return Some(*number);
            }
        }
        for (length, map) in &self.prefixes {
            if host.len() > *length
                && let Some(head) = host.get(..*length)
                && let Some(number) = map.get(head)
            {
                return Some(*number);
            }
        }
        self.any
    }
}

/// An authority without its port. An IPv6 address keeps its brackets.
pub fn without_port(authority: &[u8]) -> &[u8] {
    match split_port(authority) {
        Some((host, _)) => host,
        None => authority,
    }
}

/// Host and port of an authority that has a port (RFC 3986 §3.2).
pub fn split_port(authority: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memrchr(b':', authority)?;
    let (host, port) = (authority.get(..colon)?, authority.get(colon + 1..)?);
    let bare_v6 = memchr::memchr(b':', host).is_some() && !host.ends_with(b"]");
    if bare_v6 || !port.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_lookup_prefers_exact_then_longest_suffix_then_longest_prefix_then_any() {
        let mut index = HostIndex::new(false);
        let domains = ["a.b.com", "*.b.com", "*.com", "a.*", "a.b.*", "*", "*-x.b.com", "a.b.com:80"];
        for (i, d) in domains.iter().enumerate() {
            index.insert(d, i as u32).unwrap();
        }
        let table = [
            ("a.b.com", 0),
            ("A.B.Com", 0),
            ("c.b.com", 1),
            ("q-x.b.com", 6),
            (".b.com", 2),
            ("z.com", 2),
            (".com", 5),
            ("a.b.org", 4),
            ("a.q.org", 3),
            ("a.", 5),
            ("x", 5),
            ("", 5),
            ("a.b.com:80", 7),
            ("a.b.com:81", 4),
        ];
        for (host, expected) in table {
            assert_eq!(index.find(host.as_bytes()), Some(expected), "{host}");
        }
    }

    #[test]
    fn host_lookup_without_any_finds_nothing_for_strangers() {
        let mut index = HostIndex::new(true);
        index.insert("a", 0).unwrap();
        assert_eq!(index.find(b"a:8080"), Some(0));
        assert_eq!(index.find(b"b"), None);
        let long = vec![b'A'; 5000];
        assert_eq!(index.find(&long), None);
    }

    #[test]
    fn bad_and_duplicate_domains_are_refused() {
        let mut index = HostIndex::new(false);
        for good in ["a", "*", "*.a", "a.*"] {
            index.insert(good, 0).unwrap();
            assert!(index.insert(good, 1).unwrap_err().contains("more than once"));
        }
        assert!(index.insert("A", 1).is_err(), "case does not make a difference");
        for bad in ["", "a*b", "**", "*a*"] {
            assert!(index.insert(bad, 0).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_recognised_only_where_they_are_ports() {
        let table: &[(&str, &str)] = &[
            ("a:80", "a"),
            ("a", "a"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("a:b", "a:b"),
            ("a:", "a"),
        ];
        for (authority, host) in table {
            assert_eq!(without_port(authority.as_bytes()), host.as_bytes(), "{authority}");
        }
    }
}
