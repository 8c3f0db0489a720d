//! The two halves of an HTTP/2 stream, downstream or upstream.
//!
//! Flow control is released only for bytes that were consumed, so a slow receiver on the one side slows the sender on
//! the other.

use std::fmt;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use outrigger_wire::h1::{BodyLength, ResponseFraming};
use outrigger_wire::{FieldBlock, Method, ResponseHead, Trailers};

use super::super::body::{BodyError, Fill};
use super::head;

/// What an error of the `h2` crate means for a stream.
#[must_use]
pub fn body_error(error: &h2::Error) -> BodyError {
    if error.reason() == Some(Reason::REFUSED_STREAM) {
        BodyError::Refused
    } else if error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR) {
        // A stream above the GOAWAY's last id: not processed (RFC 9113 §6.8).
        BodyError::Refused
    } else if error.is_io() || error.is_go_away() {
        BodyError::Closed
    } else if error.is_reset() && error.is_remote() {
        BodyError::Reset
    } else {
        BodyError::Protocol
    }
}

/// The receiving half of an HTTP/2 stream.
pub struct H2Reader {
    /// Upstream only: the response head still to come.
    response: Option<ResponseFuture>,
    recv: Option<RecvStream>,
    chunk: Bytes,
    over: bool,
    trailers: Option<Trailers>,
    max_fields: usize,
    received: u64,
}

impl H2Reader {
    /// Of a request that arrived.
    pub fn request(recv: RecvStream, max_fields: usize) -> Self {
        let over = recv.is_end_stream();
        Self {
            response: None,
            recv: Some(recv),
            chunk: Bytes::new(),
            over,
            trailers: None,
            max_fields,
            received: 0,
        }
    }

    /// Of a response that is still to come.
    pub const fn response(response: ResponseFuture, max_fields: usize) -> Self {
        Self {
            response: Some(response),
            recv: None,
            chunk: Bytes::new(),
            over: false,
            trailers: None,
            max_fields,
            received: 0,
        }
    }

    /// Reads a response head, interim ones too.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        method: Method,
        head: &mut ResponseHead,
    ) -> Poll<Result<ResponseFraming, BodyError>> {
        let Some(response) = &mut self.response else { return Poll::Ready(Err(BodyError::Protocol)) };
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            return Poll::Ready(
                // HTTP/2 has no 101 (RFC 9113 §8.6).
                if interim.status() != http::StatusCode::SWITCHING_PROTOCOLS
                    && head::read_response(interim.status(), interim.headers(), self.max_fields, head)
                {
                    Ok(ResponseFraming {
                        body: BodyLength::None,
                        keep_alive: true,
                        informational: true,
                        switching: false,
                    })
                } else {
                    Err(BodyError::Protocol)
                },
            );
        }
        let (parts, recv) = match ready!(std::pin::Pin::new(response).poll(cx)) {
            Ok(response) => response.into_parts(),
            Err(error) => return Poll::Ready(Err(body_error(&error))),
        };
        self.response = None;
        if parts.status.is_informational()
            || !head::read_response(parts.status, &parts.headers, self.max_fields, head)
        {
            return Poll::Ready(Err(BodyError::Protocol));
        }
        self.over = recv.is_end_stream();
        self.recv = Some(recv);
        let bodiless = method == Method::Head || matches!(head.status, 204 | 304);
        let body = if bodiless {
            BodyLength::None
        } else {
            match head::body_length(&head.fields, self.over) {
                Some(BodyLength::None) => BodyLength::Length(0),
                Some(body) => body,
                None => return Poll::Ready(Err(BodyError::Protocol)),
            }
        };
        Poll::Ready(Ok(ResponseFraming { body, keep_alive: true, informational: false, switching: false }))
    }

    /// See [`super::super::body::BodyReader::poll_fill`].
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        loop {
            if !self.chunk.is_empty() {
                return Poll::Ready(Ok(Fill::Data));
            }
            if self.over {
                return Poll::Ready(Ok(Fill::End));
            }
            let Some(recv) = &mut self.recv else { return Poll::Ready(Err(BodyError::Protocol)) };
            match ready!(recv.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    self.received += chunk.len() as u64;
                    self.chunk = chunk;
                }
                Some(Err(error)) => return Poll::Ready(Err(body_error(&error))),
                None => {
                    let section = match ready!(recv.poll_trailers(cx)) {
                        Ok(section) => section,
                        Err(error) => return Poll::Ready(Err(body_error(&error))),
                    };
                    self.over = true;
                    if let Some(section) = section {
                        let mut trailers = Trailers::default();
                        if !head::read_trailers(&section, self.max_fields, &mut trailers) {
                            return Poll::Ready(Err(BodyError::Protocol));
                        }
                        self.trailers = Some(trailers);
                    }
                }
            }
        }
    }

    /// Bytes that arrived.
    pub fn data(&self) -> &[u8] {
        &self.chunk
    }

    /// Bytes that arrived, shared.
    pub fn chunk(&self) -> Bytes {
        self.chunk.clone()
    }

    /// Takes bytes off and lets the peer send as many more.
    pub fn consume(&mut self, n: usize) {
        let n = n.min(self.chunk.len());
        bytes::Buf::advance(&mut self.chunk, n);
        if let Some(recv) = &mut self.recv {
            // Fails only when the stream is gone, which the next fill tells.
            let _ = recv.flow_control().release_capacity(n);
        }
    }

    /// Whether nothing follows the bytes at hand.
    pub fn ends_after_data(&self) -> bool {
        self.over || self.recv.as_ref().is_some_and(RecvStream::is_end_stream)
    }

    /// Trailers, once the end was seen.
    pub const fn trailers(&self) -> Option<&Trailers> {
        self.trailers.as_ref()
    }

    /// Body bytes received.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Whether everything was received and consumed.
    pub fn is_over(&self) -> bool {
        self.chunk.is_empty() && self.ends_after_data()
    }
}

impl fmt::Debug for H2Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Reader")
            .field("chunk", &self.chunk.len())
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// The sending half of an HTTP/2 stream.
pub struct H2Writer {
    /// Downstream only: the response head is still to be sent.
    respond: Option<SendResponse<Bytes>>,
    stream: Option<SendStream<Bytes>>,
    sent: u64,
    finished: bool,
}

impl H2Writer {
    /// Of a stream whose response is still to be sent.
    pub const fn response(respond: SendResponse<Bytes>) -> Self {
        Self { respond: Some(respond), stream: None, sent: 0, finished: false }
    }

    /// Of a stream whose request head was sent.
    pub const fn request(stream: SendStream<Bytes>, ended: bool) -> Self {
        Self { respond: None, stream: Some(stream), sent: 0, finished: ended }
    }

    /// Sends an interim response.
    pub fn interim_head(&mut self, head: &ResponseHead) -> Result<(), BodyError> {
        let (Some(respond), Some(response)) = (&mut self.respond, head::write_response(head)) else {
            return Err(BodyError::Protocol);
        };
        respond.send_informational(response).map_err(|error| body_error(&error))
    }

    /// Sends the response head.
    pub fn response_head(&mut self, head: &ResponseHead, ended: bool) -> Result<(), BodyError> {
        let (Some(respond), Some(response)) = (&mut self.respond, head::write_response(head)) else {
            return Err(BodyError::Protocol);
        };
        let stream = respond.send_response(response, ended).map_err(|error| body_error(&error))?;
        self.stream = Some(stream);
        self.finished = ended;
        Ok(())
    }

    /// Sends a copy of what fits into the window of `data`.
    pub async fn send(&mut self, data: &[u8], last: bool) -> Result<usize, BodyError> {
        let n = self.capacity(data.len()).await?;
        let part = Bytes::copy_from_slice(data.get(..n).unwrap_or(data));
        self.put(part, last && n == data.len())
    }

    /// Sends what fits into the window of `data`, without a copy.
    pub async fn send_bytes(&mut self, mut data: Bytes, last: bool) -> Result<usize, BodyError> {
        let whole = data.len();
        let n = self.capacity(whole).await?;
        data.truncate(n);
        self.put(data, last && n == whole)
    }

    async fn capacity(&mut self, wanted: usize) -> Result<usize, BodyError> {
        let Some(stream) = &mut self.stream else { return Err(BodyError::Protocol) };
        stream.reserve_capacity(wanted);
        let n = std::future::poll_fn(|cx| {
            loop {
                if stream.capacity() > 0 {
                    return Poll::Ready(Ok(stream.capacity()));
                }
                match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(body_error(&error))),
                    None => return Poll::Ready(Err(BodyError::Reset)),
                }
            }
        })
        .await?;
        Ok(n.min(wanted))
    }

    fn put(&mut self, data: Bytes, last: bool) -> Result<usize, BodyError> {
        let Some(stream) = &mut self.stream else { return Err(BodyError::Protocol) };
        let n = data.len();
        stream.send_data(data, last).map_err(|error| body_error(&error))?;
        self.sent += n as u64;
        self.finished |= last;
        Ok(n)
    }

    /// Ends the stream.
    pub fn finish(&mut self, trailers: Option<&FieldBlock>) -> Result<(), BodyError> {
        if self.finished {
            return Ok(());
        }
        let Some(stream) = &mut self.stream else { return Err(BodyError::Protocol) };
        let result = match trailers {
            Some(trailers) => stream.send_trailers(head::write_fields(trailers).ok_or(BodyError::Protocol)?),
            None => stream.send_data(Bytes::new(), true),
        };
        self.finished = true;
        result.map_err(|error| body_error(&error))
    }

    /// Cuts the stream off.
    pub fn reset(&mut self, reason: Reason) {
        match (&mut self.stream, &mut self.respond) {
            (Some(stream), _) => stream.send_reset(reason),
            (None, Some(respond)) => respond.send_reset(reason),
            (None, None) => {}
        }
        self.finished = true;
    }

    /// Tells the peer that the rest is not wanted.
    pub fn cancel(&mut self) {
        self.reset(Reason::CANCEL);
    }

    /// Tells the peer that the response cannot be finished.
    pub fn reset_internal(&mut self) {
        self.reset(Reason::INTERNAL_ERROR);
    }

    /// Tells the peer that the response is complete and the rest of the request is not wanted (RFC 9113 §8.1).
    pub fn reset_no_error(&mut self) {
        self.reset(Reason::NO_ERROR);
    }

    /// Ready when the peer reset the stream or its connection ended.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let reset = match (&mut self.stream, &mut self.respond) {
            (Some(stream), _) if !self.finished => stream.poll_reset(cx),
            (None, Some(respond)) => respond.poll_reset(cx),
            _ => return Poll::Pending,
        };
        match ready!(reset) {
            // A peer that needs no more of our body but answers (RFC 9113 §8.1).
            Ok(Reason::NO_ERROR) => Poll::Ready(BodyError::Reset),
            Ok(Reason::REFUSED_STREAM) => Poll::Ready(BodyError::Refused),
            Ok(_) => Poll::Ready(BodyError::Reset),
            Err(error) => Poll::Ready(body_error(&error)),
        }
    }

    /// Body bytes sent.
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the stream was ended.
    pub const fn is_finished(&self) -> bool {
        self.finished
    }
}

impl fmt::Debug for H2Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Writer")
            .field("sent", &self.sent)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}
