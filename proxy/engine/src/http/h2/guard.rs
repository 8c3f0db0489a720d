//! Counts what a peer makes us do without asking for anything: SETTINGS and PING frames, each of which must be answered
//! (CVE-2019-9512, CVE-2019-9515).
//!
//! The guard only looks at frame headers passing by. Control frames draw on an allowance that frames of streams and time
//! fill up again; when it is used up, the connection ends. Envoy bounds the answers waiting to be sent instead
//! (`max_outbound_control_frames`), which a peer that reads them never reaches.

use std::time::Duration;
use tokio::time::Instant;

/// Control frames in a row. A gRPC peer sends a PING per read at worst, and reads carry stream frames.
const ALLOWANCE: u32 = 1000;
/// What one DATA or HEADERS frame gives back.
const PER_STREAM_FRAME: u32 = 4;
/// What time gives back.
const PER_SECOND: u32 = 100;
/// Octets of a frame header (RFC 9113 §4.1).
const HEADER: usize = 9;
/// Octets of the client's connection preface.
const PREFACE: usize = 24;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;

/// The allowance of one connection.
#[derive(Debug)]
pub(super) struct FrameGuard {
    header: [u8; HEADER],
    have: usize,
    /// Octets to pass before the next frame header.
    skip: usize,
    left: u32,
    filled: Instant,
    /// The first frame was seen. It must be SETTINGS (RFC 9113 §3.4).
    opened: bool,
}

impl FrameGuard {
    /// A connection before its first octet.
    pub(super) fn new() -> Self {
        Self {
            header: [0; HEADER],
            have: 0,
            skip: PREFACE,
            left: ALLOWANCE,
            filled: Instant::now(),
            opened: false,
        }
    }

    /// Looks at octets that arrived; `false` when the connection must end.
    pub(super) fn pass(&mut self, mut octets: &[u8]) -> bool {
        while !octets.is_empty() {
            let skipped = self.skip.min(octets.len());
            self.skip -= skipped;
            octets = octets.get(skipped..).unwrap_or_default();
            let wanted = (HEADER - self.have).min(octets.len());
            let (head, rest) = octets.split_at(wanted);
            if let Some(room) = self.header.get_mut(self.have..self.have + wanted) {
                room.copy_from_slice(head);
            }
            self.have += wanted;
            octets = rest;
            if self.have == HEADER {
                self.have = 0;
                let [a, b, c, kind, ..] = self.header;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if !self.count(kind) {
                    return false;
                }
            }
        }
        true
    }

    fn count(&mut self, kind: u8) -> bool {
        if !self.opened {
            self.opened = true;
            return kind == SETTINGS;
        }
        match kind {
            DATA | HEADERS => self.left = (self.left + PER_STREAM_FRAME).min(ALLOWANCE),
            SETTINGS | PING => {
                if self.left == 0 {
                    self.fill();
                }
                let Some(left) = self.left.checked_sub(1) else { return false };
                self.left = left;
            }
            _ => {}
        }
        true
    }

    fn fill(&mut self) {
        let now = Instant::now();
        let since = now.saturating_duration_since(self.filled).min(Duration::from_secs(60));
        let gained = u32::try_from(since.as_millis()).unwrap_or(u32::MAX).saturating_mul(PER_SECOND) / 1000;
        if gained > 0 {
            self.left = gained.min(ALLOWANCE);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut octets = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 0];
        octets.resize(HEADER + payload, kind);
        octets
    }

    #[tokio::test(start_paused = true)]
    async fn control_frames_at_the_allowance_pass_and_one_past_ends_the_connection() {
        for kind in [SETTINGS, PING] {
            let mut guard = FrameGuard::new();
            assert!(guard.pass(&[b'P'; PREFACE]) && guard.pass(&frame(SETTINGS, 0)));
            for _ in 0..ALLOWANCE {
                assert!(guard.pass(&frame(kind, 8)));
            }
            assert!(!guard.pass(&frame(kind, 8)), "{kind}");
        }
    }

    #[test]
    fn connection_that_does_not_begin_with_settings_ends() {
        for kind in [DATA, HEADERS, PING] {
            let mut guard = FrameGuard::new();
            assert!(guard.pass(&[b'P'; PREFACE]));
            assert!(!guard.pass(&frame(kind, 8)), "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn streams_and_time_fill_the_allowance() {
        let mut guard = FrameGuard::new();
        assert!(guard.pass(&[b'P'; PREFACE]) && guard.pass(&frame(SETTINGS, 0)));
        for _ in 0..3 * ALLOWANCE {
            assert!(guard.pass(&frame(DATA, 100)) && guard.pass(&frame(PING, 8)));
        }
        // The last PING took one of them.
        for _ in 0..ALLOWANCE - 1 {
            assert!(guard.pass(&frame(PING, 8)));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..PER_SECOND {
            assert!(guard.pass(&frame(PING, 8)));
        }
        assert!(!guard.pass(&frame(PING, 8)));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_found_however_the_octets_are_cut() {
        let mut octets = vec![b'P'; PREFACE];
        octets.extend(frame(SETTINGS, 6));
        for payload in [0, 1, 8, 300] {
            octets.extend(frame(PING, payload));
            octets.extend(frame(0x9, payload));
        }
        for cut in 1..octets.len() {
            let mut guard = FrameGuard::new();
            for part in octets.chunks(cut) {
                assert!(guard.pass(part));
            }
            assert_eq!((guard.left, guard.have, guard.skip), (ALLOWANCE - 4, 0, 0), "cut {cut}");
        }
    }
}
