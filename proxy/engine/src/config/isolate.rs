//! One bad resource must not hold up the others.

use outrigger_traffic::config::{Config, ConfigError};
use std::collections::{BTreeMap, BTreeSet};

/// Attempts before everything is refused: each one leaves something out, so this many mean that errors chase each other.
const ATTEMPTS_MAX: usize = 8;

/// What became of a configuration whose bad parts may be left out.
#[derive(Debug, Default)]
pub struct Isolated {
    /// Number of the new state; `None`: nothing could take effect.
    pub version: Option<u64>,
    /// Every refused resource (`kind/name`) with its reasons.
    pub refused: BTreeMap<String, Vec<ConfigError>>,
}

/// Tries `wanted`; what is refused is replaced by its version in `last_good`, or left out, and the rest is tried again.
///
/// *Cost*: a few compilations; bounded.
pub fn isolate(
    wanted: Config,
    last_good: &Config,
    mut apply: impl FnMut(Config) -> Result<u64, Vec<ConfigError>>,
) -> Isolated {
    let mut outcome = Isolated::default();
    let mut config = wanted;
    for _ in 0..ATTEMPTS_MAX {
        let errors = match apply(config.clone()) {
            Ok(version) => {
                outcome.version = Some(version);
                return outcome;
            }
            Err(errors) => errors,
        };
        let mut changed = false;
        let mut seen = BTreeSet::new();
        for error in errors {
            if !seen.insert(error.resource.clone()) {
                outcome.refused.entry(error.resource.clone()).or_default().push(error);
                continue;
            }
            // The second refusal of a name, or of one that is its last good version, leaves it out.
            let again = outcome.refused.contains_key(&error.resource);
            changed |= (!again && replace(&mut config, &error.resource, Some(last_good)))
                || replace(&mut config, &error.resource, None);
            outcome.refused.entry(error.resource.clone()).or_default().push(error);
        }
        if !changed {
            return outcome;
        }
    }
    outcome
}

/// Puts the resource `kind/name` of `last_good` in the place of the one in `config`, or removes it. False: nothing to do.
fn replace(config: &mut Config, resource: &str, last_good: Option<&Config>) -> bool {
    let Some((kind, name)) = resource.split_once('/') else { return false };
    match kind {
        "listener" => put(&mut config.listeners, last_good.map(|c| &c.listeners[..]), |v| v.name == name),
        "route_config" => {
            put(&mut config.route_configs, last_good.map(|c| &c.route_configs[..]), |v| v.name == name)
        }
        "cluster" => put(&mut config.clusters, last_good.map(|c| &c.clusters[..]), |v| v.name == name),
        "endpoints" => {
            put(&mut config.endpoints, last_good.map(|c| &c.endpoints[..]), |v| v.cluster_name == name)
        }
        "secret" => put(&mut config.secrets, last_good.map(|c| &c.secrets[..]), |v| v.name == name),
        _ => false,
    }
}

fn put<T: Clone + PartialEq>(all: &mut Vec<T>, last_good: Option<&[T]>, is_it: impl Fn(&T) -> bool) -> bool {
    let good = last_good.and_then(|good| good.iter().find(|v| is_it(v)));
    let mut changed = false;
    let mut placed = false;
    all.retain_mut(|value| {
        if !is_it(value) {
            return true;
        }
        match good {
            // The first of several with this name takes the good one's value; the others go.
            Some(good) if !placed => {
                placed = true;
                changed |= value != good;
                value.clone_from(good);
                true
            }
            _ => {
                changed = true;
                false
            }
        }
    });
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_traffic::config::{Cluster, ClusterDiscovery};

    fn cluster(name: &str, alt: &str) -> Cluster {
        let mut cluster = Cluster::new(name, ClusterDiscovery::Eds { service_name: String::new() });
        cluster.alt_stat_name = alt.into();
        cluster
    }

    fn config(clusters: &[(&str, &str)]) -> Config {
        Config { clusters: clusters.iter().map(|(n, a)| cluster(n, a)).collect(), ..Config::default() }
    }

    /// Refuses clusters whose alt name is `bad`.
    fn picky(config: &Config) -> Result<u64, Vec<ConfigError>> {
        let bad: Vec<_> = config.clusters.iter().filter(|c| c.alt_stat_name == "bad").collect();
        if bad.is_empty() {
            return Ok(7);
        }
        Err(bad
            .iter()
            .map(|c| ConfigError::new(format!("cluster/{}", c.name), "alt_stat_name", "bad"))
            .collect())
    }

    #[test]
    fn refused_resource_keeps_its_last_good_version_and_the_rest_takes_effect() {
        let mut applied = None;
        let outcome =
            isolate(config(&[("a", "bad"), ("b", "new"), ("c", "bad")]), &config(&[("a", "old")]), |c| {
                applied = Some(c.clone());
                picky(&c)
            });
        assert_eq!(outcome.version, Some(7));
        assert_eq!(outcome.refused.keys().collect::<Vec<_>>(), ["cluster/a", "cluster/c"]);
        assert_eq!(applied, Some(config(&[("a", "old"), ("b", "new")])));
    }

    #[test]
    fn last_good_version_that_is_bad_now_is_left_out() {
        let outcome = isolate(config(&[("a", "bad"), ("b", "")]), &config(&[("a", "bad")]), |c| picky(&c));
        assert_eq!((outcome.version, outcome.refused.len()), (Some(7), 1));
    }

    #[test]
    fn errors_of_no_resource_refuse_everything_at_once() {
        let mut calls = 0;
        let outcome = isolate(config(&[("a", "")]), &Config::default(), |_| {
            calls += 1;
            Err(vec![ConfigError::new("", "", "no")])
        });
        assert_eq!((outcome.version, calls), (None, 1));
    }
}
