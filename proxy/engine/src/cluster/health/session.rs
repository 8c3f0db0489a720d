//! The checks of one host, one after the other.

use super::event_log;
use super::probe::Prober;
use crate::live::LiveCluster;
use crate::telemetry::access_log::LogChannel;
use arc_swap::ArcSwap;
use outrigger_traffic::cluster::Host;
use outrigger_traffic::config::HealthCheck;
use outrigger_traffic::health::{self, Found, Transition, Verdict, Watch};
use std::sync::Arc;
use tokio::sync::Notify;

/// What the checks of a cluster have in common.
#[derive(Debug)]
pub(super) struct Checker {
    /// The cluster as it is now; its health check stays the same.
    pub(super) cluster: ArcSwap<LiveCluster>,
    /// Who writes events.
    pub(super) log: LogChannel,
}

/// Asks a host for ever. `failed` is told when ordinary traffic found that it wants to be left out.
pub(super) async fn watch_host(checker: Arc<Checker>, host: Arc<Host>, failed: Arc<Notify>) {
    let Some(rules) = checker.cluster.load().cluster.config.health_check.clone() else { return };
    let mut draw = || fastrand::u64(..);
    let mut watch = Watch::default();
    let mut prober = Prober::default();
    tokio::time::sleep(health::part(rules.initial_jitter, &mut draw)).await;
    loop {
        let cluster = checker.cluster.load_full();
        cluster.stats.control().health_check_attempt.inc();
        let answer = tokio::time::timeout(rules.timeout, prober.ask(&cluster, &rules, &host)).await;
        let found = answer.unwrap_or_else(|_| {
            prober.disconnect();
            Found::TimedOut
        });
        tracing::trace!(cluster = &*cluster.name, endpoint = %host.address, ?found, "probed");
        let mut verdict = conclude(&checker, &cluster, &rules, &host, &mut watch, found);
        let traffic = cluster.stats.total(|stats| stats.upstream_cx_total.value()) > 0;
        let mut pause = Box::pin(tokio::time::sleep(health::interval(&rules, &verdict, traffic, &mut draw)));
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = failed.notified() => {
                    let cluster = checker.cluster.load_full();
                    verdict = conclude(&checker, &cluster, &rules, &host, &mut watch, Found::Passive);
                    tracing::info!(cluster = &*cluster.name, endpoint = %host.address, "host asked to be left out");
                }
            }
        }
        drop(verdict);
    }
}

/// Takes a result in: counts it, writes it down, and has the hosts judged anew where it changed something.
fn conclude(
    checker: &Checker,
    cluster: &LiveCluster,
    rules: &HealthCheck,
    host: &Host,
    watch: &mut Watch,
    found: Found,
) -> Verdict {
    let verdict = watch.take(rules, &host.live, found);
    let stats = cluster.stats.control();
    if verdict.passed {
        stats.health_check_success.inc();
    } else {
        stats.health_check_failure.inc();
    }
    match found {
        Found::Unreachable | Found::TimedOut => stats.health_check_network_failure.inc(),
        Found::Passive => stats.health_check_passive_failure.inc(),
        Found::Healthy | Found::Degraded | Found::Wrong { .. } => {}
    }
    if !rules.event_logs.is_empty() && !verdict.events.is_empty() {
        event_log::write(&checker.log, cluster, rules, host, found, &verdict.events);
    }
    if verdict.transition == Transition::Changed {
        tracing::info!(
            cluster = &*cluster.name,
            endpoint = %host.address,
            ?found,
            healthy = host.is_healthy(),
            "health of a host changed"
        );
        cluster.cluster.refresh();
    }
    if verdict.passed && host.is_ejected() && cluster.cluster.uneject(host) {
        tracing::info!(cluster = &*cluster.name, endpoint = %host.address, "ejected host passed its health check and is back");
    }
    verdict
}
