//! Of both importers: nothing panics, nothing is lost silently, and what counts as carried over has an effect.

use std::collections::BTreeSet;

use outrigger_plan::Object;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::resource::{Made, escape, host, label};
use super::trace::Trace;
use super::{Imported, Reader, Settings, Source, appmesh, import, service_connect, sources};

const APP_MESH: &str = include_str!("../../tests/import/appmesh.json");
const SERVICE_CONNECT: &str = include_str!("../../tests/import/service-connect.json");

fn settings() -> Settings {
    Settings { namespace: None, mesh_domain: "mesh".to_owned() }
}

fn readers() -> [(Reader, &'static str); 2] {
    [(appmesh::read, APP_MESH), (service_connect::read, SERVICE_CONNECT)]
}

fn leaves(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, child) in map {
                let plain =
                    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
                let path = if plain { format!("{path}.{key}") } else { format!("{path}[{key:?}]") };
                leaves(&path, child, found);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            list.iter().enumerate().for_each(|(i, child)| leaves(&format!("{path}[{i}]"), child, found));
        }
        _ => found.push(path.to_owned()),
    }
}

/// Imports; every leaf must be carried over or reported, and everything made be accepted.
fn checked(read: Reader, inputs: &[Source]) -> Result<(), TestCaseError> {
    let trace = Trace::default();
    let mut made = Made::default();
    let roots: Vec<_> = inputs.iter().map(|input| trace.root(&input.name, &input.value)).collect();
    read(&roots, &settings(), &mut made);
    for document in made.finish(&trace) {
        prop_assert!(Object::from_value(document.clone()).is_ok(), "{document}");
    }
    let used = trace.used();
    for input in inputs {
        let reported: BTreeSet<String> =
            trace.findings(&input.name, &input.value).into_iter().map(|finding| finding.path).collect();
        let mut all = Vec::new();
        leaves(&format!("{}: $", input.name), &input.value, &mut all);
        for leaf in all {
            prop_assert!(used.contains(&leaf) || reported.contains(&leaf), "{leaf} got lost");
        }
    }
    Ok(())
}

/// Keys and texts that the importers know, so that chance leads somewhere.
fn words() -> Vec<String> {
    let mut words = BTreeSet::new();
    fn add(value: &Value, words: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, child)| {
                words.insert(key.clone());
                add(child, words);
            }),
            Value::Array(list) => list.iter().for_each(|child| add(child, words)),
            Value::String(text) => drop(words.insert(text.clone())),
            _ => {}
        }
    }
    for (_, text) in readers() {
        sources("x", text).unwrap().iter().for_each(|source| add(&source.value, &mut words));
    }
    words.extend(["", "é.\n\"", "a.b", "serviceConnectConfiguration", "tcpRoute", "*"].map(str::to_owned));
    words.into_iter().collect()
}

fn value() -> impl Strategy<Value = Value> {
    let word = proptest::sample::select(words());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0_u64..70_000).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        Just(json!({})),
        Just(json!([])),
    ];
    leaf.prop_recursive(5, 48, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// The places of a value, in order, as JSON pointers.
fn pointers(at: &str, value: &Value, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, child)| {
            pointers(&format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), child, found);
        }),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, child)| pointers(&format!("{at}/{i}"), child, found));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn any_json_is_carried_over_or_reported(values in proptest::collection::vec(value(), 1..4)) {
        for (read, _) in readers() {
            let named = values.iter().enumerate();
            let inputs: Vec<Source> =
                named.map(|(i, value)| Source { name: format!("f{i}"), value: value.clone() }).collect();
            checked(read, &inputs)?;
        }
    }

    #[test]
    fn damaged_input_is_carried_over_or_reported(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), value()), 1..4),
    ) {
        for (read, text) in readers() {
            let values: Vec<Value> = sources("x", text).unwrap().into_iter().map(|source| source.value).collect();
            let mut whole = Value::Array(values);
            for (index, new) in &damage {
                let mut places = Vec::new();
                pointers("", &whole, &mut places);
                let place = index.get(&places).clone();
                if let Some(at) = whole.pointer_mut(&place) {
                    *at = new.clone();
                }
            }
            checked(read, &[Source { name: "x".to_owned(), value: whole }])?;
        }
    }
}

fn outcome(read: Reader, whole: &Value) -> (Imported, BTreeSet<String>) {
    let inputs = [Source { name: "x".to_owned(), value: whole.clone() }];
    let imported = import(read, &inputs, &settings());
    let reported = imported.findings.iter().map(|finding| finding.path.clone()).collect();
    (imported, reported)
}

/// A field that counts as carried over changes what is made, or what is said, when it changes.
#[test]
fn field_that_counts_as_carried_over_has_an_effect() {
    for (read, text) in readers() {
        let whole =
            Value::Array(sources("x", text).unwrap().into_iter().map(|source| source.value).collect());
        let (before, reported) = outcome(read, &whole);
        let (mut places, mut tried) = (Vec::new(), 0);
        pointers("", &whole, &mut places);
        for place in places {
            let mut other = whole.clone();
            let at = other.pointer_mut(&place).unwrap();
            *at = match at {
                Value::String(text) => json!(format!("{text}x")),
                Value::Number(number) => json!(number.as_u64().unwrap() + 1),
                Value::Bool(flag) => json!(!*flag),
                _ => continue,
            };
            let mut path = Vec::new();
            let here = whole.pointer(&place).unwrap();
            leaves(&as_path(&place), here, &mut path);
            // A priority only says which comes first, which one more does not change.
            if reported.contains(&path[0]) || place.ends_with("/priority") {
                continue;
            }
            let (after, _) = outcome(read, &other);
            let same = after.documents == before.documents && after.findings == before.findings;
            assert!(!same, "{place} counts as carried over and has no effect");
            tried += 1;
        }
        assert!(tried > 10, "{tried}");
    }
}

/// All keys of the examples are plain.
fn as_path(pointer: &str) -> String {
    let parts = pointer.split('/').skip(1).map(|part| match part.parse::<usize>() {
        Ok(number) => format!("[{number}]"),
        Err(_) => format!(".{part}"),
    });
    std::iter::once("x: $".to_owned()).chain(parts).collect()
}

fn app_mesh(value: Value) -> Imported {
    import(appmesh::read, &[Source { name: "x".to_owned(), value }], &settings())
}

fn node(name: &str) -> Value {
    json!({"meshName": "m", "virtualNodeName": name, "spec": {
        "listeners": [{"portMapping": {"port": 80, "protocol": "http"}}],
        "serviceDiscovery": {"dns": {"hostname": "h.example.com"}}}})
}

#[test]
fn nodes_whose_names_become_one_are_not_merged() {
    let imported = app_mesh(json!([node("a_b"), node("a-b")]));
    assert_eq!(imported.documents.len(), 1);
    assert!(imported.findings.iter().any(|f| f.path == "x: $[1].virtualNodeName"), "{:?}", imported.findings);
}

#[test]
fn resource_that_is_given_twice_or_only_listed_is_reported() {
    let listed = json!({"virtualNodes": [{"meshName": "m", "virtualNodeName": "z", "arn": "a"}]});
    let imported = app_mesh(json!([node("a"), node("a"), listed]));
    assert_eq!(imported.documents.len(), 1);
    let reasons: Vec<&str> = imported.findings.iter().map(|finding| finding.reason.as_str()).collect();
    assert!(reasons.iter().any(|r| r.contains("twice")) && reasons.iter().any(|r| r.contains("describe")));
}

#[test]
fn backends_without_their_mesh_make_no_policy_and_are_reported() {
    let mut caller = node("a");
    caller["spec"]["backends"] = json!([{"virtualService": {"virtualServiceName": "s.m"}}]);
    let service = json!({"meshName": "m", "virtualServiceName": "s.m",
        "spec": {"provider": {"virtualNode": {"virtualNodeName": "b"}}}});
    for (mesh, policies, told) in [
        (json!(null), 0, "not in the input"),
        (json!({"meshName": "m", "spec": {"egressFilter": {"type": "ALLOW_ALL"}}}), 0, "ALLOW_ALL"),
        // DROP_ALL is App Mesh's default.
        (json!({"meshName": "m", "spec": {}}), 1, ""),
    ] {
        let imported = app_mesh(json!([caller, node("b"), service, mesh]));
        let made = imported.documents.iter().filter(|d| d["kind"] == "AuthorizationPolicy").count();
        assert_eq!(made, policies, "{mesh}");
        let backend = "x: $[0].spec.backends[0].virtualService.virtualServiceName";
        let reason = imported.findings.iter().find(|f| f.path == backend).map_or("", |f| f.reason.as_str());
        assert!(reason.contains(told) && told.is_empty() == reason.is_empty(), "{reason}");
    }
}

#[test]
fn names_fit_where_they_go() {
    for (name, expected) in [("Orders_V1", "orders-v1"), ("a.b", "a-b"), ("--", "unnamed"), ("é", "unnamed")]
    {
        assert_eq!(label(name), expected);
    }
    assert!(label(&"a".repeat(300)).len() <= 63);
    assert_eq!(host("Orders.Shop"), Some("orders.shop".to_owned()));
    for bad in ["", "a..b", "-a", "a/b", "a b"] {
        assert_eq!(host(bad), None, "{bad}");
    }
    assert_eq!(escape("a.b/c"), "a\\.b/c");
}

#[test]
fn several_values_in_a_file_are_told_apart() {
    let names: Vec<String> = sources("f", "{} []\n1").unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["f#1", "f#2", "f#3"]);
    assert!(sources("f", "").is_err() && sources("f", "{").is_err());
}
