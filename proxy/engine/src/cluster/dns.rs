//! Keeping the hosts of one STRICT_DNS or LOGICAL_DNS cluster current.
//!
//! The last good answer of a name is kept while it cannot be resolved, so that a resolver that is away takes nothing down.

use super::resolve::{Answer, Resolve};
use crate::telemetry::{ClusterStats, Sharded};
use outrigger_traffic::cluster::Cluster;
use outrigger_traffic::config::{ClusterDiscovery, DnsFamily, Endpoint, EndpointAddress, Endpoints};
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Never ask more often than this, whatever a TTL says.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// A TTL longer than this is not waited for.
const REFRESH_MAX: Duration = Duration::from_secs(3600);

/// A question takes no longer than this.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The last good answers of a cluster's names.
pub(super) type Answers = BTreeMap<String, Vec<IpAddr>>;

/// What a cluster asks for.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) endpoints: &'a Endpoints,
    pub(super) refresh_rate: Duration,
    pub(super) respect_ttl: bool,
    pub(super) family: DnsFamily,
    /// LOGICAL_DNS: the first address alone.
    pub(super) first_only: bool,
}

impl<'a> Question<'a> {
    /// `None` for clusters whose hosts are not found by DNS.
    pub(super) fn of(cluster: &'a Cluster) -> Option<Self> {
        let (endpoints, refresh_rate, respect_ttl, family, first_only) = match &cluster.config.discovery {
            ClusterDiscovery::StrictDns { endpoints, refresh_rate, respect_ttl, family } => {
                (endpoints, *refresh_rate, *respect_ttl, *family, false)
            }
            ClusterDiscovery::LogicalDns { endpoints, refresh_rate, respect_ttl, family } => {
                (endpoints, *refresh_rate, *respect_ttl, *family, true)
            }
            ClusterDiscovery::Static(_) | ClusterDiscovery::Eds { .. } | ClusterDiscovery::OriginalDst(_) => {
                return None;
            }
        };
        Some(Self { endpoints, refresh_rate, respect_ttl, family, first_only })
    }

    fn names(&self) -> HashSet<&'a str> {
        let endpoints = self.endpoints.localities.iter().flat_map(|l| &l.endpoints);
        endpoints
            .filter_map(|e| match &e.address {
                EndpointAddress::Name(name, _) => Some(name.as_str()),
                EndpointAddress::Socket(_) => None,
            })
            .collect()
    }
}

/// The endpoints with every name replaced by the addresses known of it. A name without an answer gives none; an
/// address that several names have is taken once per priority.
pub(super) fn resolved(question: &Question<'_>, answers: &Answers) -> Endpoints {
    let mut result = question.endpoints.clone();
    let mut seen: HashSet<(u32, SocketAddr)> = HashSet::new();
    for group in &mut result.localities {
        let mut hosts = Vec::with_capacity(group.endpoints.len());
        for endpoint in group.endpoints.drain(..) {
            let (addresses, name): (Vec<SocketAddr>, &str) = match &endpoint.address {
                EndpointAddress::Socket(address) => (vec![*address], ""),
                EndpointAddress::Name(name, port) => {
                    let known = answers.get(name).map_or(&[][..], Vec::as_slice);
                    let take = if question.first_only { 1 } else { known.len() };
                    (known.iter().take(take).map(|ip| SocketAddr::new(*ip, *port)).collect(), name)
                }
            };
            let hostname =
                if endpoint.hostname.is_empty() { name.to_owned() } else { endpoint.hostname.clone() };
            for address in addresses {
                if seen.insert((group.priority, address)) {
                    hosts.push(Endpoint {
                        address: EndpointAddress::Socket(address),
                        hostname: hostname.clone(),
                        ..endpoint.clone()
                    });
                }
            }
        }
        group.endpoints = hosts;
    }
    result
}

/// Asks, tells the cluster, waits, for ever. `publish` is told the answers after each round that changed them.
pub(super) async fn keep_current(
    cluster: Arc<Cluster>,
    stats: Arc<Sharded<ClusterStats>>,
    resolver: Arc<dyn Resolve>,
    mut answers: Answers,
    publish: impl Fn(&Answers),
) {
    let Some(question) = Question::of(&cluster) else { return };
    let mut failures = 0_u32;
    loop {
        let stats = stats.control();
        stats.update_attempt.inc();
        let round = ask_all(&question, &*resolver, &mut answers, cluster.name()).await;
        if round.failed {
            failures = failures.saturating_add(1);
            stats.update_failure.inc();
        } else {
            failures = 0;
            stats.update_success.inc();
        }
        if round.changed {
            publish(&answers);
            match cluster.set_endpoints(&resolved(&question, &answers)) {
                Ok(()) => stats.membership_change.inc(),
                Err(errors) => {
                    for error in errors {
                        tracing::warn!(cluster = cluster.name(), error = %error, "resolved hosts refused");
                    }
                }
            }
        }
        tokio::time::sleep(pause(&question, round.ttl, failures)).await;
    }
}

/// What one round of questions brought.
struct Round {
    changed: bool,
    failed: bool,
    /// The shortest.
    ttl: Option<Duration>,
}

async fn ask_all(
    question: &Question<'_>,
    resolver: &dyn Resolve,
    answers: &mut Answers,
    cluster: &str,
) -> Round {
    let mut round = Round { changed: false, failed: false, ttl: None };
    for name in question.names() {
        match ask(resolver, name, question.family).await {
            Ok(mut answer) => {
                if !question.first_only {
                    // The order of an answer rotates; that is no change.
                    answer.addresses.sort_unstable();
                }
                answer.addresses.dedup();
                round.ttl = Some(round.ttl.map_or(answer.ttl, |ttl| ttl.min(answer.ttl)));
                if answers.get(name) != Some(&answer.addresses) {
                    tracing::debug!(cluster, name, addresses = ?answer.addresses, "resolved");
                    answers.insert(name.to_owned(), answer.addresses);
                    round.changed = true;
                }
            }
            Err(error) => {
                tracing::warn!(cluster, name, error, "name cannot be resolved; the last answer is kept");
                round.failed = true;
            }
        }
    }
    round
}

async fn ask(resolver: &dyn Resolve, name: &str, family: DnsFamily) -> Result<Answer, String> {
    if let Ok(address) = name.parse() {
        return Ok(Answer { addresses: vec![address], ttl: REFRESH_MAX });
    }
    match tokio::time::timeout(QUESTION_TIMEOUT, resolver.resolve(name, family)).await {
        Ok(Ok(answer)) if answer.addresses.is_empty() => Err("no address".into()),
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {QUESTION_TIMEOUT:?}")),
    }
}

/// How long to wait: the refresh rate or TTL after a success; after failures twice as long each time, up to 8 times, with a
/// tenth of jitter, so that many proxies do not ask in step.
fn pause(question: &Question<'_>, ttl: Option<Duration>, failures: u32) -> Duration {
    let base = match ttl {
        Some(ttl) if question.respect_ttl && failures == 0 => ttl.clamp(REFRESH_MIN, REFRESH_MAX),
        _ => question.refresh_rate.max(Duration::from_millis(1)),
    };
    let factor = match failures {
        0 | 1 => 1,
        n => 1_u32 << (n - 1).min(3),
    };
    base.saturating_mul(factor).mul_f64(1.0 + fastrand::f64() / 10.0)
}

#[cfg(test)]
mod tests;
