//! From an accepted socket to a filter chain: bind, accept, detect, choose, handshake, admit.
//!
//! * [`Listeners`]: the sockets, on the control thread.
//! * [`run`]: a worker's side, an accept loop per socket and a task per connection.
//! * [`hello`], [`http_guess`], [`proxy_header`], [`named`]: what the first bytes say, without taking part in TLS.
//! * [`ConnFacts`]: what is known of a connection from then on.
//! * [`reconsider`]: the chain of a connection's next request after the configuration changed.
//! * [`Tenure`]: how long a connection may stay after the configuration changed.

mod accept;
mod admit;
mod bind;
mod connection;
mod detect;
mod facts;
mod first;
mod forward_proxy;
mod handed;
pub mod hello;
pub mod http_guess;
pub mod named;
mod network_rbac;
mod original_dst;
pub mod proxy_header;
mod reconsider;
mod sockets;
mod tenure;

pub use accept::Listen;
pub use facts::ConnFacts;
pub(crate) use handed::Hands;
pub use handed::{Handed, NotServed};
pub use reconsider::reconsider;
pub use sockets::{Listeners, Prepared};
pub use tenure::{Eviction, Tenure, Tenures};

use crate::drain::Phase;
use crate::worker::Worker;
use std::rc::Rc;
use tokio::sync::mpsc;

/// Serves a worker until its proxy is closed: accepts on the sockets it is given and starts draining when the proxy does.
/// Runs inside the worker's `LocalSet`.
pub async fn run(
    worker: Rc<Worker>,
    mut sockets: mpsc::UnboundedReceiver<Listen>,
    handed: mpsc::Receiver<Handed>,
) {
    let shared = worker.shared.clone();
    let watcher = worker.clone();
    worker.jobs.spawn(async move {
        watcher.shared.drain.reached(Phase::Draining).await;
        watcher.drain.start();
    });
    worker.jobs.spawn(tenure::watch_over(worker.clone()));
    worker.jobs.spawn(handed::take(worker.clone(), handed));
    if worker.id == 0 {
        worker.jobs.spawn(crate::filter::keep_keys_ahead(worker.clone()));
    }
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
    worker.lane.clear();
}
