//! Bodies of the administration's answers.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What an answer says.
pub(super) enum Content {
    /// A text that is there.
    Text(String),
    /// A long text in pieces, each made when the one before was sent.
    Pieces(Box<dyn Iterator<Item = String> + Send>),
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.get_mut() {
            Self::Text(text) => Some(std::mem::take(text)).filter(|text| !text.is_empty()),
            Self::Pieces(pieces) => pieces.find(|piece| !piece.is_empty()),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}
