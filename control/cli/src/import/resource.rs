//! What is made: resources with unique names, tried by the planner's own reader before they are printed.

use std::collections::BTreeSet;

use outrigger_plan::{Kind, Object};
use serde_json::{Map, Value, json};

use super::trace::{Cursor, Level, Trace};

/// Annotation that says what a resource was made from.
const SOURCE: &str = "outrigger.io/imported-from";

/// Resources in the order in which they are to be read.
#[derive(Default)]
pub struct Made {
    documents: Vec<(Value, String)>,
    names: BTreeSet<(Kind, String, String)>,
}

impl Made {
    /// Adds a resource. `origin` is what it was made from, `from` that thing's name for people.
    pub fn add(
        &mut self,
        kind: Kind,
        namespace: &str,
        name: &str,
        from: &str,
        origin: &Cursor<'_>,
        spec: Value,
    ) {
        let base = label(name);
        let mut name = base.clone();
        let mut number = 2;
        // Names that differ in what a resource's name cannot hold.
        while !self.names.insert((kind, namespace.to_owned(), name.clone())) {
            name = format!("{base}-{number}");
            number += 1;
        }
        let document = json!({
            "apiVersion": format!("{}/v1", kind.group()),
            "kind": kind.name(),
            "metadata": {"name": name, "namespace": namespace, "annotations": {SOURCE: from}},
            "spec": spec,
        });
        self.documents.push((document, origin.path().to_owned()));
    }

    /// The resources. What the planner would refuse is left out, and with it everything below its origin is reported.
    pub fn finish(self, trace: &Trace) -> Vec<Value> {
        let accepted = |(document, origin): (Value, String)| match Object::from_value(document.clone()) {
            Ok(_) => Some(document),
            Err(errors) => {
                let reasons: Vec<String> = errors.iter().map(ToString::to_string).collect();
                trace.verdict(&origin, Level::Lost, format!("left out: {}", reasons.join("; ")));
                None
            }
        };
        self.documents.into_iter().filter_map(accepted).collect()
    }
}

/// Why the planner would refuse a route of a VirtualService (`http` or `tcp`), if it would.
pub fn refusal(layer: &str, route: &Value) -> Option<String> {
    let document = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "x"},
        "spec": {"hosts": ["x"], layer: [route]},
    });
    let errors = Object::from_value(document).err()?;
    Some(errors.iter().map(|error| error.reason.clone()).collect::<Vec<_>>().join("; "))
}

/// Longest label of a name (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// A name as a DNS label: lower case, everything else becomes a dash.
pub fn label(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = name.chars().map(plain).collect();
    // Room for the number that tells two of a name apart.
    let text: String = text.trim_matches('-').chars().take(LABEL_BYTES_MAX - 11).collect();
    let text = text.trim_end_matches('-');
    if text.is_empty() { "unnamed".to_owned() } else { text.to_owned() }
}

/// A host name that callers use, in lower case; none where it cannot be one.
pub fn host(text: &str) -> Option<String> {
    let fits = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    (text.len() <= 253 && text.split('.').all(fits)).then(|| text.to_ascii_lowercase())
}

/// A text in a regular expression that matches just it.
pub fn escape(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~/".contains(c) && c != '/' {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// Adds a field where there is something to add.
pub fn put(map: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value.into());
    }
}

/// An object, or nothing where it would be empty.
pub fn filled(map: Map<String, Value>) -> Option<Value> {
    (!map.is_empty()).then_some(Value::Object(map))
}
