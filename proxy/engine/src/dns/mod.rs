//! A DNS server for the application beside the proxy: names of the mesh from a table, other names from the host's resolvers.
//!
//! * [`Names`]: the table, compiled.
//! * [`answer`]: a question and its answer as messages, without I/O.
//! * [`Forwarder`]: asking others, with a [`Cache`] that all questions share, and a limit.
//! * [`DnsServers`]: the sockets, kept in step with the configuration.
//!
//! It runs on the control runtime: its questions are few beside requests, and the cache needs no lock between workers. A
//! large configuration that is compiled there may hold an answer up for some milliseconds.

pub mod answer;
mod cache;
mod forward;
mod names;
mod server;
mod tcp;

pub use cache::{CACHE_ENTRIES_MAX, Cache, Found};
pub use forward::{AskError, Forwarder};
pub use names::Names;
pub use server::{DnsServers, PreparedDns};

use crate::telemetry::{DnsStats, Sharded};
use outrigger_traffic::config::DnsServer;
use std::sync::Arc;

/// What a DNS listener answers with; one per configuration, and what is costly in it outlives changes.
#[derive(Debug)]
pub struct Zone {
    /// What was asked for.
    pub config: DnsServer,
    /// The table.
    pub names: Names,
    /// Who is asked for other names; `None`: these do not exist.
    pub forward: Option<Arc<Forwarder>>,
    /// Counters, by the `stat_prefix`.
    pub stats: Arc<Sharded<DnsStats>>,
}

impl Zone {
    /// Compiles a table; `old` gives its counters and, where the resolvers stay the same, its cache.
    pub fn new(config: &DnsServer, old: Option<&Arc<Self>>) -> Self {
        let old = old.filter(|old| old.config.stat_prefix == config.stat_prefix);
        let forward = config.forward.as_ref().map(|wanted| {
            let same = old.filter(|old| old.config.forward.as_ref() == Some(wanted));
            same.and_then(|old| old.forward.clone()).unwrap_or_else(|| Arc::new(Forwarder::new(wanted)))
        });
        Self {
            config: config.clone(),
            names: Names::new(&config.domains),
            forward,
            stats: old.map_or_else(|| Arc::new(Sharded::new(0)), |old| old.stats.clone()),
        }
    }
}
