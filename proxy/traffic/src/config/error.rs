//! Why a configuration was refused.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One reason why a configuration cannot be used. Refusals always come as a list with every reason found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConfigError {
    /// Kind and name of the resource, as in `listener/inbound`; empty where the resource itself has no name yet.
    pub resource: String,
    /// Path of the field inside the resource, as in `filter_chains[0].filters[1].typed_config.codec_type`.
    pub path: String,
    /// What is wrong, for the operator. Lower case, no trailing dot.
    pub reason: String,
}

impl ConfigError {
    /// Names a reason at a place.
    pub fn new(resource: impl Into<String>, path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { resource: resource.into(), path: path.into(), reason: reason.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.resource.is_empty(), self.path.is_empty()) {
            (true, true) => write!(f, "{}", self.reason),
            (true, false) => write!(f, "{}: {}", self.path, self.reason),
            (false, true) => write!(f, "{}: {}", self.resource, self.reason),
            (false, false) => write!(f, "{}: {}: {}", self.resource, self.path, self.reason),
        }
    }
}

impl std::error::Error for ConfigError {}
