//! What the owner sends.

use thiserror::Error;

use super::super::error::Code;
use super::super::flow::SendWindow;
use super::super::frame::{END_HEADERS, END_STREAM, HEAD_BYTES, Kind, put_head, put_reset, set_length};
use super::super::hpack::{ENTRY_OVERHEAD, Encoder};
use super::super::limit::OUTPUT_BYTES;
use super::super::stream::{Receive, Send, Stream, StreamEnd, StreamKey};
use super::{Connection, Role};
use crate::field::FieldBlock;
use crate::head::{Method, RequestHead, ResponseHead};

/// Why something was not sent. Nothing of it was.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SendError {
    /// The stream or connection is over; see [`Connection::end_of`].
    #[error("stream is over")]
    Over,
    /// The order of the frames would be wrong: a head twice, data before the head.
    #[error("frame out of order")]
    OutOfOrder,
    /// The head is larger than the peer takes.
    #[error("head larger than the peer takes")]
    TooLarge,
    /// No stream can be opened now.
    #[error("no room for another stream")]
    NoRoom,
}

impl Connection {
    /// Client: opens a stream with a request. With `ended`, nothing follows the head.
    ///
    /// *Errors*: [`SendError::NoRoom`], [`SendError::TooLarge`].
    pub fn open(&mut self, head: &RequestHead, ended: bool) -> Result<StreamKey, SendError> {
        debug_assert!(self.role == Role::Client);
        if self.streams_left() == 0 {
            return Err(SendError::NoRoom);
        }
        self.check_size(head.byte_size() + 4 * ENTRY_OVERHEAD, head.fields.len())?;
        let id = self.next_id;
        self.next_id += 2;
        let stream = self.streams.insert(Stream {
            id,
            receive: Receive::Head,
            send: if ended { Send::Ended } else { Send::Body },
            end: None,
            held: true,
            window: SendWindow::new(self.peer.initial_window),
            incoming: self.incoming_window(),
            unread: 0,
            length_left: None,
            head_only: head.method() == Method::Head,
            interim: 0,
        });
        self.guard.useful();
        self.put_block(id, ended, |encoder, out| encoder.request(head, out));
        Ok(stream)
    }

    /// Server: sends an interim response.
    ///
    /// *Errors*: see [`SendError`].
    pub fn send_interim(&mut self, stream: StreamKey, head: &ResponseHead) -> Result<(), SendError> {
        self.expect(stream, Send::Head)?;
        self.check_size(head.byte_size(), head.fields.len())?;
        self.put_block(stream.id(), false, |encoder, out| encoder.response(head, out));
        Ok(())
    }

    /// Server: sends the response head. With `ended`, nothing follows.
    ///
    /// *Errors*: see [`SendError`].
    pub fn send_response(
        &mut self,
        stream: StreamKey,
        head: &ResponseHead,
        ended: bool,
    ) -> Result<(), SendError> {
        self.expect(stream, Send::Head)?;
        self.check_size(head.byte_size(), head.fields.len())?;
        self.put_block(stream.id(), ended, |encoder, out| encoder.response(head, out));
        self.streams.change(stream, |stream| stream.send = if ended { Send::Ended } else { Send::Body });
        Ok(())
    }

    /// Sends what fits of `data`: into the windows, and behind what already waits; returns how much that was. With
    /// `last`, the stream ends when all of it was taken. 0 for data that is not empty means: wait for
    /// [`Window`](super::Event::Window) or [`Room`](super::Event::Room), or for the output to be taken.
    ///
    /// *Errors*: see [`SendError`].
    pub fn send_data(&mut self, key: StreamKey, data: &[u8], last: bool) -> Result<usize, SendError> {
        self.expect(key, Send::Body)?;
        let waiting = self.output.len();
        let room = OUTPUT_BYTES.saturating_sub(waiting).min(self.window.available());
        let max_frame = self.max_send_frame();
        let Some(stream) = self.streams.get_mut(key) else { return Err(SendError::Over) };
        let n = data.len().min(room).min(stream.window.available());
        if n == 0 && !(data.is_empty() && last) {
            return Ok(0);
        }
        stream.window.take(n);
        self.window.take(n);
        let ended = last && n == data.len();
        let taken = data.get(..n).unwrap_or_default();
        if taken.is_empty() {
            put_head(&mut self.output, 0, Kind::Data, END_STREAM, key.id());
        }
        let mut rest = taken;
        while !rest.is_empty() {
            let (chunk, tail) = rest.split_at(rest.len().min(max_frame));
            let flags = if ended && tail.is_empty() { END_STREAM } else { 0 };
            put_head(&mut self.output, chunk.len(), Kind::Data, flags, key.id());
            self.output.extend_from_slice(chunk);
            rest = tail;
        }
        self.guard.useful();
        if ended {
            self.streams.change(key, |stream| stream.send = Send::Ended);
        }
        Ok(n)
    }

    /// Sends trailers, and with them the end. Trailers larger than the peer takes are left out.
    ///
    /// *Errors*: see [`SendError`].
    pub fn send_trailers(&mut self, stream: StreamKey, trailers: &FieldBlock) -> Result<(), SendError> {
        self.expect(stream, Send::Body)?;
        if self.check_size(trailers.byte_size(), trailers.len()).is_err() || trailers.is_empty() {
            return self.send_data(stream, &[], true).map(|_| ());
        }
        self.put_block(stream.id(), true, |encoder, out| encoder.trailers(trailers, out));
        self.streams.change(stream, |stream| stream.send = Send::Ended);
        Ok(())
    }

    /// Resets a stream that is not over.
    pub fn reset(&mut self, stream: StreamKey, code: Code) {
        let open = self.streams.get(stream).is_some_and(|stream| !stream.is_over());
        if !open || self.failed.is_some() {
            return;
        }
        put_reset(&mut self.output, stream.id(), code);
        self.streams.remember_reset(stream.id());
        self.streams.change(stream, |stream| stream.cut(StreamEnd::Owner(code)));
    }

    /// The owner lets go of the stream. One that is not over is reset: a server whose response is complete says that the
    /// rest of the request is not wanted (RFC 9113 §8.1).
    pub fn release(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        let (unread, sent) = (stream.unread, stream.send == Send::Ended);
        if !stream.is_over() {
            let code = if sent && self.role == Role::Server { Code::NO_ERROR } else { Code::CANCEL };
            self.reset(key, code);
        }
        self.grant(None, unread);
        self.streams.change(key, |stream| {
            stream.unread = 0;
            stream.held = false;
        });
    }

    /// How many octets of data [`send_data`](Self::send_data) would take now.
    #[must_use]
    pub fn room_for(&self, stream: StreamKey) -> usize {
        let own = self.streams.get(stream).map_or(0, |stream| stream.window.available());
        OUTPUT_BYTES.saturating_sub(self.output.len()).min(self.window.available()).min(own)
    }

    /// Whether the stream's own window is used up: [`Event::Room`](super::Event::Room) will not help it.
    #[must_use]
    pub fn is_window_shut(&self, stream: StreamKey) -> bool {
        self.streams.get(stream).is_none_or(|stream| stream.window.available() == 0)
    }

    /// How the stream ended before its time; `None` while it did not.
    #[must_use]
    pub fn end_of(&self, stream: StreamKey) -> Option<StreamEnd> {
        self.streams.get(stream)?.end
    }

    fn expect(&self, key: StreamKey, state: Send) -> Result<(), SendError> {
        let Some(stream) = self.streams.get(key).filter(|_| self.failed.is_none()) else {
            return Err(SendError::Over);
        };
        if stream.send == state {
            Ok(())
        } else if stream.send == Send::Ended && stream.end.is_some() {
            Err(SendError::Over)
        } else {
            Err(SendError::OutOfOrder)
        }
    }

    fn check_size(&self, bytes: usize, fields: usize) -> Result<(), SendError> {
        let most = self.peer.max_header_list_bytes as usize;
        let size = bytes.saturating_add(fields.saturating_mul(ENTRY_OVERHEAD));
        if size > most { Err(SendError::TooLarge) } else { Ok(()) }
    }

    fn put_block(&mut self, id: u32, ended: bool, write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let max_frame = self.max_send_frame();
        let end_stream = if ended { END_STREAM } else { 0 };
        let out = &mut self.output;
        let at = out.len();
        put_head(out, 0, Kind::Headers, END_HEADERS | end_stream, id);
        write(&mut self.encoder, out);
        let length = out.len() - at - HEAD_BYTES;
        if length <= max_frame {
            set_length(out, at, length);
            return;
        }
        let rest = out.split_off(at + HEAD_BYTES + max_frame);
        set_length(out, at, max_frame);
        if let Some(flags) = out.get_mut(at + 4) {
            *flags = end_stream;
        }
        let mut chunks = rest.chunks(max_frame).peekable();
        while let Some(chunk) = chunks.next() {
            let flags = if chunks.peek().is_none() { END_HEADERS } else { 0 };
            put_head(out, chunk.len(), Kind::Continuation, flags, id);
            out.extend_from_slice(chunk);
        }
    }
}
