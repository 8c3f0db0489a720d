//! Timers of one worker: coarse, cheap to move, without a system timer each.
//!
//! All deadlines of a worker sit in one ordered map of 10 ms ticks, served by one task that sleeps until the first.
//! Moving a deadline to later, which is what nearly every request does, only writes a cell: the entry is looked at when
//! its old tick comes and put where it belongs then. Clearing is a cell write as well.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Resolution of every deadline. A deadline never fires early, and at most one tick late.
pub const TICK: Duration = Duration::from_millis(10);
const NEVER: u64 = u64::MAX;
const TICKS_PER_SECOND: u64 = 1_000_000_000 / TICK.subsec_nanos() as u64;

/// The timers of one worker.
#[derive(Clone)]
pub struct Wheel(Rc<Inner>);

struct Inner {
    start: Instant,
    next_id: Cell<u64>,
    /// By (tick, id). An entry is in here at most once, at its `scheduled` tick.
    queue: RefCell<BTreeMap<(u64, u64), Rc<Entry>>>,
    /// Tick the driver sleeps until.
    sleeping_until: Cell<u64>,
    driver: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    /// When it is due; `NEVER` when not armed.
    due: Cell<u64>,
    /// Under which tick it is queued; `NEVER` when it is not. Never later than `due`.
    scheduled: Cell<u64>,
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl fmt::Debug for Wheel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel").field("queued", &self.0.queue.borrow().len()).finish_non_exhaustive()
    }
}

impl Wheel {
    /// Starts the wheel's task on the current `LocalSet`. It ends when the last handle and deadline are gone.
    pub fn start() -> Self {
        let inner = Rc::new(Inner {
            start: Instant::now(),
            next_id: Cell::new(0),
            queue: RefCell::new(BTreeMap::new()),
            sleeping_until: Cell::new(NEVER),
            driver: RefCell::new(None),
        });
        let weak = Rc::downgrade(&inner);
        let mut sleep: Pin<Box<Sleep>> = Box::pin(tokio::time::sleep(Duration::ZERO));
        tokio::task::spawn_local(poll_fn(move |cx| match weak.upgrade() {
            Some(inner) => inner.drive(sleep.as_mut(), cx),
            None => Poll::Ready(()),
        }));
        Self(inner)
    }

    /// A deadline that is not armed.
    pub fn deadline(&self) -> Deadline {
        let id = self.0.next_id.get();
        self.0.next_id.set(id.wrapping_add(1));
        Deadline {
            wheel: self.0.clone(),
            entry: Rc::new(Entry {
                id,
                due: Cell::new(NEVER),
                scheduled: Cell::new(NEVER),
                fired: Cell::new(false),
                waker: RefCell::new(None),
            }),
        }
    }

    /// Waits, at least so long and at most a tick longer.
    pub async fn sleep(&self, after: Duration) {
        let deadline = self.deadline();
        deadline.set(after);
        deadline.expired().await;
    }

    /// Runs a future under a limit; `None` when the limit came first. Without a limit it simply runs.
    pub async fn timeout<F: Future>(&self, limit: Option<Duration>, future: F) -> Option<F::Output> {
        let Some(limit) = limit else { return Some(future.await) };
        let deadline = self.deadline();
        deadline.set(limit);
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            deadline.poll_expired(cx).map(|()| None)
        })
        .await
    }

    /// Entries in the queue (armed, or cleared and not yet looked at).
    pub fn queued(&self) -> usize {
        self.0.queue.borrow().len()
    }
}

impl Inner {
    fn tick_now(&self) -> u64 {
        let elapsed = Instant::now().saturating_duration_since(self.start).as_millis() / TICK.as_millis();
        u64::try_from(elapsed).unwrap_or(NEVER - 1)
    }

    /// The first tick that is not earlier than `at`.
    fn tick_of(&self, at: Instant) -> u64 {
        // In two parts, because a division of 128 bits costs more than all the rest of setting a deadline.
        let since = at.saturating_duration_since(self.start);
        let part = since.subsec_nanos().div_ceil(TICK.subsec_nanos());
        since.as_secs().saturating_mul(TICKS_PER_SECOND).saturating_add(part.into()).min(NEVER - 1)
    }

    fn enqueue(&self, entry: &Rc<Entry>, tick: u64) {
        let mut queue = self.queue.borrow_mut();
        let old = entry.scheduled.replace(tick);
        if old != NEVER {
            queue.remove(&(old, entry.id));
        }
        queue.insert((tick, entry.id), entry.clone());
        drop(queue);
        if tick < self.sleeping_until.get() {
            let waker = self.driver.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Fires what is due, moves what has been postponed, and sleeps until the next tick in the queue.
    fn drive(&self, mut sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = self.tick_now();
            let mut queue = self.queue.borrow_mut();
            while let Some(first) = queue.first_entry() {
                if first.key().0 > now {
                    break;
                }
                let entry = first.remove();
                let due = entry.due.get();
                if due == NEVER {
                    entry.scheduled.set(NEVER);
                } else if due > now {
                    entry.scheduled.set(due);
                    queue.insert((due, entry.id), entry);
                } else {
                    entry.scheduled.set(NEVER);
                    entry.fired.set(true);
                    let waker = entry.waker.borrow_mut().take();
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
            }
            let next = queue.first_key_value().map_or(NEVER, |(key, _)| key.0);
            drop(queue);
            self.sleeping_until.set(next);
            *self.driver.borrow_mut() = Some(cx.waker().clone());
            if next == NEVER {
                return Poll::Pending;
            }
            let millis = next.saturating_mul(TICK.as_millis() as u64).min(u64::MAX / 4);
            let at = self.start.checked_add(Duration::from_millis(millis));
            // A time beyond what the clock can express is as good as never; look again in a day.
            let at = at.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
            sleep.as_mut().reset(at);
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// One deadline, made once and reused: armed, moved and cleared as often as needed.
pub struct Deadline {
    wheel: Rc<Inner>,
    entry: Rc<Entry>,
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline").field("armed", &self.is_armed()).finish_non_exhaustive()
    }
}

impl Deadline {
    /// Arms it, `after` from now, whatever it was before.
    pub fn set(&self, after: Duration) {
        self.set_from(Instant::now(), after);
    }

    /// Arms it, `after` from a time read before (saves reading the clock again).
    pub fn set_from(&self, now: Instant, after: Duration) {
        match now.checked_add(after) {
            Some(at) => self.set_at(at),
            None => self.set_tick(NEVER - 1),
        }
    }

    /// Arms it for a point in time.
    pub fn set_at(&self, at: Instant) {
        self.set_tick(self.wheel.tick_of(at));
    }

    fn set_tick(&self, tick: u64) {
        self.entry.fired.set(false);
        self.entry.due.set(tick);
        if tick < self.entry.scheduled.get() {
            self.wheel.enqueue(&self.entry, tick);
        }
    }

    /// Arms it for a duration, or clears it.
    pub fn set_opt(&self, after: Option<Duration>) {
        match after {
            Some(after) => self.set(after),
            None => self.clear(),
        }
    }

    /// Arms it for a duration from a time read before, or clears it.
    pub fn set_opt_from(&self, now: Instant, after: Option<Duration>) {
        match after {
            Some(after) => self.set_from(now, after),
            None => self.clear(),
        }
    }

    /// Disarms it; [`Deadline::poll_expired`] then stays pending.
    pub fn clear(&self) {
        self.entry.due.set(NEVER);
        self.entry.fired.set(false);
    }

    /// Whether it is set and has not fired.
    pub fn is_armed(&self) -> bool {
        self.entry.due.get() != NEVER && !self.entry.fired.get()
    }

    /// Whether it has fired since it was last set.
    pub fn is_expired(&self) -> bool {
        self.entry.fired.get()
    }

    /// Ready once it has fired, until it is set again or cleared. One task may wait at a time.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.entry.fired.get() {
            return Poll::Ready(());
        }
        let mut waker = self.entry.waker.borrow_mut();
        match waker.as_mut() {
            Some(held) => held.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits until it fires. Cancel safe.
    pub async fn expired(&self) {
        poll_fn(|cx| self.poll_expired(cx)).await;
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let scheduled = self.entry.scheduled.replace(NEVER);
        if scheduled != NEVER {
            self.wheel.queue.borrow_mut().remove(&(scheduled, self.entry.id));
        }
    }
}

#[cfg(test)]
mod tests;
