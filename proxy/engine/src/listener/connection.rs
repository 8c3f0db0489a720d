//! One accepted connection, from the kernel to whatever its chain does with it.

use super::admit::admit;
use super::tenure::{Admission, Tenure};
use crate::drain::DrainWatch;
use crate::http;
use crate::live::{LiveListener, LiveRef};
use crate::tcp;
use crate::telemetry::{ListenerStats, Sharded};
use crate::worker::Worker;
use outrigger_traffic::listener::Terminal;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A connection that nothing is known of yet.
pub(super) struct Accepted {
    pub(super) id: u64,
    /// The configuration of the moment, and the listener in it.
    pub(super) live: LiveRef,
    pub(super) listener: Arc<LiveListener>,
    pub(super) tcp: TcpStream,
    pub(super) peer: SocketAddr,
    /// Where it was going, when it was redirected and the listener asks for that.
    pub(super) original: Option<SocketAddr>,
    pub(super) drain: DrainWatch,
    pub(super) books: Books,
}

/// Counts a connection while it is open.
pub(super) struct Books {
    worker: Rc<Worker>,
    stats: Arc<Sharded<ListenerStats>>,
    since: Instant,
}

impl Books {
    pub(super) fn open(worker: Rc<Worker>, stats: Arc<Sharded<ListenerStats>>) -> Self {
        worker.connections.set(worker.connections.get() + 1);
        worker.shared.connections.fetch_add(1, Ordering::Relaxed);
        let own = stats.at(worker.id);
        own.downstream_cx_total.inc();
        own.downstream_cx_active.inc();
        Self { worker, stats, since: Instant::now() }
    }

    /// The counters of the listener.
    pub(super) fn stats(&self) -> &ListenerStats {
        self.stats.at(self.worker.id)
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        self.worker.connections.set(self.worker.connections.get().saturating_sub(1));
        self.worker.shared.connections.fetch_sub(1, Ordering::Relaxed);
        let own = self.stats();
        own.downstream_cx_active.dec();
        own.downstream_cx_destroy.inc();
        own.downstream_cx_length.record(self.since.elapsed());
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let drain = accepted.drain.clone();
    // Boxed: this state is large and gone before the connection is served.
    let Some(admitted) = Box::pin(admit(&worker, accepted)).await else { return };
    let super::admit::Admitted { io, facts, live, chain, books } = admitted;
    let stats = books.stats.clone();
    let admission = Admission { facts: &facts, io: &io, live: &live, chain: &chain, drain: &drain, stats };
    let tenure = Tenure::begin(&worker, admission);
    match &chain.chain.terminal {
        Terminal::Http(_) => {
            let served = std::pin::pin!(http::serve_connection(worker, io, facts, live, chain, drain));
            tenure.serve(served).await;
        }
        Terminal::Tcp(_) => tcp::forward(worker, io, facts, chain, &tenure).await,
    }
    drop(books);
}
