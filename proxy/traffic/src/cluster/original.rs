//! Clusters whose hosts are the destinations of downstream connections (`ORIGINAL_DST`).
//!
//! A destination that is new becomes a host; one that nobody used for a while is forgotten. The table is bounded, and the
//! data path never waits for it: where it is full, or somebody else is writing, the connection gets a host of its own that
//! is in no table, and ends with it.

use super::host::{Host, HostId, HostLive, NewHosts};
use super::{Cluster, build_hosts};
use crate::balance::{HostSet, PickContext, PickError};
use crate::config::{self, Endpoint, Endpoints, HealthStatus, LocalityEndpoints};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Destinations kept at a time. Each costs some hundred bytes, and making one costs time in proportion to their number.
pub const ORIGINAL_HOSTS_MAX: usize = 1024;

type Table = HashMap<SocketAddr, Arc<Host>, foldhash::quality::RandomState>;

/// The hosts of a cluster by address.
#[derive(Debug)]
pub(super) struct ByAddress(ArcSwap<Table>);

impl ByAddress {
    pub(super) fn of(hosts: &[Arc<Host>]) -> Self {
        Self(ArcSwap::from_pointee(table(hosts)))
    }
}

fn table(hosts: &[Arc<Host>]) -> Table {
    hosts.iter().map(|host| (host.address, host.clone())).collect()
}

impl Cluster {
    /// How destinations are found, where they are the hosts.
    pub fn original_dst(&self) -> Option<&config::OriginalDst> {
        match &self.config.discovery {
            config::ClusterDiscovery::OriginalDst(original) => Some(original),
            _ => None,
        }
    }

    /// The host at the destination. Cost: a look into a table; for a new destination, time in proportion to their number.
    pub(super) fn host_at(
        &self,
        known: &ByAddress,
        context: &mut PickContext<'_>,
    ) -> Result<Arc<Host>, PickError> {
        let mut destination = context.destination.ok_or(PickError::NoHosts)?;
        if let Some(port) = self.original_dst().and_then(|original| original.port_override) {
            destination.set_port(port);
        }
        if let Some(host) = known.0.load().get(&destination) {
            // Written only where it changes: the line is shared by all workers.
            if !host.live.used.load(Relaxed) {
                host.live.used.store(true, Relaxed);
            }
            return Ok(host.clone());
        }
        if let Some(host) = self.list(known, destination) {
            return Ok(host);
        }
        context.unlisted = true;
        Ok(Arc::new(Host {
            id: HostId(self.ids.next()),
            address: destination,
            hostname: "".into(),
            labels: [].into(),
            locality: Arc::default(),
            weight: 1,
            priority: 0,
            health: HealthStatus::Unknown,
            hash_key: "".into(),
            lb_metadata: [].into(),
            check: Arc::default(),
            live: Arc::<HostLive>::default(),
        }))
    }

    /// Takes a destination into the table; `None` where there is no room, or somebody else is writing.
    fn list(&self, known: &ByAddress, destination: SocketAddr) -> Option<Arc<Host>> {
        let mut turn = self.endpoints.try_lock().ok()?;
        if let Some(host) = known.0.load().get(&destination) {
            return Some(host.clone());
        }
        let mut endpoints = Endpoints::clone(&turn);
        if endpoints.localities.is_empty() {
            endpoints.localities.push(LocalityEndpoints::default());
        }
        let group = endpoints.localities.first_mut()?;
        if group.endpoints.len() >= ORIGINAL_HOSTS_MAX {
            return None;
        }
        group.endpoints.push(Endpoint::at(destination));
        self.put_destinations(known, &mut turn, endpoints);
        let host = known.0.load().get(&destination).cloned()?;
        host.live.used.store(true, Relaxed);
        Some(host)
    }

    /// Forgets destinations that were not used since the last call and have no connection or request; returns how many.
    /// Called by the control runtime every [`cleanup_interval`](config::OriginalDst::cleanup_interval).
    pub fn tidy_destinations(&self) -> usize {
        let Some(known) = &self.original else { return 0 };
        let mut turn = self.turn();
        let hosts = self.hosts.load_full();
        let stays = |host: &Host| {
            let used = host.live.used.swap(false, Relaxed);
            used || host.live.connections_active.load(Relaxed) > 0
                || host.live.requests_active.load(Relaxed) > 0
        };
        let left: Vec<SocketAddr> =
            hosts.hosts().iter().filter(|host| !stays(host)).map(|host| host.address).collect();
        if left.is_empty() {
            return 0;
        }
        let mut endpoints = Endpoints::clone(&turn);
        for group in &mut endpoints.localities {
            group.endpoints.retain(|endpoint| match endpoint.address {
                config::EndpointAddress::Socket(address) => !left.contains(&address),
                config::EndpointAddress::Name(..) => false,
            });
        }
        self.put_destinations(known, &mut turn, endpoints);
        left.len()
    }

    fn put_destinations(&self, known: &ByAddress, turn: &mut Arc<Endpoints>, endpoints: Endpoints) {
        let old = self.hosts.load_full();
        let hosts = build_hosts(&endpoints, Some(&old), NewHosts::of(&self.config), &self.ids);
        let set = HostSet::new(&self.basis, &endpoints, hosts);
        known.0.store(Arc::new(table(set.hosts())));
        *turn = Arc::new(endpoints);
        self.put(set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Around, Ids};
    use crate::config::{ClusterDiscovery, OriginalDst};
    use std::time::Instant;

    fn cluster(original: OriginalDst) -> Cluster {
        let config = config::Cluster::new("passthrough", ClusterDiscovery::OriginalDst(original));
        let (ids, balancers) = (Ids::default(), Default::default());
        Cluster::new(config, Arc::default(), None, &Around { ids: &ids, balancers: &balancers, home: None })
    }

    fn pick(cluster: &Cluster, destination: Option<SocketAddr>) -> (Option<Arc<Host>>, bool) {
        let mut draw = || 0;
        let mut context = PickContext { destination, ..PickContext::new(Instant::now(), &mut draw) };
        let host = cluster.pick(&mut context).ok();
        (host, context.unlisted)
    }

    fn at(n: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 80))
    }

    #[test]
    fn destination_becomes_one_host_and_none_is_no_host() {
        let cluster = cluster(OriginalDst::default());
        assert!(pick(&cluster, None).0.is_none());
        let first = pick(&cluster, Some(at(1))).0.unwrap();
        let again = pick(&cluster, Some(at(1))).0.unwrap();
        assert_eq!((first.id, first.address), (again.id, at(1)));
        assert_eq!(cluster.hosts().hosts().len(), 1);
        assert_ne!(pick(&cluster, Some(at(2))).0.unwrap().id, first.id);
    }

    #[test]
    fn port_override_replaces_the_port() {
        let cluster = cluster(OriginalDst { port_override: Some(8443), ..OriginalDst::default() });
        assert_eq!(pick(&cluster, Some(at(1))).0.unwrap().address.port(), 8443);
    }

    #[test]
    fn unused_destination_is_forgotten_and_a_busy_one_stays() {
        let cluster = cluster(OriginalDst::default());
        let (idle, busy) = (pick(&cluster, Some(at(1))).0.unwrap(), pick(&cluster, Some(at(2))).0.unwrap());
        let open = busy.open_connection();
        assert_eq!(cluster.tidy_destinations(), 0, "both were used in this interval");
        assert_eq!(cluster.tidy_destinations(), 1);
        assert!(cluster.hosts().hosts().iter().all(|host| host.id == busy.id));
        assert_ne!(pick(&cluster, Some(at(1))).0.unwrap().id, idle.id);
        drop(open);
        cluster.tidy_destinations();
        assert_eq!(cluster.tidy_destinations(), 1);
        assert_eq!(cluster.hosts().hosts().len(), 0);
        assert_eq!(pick(&cluster, Some(at(2))).0.unwrap().address, at(2));
    }

    #[test]
    fn table_is_bounded_and_destinations_beyond_get_hosts_of_their_own() {
        let cluster = cluster(OriginalDst::default());
        for n in 0..ORIGINAL_HOSTS_MAX {
            assert!(!pick(&cluster, Some(at(n))).1, "{n}");
        }
        let (beyond, unlisted) = pick(&cluster, Some(at(ORIGINAL_HOSTS_MAX)));
        assert_eq!((beyond.unwrap().address, unlisted), (at(ORIGINAL_HOSTS_MAX), true));
        assert_eq!(cluster.hosts().hosts().len(), ORIGINAL_HOSTS_MAX);
        let _turn = cluster.turn();
        assert!(pick(&cluster, Some(at(5000))).1, "nobody waits for a writer");
        assert!(!pick(&cluster, Some(at(0))).1);
    }
}
