//! Subsets of a cluster's hosts (`lb_subset_config`, the extension `envoy.load_balancing_policies.subset`).

use serde::{Deserialize, Serialize};

/// How hosts are divided by their metadata (`envoy.lb`), and what becomes of requests that no subset fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subsets {
    /// Each makes one subset of every combination of values that hosts have of its keys.
    pub selectors: Vec<SubsetSelector>,
    /// Requests without criteria, and those whose criteria fit no subset with hosts.
    pub fallback: SubsetFallback,
    /// What hosts of the default subset have.
    pub default_subset: Vec<(String, LbValue)>,
    /// Weights of localities hold inside subsets too. Default false.
    pub locality_weight_aware: bool,
    /// Where the fallback finds no host, any host is used. Default false.
    pub panic_mode_any: bool,
    /// A host with a list has each of its elements, instead of the list as a whole. Default false.
    pub list_as_any: bool,
}

/// A way to divide hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubsetSelector {
    /// Hosts that lack one of these are in no subset of it.
    pub keys: Vec<String>,
    /// For criteria with exactly these keys, instead of the cluster's.
    pub fallback: Option<SubsetFallback>,
}

/// What becomes of a request that no subset fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubsetFallback {
    /// It fails.
    #[default]
    None,
    /// Any host.
    AnyEndpoint,
    /// A host of the default subset.
    DefaultSubset,
}

/// A value in metadata, as JSON with ordered keys, so that equal values have equal texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LbValue {
    /// The value.
    pub text: String,
    /// Its elements, where it is a list.
    pub elements: Vec<String>,
}

impl LbValue {
    /// A text.
    pub fn of(text: &str) -> Self {
        Self { text: format!("{text:?}"), elements: Vec::new() }
    }
}
