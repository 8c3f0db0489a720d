//! The time limits of a stream and what each of them means.
//!
//! One [`Clock`] belongs to a connection (HTTP/1.1) or a stream (HTTP/2) and is used again for every request. Setting and
//! moving a limit writes a cell; the one alarm on the worker's wheel is set only by who waits.
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
    idle: Limit,
    idle_after: Cell<Option<Duration>>,
    phase: Limit,
    phase_error: Cell<ProxyError>,
    longest: Limit,
    attempt: Limit,
    /// The limit of an attempt that began before the request arrived.
    attempt_after: Cell<Option<Duration>>,
    attempt_idle: Limit,
    attempt_idle_after: Cell<Option<Duration>>,
    /// The request arrived to its last byte.
    complete: Cell<bool>,
    /// Wakes the task that waits, at `alarm_at` or earlier than anything is due.
    alarm: Deadline,
    alarm_at: Cell<Option<Instant>>,
}

/// One limit: when it is over, where it runs.
#[derive(Debug, Default)]
struct Limit(Cell<Option<Instant>>);

impl Limit {
    /// Runs from `now`; `None` or zero: not at all. A time beyond what the clock can express never comes.
    fn run(&self, now: Instant, after: Option<Duration>) {
        self.0.set(after.filter(|after| !after.is_zero()).and_then(|after| now.checked_add(after)));
    }

    fn clear(&self) {
        self.0.set(None);
    }
}

impl Clock {
    /// A clock with nothing set.
    pub fn new(wheel: &Wheel) -> Self {
        Self {
            idle: Limit::default(),
            idle_after: Cell::new(None),
            phase: Limit::default(),
            phase_error: Cell::new(ProxyError::RequestTimeout),
            longest: Limit::default(),
            attempt: Limit::default(),
            attempt_after: Cell::new(None),
            attempt_idle: Limit::default(),
            attempt_idle_after: Cell::new(None),
            complete: Cell::new(false),
            alarm: wheel.deadline(),
            alarm_at: Cell::new(None),
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
        self.idle_after.set(idle);
        self.idle.run(now, idle);
        self.phase_error.set(ProxyError::RequestTimeout);
        self.phase.run(now, request);
        self.longest.run(now, longest);
        self.end_attempt();
    }

    /// The stream idle timeout from now on; `None` or zero: none.
    pub fn set_idle(&self, after: Option<Duration>) {
        self.idle_after.set(after);
        self.idle.run(Instant::now(), after);
    }

    /// The longest life of the stream, from now; `None` or zero: none.
    pub fn set_longest(&self, after: Option<Duration>) {
        self.longest.run(Instant::now(), after);
    }

    /// The request arrived, at `now`: from then on the route's timeout runs.
    pub fn request_complete(&self, now: Instant, route: Option<Duration>) {
        if self.complete.replace(true) {
            return;
        }
        self.phase_error.set(ProxyError::ResponseTimeout);
        self.phase.run(now, route);
        if let Some(whole) = self.attempt_after.take() {
            self.attempt.run(now, Some(whole));
        }
    }

    /// Whether the request arrived to its last byte.
    pub const fn is_complete(&self) -> bool {
        self.complete.get()
    }

    /// An attempt has its connection, at `now`. `whole` runs from here or, where that is later, from the request's end;
    /// `idle` from here. `None` or zero: no limit.
    pub fn start_attempt(&self, now: Instant, whole: Option<Duration>, idle: Option<Duration>) {
        if self.complete.get() {
            self.attempt.run(now, whole);
        } else {
            self.attempt_after.set(whole);
        }
        self.attempt_idle_after.set(idle);
        self.attempt_idle.run(now, idle);
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
        let now = Instant::now();
        if self.due().is_some_and(|(due, _)| due <= now) {
            self.stop();
            self.idle_after.set(None);
            self.idle.run(now, Some(grace));
        }
    }

    /// A tunnel has only an idle timeout and a longest life.
    pub fn tunnel(&self) {
        self.phase.clear();
        self.end_attempt();
    }

    /// The limit that is over first, and what it means; of two at the same time the earlier one of the table above.
    fn due(&self) -> Option<(Instant, ProxyError)> {
        let complete = self.complete.get();
        let table = [
            (self.longest.0.get(), ProxyError::MaxDuration(complete)),
            (self.phase.0.get(), self.phase_error.get()),
            (self.attempt.0.get(), ProxyError::PerTryTimeout),
            (self.attempt_idle.0.get(), ProxyError::PerTryIdleTimeout),
            (self.idle.0.get(), ProxyError::StreamIdle(complete)),
        ];
        let running = table.into_iter().filter_map(|(at, error)| at.map(|at| (at, error)));
        running.reduce(|first, other| if other.0 < first.0 { other } else { first })
    }

    /// When the first limit is over.
    pub fn due_at(&self) -> Option<Instant> {
        let limits = [&self.longest, &self.phase, &self.attempt, &self.attempt_idle, &self.idle];
        limits.into_iter().filter_map(|limit| limit.0.get()).min()
    }

    /// Ready with what is over.
    ///
    /// Cost: a few comparisons. Limits that only move to later, which is what they do, touch no timer until the alarm
    /// that was set for the first of them comes.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<ProxyError> {
        let Some(first) = self.due_at() else { return Poll::Pending };
        if self.alarm_at.get().is_none_or(|at| first < at) {
            self.set_alarm(first);
        }
        loop {
            if self.alarm.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            match self.due() {
                Some((due, error)) if due <= now => return Poll::Ready(error),
                Some((due, _)) => self.set_alarm(due),
                None => {
                    self.alarm.clear();
                    self.alarm_at.set(None);
                    return Poll::Pending;
                }
            }
        }
    }

    fn set_alarm(&self, at: Instant) {
        self.alarm_at.set(Some(at));
        self.alarm.set_at(at);
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
            self.idle.run(now, Some(after));
        }
        if let Some(after) = self.attempt_idle_after.get() {
            self.attempt_idle.run(now, Some(after));
        }
    }
}

impl Progress for Clock {
    fn moved(&self) {
        self.moved_at(Instant::now());
    }
}
