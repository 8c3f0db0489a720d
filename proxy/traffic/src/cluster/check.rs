//! What endpoints must be.

use crate::config::{self, ConfigError, EndpointAddress};
use std::collections::{HashMap, HashSet};

/// Whether names may stand among addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// They may: DNS clusters before resolution.
    Allowed,
    /// They may not.
    Resolved,
}

/// Largest total weight of a priority's hosts, and of its localities. Source: Envoy refuses sums above 2^32−1.
const WEIGHT_SUM_MAX: u64 = u32::MAX as u64;

/// Everything wrong with endpoints.
pub(crate) fn check_endpoints(
    resource: &str,
    prefix: &str,
    endpoints: &config::Endpoints,
    names: Names,
) -> Result<(), Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut seen = HashSet::with_hasher(foldhash::fast::RandomState::default());
    let mut weights: HashMap<u32, (u64, u64)> = HashMap::new();
    let mut priority_max = 0;
    for (l, group) in endpoints.localities.iter().enumerate() {
        priority_max = priority_max.max(group.priority);
        let sums = weights.entry(group.priority).or_default();
        sums.0 += u64::from(group.weight.unwrap_or(0));
        for (e, endpoint) in group.endpoints.iter().enumerate() {
            let path = || format!("{prefix}endpoints[{l}].lb_endpoints[{e}]");
            sums.1 += u64::from(endpoint.weight);
            if endpoint.weight == 0 {
                errors.push(ConfigError::new(
                    resource,
                    path() + ".load_balancing_weight",
                    "weight must be at least 1",
                ));
            }
            if !seen.insert((group.priority, &endpoint.address)) {
                errors.push(ConfigError::new(
                    resource,
                    path(),
                    "address occurs more than once in its priority",
                ));
            }
            if let (EndpointAddress::Name(name, _), Names::Resolved) = (&endpoint.address, names) {
                let reason = format!("`{name}` is a name; an IP address is needed here");
                errors.push(ConfigError::new(resource, path() + ".endpoint.address", reason));
            }
        }
    }
    for priority in 0..=priority_max.min(128) {
        if !endpoints.localities.is_empty() && !weights.contains_key(&priority) {
            let reason = format!(
                "priority {priority} has no locality, but a lower one has; priorities must have no gaps"
            );
            errors.push(ConfigError::new(resource, format!("{prefix}endpoints"), reason));
        }
    }
    if priority_max > 128 {
        errors.push(ConfigError::new(resource, format!("{prefix}endpoints"), "priority must be at most 128"));
    }
    if weights.values().any(|(l, h)| *l > WEIGHT_SUM_MAX || *h > WEIGHT_SUM_MAX) {
        errors.push(ConfigError::new(
            resource,
            format!("{prefix}endpoints"),
            "sum of weights of a priority is above 2^32-1",
        ));
    }
    if endpoints.overprovisioning_factor == Some(0) {
        let path = format!("{prefix}policy.overprovisioning_factor");
        errors.push(ConfigError::new(resource, path, "must be above 0"));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}
