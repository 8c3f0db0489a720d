//! HTTP/2 as the load speaks it: one request after the other, all with the same head.

use crate::http2::{self, kind};
use crate::options::{Options, SAMPLED_EVERY};
use crate::tally::Tally;
use std::collections::HashMap;

/// Bytes received before the connection's window is opened again.
const WINDOW_STEP: u64 = 1 << 28;

/// What [`Http2::greeting`] gives the connection.
const WINDOW: u32 = 1 << 30;

/// What a window starts with (RFC 9113 §6.9.2).
const WINDOW_DEFAULT: i64 = 65_535;

/// The state of a connection.
pub(crate) struct Http2 {
    next: u32,
    /// By stream: when its request was due, and whether its head said 200.
    requests: HashMap<u32, (u64, bool)>,
    streams_max: u32,
    send_window: i64,
    received: u64,
}

impl Http2 {
    /// With at most `streams_max` streams at a time.
    pub(crate) fn new(streams_max: u32) -> Self {
        Self { next: 1, requests: HashMap::new(), streams_max, send_window: WINDOW_DEFAULT, received: 0 }
    }

    /// What is sent first.
    pub(crate) fn greeting() -> Vec<u8> {
        let mut out = http2::PREFACE.to_vec();
        // No pushes (2); windows of streams (4) of 16 MiB.
        http2::frame(&mut out, kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0]);
        http2::frame(&mut out, kind::WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        out
    }

    /// How many requests may be under way now.
    pub(crate) fn free(&self, options: &Options) -> u32 {
        if self.send_window >= options.body.len() as i64 { self.streams_max } else { 0 }
    }

    /// Requests without an answer.
    pub(crate) fn under_way(&self) -> u32 {
        self.requests.len() as u32
    }

    /// Writes a request.
    pub(crate) fn request(&mut self, options: &Options, due: u64, out: &mut Vec<u8>) {
        let stream = self.next;
        self.next += 2;
        let head = match stream as usize / 2 {
            0 => &options.head.first,
            turn if turn.is_multiple_of(SAMPLED_EVERY) => &options.head_sampled,
            _ => &options.head.later,
        };
        if options.body.is_empty() {
            http2::frame(out, kind::HEADERS, http2::END_HEADERS | http2::END_STREAM, stream, head);
        } else {
            http2::frame(out, kind::HEADERS, http2::END_HEADERS, stream, head);
            http2::frame(out, kind::DATA, http2::END_STREAM, stream, &options.body);
            self.send_window -= options.body.len() as i64;
        }
        self.requests.insert(stream, (due, false));
    }

    /// Reads whole frames and writes what answers them. `None`: the connection is over; else the bytes used up.
    pub(crate) fn input(
        &mut self,
        options: &Options,
        tally: &mut Tally,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let mut rest = bytes;
        while let Some((frame, more)) = http2::take(rest) {
            rest = more;
            let (is_end, is_ack) = (frame.flags & http2::END_STREAM != 0, frame.flags & http2::ACK != 0);
            match frame.kind {
                kind::DATA => {
                    self.received += frame.payload.len() as u64;
                    if self.received > WINDOW_STEP {
                        http2::frame(out, kind::WINDOW_UPDATE, 0, 0, &(self.received as u32).to_be_bytes());
                        self.received = 0;
                    }
                }
                kind::HEADERS => {
                    if let Some((_, ok)) = self.requests.get_mut(&frame.stream) {
                        *ok |= http2::is_ok(frame.payload);
                    }
                }
                kind::RST_STREAM => {
                    if let Some((due, _)) = self.requests.remove(&frame.stream) {
                        tally.answer(due, false);
                    }
                }
                kind::SETTINGS if !is_ack => {
                    for (id, value) in http2::settings(frame.payload) {
                        match id {
                            // What `block.later` refers to must fit into the peer's table.
                            1 if value < 1024 => return None,
                            3 => self.streams_max = options.streams.min(value),
                            _ => {}
                        }
                    }
                    http2::frame(out, kind::SETTINGS, http2::ACK, 0, &[]);
                }
                kind::PING if !is_ack => http2::frame(out, kind::PING, http2::ACK, 0, frame.payload),
                kind::WINDOW_UPDATE if frame.stream == 0 => {
                    self.send_window += http2::increment(frame.payload)
                }
                kind::GOAWAY => return None,
                _ => {}
            }
            if is_end
                && matches!(frame.kind, kind::DATA | kind::HEADERS)
                && let Some((due, ok)) = self.requests.remove(&frame.stream)
            {
                tally.answer(due, ok);
            }
        }
        Some(bytes.len() - rest.len())
    }
}
