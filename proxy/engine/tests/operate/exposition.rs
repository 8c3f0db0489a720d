//! A small strict reader of Prometheus' text format, written for these tests.

use std::collections::{BTreeMap, BTreeSet};

/// One family.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    /// Name with suffix, labels, value.
    pub(crate) samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Reads a whole exposition; panics with the line that is wrong.
pub(crate) fn read(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    assert!(text.ends_with('\n'), "the last line must end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(!families.contains_key(name), "family twice: {line}");
            families.insert(name.to_owned(), Family { help: help.to_owned(), ..Family::default() });
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert_eq!(name, current, "{line}");
            assert!(["counter", "gauge", "histogram", "untyped"].contains(&kind), "{line}");
            families.get_mut(name).unwrap().kind = kind.to_owned();
        } else {
            let (name, labels, value) = sample(line);
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("{line}"));
            let base = match family.kind.as_str() {
                "histogram" => {
                    ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or("")
                }
                _ => name.as_str(),
            };
            assert_eq!(base, current, "{line}");
            assert!(seen.insert((name.clone(), labels.clone())), "series twice: {line}");
            family.samples.push((name, labels, value));
        }
    }
    families.values().filter(|f| f.kind == "histogram").for_each(check_histogram);
    families
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let name = &line[..end];
    assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
    let mut labels = BTreeMap::new();
    let mut rest = &line[end..];
    if let Some(mut inside) = rest.strip_prefix('{') {
        while !inside.starts_with('}') {
            let (label, after) = inside.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            let label = label.trim_start_matches(',');
            let (value, after) = quoted(after, line);
            assert!(labels.insert(label.to_owned(), value).is_none(), "label twice: {line}");
            inside = after;
        }
        rest = &inside[1..];
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                _ => panic!("{line}"),
            },
            c => value.push(c),
        }
    }
    panic!("{line}")
}

type Labels = BTreeMap<String, String>;
/// Bounds with their counts, and the count of the whole.
type Buckets = (Vec<(f64, f64)>, Option<f64>);

/// Buckets grow, the last is `+Inf` and equals the count.
fn check_histogram(family: &Family) {
    let mut by_labels: BTreeMap<Labels, Buckets> = BTreeMap::new();
    for (name, labels, value) in &family.samples {
        let mut labels = labels.clone();
        let le = labels.remove("le");
        let entry = by_labels.entry(labels).or_default();
        match le {
            Some(le) => entry.0.push((le.parse().unwrap(), *value)),
            None if name.ends_with("_count") => entry.1 = Some(*value),
            None => {}
        }
    }
    for (labels, (buckets, count)) in by_labels {
        assert!(buckets.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1), "{labels:?} {buckets:?}");
        let last = buckets.last().unwrap();
        assert!(last.0.is_infinite() && Some(last.1) == count, "{labels:?}");
    }
}

/// The value of the only sample with these labels among its own.
pub(crate) fn value(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let all: Vec<f64> = families
        .values()
        .flat_map(|f| &f.samples)
        .filter(|(n, own, _)| {
            n == name && labels.iter().all(|(label, wanted)| own.get(*label).is_some_and(|v| v == wanted))
        })
        .map(|(_, _, value)| *value)
        .collect();
    assert_eq!(all.len(), 1, "{name} {labels:?}: {all:?}");
    all[0]
}
