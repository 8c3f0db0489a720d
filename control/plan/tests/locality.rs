//! Nearer instances first.

mod world;

use outrigger_traffic::config::Locality;
use world::{planned, sidecar, workload};

fn place(text: &str) -> Locality {
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Locality { region: next(), zone: next(), sub_zone: next() }
}

/// Where `b` has its instances, with the priority each place has for a caller at `own`.
fn priorities(own: &str, places: &[&str], rule: &str) -> Vec<(String, u32)> {
    let mut caller = workload("demo", "a", "v1", 1);
    caller.locality = place(own);
    let mut all = vec![caller];
    for (host, text) in (10..).zip(places) {
        let mut instance = workload("demo", "b", "v1", host);
        instance.locality = place(text);
        all.push(instance);
    }
    let world = world::world(all, rule);
    let plan = planned(&world, &sidecar(&world, "a-v1-1"));
    let found =
        plan.config.endpoints.iter().find(|e| e.cluster_name == "outbound|8080||b.demo.mesh").unwrap();
    let line = |l: &outrigger_traffic::config::LocalityEndpoints| {
        let parts = [&l.locality.region, &l.locality.zone, &l.locality.sub_zone].map(String::as_str);
        (parts.join("/").trim_end_matches('/').to_owned(), l.priority)
    };
    found.localities.iter().map(line).collect()
}

fn rule(setting: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: b, namespace: demo}}\nspec: {{host: b, trafficPolicy: {{loadBalancer: {{localityLbSetting: {setting}}}}}}}\n"
    )
}

fn is(found: Vec<(String, u32)>, wanted: &[(&str, u32)]) {
    let wanted: Vec<(String, u32)> =
        wanted.iter().map(|(place, rank)| ((*place).to_owned(), *rank)).collect();
    assert_eq!(found, wanted);
}

#[test]
fn own_sub_zone_zone_and_region_come_first_in_this_order() {
    let places = ["hq/r1/s1", "hq/r1/s2", "hq/r2/s1", "aws/a"];
    is(
        priorities("hq/r1/s1", &places, ""),
        &[("aws/a", 3), ("hq/r1/s1", 0), ("hq/r1/s2", 1), ("hq/r2/s1", 2)],
    );
    is(priorities("hq/r1", &places, ""), &[("aws/a", 2), ("hq/r1/s1", 0), ("hq/r1/s2", 0), ("hq/r2/s1", 1)]);
    is(priorities("hq", &places, ""), &[("aws/a", 1), ("hq/r1/s1", 0), ("hq/r1/s2", 0), ("hq/r2/s1", 0)]);
}

#[test]
fn priorities_have_no_gaps_and_who_does_not_know_where_it_is_takes_all_alike() {
    is(priorities("hq/r1", &["aws/a", "hq/r1"], ""), &[("aws/a", 1), ("hq/r1", 0)]);
    is(priorities("hq/r1", &["aws/a", "gcp/b"], ""), &[("aws/a", 0), ("gcp/b", 0)]);
    is(priorities("", &["aws/a", "hq/r1"], ""), &[("aws/a", 0), ("hq/r1", 0)]);
    is(priorities("hq/r1", &["", "hq/r1"], ""), &[("", 1), ("hq/r1", 0)]);
}

#[test]
fn rule_names_the_next_region_or_switches_preference_off() {
    let places = ["aws/a", "gcp/b", "hq/r1"];
    let next = rule("{failover: [{from: hq, to: gcp}, {from: gcp, to: hq}]}");
    is(priorities("hq/r1", &places, &next), &[("aws/a", 2), ("gcp/b", 1), ("hq/r1", 0)]);
    is(priorities("hq/r1", &places, &rule("{enabled: false}")), &[("aws/a", 0), ("gcp/b", 0), ("hq/r1", 0)]);
}

#[test]
fn rule_that_makes_no_sense_is_refused() {
    for (setting, field) in [
        ("{failover: [{from: hq, to: hq}]}", "failover[0]"),
        ("{failover: [{from: hq/a, to: b}]}", "failover[0]"),
        ("{failover: [{from: hq, to: a}, {from: hq, to: b}]}", "failover[1]"),
        ("{distribute: []}", "distribute"),
        ("{failoverPriority: []}", "failoverPriority"),
    ] {
        let text = rule(setting);
        let read = outrigger_plan::parse_documents(&text).remove(0);
        let problems = format!("{:?}", read.unwrap_err());
        assert!(problems.contains(field), "{setting}: {problems}");
    }
}
