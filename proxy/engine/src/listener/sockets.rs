//! The listening sockets of a proxy, kept in step with the configuration. Lives on the control thread.
//!
//! A change has two steps around the swap of [`crate::live::Live`]: [`Listeners::prepare`] binds what is new, which may
//! fail, while nothing has changed yet; [`Listeners::commit`] gives the new sockets to the workers and removes the old
//! ones. Connections that arrive in between wait in the kernel's queue.

use super::accept::Listen;
use super::bind::{Bound, Wants, bind};
use crate::telemetry::{ListenerStats, Sharded};
use outrigger_traffic::config;
use outrigger_traffic::config::ConfigError;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Workers close a removed socket within a turn of their loop; this is ample.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// The open sockets by listener name and configured address.
#[derive(Debug)]
pub struct Listeners {
    open: HashMap<(Arc<str>, SocketAddr), Open>,
    /// Addresses given up a moment ago: a worker may not have closed its socket yet.
    closing: Vec<(SocketAddr, Instant)>,
    /// One per worker. Holds at most one entry per listener address that was added and not yet taken over.
    workers: Vec<mpsc::UnboundedSender<Listen>>,
    /// Addresses may be those of another proxy, which this one is to relieve.
    with_predecessor: bool,
}

#[derive(Debug)]
struct Open {
    local: SocketAddr,
    wants: Wants,
    removed: watch::Sender<bool>,
}

/// Sockets that are bound and not yet in use; dropping it closes them.
#[derive(Debug)]
pub struct Prepared(Vec<(Arc<str>, SocketAddr, Wants, Bound)>);

impl Listeners {
    /// No socket yet; `workers` take what is added. `with_predecessor` lets it share addresses with another proxy of the same
    /// user, which it is to relieve.
    pub fn new(workers: Vec<mpsc::UnboundedSender<Listen>>, with_predecessor: bool) -> Self {
        Self { open: HashMap::new(), closing: Vec::new(), workers, with_predecessor }
    }

    /// Binds the addresses that are not open yet.
    ///
    /// *Errors*: every address that cannot be bound, as `listener/NAME`. Those that can are in the first part all the same,
    /// so that a caller may go on without the others.
    pub fn prepare(&self, wanted: &[config::Listener]) -> (Prepared, Vec<ConfigError>) {
        let mut new = Vec::new();
        let mut errors = Vec::new();
        for listener in wanted {
            for (i, address) in addresses(listener).enumerate() {
                let key: (Arc<str>, SocketAddr) = (listener.name.as_str().into(), address);
                let wants = Wants::of(listener);
                if self.open.get(&key).is_some_and(|open| open.wants == wants) {
                    continue;
                }
                let ours = self.open.values().map(|open| open.local);
                let ours = ours.chain(self.closing.iter().map(|(local, _)| *local));
                let mut ours = ours.chain(new.iter().map(|(_, _, _, bound): &(_, _, _, Bound)| bound.local));
                // By port alone: `0.0.0.0` and an address of its own are in each other's way as well.
                let shared = self.with_predecessor || ours.any(|local| local.port() == address.port());
                match bind(address, wants, self.workers.len(), shared) {
                    Ok(bound) => new.push((key.0, key.1, wants, bound)),
                    Err(error) => {
                        let path = match i {
                            0 => "address".to_owned(),
                            n => format!("additional_addresses[{}]", n - 1),
                        };
                        let resource = format!("listener/{}", listener.name);
                        errors.push(ConfigError::new(
                            resource,
                            path,
                            format!("cannot bind {address}: {error}"),
                        ));
                    }
                }
            }
        }
        (Prepared(new), errors)
    }

    /// Puts prepared sockets to use and removes those that no listener of `wanted` asks for. `stats` gives the counters of
    /// a listener by name.
    pub fn commit(
        &mut self,
        prepared: Prepared,
        wanted: &[config::Listener],
        stats: impl Fn(&str) -> Option<Arc<Sharded<ListenerStats>>>,
    ) {
        for (name, address, wants, bound) in prepared.0 {
            let Some(stats) = stats(&name) else { continue };
            let (removed, watch) = watch::channel(false);
            tracing::info!(listener = &*name, address = %bound.local, "listening");
            for (worker, socket) in self.workers.iter().zip(bound.sockets) {
                let listen =
                    Listen { name: name.clone(), socket, stats: stats.clone(), removed: watch.clone() };
                // A worker that is gone takes the proxy with it; nothing to do here.
                let _ = worker.send(listen);
            }
            let open = Open { local: bound.local, wants, removed };
            if let Some(old) = self.open.insert((name, address), open) {
                let _ = old.removed.send(true);
            }
        }
        self.closing.retain(|(_, since)| since.elapsed() < CLOSING_MAX);
        let closing = &mut self.closing;
        self.open.retain(|(name, address), open| {
            let keep = wanted.iter().any(|l| l.name == **name && addresses(l).any(|a| a == *address));
            if !keep {
                tracing::info!(listener = &**name, address = %open.local, "removed");
                closing.push((open.local, Instant::now()));
                let _ = open.removed.send(true);
            }
            keep
        });
    }

    /// The bound addresses of a listener, in no order; a port 0 shows as the port it became.
    pub fn local_addrs(&self, name: &str) -> Vec<SocketAddr> {
        let mut all: Vec<_> =
            self.open.iter().filter(|((n, _), _)| **n == *name).map(|(_, o)| o.local).collect();
        all.sort();
        all
    }

    /// All bound addresses with the name of their listener.
    pub fn all(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.open.iter().map(|((name, _), open)| (&**name, open.local))
    }
}

/// The addresses to accept connections for filter chains on.
fn addresses(listener: &config::Listener) -> impl Iterator<Item = SocketAddr> + '_ {
    let all = std::iter::once(listener.address).chain(listener.additional_addresses.iter().copied());
    all.filter(|_| listener.bind_to_port && listener.dns.is_none())
}
