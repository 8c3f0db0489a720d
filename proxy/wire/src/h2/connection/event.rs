//! What a connection tells its owner.

use super::super::error::Code;
use super::super::head::HeadRefusal;
use super::super::stream::{StreamEnd, StreamKey};
use crate::h1::{BodyLength, ResponseFraming};

/// Something that happened on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Server: a request began; take its head with [`swap_request`](super::Connection::swap_request).
    Request {
        /// The stream.
        stream: StreamKey,
        /// How its body is delimited.
        body: BodyLength,
        /// Nothing follows.
        ended: bool,
    },
    /// Server: a request that is to be answered with an error; what was read of its head is there as for `Request`.
    Refused {
        /// The stream.
        stream: StreamKey,
        /// Why; never [`HeadRefusal::Malformed`].
        refusal: HeadRefusal,
        /// Nothing follows.
        ended: bool,
    },
    /// Client: a response head, or an interim one; take it with [`swap_response`](super::Connection::swap_response).
    Response {
        /// The stream.
        stream: StreamKey,
        /// What it says about the body.
        framing: ResponseFraming,
        /// Nothing follows.
        ended: bool,
    },
    /// Data; the peer may send as much again only after [`consumed`](super::Connection::consumed).
    Data {
        /// The stream.
        stream: StreamKey,
        /// The octets; may be empty when `ended`.
        octets: &'a [u8],
        /// Nothing follows.
        ended: bool,
    },
    /// Trailers, and with them the end; take them with [`swap_trailers`](super::Connection::swap_trailers).
    Trailers {
        /// The stream.
        stream: StreamKey,
    },
    /// The stream ended before its time.
    Reset {
        /// The stream.
        stream: StreamKey,
        /// Why.
        end: StreamEnd,
        /// Everything the peer had to say on it had arrived before.
        complete: bool,
    },
    /// More can be sent on the stream, as far as its own window goes.
    Window {
        /// The stream.
        stream: StreamKey,
    },
    /// More can be sent on the connection.
    Room,
    /// The peer's settings changed: any stream may have more room, or more streams can be opened.
    Settings,
    /// The peer takes no new streams.
    GoAway {
        /// What it said.
        code: Code,
    },
    /// A PING of [`ping`](super::Connection::ping) was answered.
    Pong,
}
