//! Sweeps that bring ejected hosts back and eject those that the statistics speak against, each cluster at its own
//! interval.

use crate::live::Live;
use std::collections::HashMap;
use std::time::Instant;

/// When each cluster is swept next.
#[derive(Debug, Default)]
pub struct Sweeper {
    due: HashMap<u64, Instant>,
}

impl Sweeper {
    /// Sweeps the clusters whose time has come.
    pub fn sweep(&mut self, live: &Live, now: Instant) {
        let mut due = HashMap::with_capacity(self.due.len());
        for cluster in live.clusters.iter().flatten() {
            let Some(rules) = &cluster.cluster.config.outlier_detection else { continue };
            let uid = cluster.cluster.uid;
            let mut at = self.due.get(&uid).copied().unwrap_or(now + rules.interval);
            if at <= now {
                let sweep = cluster.cluster.sweep(now, &mut || fastrand::u32(..));
                for ejection in &sweep.judged {
                    cluster.count(*ejection, cluster.stats.control());
                }
                if !sweep.judged.is_empty() {
                    tracing::info!(cluster = &*cluster.name, found = ?sweep.judged, ejected = sweep.ejected, "outliers by statistics");
                }
                if sweep.returned > 0 {
                    tracing::info!(
                        cluster = &*cluster.name,
                        returned = sweep.returned,
                        ejected = sweep.ejected,
                        "ejected hosts are back"
                    );
                }
                at = now + rules.interval;
            }
            due.insert(uid, at);
        }
        self.due = due;
    }
}
