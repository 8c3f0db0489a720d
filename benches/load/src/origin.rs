//! The origin: answers every request of a port with the same bytes, as fast as it can.
//!
//! `h1:PORT:BYTES`, `h2:PORT:BYTES` (a gRPC-like answer with trailers) and `grpc:PORT:0` (a gRPC answer without a
//! message's bytes, which collectors of spans understand as success).

use crate::Failure;
use crate::conn::content_length;
use crate::http2::{self, Block, kind};
use crate::net::{self, Got, Outbox, Poll};
use memchr::memmem;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// Bytes read at once.
const ROOM: usize = 256 << 10;

/// Bytes received before the connection's window is opened again, and what it is opened to at first.
const WINDOW_STEP: u64 = 1 << 29;
const WINDOW: u32 = 1 << 30;

/// Largest DATA frame that every peer takes.
const FRAME_MAX: usize = 16_384;

/// Tokens of listeners; those of connections are below.
const LISTENER: u64 = 1 << 32;

/// How a port answers.
struct Answer {
    is_h2: bool,
    /// HTTP/1.1: the whole of it.
    whole: Vec<u8>,
    head: Block,
    trailers: Vec<u8>,
    body: Vec<u8>,
}

struct Conn {
    socket: OwnedFd,
    answer: usize,
    kept: Vec<u8>,
    out: Outbox,
    /// HTTP/1.1: bytes of a request body to come.
    skip: u64,
    h2: Http2,
}

#[derive(Default)]
struct Http2 {
    has_preface: bool,
    /// The peer has no dynamic table to speak of.
    is_literal: bool,
    answered: u64,
    window: i64,
    received: u64,
    waiting: VecDeque<u32>,
}

/// Answers until it is killed.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let mut poll = Poll::new(256)?;
    let (mut answers, mut listeners) = (Vec::new(), Vec::new());
    for arg in args {
        let mut parts = arg.split(':');
        let (Some(protocol), Some(port), Some(size), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(format!("not PROTO:PORT:BYTES: {arg}").into());
        };
        answers.push(answer(protocol, size.parse()?));
        let listener = net::listen(port.parse()?)?;
        poll.add(&listener, LISTENER + listeners.len() as u64, false)?;
        listeners.push(listener);
    }
    println!("ready");
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut room = vec![0; ROOM];
    let mut ready = Vec::new();
    loop {
        poll.wait(1000, &mut ready);
        for event in &ready {
            if let Some(index) = event.token.checked_sub(LISTENER) {
                let index = index as usize;
                while let Some(socket) = listeners.get(index).and_then(net::accept) {
                    let at = conns.iter().position(Option::is_none).unwrap_or(conns.len());
                    poll.add(&socket, at as u64, false)?;
                    let h2 = Http2 { window: 65_535, ..Http2::default() };
                    let conn = Conn {
                        socket,
                        answer: index,
                        kept: Vec::new(),
                        out: Outbox::new(false),
                        skip: 0,
                        h2,
                    };
                    match conns.get_mut(at) {
                        Some(slot) => *slot = Some(conn),
                        None => conns.push(Some(conn)),
                    }
                }
                continue;
            }
            let Some(slot) = conns.get_mut(event.token as usize) else { continue };
            if let Some(conn) = slot
                && !conn.ready(&poll, event.token, event.readable, &answers, &mut room)
            {
                *slot = None;
            }
        }
    }
}

fn answer(protocol: &str, size: usize) -> Answer {
    let body = if protocol == "grpc" { vec![0; 5] } else { vec![b'x'; size] };
    let mut whole = format!(
        "HTTP/1.1 200 OK\r\nServer: app\r\nDate: Sat, 22 Nov 2025 22:00:00 GMT\r\nContent-Type: application/json\r\n\
         Cache-Control: no-store\r\nContent-Length: {size}\r\n\r\n"
    )
    .into_bytes();
    whole.extend_from_slice(&body);
    let head = http2::block(&[
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("server", "app"),
        ("grpc-accept-encoding", "identity"),
    ]);
    // A literal without indexing, which leaves the indexes of the head as they are.
    let trailers = b"\x00\x0bgrpc-status\x010".to_vec();
    Answer { is_h2: protocol != "h1", whole, head, trailers, body }
}

impl Conn {
    /// Reads, answers, writes. False: over.
    fn ready(
        &mut self,
        poll: &Poll,
        token: u64,
        readable: bool,
        answers: &[Answer],
        room: &mut [u8],
    ) -> bool {
        let Some(answer) = answers.get(self.answer) else { return false };
        if readable {
            match net::recv(&self.socket, room) {
                Got::Bytes(n) => {
                    let bytes = room.get(..n).unwrap_or_default();
                    let ok =
                        if answer.is_h2 { self.frames(answer, bytes) } else { self.requests(answer, bytes) };
                    if !ok {
                        return false;
                    }
                }
                Got::Nothing => {}
                Got::End => return false,
            }
        }
        let Some(left) = self.out.send(&self.socket) else { return false };
        self.out.look(poll, &self.socket, token, left);
        true
    }

    fn requests(&mut self, answer: &Answer, bytes: &[u8]) -> bool {
        let mut whole = std::mem::take(&mut self.kept);
        let mut rest = if whole.is_empty() {
            bytes
        } else {
            whole.extend_from_slice(bytes);
            &whole[..]
        };
        loop {
            if self.skip > 0 {
                let n = self.skip.min(rest.len() as u64);
                self.skip -= n;
                rest = rest.get(n as usize..).unwrap_or_default();
                if self.skip > 0 {
                    return true;
                }
                self.out.bytes.extend_from_slice(&answer.whole);
            }
            let Some(end) = memmem::find(rest, b"\r\n\r\n") else { break };
            let (head, more) = rest.split_at(end + 4);
            rest = more;
            if !head.starts_with(b"GET") {
                self.skip = content_length(head).unwrap_or(0);
            }
            if self.skip == 0 {
                self.out.bytes.extend_from_slice(&answer.whole);
            }
        }
        self.kept = rest.to_vec();
        true
    }

    fn frames(&mut self, answer: &Answer, bytes: &[u8]) -> bool {
        self.kept.extend_from_slice(bytes);
        let (h2, out) = (&mut self.h2, &mut self.out.bytes);
        let mut rest = &self.kept[..];
        if !h2.has_preface {
            let Some(after) = rest.get(http2::PREFACE.len()..) else { return true };
            rest = after;
            h2.has_preface = true;
            // 1,024 streams (3), windows of streams (4) of 1 MiB.
            http2::frame(out, kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 4, 0, 0, 4, 0, 16, 0, 0]);
            http2::frame(out, kind::WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        }
        while let Some((frame, more)) = http2::take(rest) {
            rest = more;
            let is_ack = frame.flags & http2::ACK != 0;
            match frame.kind {
                kind::DATA | kind::HEADERS => {
                    if frame.kind == kind::DATA {
                        h2.received += frame.payload.len() as u64;
                        if h2.received > WINDOW_STEP {
                            http2::frame(out, kind::WINDOW_UPDATE, 0, 0, &(h2.received as u32).to_be_bytes());
                            h2.received = 0;
                        }
                    }
                    if frame.flags & http2::END_STREAM != 0 {
                        h2.waiting.push_back(frame.stream);
                    }
                }
                kind::SETTINGS if !is_ack => {
                    h2.is_literal |= http2::settings(frame.payload).any(|(id, n)| id == 1 && n < 1024);
                    http2::frame(out, kind::SETTINGS, http2::ACK, 0, &[]);
                }
                kind::PING if !is_ack => http2::frame(out, kind::PING, http2::ACK, 0, frame.payload),
                kind::WINDOW_UPDATE if frame.stream == 0 => h2.window += http2::increment(frame.payload),
                kind::GOAWAY => return false,
                _ => {}
            }
        }
        h2.answer(answer, out);
        let used = self.kept.len() - rest.len();
        self.kept.drain(..used);
        true
    }
}

impl Http2 {
    fn answer(&mut self, answer: &Answer, out: &mut Vec<u8>) {
        let size = answer.body.len() as i64;
        while self.window >= size {
            let Some(stream) = self.waiting.pop_front() else { return };
            self.window -= size;
            let head = match (self.is_literal, self.answered) {
                (true, _) => &answer.head.literal,
                (false, 0) => &answer.head.first,
                (false, _) => &answer.head.later,
            };
            self.answered += 1;
            http2::frame(out, kind::HEADERS, http2::END_HEADERS, stream, head);
            for part in answer.body.chunks(FRAME_MAX) {
                http2::frame(out, kind::DATA, 0, stream, part);
            }
            let flags = http2::END_HEADERS | http2::END_STREAM;
            http2::frame(out, kind::HEADERS, flags, stream, &answer.trailers);
        }
    }
}
