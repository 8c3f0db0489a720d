//! Runtime values: numbers, shares and switches that may be changed while the proxy runs.
//!
//! Layers lie on one another, the last one that has a key decides (Envoy: "Runtime configuration"). A value takes effect
//! where the configuration names its key: when layers change, what names a runtime key is translated anew and applied as
//! any other change is, so that a request never looks a key up.

use outrigger_traffic::config::Fraction;
use prost_types::Struct;
use prost_types::value::Kind as Value;
use std::collections::BTreeMap;

/// Most keys of one layer; what a layer has beyond them is refused.
pub const KEYS_MAX: usize = 10_000;

/// Keys that change what Envoy does and that have no effect here: they are refused, as every setting without effect is.
const WITHOUT_EFFECT: &[&str] = &[
    "upstream.",
    "outlier_detection.",
    "health_check.",
    "redis.",
    "ssl.",
    "ratelimit.",
    "overload.",
    "envoy.resource_limits.",
    "envoy.resource_monitors.",
    "http.",
    "router.",
    "access_log.",
    "zone_routing.",
    "conn_pool.",
];

/// Keys of those families that have an effect.
const WITH_EFFECT: &[&str] = &["upstream.healthy_panic_threshold", "envoy.resource_limits.listener."];

/// The only key that is read at the start alone: it stands in the file, or nowhere.
pub const CONNECTIONS_MAX: &str = "overload.global_downstream_max_connections";

/// Keys that only concern Envoy's own implementation, as prefixes of dotted names.
const HARMLESS: &[&str] = &["envoy.reloadable_features.", "envoy.restart_features.", "re2.max_program_size."];

/// One value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// As it was given.
    pub raw: String,
    number: Option<f64>,
    switch: Option<bool>,
    share: Option<Fraction>,
}

impl Entry {
    /// A value that was written as text: a number, `true` or `false`, or a share in YAML.
    pub fn of_text(text: &str) -> Self {
        let text = text.trim();
        let switch = match text.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        let number = text.parse().ok().filter(|n: &f64| n.is_finite());
        let share = text.contains("numerator").then(|| share_of_text(text)).flatten();
        Self { raw: text.to_owned(), number, switch, share }
    }

    fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::NumberValue(n) => Self { raw: n.to_string(), number: Some(*n), ..Self::default() },
            Value::BoolValue(b) => Self { raw: b.to_string(), switch: Some(*b), ..Self::default() },
            Value::StringValue(text) => Self::of_text(text),
            Value::StructValue(inner) => Self {
                raw: format!("{}/{}", number(inner, "numerator")?, text(inner, "denominator")),
                share: share(number(inner, "numerator")?, text(inner, "denominator")),
                ..Self::default()
            },
            Value::NullValue(_) | Value::ListValue(_) => return None,
        })
    }

    fn whole(&self) -> Option<u64> {
        // A float of no more than 53 bits is exact.
        self.number.filter(|n| *n >= 0.0 && n.fract() == 0.0 && *n <= 9e15).map(|n| n as u64)
    }
}

fn number(values: &Struct, key: &str) -> Option<f64> {
    match values.fields.get(key)?.kind.as_ref()? {
        Value::NumberValue(n) => Some(*n),
        _ => None,
    }
}

fn text<'s>(values: &'s Struct, key: &str) -> &'s str {
    match values.fields.get(key).and_then(|value| value.kind.as_ref()) {
        Some(Value::StringValue(text)) => text,
        _ => "HUNDRED",
    }
}

fn share(numerator: f64, denominator: &str) -> Option<Fraction> {
    let scale = match denominator {
        "HUNDRED" => 10_000.0,
        "TEN_THOUSAND" => 100.0,
        "MILLION" => 1.0,
        _ => return None,
    };
    (numerator >= 0.0).then(|| Fraction::from_millionths((numerator * scale).min(1_000_000.0) as u32))
}

fn share_of_text(text: &str) -> Option<Fraction> {
    let field = |name: &str| {
        let after = text.split(name).nth(1)?.trim_start_matches([':', ' ', '"', '\'']);
        after.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()
    };
    share(field("numerator")?.parse().ok()?, field("denominator").unwrap_or("HUNDRED"))
}

/// Where a layer's values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// The bootstrap file.
    Static,
    /// The administration interface.
    Admin,
    /// A control service; the name of the resource.
    Followed(String),
    /// A tree of files; its root.
    Disk(String),
}

/// One layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Where its values come from.
    pub kind: LayerKind,
    /// Its values.
    pub values: BTreeMap<String, Entry>,
}

/// All layers, the last one on top.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Runtime {
    /// From the bottom up.
    pub layers: Vec<Layer>,
    merged: BTreeMap<String, Entry>,
}

impl Runtime {
    /// These layers.
    pub fn new(layers: Vec<Layer>) -> Self {
        let mut runtime = Self { layers, merged: BTreeMap::new() };
        runtime.merge();
        runtime
    }

    fn merge(&mut self) {
        self.merged.clear();
        for layer in &self.layers {
            self.merged.extend(layer.values.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
    }

    /// Replaces the values of the layers that this resource stands for, or of all files with this root.
    pub fn replace(&mut self, kind: &LayerKind, values: &BTreeMap<String, Entry>) {
        for layer in self.layers.iter_mut().filter(|layer| layer.kind == *kind) {
            layer.values.clone_from(values);
        }
        self.merge();
    }

    /// Sets (or, with an empty text, removes) values in the administration's layer.
    ///
    /// # Errors
    /// There is no such layer, or a key has no effect.
    pub fn modify(&mut self, changes: &[(String, String)]) -> Result<(), String> {
        for (key, _) in changes {
            if let Some(reason) = without_effect(key) {
                return Err(format!("{key}: {reason}"));
            }
        }
        let layer = self.layers.iter_mut().rev().find(|layer| layer.kind == LayerKind::Admin);
        let layer = layer.ok_or("no admin layer specified")?;
        for (key, value) in changes {
            if value.is_empty() {
                layer.values.remove(key);
            } else {
                layer.values.insert(key.clone(), Entry::of_text(value));
            }
        }
        if layer.values.len() > KEYS_MAX {
            return Err(format!("more than {KEYS_MAX} keys"));
        }
        self.merge();
        Ok(())
    }

    /// Every key that some layer has.
    pub fn keys(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.merged.iter()
    }

    /// A share: as one is written, or a whole number of hundredths.
    pub fn share(&self, key: &str, default: Fraction) -> Fraction {
        let Some(entry) = self.get(key) else { return default };
        let hundredths = || entry.whole().map(|n| Fraction::from_percent(n.min(100) as u32));
        entry.share.or_else(hundredths).unwrap_or(default)
    }

    /// A whole number.
    pub fn whole(&self, key: &str, default: u64) -> u64 {
        self.get(key).and_then(Entry::whole).unwrap_or(default)
    }

    /// A whole number of 32 bits; one that is larger counts as the largest.
    pub fn whole_u32(&self, key: &str, default: u32) -> u32 {
        u32::try_from(self.whole(key, u64::from(default))).unwrap_or(u32::MAX)
    }

    /// A number.
    pub fn number(&self, key: &str, default: f64) -> f64 {
        self.get(key).and_then(|entry| entry.number).unwrap_or(default)
    }

    /// A switch.
    pub fn switch(&self, key: &str, default: bool) -> bool {
        self.get(key).and_then(|entry| entry.switch).unwrap_or(default)
    }

    fn get(&self, key: &str) -> Option<&Entry> {
        if self.merged.is_empty() || key.is_empty() { None } else { self.merged.get(key) }
    }
}

/// Why a key changes nothing here although it does in Envoy.
pub fn without_effect(key: &str) -> Option<&'static str> {
    let known = |list: &[&str]| list.iter().any(|prefix| key.starts_with(prefix));
    (known(WITHOUT_EFFECT) && !known(WITH_EFFECT)).then_some("this runtime value is not supported")
}

/// Whether a key is about Envoy's own code.
pub fn is_harmless(key: &str) -> bool {
    HARMLESS.iter().any(|prefix| key.starts_with(prefix))
}

/// The values of a layer. Keys may be written dotted or nested; both mean the same.
///
/// # Errors
/// Every key with its reason.
pub fn values(from: &Struct) -> Result<BTreeMap<String, Entry>, Vec<(String, String)>> {
    let (mut found, mut wrong) = (BTreeMap::new(), Vec::new());
    flatten("", from, &mut found, &mut wrong);
    if found.len() > KEYS_MAX {
        wrong.push((String::new(), format!("more than {KEYS_MAX} keys")));
    }
    if wrong.is_empty() { Ok(found) } else { Err(wrong) }
}

fn flatten(
    prefix: &str,
    from: &Struct,
    found: &mut BTreeMap<String, Entry>,
    wrong: &mut Vec<(String, String)>,
) {
    for (name, value) in &from.fields {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match &value.kind {
            Some(Value::StructValue(inner)) if !inner.fields.contains_key("numerator") => {
                flatten(&key, inner, found, wrong);
            }
            Some(value) => match (without_effect(&key), Entry::of(value)) {
                (Some(reason), _) => wrong.push((key, reason.to_owned())),
                (None, Some(entry)) => drop(found.insert(key, entry)),
                (None, None) => wrong.push((key, "is neither a number, a text, a switch nor a share".into())),
            },
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(kind: LayerKind, values: &[(&str, &str)]) -> Layer {
        let values = values.iter().map(|(k, v)| ((*k).to_owned(), Entry::of_text(v))).collect();
        Layer { name: "l".into(), kind, values }
    }

    #[test]
    fn last_layer_with_a_key_decides_and_values_are_read_as_what_is_asked_for() {
        let mut runtime = Runtime::new(vec![
            layer(
                LayerKind::Static,
                &[("a", "10"), ("b", "true"), ("c", "numerator: 5\ndenominator: TEN_THOUSAND")],
            ),
            layer(LayerKind::Admin, &[]),
        ]);
        assert_eq!(runtime.share("a", Fraction::ONE), Fraction::from_percent(10));
        assert_eq!(runtime.share("c", Fraction::ONE), Fraction::from_millionths(500));
        assert_eq!(runtime.share("none", Fraction::ONE), Fraction::ONE);
        assert!(runtime.switch("b", false));
        runtime.modify(&[("a".into(), "250".into())]).unwrap();
        assert_eq!((runtime.whole("a", 1), runtime.share("a", Fraction::ZERO)), (250, Fraction::ONE));
        runtime.modify(&[("a".into(), String::new())]).unwrap();
        assert_eq!(runtime.whole("a", 1), 10);
        assert!(runtime.modify(&[("upstream.use_retry".into(), "1".into())]).is_err());
        assert_eq!(Runtime::default().modify(&[]), Err("no admin layer specified".into()));
    }
}
