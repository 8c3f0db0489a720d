//! Subsets against a slow look at every host.

use super::{cluster, endpoint, place};
use crate::balance::{Criteria, PickContext, PickError, SubsetFound};
use crate::cluster::Cluster;
use crate::config::{
    Endpoint, Fraction, HealthStatus, LbPolicy, LbValue, SubsetFallback, SubsetSelector, Subsets,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

type Pairs = Vec<(String, LbValue)>;

fn pairs(text: &[(&str, &str)]) -> Pairs {
    text.iter().map(|(key, value)| ((*key).to_owned(), LbValue::of(value))).collect()
}

fn with(port: u16, metadata: Pairs) -> Endpoint {
    Endpoint { lb_metadata: metadata, ..endpoint(port, 1, HealthStatus::Unknown) }
}

fn divided(hosts: Vec<Endpoint>, subsets: Subsets) -> Arc<Cluster> {
    cluster(vec![place("", 0, None, hosts)], |c| {
        c.lb_policy = LbPolicy::RoundRobin;
        c.subsets = Some(subsets);
    })
}

fn by(keys: &[&[&str]]) -> Vec<SubsetSelector> {
    let selector = |keys: &&[&str]| SubsetSelector {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        fallback: None,
    };
    keys.iter().map(selector).collect()
}

fn reached(cluster: &Cluster, criteria: &Pairs) -> Result<(BTreeSet<u16>, SubsetFound), PickError> {
    let criteria = Criteria::new(criteria.iter());
    let mut rng = fastrand::Rng::with_seed(3);
    let mut draw = move || rng.u64(..);
    let mut ports = BTreeSet::new();
    let mut found = SubsetFound::None;
    for _ in 0..40 {
        let mut context =
            PickContext { criteria: criteria.as_ref(), ..PickContext::new(Instant::now(), &mut draw) };
        ports.insert(cluster.pick(&mut context)?.address.port());
        found = context.subset;
    }
    Ok((ports, found))
}

fn hosts() -> Vec<Endpoint> {
    vec![
        with(1, pairs(&[("version", "1"), ("stage", "prod")])),
        with(2, pairs(&[("version", "1"), ("stage", "dev")])),
        with(3, pairs(&[("version", "2"), ("stage", "prod")])),
        with(4, pairs(&[("stage", "prod")])),
    ]
}

#[test]
fn criteria_find_their_subset_and_others_fall_back() {
    let subsets = |fallback| Subsets {
        selectors: by(&[&["version"], &["stage", "version"]]),
        default_subset: pairs(&[("stage", "prod")]),
        fallback,
        ..Subsets::default()
    };
    let (none, any, default) = (
        divided(hosts(), subsets(SubsetFallback::None)),
        divided(hosts(), subsets(SubsetFallback::AnyEndpoint)),
        divided(hosts(), subsets(SubsetFallback::DefaultSubset)),
    );
    let selected = |ports: &[u16]| Ok((ports.iter().copied().collect(), SubsetFound::Selected));
    let fallback = |ports: &[u16]| Ok((ports.iter().copied().collect(), SubsetFound::Fallback));
    for (criteria, expected) in [
        (pairs(&[("version", "1")]), Some(selected(&[1, 2]))),
        (pairs(&[("version", "2"), ("stage", "prod")]), Some(selected(&[3]))),
        (pairs(&[("version", "3")]), None),
        // No selector has these keys.
        (pairs(&[("stage", "prod")]), None),
        (Vec::new(), None),
    ] {
        assert_eq!(reached(&none, &criteria), expected.clone().unwrap_or(Err(PickError::NoHealthy)));
        assert_eq!(reached(&any, &criteria), expected.clone().unwrap_or(fallback(&[1, 2, 3, 4])));
        assert_eq!(reached(&default, &criteria), expected.unwrap_or(fallback(&[1, 3, 4])));
    }
    assert_eq!(none.hosts().subset_count(), 5);
}

#[test]
fn selectors_own_fallback_holds_for_criteria_with_its_keys() {
    let mut subsets = Subsets { selectors: by(&[&["version"], &["stage"]]), ..Subsets::default() };
    subsets.selectors[0].fallback = Some(SubsetFallback::AnyEndpoint);
    let cluster = divided(hosts(), subsets);
    assert_eq!(reached(&cluster, &pairs(&[("version", "9")])).unwrap().0.len(), 4);
    assert_eq!(reached(&cluster, &pairs(&[("stage", "9")])), Err(PickError::NoHealthy));
}

#[test]
fn elements_of_a_list_count_one_by_one_where_told() {
    let list = LbValue { text: "[\"a\",\"b\"]".into(), elements: vec!["\"a\"".into(), "\"b\"".into()] };
    for (list_as_any, found) in [(true, true), (false, false)] {
        let hosts = vec![with(1, vec![("zone".into(), list.clone())]), with(2, Vec::new())];
        let cluster =
            divided(hosts, Subsets { selectors: by(&[&["zone"]]), list_as_any, ..Subsets::default() });
        assert_eq!(reached(&cluster, &pairs(&[("zone", "b")])).is_ok(), found);
        assert_eq!(reached(&cluster, &vec![("zone".into(), list.clone())]).is_ok(), !found);
    }
}

#[test]
fn any_host_helps_where_the_default_subset_has_none_and_that_is_wanted() {
    for panic_mode_any in [true, false] {
        let subsets = Subsets {
            selectors: by(&[&["version"]]),
            fallback: SubsetFallback::DefaultSubset,
            default_subset: pairs(&[("version", "7")]),
            panic_mode_any,
            ..Subsets::default()
        };
        let found = reached(&divided(hosts(), subsets), &Vec::new());
        let all = Ok(((1..=4).collect(), SubsetFound::FallbackPanic));
        assert_eq!(found, if panic_mode_any { all } else { Err(PickError::NoHosts) });
    }
}

#[test]
fn subset_whose_hosts_are_unhealthy_does_not_fall_back() {
    let mut hosts = hosts();
    hosts[2].health = HealthStatus::Unhealthy;
    let endpoints = vec![place("", 0, None, hosts)];
    let cluster = cluster(endpoints, |c| {
        c.healthy_panic_threshold = Fraction::ZERO;
        c.subsets = Some(Subsets {
            selectors: by(&[&["version"]]),
            fallback: SubsetFallback::AnyEndpoint,
            ..Subsets::default()
        });
    });
    assert_eq!(reached(&cluster, &pairs(&[("version", "2")])), Err(PickError::NoHealthy));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hosts_reached_are_those_that_have_what_is_demanded(
        hosts in prop::collection::vec((0u8..3, 0u8..3, 0u8..3), 1..12),
        wanted in (0u8..4, 0u8..3),
    ) {
        let value = |n: u8| LbValue::of(&n.to_string());
        let endpoints = hosts.iter().zip(1..).map(|((a, b, c), port)| {
            let mut metadata = vec![("a".to_owned(), value(*a)), ("c".to_owned(), value(*c))];
            // Every third kind of host says nothing of b.
            if *b > 0 {
                metadata.push(("b".to_owned(), value(*b)));
            }
            with(port, metadata)
        });
        let cluster = divided(endpoints.collect(), Subsets { selectors: by(&[&["b", "a"]]), ..Subsets::default() });
        let criteria = vec![("a".to_owned(), value(wanted.0)), ("b".to_owned(), value(wanted.1))];
        let expected: BTreeSet<u16> = hosts
            .iter()
            .zip(1..)
            .filter(|((a, b, _), _)| (*a, *b) == wanted && *b > 0)
            .map(|(_, port)| port)
            .collect();
        let found = reached(&cluster, &criteria).map(|found| found.0).unwrap_or_default();
        prop_assert_eq!(found, expected);
    }
}
