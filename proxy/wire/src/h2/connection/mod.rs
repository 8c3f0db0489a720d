//! One HTTP/2 connection of either role.
//!
//! [`receive`](Connection::receive) takes octets and gives events; the methods of `send` append frames to one output
//! buffer, which the owner takes as a whole ([`take_output`](Connection::take_output)) and writes. Nothing here waits:
//! what cannot be sent because of a window or because enough is waiting already is not taken, and an event tells when to
//! try again.
//!
//! After a connection error GOAWAY is in the output, and `receive` gives the same error again.

use std::time::Duration;

use super::error::{Code, H2Error};
use super::flow::{ReceiveWindow, SendWindow};
use super::frame::{put_go_away, put_ping, put_window_update};
use super::head::HeadLimits;
use super::hpack::{Decoder, Encoder};
use super::limit::Guard;
use super::settings::{DEFAULT_WINDOW, Settings};
use super::stream::Streams;
use super::{PREFACE, frame};
use crate::field::FieldBlock;
use crate::head::{RequestHead, ResponseHead};

mod control;
mod data;
mod event;
mod headers;
mod receive;
mod send;
#[cfg(test)]
mod tests;

pub use event::Event;
pub use send::SendError;

/// Streams a client opens before it knows the limit (RFC 9113 §6.5.2 recommends that servers allow 100).
const STREAMS_BEFORE_SETTINGS: u32 = 100;
/// Largest stream id.
const STREAM_ID_MAX: u32 = 0x7fff_ffff;
/// Table our encoder uses at most, whatever the peer allows, bytes.
const ENCODER_TABLE_BYTES: usize = 4096;
/// Memory for output that is kept while streams are open, bytes.
const OUTPUT_KEEP: usize = 32 << 10;
/// Memory of one kind that an idle connection keeps, bytes.
const REST_BYTES: usize = 2048;
/// PING that finds out when the peer has seen our first GOAWAY.
const SHUTDOWN_PING: [u8; 8] = *b"shutdown";
/// PING that finds out whether the peer is alive.
const KEEPALIVE_PING: [u8; 8] = *b"arealive";

/// Which end we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// That which opened the connection.
    Client,
    /// That which accepted it.
    Server,
}

/// What a connection is made with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Our settings. `max_header_list_bytes` is enforced, not only told.
    pub settings: Settings,
    /// Window of the whole connection, bytes. Less than 65,535 cannot be told to the peer and counts as that.
    pub connection_window: u32,
    /// Most fields of a head or trailer section.
    pub max_fields: usize,
    /// Whether the connection is encrypted: the scheme of its requests.
    pub secure: bool,
}

/// How far an orderly end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    No,
    /// The first GOAWAY is out: streams that are on their way are still served.
    Announced,
    /// The last GOAWAY is out; streams above are ignored.
    Final(u32),
}

/// Where the reader is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// So many octets of the preface have arrived.
    Preface(usize),
    /// At a frame head.
    Frame,
    /// In the data of a frame.
    Data(data::Arriving),
    /// So many octets mean nothing.
    Skip(usize),
}

/// One connection; see the module.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    options: Options,
    peer: Settings,
    /// The peer's first SETTINGS arrived.
    settings_seen: bool,
    /// The peer has taken our SETTINGS in.
    settings_acked: bool,
    place: Place,
    guard: Guard,
    decoder: Decoder,
    encoder: Encoder,
    streams: Streams,
    window: SendWindow,
    incoming: ReceiveWindow,
    /// A block whose end has not arrived.
    block: Vec<u8>,
    continuing: Option<headers::Continuing>,
    request: RequestHead,
    response: ResponseHead,
    trailers: FieldBlock,
    /// Client: the next stream.
    next_id: u32,
    /// Server: the highest stream the peer has opened.
    last_peer: u32,
    going: Going,
    /// Streams of ours above were not processed.
    peer_last: Option<u32>,
    /// Place of the walk that tells the owner about those.
    walk: Option<usize>,
    failed: Option<H2Error>,
    output: Vec<u8>,
    /// Octets of `output` that the peer made us write.
    control_output: usize,
}

impl Connection {
    /// A connection that begins at `now` (a time since any fixed point); its preface is in the output.
    #[must_use]
    pub fn new(role: Role, options: Options, now: Duration) -> Self {
        let client = role == Role::Client;
        let mut output = Vec::with_capacity(128);
        if client {
            output.extend_from_slice(PREFACE);
        }
        options.settings.put(client, &mut output);
        let target = options.connection_window.max(DEFAULT_WINDOW);
        let mut incoming = ReceiveWindow::new(DEFAULT_WINDOW, target);
        if let Some(more) = incoming.open() {
            put_window_update(&mut output, 0, more);
        }
        Self {
            role,
            options,
            peer: Settings::default(),
            settings_seen: false,
            settings_acked: false,
            place: if client { Place::Frame } else { Place::Preface(0) },
            guard: Guard::new(now),
            decoder: Decoder::new(),
            encoder: Encoder::new(ENCODER_TABLE_BYTES),
            streams: Streams::default(),
            window: SendWindow::new(DEFAULT_WINDOW),
            incoming,
            block: Vec::new(),
            continuing: None,
            request: RequestHead::default(),
            response: ResponseHead::default(),
            trailers: FieldBlock::default(),
            next_id: 1,
            last_peer: 0,
            going: Going::No,
            peer_last: None,
            walk: None,
            failed: None,
            output,
            control_output: 0,
        }
    }

    /// Exchanges `head` for the one of the last [`Event::Request`] or [`Event::Refused`].
    pub const fn swap_request(&mut self, head: &mut RequestHead) {
        std::mem::swap(&mut self.request, head);
    }

    /// Exchanges `head` for the one of the last [`Event::Response`].
    pub const fn swap_response(&mut self, head: &mut ResponseHead) {
        std::mem::swap(&mut self.response, head);
    }

    /// Exchanges `trailers` for those of the last [`Event::Trailers`].
    pub const fn swap_trailers(&mut self, trailers: &mut FieldBlock) {
        std::mem::swap(&mut self.trailers, trailers);
    }

    /// The peer's settings.
    #[must_use]
    pub const fn peer_settings(&self) -> &Settings {
        &self.peer
    }

    /// Whether the peer's first SETTINGS have arrived.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        self.settings_seen
    }

    /// Streams that are not over on the wire.
    #[must_use]
    pub const fn open_streams(&self) -> u32 {
        self.streams.open()
    }

    /// Streams that are over on the wire and whose owner has not let go of them yet. When there are many, the owner should
    /// let them end before it hands more octets in.
    #[must_use]
    pub fn lingering_streams(&self) -> usize {
        self.streams.occupied().saturating_sub(self.streams.open() as usize)
    }

    /// Client: how many more streams may be opened now.
    #[must_use]
    pub fn streams_left(&self) -> u32 {
        if self.failed.is_some() || self.peer_last.is_some() || self.going != Going::No {
            return 0;
        }
        let most = if self.settings_seen { u32::MAX } else { STREAMS_BEFORE_SETTINGS };
        let ids = STREAM_ID_MAX.checked_sub(self.next_id).map_or(0, |above| above / 2 + 1);
        self.peer.max_concurrent_streams.min(most).saturating_sub(self.streams.open()).min(ids)
    }

    /// Client: whether no stream will ever be opened again.
    #[must_use]
    pub const fn is_used_up(&self) -> bool {
        self.failed.is_some()
            || self.peer_last.is_some()
            || !matches!(self.going, Going::No)
            || self.next_id > STREAM_ID_MAX
    }

    /// Whether the orderly end is complete: what is in the output is all that is left to be sent.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let ending = matches!(self.going, Going::Final(_)) || self.peer_last.is_some();
        ending && self.streams.occupied() == 0
    }

    /// Streams that are not over, or that their owner has not let go of.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.occupied()
    }

    /// Why the connection failed.
    #[must_use]
    pub const fn error(&self) -> Option<H2Error> {
        self.failed
    }

    /// Octets that wait to be sent.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Moves everything that waits to be sent into `into`, which must be empty; its memory is used from now on.
    pub fn take_output(&mut self, into: &mut Vec<u8>) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut self.output, into);
        self.output.clear();
        self.output.shrink_to(OUTPUT_KEEP);
        self.control_output = 0;
    }

    /// Frees memory that an idle connection does not need; what an ordinary request needs again is kept.
    pub fn rest(&mut self) {
        if self.output.is_empty() && self.output.capacity() > REST_BYTES {
            self.output = Vec::new();
        }
        if self.continuing.is_none() {
            self.block = Vec::new();
        }
        for fields in [&mut self.request.fields, &mut self.response.fields, &mut self.trailers] {
            fields.shrink_above(REST_BYTES);
        }
        self.streams.shrink();
    }

    /// Sends a PING; [`Event::Pong`] tells that it was answered.
    pub fn ping(&mut self) {
        put_ping(&mut self.output, false, &KEEPALIVE_PING);
    }

    /// Begins an orderly end (RFC 9113 §6.8): a server announces it first and takes the streams that are on their way;
    /// when the peer is known to have heard of it, or at once as a client, no new ones are taken.
    pub fn shut_down(&mut self) {
        if self.going != Going::No || self.failed.is_some() {
            return;
        }
        match self.role {
            Role::Client => {
                put_go_away(&mut self.output, 0, Code::NO_ERROR);
                self.going = Going::Final(0);
            }
            Role::Server => {
                put_go_away(&mut self.output, STREAM_ID_MAX, Code::NO_ERROR);
                put_ping(&mut self.output, false, &SHUTDOWN_PING);
                self.going = Going::Announced;
            }
        }
    }

    /// Ends the connection now, telling the peer `code`.
    pub fn abort(&mut self, code: Code) {
        if self.failed.is_none() && !matches!(self.going, Going::Final(_)) {
            put_go_away(&mut self.output, self.last_peer, code);
            self.going = Going::Final(self.last_peer);
        }
    }

    fn fail(&mut self, error: H2Error) -> H2Error {
        if self.failed.is_none() {
            put_go_away(&mut self.output, self.last_peer, error.code());
            self.failed = Some(error);
        }
        error
    }

    /// Writes something that the peer made us write.
    fn control(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        let before = self.output.len();
        put(&mut self.output);
        self.control_output += self.output.len() - before;
    }

    const fn head_limits(&self) -> HeadLimits {
        HeadLimits {
            fields: self.options.max_fields,
            bytes: self.options.settings.max_header_list_bytes as usize,
        }
    }

    /// Window of a new stream towards us: a peer that has not seen our SETTINGS may use the default one.
    fn incoming_window(&self) -> ReceiveWindow {
        let target = self.options.settings.initial_window;
        let left = if self.settings_acked { target } else { target.max(DEFAULT_WINDOW) };
        ReceiveWindow::new(left, target)
    }

    /// Whether no frame but HEADERS may stand on the stream yet.
    const fn is_idle(&self, id: u32) -> bool {
        match self.role {
            Role::Server => id.is_multiple_of(2) || id > self.last_peer,
            Role::Client => id.is_multiple_of(2) || id >= self.next_id,
        }
    }

    /// Whether the stream is above our last GOAWAY.
    const fn is_ignored(&self, id: u32) -> bool {
        matches!((self.role, self.going), (Role::Server, Going::Final(last)) if id > last)
    }

    const fn max_frame(&self) -> usize {
        self.options.settings.max_frame_bytes as usize
    }

    /// Largest frame of ours: larger ones would only delay the others.
    fn max_send_frame(&self) -> usize {
        self.peer.max_frame_bytes.min(frame::DEFAULT_FRAME_BYTES) as usize
    }
}
