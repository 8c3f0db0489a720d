//! The time limits of a stream and what each of them means.
//!
//! One [`Clock`] belongs to a connection (HTTP/1.1) or a stream (HTTP/2) and is used again for every request; its
//! deadlines live on the worker's wheel, so that moving one costs a cell write.
//!
//! | limit | runs | over |
//! |---|---|---|
//! | idle | from the last byte that moved | 408 or 504 `SI` |
//! | phase | `request_timeout` until the request arrived, then the route's timeout | 408, 504 `UT` |
//! | longest | the whole stream | 408 or 504 `DT` |
//! | attempt | one attempt, once it has a connection and the request arrived; or an attempt without a byte | 504 `UT` |

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::ProxyError;
use crate::http::body::Progress;
use crate::io::{Deadline, Wheel};

/// The running time limits of one stream.
#[derive(Debug)]
pub struct Clock {
    idle: Deadline,
    idle_after: Cell<Option<Duration>>,
    phase: Deadline,
    phase_error: Cell<ProxyError>,
    longest: Deadline,
    attempt: Deadline,
    /// The limit of an attempt that began before the request arrived.
    attempt_after: Cell<Option<Duration>>,
    attempt_idle: Deadline,
    attempt_idle_after: Cell<Option<Duration>>,
    /// The request arrived to its last byte.
    complete: Cell<bool>,
}

impl Clock {
    /// A clock with nothing set.
    pub fn new(wheel: &Wheel) -> Self {
        Self {
            idle: wheel.deadline(),
            idle_after: Cell::new(None),
            phase: wheel.deadline(),
            phase_error: Cell::new(ProxyError::RequestTimeout),
            longest: wheel.deadline(),
            attempt: wheel.deadline(),
            attempt_after: Cell::new(None),
            attempt_idle: wheel.deadline(),
            attempt_idle_after: Cell::new(None),
            complete: Cell::new(false),
        }
    }

    /// A request begins, at `now`: nothing of the last one is left.
    pub fn start(
        &self,
        now: Instant,
        idle: Option<Duration>,
        request: Option<Duration>,
        longest: Option<Duration>,
    ) {
        self.complete.set(false);
        let idle = idle.filter(|after| !after.is_zero());
        self.idle_after.set(idle);
        self.idle.set_opt_from(now, idle);
        self.phase_error.set(ProxyError::RequestTimeout);
        self.phase.set_opt_from(now, request);
        self.longest.set_opt_from(now, longest);
        self.end_attempt();
    }

    /// The stream idle timeout from now on; `None` or zero: none.
    pub fn set_idle(&self, after: Option<Duration>) {
        let after = after.filter(|after| !after.is_zero());
        self.idle_after.set(after);
        self.idle.set_opt(after);
    }

    /// The longest life of the stream, from now; `None` or zero: none.
    pub fn set_longest(&self, after: Option<Duration>) {
        self.longest.set_opt(after.filter(|after| !after.is_zero()));
    }

    /// The request arrived, at `now`: from then on the route's timeout runs.
    pub fn request_complete(&self, now: Instant, route: Option<Duration>) {
        if self.complete.replace(true) {
            return;
        }
        self.phase_error.set(ProxyError::ResponseTimeout);
        self.phase.set_opt_from(now, route.filter(|route| !route.is_zero()));
        if let Some(whole) = self.attempt_after.take() {
            self.attempt.set_from(now, whole);
        }
    }

    /// Whether the request arrived to its last byte.
    pub const fn is_complete(&self) -> bool {
        self.complete.get()
    }

    /// An attempt has its connection, at `now`. `whole` runs from here or, where that is later, from the request's end;
    /// `idle` from here. `None` or zero: no limit.
    pub fn start_attempt(&self, now: Instant, whole: Option<Duration>, idle: Option<Duration>) {
        let whole = whole.filter(|after| !after.is_zero());
        let idle = idle.filter(|after| !after.is_zero());
        if self.complete.get() {
            self.attempt.set_opt_from(now, whole);
        } else {
            self.attempt_after.set(whole);
        }
        self.attempt_idle_after.set(idle);
        self.attempt_idle.set_opt_from(now, idle);
    }

    /// The attempt is over, or its response has begun.
    pub fn end_attempt(&self) {
        self.attempt.clear();
        self.attempt_after.set(None);
        self.attempt_idle.clear();
        self.attempt_idle_after.set(None);
    }

    /// The request is over.
    pub fn stop(&self) {
        self.idle.clear();
        self.phase.clear();
        self.longest.clear();
        self.end_attempt();
    }

    /// A limit that is over has led to an answer; for sending that there is `grace` and nothing else.
    pub fn answer_within(&self, grace: Duration) {
        let limits = [&self.idle, &self.phase, &self.longest, &self.attempt, &self.attempt_idle];
        if limits.iter().any(|limit| limit.is_expired()) {
            self.stop();
            self.idle.set(grace);
        }
    }

    /// A tunnel has only an idle timeout and a longest life.
    pub fn tunnel(&self) {
        self.phase.clear();
        self.end_attempt();
    }

    /// Ready with what is over.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<ProxyError> {
        let complete = self.complete.get();
        let table = [
            (&self.longest, ProxyError::MaxDuration(complete)),
            (&self.phase, self.phase_error.get()),
            (&self.attempt, ProxyError::PerTryTimeout),
            (&self.attempt_idle, ProxyError::PerTryIdleTimeout),
            (&self.idle, ProxyError::StreamIdle(complete)),
        ];
        for (deadline, error) in table {
            if (deadline.is_armed() || deadline.is_expired()) && deadline.poll_expired(cx).is_ready() {
                return Poll::Ready(error);
            }
        }
        Poll::Pending
    }

    /// Runs `future` until it is done or a limit is over.
    pub async fn guard<F: Future>(&self, future: F) -> Result<F::Output, ProxyError> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll_expired(cx).map(Err)
        })
        .await
    }
}

impl Clock {
    /// Bytes moved at `now`, a time read before.
    pub fn moved_at(&self, now: Instant) {
        if let Some(after) = self.idle_after.get() {
            self.idle.set_from(now, after);
        }
        if let Some(after) = self.attempt_idle_after.get() {
            self.attempt_idle.set_from(now, after);
        }
    }
}

impl Progress for Clock {
    fn moved(&self) {
        self.moved_at(Instant::now());
    }
}
