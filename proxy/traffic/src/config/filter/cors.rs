//! Cross-origin resource sharing (`envoy.extensions.filters.http.cors.v3`).

use crate::config::{Fraction, StringMatch};
use serde::{Deserialize, Serialize};

/// What a level says about requests from other origins. Every property is taken from the most specific level that has
/// it. The filter itself has none: without a word of a level it does nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CorsPolicy {
    /// Origins that are let in.
    pub allow_origin: Vec<StringMatch>,
    /// `access-control-allow-methods`; empty: not said.
    pub allow_methods: String,
    /// `access-control-allow-headers`; empty: not said.
    pub allow_headers: String,
    /// `access-control-expose-headers`; empty: not said.
    pub expose_headers: String,
    /// `access-control-max-age`; empty: not said.
    pub max_age: String,
    /// Whether `access-control-allow-credentials: true` is sent.
    pub allow_credentials: Option<bool>,
    /// Share of the requests for which it is in effect. Default all.
    pub enabled: Option<Fraction>,
    /// Share of the others that are only counted. Default none.
    pub shadow: Option<Fraction>,
    /// Whether pages of public networks may call into private ones.
    pub allow_private_network_access: Option<bool>,
    /// Whether a preflight of an origin that is not let in goes to the upstream. Default true.
    pub forward_not_matching_preflights: Option<bool>,
}
