//! Frames that carry no message: PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE.

use super::super::error::{Code, H2Error};
use super::super::frame::{ACK, FrameHead, Kind, number, put_go_away, put_head, put_ping};
use super::super::stream::{Receive, Send, StreamEnd};
use super::receive::{Fault, Step, Stepped};
use super::{Connection, Event, Going, KEEPALIVE_PING, Role, SHUTDOWN_PING};

impl Connection {
    /// Priorities are ignored (RFC 9113 §5.3.2), broken ones are not.
    pub(super) fn on_priority<'a>(&mut self, head: FrameHead, payload: &[u8]) -> Stepped<'a> {
        self.guard.idle_frame()?;
        if payload.len() != 5 {
            return Err(Fault::Stream(head.stream, H2Error::BadFrameLength));
        }
        if number(payload).is_some_and(|id| id & 0x7fff_ffff == head.stream) {
            return Err(Fault::Stream(head.stream, H2Error::SelfDependency));
        }
        Ok(Step::Taken)
    }

    pub(super) fn on_reset<'a>(&mut self, head: FrameHead, payload: &[u8]) -> Stepped<'a> {
        self.guard.idle_frame()?;
        if self.is_idle(head.stream) {
            return Err(H2Error::IdleStream.into());
        }
        let Some(stream) = self.streams.find(head.stream) else { return Ok(Step::Taken) };
        let end = StreamEnd::Peer(Code(number(payload).unwrap_or(0)));
        let changed = self.streams.change(stream, |stream| {
            if stream.end.is_some() {
                return None;
            }
            let early = stream.send == Send::Head;
            let complete = stream.receive == Receive::Ended;
            stream.cut(end);
            Some((early, complete, stream.held))
        });
        let Some(Some((early, complete, held))) = changed else { return Ok(Step::Taken) };
        if early && self.role == Role::Server {
            self.guard.reset_early()?;
        }
        Ok(if held { Step::Event(Event::Reset { stream, end, complete }) } else { Step::Taken })
    }

    pub(super) fn on_settings<'a>(&mut self, head: FrameHead, payload: &[u8]) -> Stepped<'a> {
        if self.settings_seen {
            self.guard.control_frame()?;
        }
        if head.has(ACK) {
            if !self.settings_acked {
                self.settings_acked = true;
                self.decoder.allow_table(self.options.settings.header_table_bytes as usize);
            }
            return Ok(Step::Taken);
        }
        self.settings_seen = true;
        let before = self.peer;
        self.peer.apply(payload, self.role == Role::Client)?;
        if self.peer.header_table_bytes != before.header_table_bytes {
            self.encoder.allow_table(self.peer.header_table_bytes as usize);
        }
        let by = i64::from(self.peer.initial_window) - i64::from(before.initial_window);
        if by != 0 {
            for stream in self.streams.iter_mut().filter(|stream| stream.send != Send::Ended) {
                // RFC 9113 §6.9.2: an error of the connection, whichever stream it is.
                stream.window.change(by)?;
            }
        }
        self.control(|out| put_head(out, 0, Kind::Settings, ACK, 0));
        Ok(Step::Event(Event::Settings))
    }

    pub(super) fn on_ping<'a>(&mut self, head: FrameHead, payload: &[u8]) -> Stepped<'a> {
        self.guard.control_frame()?;
        let Some(payload) = payload.first_chunk::<8>() else { return Err(H2Error::BadFrameLength.into()) };
        if !head.has(ACK) {
            self.control(|out| put_ping(out, true, payload));
        } else if *payload == SHUTDOWN_PING && self.going == Going::Announced {
            put_go_away(&mut self.output, self.last_peer, Code::NO_ERROR);
            self.going = Going::Final(self.last_peer);
        } else if *payload == KEEPALIVE_PING {
            return Ok(Step::Event(Event::Pong));
        }
        Ok(Step::Taken)
    }

    pub(super) fn on_go_away<'a>(&mut self, payload: &[u8]) -> Stepped<'a> {
        self.guard.idle_frame()?;
        let last = number(payload).unwrap_or(0) & 0x7fff_ffff;
        let code = Code(payload.get(4..).and_then(number).unwrap_or(0));
        // RFC 9113 §6.8: it must not grow; we keep the least.
        self.peer_last = Some(self.peer_last.map_or(last, |least| least.min(last)));
        if self.role == Role::Client {
            self.walk = Some(0);
        }
        Ok(Step::Event(Event::GoAway { code }))
    }

    /// The next stream that the peer will not look at.
    pub(super) fn next_unprocessed<'a>(&mut self) -> Option<Event<'a>> {
        let last = self.peer_last?;
        while let Some(index) = self.walk {
            if index >= self.streams.slots() {
                self.walk = None;
                return None;
            }
            self.walk = Some(index + 1);
            let Some(stream) = self.streams.at(index).filter(|key| key.id() > last) else { continue };
            let cut = self.streams.change(stream, |stream| {
                let cut = stream.held && stream.end.is_none() && !stream.is_over();
                if cut {
                    stream.cut(StreamEnd::Unprocessed);
                }
                cut
            });
            if cut == Some(true) {
                return Some(Event::Reset { stream, end: StreamEnd::Unprocessed, complete: false });
            }
        }
        None
    }

    pub(super) fn on_window_update<'a>(&mut self, head: FrameHead, payload: &[u8]) -> Stepped<'a> {
        self.guard.idle_frame()?;
        let by = number(payload).unwrap_or(0) & 0x7fff_ffff;
        if head.stream == 0 {
            if by == 0 {
                return Err(H2Error::ZeroWindowUpdate.into());
            }
            self.window.change(i64::from(by))?;
            return Ok(Step::Event(Event::Room));
        }
        if self.is_idle(head.stream) {
            return Err(H2Error::IdleStream.into());
        }
        let Some(key) = self.streams.find(head.stream) else { return Ok(Step::Taken) };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(Step::Taken) };
        if stream.end.is_some() {
            return Ok(Step::Taken);
        }
        if by == 0 {
            return Err(Fault::Stream(head.stream, H2Error::ZeroWindowUpdate));
        }
        if let Err(error) = stream.window.change(i64::from(by)) {
            return Err(Fault::Stream(head.stream, error));
        }
        Ok(if stream.send == Send::Ended { Step::Taken } else { Step::Event(Event::Window { stream: key }) })
    }
}
