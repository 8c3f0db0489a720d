//! HEADERS and CONTINUATION: requests, responses, trailers.

use super::super::error::H2Error;
use super::super::flow::SendWindow;
use super::super::frame::{END_HEADERS, END_STREAM, FrameHead, PADDED, PRIORITY, number, put_reset};
use super::super::head::{HeadRefusal, NullSink, RequestSink, ResponseSink, TrailerSink, body_length};
use super::super::limit::{BLOCK_SHARE, CONTINUATION_FRAMES, INTERIM_RESPONSES, RESETS_PENDING};
use super::super::stream::{Receive, Send, Stream, StreamKey};
use super::receive::{Fault, Step, Stepped};
use super::{Connection, Event, Role};
use crate::h1::{BodyLength, ResponseFraming};

/// A block that began and whose end has not arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Continuing {
    pub(super) stream: u32,
    ended: bool,
    on_itself: bool,
    frames: u32,
}

/// A whole block.
#[derive(Clone, Copy)]
struct Block<'b> {
    stream: u32,
    /// END_STREAM.
    ended: bool,
    /// It says that the stream depends on itself, which old specifications call an error.
    on_itself: bool,
    octets: &'b [u8],
}

impl Connection {
    pub(super) fn on_headers<'a>(&mut self, head: FrameHead, payload: &[u8]) -> Stepped<'a> {
        self.guard.stream_frame();
        let (mut rest, mut padding) = (payload, 0);
        if head.has(PADDED)
            && let Some((first, tail)) = rest.split_first()
        {
            (padding, rest) = (usize::from(*first), tail);
        }
        let mut on_itself = false;
        if head.has(PRIORITY)
            && let Some((priority, tail)) = rest.split_at_checked(5)
        {
            on_itself = number(priority).is_some_and(|id| id & 0x7fff_ffff == head.stream);
            rest = tail;
        }
        let Some(length) = rest.len().checked_sub(padding) else { return Err(H2Error::BadPadding.into()) };
        let octets = rest.get(..length).unwrap_or_default();
        let ended = head.has(END_STREAM);
        if head.has(END_HEADERS) {
            return self.on_block(Block { stream: head.stream, ended, on_itself, octets });
        }
        self.block.clear();
        self.continuing = Some(Continuing { stream: head.stream, ended, on_itself, frames: 0 });
        self.gather(octets)
    }

    pub(super) fn on_continuation<'a>(&mut self, head: FrameHead, payload: &[u8]) -> Stepped<'a> {
        let Some(continuing) = &mut self.continuing else { return Err(H2Error::BadContinuation.into()) };
        continuing.frames += 1;
        if continuing.frames > CONTINUATION_FRAMES {
            return Err(H2Error::ContinuationFlood.into());
        }
        let Continuing { stream, ended, on_itself, .. } = *continuing;
        self.gather(payload)?;
        if !head.has(END_HEADERS) {
            return Ok(Step::Taken);
        }
        self.continuing = None;
        let block = std::mem::take(&mut self.block);
        self.on_block(Block { stream, ended, on_itself, octets: &block })
    }

    fn gather<'a>(&mut self, octets: &[u8]) -> Stepped<'a> {
        let most = (self.options.settings.max_header_list_bytes as usize).saturating_mul(BLOCK_SHARE);
        if self.block.len() + octets.len() > most {
            return Err(H2Error::HeaderBlockTooLarge.into());
        }
        self.block.extend_from_slice(octets);
        Ok(Step::Taken)
    }

    fn on_block<'a>(&mut self, block: Block<'_>) -> Stepped<'a> {
        match (self.role, self.streams.find(block.stream)) {
            (Role::Server, Some(key)) => self.on_trailers(key, block),
            (Role::Server, None) if block.stream.is_multiple_of(2) => Err(H2Error::BadStreamId.into()),
            (Role::Server, None) if block.stream > self.last_peer => self.on_request(block),
            (Role::Client, Some(key)) => self.on_response(key, block),
            (Role::Client, None) if self.is_idle(block.stream) => Err(H2Error::IdleStream.into()),
            (_, None) => self.on_closed(block),
        }
    }

    /// A block on a stream that is gone.
    fn on_closed<'a>(&mut self, block: Block<'_>) -> Stepped<'a> {
        self.decoder.decode(block.octets, &mut NullSink)?;
        if self.is_ignored(block.stream) {
            return Ok(Step::Taken);
        }
        match self.streams.was_reset(block.stream) {
            Some(true) => Ok(Step::Taken),
            Some(false) => Err(H2Error::ClosedStream.into()),
            None => Err(Fault::Stream(block.stream, H2Error::ClosedStream)),
        }
    }

    fn on_request<'a>(&mut self, block: Block<'_>) -> Stepped<'a> {
        let (id, ended) = (block.stream, block.ended);
        self.last_peer = id;
        self.guard.stream();
        if self.is_ignored(id) {
            self.decoder.decode(block.octets, &mut NullSink)?;
            return Ok(Step::Taken);
        }
        let most = self.options.settings.max_concurrent_streams;
        if self.streams.open() >= most {
            self.decoder.decode(block.octets, &mut NullSink)?;
            if self.settings_acked {
                // A peer that knows the limit never meets it.
                self.guard.provoked()?;
            }
            self.control(|out| put_reset(out, id, H2Error::StreamRefused.code()));
            self.streams.remember_reset(id);
            return Ok(Step::Taken);
        }
        if self.lingering_streams() >= RESETS_PENDING {
            return Err(H2Error::ResetsPending.into());
        }
        let limits = self.head_limits();
        let mut sink = RequestSink::new(&mut self.request, limits, self.options.settings.connect_protocol);
        self.decoder.decode(block.octets, &mut sink)?;
        let read = sink.finish(ended, self.options.secure);
        if block.on_itself {
            return Err(Fault::Stream(id, H2Error::SelfDependency));
        }
        if read == Err(HeadRefusal::Malformed) {
            return Err(Fault::Stream(id, H2Error::MalformedHead));
        }
        let stream = self.streams.insert(Stream {
            id,
            receive: if ended { Receive::Ended } else { Receive::Body },
            send: Send::Head,
            end: None,
            held: true,
            window: SendWindow::new(self.peer.initial_window),
            incoming: self.incoming_window(),
            unread: 0,
            length_left: match read {
                Ok(BodyLength::Length(length)) => Some(length),
                _ => None,
            },
            head_only: false,
            interim: 0,
        });
        Ok(Step::Event(match read {
            Ok(body) => Event::Request { stream, body, ended },
            Err(refusal) => Event::Refused { stream, refusal, ended },
        }))
    }

    fn on_response<'a>(&mut self, key: StreamKey, block: Block<'_>) -> Stepped<'a> {
        let waiting = self
            .streams
            .get(key)
            .is_some_and(|stream| stream.receive == Receive::Head && stream.end.is_none());
        if !waiting {
            return self.on_trailers(key, block);
        }
        let limits = self.head_limits();
        let mut sink = ResponseSink::new(&mut self.response, limits);
        self.decoder.decode(block.octets, &mut sink)?;
        let malformed = Err(Fault::Stream(block.stream, H2Error::MalformedHead));
        if sink.finish().is_err() {
            return malformed;
        }
        let status = self.response.status;
        let informational = status < 200;
        let mut framing =
            ResponseFraming { body: BodyLength::None, keep_alive: true, informational, switching: false };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(Step::Taken) };
        if informational {
            stream.interim += 1;
            if stream.interim > INTERIM_RESPONSES {
                return Err(Fault::Stream(block.stream, H2Error::InterimFlood));
            }
            if block.ended {
                return malformed;
            }
            return Ok(Step::Event(Event::Response { stream: key, framing, ended: false }));
        }
        if stream.head_only || matches!(status, 204 | 304) {
            stream.length_left = Some(0);
        } else {
            framing.body = match body_length(&self.response.fields, block.ended) {
                None => return malformed,
                Some(BodyLength::None) => BodyLength::Length(0),
                Some(body) => body,
            };
            if let BodyLength::Length(length) = framing.body {
                stream.length_left = Some(length);
            }
        }
        let ended = block.ended;
        self.streams
            .change(key, |stream| stream.receive = if ended { Receive::Ended } else { Receive::Body });
        Ok(Step::Event(Event::Response { stream: key, framing, ended }))
    }

    fn on_trailers<'a>(&mut self, key: StreamKey, block: Block<'_>) -> Stepped<'a> {
        let limits = self.head_limits();
        let mut sink = TrailerSink::new(&mut self.trailers, limits);
        self.decoder.decode(block.octets, &mut sink)?;
        let read = sink.finish();
        let Some(stream) = self.streams.get(key) else { return Ok(Step::Taken) };
        let error = if stream.is_cut_by_us() {
            return Ok(Step::Taken);
        } else if stream.end.is_some() {
            // The peer had reset it itself (RFC 9113 §5.1, closed).
            return Err(H2Error::ClosedStream.into());
        } else if stream.receive == Receive::Ended {
            H2Error::ClosedStream
        } else if !block.ended || read.is_err() {
            H2Error::MalformedTrailers
        } else if stream.length_left.is_some_and(|left| left > 0) {
            H2Error::ContentLengthMismatch
        } else if block.on_itself {
            H2Error::SelfDependency
        } else {
            let held = stream.held;
            self.streams.change(key, |stream| stream.receive = Receive::Ended);
            return Ok(if held { Step::Event(Event::Trailers { stream: key }) } else { Step::Taken });
        };
        Err(Fault::Stream(block.stream, error))
    }
}
