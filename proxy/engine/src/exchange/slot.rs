//! Where the futures of exchanges live: memory that a worker lends for one request after the other.
//!
//! The future of an exchange takes some kilobytes. Connections that wait for a request must not hold them, and a request
//! must not allocate them; so they are boxed once and kept by the worker, which is all the same to a future that is moved
//! in, run to its end and dropped there.

use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

/// Unused places kept per worker; those beyond are freed.
const KEEP: usize = 128;

/// The places of one worker. The type of the futures is known only where they are made.
#[derive(Default)]
pub struct Slots(OnceCell<Rc<dyn Any>>);

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").finish_non_exhaustive()
    }
}

/// Unused places for futures of one type.
struct Free<F>(RefCell<Vec<Pin<Box<Option<F>>>>>);

impl<F> Default for Free<F> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl Slots {
    /// Runs the future that `make` makes of `input`, in a place of this worker. All calls must have the same `make`;
    /// another one would find no place kept for it and allocate.
    ///
    /// *Cancel safety*: that of the future; its place is freed.
    pub async fn run<I, F: Future + 'static>(&self, make: fn(I) -> F, input: I) -> F::Output {
        let free = self.0.get_or_init(|| Rc::new(Free::<F>::default())).clone();
        let free = free.downcast::<Free<F>>().unwrap_or_default();
        let kept = free.0.borrow_mut().pop();
        let mut place = kept.unwrap_or_else(|| Box::pin(None));
        place.as_mut().set(Some(make(input)));
        let output = std::future::poll_fn(|cx| match place.as_mut().as_pin_mut() {
            Some(future) => future.poll(cx),
            // It was put there above and is taken out below.
            None => Poll::Pending,
        })
        .await;
        place.as_mut().set(None);
        let mut free = free.0.borrow_mut();
        if free.len() < KEEP {
            free.push(place);
        }
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn double(n: Box<u32>) -> u32 {
        tokio::task::yield_now().await;
        *n * 2
    }

    fn kept(slots: &Slots) -> usize {
        fn of<F: 'static>(slots: &Slots, _: fn(Box<u32>) -> F) -> usize {
            slots
                .0
                .get()
                .and_then(|any| any.downcast_ref::<Free<F>>())
                .map_or(0, |free| free.0.borrow().len())
        }
        of(slots, double)
    }

    #[tokio::test]
    async fn place_is_used_again() {
        let slots = Slots::default();
        assert_eq!(slots.run(double, Box::new(3)).await, 6);
        assert_eq!(kept(&slots), 1);
        let (a, b) = tokio::join!(slots.run(double, Box::new(1)), slots.run(double, Box::new(2)));
        assert_eq!((a, b, kept(&slots)), (2, 4, 2));
    }

    #[tokio::test]
    async fn places_at_the_limit_are_kept_and_one_past_is_freed() {
        let slots = Slots::default();
        let slots = &slots;
        let all: Vec<_> = (0..=KEEP as u32).map(|n| Box::pin(slots.run(double, Box::new(n)))).collect();
        let mut all = all;
        for one in &mut all {
            assert!(futures_poll(one.as_mut()).await.is_none());
        }
        for one in all {
            one.await;
        }
        assert_eq!(kept(slots), KEEP);
    }

    async fn futures_poll<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }
}
