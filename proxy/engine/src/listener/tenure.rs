//! How long an open connection may stay when the configuration changes.
//!
//! ```text
//!             ┌── unchanged, or changed in a way that holds from now on ──┐
//!  new state ─┤                                                           └▶ stays
//!             ├── the network rules of its chain deny it now ──────────────▶ closed at once
//!             └── listener or chain gone, or other than it was ─▶ asked to finish ─▶ closed after the drain time
//! ```
//!
//! Every admitted connection holds a [`Tenure`]; the worker's [`Tenures`] walk over all of them after a change of the
//! configuration ([`watch_over`]). Beside that a tenure costs a connection one look at a cell whenever it is woken.
//! What counts as "other" for HTTP is a different handshake only, since its next request takes the new chain anyway. For
//! TCP it is also any other setting of its proxy: like in Envoy, a connection is served to its end as it began. Trust roots
//! that came as a secret end no connection by themselves (as in Envoy).

use super::reconsider::choose;
use super::{ConnFacts, network_rbac};
use crate::drain::DrainWatch;
use crate::http::Connection;
use crate::io::{Deadline, Io};
use crate::live::{Live, LiveChain, LiveChainRef, LiveRef};
use crate::telemetry::{ListenerStats, Sharded};
use crate::worker::Worker;
use outrigger_traffic::listener::Terminal;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// Shortest time between two walks. The first change after a quiet time is looked at at once; of a storm of changes, the
/// latest one every so often.
const WALK_PAUSE: Duration = Duration::from_millis(100);

/// Longest time a connection that must end goes on without noticing it: it is woken at once, and waits for nothing but
/// its peer and its hosts.
const NOTICE_MAX: Duration = Duration::from_secs(1);

/// Connections looked at in one turn of the worker's loop, so that a walk over many does not hold up their requests
/// (about 0.2 µs each).
const WALK_STEP: usize = 256;

/// Why a connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The rules of the chain that it would take now deny it.
    Denied,
    /// The drain time of its listener or chain is over.
    Drained,
}

/// A connection's right to stay; it ends with the connection.
pub struct Tenure {
    holder: Rc<Holder>,
    worker: Rc<Worker>,
}

struct Holder {
    facts: Rc<ConnFacts>,
    io: Rc<Io>,
    /// The chain it was last found to be in.
    chain: RefCell<LiveChainRef>,
    drain: DrainWatch,
    stats: Arc<Sharded<ListenerStats>>,
    /// When it must be gone, once its listener or chain is.
    until: Cell<Option<Instant>>,
    ended: Cell<Option<Eviction>>,
    waker: RefCell<Option<Waker>>,
}

/// The tenures of a worker, by connection.
#[derive(Default)]
pub struct Tenures(RefCell<HashMap<u64, Rc<Holder>>>, RefCell<HashMap<u64, Weak<Connection>>>);

/// What a new configuration means for a connection.
enum Judgement {
    Stays(LiveChainRef),
    Denied,
    Outdated,
}

/// What a tenure is given for.
pub(super) struct Admission<'a> {
    pub(super) facts: &'a Rc<ConnFacts>,
    pub(super) io: &'a Rc<Io>,
    /// The configuration that `chain` is of.
    pub(super) live: &'a LiveRef,
    pub(super) chain: &'a LiveChainRef,
    pub(super) drain: &'a DrainWatch,
    pub(super) stats: Arc<Sharded<ListenerStats>>,
}

impl Tenure {
    /// Begins with the admission of the connection, under the configuration of that time. When there is a newer one
    /// already, it is asked at once: the change came during the handshake.
    pub(super) fn begin(worker: &Rc<Worker>, admission: Admission<'_>) -> Self {
        let holder = Rc::new(Holder {
            facts: admission.facts.clone(),
            io: admission.io.clone(),
            chain: RefCell::new(admission.chain.clone()),
            drain: admission.drain.clone(),
            stats: admission.stats,
            until: Cell::new(None),
            ended: Cell::new(None),
            waker: RefCell::new(None),
        });
        worker.tenures.0.borrow_mut().insert(holder.facts.id, holder.clone());
        let latest = worker.live();
        if latest.version != admission.live.version {
            holder.judge(worker, &latest);
            if holder.until.get().is_some() {
                worker.tenures_expire.notify_one();
            }
        }
        Self { holder, worker: worker.clone() }
    }

    /// Whether the connection must end, and why. Wakes the task of the last call when that changes. Costs a look at a cell.
    pub fn poll_evicted(&self, cx: &Context<'_>) -> Poll<Eviction> {
        if let Some(why) = self.holder.ended.get() {
            return Poll::Ready(why);
        }
        let mut waker = self.holder.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|held| held.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Serves a connection by a future that runs in one task and ends by itself when its connection fails: which is what
    /// it sees when it must end, so that requests under way are booked and logged. One that does not notice is dropped.
    ///
    /// Takes the future where it lies: one that is moved in would have its room twice.
    pub async fn serve(&self, mut future: Pin<&mut impl Future<Output = ()>>) {
        let mut grace: Option<Deadline> = None;
        poll_fn(|cx| {
            if self.poll_evicted(cx).is_ready() {
                self.holder.io.abort();
                let grace = grace.get_or_insert_with(|| {
                    let deadline = self.worker.wheel.deadline();
                    deadline.set(NOTICE_MAX);
                    deadline
                });
                if grace.poll_expired(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            future.as_mut().poll(cx)
        })
        .await;
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.worker.tenures.0.borrow_mut().remove(&self.holder.facts.id);
    }
}

impl Holder {
    /// Draws the consequence of a new configuration.
    fn judge(&self, worker: &Worker, live: &Live) {
        if self.ended.get().is_some() {
            return;
        }
        let judgement = {
            let chain = self.chain.borrow();
            judge(live, &self.facts, &chain)
        };
        match judgement {
            Judgement::Stays(chain) => {
                // It may have been on its way out: a listener that was gone for a moment loses nobody.
                self.until.set(None);
                *self.chain.borrow_mut() = chain;
            }
            Judgement::Denied => self.evict(worker, Eviction::Denied),
            Judgement::Outdated if self.until.get().is_none() => {
                self.until.set(Some(Instant::now() + worker.shared.drain_time));
                self.drain.start();
            }
            Judgement::Outdated => {}
        }
    }

    fn evict(&self, worker: &Worker, why: Eviction) {
        let stats = self.stats.at(worker.id);
        match why {
            Eviction::Denied => stats.rbac_evicted.inc(),
            Eviction::Drained => stats.downstream_cx_drain_time_over.inc(),
        }
        tracing::debug!(
            listener = &*self.facts.listener,
            peer = %self.facts.peer,
            principal = &*self.facts.principal,
            reason = ?why,
            "connection closed by a change of the configuration"
        );
        // What is cut must not be taken for whole.
        self.io.reset_on_drop();
        self.ended.set(Some(why));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

fn judge(live: &Live, facts: &ConnFacts, current: &LiveChain) -> Judgement {
    let Some(listener) = live.listeners.get(&facts.listener) else { return Judgement::Outdated };
    let next = choose(&listener.listener, facts).and_then(|chosen| listener.chain(chosen));
    let Some(next) = next else { return Judgement::Outdated };
    if Arc::ptr_eq(&next.chain, &current.chain) {
        // The compiler takes over what did not change.
        return Judgement::Stays(next.clone());
    }
    if !network_rbac::would_allow(next, facts) {
        return Judgement::Denied;
    }
    let same_tls = match (&current.tls, &next.tls) {
        (None, None) => true,
        (Some(old), Some(new)) => new.admits_as(old) || current.chain.config.tls == next.chain.config.tls,
        _ => false,
    };
    let same_service = match (&current.chain.terminal, &next.chain.terminal) {
        (Terminal::Http(_), Terminal::Http(_)) => true,
        (Terminal::Tcp(old), Terminal::Tcp(new)) => old.config == new.config,
        _ => false,
    };
    if same_tls && same_service { Judgement::Stays(next.clone()) } else { Judgement::Outdated }
}

/// Walks over a worker's connections after every change of the configuration, and closes those whose time is over. Runs
/// until dropped.
pub(super) async fn watch_over(worker: Rc<Worker>) {
    let mut news = worker.shared.news.subscribe();
    loop {
        let next = worker.tenures.next_end();
        let wait =
            worker.wheel.timeout(next.map(|end| end.saturating_duration_since(Instant::now())), async {
                tokio::select! {
                    changed = news.changed() => changed.is_ok(),
                    () = worker.tenures_expire.notified() => true,
                }
            });
        if wait.await == Some(false) {
            return;
        }
        news.mark_unchanged();
        let live = worker.live();
        worker.news.notify_waiters();
        worker.tenures.walk(&worker, &live).await;
        drop(live);
        worker.wheel.sleep(WALK_PAUSE).await;
    }
}

impl Tenures {
    /// A connection that serves HTTP holds on to the configuration of its last request. From now on it is given the new
    /// one when that changes, or those that idle would keep every old one in memory.
    pub(crate) fn follow(&self, id: u64, connection: &Rc<Connection>) {
        self.1.borrow_mut().insert(id, Rc::downgrade(connection));
    }

    /// It ends.
    pub(crate) fn unfollow(&self, id: u64) {
        self.1.borrow_mut().remove(&id);
    }

    fn refresh(&self, id: u64) {
        let connection = self.1.borrow().get(&id).and_then(Weak::upgrade);
        if let Some(connection) = connection {
            connection.serving_now();
        }
    }

    /// When the first connection must be gone.
    fn next_end(&self) -> Option<Instant> {
        let held = self.0.borrow();
        held.values().filter(|one| one.ended.get().is_none()).filter_map(|one| one.until.get()).min()
    }

    async fn walk(&self, worker: &Worker, live: &Live) {
        let all: Vec<Rc<Holder>> = self.0.borrow().values().cloned().collect();
        let (mut denied, mut drained) = (0_usize, 0_usize);
        for step in all.chunks(WALK_STEP) {
            let now = Instant::now();
            for holder in step {
                if Rc::strong_count(holder) == 1 {
                    continue; // The connection ended while others were looked at.
                }
                let before = holder.ended.get();
                holder.judge(worker, live);
                worker.tenures.refresh(holder.facts.id);
                if holder.until.get().is_some_and(|until| until <= now) && holder.ended.get().is_none() {
                    holder.evict(worker, Eviction::Drained);
                }
                match holder.ended.get().filter(|_| before.is_none()) {
                    Some(Eviction::Denied) => denied += 1,
                    Some(Eviction::Drained) => drained += 1,
                    None => {}
                }
            }
            tokio::task::yield_now().await;
        }
        if denied + drained > 0 {
            tracing::info!(
                config_version = live.version,
                denied,
                drained,
                "connections closed by a change of the configuration"
            );
        }
    }
}
