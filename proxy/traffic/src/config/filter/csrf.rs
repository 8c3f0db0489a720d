//! Cross-site request forgery (`envoy.extensions.filters.http.csrf.v3`).

use crate::config::{Fraction, StringMatch};
use serde::{Deserialize, Serialize};

/// Requests that change something must come from a page of the same host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CsrfPolicy {
    /// Share of the requests that are refused where they do not.
    pub enabled: Fraction,
    /// Share of the others that are only counted.
    pub shadow: Fraction,
    /// Hosts (and ports) of pages that may also send them.
    pub additional_origins: Vec<StringMatch>,
}
