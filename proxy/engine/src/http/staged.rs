//! A body on its way through stages: filters that change bytes as they stream, or hold them back.
//!
//! A [`StagedReader`] stands where the reader of the message stood, so that those who pass bodies on need not know of it. It
//! reads on only when what it made was consumed: back-pressure holds, and it keeps no more than the stages make of one
//! piece. What stages kept for themselves leaves when nothing more is there yet, so that a stream of small messages is not
//! held up.

use std::task::{Context, Poll, ready};

use outrigger_wire::Trailers;

use super::body::{BodyError, BodyReader, Fill};

/// Most bytes that stages get at a time.
const PIECE_MAX: usize = 16 * 1024;

/// One filter's part in a body.
pub(crate) trait BodyStage: std::fmt::Debug {
    /// Takes a piece, and appends to `out` what is to be passed on for it.
    ///
    /// *Errors*: the body cannot be used; the message is broken off.
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError>;

    /// Nothing more is there yet: appends to `out` what is held.
    fn flush(&mut self, _out: &mut Vec<u8>) -> Result<(), BodyError> {
        Ok(())
    }

    /// The body is over: appends to `out` what is left, and sees to the trailers.
    fn end(&mut self, out: &mut Vec<u8>, trailers: &mut Option<Trailers>) -> Result<(), BodyError>;

    /// Most bytes it takes in a piece: fewer where it makes many of few.
    fn piece_max(&self) -> usize {
        PIECE_MAX
    }

    /// Whether as many bytes come out as go in.
    fn keeps_length(&self) -> bool {
        false
    }

    /// How many of `wanted` bytes it takes now; waits while none.
    fn poll_allowance(&mut self, _cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        Poll::Ready(wanted)
    }
}

/// Stages, in the order that bytes take through them.
pub(crate) type Stages = Vec<Box<dyn BodyStage>>;

/// A body on its way through stages.
#[derive(Debug, Default)]
pub struct StagedReader {
    inner: Option<BodyReader>,
    stages: Stages,
    /// What came out of the last stage, from `taken` on not consumed.
    out: Vec<u8>,
    taken: usize,
    /// Room for what goes from one stage to the next.
    between: Vec<u8>,
    trailers: Option<Trailers>,
    /// Stages may hold something.
    is_dirty: bool,
    /// The stages were told of the end.
    is_over: bool,
    failed: Option<BodyError>,
}

impl StagedReader {
    /// A body that goes through `stages`.
    pub(crate) fn new(inner: BodyReader, stages: Stages) -> Self {
        Self {
            inner: Some(inner),
            stages,
            out: Vec::new(),
            taken: 0,
            between: Vec::new(),
            trailers: None,
            is_dirty: false,
            is_over: false,
            failed: None,
        }
    }

    /// The reader of the message.
    pub(crate) fn into_inner(self) -> Option<BodyReader> {
        self.inner
    }

    pub(super) fn inner(&self) -> Option<&BodyReader> {
        self.inner.as_ref()
    }

    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        loop {
            if self.taken < self.out.len() {
                return Poll::Ready(Ok(Fill::Data));
            }
            self.out.clear();
            self.taken = 0;
            if self.is_over {
                return Poll::Ready(self.failed.map_or(Ok(Fill::End), Err));
            }
            if let Err(error) = ready!(self.poll_more(cx)) {
                self.is_over = true;
                self.failed = Some(error);
                // What came before the fault is still passed on.
            }
        }
    }

    /// Waits until the body is here as a whole, at most `limit` bytes of it; `None`: there are more.
    pub(crate) fn poll_whole(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<usize>, BodyError>> {
        loop {
            let held = self.out.len() - self.taken;
            if held > limit {
                return Poll::Ready(Ok(None));
            }
            if self.is_over {
                return Poll::Ready(self.failed.map_or(Ok(Some(held)), Err));
            }
            if let Err(error) = ready!(self.poll_more(cx)) {
                self.is_over = true;
                self.failed = Some(error);
            }
        }
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.out.len() - self.taken
    }

    /// Takes a step: a piece, what is held, or the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(Err(BodyError::Closed)) };
        match inner.poll_fill(cx) {
            Poll::Ready(Ok(Fill::Data)) => {
                let mut length = inner.data().len();
                for stage in &mut self.stages {
                    length = length.min(stage.piece_max());
                    length = ready!(stage.poll_allowance(cx, length));
                }
                let piece = inner.data().get(..length).unwrap_or_default();
                self.is_dirty = true;
                let done = through(
                    &mut self.stages,
                    piece,
                    Step::Piece,
                    &mut self.out,
                    &mut self.between,
                    &mut None,
                );
                inner.consume(length);
                Poll::Ready(done)
            }
            Poll::Ready(Ok(Fill::End)) => {
                self.trailers = inner.take_trailers();
                self.is_over = true;
                let Self { stages, out, between, trailers, .. } = self;
                let done = through(stages, &[], Step::End, out, between, trailers);
                if let Err(error) = done {
                    self.failed = Some(error);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if std::mem::take(&mut self.is_dirty) => {
                // The body has seen to its being woken; what is held leaves meanwhile.
                let done =
                    through(&mut self.stages, &[], Step::Flush, &mut self.out, &mut self.between, &mut None);
                match done {
                    Ok(()) if self.out.len() == self.taken => Poll::Pending,
                    done => Poll::Ready(done),
                }
            }
            Poll::Pending => Poll::Pending,
        }
    }

    pub(super) fn data(&self) -> &[u8] {
        self.out.get(self.taken..).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.taken = self.taken.saturating_add(n).min(self.out.len());
    }

    pub(super) fn ends_after_data(&self) -> bool {
        self.is_over && self.failed.is_none() && self.trailers.as_ref().is_none_or(Trailers::is_empty)
    }

    pub(super) fn trailers(&self) -> Option<&Trailers> {
        self.trailers.as_ref()
    }

    pub(super) fn take_trailers(&mut self) -> Option<Trailers> {
        self.trailers.take()
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over && self.failed.is_none() && self.taken == self.out.len()
    }
}

/// What stages are told.
#[derive(Clone, Copy)]
enum Step {
    Piece,
    Flush,
    End,
}

/// Sends a piece, a flush or the end through all stages; appends what comes out to `out`.
fn through(
    stages: &mut Stages,
    piece: &[u8],
    step: Step,
    out: &mut Vec<u8>,
    between: &mut Vec<u8>,
    trailers: &mut Option<Trailers>,
) -> Result<(), BodyError> {
    if let [stage] = stages.as_mut_slice() {
        return one(&mut **stage, piece, step, out, trailers);
    }
    let mut current = piece.to_vec();
    for stage in stages {
        between.clear();
        one(&mut **stage, &current, step, between, trailers)?;
        std::mem::swap(&mut current, between);
    }
    out.extend_from_slice(&current);
    Ok(())
}

fn one(
    stage: &mut dyn BodyStage,
    piece: &[u8],
    step: Step,
    out: &mut Vec<u8>,
    trailers: &mut Option<Trailers>,
) -> Result<(), BodyError> {
    if !piece.is_empty() {
        stage.push(piece, out)?;
    }
    match step {
        Step::Piece => Ok(()),
        Step::Flush => stage.flush(out),
        Step::End => stage.end(out, trailers),
    }
}

/// What stages make of a body that is there as a whole, and its trailers.
pub(crate) fn whole(mut stages: Stages, body: &[u8]) -> Result<(Vec<u8>, Option<Trailers>), BodyError> {
    let (mut out, mut between, mut trailers) = (Vec::new(), Vec::new(), None);
    through(&mut stages, body, Step::End, &mut out, &mut between, &mut trailers)?;
    Ok((out, trailers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Doubles every byte at the end of the body or when it is flushed.
    #[derive(Debug, Default)]
    struct Doubling(Vec<u8>);

    impl BodyStage for Doubling {
        fn push(&mut self, piece: &[u8], _out: &mut Vec<u8>) -> Result<(), BodyError> {
            self.0.extend(piece.iter().flat_map(|byte| [*byte, *byte]));
            Ok(())
        }

        fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
            out.append(&mut self.0);
            Ok(())
        }

        fn end(&mut self, out: &mut Vec<u8>, trailers: &mut Option<Trailers>) -> Result<(), BodyError> {
            out.append(&mut self.0);
            out.push(b'.');
            let mut section = Trailers::default();
            section.append(b"x", b"1");
            *trailers = Some(section);
            Ok(())
        }
    }

    #[test]
    fn stages_follow_each_other_and_each_hears_of_the_end() {
        let stages: Stages = vec![Box::new(Doubling::default()), Box::new(Doubling::default())];
        let (body, trailers) = whole(stages, b"ab").unwrap();
        assert_eq!(body, b"aaaabbbb...");
        assert_eq!(trailers.unwrap().len(), 1);
    }
}
