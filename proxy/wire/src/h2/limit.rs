//! What a peer may make us do without asking for anything, each with its default and the error that names it.
//!
//! Counted frames draw on an [`Allowance`], which useful frames and time fill up again: a peer that works is never
//! stopped, however long its connection lives.

use std::time::Duration;

use super::error::H2Error;

/// SETTINGS and PING frames in a row, each of which must be answered (CVE-2019-9512, CVE-2019-9515). A gRPC peer sends a
/// PING per read at worst, and reads carry stream frames. Envoy bounds the answers waiting to be sent instead, which a
/// peer that reads them never reaches.
pub const CONTROL_FRAMES: u32 = 1000;
/// What one DATA or HEADERS frame gives back of [`CONTROL_FRAMES`].
const CONTROL_PER_STREAM_FRAME: u32 = 4;
/// What a second gives back of [`CONTROL_FRAMES`].
const CONTROL_PER_SECOND: u32 = 100;

/// Frames without effect in a row: PRIORITY, unknown types, WINDOW_UPDATE and RST_STREAM (Envoy:
/// `max_inbound_priority_frames_per_stream`, `max_inbound_window_update_frames_per_data_frame_sent`).
pub const IDLE_FRAMES: u32 = 10_000;
/// What one stream or one DATA frame of ours gives back of [`IDLE_FRAMES`].
const IDLE_PER_STREAM_FRAME: u32 = 10;
/// What a second gives back of [`IDLE_FRAMES`].
const IDLE_PER_SECOND: u32 = 1000;

/// DATA frames without data in a row that do not end a stream (CVE-2019-9518). Envoy's default is 1
/// (`max_consecutive_inbound_frames_with_empty_payload`); some clients flush with them.
pub const EMPTY_DATA_FRAMES: u32 = 100;

/// Resets of ours that a peer may provoke (MadeYouReset, CVE-2025-8671).
pub const RESETS_PROVOKED: u32 = 256;
/// What a second gives back of [`RESETS_PROVOKED`].
const RESETS_PER_SECOND: u32 = 4;

/// From so many streams on, the share of those reset before their answer is looked at (CVE-2023-44487; Envoy's default of
/// `overload.premature_reset_total_stream_count`). Not lower: the peer may be a proxy that passes on the resets of many
/// clients, and its connection is shared by all of them.
pub const RESET_SAMPLE: u32 = 500;

/// Streams that the peer reset and whose task has not ended yet. The owner lets them end first when half of it is
/// reached, so that only an owner that does not ever meets the limit.
pub const RESETS_PENDING: usize = 256;

/// CONTINUATION frames of one block (CVE-2024-27316).
pub const CONTINUATION_FRAMES: u32 = 64;
/// Octets of a block that is cut into frames, in multiples of the largest header list.
pub const BLOCK_SHARE: usize = 2;

/// Interim responses to one request.
pub const INTERIM_RESPONSES: u32 = 100;

/// Octets of answers to control frames, resets and window updates that wait to be sent.
pub const CONTROL_OUTPUT_BYTES: usize = 64 << 10;

/// Octets of output beyond which no more data is taken in, so that one write sends it and a peer that does not read
/// keeps no more of our memory.
pub const OUTPUT_BYTES: usize = 64 << 10;

/// An allowance.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    left: u32,
    most: u32,
    per_second: u32,
    filled: Duration,
}

impl Allowance {
    /// A full allowance.
    #[must_use]
    pub const fn new(most: u32, per_second: u32) -> Self {
        Self { left: most, most, per_second, filled: Duration::ZERO }
    }

    /// Gives `n` back.
    pub fn give(&mut self, n: u32) {
        self.left = self.left.saturating_add(n).min(self.most);
    }

    /// Takes one; `false` when nothing is left. Time is looked at only then.
    pub fn take(&mut self, now: Duration) -> bool {
        if self.left == 0 {
            let since = now.saturating_sub(self.filled).min(Duration::from_secs(3600));
            let gained = u32::try_from(since.as_millis())
                .unwrap_or(u32::MAX)
                .saturating_mul(self.per_second.min(1000))
                / 1000;
            if gained > 0 {
                self.left = gained.min(self.most);
                self.filled = now;
            }
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// All allowances of a connection.
#[derive(Debug)]
pub struct Guard {
    control: Allowance,
    idle: Allowance,
    provoked: Allowance,
    empty_data: u32,
    streams: u32,
    reset_early: u32,
    now: Duration,
}

impl Guard {
    /// A connection that begins at `now`.
    #[must_use]
    pub const fn new(now: Duration) -> Self {
        let mut guard = Self {
            control: Allowance::new(CONTROL_FRAMES, CONTROL_PER_SECOND),
            idle: Allowance::new(IDLE_FRAMES, IDLE_PER_SECOND),
            provoked: Allowance::new(RESETS_PROVOKED, RESETS_PER_SECOND),
            empty_data: 0,
            streams: 0,
            reset_early: 0,
            now,
        };
        guard.control.filled = now;
        guard.idle.filled = now;
        guard.provoked.filled = now;
        guard
    }

    /// The time until the next call.
    pub const fn tick(&mut self, now: Duration) {
        self.now = now;
    }

    /// A DATA or HEADERS frame arrived.
    pub fn stream_frame(&mut self) {
        self.control.give(CONTROL_PER_STREAM_FRAME);
    }

    /// A stream began, or data of ours was sent: both are answered by frames that have no effect otherwise.
    pub fn useful(&mut self) {
        self.idle.give(IDLE_PER_STREAM_FRAME);
    }

    /// A SETTINGS or PING frame arrived.
    ///
    /// *Errors*: too many.
    pub fn control_frame(&mut self) -> Result<(), H2Error> {
        if self.control.take(self.now) { Ok(()) } else { Err(H2Error::ControlFlood) }
    }

    /// A frame without effect arrived.
    ///
    /// *Errors*: too many.
    pub fn idle_frame(&mut self) -> Result<(), H2Error> {
        if self.idle.take(self.now) { Ok(()) } else { Err(H2Error::IdleFrameFlood) }
    }

    /// A DATA frame arrived; `effect` tells that it has data or an end.
    ///
    /// *Errors*: too many without.
    pub const fn data_frame(&mut self, effect: bool) -> Result<(), H2Error> {
        if effect {
            self.empty_data = 0;
            return Ok(());
        }
        self.empty_data += 1;
        if self.empty_data > EMPTY_DATA_FRAMES { Err(H2Error::EmptyDataFlood) } else { Ok(()) }
    }

    /// A stream began.
    pub fn stream(&mut self) {
        self.streams = self.streams.saturating_add(1);
        self.useful();
    }

    /// The peer reset a stream that was not answered yet.
    ///
    /// *Errors*: most streams end like that.
    pub const fn reset_early(&mut self) -> Result<(), H2Error> {
        self.reset_early = self.reset_early.saturating_add(1);
        if self.streams >= RESET_SAMPLE && self.reset_early > self.streams / 2 {
            Err(H2Error::RapidReset)
        } else {
            Ok(())
        }
    }

    /// The peer made us reset a stream.
    ///
    /// *Errors*: too often.
    pub fn provoked(&mut self) -> Result<(), H2Error> {
        if self.provoked.take(self.now) { Ok(()) } else { Err(H2Error::ResetsProvoked) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard::new(Duration::from_secs(5))
    }

    #[test]
    fn control_frames_at_the_allowance_pass_and_one_past_does_not() {
        let mut guard = guard();
        guard.tick(Duration::from_secs(5));
        for _ in 0..CONTROL_FRAMES {
            assert_eq!(guard.control_frame(), Ok(()));
        }
        assert_eq!(guard.control_frame(), Err(H2Error::ControlFlood));
    }

    #[test]
    fn streams_and_time_fill_the_allowance() {
        let mut guard = guard();
        guard.tick(Duration::from_secs(5));
        for _ in 0..3 * CONTROL_FRAMES {
            guard.stream_frame();
            assert_eq!(guard.control_frame(), Ok(()));
        }
        while guard.control_frame().is_ok() {}
        guard.tick(Duration::from_secs(6));
        for _ in 0..CONTROL_PER_SECOND {
            assert_eq!(guard.control_frame(), Ok(()));
        }
        assert_eq!(guard.control_frame(), Err(H2Error::ControlFlood));
    }

    #[test]
    fn idle_frames_at_the_allowance_pass_and_one_past_does_not() {
        let mut guard = guard();
        guard.tick(Duration::from_secs(5));
        for _ in 0..IDLE_FRAMES {
            assert_eq!(guard.idle_frame(), Ok(()));
        }
        assert_eq!(guard.idle_frame(), Err(H2Error::IdleFrameFlood));
        guard.useful();
        assert_eq!(guard.idle_frame(), Ok(()));
    }

    #[test]
    fn empty_data_at_the_limit_passes_and_one_past_does_not() {
        let mut guard = guard();
        for _ in 0..EMPTY_DATA_FRAMES {
            assert_eq!(guard.data_frame(false), Ok(()));
        }
        assert_eq!(guard.data_frame(false), Err(H2Error::EmptyDataFlood));
        assert_eq!(guard.data_frame(true), Ok(()));
        assert_eq!(guard.data_frame(false), Ok(()));
    }

    #[test]
    fn early_resets_count_from_the_sample_on() {
        let mut guard = guard();
        for _ in 0..RESET_SAMPLE - 1 {
            guard.stream();
            assert_eq!(guard.reset_early(), Ok(()));
        }
        guard.stream();
        assert_eq!(guard.reset_early(), Err(H2Error::RapidReset));
        let mut half = self::guard();
        for _ in 0..RESET_SAMPLE {
            half.stream();
        }
        for _ in 0..RESET_SAMPLE / 2 {
            assert_eq!(half.reset_early(), Ok(()));
        }
        assert_eq!(half.reset_early(), Err(H2Error::RapidReset));
    }

    #[test]
    fn provoked_resets_at_the_limit_pass_and_one_past_does_not() {
        let mut guard = guard();
        guard.tick(Duration::from_secs(5));
        for _ in 0..RESETS_PROVOKED {
            assert_eq!(guard.provoked(), Ok(()));
        }
        assert_eq!(guard.provoked(), Err(H2Error::ResetsProvoked));
    }
}
