//! Once a second: closes connections that are idle for too long, dead, or of a host or certificate that is gone.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{HostPool, Pools};
use crate::live::Live;
use crate::worker::Worker;

const INTERVAL: Duration = Duration::from_secs(1);

impl Pools {
    /// Starts the sweep where it is not running; it ends by itself when nothing is left to watch.
    pub(super) fn start_sweep(&self, worker: &Rc<Worker>) {
        if self.sweeping.replace(true) {
            return;
        }
        let owner = worker.clone();
        worker.jobs.spawn(async move {
            loop {
                owner.wheel.sleep(INTERVAL).await;
                owner.pools.sweep(&owner);
                if owner.pools.hosts.borrow().is_empty() {
                    owner.pools.sweeping.set(false);
                    return;
                }
            }
        });
    }

    fn sweep(&self, worker: &Worker) {
        let live = worker.live();
        let now = Instant::now();
        let mut empty = Vec::new();
        // Cloned, because closing a connection may look at the pools.
        let pools: Vec<_> = self.hosts.borrow().values().cloned().collect();
        for pool in pools {
            pool.sweep(worker, &live, now);
            // One reference is the map's, one is ours.
            if pool.is_unused() && Rc::strong_count(&pool) == 2 {
                empty.push(pool.key);
            }
        }
        let mut hosts = self.hosts.borrow_mut();
        for key in empty {
            hosts.remove(&key);
        }
    }
}

impl HostPool {
    fn is_unused(&self) -> bool {
        self.idle.borrow().is_empty()
            && self.shared.borrow().is_empty()
            && self.connecting.borrow().is_none()
            && self.open.get() == 0
    }

    fn sweep(&self, worker: &Worker, live: &Live, now: Instant) {
        let cluster = {
            let known = self.cluster.borrow();
            live.cluster(known.id).filter(|cluster| cluster.cluster.uid == self.key.cluster).cloned()
        };
        let there = cluster.as_ref().is_some_and(|cluster| {
            cluster.cluster.hosts().hosts().iter().any(|host| host.id == self.host.id)
        });
        let Some(cluster) = cluster.filter(|_| there) else {
            self.clear();
            return;
        };
        *self.cluster.borrow_mut() = cluster.clone();
        let limit = cluster.cluster.config.http.idle_timeout;
        let epoch = Self::epoch(&cluster);
        let stats = cluster.stats.at(worker.id);
        let mut closing = Vec::new();
        let mut idle = self.idle.borrow_mut();
        let mut at = 0;
        while let Some(conn) = idle.get(at) {
            let expired = conn.is_expired(now, limit);
            if !expired && conn.has_epoch(epoch) && !conn.is_dead() {
                at += 1;
                continue;
            }
            if expired {
                stats.upstream_cx_idle_timeout.inc();
            }
            closing.push(idle.remove(at));
        }
        drop(idle);
        let mut shared = self.shared.borrow_mut();
        shared.retain(|conn| {
            let expired = conn.is_idle_since().is_some_and(|since| {
                limit.is_some_and(|limit| now.saturating_duration_since(since) >= limit)
            });
            if expired {
                stats.upstream_cx_idle_timeout.inc();
            }
            !expired && !conn.is_retired() && conn.has_epoch(epoch)
        });
        drop(shared);
        drop(closing);
    }
}
