//! What stays in the proxy's zone.

use super::*;
use crate::balance::ZoneFound;
use crate::balance::zone::{Routing, routing};
use crate::config::{LocalCluster, ZoneAware};

fn zone(name: &str) -> Locality {
    Locality { zone: name.into(), ..Locality::default() }
}

/// A cluster of hosts in zones and, apart from it, the proxies; as many as the counts say. The proxy is in zone `a`.
fn mesh(
    proxies: &[(&str, u16)],
    hosts: &[(&str, u16)],
    change: impl FnOnce(&mut config::Cluster),
) -> (Arc<Cluster>, Arc<Cluster>) {
    let spread = |name: &str, counts: &[(&str, u16)], base: u16| {
        let places = counts.iter().enumerate().map(|(i, (zone, count))| {
            let first = base + 100 * i as u16;
            place(zone, 0, None, (first..first + count).map(healthy).collect())
        });
        let endpoints =
            Endpoints { cluster_name: name.into(), localities: places.collect(), ..Endpoints::default() };
        config::Cluster::new(name, ClusterDiscovery::Static(endpoints))
    };
    let mut cluster = spread("c", hosts, 1000);
    change(&mut cluster);
    let local_cluster = Some(LocalCluster { name: "local".into(), locality: Some(zone("a")) });
    let clusters = vec![cluster, spread("local", proxies, 5000)];
    let snapshot = crate::compile(&Config { clusters, local_cluster, ..Config::default() }, None).unwrap();
    let named = |name: &str| snapshot.clusters().find(|(_, c)| c.name() == name).unwrap().1.clone();
    (named("c"), named("local"))
}

fn by_zone(cluster: &Cluster, picks: u32) -> Vec<u32> {
    let mut counts = [0; 4];
    for (port, count) in shares(cluster, picks) {
        counts[usize::from((port - 1000) / 100)] += count;
    }
    counts.to_vec()
}

#[test]
fn everything_stays_where_the_zone_has_its_share_of_hosts() {
    let (cluster, _) = mesh(&[("a", 2), ("b", 2)], &[("a", 3), ("b", 3)], |_| {});
    assert_eq!(by_zone(&cluster, 600), [600, 0, 0, 0]);
}

#[test]
fn part_stays_and_the_rest_goes_where_hosts_are_to_spare() {
    // Half of the proxies, a quarter of the hosts: half stays.
    let (cluster, _) = mesh(&[("a", 4), ("b", 4)], &[("a", 2), ("b", 4), ("c", 2)], |_| {});
    let counts = by_zone(&cluster, 8000);
    assert!(near(counts[0], 4000), "{counts:?}");
    assert_eq!(counts[1], 0, "b has no more hosts than its own proxies need");
}

#[test]
fn fellows_that_move_change_what_stays() {
    let (cluster, local) = mesh(&[("a", 2), ("b", 2)], &[("a", 3), ("b", 3)], |_| {});
    let mut endpoints = Endpoints::clone(&local.endpoints());
    endpoints.localities[1].endpoints.clear();
    endpoints.localities[1].endpoints.push(healthy(7));
    endpoints.localities[0].endpoints.extend([8, 9, 10, 11].map(healthy));
    local.set_endpoints(&endpoints).unwrap();
    cluster.refresh_if_stale();
    let counts = by_zone(&cluster, 7000);
    assert!(near(counts[0], 7000 * 5000 / 8571), "{counts:?}");
}

#[test]
fn small_clusters_foreign_proxies_and_lone_zones_are_left_alone() {
    type Case = (&'static [(&'static str, u16)], &'static [(&'static str, u16)], [u64; 2]);
    let cases: [Case; 4] = [
        (&[("a", 2), ("b", 2)], &[("a", 2), ("b", 3)], [1, 0]),
        (&[("b", 2), ("c", 2)], &[("a", 3), ("b", 3)], [0, 1]),
        (&[("a", 2)], &[("a", 3), ("b", 3)], [0, 0]),
        (&[("a", 2), ("b", 2)], &[("a", 6)], [0, 0]),
    ];
    for (proxies, hosts, expected) in cases {
        let (cluster, _) = mesh(proxies, hosts, |_| {});
        let total: u16 = hosts.iter().map(|(_, n)| n).sum();
        let counts = shares(&cluster, u32::from(total) * 10);
        assert!(counts.len() == usize::from(total) && counts.values().all(|n| *n == 10), "{counts:?}");
        let zones = cluster.zone_counts().unwrap();
        let seen =
            [&zones.too_small, &zones.local_not_ok].map(|n| n.load(std::sync::atomic::Ordering::Relaxed));
        assert_eq!(seen.map(|n| n.min(1)), expected, "{proxies:?} {hosts:?}");
    }
}

#[test]
fn switches_are_obeyed() {
    let apart = |change: fn(&mut ZoneAware)| {
        mesh(&[("a", 9), ("b", 1)], &[("a", 2), ("b", 6)], |c| change(&mut c.zone_aware)).0
    };
    let off = by_zone(&apart(|z| z.routing_enabled = 0), 800);
    assert_eq!(off, [200, 600, 0, 0]);
    assert_eq!(by_zone(&apart(|z| z.force_locality_direct_routing = true), 800), [800, 0, 0, 0]);
    let elsewhere = by_zone(
        &mesh(&[("a", 9), ("b", 1)], &[("b", 6), ("c", 6)], |c| {
            c.zone_aware.force_locality_direct_routing = true;
        })
        .0,
        1200,
    );
    assert_eq!(elsewhere[2], 0, "nothing to force");
    let half = by_zone(&apart(|z| (z.routing_enabled, z.force_locality_direct_routing) = (50, true)), 8000);
    assert!(near(half[0], 5000), "{half:?}");
    let (small, _) =
        mesh(&[("a", 1), ("b", 1)], &[("a", 1), ("b", 1)], |c| c.zone_aware.min_cluster_size = 2);
    assert_eq!(by_zone(&small, 100), [100, 0, 0, 0]);
    let (one, _) = mesh(&[("a", 1), ("b", 1)], &[("a", 3), ("b", 3)], |c| c.lb_policy = LbPolicy::Random);
    let mut draw = || 0;
    let mut context = PickContext::new(Instant::now(), &mut draw);
    one.pick(&mut context).unwrap();
    assert_eq!(context.zone, ZoneFound::Direct);
}

#[test]
fn panic_fails_where_that_is_asked_for() {
    for fails in [false, true] {
        let (cluster, _) = mesh(&[("a", 1), ("b", 1)], &[("a", 3), ("b", 3)], |c| {
            c.zone_aware.fail_traffic_on_panic = fails;
            let ClusterDiscovery::Static(endpoints) = &mut c.discovery else { unreachable!() };
            for endpoint in endpoints.localities.iter_mut().flat_map(|l| &mut l.endpoints).skip(1) {
                endpoint.health = HealthStatus::Unhealthy;
            }
        });
        let mut draw = || 0;
        let mut context = PickContext::new(Instant::now(), &mut draw);
        assert_eq!(cluster.pick(&mut context).is_err(), fails);
        assert!(context.panicked);
    }
}

proptest! {
    /// The oracle hands out what every locality has and needs, part by part.
    #[test]
    fn requests_of_all_proxies_together_load_no_host_above_the_others(
        counts in prop::collection::vec((1u64..20, 1u64..20), 2..5),
    ) {
        let fellows: u64 = counts.iter().map(|c| c.0).sum();
        let hosts: u64 = counts.iter().map(|c| c.1).sum();
        let shares: Vec<(u64, u64)> =
            counts.iter().map(|(f, h)| (10_000 * f / fellows, 10_000 * h / hosts)).collect();
        let mut load = vec![0f64; counts.len()];
        for here in 0..counts.len() {
            // As the proxies of that zone see it: their own first.
            let mut order: Vec<usize> = (0..counts.len()).collect();
            order.sort_by_key(|i| *i != here);
            let seen: Vec<(u64, u64)> = order.iter().map(|i| shares[*i]).collect();
            let requests = counts[here].0 as f64 / fellows as f64;
            match routing(&seen, true, false) {
                Routing::Off => prop_assert!(false),
                Routing::Direct => load[here] += requests,
                Routing::Residual { here: stays, spare } => {
                    let stays = stays as f64 / 10_000.0;
                    load[here] += requests * stays;
                    let total = *spare.last().unwrap() as f64;
                    for (k, i) in order.iter().enumerate() {
                        let own = spare[k] - if k == 0 { 0 } else { spare[k - 1] };
                        if total > 0.0 {
                            load[*i] += requests * (1.0 - stays) * own as f64 / total;
                        }
                    }
                }
            }
        }
        let fair: Vec<f64> = counts.iter().map(|c| c.1 as f64 / hosts as f64).collect();
        for (got, fair) in load.iter().zip(&fair) {
            prop_assert!((got - fair).abs() < 0.01, "{load:?} {fair:?}");
        }
    }
}
