//! One connection of the load: HTTP/1.1 here, HTTP/2 in [`crate::client2`], either within TLS or not.

use crate::Failure;
use crate::client2::Http2;
use crate::net::{self, Got, Outbox, Poll, Wire};
use crate::options::Options;
use crate::tally::Tally;
use memchr::memmem;
use rustls::{ClientConnection, HandshakeKind};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

/// A connection and what is under way on it.
pub(crate) struct Conn {
    socket: Option<OwnedFd>,
    /// Ready for requests: connected, and TLS agreed upon.
    is_up: bool,
    tls: Option<ClientConnection>,
    pub(crate) out: Outbox,
    /// Whether it stands in the queue of those that take another request.
    pub(crate) is_queued: bool,
    /// Whether it had its one request of an `idle` run.
    pub(crate) is_used: bool,
    /// Requests without an answer.
    pub(crate) in_flight: u32,
    /// Input that is not whole yet.
    pub(crate) kept: Vec<u8>,
    /// When it was opened: with a connection per request, latency counts from here.
    pub(crate) opened: u64,
    /// HTTP/1.1: when the requests under way were due, in order.
    dues: VecDeque<u64>,
    body: Body,
    pub(crate) h2: Option<Http2>,
}

/// What is to come of the response under way.
#[derive(Clone, Copy)]
enum Body {
    /// Its head.
    Head,
    /// So many bytes.
    Bytes(u64),
    /// Chunks; the origin sends none, but a proxy may.
    Chunks,
}

impl Conn {
    /// Begins to connect.
    pub(crate) fn open(options: &Options, poll: &Poll, index: usize, turn: usize) -> Result<Self, Failure> {
        let socket = net::connect(options.port, turn)?;
        poll.add(&socket, index as u64, true)?;
        let tls = match &options.tls {
            Some(config) => {
                let mut tls = ClientConnection::new(config.clone(), options.sni.clone())?;
                tls.set_buffer_limit(None);
                Some(tls)
            }
            None => None,
        };
        Ok(Self {
            socket: Some(socket),
            is_up: false,
            tls,
            out: Outbox::new(true),
            is_queued: false,
            is_used: false,
            in_flight: 0,
            kept: Vec::new(),
            opened: net::now(),
            dues: VecDeque::new(),
            body: Body::Head,
            h2: options.h2.then(|| Http2::new(options.streams)),
        })
    }

    /// Whether it is over.
    pub(crate) fn is_closed(&self) -> bool {
        self.socket.is_none()
    }

    /// Ends it.
    pub(crate) fn close(&mut self) {
        self.socket = None;
    }

    /// Ends it because something went wrong.
    pub(crate) fn fail(&mut self, tally: &mut Tally) {
        if tally.on || !self.is_up {
            tally.err += u64::from(self.in_flight.max(1));
        }
        self.in_flight = 0;
        self.close();
    }

    /// Whether it takes another request.
    pub(crate) fn is_free(&self, options: &Options) -> bool {
        let limit = self.h2.as_ref().map_or(options.streams, |h2| h2.free(options));
        self.is_up && !self.is_closed() && self.in_flight < limit
    }

    /// Sends a request at the next flush.
    pub(crate) fn request(&mut self, options: &Options, due: u64, turn: usize) {
        self.in_flight += 1;
        let mut whole = Vec::new();
        match &mut self.h2 {
            Some(h2) => h2.request(options, due, &mut whole),
            None => {
                self.dues.push_back(due);
                if let Some(request) = options.requests.get(turn) {
                    return self.push(request);
                }
            }
        }
        self.push(&whole);
    }

    /// Queues bytes to be sent.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            // Its buffer has no limit.
            Some(tls) => drop(tls.writer().write_all(bytes)),
            None => self.out.bytes.extend_from_slice(bytes),
        }
    }

    /// Sends what can be sent. False: broken.
    pub(crate) fn flush(&mut self, poll: &Poll, index: usize) -> bool {
        let Some(socket) = &self.socket else { return true };
        let mut left = false;
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                match tls.write_tls(&mut Wire(socket)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        left = true;
                        break;
                    }
                    Err(_) => return false,
                }
            }
        } else {
            match self.out.send(socket) {
                Some(more) => left = more,
                None => return false,
            }
        }
        self.out.look(poll, socket, index as u64, left);
        true
    }

    fn came_up(&mut self) {
        self.is_up = true;
        if self.h2.is_some() {
            self.push(&Http2::greeting());
        }
    }

    /// Takes in what is there. False: broken.
    pub(crate) fn ready(&mut self, options: &Options, tally: &mut Tally, room: &mut [u8]) -> bool {
        let Some(socket) = &self.socket else { return true };
        if self.tls.is_some() {
            return self.ready_tls(options, tally, room);
        }
        if !self.is_up {
            let connected = net::is_connected(socket);
            if connected {
                self.came_up();
            }
            return connected;
        }
        match net::recv(socket, room) {
            Got::Bytes(n) => self.input(options, tally, room.get(..n).unwrap_or_default()),
            Got::Nothing => true,
            Got::End => false,
        }
    }

    fn ready_tls(&mut self, options: &Options, tally: &mut Tally, room: &mut [u8]) -> bool {
        let (Some(socket), Some(tls)) = (&self.socket, &mut self.tls) else { return false };
        match tls.read_tls(&mut Wire(socket)) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
        if tls.process_new_packets().is_err() {
            return false;
        }
        if !self.is_up && !tls.is_handshaking() {
            if tally.on {
                match tls.handshake_kind() {
                    Some(HandshakeKind::Resumed) => tally.resumed += 1,
                    _ => tally.full += 1,
                }
            }
            self.came_up();
        }
        loop {
            let Some(tls) = &mut self.tls else { return false };
            match tls.reader().read(room) {
                Ok(0) => return false,
                Ok(n) => {
                    if !self.input(options, tally, room.get(..n).unwrap_or_default()) {
                        return false;
                    }
                }
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    fn input(&mut self, options: &Options, tally: &mut Tally, bytes: &[u8]) -> bool {
        if tally.on {
            tally.bytes += bytes.len() as u64;
        }
        if self.h2.is_some() {
            return self.input_h2(options, tally, bytes);
        }
        if self.kept.is_empty() {
            return self.responses(tally, bytes);
        }
        let mut whole = std::mem::take(&mut self.kept);
        whole.extend_from_slice(bytes);
        self.responses(tally, &whole)
    }

    fn input_h2(&mut self, options: &Options, tally: &mut Tally, bytes: &[u8]) -> bool {
        let Some(h2) = &mut self.h2 else { return false };
        self.kept.extend_from_slice(bytes);
        let mut answer = Vec::new();
        let Some(used) = h2.input(options, tally, &self.kept, &mut answer) else { return false };
        self.in_flight = h2.under_way();
        self.kept.drain(..used);
        if !answer.is_empty() {
            self.push(&answer);
        }
        true
    }

    /// Reads responses; the rest is kept. False: not a response, or not a good one.
    fn responses(&mut self, tally: &mut Tally, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        loop {
            match self.body {
                Body::Head => {
                    let Some(end) = memmem::find(rest, b"\r\n\r\n") else { break };
                    let (head, more) = rest.split_at(end + 4);
                    rest = more;
                    if !head.starts_with(b"HTTP/1.1 200") {
                        self.in_flight -= 1;
                        tally.answer(0, false);
                        return false;
                    }
                    self.body = content_length(head).map_or(Body::Chunks, Body::Bytes);
                    continue;
                }
                Body::Bytes(left) => {
                    let n = left.min(rest.len() as u64);
                    rest = rest.get(n as usize..).unwrap_or_default();
                    if n < left {
                        self.body = Body::Bytes(left - n);
                        return true;
                    }
                }
                Body::Chunks => {
                    // Bodies of the origin have no such bytes, so this is the last chunk.
                    let Some(end) = memmem::find(rest, b"0\r\n\r\n") else { break };
                    rest = rest.get(end + 5..).unwrap_or_default();
                }
            }
            self.body = Body::Head;
            self.in_flight -= 1;
            let Some(due) = self.dues.pop_front() else { return false };
            tally.answer(due, true);
        }
        self.kept = rest.to_vec();
        true
    }
}

/// The value of `content-length` in a head.
pub(crate) fn content_length(head: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"content-length:";
    head.split(|byte| *byte == b'\n')
        .find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))
        .and_then(|line| std::str::from_utf8(line.get(NAME.len()..)?).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_length_is_found_whatever_its_case_and_place() {
        assert_eq!(content_length(b"HTTP/1.1 200 OK\r\nServer: a\r\nCONTENT-length: 12\r\n\r\n"), Some(12));
        assert_eq!(content_length(b"HTTP/1.1 200 OK\r\nX-Content-Length: 12\r\n\r\n"), None);
    }
}
