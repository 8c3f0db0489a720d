//! Routes that ask for a part of a cluster's hosts.

use std::collections::BTreeSet;

use outrigger_testkit::Origin;
use outrigger_testkit::client::get;
use outrigger_traffic::config::{ClusterDiscovery, LbValue, SubsetFallback, SubsetSelector, Subsets};

use crate::bed::{Bed, action, forward, host, to};

#[tokio::test]
async fn routes_reach_the_hosts_they_ask_for_and_others_fall_back() {
    let origins = [Origin::h1("0").await, Origin::h1("1").await, Origin::h1("2").await];
    let mut config = to(&[&origins[0], &origins[1], &origins[2]]);
    config.clusters[0].subsets = Some(Subsets {
        selectors: vec![SubsetSelector {
            keys: vec!["version".into()],
            fallback: Some(SubsetFallback::None),
        }],
        fallback: SubsetFallback::AnyEndpoint,
        ..Subsets::default()
    });
    let ClusterDiscovery::Static(endpoints) = &mut config.clusters[0].discovery else { panic!() };
    for (endpoint, version) in endpoints.localities[0].endpoints.iter_mut().zip(["1", "1", "2"]) {
        endpoint.lb_metadata = vec![("version".into(), LbValue::of(version))];
    }
    for version in ["1", "2", "3"] {
        host(&mut config).routes.insert(0, forward(&format!("/v{version}"), "a"));
        action(&mut config, 0).metadata_match = vec![("version".into(), LbValue::of(version))];
    }
    let bed = Bed::start(config);
    for (path, expected) in [("/v1", &["0", "1"][..]), ("/v2", &["2"]), ("/", &["0", "1", "2"])] {
        let mut used = BTreeSet::new();
        for _ in 0..12 {
            used.insert(get(bed.address, "h", path).await.origin().to_owned());
        }
        assert_eq!(used.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{path}");
    }
    assert_eq!(get(bed.address, "h", "/v3").await.status, 503);
    let counts = (
        bed.cluster_stat("a", |stats| stats.lb_subsets_selected.value()),
        bed.cluster_stat("a", |stats| stats.lb_subsets_fallback.value()),
    );
    assert_eq!(counts, (24, 13));
}
