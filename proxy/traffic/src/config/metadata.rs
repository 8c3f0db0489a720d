//! Conditions on dynamic metadata: what filters learned of a request (`envoy.type.matcher.v3.MetadataMatcher`).

use super::StringMatch;
use serde::{Deserialize, Serialize};

/// Holds when the value at a place fits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetadataMatch {
    /// Namespace: by custom the name of the filter that wrote it.
    pub filter: String,
    /// Keys from there to the value, one below the other; at least one.
    pub path: Vec<String>,
    /// What the value must be.
    pub value: ValueMatch,
    /// Holds when the value does not fit, or is not there.
    pub invert: bool,
}

/// What a value must be. Values of other kinds do not fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ValueMatch {
    /// Null.
    Null,
    /// This number.
    Number(f64),
    /// A number from the first up to and without the second.
    NumberRange(f64, f64),
    /// A text.
    Text(StringMatch),
    /// A truth value.
    Bool(bool),
    /// Anything; `false` fits nothing, as in Envoy.
    Present(bool),
    /// A list with an item that fits.
    OneOf(Box<ValueMatch>),
    /// Any of these.
    Any(Vec<ValueMatch>),
}
