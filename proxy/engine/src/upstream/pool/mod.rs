//! Connections to hosts, kept for the next request.
//!
//! Every worker has its own pools, one per (cluster, host): a stack of idle HTTP/1.1 connections, the youngest on top,
//! and a few HTTP/2 connections that many streams share. [`Pools::checkout`] gives a connection, [`Checked::open`]
//! starts a stream on it, [`UpstreamStream::give_back`] returns it. A sweep once a second closes what is idle for too
//! long, died, or belongs to a host or certificate that is gone.

mod h1;
mod h2;
mod sweep;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use outrigger_traffic::breaker::Breaker;
use outrigger_traffic::cluster::{Cluster, ConnectionPermit, Host, HostId, OpenConnection};
use outrigger_traffic::config::HttpUpstream;
use outrigger_traffic::outcome::Outcome;
use outrigger_wire::Version;
use outrigger_wire::h1::Limits;
use tokio::sync::Notify;

pub use h1::H1Conn;
pub use h2::{H2Conn, H2Slot};

use super::{ConnectError, ConnectOptions};
use crate::io::Io;
use crate::live::LiveCluster;
use crate::telemetry::{ClusterStats, Raised};
use crate::worker::Worker;

pub use self::open::{Checked, UpstreamStream};

mod open;

/// How often a request that waits for a connection looks again by itself: a permit may have been released by another
/// worker, which cannot tell this one.
const RECHECK: Duration = Duration::from_millis(50);

/// Connections a request may see end before it could use them.
const CONNECTIONS_LOST: u32 = 3;

/// Limits of a response head (Envoy: `max_response_headers_kb` and `max_headers_count` of upstreams).
pub const RESPONSE_LIMITS: Limits = Limits {
    max_head_bytes: 60 * 1024,
    max_fields: 100,
    max_trailer_bytes: 60 * 1024,
    max_trailer_fields: 100,
    max_chunk_extension_bytes: 16 * 1024,
};

/// Why there is no connection.
#[derive(Debug)]
pub enum PoolError {
    /// A circuit breaker is open.
    Overflow,
    /// Connecting failed.
    Connect(Rc<ConnectError>),
}

/// What a request needs of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// Protocol of the downstream, for `use_downstream_protocol_config`.
    pub downstream: Version,
    /// Name for SNI and SAN check where they are derived from the request.
    pub sni: Option<&'a str>,
    /// Priority of the route.
    pub high_priority: bool,
    /// The connection will be used for an upgrade: HTTP/1.1 only.
    pub upgrade: bool,
    /// Never an idle connection: the last one turned out to be dead.
    pub fresh: bool,
    /// Where the downstream connection comes from and goes to, where the host is told (PROXY protocol): such connections are
    /// shared by requests of the same two addresses alone.
    pub proxied: Option<(SocketAddr, SocketAddr)>,
}

/// One host as one worker sees it.
pub struct HostPool {
    key: Key,
    cluster: RefCell<Arc<LiveCluster>>,
    host: Arc<Host>,
    sni: Option<Box<str>>,
    idle: RefCell<Vec<H1Conn>>,
    shared: RefCell<Vec<Rc<H2Conn>>>,
    connecting: RefCell<Option<Rc<Attempt>>>,
    /// HTTP/1.1 connections open or being opened.
    open: Cell<usize>,
    /// What ALPN chose last time, where the cluster leaves it open.
    learned: Cell<Option<Version>>,
    /// A connection came back, or one ended.
    freed: Notify,
}

impl std::fmt::Debug for HostPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostPool")
            .field("host", &self.host.address)
            .field("open", &self.open.get())
            .finish_non_exhaustive()
    }
}

/// A connection being made for whoever waits.
#[derive(Debug, Default)]
struct Attempt {
    done: Cell<bool>,
    error: RefCell<Option<Rc<ConnectError>>>,
    notify: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    cluster: u64,
    host: HostId,
    /// Hash of a name derived from the request; 0 without one.
    sni: u64,
    /// What the host is told of the downstream connection.
    proxied: Option<(SocketAddr, SocketAddr)>,
}

/// The pools of one worker.
#[derive(Debug, Default)]
pub struct Pools {
    hosts: RefCell<HashMap<Key, Rc<HostPool>, foldhash::fast::RandomState>>,
    names: foldhash::quality::RandomState,
    sweeping: Cell<bool>,
}

/// Keeps the books of one connection while it is open.
pub struct ConnGuard {
    _permit: Option<ConnectionPermit>,
    _active: Raised<ClusterStats>,
    _open: OpenConnection,
    cluster: Arc<LiveCluster>,
    worker_id: usize,
    since: tokio::time::Instant,
    pool: Rc<HostPool>,
    counted: bool,
}

impl Drop for ConnGuard {
    fn drop(&mut self) {
        let stats = self.cluster.stats.at(self.worker_id);
        stats.upstream_cx_destroy.inc();
        stats.upstream_cx_length.record(self.since.elapsed());
        if self.counted {
            self.pool.open.set(self.pool.open.get().saturating_sub(1));
        }
        self.pool.freed.notify_one();
    }
}

impl HostPool {
    fn epoch(cluster: &LiveCluster) -> u64 {
        cluster.tls.as_ref().map_or(0, |tls| tls.epoch())
    }

    /// Takes a permit for one more connection. A host without any is always given one, so that a request never waits
    /// for a connection that nobody will return (Envoy does the same).
    fn admit(
        &self,
        worker: &Worker,
        cluster: &Arc<LiveCluster>,
        high: bool,
    ) -> Result<Option<ConnectionPermit>, ()> {
        match cluster.cluster.try_connection(&self.host, high) {
            Ok(permit) => Ok(Some(permit)),
            Err(_) => {
                cluster.stats.at(worker.id).upstream_cx_overflow.inc();
                let none = self.open.get() == 0 && self.shared.borrow().is_empty();
                if none && self.connecting.borrow().is_none() { Ok(None) } else { Err(()) }
            }
        }
    }

    fn guard(
        self: &Rc<Self>,
        worker: &Worker,
        cluster: &Arc<LiveCluster>,
        permit: Option<ConnectionPermit>,
        counted: bool,
    ) -> ConnGuard {
        let stats = cluster.stats.at(worker.id);
        stats.upstream_cx_total.inc();
        if counted {
            self.open.set(self.open.get() + 1);
        }
        ConnGuard {
            _permit: permit,
            _active: Raised::new(cluster.stats.clone(), worker.id, |stats| &stats.upstream_cx_active),
            _open: self.host.open_connection(),
            cluster: cluster.clone(),
            worker_id: worker.id,
            since: tokio::time::Instant::now(),
            pool: self.clone(),
            counted,
        }
    }

    /// Which protocol to use, or `None` while only ALPN can tell.
    fn protocol(&self, cluster: &LiveCluster, want: &Want<'_>) -> Option<Version> {
        if want.upgrade {
            return Some(Version::Http11);
        }
        match cluster.cluster.config.http.protocol {
            HttpUpstream::Http1 => Some(Version::Http11),
            HttpUpstream::Http2 => Some(Version::Http2),
            HttpUpstream::Downstream if want.downstream == Version::Http2 => Some(Version::Http2),
            HttpUpstream::Downstream => Some(Version::Http11),
            HttpUpstream::Auto => self.learned.get(),
        }
    }
}

/// The breaker of a priority.
pub fn breaker(cluster: &Cluster, high: bool) -> &Breaker {
    cluster.breaker(high)
}

impl Pools {
    fn pool(&self, cluster: &Arc<LiveCluster>, host: &Arc<Host>, want: &Want<'_>) -> Rc<HostPool> {
        let key = Key {
            cluster: cluster.cluster.uid,
            host: host.id,
            sni: want.sni.map_or(0, |name| std::hash::BuildHasher::hash_one(&self.names, name) | 1),
            proxied: want.proxied,
        };
        let fresh = || {
            Rc::new(HostPool {
                key,
                cluster: RefCell::new(cluster.clone()),
                host: host.clone(),
                sni: want.sni.map(Into::into),
                idle: RefCell::default(),
                shared: RefCell::default(),
                connecting: RefCell::default(),
                open: Cell::new(0),
                learned: Cell::new(None),
                freed: Notify::new(),
            })
        };
        let mut hosts = self.hosts.borrow_mut();
        let pool = hosts.entry(key).or_insert_with(fresh).clone();
        if pool.sni.as_deref() != want.sni {
            // Two names with one hash: never share a connection between them.
            return fresh();
        }
        pool
    }

    /// A connection to `host` that can be used at once. Nearly every request gets one; to wait for one is
    /// [`checkout`](Self::checkout), whose future is large.
    pub fn ready(
        &self,
        worker: &Rc<Worker>,
        cluster: &Arc<LiveCluster>,
        host: &Arc<Host>,
        want: &Want<'_>,
    ) -> Option<Checked> {
        self.pool(cluster, host, want).ready(worker, cluster, want)
    }

    /// Gives a connection to `host`.
    ///
    /// *Errors*: a breaker is open, or connecting failed.
    ///
    /// *Cancel safety*: a caller that goes away leaves nothing behind; a shared connection being made goes on.
    pub async fn checkout(
        &self,
        worker: &Rc<Worker>,
        cluster: &Arc<LiveCluster>,
        host: &Arc<Host>,
        want: Want<'_>,
    ) -> Result<Checked, PoolError> {
        let pool = self.pool(cluster, host, &want);
        if let Some(ready) = pool.ready(worker, cluster, &want) {
            return Ok(ready);
        }
        self.start_sweep(worker);
        let stats = cluster.stats.at(worker.id);
        let Ok(_pending) = breaker(&cluster.cluster, want.high_priority).try_pending() else {
            stats.upstream_rq_pending_overflow.inc();
            return Err(PoolError::Overflow);
        };
        stats.upstream_rq_pending_total.inc();
        let _waiting =
            Raised::new(cluster.stats.clone(), worker.id, |stats| &stats.upstream_rq_pending_active);
        *pool.cluster.borrow_mut() = cluster.clone();
        let mut made = 0;
        loop {
            let done = match pool.protocol(cluster, &want) {
                Some(Version::Http11 | Version::Http10) => pool.connect_h1(worker, cluster, &want).await?,
                Some(Version::Http2) | None => pool.connect_shared(worker, cluster, &want).await?,
            };
            if let Some(checked) =
                done.or_else(|| pool.ready(worker, cluster, &Want { fresh: false, ..want }))
            {
                return Ok(checked);
            }
            made += u32::from(
                pool.connecting.borrow().is_none() && pool.shared.borrow().is_empty() && pool.open.get() == 0,
            );
            if made > CONNECTIONS_LOST {
                // Connections are made and end before a stream can be opened on them.
                return Err(PoolError::Connect(Rc::new(ConnectError::settings(
                    std::io::ErrorKind::ConnectionReset.into(),
                ))));
            }
        }
    }

    /// Connections that are open and idle (HTTP/1.1), and open (HTTP/2).
    pub fn counts(&self) -> (usize, usize) {
        self.hosts.borrow().values().fold((0, 0), |(idle, shared), pool| {
            (idle + pool.idle.borrow().len(), shared + pool.shared.borrow().len())
        })
    }

    /// Closes what is idle and lets the rest end with its requests.
    pub fn close(&self) {
        let pools: Vec<_> = self.hosts.borrow_mut().drain().map(|(_, pool)| pool).collect();
        for pool in pools {
            pool.clear();
        }
    }
}

impl HostPool {
    /// A connection that can be used at once.
    fn ready(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        cluster: &Arc<LiveCluster>,
        want: &Want<'_>,
    ) -> Option<Checked> {
        match self.protocol(cluster, want) {
            Some(Version::Http11 | Version::Http10) if want.fresh => None,
            Some(Version::Http11 | Version::Http10) => self.pop_idle(worker, cluster).map(Checked::from),
            Some(Version::Http2) => self.slot(worker, cluster).map(Checked::H2),
            None => self
                .slot(worker, cluster)
                .map(Checked::H2)
                .or_else(|| self.pop_idle(worker, cluster).map(Checked::from)),
        }
    }

    /// Waits until a connection comes back or ends, or it is time to look again.
    async fn wait(&self, worker: &Worker) {
        worker.wheel.timeout(Some(RECHECK), self.freed.notified()).await;
    }

    fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        let shared = std::mem::take(&mut *self.shared.borrow_mut());
        drop((idle, shared));
    }

    /// Makes the connection itself; nothing is counted yet.
    async fn dial(
        &self,
        worker: &Rc<Worker>,
        cluster: &Arc<LiveCluster>,
        alpn: &'static [&'static [u8]],
    ) -> Result<Rc<Io>, ConnectError> {
        let options = ConnectOptions { alpn, sni: self.sni.as_deref(), proxied: self.key.proxied };
        let made = super::connect(worker, cluster, &self.host, options).await;
        let outcome = if made.is_ok() { Outcome::Connected } else { Outcome::ConnectFailed };
        // Once per connection, however many requests wait for it.
        let now = tokio::time::Instant::now().into_std();
        cluster.report(worker, &self.host, outcome, now);
        made
    }
}
