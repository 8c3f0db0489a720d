//! Letting the other tasks of a turn go first.

use std::future::poll_fn;
use std::task::Poll;

/// Ends when every task that is ready now has run.
///
/// A worker that reads from all its connections before it writes to any sends in bursts: the receiver of a burst is woken
/// once, while one that is sent to bit by bit falls asleep in between, and each waking costs the sender an interrupt to
/// another core. Waiting so costs one more turn through the run queue, and no system call.
///
/// *Cancel safety*: nothing is lost.
pub(crate) async fn turn() {
    let mut waited = false;
    poll_fn(|cx| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[tokio::test]
    async fn all_that_are_ready_come_before_what_waits_for_its_turn() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let local = tokio::task::LocalSet::new();
        for name in ["a", "b", "c"] {
            let order = order.clone();
            local.spawn_local(async move {
                order.borrow_mut().push(format!("read {name}"));
                turn().await;
                order.borrow_mut().push(format!("write {name}"));
            });
        }
        local.await;
        assert_eq!(*order.borrow(), ["read a", "read b", "read c", "write a", "write b", "write c"]);
    }
}
