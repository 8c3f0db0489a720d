//! What the targets of both roles share.

use std::time::Duration;

use outrigger_wire::h2::frame::{FrameHead, HEAD_BYTES};
use outrigger_wire::h2::{Connection, Event, Options, PREFACE, Role, Settings, StreamKey};

/// An empty SETTINGS frame.
pub const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A connection and its owner.
pub struct End {
    pub conn: Connection,
    /// Streams to be let go of at the end.
    pub streams: Vec<StreamKey>,
    role: Role,
    first: bool,
}

impl End {
    pub fn new(role: Role) -> Self {
        let settings = Settings {
            max_concurrent_streams: 20,
            max_header_list_bytes: 60 << 10,
            connect_protocol: role == Role::Server,
            ..Settings::default()
        };
        let options = Options { settings, connection_window: 100_000, max_fields: 100, secure: false };
        let conn = Connection::new(role, options, Duration::ZERO);
        Self { conn, streams: Vec::new(), role, first: true }
    }

    /// Hands octets in, `cut` at a time; `false` when the connection ended.
    pub fn feed(&mut self, data: &[u8], cut: usize, mut on: impl FnMut(&mut Self, &Event<'_>)) -> bool {
        let mut held = Vec::new();
        for part in data.chunks(cut * cut) {
            held.extend_from_slice(part);
            let mut input = &held[..];
            loop {
                match self.conn.receive(&mut input, Duration::from_secs(1)) {
                    Ok(Some(event)) => on(self, &event),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(self.conn.error(), Some(error));
                        self.check_output();
                        return false;
                    }
                }
            }
            let left = input.len();
            assert!(left < (16 << 10) + HEAD_BYTES, "no more than one frame waits");
            held.drain(..held.len() - left);
            self.check_output();
        }
        true
    }

    /// What is sent consists of whole frames the peer may get.
    fn check_output(&mut self) {
        let mut out = Vec::new();
        self.conn.take_output(&mut out);
        let mut rest = &out[..];
        if std::mem::take(&mut self.first) && self.role == Role::Client {
            rest = rest.strip_prefix(&PREFACE[..]).expect("the preface comes first");
        }
        while !rest.is_empty() {
            let head = FrameHead::parse(rest.first_chunk().expect("a whole head"));
            assert_eq!(head.check(16 << 10), Ok(()));
            rest = rest[HEAD_BYTES..].get(head.length..).expect("a whole frame");
        }
    }

    /// Lets go of everything.
    pub fn finish(mut self) {
        for stream in std::mem::take(&mut self.streams) {
            self.conn.release(stream);
        }
        self.check_output();
        assert_eq!(self.conn.lingering_streams(), 0);
        self.conn.shut_down();
        self.check_output();
    }
}
