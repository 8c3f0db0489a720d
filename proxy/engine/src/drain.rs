//! Going away without losing a request.
//!
//! ```text
//!  Serving ──drain()──▶ Draining ──no connection left, or deadline──▶ Closed
//!     │ readiness: yes     │ readiness: no; no accept;                   │ workers end, whatever is
//!     │                    │ h1 `connection: close`, h2 GOAWAY           │ still open is dropped
//! ```
//!
//! [`DrainState`] is shared by all threads. On a worker it arrives as a [`DrainNode`]: the worker's own one is the root,
//! a listener that is removed alone has a child. A connection holds a [`DrainWatch`].

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, watch};

/// How far a proxy is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// At work.
    #[default]
    Serving,
    /// New connections are refused, the open ones are asked to finish.
    Draining,
    /// Everything ends now.
    Closed,
}

/// The way out of a whole proxy; shared by all threads.
#[derive(Debug)]
pub struct DrainState {
    phase: watch::Sender<Phase>,
    health_failed: AtomicBool,
}

impl Default for DrainState {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving), health_failed: AtomicBool::new(false) }
    }
}

impl DrainState {
    /// Where it is.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to a later phase; going back is ignored.
    pub fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = *phase < to;
            if later {
                *phase = to;
            }
            later
        });
    }

    /// Waits until the phase is `at_least` this one.
    ///
    /// *Cancel safety*: safe.
    pub async fn reached(&self, at_least: Phase) {
        let mut watch = self.phase.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = watch.wait_for(|phase| *phase >= at_least).await;
    }

    /// Whether an operator asked readiness to fail (`/healthcheck/fail`).
    pub fn is_health_failed(&self) -> bool {
        self.health_failed.load(Ordering::Relaxed)
    }

    /// Makes readiness fail (true) or stops doing so.
    pub fn fail_health(&self, fail: bool) {
        self.health_failed.store(fail, Ordering::Relaxed);
    }
}

/// A point of a worker from which connections can be asked to finish. Starting it starts everything below.
#[derive(Clone, Debug, Default)]
pub struct DrainNode(Rc<Node>);

#[derive(Debug, Default)]
struct Node {
    draining: Cell<bool>,
    started: Notify,
    children: RefCell<Vec<Weak<Node>>>,
}

impl Node {
    fn start(&self) {
        if self.draining.replace(true) {
            return;
        }
        self.started.notify_waiters();
        let children = std::mem::take(&mut *self.children.borrow_mut());
        for child in children.iter().filter_map(Weak::upgrade) {
            child.start();
        }
    }
}

impl DrainNode {
    /// Asks every connection at and below this node to finish.
    pub fn start(&self) {
        self.0.start();
    }

    /// A node below this one; it starts with this one or alone.
    #[must_use]
    pub fn child(&self) -> Self {
        let child = Rc::new(Node::default());
        if self.0.draining.get() {
            child.start();
        } else {
            let mut children = self.0.children.borrow_mut();
            children.retain(|c| c.strong_count() > 0);
            children.push(Rc::downgrade(&child));
        }
        Self(child)
    }

    /// What a connection holds: one for each, and clones of it for its parts.
    pub fn watch(&self) -> DrainWatch {
        DrainWatch { node: self.0.clone(), alone: Rc::default() }
    }

    /// Whether it has started.
    pub fn is_draining(&self) -> bool {
        self.0.draining.get()
    }
}

/// A connection's view of a [`DrainNode`]; clones see the same.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    node: Rc<Node>,
    /// Whether this connection was asked on its own.
    alone: Rc<Cell<bool>>,
}

impl DrainWatch {
    /// Whether the connection should finish. Costs two loads.
    pub fn is_draining(&self) -> bool {
        self.node.draining.get() || self.alone.get()
    }

    /// Asks this connection alone to finish.
    pub fn start(&self) {
        if !self.alone.replace(true) {
            // The others of the node are woken too and go on waiting: rare, and cheaper than a bell for each.
            self.node.started.notify_waiters();
        }
    }

    /// Waits until the connection should finish.
    ///
    /// *Cancel safety*: safe.
    pub async fn draining(&self) {
        loop {
            let started = self.node.started.notified();
            tokio::pin!(started);
            // Registered before the flags are read, so that a start in between is not missed.
            started.as_mut().enable();
            if self.is_draining() {
                return;
            }
            started.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn node_child_starts_with_parent_and_alone() {
        let root = DrainNode::default();
        let (a, b) = (root.child(), root.child());
        a.start();
        assert!(a.watch().is_draining() && !b.watch().is_draining() && !root.is_draining());
        root.start();
        assert!(b.watch().is_draining());
        assert!(root.child().is_draining(), "a child of a draining node drains at once");
    }

    #[test]
    fn watch_waiting_is_woken_by_start() {
        let root = DrainNode::default();
        let watch = root.child().watch();
        let mut waiting = std::pin::pin!(watch.draining());
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Pending);
        drop(watch.clone());
        root.start();
        // The child node lives on in the watch.
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(()));
    }

    #[test]
    fn watch_started_alone_leaves_the_others() {
        let node = DrainNode::default();
        let (leaving, staying) = (node.watch(), node.watch());
        let part = leaving.clone();
        let mut stays = std::pin::pin!(staying.draining());
        let mut leaves = std::pin::pin!(part.draining());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(stays.as_mut().poll(&mut cx).is_pending() && leaves.as_mut().poll(&mut cx).is_pending());
        leaving.start();
        assert!(leaves.as_mut().poll(&mut cx).is_ready() && part.is_draining());
        assert!(stays.as_mut().poll(&mut cx).is_pending() && !staying.is_draining() && !node.is_draining());
        node.start();
        assert!(stays.as_mut().poll(&mut cx).is_ready());
    }

    #[tokio::test]
    async fn state_phase_never_goes_back() {
        let state = DrainState::default();
        state.advance(Phase::Draining);
        state.advance(Phase::Serving);
        assert_eq!(state.phase(), Phase::Draining);
        state.reached(Phase::Draining).await;
    }
}
