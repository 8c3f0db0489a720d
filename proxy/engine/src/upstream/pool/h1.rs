//! Idle HTTP/1.1 connections of one host, the one used last on top: with little traffic the others grow old and close.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::open::{Checked, Halves};
use super::{ConnGuard, HostPool, PoolError, RESPONSE_LIMITS, Want};
use crate::http::body::{BodyReader, BodyWriter};
use crate::http::h1::{H1Reader, H1Writer};
use crate::io::Io;
use crate::live::LiveCluster;
use crate::worker::Worker;

/// A connection that speaks HTTP/1.1.
pub struct H1Conn {
    /// Receives responses and sends requests; boxed once for the life of the connection.
    halves: Box<Halves>,
    rest: Rest,
}

impl fmt::Debug for H1Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H1Conn").field("served", &self.rest.served).finish_non_exhaustive()
    }
}

impl H1Conn {
    fn new(worker: &Rc<Worker>, cluster: &LiveCluster, io: Rc<Io>, guard: ConnGuard) -> Self {
        cluster.stats.at(worker.id).upstream_cx_http1_total.inc();
        Self {
            halves: Box::new(Halves {
                reader: BodyReader::H1(H1Reader::new(worker.clone(), io.clone(), RESPONSE_LIMITS)),
                writer: BodyWriter::H1(H1Writer::new(io.clone())),
            }),
            rest: Rest { io, served: 0, epoch: HostPool::epoch(cluster), idle_since: Instant::now(), guard },
        }
    }

    /// The connection.
    pub const fn io(&self) -> &Rc<Io> {
        &self.rest.io
    }

    /// Requests it has carried.
    pub const fn served(&self) -> u32 {
        self.rest.served
    }

    /// Takes it for one request more.
    pub(super) fn take(self) -> (Box<Halves>, Rest) {
        let Self { halves, mut rest } = self;
        rest.served = rest.served.saturating_add(1);
        (halves, rest)
    }

    /// Whether the peer closed it, or sent what nobody asked for.
    pub(super) fn is_dead(&self) -> bool {
        !self.io().is_quiet()
    }

    pub(super) fn is_expired(&self, now: Instant, limit: Option<Duration>) -> bool {
        limit.is_some_and(|limit| now.saturating_duration_since(self.rest.idle_since) >= limit)
    }

    pub(super) const fn has_epoch(&self, epoch: u64) -> bool {
        self.rest.epoch == epoch
    }

    /// Puts it back for the next request, unless it has served its time.
    pub(super) fn give_back(self, worker: &Rc<Worker>) {
        let pool = self.rest.guard.pool.clone();
        let cluster = pool.cluster.borrow().clone();
        let stats = cluster.stats.at(worker.id);
        let http = &cluster.cluster.config.http;
        if http.max_requests_per_connection.is_some_and(|most| self.rest.served >= most) {
            stats.upstream_cx_max_requests.inc();
            return;
        }
        if http.max_connection_duration.is_some_and(|longest| self.rest.guard.since.elapsed() >= longest) {
            stats.upstream_cx_max_duration_reached.inc();
            return;
        }
        if !self.has_epoch(HostPool::epoch(&cluster)) {
            return;
        }
        pool.idle.borrow_mut().push(self);
        pool.freed.notify_one();
        worker.pools.start_sweep(worker);
    }
}

impl HostPool {
    /// The idle connection that was used last and is still alive.
    pub(super) fn pop_idle(&self, worker: &Worker, cluster: &LiveCluster) -> Option<H1Conn> {
        let epoch = Self::epoch(cluster);
        loop {
            let conn = self.idle.borrow_mut().pop()?;
            if conn.has_epoch(epoch) && !conn.is_dead() {
                return Some(conn);
            }
            cluster.stats.at(worker.id).upstream_cx_destroy_remote.inc();
        }
    }

    /// Makes a connection, or waits for one when there may be no more; `None`: look again.
    pub(super) async fn connect_h1(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        cluster: &Arc<LiveCluster>,
        want: &Want<'_>,
    ) -> Result<Option<Checked>, PoolError> {
        let Ok(permit) = self.admit(worker, cluster, want.high_priority) else {
            self.wait(worker).await;
            return Ok(None);
        };
        let _connecting = Counted::new(self);
        let io = self.dial(worker, cluster, &[b"http/1.1"]).await.map_err(|error| {
            cluster.stats.at(worker.id).upstream_rq_pending_failure_eject.inc();
            PoolError::Connect(Rc::new(error))
        })?;
        let guard = self.guard(worker, cluster, permit, true);
        Ok(Some(Checked::from(H1Conn::new(worker, cluster, io, guard))))
    }

    /// Keeps a connection whose protocol ALPN left at HTTP/1.1.
    pub(super) fn adopt_h1(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        cluster: &Arc<LiveCluster>,
        io: Rc<Io>,
        guard: ConnGuard,
    ) {
        self.idle.borrow_mut().push(H1Conn::new(worker, cluster, io, guard));
    }
}

/// What a connection is beside its halves.
pub(super) struct Rest {
    io: Rc<Io>,
    served: u32,
    epoch: u64,
    idle_since: Instant,
    guard: ConnGuard,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("served", &self.served).finish_non_exhaustive()
    }
}

impl Rest {
    /// The connection, whole again, idle since `now`.
    pub(super) fn join(mut self, halves: Box<Halves>, now: Instant) -> H1Conn {
        self.idle_since = now;
        H1Conn { halves, rest: self }
    }

    /// Counts a connection that is not used again.
    pub(super) fn count_destroyed(&self, worker: &Worker, by_host: bool) {
        let stats = self.guard.cluster.stats.at(worker.id);
        if by_host {
            stats.upstream_cx_destroy_remote.inc();
        } else {
            stats.upstream_cx_destroy_local.inc();
        }
    }
}

/// One connection more while it is being made; [`ConnGuard`] goes on counting it afterwards.
struct Counted<'a>(&'a HostPool);

impl<'a> Counted<'a> {
    fn new(pool: &'a HostPool) -> Self {
        pool.open.set(pool.open.get() + 1);
        Self(pool)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
    }
}
