//! Ring hash and Maglev against slow oracles; how even they are, and how few requests move.

use super::{cluster, endpoint, place};
use crate::balance::PickContext;
use crate::cluster::Cluster;
use crate::config::{
    self, Endpoint, Hashing, HealthStatus, LbPolicy, LocalityLb, Maglev, RingFunction, RingHash,
};
use crate::hash::{MURMUR_SEED, murmur2, xxh64};
use crate::outcome::Outcome;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

fn ring() -> LbPolicy {
    LbPolicy::RingHash(RingHash::default())
}

fn maglev() -> LbPolicy {
    // Smaller than the default: tests make many.
    LbPolicy::Maglev(Maglev { table_size: 5_003, ..Maglev::default() })
}

fn weighted(weights: &[u32]) -> Vec<Endpoint> {
    weights.iter().zip(1..).map(|(weight, port)| endpoint(port, *weight, HealthStatus::Unknown)).collect()
}

fn hashed(weights: &[u32], policy: LbPolicy) -> Arc<Cluster> {
    cluster(vec![place("", 0, None, weighted(weights))], |c| c.lb_policy = policy)
}

fn port(cluster: &Cluster, hash: u64) -> u16 {
    let mut draw = || 0;
    let mut context = PickContext { hash: Some(hash), ..PickContext::new(Instant::now(), &mut draw) };
    cluster.pick(&mut context).unwrap().address.port()
}

/// The hash of the n-th request.
fn nth(n: u64) -> u64 {
    xxh64(&n.to_le_bytes(), 7)
}

fn counts(cluster: &Cluster, requests: u64) -> BTreeMap<u16, u64> {
    let mut counts = BTreeMap::new();
    for n in 0..requests {
        *counts.entry(port(cluster, nth(n))).or_insert(0) += 1;
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// All points, looked through one by one.
    #[test]
    fn ring_is_the_next_point_of_all(
        hosts in 1usize..20, size in 1u64..200, murmur in any::<bool>(), requests in prop::collection::vec(any::<u64>(), 50),
    ) {
        let function = if murmur { RingFunction::Murmur2 } else { RingFunction::XxHash };
        let config = RingHash { minimum_ring_size: size, function, ..RingHash::default() };
        let cluster = hashed(&vec![1; hosts], LbPolicy::RingHash(config));
        let each = size.div_ceil(hosts as u64);
        let mut points = Vec::new();
        for port in 1..=hosts as u16 {
            for i in 0..each {
                let text = format!("10.0.0.1:{port}_{i}");
                let hash = if murmur { murmur2(text.as_bytes(), MURMUR_SEED) } else { xxh64(text.as_bytes(), 0) };
                points.push((hash, port));
            }
        }
        for hash in requests.into_iter().chain(points.iter().flat_map(|(h, _)| [*h, h.wrapping_add(1)]).take(40)) {
            let next = points.iter().filter(|(point, _)| *point >= hash).min().or(points.iter().min()).unwrap();
            prop_assert_eq!(port(&cluster, hash), next.1);
        }
    }

    /// The paper's listing, with lists instead of counters.
    #[test]
    fn maglev_is_the_listing_of_the_paper(hosts in 1usize..12, requests in prop::collection::vec(any::<u64>(), 50)) {
        const SIZE: u64 = 101;
        let cluster = hashed(&vec![1; hosts], LbPolicy::Maglev(Maglev { table_size: SIZE, ..Maglev::default() }));
        let mut names: Vec<String> = (1..=hosts).map(|port| format!("10.0.0.1:{port}")).collect();
        names.sort();
        let mut wishes: Vec<Vec<u64>> = names
            .iter()
            .map(|name| {
                let (offset, skip) = (xxh64(name.as_bytes(), 0) % SIZE, xxh64(name.as_bytes(), 1) % (SIZE - 1) + 1);
                (0..SIZE).map(|j| (offset + j * skip) % SIZE).collect()
            })
            .collect();
        let mut table: BTreeMap<u64, String> = BTreeMap::new();
        'full: loop {
            for (name, wishes) in names.iter().zip(&mut wishes) {
                if table.len() as u64 == SIZE {
                    break 'full;
                }
                let place = wishes.iter().position(|wish| !table.contains_key(wish)).unwrap();
                table.insert(wishes.remove(place), name.clone());
            }
        }
        for hash in requests {
            prop_assert_eq!(format!("10.0.0.1:{}", port(&cluster, hash)), table[&(hash % SIZE)].clone());
        }
    }
}

#[test]
fn both_share_by_weight() {
    for (policy, tolerance) in [(ring(), 0.20), (maglev(), 0.06)] {
        let weights = [1, 2, 3, 4];
        let counts = counts(&hashed(&weights, policy.clone()), 20_000);
        for (weight, port) in weights.iter().zip(1..) {
            let expected = 2_000.0 * f64::from(*weight);
            let got = counts[&port] as f64;
            assert!((got - expected).abs() <= expected * tolerance, "{policy:?} {counts:?}");
        }
    }
}

#[test]
fn few_requests_move_beside_those_of_a_lost_host() {
    // On a ring whose hosts keep the number of their points, none do.
    let fixed = |size| LbPolicy::RingHash(RingHash { minimum_ring_size: size, ..RingHash::default() });
    for (policy, fewer, others_most) in
        [(fixed(1_000), fixed(900), 0), (ring(), ring(), 600), (maglev(), maglev(), 300)]
    {
        let all = hashed(&[1; 10], policy.clone());
        let nine = hashed(&[1; 9], fewer);
        let (mut of_lost, mut others) = (0, 0);
        for n in 0..5_000 {
            match (port(&all, nth(n)), port(&nine, nth(n))) {
                (10, _) => of_lost += 1,
                (before, after) => others += u32::from(before != after),
            }
        }
        assert!((250..900).contains(&of_lost), "{of_lost}");
        assert!(others <= others_most, "{policy:?}: {others}");
    }
}

#[test]
fn unhealthy_host_leaves_the_table_and_its_requests_come_back_with_it() {
    for policy in [ring(), maglev()] {
        let cluster = cluster(vec![place("", 0, None, weighted(&[1; 5]))], |c| {
            c.lb_policy = policy.clone();
            c.outlier_detection = Some(config::OutlierDetection {
                consecutive_5xx: 1,
                max_ejection_percent: 100,
                ..config::OutlierDetection::default()
            });
        });
        let before: Vec<u16> = (0..200).map(|n| port(&cluster, nth(n))).collect();
        let lost = cluster.hosts().hosts()[0].clone();
        cluster.report(&lost, Outcome::Response(500), Instant::now(), 0);
        assert!(lost.is_ejected());
        // The table is made anew by the control runtime.
        cluster.refresh_if_stale();
        assert!((0..200).all(|n| port(&cluster, nth(n)) != 1));
        assert!(!cluster.uneject(&cluster.hosts().hosts()[1].clone()));
        assert!(cluster.uneject(&lost));
        let after: Vec<u16> = (0..200).map(|n| port(&cluster, nth(n))).collect();
        assert_eq!(before, after);
    }
}

#[test]
fn localities_share_one_table_by_their_weights() {
    for policy in [ring(), maglev()] {
        let places = vec![
            place("a", 0, Some(1), weighted(&[1, 1])),
            place("b", 0, Some(3), (11..=13).map(|port| endpoint(port, 1, HealthStatus::Unknown)).collect()),
            place("none", 0, None, vec![endpoint(21, 1, HealthStatus::Unknown)]),
        ];
        let cluster = cluster(places, |c| {
            c.lb_policy = policy.clone();
            c.locality_lb = LocalityLb::Weighted;
        });
        let counts = counts(&cluster, 8_000);
        let a: u64 = [1, 2].iter().map(|port| counts[port]).sum();
        assert!(a.abs_diff(2_000) < 400, "{policy:?} {counts:?}");
        assert!(!counts.contains_key(&21));
    }
}

#[test]
fn hosts_are_known_by_key_then_name_then_address() {
    for policy in [true, false].map(|ring| {
        move |hashing| match ring {
            true => LbPolicy::RingHash(RingHash { hashing, ..RingHash::default() }),
            false => LbPolicy::Maglev(Maglev { hashing, table_size: 5_003 }),
        }
    }) {
        let named = |first: u16, key: bool| {
            let endpoints = (0..5).map(|i| Endpoint {
                hostname: format!("host-{i}"),
                hash_key: if key { format!("key-{i}") } else { String::new() },
                ..endpoint(first + i, 1, HealthStatus::Unknown)
            });
            cluster(vec![place("", 0, None, endpoints.collect())], |c| {
                c.lb_policy = policy(Hashing { use_hostname: true, ..Hashing::default() });
            })
        };
        // Other addresses, the same names: the same places.
        let (before, after) = (named(1, false), named(101, false));
        assert!((0..200).all(|n| port(&before, nth(n)) + 100 == port(&after, nth(n))));
        let (keyed, moved) = (named(1, true), named(101, true));
        assert!((0..200).all(|n| port(&keyed, nth(n)) + 100 == port(&moved, nth(n))));
        assert!(
            (0..200).any(|n| port(&keyed, nth(n)) != port(&before, nth(n))),
            "the key goes before the name"
        );
    }
}

#[test]
fn bounded_load_sends_what_is_too_much_the_same_way_elsewhere() {
    for policy in [true, false] {
        let hashing = Hashing { balance_factor: Some(120), ..Hashing::default() };
        let policy = match policy {
            true => LbPolicy::RingHash(RingHash { hashing, ..RingHash::default() }),
            false => LbPolicy::Maglev(Maglev { hashing, table_size: 5_003 }),
        };
        let cluster = hashed(&[1; 4], policy);
        let home = port(&cluster, 1);
        // Everybody asks for the same: no host may hold much more than a quarter.
        let mut held = Vec::new();
        for _ in 0..100 {
            let to = port(&cluster, 1);
            let host = cluster.hosts().hosts().iter().find(|host| host.address.port() == to).unwrap().clone();
            held.push(host.start_request());
        }
        let most = cluster
            .hosts()
            .hosts()
            .iter()
            .map(|host| host.live.requests_active.load(std::sync::atomic::Ordering::Relaxed))
            .max();
        assert!(most <= Some(32), "{most:?}");
        assert_eq!(port(&cluster, 1), port(&cluster, 1));
        drop(held);
        assert_eq!(port(&cluster, 1), home);
    }
}

#[test]
fn later_attempts_and_requests_without_a_hash_go_elsewhere() {
    for policy in [ring(), maglev()] {
        let cluster = hashed(&[1; 6], policy);
        let first = port(&cluster, 5);
        let avoided = cluster.hosts().hosts().iter().find(|host| host.address.port() == first).unwrap().id;
        let mut draw = || 3;
        let mut context = PickContext {
            hash: Some(5),
            avoid: &[avoided],
            attempts_max: 5,
            ..PickContext::new(Instant::now(), &mut draw)
        };
        assert_ne!(cluster.pick(&mut context).unwrap().address.port(), first);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut draw = move || rng.u64(..);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            seen.insert(
                cluster.pick(&mut PickContext::new(Instant::now(), &mut draw)).unwrap().address.port(),
            );
        }
        assert_eq!(seen.len(), 6);
    }
}

#[test]
fn figures_tell_the_size_of_the_table() {
    let figures = hashed(&[1, 2, 1], ring()).hosts().figures().unwrap();
    assert_eq!((figures.size, figures.least, figures.most), (1024, 256, 512));
    let figures = hashed(&[1; 3], maglev()).hosts().figures().unwrap();
    assert_eq!((figures.size, figures.least, figures.most), (5_003, 1_667, 1_668));
    assert!(hashed(&[], ring()).hosts().figures().is_none());
}
