//! The express lane: exchanges between two HTTP/2 connections that are served without a task.
//!
//! A task per stream is the most general way to serve one, and the most expensive: it is allocated, scheduled, its future
//! takes some kilobytes, and with hundreds of streams under way each of them comes from a cold cache. Nearly every stream
//! needs none of it. Its request arrives as a whole, there is a connection to its host, and the response comes as a whole
//! too. Such an exchange is served in three calls, two by the driver of its connection and one by that of the
//! host's:
//!
//! 1. [`begin`]: the same steps as everywhere ([`super::decide`]);
//! 2. [`Lane::depart`]: a host, a permit, a stream on the host's connection, and the request is sent. What is left waits in
//!    the [`Lane`], as plain data.
//! 3. [`Lane::complete`]: the response is here; it is passed on and counted.
//!
//! Each call is made for all exchanges of what was read before the next one is: see `BATCH` of the connection's driver.
//!
//! Whatever does not go so smoothly **leaves the lane** and goes on in a task at the very step it has come to: no
//! connection yet, no room in a window, a response in pieces, a reset, a retry, a connection that ends, a wait longer than
//! [`STAY`], a time limit about to be over. So the lane has no errors, retries or timers of its own.

mod finish;
mod journey;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use outrigger_wire::{Known, Version};
use tokio::time::Instant;

use super::attempt::First;
use super::forward::Plan;
use super::notes::Notes;
use super::retry::Attempts;
use super::set_out::{self, Talk};
use super::{Decided, Exchange};
use crate::http::body::{BodyReader, BodyWriter, Fill};
use crate::upstream::pool::Checked;
use crate::worker::Worker;

/// Longest wait for a response in the lane.
pub const STAY: Duration = Duration::from_secs(1);
/// How often the lane is looked through for exchanges that must leave it. They leave at most so much earlier.
const ROUND: Duration = Duration::from_millis(50);
const ROUNDS_PER_SECOND: u64 = 20;

/// Names an exchange in the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    place: u32,
    /// How often the place was used before.
    turn: u32,
}

/// The exchanges of one worker that wait for their responses.
#[derive(Debug)]
pub struct Lane {
    epoch: Instant,
    places: RefCell<Vec<Place>>,
    free: RefCell<Vec<u32>>,
    /// Exchanges about to be sent.
    #[allow(clippy::vec_box)] // they come in their boxes and go on in them
    decided: RefCell<Vec<Box<Express>>>,
    waiting: Cell<usize>,
    /// A task looks through the lane.
    watched: Cell<bool>,
}

#[derive(Debug)]
struct Place {
    turn: u32,
    /// The round in which it must leave.
    leaves: u64,
    express: Option<Box<Express>>,
}

/// An exchange whose request is sent and whose response has not arrived.
#[derive(Debug)]
pub struct Express {
    pub(super) x: Box<Exchange>,
    pub(super) notes: Notes,
    pub(super) plan: Plan,
    pub(super) shared: Attempts,
    /// How far the attempt has come; in the lane: on its way.
    pub(super) first: First,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            places: RefCell::default(),
            free: RefCell::default(),
            decided: RefCell::default(),
            waiting: Cell::new(0),
            watched: Cell::new(false),
        }
    }
}

/// Serves a request that is here as a whole; [`Lane::depart`] is to follow.
pub(crate) fn begin(mut x: Box<Exchange>) {
    if x.upgrade || x.front.request.fields.contains_known(Known::Expect) {
        return super::serve_apart(x);
    }
    let mut notes = super::begin(&mut x);
    let plan = match super::decide(&mut x, &mut notes) {
        Ok(Decided::Forward(plan)) => plan,
        decided => return journey::answer(x, notes, decided),
    };
    if plan.is_unusual() || notes.shapes_response {
        return journey::answer(x, notes, Ok(Decided::Forward(plan)));
    }
    let shared = Attempts::new(&x.front, &plan);
    x.front.clock.request_complete(x.front.arrived, plan.timeout);
    let lane = x.front.worker().lane.clone();
    let express = Box::new(Express { x, notes, plan, shared, first: First::Fresh });
    lane.decided.borrow_mut().push(express);
}

/// Sends the body; `false`, with nothing done, when it would have to wait.
fn send(x: &mut Exchange, talk: &mut Talk, shared: &mut Attempts) -> bool {
    let (BodyReader::H2(reader), BodyWriter::H2(writer)) = (&mut x.reader, &mut talk.stream.halves.writer)
    else {
        return false;
    };
    match reader.fill_now() {
        Some(Fill::Data) => {
            let length = reader.data().len();
            if !reader.ends_after_data() || writer.room() < length {
                return false;
            }
            if shared.replay.limit > 0 {
                shared.replay.kept = x.front.connection.worker.memory.body();
            }
            shared.replay.keep(reader.data());
            if writer.send_now(reader.data(), true).is_err() {
                // The stream is over; the task will find out how.
                return true;
            }
            reader.consume(length);
        }
        Some(Fill::End) if reader.trailers().is_none() => {
            if writer.finish(None).is_err() {
                return true;
            }
        }
        _ => return false,
    }
    shared.replay.ended = true;
    true
}

impl Express {
    /// Makes the attempt up to where the request is sent; `false` where that would have to wait, or failed: `first` then
    /// tells how far it has come.
    fn set_out(&mut self, now: Instant) -> bool {
        let Self { x, notes, plan, shared, first } = self;
        let begun = match set_out::begin(&mut x.front, notes, plan, shared) {
            Ok(begun) => begun,
            Err(end) => {
                *first = First::Ended(end);
                return false;
            }
        };
        let worker = x.front.worker().clone();
        let want = set_out::want(&x.front.request, &x.front.connection.facts, plan, shared);
        let checked = match worker.pools.ready(&worker, &plan.cluster, &begun.host, &want) {
            Some(checked @ Checked::H2(_))
                if !plan.cluster.cluster.config.close_connections_on_host_removal =>
            {
                checked
            }
            Some(checked) => {
                *first = First::Ready(begun, checked);
                return false;
            }
            None => {
                *first = First::Begun(begun);
                return false;
            }
        };
        match set_out::start(x, notes, plan, begun, checked, now) {
            Ok((held, stream)) => {
                let mut talk = Talk { held, stream };
                let sent = send(x, &mut talk, shared);
                *first = First::Talking(talk, sent);
                sent
            }
            Err(end) => {
                *first = First::Ended(end);
                false
            }
        }
    }

    fn set_ticket(&self, ticket: Option<Ticket>) {
        if let (BodyReader::H2(down), First::Talking(talk, _)) = (&self.x.reader, &self.first) {
            down.set_ticket(ticket);
            if let BodyReader::H2(up) = &talk.stream.halves.reader {
                up.set_ticket(ticket);
            }
        }
    }
}

impl Lane {
    /// Exchanges that wait.
    pub fn len(&self) -> usize {
        self.waiting.get()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn round(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        let part = since.subsec_nanos() / ROUND.subsec_nanos();
        since.as_secs().saturating_mul(ROUNDS_PER_SECOND).saturating_add(part.into())
    }

    /// Takes an exchange in; gives back one that would have to leave at once.
    fn enter(self: &Rc<Self>, express: Box<Express>) -> Result<(), Box<Express>> {
        let First::Talking(talk, _) = &express.first else { return Err(express) };
        debug_assert!(express.x.front.request.version() == Version::Http2);
        let now = talk.held.sent;
        let stays = now + STAY;
        let leaves = self.round(express.x.front.clock.due_at().map_or(stays, |due| due.min(stays)));
        if leaves <= self.round(now) + 1 {
            return Err(express);
        }
        self.watch(express.x.front.worker());
        let mut places = self.places.borrow_mut();
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            places.push(Place { turn: 0, leaves: 0, express: None });
            u32::try_from(places.len() - 1).unwrap_or(u32::MAX)
        });
        let Some(entry) = places.get_mut(place as usize) else { return Err(express) };
        express.set_ticket(Some(Ticket { place, turn: entry.turn }));
        entry.leaves = leaves;
        entry.express = Some(express);
        self.waiting.set(self.waiting.get() + 1);
        Ok(())
    }

    fn take(&self, ticket: Ticket) -> Option<Box<Express>> {
        let mut places = self.places.borrow_mut();
        let entry = places.get_mut(ticket.place as usize).filter(|entry| entry.turn == ticket.turn)?;
        let express = entry.express.take()?;
        entry.turn = entry.turn.wrapping_add(1);
        self.free.borrow_mut().push(ticket.place);
        self.waiting.set(self.waiting.get() - 1);
        Some(express)
    }

    /// Sends the requests that [`begin`] has begun.
    pub(crate) fn depart(self: &Rc<Self>) {
        if self.decided.borrow().is_empty() {
            return;
        }
        let mut decided = std::mem::take(&mut *self.decided.borrow_mut());
        let now = Instant::now();
        for mut express in decided.drain(..) {
            if !express.set_out(now) {
                express.go_on();
            } else if let Err(express) = self.enter(express) {
                express.leave();
            }
        }
        *self.decided.borrow_mut() = decided;
    }

    /// The responses of exchanges are here: passes them on, where that can be done without waiting.
    pub(crate) fn complete(&self, tickets: impl Iterator<Item = Ticket>) {
        let now = Instant::now();
        for ticket in tickets {
            if let Some(express) = self.take(ticket) {
                express.complete(now);
            }
        }
    }

    /// An exchange goes on in a task.
    pub(crate) fn leave(&self, ticket: Ticket) {
        if let Some(express) = self.take(ticket) {
            express.leave();
        }
    }

    /// Drops what is in the lane: the worker ends.
    pub(crate) fn clear(&self) {
        let places = std::mem::take(&mut *self.places.borrow_mut());
        let decided = std::mem::take(&mut *self.decided.borrow_mut());
        self.free.borrow_mut().clear();
        self.waiting.set(0);
        drop((places, decided));
    }

    /// Has the lane looked through for as long as anything is in it.
    fn watch(self: &Rc<Self>, worker: &Rc<Worker>) {
        if self.watched.replace(true) {
            return;
        }
        let (lane, wheel) = (self.clone(), worker.wheel.clone());
        worker.jobs.spawn(async move {
            while !lane.is_empty() {
                wheel.sleep(ROUND).await;
                lane.look_through();
            }
            lane.watched.set(false);
            lane.shrink();
        });
    }

    fn look_through(&self) {
        let now = self.round(Instant::now());
        let mut at = 0;
        loop {
            let mut places = self.places.borrow_mut();
            let late = |entry: &Place| entry.express.is_some() && entry.leaves <= now + 1;
            let Some(next) = places.get(at..).and_then(|rest| rest.iter().position(late)) else { return };
            let place = at + next;
            let turn = places.get_mut(place).map_or(0, |entry| entry.turn);
            drop(places);
            self.leave(Ticket { place: u32::try_from(place).unwrap_or(u32::MAX), turn });
            at = place + 1;
        }
    }

    fn shrink(&self) {
        let mut places = self.places.borrow_mut();
        if self.is_empty() {
            *places = Vec::new();
            *self.free.borrow_mut() = Vec::new();
        }
    }
}
