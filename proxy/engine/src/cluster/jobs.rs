//! One job per cluster that needs one.

use super::dns::{Answers, Question, keep_current, resolved};
use super::health::HealthChecks;
use super::resolve::Resolve;
use crate::live::{Live, LiveCluster};
use crate::telemetry::access_log::LogChannel;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// The jobs of a proxy's clusters: resolution and health checks, kept in step with them.
#[derive(Debug)]
pub struct ClusterJobs {
    runtime: Handle,
    resolver: Arc<dyn Resolve>,
    running: HashMap<Arc<str>, Job>,
    checks: HealthChecks,
}

#[derive(Debug)]
struct Job {
    /// Of the cluster it serves: a rebuilt cluster gets a new job.
    uid: u64,
    answers: Arc<Mutex<Answers>>,
    abort: AbortHandle,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl ClusterJobs {
    /// Jobs will run on `runtime`; what health checks find goes to `log`.
    pub fn new(runtime: Handle, resolver: Arc<dyn Resolve>, log: LogChannel) -> Self {
        let checks = HealthChecks::new(runtime.clone(), log);
        Self { runtime, resolver, running: HashMap::new(), checks }
    }

    /// Gives DNS clusters that were rebuilt the last answers of their predecessors, before they are used.
    pub fn seed(&self, live: &Live) {
        for cluster in live.clusters.iter().flatten() {
            let Some(job) = self.running.get(&cluster.name) else { continue };
            let Some(question) = Question::of(&cluster.cluster) else { continue };
            if job.uid != cluster.cluster.uid {
                let answers = job.answers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(errors) = cluster.cluster.set_endpoints(&resolved(&question, &answers)) {
                    tracing::warn!(cluster = &*cluster.name, errors = ?errors, "last answers do not fit");
                }
            }
        }
    }

    /// Lets health checks follow the hosts, and brings what ejections left undone into effect.
    pub fn tend(&mut self, live: &Live) {
        for cluster in live.clusters.iter().flatten() {
            cluster.cluster.refresh_if_stale();
        }
        self.checks.reconcile(live);
    }

    /// Starts jobs for clusters that have none and ends those whose cluster is gone.
    pub fn reconcile(&mut self, live: &Live) {
        let by_name: HashMap<&str, &Arc<LiveCluster>> =
            live.clusters.iter().flatten().map(|cluster| (&*cluster.name, cluster)).collect();
        self.checks.reconcile(live);
        self.running.retain(|name, _| by_name.contains_key(&**name));
        for cluster in live.clusters.iter().flatten() {
            if Question::of(&cluster.cluster).is_none() {
                self.running.remove(&cluster.name);
                continue;
            }
            let old = self.running.get(&cluster.name);
            if old.is_some_and(|job| job.uid == cluster.cluster.uid) {
                continue;
            }
            let answers = old.map(|job| job.answers.clone()).unwrap_or_default();
            let known = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let published = answers.clone();
            let job = keep_current(
                cluster.cluster.clone(),
                cluster.stats.clone(),
                self.resolver.clone(),
                known,
                move |latest| *published.lock().unwrap_or_else(PoisonError::into_inner) = latest.clone(),
            );
            let abort = self.runtime.spawn(job).abort_handle();
            self.running.insert(cluster.name.clone(), Job { uid: cluster.cluster.uid, answers, abort });
        }
    }
}
