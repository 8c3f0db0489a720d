//! Connections of hosts that left, where the cluster wants them closed at once
//! (`close_connections_on_host_removal`).

use std::future::pending;
use std::time::Duration;

use outrigger_traffic::cluster::Host;

use crate::live::LiveCluster;
use crate::worker::Worker;

/// How often a connection in use looks whether its host is still there: "at once" for an operator, and nothing beside
/// what the connection itself costs.
const LOOK: Duration = Duration::from_millis(250);

/// Returns when `host` is no longer part of the cluster and the cluster wants its connections closed; never where it
/// did not want that when this was called.
///
/// *Cancel safety*: safe.
pub async fn removed(worker: &Worker, cluster: &LiveCluster, host: &Host) {
    if !cluster.cluster.config.close_connections_on_host_removal {
        return pending().await;
    }
    loop {
        worker.wheel.sleep(LOOK).await;
        let live = worker.live();
        // By name: a change of its configuration may give the cluster another number, while its hosts stay who they are.
        let Some(now) = live.clusters.iter().flatten().find(|one| one.name == cluster.name) else { return };
        let wanted = now.cluster.config.close_connections_on_host_removal;
        if wanted && !now.cluster.hosts().hosts().iter().any(|one| one.id == host.id) {
            return;
        }
    }
}
