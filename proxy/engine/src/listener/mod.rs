//! From an accepted socket to a filter chain: bind, accept, detect, choose, handshake, admit.
//!
//! * [`Listeners`]: the sockets, on the control thread.
//! * [`run`]: a worker's side, an accept loop per socket and a task per connection.
//! * [`hello`]: what the first bytes say, without taking part in TLS.
//! * [`ConnFacts`]: what is known of a connection from then on.
//! * [`reconsider`]: whether a connection may go on after the configuration changed.

mod accept;
mod admit;
mod bind;
mod connection;
mod detect;
mod facts;
pub mod hello;
mod network_rbac;
mod reconsider;
mod sockets;

pub use accept::Listen;
pub use facts::ConnFacts;
pub use reconsider::reconsider;
pub use sockets::{Listeners, Prepared};

use crate::drain::Phase;
use crate::worker::Worker;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Between looks at whether there is a new configuration. Requests see it at once; this is for an idle worker, which
/// would otherwise keep the old one in memory.
const NEWS_TICK: Duration = Duration::from_secs(1);

/// Serves a worker until its proxy is closed: accepts on the sockets it is given and starts draining when the proxy does.
/// Runs inside the worker's `LocalSet`.
pub async fn run(worker: Rc<Worker>, mut sockets: mpsc::UnboundedReceiver<Listen>) {
    let shared = worker.shared.clone();
    let watcher = worker.clone();
    worker.jobs.spawn(async move {
        watcher.shared.drain.reached(Phase::Draining).await;
        watcher.drain.start();
    });
    let reader = worker.clone();
    worker.jobs.spawn(async move {
        let mut seen = 0;
        loop {
            reader.wheel.sleep(NEWS_TICK).await;
            let version = reader.live().version;
            if version != seen {
                seen = version;
                reader.news.notify_waiters();
            }
        }
    });
    let accepting = async {
        while let Some(listen) = sockets.recv().await {
            worker.jobs.spawn(accept::accept(worker.clone(), listen));
        }
        // The control side is gone without saying so; what is open goes on until the proxy is closed.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = accepting => {}
        () = shared.drain.reached(Phase::Closed) => {}
    }
    worker.pools.close();
}
