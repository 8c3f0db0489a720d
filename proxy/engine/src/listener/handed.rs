//! Connections that the embedding program accepted itself.
//!
//! They are served as if a listener had accepted them: the same filter chains, limits and counters. The listener need not
//! be bound (`bind_to_port: false`).

use super::connection::{Accepted, Books, serve};
use crate::drain::Phase;
use crate::overload::Action;
use crate::worker::Worker;
use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Connections of each worker that it has not taken over yet.
const WAITING_MAX: usize = 1024;

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Handed {
    listener: Arc<str>,
    tcp: TcpStream,
    peer: SocketAddr,
}

/// Why a connection is not served; it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotServed {
    /// The proxy drains, or has ended.
    Draining,
    /// No listener has this name.
    NoListener,
    /// As many connections are open as may be, memory runs out, or the workers do not keep up.
    Busy,
    /// The connection is gone already.
    Gone,
}

impl fmt::Display for NotServed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draining => "the proxy is draining",
            Self::NoListener => "no listener of this name",
            Self::Busy => "too many connections",
            Self::Gone => "the connection is gone",
        })
    }
}

impl std::error::Error for NotServed {}

/// The ways to the workers, used in turn.
#[derive(Debug)]
pub(crate) struct Hands {
    workers: Vec<mpsc::Sender<Handed>>,
    next: AtomicUsize,
}

impl Hands {
    /// Ways to so many workers, and their ends.
    pub(crate) fn new(workers: usize) -> (Self, Vec<mpsc::Receiver<Handed>>) {
        let (workers, ends) = (0..workers).map(|_| mpsc::channel(WAITING_MAX)).unzip();
        (Self { workers, next: AtomicUsize::new(0) }, ends)
    }

    /// Gives a connection to the next worker that has room.
    pub(crate) fn give(&self, listener: Arc<str>, tcp: TcpStream) -> Result<(), NotServed> {
        let peer = tcp.peer_addr().map_err(|_| NotServed::Gone)?;
        tcp.set_nonblocking(true).map_err(|_| NotServed::Gone)?;
        let mut handed = Handed { listener, tcp, peer };
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for n in 0..self.workers.len() {
            let at = first.wrapping_add(n).checked_rem(self.workers.len()).unwrap_or(0);
            let Some(worker) = self.workers.get(at) else { continue };
            match worker.try_send(handed) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => {
                    handed = back;
                }
            }
        }
        Err(NotServed::Busy)
    }
}

/// Serves what a worker is handed, until the proxy is gone.
pub(super) async fn take(worker: Rc<Worker>, mut handed: mpsc::Receiver<Handed>) {
    let drain = worker.drain.child();
    while let Some(Handed { listener, tcp, peer }) = handed.recv().await {
        let live = worker.live();
        // It may have gone on the way here; so has the connection then.
        let Some(listener) = live.listeners.get(&listener).cloned() else { continue };
        let Ok(tcp) = tokio::net::TcpStream::from_std(tcp) else { continue };
        let shared = &worker.shared;
        let stats = listener.stats.at(worker.id);
        if shared.connections.load(Ordering::Relaxed) >= shared.connections_max {
            stats.downstream_global_cx_overflow.inc();
            continue;
        }
        if shared.overload.is_active(Action::RejectConnections) {
            stats.downstream_cx_overload_reject.inc();
            continue;
        }
        if shared.drain.phase() != Phase::Serving {
            continue;
        }
        let books = Books::open(worker.clone(), listener.stats.clone());
        let id = shared.next_connection_id();
        let accepted =
            Accepted { id, live, listener, tcp, peer, original: None, drain: drain.watch(), books };
        worker.jobs.spawn(serve(worker.clone(), accepted));
    }
}
