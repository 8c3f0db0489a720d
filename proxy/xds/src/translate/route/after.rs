//! A route table that came again with a few changes: only those are decoded and translated.
//!
//! Tables are sent whole (RDS), so that one changed route of ten thousand brings all of them. A virtual host whose bytes
//! are those of one in the table before means the same, and is shared with it; the rest of the message, with the hosts that
//! are new, is a small table that goes the ordinary way. Whatever is out of the ordinary (an error, a notice, a table that
//! mostly changed) goes the ordinary way as a whole.

use super::super::{Surroundings, translate_any_with};
use outrigger_api::envoy::config::route::v3::RouteConfiguration;
use outrigger_traffic::config::{Action, Resource, RouteConfig, Shared, VirtualHost};
use prost::Name;
use prost::encoding::{decode_varint, encode_varint};
use std::collections::{HashMap, HashSet};

/// Tag of `RouteConfiguration.virtual_hosts`: field 2, length-delimited.
const VIRTUAL_HOST: u64 = 2 << 3 | 2;

/// The table before.
#[derive(Clone, Copy, Debug)]
pub struct Previous<'a> {
    /// As it came.
    pub bytes: &'a [u8],
    /// What that means.
    pub table: &'a RouteConfig,
}

/// The meaning of `bytes`, by what is known of the table before. `None`: it has to be found out the ordinary way.
pub fn route_config_after(
    bytes: &[u8],
    previous: Previous<'_>,
    around: &Surroundings<'_>,
) -> Option<RouteConfig> {
    let (old, new) = (Parts::of(previous.bytes)?, Parts::of(bytes)?);
    if old.rest != new.rest || old.hosts.len() != previous.table.virtual_hosts.len() {
        return None;
    }
    let mut known = Known { old: &old.hosts, table: previous.table, by_bytes: None };
    let mut hosts: Vec<Option<Shared<VirtualHost>>> = Vec::with_capacity(new.hosts.len());
    let mut small = new.rest;
    let mut fresh = 0;
    for (i, host) in new.hosts.iter().enumerate() {
        let same = known.find(i, host);
        if same.is_none() {
            fresh += 1;
            encode_varint(VIRTUAL_HOST, &mut small);
            encode_varint(host.len() as u64, &mut small);
            small.extend_from_slice(host);
        }
        hosts.push(same);
    }
    if fresh > new.hosts.len() / 2 {
        return None;
    }
    let Ok(Resource::RouteConfig(mut table)) =
        translate_any_with(&RouteConfiguration::type_url(), &small, around)
    else {
        return None;
    };
    // Their paths would count from the wrong place.
    if !around.notices.take().is_empty() {
        return None;
    }
    let mut translated = std::mem::take(&mut table.virtual_hosts).into_iter();
    let hosts = hosts.into_iter().map(|known| known.or_else(|| translated.next()));
    table.virtual_hosts = hosts.collect::<Option<_>>()?;
    names_are_unique(&table, previous.table).then_some(table)
}

/// A table as it lies.
struct Parts<'a> {
    hosts: Vec<&'a [u8]>,
    /// Everything but its virtual hosts.
    rest: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut parts = Self { hosts: Vec::new(), rest: Vec::new() };
        let mut left = bytes;
        while !left.is_empty() {
            let start = left;
            let tag = decode_varint(&mut left).ok()?;
            let length = match tag & 7 {
                0 => {
                    decode_varint(&mut left).ok()?;
                    0
                }
                1 => 8,
                2 => usize::try_from(decode_varint(&mut left).ok()?).ok()?,
                5 => 4,
                _ => return None,
            };
            let (value, after) = left.split_at_checked(length)?;
            left = after;
            if tag == VIRTUAL_HOST {
                parts.hosts.push(value);
            } else {
                parts.rest.extend_from_slice(start.get(..start.len() - left.len())?);
            }
        }
        Some(parts)
    }
}

/// Virtual hosts of the table before, by their bytes.
struct Known<'a> {
    old: &'a [&'a [u8]],
    table: &'a RouteConfig,
    by_bytes: Option<HashMap<&'a [u8], usize>>,
}

impl Known<'_> {
    /// The host of these bytes: mostly it stands where it stood.
    fn find(&mut self, i: usize, host: &[u8]) -> Option<Shared<VirtualHost>> {
        let at = if self.old.get(i).is_some_and(|old| *old == host) {
            i
        } else {
            let all = || self.old.iter().enumerate().map(|(i, bytes)| (*bytes, i)).collect();
            *self.by_bytes.get_or_insert_with(all).get(host)?
        };
        self.table.virtual_hosts.get(at).filter(|host| !may_read_files(host)).cloned()
    }
}

/// Whether the same bytes may mean something else now: bodies of direct responses may come from a file.
fn may_read_files(host: &VirtualHost) -> bool {
    host.routes.iter().any(|route| matches!(route.action, Action::Direct(_)))
}

/// Whether every virtual host has a name of its own, as it had in the table before.
fn names_are_unique(new: &RouteConfig, old: &RouteConfig) -> bool {
    let (old, new) = (&old.virtual_hosts, &new.virtual_hosts);
    if old.len() == new.len() && old.iter().zip(new).all(|(a, b)| a.is(b) || a.name == b.name) {
        return true;
    }
    let mut seen = HashSet::with_capacity(new.len());
    new.iter().all(|host| seen.insert(host.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::translate_any;
    use outrigger_api::envoy::config::route::v3 as proto;
    use prost::Message;

    fn host(name: &str, cluster: &str) -> proto::VirtualHost {
        let forward = proto::RouteAction {
            cluster_specifier: Some(proto::route_action::ClusterSpecifier::Cluster(cluster.into())),
            ..proto::RouteAction::default()
        };
        let matches = proto::RouteMatch {
            path_specifier: Some(proto::route_match::PathSpecifier::Prefix("/".into())),
            ..proto::RouteMatch::default()
        };
        let route = proto::Route {
            r#match: Some(matches),
            action: Some(proto::route::Action::Route(forward)),
            ..proto::Route::default()
        };
        proto::VirtualHost {
            name: name.into(),
            domains: vec![format!("{name}.test")],
            routes: vec![route],
            ..proto::VirtualHost::default()
        }
    }

    fn table(hosts: &[(&str, &str)]) -> RouteConfiguration {
        RouteConfiguration {
            name: "t".into(),
            virtual_hosts: hosts.iter().map(|(name, cluster)| host(name, cluster)).collect(),
            ..RouteConfiguration::default()
        }
    }

    fn whole(message: &RouteConfiguration) -> RouteConfig {
        let url = RouteConfiguration::type_url();
        match translate_any(&url, &message.encode_to_vec()).expect("accepted") {
            Resource::RouteConfig(table) => table,
            other => panic!("{other:?}"),
        }
    }

    fn after(old: &RouteConfiguration, new: &RouteConfiguration) -> Option<(RouteConfig, RouteConfig)> {
        let (bytes, table) = (old.encode_to_vec(), whole(old));
        let previous = Previous { bytes: &bytes, table: &table };
        let found = route_config_after(&new.encode_to_vec(), previous, &Surroundings::default())?;
        Some((found, table))
    }

    #[test]
    fn table_after_a_change_is_the_whole_one_and_shares_what_is_the_same() {
        let old = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")];
        for new in [
            vec![("a", "1"), ("b", "2"), ("c", "1"), ("d", "1")],
            vec![("a", "1"), ("c", "1"), ("d", "1")],
            vec![("d", "1"), ("c", "1"), ("b", "1"), ("a", "1")],
            vec![("z", "1"), ("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")],
            vec![("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "2")],
            vec![],
        ] {
            let (found, before) = after(&table(&old), &table(&new)).expect("known");
            assert_eq!(found, whole(&table(&new)), "{new:?}");
            for host in &found.virtual_hosts {
                let same = before.virtual_hosts.iter().any(|old| old.is(host));
                assert_eq!(same, old.contains(&(host.name.as_str(), cluster_of(host))), "{}", host.name);
            }
        }
    }

    fn cluster_of(host: &VirtualHost) -> &str {
        match &host.routes[0].action {
            Action::Forward(forward) => match &forward.cluster {
                outrigger_traffic::config::ClusterChoice::Single(name) => name,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_left_to_the_ordinary_way() {
        let old = table(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")]);
        // A mistake in a new host, and a notice.
        let mut wrong = old.clone();
        wrong.virtual_hosts[3].domains.clear();
        let mut noticed = old.clone();
        noticed.virtual_hosts[3].require_tls = 1;
        let changes = [
            // A setting of the whole table.
            RouteConfiguration { ignore_port_in_host_matching: true, ..old.clone() },
            // Mostly new.
            table(&[("a", "2"), ("b", "2"), ("c", "2"), ("d", "1")]),
            // A name twice, by a host that is new and by one that is not.
            table(&[("a", "1"), ("b", "1"), ("c", "1"), ("a", "2")]),
            table(&[("a", "1"), ("b", "1"), ("c", "1"), ("a", "1")]),
            wrong,
            noticed,
        ];
        for (i, new) in changes.iter().enumerate() {
            assert!(after(&old, new).is_none(), "{i}");
        }
        let bytes = old.encode_to_vec();
        let table = whole(&old);
        let previous = Previous { bytes: &bytes, table: &table };
        assert!(route_config_after(&bytes[..bytes.len() - 1], previous, &Surroundings::default()).is_none());
    }

    #[test]
    fn body_that_may_come_from_a_file_is_read_again() {
        let mut old = table(&[("a", "1"), ("b", "1"), ("c", "1")]);
        old.virtual_hosts[0].routes[0].action =
            Some(proto::route::Action::DirectResponse(proto::DirectResponseAction {
                status: 200,
                ..Default::default()
            }));
        let (found, before) = after(&old, &old).expect("known");
        let shared: Vec<bool> =
            found.virtual_hosts.iter().zip(&before.virtual_hosts).map(|(a, b)| a.is(b)).collect();
        assert_eq!(shared, [false, true, true]);
        assert_eq!(found, before);
    }
}
