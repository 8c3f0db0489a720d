//! What is told to a worker while it works.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::docker::event::{What, ends};

/// What a worker is told between rounds. Bounded: however much happens, it is one more look.
#[derive(Debug, Default)]
pub struct Mailbox {
    post: Mutex<Post>,
    arrived: Notify,
}

/// What came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Post {
    /// The last signal, one that ends before one that does not.
    pub signal: Option<i32>,
    /// The application ended.
    pub ended: bool,
    any: bool,
    closed: bool,
}

impl Mailbox {
    /// Says what happened; `false` when nobody reads any more.
    pub fn put(&self, what: What) -> bool {
        let mut post = self.lock();
        if post.closed {
            return false;
        }
        post.any = true;
        match what {
            // A signal that ends is not overwritten by one that does not.
            What::Signalled(signal) if !post.signal.is_some_and(|before| ends(before, None)) => {
                post.signal = Some(signal);
            }
            What::Ended => post.ended = true,
            What::Signalled(_) | What::Changed => {}
        }
        self.arrived.notify_one();
        true
    }

    /// Waits until something comes in that was not taken yet. Cancel-safe.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// What came in since the last time.
    pub fn take(&self) -> Post {
        std::mem::take(&mut *self.lock())
    }

    /// Closes it, unless something came in meanwhile.
    pub fn close(&self) -> bool {
        let mut post = self.lock();
        post.closed = !post.any;
        post.closed
    }

    fn lock(&self) -> MutexGuard<'_, Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_that_ends_is_kept_before_others() {
        let mailbox = Mailbox::default();
        for signal in [1, 15, 10] {
            assert!(mailbox.put(What::Signalled(signal)));
        }
        assert!(mailbox.put(What::Ended));
        let post = mailbox.take();
        assert_eq!((post.signal, post.ended), (Some(15), true));
        assert_eq!(mailbox.take(), Post::default());
    }

    #[test]
    fn mailbox_that_is_closed_takes_nothing_and_one_with_post_is_not_closed() {
        let mailbox = Mailbox::default();
        assert!(mailbox.put(What::Changed));
        assert!(!mailbox.close());
        mailbox.take();
        assert!(mailbox.close());
        assert!(!mailbox.put(What::Changed));
    }
}
