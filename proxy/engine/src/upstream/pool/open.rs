//! From a connection to a stream with a request on it, and back to the pool.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use outrigger_wire::h1::{BodyLength, ConnectionHeader, ResponseFraming};
use outrigger_wire::{RequestHead, ResponseHead, Version};
use tokio::time::Instant;

use super::{H1Conn, H2Slot};
use crate::http::body::{BodyError, BodyReader, BodyWriter};
use crate::http::h2;
use crate::io::{Io, TlsFacts};
use crate::worker::Worker;

/// A connection, or room on one, for one request.
#[derive(Debug)]
pub enum Checked {
    /// A connection of its own.
    H1(H1Conn),
    /// Room for a stream.
    H2(H2Slot),
}

impl From<H1Conn> for Checked {
    fn from(conn: H1Conn) -> Self {
        Self::H1(conn)
    }
}

impl Checked {
    /// Whether the connection carried a request before: it may have been closed by the host at this very moment.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::H1(conn) => conn.served() > 0,
            Self::H2(slot) => slot.is_reused(),
        }
    }

    /// The protocol spoken.
    pub const fn protocol(&self) -> Version {
        match self {
            Self::H1(_) => Version::Http11,
            Self::H2(_) => Version::Http2,
        }
    }

    fn io(&self) -> &Rc<Io> {
        match self {
            Self::H1(conn) => conn.io(),
            Self::H2(slot) => &slot.conn().io,
        }
    }

    /// Our end of the connection.
    pub fn local_addr(&self) -> SocketAddr {
        self.io().local_addr()
    }

    /// TLS of the connection.
    pub fn tls_facts(&self) -> Option<Arc<TlsFacts>> {
        self.io().tls_facts()
    }

    /// Starts a request. On HTTP/1.1 the head is gathered and leaves with the first body bytes.
    ///
    /// *Errors*: the head cannot be written ([`BodyError::Protocol`]), or the connection takes no more streams
    /// ([`BodyError::Refused`]: nothing was sent).
    pub fn open(
        self,
        request: &RequestHead,
        body: BodyLength,
        connection: ConnectionHeader,
    ) -> Result<UpstreamStream, BodyError> {
        match self {
            Self::H1(conn) => {
                let (mut halves, rest) = conn.take();
                if let BodyWriter::H1(writer) = &mut halves.writer {
                    // From here on it tells whether any of this request left.
                    let _ = writer.take_wire_bytes();
                    writer.request_head(request, body, connection);
                }
                Ok(UpstreamStream { halves, home: Home::H1(rest) })
            }
            Self::H2(slot) => {
                let (reader, writer) = match h2::open(slot.link(), request, body.is_empty()) {
                    Ok(both) => both,
                    Err(error) => {
                        slot.retire_if_over();
                        return Err(error);
                    }
                };
                let halves = Halves { reader: BodyReader::H2(reader), writer: BodyWriter::H2(writer) };
                Ok(UpstreamStream { halves: Box::new(halves), home: Home::H2(slot) })
            }
        }
    }
}

/// Both directions of a stream.
#[derive(Debug)]
pub struct Halves {
    /// Receives the response.
    pub reader: BodyReader,
    /// Sends the request.
    pub writer: BodyWriter,
}

/// A request on its way and the response to it.
#[derive(Debug)]
pub struct UpstreamStream {
    /// Its two directions.
    pub halves: Box<Halves>,
    home: Home,
}

#[derive(Debug)]
enum Home {
    H1(super::h1::Rest),
    H2(H2Slot),
}

impl UpstreamStream {
    /// Reads the response head; interim heads come first.
    pub fn poll_response(
        reader: &mut BodyReader,
        cx: &mut Context<'_>,
        request: &RequestHead,
        head: &mut ResponseHead,
    ) -> Poll<Result<ResponseFraming, BodyError>> {
        match reader {
            BodyReader::H1(reader) => reader.poll_response(cx, request.method(), head),
            BodyReader::H2(reader) => reader.poll_response(cx, head),
            // Stages come with the head of the response.
            BodyReader::Staged(_) => Poll::Ready(Err(BodyError::Protocol)),
        }
    }

    /// Ends the use of the stream: the connection is kept for the next request when both messages are complete and
    /// `keep` allows it, and closed (HTTP/1.1) or the stream reset (HTTP/2) otherwise. `now` is a time read before.
    pub fn give_back(self, worker: &Rc<Worker>, keep: bool, now: Instant) {
        let Self { mut halves, home } = self;
        halves.reader.unstage();
        let Halves { reader, writer } = &mut *halves;
        let complete = reader.is_over() && writer.is_finished();
        match (home, reader, writer) {
            (Home::H1(rest), BodyReader::H1(reader), BodyWriter::H1(writer)) => {
                if keep && complete && reader.is_clean() && writer.is_flushed() {
                    reader.release();
                    rest.join(halves, now).give_back(worker);
                } else {
                    rest.count_destroyed(worker, reader.is_eof());
                }
            }
            (Home::H2(slot), _, writer) => {
                if !complete && let BodyWriter::H2(writer) = writer {
                    writer.cancel();
                }
                drop((halves, slot));
            }
            (Home::H1(_), ..) => {}
        }
    }
}
