//! The loop of the load: opens connections, hands requests to those that are free, counts answers.
//!
//! With a rate, requests fall due at random whatever the proxy does, and latency counts from then: a stall delays every
//! request that falls due in it, and all of them are seen (no coordinated omission).

use crate::Failure;
use crate::conn::Conn;
use crate::net::{self, Poll};
use crate::options::Options;
use crate::tally::Tally;
use std::collections::VecDeque;
use std::io::Read;

/// Events taken at once.
const BATCH: usize = 512;

/// Longest wait for events.
const WAIT_MILLIS: i64 = 50;

/// Connections have this long to come up before the first request falls due.
const HEAD_START_NS: u64 = 100_000_000;

/// Connections of an `idle` run that come up at a time.
const IDLE_AT_ONCE: usize = 50;

/// Bytes read at once.
const ROOM: usize = 256 << 10;

/// Turns of the loop between looks for connections that failed while sending.
const TURNS_PER_LOOK: u64 = 1024;

struct Run {
    options: Options,
    poll: Poll,
    tally: Tally,
    conns: Vec<Conn>,
    /// Connections that take another request.
    free: VecDeque<usize>,
    /// When requests that wait for a connection were due.
    due: VecDeque<u64>,
    next_due: u64,
    opened: usize,
    turn: usize,
    idle: usize,
    random: u64,
}

/// Makes the load and prints what came of it.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    let began = net::now();
    let mut run = Run {
        poll: Poll::new(BATCH)?,
        tally: Tally::default(),
        conns: Vec::with_capacity(options.conns),
        free: VecDeque::new(),
        due: VecDeque::new(),
        next_due: began + HEAD_START_NS,
        opened: 0,
        turn: 0,
        idle: 0,
        random: 0x9e37_79b9_7f4a_7c15,
        options,
    };
    let at_once = if run.options.idle { run.options.conns.min(IDLE_AT_ONCE) } else { run.options.conns };
    for _ in 0..at_once {
        run.open_another()?;
    }
    let warm = began + (run.options.warm * 1e9) as u64;
    let end = warm + (run.options.secs * 1e9) as u64;
    let mut room = vec![0; ROOM];
    let mut ready = Vec::with_capacity(BATCH);
    for turns in 0_u64.. {
        let now = net::now();
        if !run.tally.on && now >= warm {
            run.tally.begin(&run.options.watch);
        }
        if run.options.idle && (run.idle >= run.options.conns || now >= end) {
            let missing = run.options.conns - run.idle.min(run.options.conns);
            println!("{{\"idle\":{},\"err\":{}}}", run.idle, run.tally.err + missing as u64);
            // The caller looks at memory now, and ends our input when it has.
            let _ = std::io::stdin().read(&mut [0])?;
            return Ok(());
        }
        if !run.options.idle && now >= end {
            break;
        }
        run.fall_due(now);
        run.send(now);
        if run.options.rate > 0.0 {
            run.poll.wake_at(run.next_due)?;
        }
        run.poll.wait(WAIT_MILLIS, &mut ready);
        for event in &ready {
            run.event(event.token as usize, &mut room)?;
        }
        if turns % TURNS_PER_LOOK == 0 || ready.is_empty() {
            run.open_failed()?;
        }
    }
    let open = run.due.len() + run.conns.iter().map(|conn| conn.in_flight as usize).sum::<usize>();
    println!("{}", run.tally.report(&run.options.watch, open));
    Ok(())
}

impl Run {
    fn open_another(&mut self) -> Result<(), Failure> {
        let index = self.conns.len();
        let conn = Conn::open(&self.options, &self.poll, index, self.opened)?;
        self.opened += 1;
        self.conns.push(conn);
        Ok(())
    }

    fn open_again(&mut self, index: usize) -> Result<(), Failure> {
        if let Some(conn) = self.conns.get_mut(index)
            && conn.is_closed()
        {
            *conn = Conn::open(&self.options, &self.poll, index, self.opened)?;
            self.opened += 1;
        }
        Ok(())
    }

    fn open_failed(&mut self) -> Result<(), Failure> {
        if self.options.idle {
            return Ok(());
        }
        for index in 0..self.conns.len() {
            self.open_again(index)?;
        }
        Ok(())
    }

    /// With a rate: what has fallen due by now. Arrivals are a Poisson process.
    fn fall_due(&mut self, now: u64) {
        while self.options.rate > 0.0 && self.next_due <= now {
            self.due.push_back(self.next_due);
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let uniform = ((self.random >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
            self.next_due += (-uniform.ln() * 1e9 / self.options.rate) as u64;
        }
    }

    /// Hands requests to free connections.
    fn send(&mut self, now: u64) {
        let is_closed_loop = self.options.rate == 0.0;
        while is_closed_loop || !self.due.is_empty() {
            let Some(index) = self.free.pop_front() else { return };
            let Some(conn) = self.conns.get_mut(index) else { return };
            conn.is_queued = false;
            if !conn.is_free(&self.options) {
                continue;
            }
            let due = match self.due.pop_front() {
                Some(due) => due,
                None if self.options.close => conn.opened,
                None => now,
            };
            self.turn = (self.turn + 1) % self.options.requests.len();
            conn.request(&self.options, due, self.turn);
            if !self.options.idle && conn.is_free(&self.options) {
                conn.is_queued = true;
                self.free.push_back(index);
            }
            // What more goes out on this connection in this turn leaves in one write with it.
            let more_follows = conn.is_queued && is_closed_loop;
            if !more_follows && !conn.flush(&self.poll, index) {
                conn.fail(&mut self.tally);
            }
        }
    }

    fn event(&mut self, index: usize, room: &mut [u8]) -> Result<(), Failure> {
        let Some(conn) = self.conns.get_mut(index) else { return Ok(()) };
        if conn.is_closed() {
            return Ok(());
        }
        let before = conn.in_flight;
        let mut ok = conn.ready(&self.options, &mut self.tally, room);
        let is_done = before > 0 && conn.in_flight == 0;
        if ok && self.options.close && is_done {
            conn.close();
        } else {
            ok = ok && conn.flush(&self.poll, index);
        }
        if !ok {
            conn.fail(&mut self.tally);
        }
        if self.options.idle {
            if conn.is_free(&self.options) && !conn.is_used {
                conn.is_used = true;
                conn.is_queued = true;
                self.free.push_back(index);
            }
            if ok && is_done {
                self.idle += 1;
            }
            if (is_done || !ok) && self.conns.len() < self.options.conns {
                self.open_another()?;
            }
            return Ok(());
        }
        self.open_again(index)?;
        if let Some(conn) = self.conns.get_mut(index)
            && !conn.is_queued
            && conn.is_free(&self.options)
        {
            conn.is_queued = true;
            self.free.push_back(index);
        }
        Ok(())
    }
}
