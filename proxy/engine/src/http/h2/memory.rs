//! Memory of heads and clocks, used by one exchange after the other.
//!
//! It belongs to the worker and not to a connection: an idle connection holds none of it, and what is used is what was
//! used last and is still in the caches.

use std::cell::RefCell;
use std::rc::Rc;

use outrigger_wire::{RequestHead, ResponseHead, Trailers};

use crate::exchange::timeout::Clock;
use crate::io::Wheel;

/// Requests and clocks kept: as many as are under way at a time on a few busy connections.
const REQUESTS: usize = 1024;
/// Response heads kept: they are short-lived.
const RESPONSES: usize = 64;
/// Largest memory of one head or body that is kept, bytes.
const HEAD_BYTES: usize = 4096;

/// What a worker keeps.
#[derive(Default)]
pub struct Memory {
    requests: RefCell<Vec<RequestHead>>,
    responses: RefCell<Vec<ResponseHead>>,
    trailers: RefCell<Vec<Trailers>>,
    bodies: RefCell<Vec<Vec<u8>>>,
    clocks: RefCell<Vec<Rc<Clock>>>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("requests", &self.requests.borrow().len())
            .field("responses", &self.responses.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// An empty request head.
    pub(super) fn request(&self) -> RequestHead {
        self.requests.borrow_mut().pop().unwrap_or_else(RequestHead::with_capacity)
    }

    /// An empty response head.
    pub(crate) fn response(&self) -> ResponseHead {
        self.responses.borrow_mut().pop().unwrap_or_default()
    }

    /// An empty trailer section.
    pub(super) fn trailers(&self) -> Trailers {
        self.trailers.borrow_mut().pop().unwrap_or_default()
    }

    /// Room for a copy of a small body.
    pub(crate) fn body(&self) -> Vec<u8> {
        self.bodies.borrow_mut().pop().unwrap_or_default()
    }

    /// A clock on which nothing runs.
    pub(crate) fn clock(&self, wheel: &Wheel) -> Rc<Clock> {
        self.clocks.borrow_mut().pop().unwrap_or_else(|| Rc::new(Clock::new(wheel)))
    }

    /// Takes a request head back.
    pub(crate) fn keep_request(&self, mut head: RequestHead) {
        let mut kept = self.requests.borrow_mut();
        if kept.len() < REQUESTS {
            head.clear();
            head.fields.shrink_above(HEAD_BYTES);
            kept.push(head);
        }
    }

    /// Takes a response head back.
    pub(crate) fn keep_response(&self, mut head: ResponseHead) {
        let mut kept = self.responses.borrow_mut();
        if kept.len() < RESPONSES {
            head.clear();
            head.fields.shrink_above(HEAD_BYTES);
            kept.push(head);
        }
    }

    /// Takes a trailer section back.
    pub(crate) fn keep_trailers(&self, mut trailers: Trailers) {
        let mut kept = self.trailers.borrow_mut();
        if kept.len() < RESPONSES {
            trailers.clear();
            trailers.shrink_above(HEAD_BYTES);
            kept.push(trailers);
        }
    }

    /// Takes the room of a body back.
    pub(crate) fn keep_body(&self, mut body: Vec<u8>) {
        let mut kept = self.bodies.borrow_mut();
        if kept.len() < REQUESTS && (1..=HEAD_BYTES).contains(&body.capacity()) {
            body.clear();
            kept.push(body);
        }
    }

    /// Takes a clock back that nobody else holds.
    pub(crate) fn keep_clock(&self, clock: Rc<Clock>) {
        let mut kept = self.clocks.borrow_mut();
        if kept.len() < REQUESTS && Rc::strong_count(&clock) == 1 {
            clock.stop();
            kept.push(clock);
        }
    }
}
