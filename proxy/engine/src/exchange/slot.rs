//! Where the futures of exchanges live: memory that a worker lends for one request after the other.
//!
//! The future of an exchange takes some kilobytes. Connections that wait for a request must not hold them, and a request
//! must neither allocate nor copy them: so a place holds a future that never ends, and makes in itself the future of one
//! request after the other.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

/// Unused places kept per worker; those beyond are freed.
const KEEP: usize = 128;

/// The places of one worker.
pub struct Slots<I, O> {
    unused: RefCell<Vec<Place<I, O>>>,
    another: Box<dyn Fn() -> Place<I, O>>,
}

/// A place.
struct Place<I, O> {
    /// Turns what lies on the desk into its output, and waits for the next.
    future: Pin<Box<dyn Future<Output = ()>>>,
    desk: Rc<Desk<I, O>>,
}

struct Desk<I, O> {
    input: Cell<Option<I>>,
    output: Cell<Option<O>>,
}

impl<I, O> fmt::Debug for Slots<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("unused", &self.unused.borrow().len()).finish_non_exhaustive()
    }
}

impl<I: 'static, O: 'static> Place<I, O> {
    fn new<F: Future<Output = O>>(make: impl Fn(I) -> F + 'static) -> Self {
        let desk = Rc::new(Desk { input: Cell::new(None), output: Cell::new(None) });
        let its = desk.clone();
        let future = Box::pin(async move {
            loop {
                let input =
                    std::future::poll_fn(|_| its.input.take().map_or(Poll::Pending, Poll::Ready)).await;
                let output = make(input).await;
                its.output.set(Some(output));
            }
        });
        Self { future, desk }
    }
}

impl<I: 'static, O: 'static> Slots<I, O> {
    /// Places for the futures that `make` makes.
    pub fn new<F: Future<Output = O>>(make: impl Fn(I) -> F + Copy + 'static) -> Self {
        Self { unused: RefCell::default(), another: Box::new(move || Place::new(make)) }
    }

    /// Runs the future of `input` in a place of this worker.
    ///
    /// *Cancel safety*: that of the future; its place is freed.
    pub async fn run(&self, input: I) -> O {
        let unused = self.unused.borrow_mut().pop();
        let mut place = unused.unwrap_or_else(&self.another);
        place.desk.input.set(Some(input));
        let output = std::future::poll_fn(|cx| {
            // It never ends; its output lies on the desk.
            let _ = place.future.as_mut().poll(cx);
            place.desk.output.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        let mut unused = self.unused.borrow_mut();
        if unused.len() < KEEP {
            unused.push(place);
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

    fn kept(slots: &Slots<Box<u32>, u32>) -> usize {
        slots.unused.borrow().len()
    }

    #[tokio::test]
    async fn place_is_used_again() {
        let slots = Slots::new(double);
        assert_eq!(slots.run(Box::new(3)).await, 6);
        assert_eq!(kept(&slots), 1);
        let (a, b) = tokio::join!(slots.run(Box::new(1)), slots.run(Box::new(2)));
        assert_eq!((a, b, kept(&slots)), (2, 4, 2));
    }

    #[tokio::test]
    async fn places_at_the_limit_are_kept_and_one_past_is_freed() {
        let slots = Slots::new(double);
        let slots = &slots;
        let all: Vec<_> = (0..=KEEP as u32).map(|n| Box::pin(slots.run(Box::new(n)))).collect();
        let mut all = all;
        for one in &mut all {
            assert!(futures_poll(one.as_mut()).await.is_none());
        }
        for one in all {
            one.await;
        }
        assert_eq!(kept(slots), KEEP);
    }

    #[tokio::test]
    async fn place_of_a_future_that_was_dropped_is_not_used_again() {
        let slots = Slots::new(double);
        let mut one = Box::pin(slots.run(Box::new(3)));
        assert!(futures_poll(one.as_mut()).await.is_none());
        drop(one);
        assert_eq!(kept(&slots), 0);
        assert_eq!(slots.run(Box::new(4)).await, 8);
    }

    async fn futures_poll<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }
}
