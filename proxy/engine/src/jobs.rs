//! The only place where tasks are started: counted and, where they outlive their cause, stopped with their owner.
//!
//! Tasks of a worker run on its thread. They are not joined one by one: a worker that ends drops its `LocalSet` and
//! with it every task, whose guards give back what they hold.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// Starts and counts the tasks of one worker.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    running: Rc<Cell<usize>>,
}

/// Counts a task down however it ends.
struct Running(Rc<Cell<usize>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// A task that is counted. Not an `async` block around the future: that would keep room for it twice, once as what was
/// captured and once as what is awaited, and a connection's future is most of what an idle connection costs.
struct Counted<F> {
    future: Pin<Box<F>>,
    _running: Running,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.future.as_mut().poll(cx)
    }
}

impl Jobs {
    /// Runs a future on this worker's thread, inside its `LocalSet`.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.running.set(self.running.get() + 1);
        let running = Running(self.running.clone());
        tokio::task::spawn_local(Counted { future: Box::pin(future), _running: running })
    }

    /// Tasks that have not ended.
    pub fn running(&self) -> usize {
        self.running.get()
    }
}
