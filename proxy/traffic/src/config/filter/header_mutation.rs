//! Header edits as a filter (`envoy.extensions.filters.http.header_mutation.v3`).

use crate::config::{HeaderEdit, StringMatch};
use serde::{Deserialize, Serialize};

/// Edits of requests and responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMutations {
    /// Of the request, in order.
    pub request: Vec<HeaderMutation>,
    /// Of the response, in order.
    pub response: Vec<HeaderMutation>,
}

/// The filter: its own edits, and how those of levels follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMutationFilter {
    /// Before those of levels.
    pub mutations: HeaderMutations,
    /// The most specific level comes last, and wins. Default false: it comes first.
    pub most_specific_wins: bool,
}

/// One edit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderMutation {
    /// All fields of this lower-case name go.
    Remove(String),
    /// A field comes or changes.
    Set(HeaderEdit),
    /// All fields whose names match go.
    RemoveMatching(StringMatch),
}
