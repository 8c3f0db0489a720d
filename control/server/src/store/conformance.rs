//! What every store must do. A backend's tests call [`check_all`] with a way to make an empty one.

use serde_json::{Value, json};

use super::{CHANGES_MAX, Change, Expect, KEY_PART_BYTES_MAX, Key, Store, StoreError, VALUE_BYTES_MAX};

/// Runs the whole suite, each part on a store of its own.
pub(super) fn check_all(mut empty: impl FnMut() -> Box<dyn Store>) {
    for check in [
        put_get_and_history,
        expectations,
        commit_is_all_or_nothing,
        listing_is_ordered_and_filtered,
        same_value_changes_nothing,
        removal,
        watchers_see_the_last_revision,
        limits,
        random_commits_match_a_plain_model,
    ] {
        check(&*empty());
    }
}

fn key(name: &str) -> Key {
    Key::new("VirtualService", "shop", name)
}

fn put(key: &Key, value: Value, expect: Expect) -> Change {
    Change::Put { key: key.clone(), value, expect }
}

fn delete(key: &Key, expect: Expect) -> Change {
    Change::Delete { key: key.clone(), expect }
}

fn put_get_and_history(store: &dyn Store) {
    assert_eq!(store.revision().unwrap(), 0);
    assert!(store.get(&key("a")).unwrap().is_none());
    let first = store.commit(&[put(&key("a"), json!({"x": 1}), Expect::Absent)], 100).unwrap();
    assert_eq!(first.revision, 1);
    let second = store.commit(&[put(&key("a"), json!({"x": 2}), Expect::Version(1))], 200).unwrap();
    assert_eq!(second.revision, 2);
    let record = store.get(&key("a")).unwrap().unwrap();
    assert_eq!(second.records, [Some(record.clone())]);
    assert_eq!((record.resource_version, record.generation), (2, 2));
    assert_eq!((record.created_unix_ms, record.updated_unix_ms), (100, 200));
    assert_eq!(record.value, json!({"x": 2}));
}

fn expectations(store: &dyn Store) {
    let a = key("a");
    let conflict = |result| matches!(result, Err(StoreError::Conflict { .. }));
    assert!(conflict(store.commit(&[put(&a, json!(1), Expect::Version(1))], 0)));
    assert!(conflict(store.commit(&[delete(&a, Expect::Version(1))], 0)));
    store.commit(&[put(&a, json!(1), Expect::Absent)], 0).unwrap();
    assert!(conflict(store.commit(&[put(&a, json!(2), Expect::Absent)], 0)));
    assert!(conflict(store.commit(&[put(&a, json!(2), Expect::Version(9))], 0)));
    assert!(conflict(store.commit(&[delete(&a, Expect::Version(9))], 0)));
    // Even a change that would change nothing is refused when its expectation does not hold.
    assert!(conflict(store.commit(&[put(&a, json!(1), Expect::Version(9))], 0)));
    assert_eq!(store.revision().unwrap(), 1);
}

fn commit_is_all_or_nothing(store: &dyn Store) {
    let changes = [put(&key("a"), json!(1), Expect::Absent), put(&key("b"), json!(1), Expect::Version(7))];
    assert!(store.commit(&changes, 0).is_err());
    assert!(store.list(None, None).unwrap().is_empty());
    assert_eq!(store.revision().unwrap(), 0);
    // Later changes of a commit see earlier ones, and all have the same revision.
    let changes = [
        put(&key("a"), json!(1), Expect::Absent),
        put(&key("b"), json!(1), Expect::Absent),
        delete(&key("a"), Expect::Any),
    ];
    assert_eq!(store.commit(&changes, 0).unwrap().revision, 1);
    assert_eq!(store.list(None, None).unwrap().len(), 1);
}

fn listing_is_ordered_and_filtered(store: &dyn Store) {
    let keys = [
        Key::new("B", "n", "x"),
        Key::new("A", "n2", "x"),
        Key::new("A", "n", "y"),
        Key::new("A", "n", "x"),
        Key::new("AA", "n", "x"),
        Key::new("A", "", "global"),
    ];
    let changes: Vec<Change> = keys.iter().map(|key| put(key, json!(0), Expect::Any)).collect();
    store.commit(&changes, 0).unwrap();
    let names = |kind, namespace| -> Vec<String> {
        store.list(kind, namespace).unwrap().iter().map(|record| record.key.to_string()).collect()
    };
    assert_eq!(names(Some("A"), None), ["A/global", "A/n/x", "A/n/y", "A/n2/x"]);
    assert_eq!(names(Some("A"), Some("n")), ["A/n/x", "A/n/y"]);
    assert_eq!(names(Some("A"), Some("")), ["A/global"]);
    assert_eq!(names(None, Some("n")).len(), 4);
    assert_eq!(names(None, None).len(), 6);
    assert!(names(Some("C"), None).is_empty());
}

fn same_value_changes_nothing(store: &dyn Store) {
    store.commit(&[put(&key("a"), json!({"x": [1, 2]}), Expect::Any)], 1).unwrap();
    let again = store.commit(&[put(&key("a"), json!({"x": [1, 2]}), Expect::Version(1))], 2).unwrap();
    assert_eq!(again.revision, 1);
    let record = again.records[0].clone().unwrap();
    assert_eq!((record.resource_version, record.generation, record.updated_unix_ms), (1, 1, 1));
    assert_eq!(store.commit(&[], 3).unwrap().revision, 1);
}

fn removal(store: &dyn Store) {
    assert_eq!(store.commit(&[delete(&key("a"), Expect::Any)], 0).unwrap().revision, 0);
    store.commit(&[put(&key("a"), json!(1), Expect::Any)], 0).unwrap();
    let gone = store.commit(&[delete(&key("a"), Expect::Version(1))], 0).unwrap();
    assert_eq!((gone.revision, gone.records), (2, vec![None]));
    assert!(store.get(&key("a")).unwrap().is_none());
    // One that comes back is a new one, and its version is one nobody has seen.
    store.commit(&[put(&key("a"), json!(1), Expect::Absent)], 9).unwrap();
    let record = store.get(&key("a")).unwrap().unwrap();
    assert_eq!((record.resource_version, record.generation, record.created_unix_ms), (3, 1, 9));
}

fn watchers_see_the_last_revision(store: &dyn Store) {
    let mut watch = store.watch();
    assert!(!watch.has_changed().unwrap());
    for n in 0..5 {
        store.commit(&[put(&key("a"), json!(n), Expect::Any)], 0).unwrap();
    }
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), 5);
    store.commit(&[put(&key("a"), json!(4), Expect::Any)], 0).unwrap();
    assert!(!watch.has_changed().unwrap(), "nothing changed");
}

fn limits(store: &dyn Store) {
    let long = Key::new("A", "n", "x".repeat(KEY_PART_BYTES_MAX));
    store.commit(&[put(&long, json!(0), Expect::Any)], 0).unwrap();
    for bad in [
        Key::new("A", "n", "x".repeat(KEY_PART_BYTES_MAX + 1)),
        Key::new("", "n", "x"),
        Key::new("A", "n", ""),
        Key::new("A", "n\0m", "x"),
    ] {
        assert!(matches!(store.commit(&[put(&bad, json!(0), Expect::Any)], 0), Err(StoreError::Key { .. })));
    }
    // Two quotes around the text.
    let fits = json!("x".repeat(VALUE_BYTES_MAX - 2));
    let over = json!("x".repeat(VALUE_BYTES_MAX - 1));
    store.commit(&[put(&key("big"), fits, Expect::Any)], 0).unwrap();
    let refused = store.commit(&[put(&key("big"), over, Expect::Any)], 0);
    assert!(matches!(refused, Err(StoreError::Limit { .. })));
    let many = vec![delete(&key("none"), Expect::Any); CHANGES_MAX + 1];
    assert!(store.commit(&many[..CHANGES_MAX], 0).is_ok());
    assert!(matches!(store.commit(&many, 0), Err(StoreError::Limit { .. })));
}

fn random_commits_match_a_plain_model(store: &dyn Store) {
    let mut random = fastrand::Rng::with_seed(42);
    let mut model: Vec<(Key, Value)> = Vec::new();
    for _ in 0..150 {
        let mut next = model.clone();
        let mut changes = Vec::new();
        for _ in 0..random.usize(1..4) {
            let key = Key::new("K", format!("n{}", random.u8(0..2)), format!("r{}", random.u8(0..4)));
            next.retain(|(held, _)| *held != key);
            if random.bool() {
                let value = json!(random.u32(..));
                next.push((key.clone(), value.clone()));
                changes.push(put(&key, value, Expect::Any));
            } else {
                changes.push(delete(&key, Expect::Any));
            }
        }
        if random.u8(0..4) == 0 {
            changes.push(put(&Key::new("K", "n0", "spoiler"), json!(0), Expect::Version(u64::MAX)));
            assert!(store.commit(&changes, 0).is_err());
        } else {
            store.commit(&changes, 0).unwrap();
            model = next;
        }
        model.sort_by(|a, b| a.0.cmp(&b.0));
        let held: Vec<(Key, Value)> =
            store.list(None, None).unwrap().into_iter().map(|record| (record.key, record.value)).collect();
        assert_eq!(held, model);
    }
}
