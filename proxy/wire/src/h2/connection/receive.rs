//! Octets in, events out.

use std::time::Duration;

use super::super::PREFACE;
use super::super::error::H2Error;
use super::super::frame::{ACK, FrameHead, HEAD_BYTES, Kind, put_reset};
use super::super::limit::CONTROL_OUTPUT_BYTES;
use super::super::stream::{Receive, Stream, StreamEnd};
use super::{Connection, Event, Place};

/// What became of some octets.
pub(super) enum Step<'a> {
    /// They told something.
    Event(Event<'a>),
    /// They were taken.
    Taken,
    /// There are not enough.
    Starved,
}

/// Something the peer did wrong.
pub(super) enum Fault {
    /// The connection ends.
    Connection(H2Error),
    /// Only this stream ends.
    Stream(u32, H2Error),
}

impl From<H2Error> for Fault {
    fn from(error: H2Error) -> Self {
        Self::Connection(error)
    }
}

pub(super) type Stepped<'a> = Result<Step<'a>, Fault>;

impl Connection {
    /// Takes octets off the front of `input` until something happened; `None` when there are too few of them. What is left
    /// then is part of one frame and must be handed in again, with more behind it.
    ///
    /// `now` is a time since the same point as at the beginning.
    ///
    /// *Errors*: the connection must end; GOAWAY is in the output.
    pub fn receive<'a>(&mut self, input: &mut &'a [u8], now: Duration) -> Result<Option<Event<'a>>, H2Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.guard.tick(now);
        loop {
            if self.walk.is_some()
                && let Some(event) = self.next_unprocessed()
            {
                return Ok(Some(event));
            }
            let step = match self.step(input) {
                Err(Fault::Stream(id, error)) => self.stream_fault(id, error).map_err(Fault::Connection),
                step => step,
            };
            match step {
                Ok(_) if self.control_output > CONTROL_OUTPUT_BYTES => {
                    return Err(self.fail(H2Error::ControlOutput));
                }
                Ok(Step::Event(event)) => return Ok(Some(event)),
                Ok(Step::Taken) => {}
                Ok(Step::Starved) => return Ok(None),
                Err(Fault::Connection(error) | Fault::Stream(_, error)) => return Err(self.fail(error)),
            }
        }
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Stepped<'a> {
        match self.place {
            Place::Preface(have) => self.preface(have, input),
            Place::Data(arriving) => Ok(self.data_octets(arriving, input)),
            Place::Skip(octets) => {
                let n = octets.min(input.len());
                *input = input.get(n..).unwrap_or_default();
                self.place = if n == octets { Place::Frame } else { Place::Skip(octets - n) };
                Ok(if n == octets { Step::Taken } else { Step::Starved })
            }
            Place::Frame => self.next_frame(input),
        }
    }

    fn preface<'a>(&mut self, have: usize, input: &mut &'a [u8]) -> Stepped<'a> {
        let wanted = PREFACE.get(have..).unwrap_or_default();
        let n = wanted.len().min(input.len());
        let (front, rest) = input.split_at(n);
        if wanted.get(..n) != Some(front) {
            return Err(H2Error::BadPreface.into());
        }
        *input = rest;
        if n < wanted.len() {
            self.place = Place::Preface(have + n);
            return Ok(Step::Starved);
        }
        self.place = Place::Frame;
        Ok(Step::Taken)
    }

    fn next_frame<'a>(&mut self, input: &mut &'a [u8]) -> Stepped<'a> {
        let Some(octets) = input.first_chunk::<HEAD_BYTES>() else { return Ok(Step::Starved) };
        let head = FrameHead::parse(octets);
        if !self.settings_seen && (head.kind != Kind::Settings || head.has(ACK)) {
            return Err(H2Error::SettingsMissing.into());
        }
        head.check(self.max_frame())?;
        if self.continuing.as_ref().map(|block| block.stream)
            != (head.kind == Kind::Continuation).then_some(head.stream)
        {
            return Err(H2Error::BadContinuation.into());
        }
        let rest = input.get(HEAD_BYTES..).unwrap_or_default();
        if head.kind == Kind::Data {
            return self.data_head(head, rest, input);
        }
        let Some((payload, rest)) = rest.split_at_checked(head.length) else { return Ok(Step::Starved) };
        *input = rest;
        match head.kind {
            Kind::Headers => self.on_headers(head, payload),
            Kind::Continuation => self.on_continuation(head, payload),
            Kind::Priority => self.on_priority(head, payload),
            Kind::ResetStream => self.on_reset(head, payload),
            Kind::Settings => self.on_settings(head, payload),
            Kind::Ping => self.on_ping(head, payload),
            Kind::GoAway => self.on_go_away(payload),
            Kind::WindowUpdate => self.on_window_update(head, payload),
            Kind::PushPromise => Err(H2Error::PushNotAllowed.into()),
            Kind::Unknown | Kind::Data => {
                self.guard.idle_frame()?;
                Ok(Step::Taken)
            }
        }
    }

    /// Resets a stream on which the peer did wrong.
    pub(super) fn stream_fault<'a>(&mut self, id: u32, error: H2Error) -> Result<Step<'a>, H2Error> {
        if self.is_idle(id) {
            // RST_STREAM may not stand on an idle stream (RFC 9113 §6.4).
            return Err(error);
        }
        self.guard.provoked()?;
        let found = self.streams.find(id);
        let (mut end, mut complete) = (None, false);
        if let Some(key) = found {
            if self.streams.get(key).is_some_and(Stream::is_cut_by_us) {
                return Ok(Step::Taken);
            }
            self.streams.change(key, |stream| {
                if stream.end.is_some() {
                    return;
                }
                complete = stream.receive == Receive::Ended;
                stream.cut(StreamEnd::Fault(error));
                end = stream.held.then_some(StreamEnd::Fault(error));
            });
        }
        self.control(|out| put_reset(out, id, error.code()));
        self.streams.remember_reset(id);
        Ok(match (found, end) {
            (Some(stream), Some(end)) => Step::Event(Event::Reset { stream, end, complete }),
            _ => Step::Taken,
        })
    }
}
