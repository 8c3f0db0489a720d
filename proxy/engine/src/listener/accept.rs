//! The accept loop of one socket on one worker.

use super::connection::{Accepted, Books, serve};
use super::original_dst::original_dst;
use crate::drain::DrainNode;
use crate::live::{LiveListener, LiveRef};
use crate::overload::{Action, Overload};
use crate::telemetry::{ListenerStats, Sharded};
use crate::worker::Worker;
use rustix::io::Errno;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Pause when the system has no descriptor or memory left: accepting again at once would only burn the processor.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A socket for a worker to accept on.
#[derive(Debug)]
pub struct Listen {
    /// Name of the listener.
    pub(super) name: Arc<str>,
    /// The worker's own socket.
    pub(super) socket: std::net::TcpListener,
    /// Counters of the listener.
    pub(super) stats: Arc<Sharded<ListenerStats>>,
    /// Turns true (or loses its sender) when the listener is removed.
    pub(super) removed: watch::Receiver<bool>,
}

/// Accepts until the listener is removed or the worker drains; then takes in what the kernel has queued, closes the socket,
/// and asks the connections to finish.
pub(super) async fn accept(worker: Rc<Worker>, mut listen: Listen) {
    let drain = worker.drain.child();
    let listener = match TcpListener::from_std(listen.socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(listener = &*listen.name, error = %error, "listening socket cannot be used");
            return;
        }
    };
    let scene = Scene {
        worker: &worker,
        name: &listen.name,
        stats: &listen.stats,
        drain: &drain,
        last: RefCell::new(None),
    };
    scene.current();
    let watch = drain.watch();
    let mut ended = pin!(async {
        tokio::select! {
            () = watch.draining() => {}
            // A lost sender means that the proxy is gone: the same as removal.
            _ = listen.removed.wait_for(|removed| *removed) => {}
        }
    });
    loop {
        let accepted = tokio::select! {
            biased;
            // First, so that a flood of connections cannot hold it up.
            () = &mut ended => break,
            accepted = next(&listener, &worker.shared.overload) => accepted,
            () = worker.news.notified() => {
                scene.current();
                continue;
            }
        };
        match accepted {
            Ok((tcp, peer)) => scene.take(tcp, peer),
            Err(error) => scene.failed(&error).await,
        }
    }
    // Their handshake with the kernel is done: closing the socket now would reset them.
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Ok((tcp, peer))) = listener.poll_accept(&mut cx) {
        scene.take(tcp, peer);
    }
    drop(listener);
    drain.start();
}

/// The next connection. While memory runs out they wait in the system's queue, and what does not fit there is refused by
/// the system.
async fn next(listener: &TcpListener, overload: &Overload) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        if overload.is_active(Action::StopConnections) {
            overload.over(Action::StopConnections).await;
        }
        tokio::select! {
            biased;
            () = overload.begun(Action::StopConnections) => {}
            accepted = listener.accept() => return accepted,
        }
    }
}

/// Finds out where a redirected connection was going, where the listener asks for that, and the listener that is to serve
/// it: the one of that address, where connections are handed over.
fn undo_redirection(
    live: &LiveRef,
    listener: Arc<LiveListener>,
    tcp: &TcpStream,
) -> (Arc<LiveListener>, Option<SocketAddr>) {
    let config = &listener.listener.config;
    if !config.use_original_dst && !config.original_dst {
        return (listener, None);
    }
    let Some(original) = original_dst(tcp) else { return (listener, None) };
    let heir = config.use_original_dst.then(|| live.listener_at(original)).flatten();
    (heir.cloned().unwrap_or(listener), Some(original))
}

struct Scene<'a> {
    worker: &'a Rc<Worker>,
    name: &'a Arc<str>,
    stats: &'a Arc<Sharded<ListenerStats>>,
    drain: &'a DrainNode,
    /// The listener as it was last seen: what serves connections that the kernel had taken when it was removed.
    last: RefCell<Option<(LiveRef, Arc<LiveListener>)>>,
}

impl Scene<'_> {
    /// The listener as it is now, or as it was last.
    fn current(&self) -> Option<(LiveRef, Arc<LiveListener>)> {
        let live = self.worker.live();
        let mut last = self.last.borrow_mut();
        let is_news = last.as_ref().is_none_or(|(seen, _)| seen.version != live.version);
        if is_news && let Some(listener) = live.listeners.get(self.name) {
            *last = Some((live.clone(), listener.clone()));
        }
        last.clone()
    }

    /// Starts a task for a connection, or closes it when too many are open.
    fn take(&self, tcp: TcpStream, peer: SocketAddr) {
        let shared = &self.worker.shared;
        if shared.connections.load(Ordering::Relaxed) >= shared.connections_max {
            self.stats.at(self.worker.id).downstream_global_cx_overflow.inc();
            return;
        }
        if shared.overload.is_active(Action::RejectConnections) {
            self.stats.at(self.worker.id).downstream_cx_overload_reject.inc();
            return;
        }
        let Some((live, listener)) = self.current() else { return };
        if let Some(limit) = listener.listener.config.connection_limit {
            // Shards may be negative, their sum is not: a connection may end on another worker's books.
            let open = self.stats.total(|stats| stats.downstream_cx_active.value());
            if open >= u64::from(limit) {
                self.stats.at(self.worker.id).downstream_cx_overflow.inc();
                return;
            }
        }
        let (listener, original) = undo_redirection(&live, listener, &tcp);
        let books = Books::open(self.worker.clone(), listener.stats.clone());
        if original.is_some() {
            books.stats().downstream_cx_redirected.inc();
        }
        let id = shared.next_connection_id();
        let drain = self.drain.watch();
        let accepted = Accepted { id, live, listener, tcp, peer, original, drain, books };
        self.worker.jobs.spawn(serve(self.worker.clone(), accepted));
    }

    async fn failed(&self, error: &io::Error) {
        self.stats.at(self.worker.id).downstream_accept_error.inc();
        let exhausted = Errno::from_io_error(error)
            .is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM));
        if exhausted {
            tracing::warn!(listener = &**self.name, error = %error, "accept failed, pausing");
            self.worker.wheel.sleep(EXHAUSTED_PAUSE).await;
        }
        // Anything else concerns one connection that is gone already.
    }
}
