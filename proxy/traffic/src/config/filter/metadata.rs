//! Filters that write dynamic metadata (`envoy.extensions.filters.http.{header_to_metadata,set_metadata}.v3`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Header fields become metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderToMetadata {
    /// For requests.
    pub request: Vec<MetadataRule>,
    /// For responses.
    pub response: Vec<MetadataRule>,
}

/// One field and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataRule {
    /// Where the value is.
    pub source: MetadataSource,
    /// What is written where it is there.
    pub present: Option<MetadataTarget>,
    /// What is written where it is not.
    pub missing: Option<MetadataTarget>,
    /// The header is taken out of the message.
    pub remove: bool,
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetadataSource {
    /// A header; lower case.
    Header(String),
    /// A cookie. Of requests.
    Cookie(String),
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataTarget {
    /// Namespace.
    pub namespace: String,
    /// Key.
    pub key: String,
    /// The value; empty: that of the field.
    pub value: String,
    /// A pattern, and what its matches in the field's value are replaced by.
    pub rewrite: Option<(String, String)>,
    /// What the text is made into.
    pub kind: MetadataKind,
    /// The text is base64.
    pub base64: bool,
}

/// What a text is made into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetadataKind {
    /// A text.
    Text,
    /// A number; nothing where it is none.
    Number,
    /// What a serialized `google.protobuf.Value` says.
    Message,
}

/// Fixed values become metadata of every request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetMetadata {
    /// Namespace.
    pub namespace: String,
    /// What is there already is changed: objects become one, lists are joined, other values replaced. Otherwise a namespace
    /// that exists stays as it is.
    pub overwrite: bool,
    /// What is written.
    pub value: Map<String, Value>,
}
