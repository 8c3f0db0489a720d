//! The catalog without any real source.

use std::net::IpAddr;

use outrigger_api::outrigger::v1;

use super::*;
use crate::source::Reach;
use crate::source::settings::{ECS, FILE};
use crate::source::status::State;

const TASK: &str = "0123456789abcdef0123456789abcdef";

fn workload(instance: &str, last: u8) -> Workload {
    let wire = v1::Workload {
        instance_id: instance.to_owned(),
        namespace: "shop".into(),
        service_account: "cart".into(),
        service: "cart".into(),
        ..v1::Workload::default()
    };
    Workload::from_wire(wire, IpAddr::from([192, 0, 2, last]), Reach::Network).unwrap()
}

fn registered(of: &[Workload]) -> watch::Sender<Workloads> {
    watch::Sender::new(of.iter().map(|w| Arc::new(w.clone())).collect())
}

fn found(of: &[Workload]) -> Found {
    Found { workloads: of.to_vec(), ..Found::default() }
}

fn ids(catalog: &Catalog) -> Vec<String> {
    catalog.workloads().borrow().iter().map(|w| format!("{}@{}", w.instance_id, w.address)).collect()
}

#[tokio::test]
async fn registered_workload_goes_before_the_same_one_of_a_source() {
    let registry = registered(&[workload("one", 1), workload(&format!("{TASK}-abc-0"), 2)]);
    let catalog = Catalog::new(registry.subscribe(), None);
    let a = catalog.add("a", FILE).await;
    let b = catalog.add("b", ECS).await;
    a.replace(found(&[workload("one", 3), workload("two", 4), workload("two", 5)]), Reading::Full);
    b.replace(
        found(&[workload("two", 6), workload(&format!("{TASK}-app"), 7), workload("three", 8)]),
        Reading::Full,
    );
    let all = ids(&catalog);
    assert_eq!(
        all,
        [
            "one@192.0.2.1".to_owned(),
            format!("{TASK}-abc-0@192.0.2.2"),
            "two@192.0.2.4".into(),
            "three@192.0.2.8".into()
        ]
    );
    let statuses = catalog.statuses();
    assert_eq!((statuses[0].workloads, statuses[0].known_otherwise), (1, 1));
    assert_eq!((statuses[1].workloads, statuses[1].known_otherwise), (1, 2));
    // The agent is gone and so is its lease: what ECS says counts again.
    let following = tokio::spawn(Arc::clone(&catalog).follow());
    let mut changes = catalog.workloads();
    changes.mark_unchanged();
    registry.send_replace(Vec::new().into());
    changes.changed().await.unwrap();
    assert_eq!(ids(&catalog).len(), 4);
    following.abort();
}

#[tokio::test]
async fn unchanged_reading_is_no_change_and_a_failed_one_takes_nothing_away() {
    let registry = registered(&[]);
    let catalog = Catalog::new(registry.subscribe(), None);
    let sink = catalog.add("a", FILE).await;
    sink.replace(found(&[workload("one", 1)]), Reading::Full);
    let mut changes = catalog.workloads();
    changes.mark_unchanged();
    sink.replace(found(&[workload("one", 1)]), Reading::Full);
    assert!(!changes.has_changed().unwrap());
    sink.fail("away");
    assert!(!changes.has_changed().unwrap());
    let status = catalog.statuses().remove(0);
    assert_eq!((status.state, status.workloads, status.syncs, status.changes), (State::Stale, 1, 2, 1));
    sink.replace(Found::default(), Reading::Full);
    assert!(changes.has_changed().unwrap());
    assert!(ids(&catalog).is_empty(), "an empty answer is an answer");
}

#[tokio::test]
async fn last_known_workloads_are_there_after_a_restart_and_stale() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registered(&[]);
    let kept = || Some(folder.path().join("sources"));
    let catalog = Catalog::new(registry.subscribe(), kept());
    let following = tokio::spawn(Arc::clone(&catalog).follow());
    let sink = catalog.add("a", FILE).await;
    sink.replace(found(&[workload("one", 1)]), Reading::Full);
    let path = folder.path().join("sources/a.json");
    while !path.exists() {
        tokio::task::yield_now().await;
    }
    following.abort();
    let catalog = Catalog::new(registry.subscribe(), kept());
    catalog.add("a", FILE).await;
    assert_eq!(ids(&catalog), ["one@192.0.2.1"]);
    let status = catalog.statuses().remove(0);
    assert_eq!((status.state, status.syncs), (State::Stale, 0));
    std::fs::write(&path, "{").unwrap();
    let catalog = Catalog::new(registry.subscribe(), kept());
    catalog.add("a", FILE).await;
    assert_eq!(catalog.statuses()[0].state, State::Pending, "a broken file is as none");
}

#[tokio::test]
async fn source_at_its_limit_is_whole_and_one_past_it_is_told() {
    let registry = registered(&[]);
    let catalog = Catalog::new(registry.subscribe(), None);
    let sink = catalog.add("a", FILE).await;
    let template = workload("x", 1);
    let many = |count: usize| -> Vec<Workload> {
        (0..count).map(|i| Workload { instance_id: format!("i{i:06}"), ..template.clone() }).collect()
    };
    sink.replace(found(&many(WORKLOADS_MAX)), Reading::Full);
    assert_eq!((catalog.statuses()[0].workloads, catalog.statuses()[0].over_limit), (WORKLOADS_MAX, 0));
    sink.replace(found(&many(WORKLOADS_MAX + 1)), Reading::Full);
    assert_eq!((catalog.statuses()[0].workloads, catalog.statuses()[0].over_limit), (WORKLOADS_MAX, 1));
    let unusable = |i: usize| Unusable { object: i.to_string(), reason: "bad".into() };
    sink.replace(
        Found { unusable: (0..=PROBLEMS_MAX).map(unusable).collect(), ..Found::default() },
        Reading::Full,
    );
    let status = catalog.statuses().remove(0);
    assert_eq!((status.unusable.len(), status.unusable_count), (PROBLEMS_MAX, PROBLEMS_MAX + 1));
}

#[tokio::test]
async fn drift_is_what_runs_unregistered_for_two_readings_and_what_is_registered_and_gone() {
    let gone = TASK.replace('0', "f");
    let registry = registered(&[workload(&format!("{gone}-abc-0"), 1), workload("no-task", 2)]);
    let catalog = Catalog::new(registry.subscribe(), None);
    let sink = catalog.add("cloud", ECS).await;
    let one: BTreeSet<String> = [TASK.to_owned()].into();
    let tasks = RunningTasks { all: one.clone(), expected: one };
    let reading = Found { tasks: Some(tasks), ..Found::default() };
    sink.replace(reading.clone(), Reading::Full);
    let drift = || catalog.statuses().remove(0).drift.unwrap();
    assert_eq!(drift().unregistered_count, 0, "it may just have started");
    assert_eq!(drift().not_running, [format!("{gone}-abc-0")]);
    sink.replace(reading, Reading::Full);
    assert_eq!(drift().unregistered, [TASK]);
    registry.send_replace([Arc::new(workload(&format!("{TASK}-abc-0"), 1))].into());
    assert_eq!(drift(), Drift::default());
    sink.fail("away");
    registry.send_replace([Arc::new(workload(&format!("{gone}-abc-0"), 1))].into());
    assert_eq!(drift().not_running_count, 0, "nobody knows while ECS is away");
}

#[test]
fn task_id_is_recognized_in_both_of_its_forms() {
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    for id in [TASK, uuid] {
        assert_eq!(task_of(id), Some(id));
        assert_eq!(task_of(&format!("{id}-app-0")), Some(id));
        assert_eq!(task_of(&format!("{id}x")), None);
    }
    for other in [
        "",
        "cart-1",
        "0123456789abcdef",
        "é123456789abcdef0123456789abcdefé",
        "g123456789abcdef0123456789abcdef",
    ] {
        assert_eq!(task_of(other), None, "{other}");
    }
}
