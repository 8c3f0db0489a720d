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
    H1(Box<H1Conn>),
    /// Room for a stream.
    H2(H2Slot),
}

impl From<H1Conn> for Checked {
    fn from(conn: H1Conn) -> Self {
        Self::H1(Box::new(conn))
    }
}

impl Checked {
    /// Whether the connection carried a request before: it may have been closed by the host at this very moment.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::H1(conn) => conn.served > 0,
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
            Self::H1(mut conn) => {
                // From here on it tells whether any of this request left.
                let _ = conn.writer.take_wire_bytes();
                conn.writer.request_head(request, body, connection);
                conn.served = conn.served.saturating_add(1);
                let conn = *conn;
                let (reader, writer, rest) = conn.split();
                Ok(UpstreamStream {
                    reader: BodyReader::H1(reader),
                    writer: BodyWriter::H1(writer),
                    home: Home::H1(rest),
                })
            }
            Self::H2(slot) => {
                let (reader, writer) = match h2::open(slot.link(), request, body.is_empty()) {
                    Ok(both) => both,
                    Err(error) => {
                        slot.retire_if_over();
                        return Err(error);
                    }
                };
                Ok(UpstreamStream {
                    reader: BodyReader::H2(reader),
                    writer: BodyWriter::H2(writer),
                    home: Home::H2(slot),
                })
            }
        }
    }
}

/// A request on its way and the response to it.
#[derive(Debug)]
pub struct UpstreamStream {
    /// Receives the response.
    pub reader: BodyReader,
    /// Sends the request.
    pub writer: BodyWriter,
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
        }
    }

    /// Ends the use of the stream: the connection is kept for the next request when both messages are complete and
    /// `keep` allows it, and closed (HTTP/1.1) or the stream reset (HTTP/2) otherwise. `now` is a time read before.
    pub fn give_back(self, worker: &Rc<Worker>, keep: bool, now: Instant) {
        let complete = self.reader.is_over() && self.writer.is_finished();
        match (self.home, self.reader, self.writer) {
            (Home::H1(rest), BodyReader::H1(reader), BodyWriter::H1(writer)) => {
                if keep && complete && reader.is_clean() && writer.is_flushed() {
                    rest.join(reader, writer, now).give_back(worker);
                } else {
                    rest.count_destroyed(worker, reader.is_eof());
                }
            }
            (Home::H2(slot), reader, mut writer) => {
                if !complete && let BodyWriter::H2(writer) = &mut writer {
                    writer.cancel();
                }
                drop((reader, writer, slot));
            }
            (Home::H1(_), ..) => {}
        }
    }
}
