//! HTTP/2 connections of one host: one, until its streams are used up, then another.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use outrigger_traffic::config::{Http2Options, HttpUpstream};
use outrigger_wire::Version;
use outrigger_wire::h2::{Code, Options, Role, Settings};
use tokio::time::Instant;

use super::open::Checked;
use super::{Attempt, HostPool, PoolError, RESPONSE_LIMITS, Want};
use crate::http::h2::keepalive::KeepAlive;
use crate::http::h2::link::{Link, Over};
use crate::http::h2::rest::Rest;
use crate::io::Io;
use crate::live::LiveCluster;
use crate::upstream::ConnectError;
use crate::worker::Worker;

/// Largest header list of a response, bytes.
const HEADER_LIST: u32 = 60 * 1024;
/// The window every HTTP/2 stream begins with (RFC 9113 §6.9.2); less would slow every response down.
const WINDOW_MIN: u32 = 65_535;

/// A connection that speaks HTTP/2. When it is dropped, the connection ends with its last stream.
pub struct H2Conn {
    link: Rc<Link>,
    /// The connection.
    pub io: Rc<Io>,
    active: Cell<u32>,
    served: Cell<u32>,
    most: u32,
    epoch: u64,
    /// No new streams: GOAWAY came, the connection ended, or it has served its time.
    retired: Cell<bool>,
    idle_since: Cell<Instant>,
    opened: Instant,
}

impl fmt::Debug for H2Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Conn").field("active", &self.active.get()).finish_non_exhaustive()
    }
}

impl Drop for H2Conn {
    fn drop(&mut self) {
        self.link.shut_down();
    }
}

/// Room for one stream on a connection; the room is given back when it is dropped.
pub struct H2Slot {
    conn: Rc<H2Conn>,
    pool: Rc<HostPool>,
}

impl fmt::Debug for H2Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.conn.fmt(f)
    }
}

impl H2Slot {
    /// The connection.
    pub fn conn(&self) -> &H2Conn {
        &self.conn
    }

    /// Whether it carried a stream before this one.
    pub fn is_reused(&self) -> bool {
        self.conn.served.get() > 1
    }

    /// The connection's frames.
    pub(super) fn link(&self) -> &Rc<Link> {
        &self.conn.link
    }

    /// Leaves the connection to the streams it has, when it takes no new ones.
    pub(super) fn retire_if_over(&self) {
        if !self.conn.link.is_used_up() {
            return;
        }
        self.conn.retired.set(true);
        self.pool.shared.borrow_mut().retain(|conn| !Rc::ptr_eq(conn, &self.conn));
    }
}

impl Drop for H2Slot {
    fn drop(&mut self) {
        self.conn.active.set(self.conn.active.get().saturating_sub(1));
        self.conn.idle_since.set(Instant::now());
        self.pool.freed.notify_one();
    }
}

impl H2Conn {
    pub(super) fn is_idle_since(&self) -> Option<Instant> {
        (self.active.get() == 0).then(|| self.idle_since.get())
    }

    pub(super) const fn is_retired(&self) -> bool {
        self.retired.get()
    }

    pub(super) const fn has_epoch(&self, epoch: u64) -> bool {
        self.epoch == epoch
    }

    /// Whether another stream may be opened now.
    fn has_room(&self) -> bool {
        if self.retired.get() {
            return false;
        }
        if self.link.is_used_up() {
            self.retired.set(true);
            return false;
        }
        self.active.get() < self.most && self.link.streams_left() > 0
    }
}

impl HostPool {
    /// Room for a stream on a connection that is there.
    pub(super) fn slot(self: &Rc<Self>, worker: &Worker, cluster: &LiveCluster) -> Option<H2Slot> {
        let epoch = Self::epoch(cluster);
        let http = &cluster.cluster.config.http;
        let mut shared = self.shared.borrow_mut();
        for conn in shared.iter() {
            if http.max_requests_per_connection.is_some_and(|most| conn.served.get() >= most) {
                cluster.stats.at(worker.id).upstream_cx_max_requests.inc();
                conn.retired.set(true);
            }
            if http.max_connection_duration.is_some_and(|longest| conn.opened.elapsed() >= longest) {
                cluster.stats.at(worker.id).upstream_cx_max_duration_reached.inc();
                conn.retired.set(true);
            }
        }
        shared.retain(|conn| !conn.is_retired() && conn.has_epoch(epoch));
        let conn = shared.iter().find(|conn| conn.has_room())?.clone();
        conn.active.set(conn.active.get() + 1);
        conn.served.set(conn.served.get().saturating_add(1));
        Some(H2Slot { conn, pool: self.clone() })
    }

    /// Waits for a connection that somebody is making, or makes one; `None`: look again.
    pub(super) async fn connect_shared(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        cluster: &Arc<LiveCluster>,
        want: &Want<'_>,
    ) -> Result<Option<Checked>, PoolError> {
        let full = self.shared.borrow().iter().any(|conn| conn.active.get() == 0 && !conn.is_retired());
        if full {
            // The host grants no streams at all, for now: another connection would not help.
            self.wait(worker).await;
            return Ok(None);
        }
        let running = self.connecting.borrow().clone();
        let attempt = match running {
            Some(attempt) => attempt,
            None => {
                let Ok(permit) = self.admit(worker, cluster, want.high_priority) else {
                    self.wait(worker).await;
                    return Ok(None);
                };
                let attempt = Rc::new(Attempt::default());
                *self.connecting.borrow_mut() = Some(attempt.clone());
                let (pool, worker, cluster, task) =
                    (self.clone(), worker.clone(), cluster.clone(), attempt.clone());
                // Not bound to the request: others wait for the same connection, and the next one can use it.
                worker.clone().jobs.spawn(async move {
                    if let Err(error) = pool.make_shared(&worker, &cluster, permit).await {
                        *task.error.borrow_mut() = Some(Rc::new(error));
                    }
                    pool.connecting.borrow_mut().take();
                    task.done.set(true);
                    task.notify.notify_waiters();
                });
                attempt
            }
        };
        loop {
            let notified = attempt.notify.notified();
            if attempt.done.get() {
                break;
            }
            notified.await;
        }
        let error = attempt.error.borrow().clone();
        match error {
            Some(error) => {
                cluster.stats.at(worker.id).upstream_rq_pending_failure_eject.inc();
                Err(PoolError::Connect(error))
            }
            None => Ok(None),
        }
    }

    async fn make_shared(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        cluster: &Arc<LiveCluster>,
        permit: Option<outrigger_traffic::cluster::ConnectionPermit>,
    ) -> Result<(), ConnectError> {
        let auto = cluster.cluster.config.http.protocol == HttpUpstream::Auto;
        let alpn: &'static [&'static [u8]] = if auto { &[b"h2", b"http/1.1"] } else { &[b"h2"] };
        let io = self.dial(worker, cluster, alpn).await?;
        let chosen_h2 = io.tls_facts().is_some_and(|facts| facts.alpn.as_deref() == Some(b"h2"));
        if auto && !chosen_h2 {
            self.learned.set(Some(Version::Http11));
            let guard = self.guard(worker, cluster, permit, true);
            self.adopt_h1(worker, cluster, io, guard);
            return Ok(());
        }
        self.learned.set(Some(Version::Http2));
        let options = &cluster.cluster.config.http.http2;
        let limit_bytes = cluster.cluster.config.per_connection_buffer_limit_bytes;
        let link_options = link_options(options, limit_bytes, io.is_tls());
        let link = Link::new(worker, io.clone(), Role::Client, link_options, None);
        cluster.stats.at(worker.id).upstream_cx_http2_total.inc();
        let now = Instant::now();
        let conn = Rc::new(H2Conn {
            link: link.clone(),
            io,
            active: Cell::new(0),
            served: Cell::new(0),
            most: options.max_concurrent_streams,
            epoch: Self::epoch(cluster),
            retired: Cell::new(false),
            idle_since: Cell::new(now),
            opened: now,
        });
        self.shared.borrow_mut().push(conn.clone());
        let guard = self.guard(worker, cluster, permit, false);
        let (worker, options, cluster) = (worker.clone(), options.clone(), cluster.clone());
        let weak = Rc::downgrade(&conn);
        worker.clone().jobs.spawn(async move {
            drive(&worker, &link, &options).await;
            let stats = cluster.stats.at(worker.id);
            if link.was_told_away() {
                stats.upstream_cx_close_notify.inc();
            }
            if let Some(Over::Failed(error)) = link.over() {
                tracing::debug!(cluster = &*cluster.cluster.config.name, error = %error, "http/2 connection failed");
                stats.upstream_cx_protocol_error.inc();
            }
            if let Some(conn) = weak.upgrade() {
                conn.retired.set(true);
                guard.pool.shared.borrow_mut().retain(|other| !Rc::ptr_eq(other, &conn));
            }
            link.close(&worker, Code::NO_ERROR).await;
            drop(guard);
        });
        Ok(())
    }
}

/// `limit` is `per_connection_buffer_limit_bytes`. What a stream may have in flight is bounded by it, not what all streams
/// of a connection may: one stalled response would stall the others.
fn link_options(options: &Http2Options, limit: u32, secure: bool) -> Options {
    Options {
        settings: Settings {
            header_table_bytes: options.hpack_table_size,
            initial_window: options.initial_stream_window_size.min(limit.max(WINDOW_MIN)),
            max_header_list_bytes: HEADER_LIST,
            ..Settings::default()
        },
        connection_window: options.initial_connection_window_size,
        max_fields: RESPONSE_LIMITS.max_fields,
        secure,
    }
}

/// Runs a connection until it ends; with keep-alive, until a PING is not answered in time.
async fn drive(worker: &Worker, link: &Rc<Link>, options: &Http2Options) {
    let (mut keepalive, mut rest) = (KeepAlive::new(worker, options), Rest::new(worker));
    std::future::poll_fn(|cx| {
        if link.poll_drive(cx, &mut |_| None).is_ready() {
            return Poll::Ready(());
        }
        rest.poll(cx, link);
        keepalive.poll_dead(cx, link)
    })
    .await;
}
