//! DATA frames: handed on as they arrive, without waiting for a whole frame.

use super::super::error::H2Error;
use super::super::frame::put_window_update;
use super::super::frame::{END_STREAM, FrameHead, HEAD_BYTES, PADDED};
use super::super::stream::{Receive, StreamKey};
use super::receive::{Fault, Step, Stepped};
use super::{Connection, Event, Place};

/// A DATA frame that arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arriving {
    stream: StreamKey,
    /// Octets of data still to come.
    left: usize,
    /// Octets of padding behind them.
    padding: usize,
    ended: bool,
}

impl Connection {
    /// A DATA frame begins. `rest` is the input behind the frame head.
    pub(super) fn data_head<'a>(
        &mut self,
        head: FrameHead,
        rest: &'a [u8],
        input: &mut &'a [u8],
    ) -> Stepped<'a> {
        let (padding, overhead) = if head.has(PADDED) {
            let Some(padding) = rest.first() else { return Ok(Step::Starved) };
            (usize::from(*padding), 1)
        } else {
            (0, 0)
        };
        let Some(left) = head.length.checked_sub(padding + overhead) else {
            return Err(H2Error::BadPadding.into());
        };
        *input = input.get(HEAD_BYTES + overhead..).unwrap_or_default();
        let ended = head.has(END_STREAM);
        self.place = Place::Skip(left + padding);
        if self.is_idle(head.stream) {
            return Err(H2Error::IdleStream.into());
        }
        self.incoming.arrived(head.length)?;
        self.guard.stream_frame();
        self.guard.data_frame(left > 0 || ended)?;
        match self.take_data(head.stream, head.length, left, ended) {
            Ok(Some(stream)) => {
                // Padding is used up by arriving.
                self.grant(Some(stream), padding + overhead);
                self.place = Place::Data(Arriving { stream, left, padding, ended });
                Ok(Step::Taken)
            }
            Ok(None) => {
                self.grant(None, head.length);
                Ok(Step::Taken)
            }
            Err(error) => {
                self.grant(None, head.length);
                Err(Fault::Stream(head.stream, error))
            }
        }
    }

    /// Counts a frame's data towards its stream; `None` when it is to be ignored.
    fn take_data(
        &mut self,
        id: u32,
        length: usize,
        data: usize,
        ended: bool,
    ) -> Result<Option<StreamKey>, H2Error> {
        let Some(key) = self.streams.find(id) else {
            let expected = self.is_ignored(id) || self.streams.was_reset(id) == Some(true);
            return if expected { Ok(None) } else { Err(H2Error::ClosedStream) };
        };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(None) };
        if stream.is_cut_by_us() {
            return Ok(None);
        }
        match stream.receive {
            Receive::Head => return Err(H2Error::DataBeforeHead),
            Receive::Ended => return Err(H2Error::ClosedStream),
            Receive::Body => {}
        }
        stream.incoming.arrived(length)?;
        if let Some(left) = &mut stream.length_left {
            match left.checked_sub(data as u64) {
                Some(rest) if rest == 0 || !ended => *left = rest,
                _ => return Err(H2Error::ContentLengthMismatch),
            }
        }
        stream.unread += data;
        Ok(Some(key))
    }

    /// Data of a frame whose head has been judged.
    pub(super) fn data_octets<'a>(&mut self, mut arriving: Arriving, input: &mut &'a [u8]) -> Step<'a> {
        let n = arriving.left.min(input.len());
        if n == 0 && arriving.left > 0 {
            return Step::Starved;
        }
        let (octets, rest) = input.split_at(n);
        *input = rest;
        arriving.left -= n;
        let ended = arriving.ended && arriving.left == 0;
        self.place = if arriving.left == 0 { Place::Skip(arriving.padding) } else { Place::Data(arriving) };
        let key = arriving.stream;
        let Some(stream) = self.streams.get(key) else { return Step::Taken };
        if stream.end.is_some() || !stream.held || (octets.is_empty() && !ended) {
            return Step::Taken;
        }
        if ended {
            self.streams.change(key, |stream| stream.receive = Receive::Ended);
        }
        Step::Event(Event::Data { stream: key, octets, ended })
    }

    /// The owner has used `n` octets of data: the peer may send as many more.
    pub fn consumed(&mut self, stream: StreamKey, n: usize) {
        let mut used = 0;
        if let Some(stream) = self.streams.get_mut(stream) {
            used = n.min(stream.unread);
            stream.unread -= used;
        }
        self.grant(Some(stream), used);
    }

    /// Gives `n` octets back to the windows.
    pub(super) fn grant(&mut self, stream: Option<StreamKey>, n: usize) {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        if n == 0 {
            return;
        }
        if let Some(key) = stream
            && let Some(stream) = self.streams.get_mut(key)
            && stream.receive == Receive::Body
            && let Some(more) = stream.incoming.used(n)
        {
            put_window_update(&mut self.output, key.id(), more);
        }
        if let Some(more) = self.incoming.used(n) {
            put_window_update(&mut self.output, 0, more);
        }
    }
}
