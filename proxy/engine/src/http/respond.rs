//! The response on its way downstream, whatever the protocol.

use outrigger_wire::h1::{BodyLength, ConnectionHeader};
use outrigger_wire::{Method, ResponseHead, Version};

use super::body::{BodyError, BodyWriter};

/// Sends one response (with interim ones before it) and knows what must become of the connection.
#[derive(Debug)]
pub struct Responder {
    /// Sends the body.
    pub writer: BodyWriter,
    version: Version,
    method: Method,
    keep_alive: bool,
    started: bool,
}

impl Responder {
    /// A responder before its first request.
    pub const fn new(writer: BodyWriter) -> Self {
        Self { writer, version: Version::Http11, method: Method::Get, keep_alive: true, started: false }
    }

    /// Begins with another request.
    pub const fn begin(&mut self, version: Version, method: Method, keep_alive: bool) {
        self.version = version;
        self.method = method;
        self.keep_alive = keep_alive;
        self.started = false;
    }

    /// Whether a final response head was sent or gathered.
    pub const fn is_started(&self) -> bool {
        self.started
    }

    /// Whether the connection may carry another request after this response.
    pub const fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// The connection ends with this response. HTTP/1.1 says so, when the head is not out yet.
    pub const fn close_after(&mut self) {
        self.keep_alive = false;
    }

    /// Whether a response of this status has no body, whatever its source says.
    pub const fn is_bodiless(&self, status: u16) -> bool {
        matches!(self.method, Method::Head) || matches!(status, 204 | 304)
    }

    /// Passes an interim response on; HTTP/1.0 clients do not know them.
    pub async fn interim(&mut self, head: &ResponseHead) -> Result<(), BodyError> {
        if self.version == Version::Http10 || self.started {
            return Ok(());
        }
        match &mut self.writer {
            BodyWriter::H1(writer) => {
                writer.interim_head(head);
                writer.flush().await
            }
            BodyWriter::H2(writer) => writer.interim_head(head),
        }
    }

    /// Sends (HTTP/2) or gathers (HTTP/1.1) the final head. `body` is how the body is delimited at its source; what is
    /// written fits the downstream.
    pub fn head(&mut self, head: &ResponseHead, body: BodyLength) -> Result<(), BodyError> {
        let bodiless = self.is_bodiless(head.status);
        let body = match body {
            _ if bodiless => BodyLength::None,
            // Towards HTTP/1.1 a length that is only known at the end is told by chunks.
            BodyLength::UntilClose => BodyLength::Chunked,
            BodyLength::None => BodyLength::Length(0),
            other => other,
        };
        self.started = true;
        match &mut self.writer {
            BodyWriter::H1(writer) => {
                let body = body.for_version(self.version);
                if body == BodyLength::UntilClose {
                    self.keep_alive = false;
                }
                let connection = match (self.keep_alive, self.version) {
                    (false, _) => ConnectionHeader::Close,
                    (true, Version::Http10) => ConnectionHeader::KeepAlive,
                    (true, _) => ConnectionHeader::None,
                };
                writer.response_head(head, body, connection);
                Ok(())
            }
            BodyWriter::H2(writer) => writer.response_head(head, body.is_empty()),
        }
    }

    /// Gathers (HTTP/1.1) or sends the head of a switch to another protocol; the connection, or stream, is a tunnel
    /// afterwards.
    pub fn switch(&mut self, head: &ResponseHead) -> Result<(), BodyError> {
        self.started = true;
        self.keep_alive = false;
        match &mut self.writer {
            BodyWriter::H1(writer) => {
                let connection =
                    if head.status == 101 { ConnectionHeader::Upgrade } else { ConnectionHeader::None };
                writer.response_head(head, BodyLength::None, connection);
                Ok(())
            }
            BodyWriter::H2(writer) => writer.response_head(head, false),
        }
    }

    /// Cuts a tunnel off (RFC 8441 §5: a failed connection is told as CANCEL).
    pub fn cancel(&mut self) {
        if let BodyWriter::H2(writer) = &mut self.writer {
            writer.cancel();
        }
    }

    /// Tells an HTTP/2 client that nobody has looked at its request, instead of answering; `false`: that cannot be said any
    /// more, or not in this protocol.
    pub fn refuse(&mut self) -> bool {
        match &mut self.writer {
            BodyWriter::H2(writer) if !self.started && !writer.is_finished() => {
                writer.refuse();
                true
            }
            BodyWriter::H2(_) | BodyWriter::H1(_) => false,
        }
    }

    /// Breaks the response off: HTTP/2 resets the stream, HTTP/1.1 can only close the connection.
    pub fn abort(&mut self) {
        self.keep_alive = false;
        if let BodyWriter::H2(writer) = &mut self.writer
            && !writer.is_finished()
        {
            writer.reset_internal();
        }
    }
}
