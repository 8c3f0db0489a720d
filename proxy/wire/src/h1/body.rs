//! Reading a body of any framing by one interface that never copies data.

use super::chunk::ChunkDecoder;
use super::{BodyLength, H1Error, Limits};
use crate::field::FieldBlock;

/// What the next bytes of a body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyStep {
    /// `skip` bytes of framing, then `len` (at least 1) bytes of data. Drop `skip`, use `len`, and step
    /// again with what follows.
    Data {
        /// Bytes of framing to drop.
        skip: usize,
        /// Bytes of data behind them.
        len: usize,
    },
    /// All of the input was framing and is consumed; the body goes on.
    NeedMore {
        /// Bytes to drop: the whole input.
        consumed: usize,
    },
    /// The body is over; what follows belongs to the next message.
    End {
        /// Bytes of framing to drop.
        consumed: usize,
    },
}

/// Counts down a body of known length.
#[derive(Clone, Copy, Debug)]
pub struct LengthDecoder {
    remaining: u64,
}

impl LengthDecoder {
    /// A body of `length` bytes.
    #[must_use]
    pub const fn new(length: u64) -> Self {
        Self { remaining: length }
    }

    /// Bytes still to come.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes what belongs to the body from the front of `input`.
    pub fn step(&mut self, input: &[u8]) -> BodyStep {
        if self.remaining == 0 {
            return BodyStep::End { consumed: 0 };
        }
        let len = usize::try_from(self.remaining).map_or(input.len(), |remaining| remaining.min(input.len()));
        self.remaining -= len as u64;
        if len == 0 { BodyStep::NeedMore { consumed: 0 } } else { BodyStep::Data { skip: 0, len } }
    }
}

/// Reads the body a head declared.
#[derive(Debug)]
pub enum BodyDecoder {
    /// No body.
    None,
    /// Known length.
    Length(LengthDecoder),
    /// Chunked transfer coding.
    Chunked(ChunkDecoder),
    /// Until the connection ends.
    UntilClose,
}

impl BodyDecoder {
    /// The decoder for a framing.
    #[must_use]
    pub fn new(length: BodyLength) -> Self {
        match length {
            BodyLength::None => Self::None,
            BodyLength::Length(length) => Self::Length(LengthDecoder::new(length)),
            BodyLength::Chunked => Self::Chunked(ChunkDecoder::default()),
            BodyLength::UntilClose => Self::UntilClose,
        }
    }

    /// Tells what the front of `input` is. Call it with bytes not yet dropped or used, until
    /// [`BodyStep::End`]; call it again after [`BodyStep::Data`] even when nothing is left, or ask
    /// [`is_complete`](Self::is_complete).
    ///
    /// # Errors
    /// Bad chunk framing, a forbidden trailer field or a limit passed. The decoder repeats its error.
    pub fn step(&mut self, input: &[u8], limits: &Limits) -> Result<BodyStep, H1Error> {
        match self {
            Self::None => Ok(BodyStep::End { consumed: 0 }),
            Self::Length(decoder) => Ok(decoder.step(input)),
            Self::Chunked(decoder) => decoder.step(input, limits),
            Self::UntilClose if input.is_empty() => Ok(BodyStep::NeedMore { consumed: 0 }),
            Self::UntilClose => Ok(BodyStep::Data { skip: 0, len: input.len() }),
        }
    }

    /// Whether the body is known to be over without another byte.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        match self {
            Self::None => true,
            Self::Length(decoder) => decoder.remaining == 0,
            Self::Chunked(decoder) => decoder.is_complete(),
            Self::UntilClose => false,
        }
    }

    /// The connection ended: is that a proper end of this body?
    ///
    /// # Errors
    /// [`H1Error::UnexpectedEof`] when more was announced (RFC 9112 §8).
    pub const fn end_of_input(&self) -> Result<(), H1Error> {
        if matches!(self, Self::UntilClose) || self.is_complete() {
            Ok(())
        } else {
            Err(H1Error::UnexpectedEof)
        }
    }

    /// Trailers of a chunked body that is complete; `None` when there were none.
    #[must_use]
    pub fn trailers(&self) -> Option<&FieldBlock> {
        match self {
            Self::Chunked(decoder) => decoder.trailers(),
            Self::None | Self::Length(_) | Self::UntilClose => None,
        }
    }
}
