//! What changed between two configurations or two resources, for people.

use std::collections::BTreeMap;

use outrigger_traffic::config::Config;
use serde::Serialize;
use serde_json::Value;

/// Most differences listed; the count beyond is told by [`Difference::more`].
pub const CHANGES_MAX: usize = 200;

/// One place that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The resource, as in `cluster/outbound|8080||b.demo.mesh`.
    pub resource: String,
    /// Where in it; empty: the resource as a whole.
    pub path: String,
    /// As it was; `None`: not there.
    pub before: Option<Value>,
    /// As it is; `None`: gone.
    pub after: Option<Value>,
}

/// The differences of two things.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// In order of resource and path.
    pub changes: Vec<Change>,
    /// How many more there are.
    pub more: usize,
}

impl Difference {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn put(&mut self, resource: &str, path: String, before: Option<&Value>, after: Option<&Value>) {
        if self.changes.len() == CHANGES_MAX {
            self.more += 1;
            return;
        }
        let (before, after) = (before.cloned().map(redact), after.cloned().map(redact));
        self.changes.push(Change { resource: resource.to_owned(), path, before, after });
    }

    fn compare(&mut self, resource: &str, path: &str, before: &Value, after: &Value) {
        match (before, after) {
            (Value::Object(a), Value::Object(b)) => {
                let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
                for key in keys {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    match (a.get(key), b.get(key)) {
                        (Some(a), Some(b)) if SECRET_KEYS.contains(&key.as_str()) => {
                            if a != b {
                                self.put(
                                    resource,
                                    path,
                                    Some(&REDACTED_BEFORE.into()),
                                    Some(&REDACTED_AFTER.into()),
                                );
                            }
                        }
                        (Some(a), Some(b)) => self.compare(resource, &path, a, b),
                        (a, b) if SECRET_KEYS.contains(&key.as_str()) => {
                            self.put(
                                resource,
                                path,
                                a.map(|_| REDACTED_BEFORE.into()).as_ref(),
                                b.map(|_| REDACTED_AFTER.into()).as_ref(),
                            );
                        }
                        (a, b) => self.put(resource, path, a, b),
                    }
                }
            }
            (Value::Array(a), Value::Array(b)) => {
                for i in 0..a.len().max(b.len()) {
                    let path = format!("{path}[{i}]");
                    match (a.get(i), b.get(i)) {
                        (Some(a), Some(b)) => self.compare(resource, &path, a, b),
                        (a, b) => self.put(resource, path, a, b),
                    }
                }
            }
            (a, b) if a != b => self.put(resource, path.to_owned(), Some(a), Some(b)),
            _ => {}
        }
    }
}

/// Fields whose content is never shown.
const SECRET_KEYS: [&str; 4] = ["key_pem", "tls.key", "key", "stringData"];
const REDACTED_BEFORE: &str = "[redacted, before]";
const REDACTED_AFTER: &str = "[redacted, after]";

fn redact(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                let taken = inner.take();
                *inner = if SECRET_KEYS.contains(&key.as_str()) && !is_plain_key(&taken) {
                    "[redacted]".into()
                } else {
                    redact(taken)
                };
            }
            value
        }
        Value::Array(list) => {
            for inner in list.iter_mut() {
                *inner = redact(inner.take());
            }
            value
        }
        _ => value,
    }
}

/// `key:` of a condition in an AuthorizationPolicy names an attribute and is no secret.
fn is_plain_key(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        ["request.", "source.", "destination.", "connection.", "remote."].iter().any(|p| text.starts_with(p))
    })
}

/// What differs between two configurations of a node.
pub fn configs(before: &Config, after: &Config) -> Difference {
    let mut difference = Difference::default();
    let (before, after) = (by_name(before), by_name(after));
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let mut names: Vec<&String> = names.collect();
    names.sort();
    for name in names {
        match (before.get(name), after.get(name)) {
            (Some(a), Some(b)) => difference.compare(name, "", a, b),
            (a, b) => difference.put(name, String::new(), a, b),
        }
    }
    difference
}

/// What differs between two versions of a resource; `None` for one that is not there.
pub fn resources(label: &str, before: Option<&Value>, after: Option<&Value>) -> Difference {
    let mut difference = Difference::default();
    match (before, after) {
        (Some(a), Some(b)) => difference.compare(label, "", a, b),
        (None, None) => {}
        (a, b) => difference.put(label, String::new(), a, b),
    }
    difference
}

fn by_name(config: &Config) -> BTreeMap<String, Value> {
    let mut map = BTreeMap::new();
    let mut put = |kind: &str, name: &str, value: serde_json::Result<Value>| {
        map.insert(format!("{kind}/{name}"), value.unwrap_or_default());
    };
    config.listeners.iter().for_each(|v| put("listener", &v.name, serde_json::to_value(v)));
    config.route_configs.iter().for_each(|v| put("route_config", &v.name, serde_json::to_value(v)));
    config.clusters.iter().for_each(|v| put("cluster", &v.name, serde_json::to_value(v)));
    config.endpoints.iter().for_each(|v| put("endpoints", &v.cluster_name, serde_json::to_value(v)));
    config.secrets.iter().for_each(|v| put("secret", &v.name, serde_json::to_value(v)));
    map
}
