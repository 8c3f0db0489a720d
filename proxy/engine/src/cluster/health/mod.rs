//! Active health checks: asking the hosts of clusters whether they are well.
//!
//! One task per host and cluster, on the control runtime, once per process: [`session`] asks again and again, [`probe`] makes
//! the connection, [`http`], [`grpc`] and [`tcp`] speak on it, and [`event_log`] writes down what changes. What an answer
//! means is decided in [`outrigger_traffic::health`]. [`HealthChecks`] keeps the tasks in step with clusters and hosts.

mod event_log;
mod grpc;
mod http;
mod probe;
mod session;
mod tcp;

use crate::live::{Live, LiveCluster};
use crate::telemetry::access_log::LogChannel;
use arc_swap::ArcSwap;
use outrigger_traffic::cluster::{Host, HostId};
use session::{Checker, watch_host};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// The health checks of a proxy.
#[derive(Debug)]
pub(super) struct HealthChecks {
    runtime: Handle,
    log: LogChannel,
    running: HashMap<Arc<str>, ClusterChecks>,
}

/// The checks of one cluster.
#[derive(Debug)]
struct ClusterChecks {
    /// Of the cluster: a rebuilt one may ask otherwise.
    uid: u64,
    checker: Arc<Checker>,
    sessions: HashMap<HostId, Session>,
}

/// The checks of one host.
#[derive(Debug)]
struct Session {
    host: Arc<Host>,
    failed: Arc<Notify>,
    abort: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl HealthChecks {
    /// Checks will run on `runtime` and be written down by way of `log`.
    pub(super) fn new(runtime: Handle, log: LogChannel) -> Self {
        Self { runtime, log, running: HashMap::new() }
    }

    /// Starts checks of clusters and hosts that are new, ends those of what is gone, and hands on what ordinary traffic found
    /// out. Called when the configuration or hosts change, and now and then: hosts of names change by themselves.
    pub(super) fn reconcile(&mut self, live: &Live) {
        let mut old = std::mem::take(&mut self.running);
        for cluster in live.clusters.iter().flatten() {
            if cluster.cluster.config.health_check.is_none() {
                continue;
            }
            let mut checks = match old.remove(&cluster.name) {
                Some(checks) if checks.uid == cluster.cluster.uid => checks,
                _ => ClusterChecks {
                    uid: cluster.cluster.uid,
                    checker: Arc::new(Checker {
                        cluster: ArcSwap::new(cluster.clone()),
                        log: self.log.clone(),
                    }),
                    sessions: HashMap::new(),
                },
            };
            checks.follow(cluster, &self.runtime);
            self.running.insert(cluster.name.clone(), checks);
        }
    }
}

impl ClusterChecks {
    fn follow(&mut self, cluster: &Arc<LiveCluster>, runtime: &Handle) {
        if !Arc::ptr_eq(&self.checker.cluster.load(), cluster) {
            // New certificates, for example.
            self.checker.cluster.store(cluster.clone());
        }
        let hosts = cluster.cluster.hosts().clone();
        let mut old = std::mem::take(&mut self.sessions);
        for host in hosts.hosts().iter().filter(|host| !host.check.disabled) {
            let session = match old.remove(&host.id) {
                Some(session) if session.host.check == host.check => session,
                _ if self.sessions.contains_key(&host.id) => continue,
                _ => {
                    let failed = Arc::new(Notify::new());
                    let task = watch_host(self.checker.clone(), host.clone(), failed.clone());
                    Session { host: host.clone(), failed, abort: runtime.spawn(task).abort_handle() }
                }
            };
            if host.live.take_passive_failure() {
                session.failed.notify_one();
            }
            self.sessions.insert(host.id, session);
        }
    }
}
