//! The request body on its way to the upstream, kept (up to a limit) for another attempt.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use outrigger_wire::h1::BodyLength;
use tokio::time::Instant;

use super::mirror::Mirrors;
use super::retry::Replay;
use super::timeout::Clock;
use crate::http::body::{BodyReader, BodyWriter, Failed, Fill, Progress, fill_or_flush};

/// Sends the request body: first what earlier attempts kept, then what comes.
pub(super) struct Upload<'a> {
    /// Time limits of the stream.
    pub(super) clock: &'a Clock,
    /// The route's timeout, which runs from the end of the request.
    pub(super) timeout: Option<Duration>,
    /// Trailers may travel on.
    pub(super) trailers: bool,
    /// What follows on the downstream's stream is for a tunnel and no body.
    pub(super) tunnel: bool,
    /// When the attempt began.
    pub(super) started: Instant,
    /// When the last byte had arrived.
    pub(super) end: &'a Cell<Option<Instant>>,
    /// Copies that leave then.
    pub(super) mirrors: Option<(&'a Mirrors, BodyLength)>,
}

impl Upload<'_> {
    /// Sends until the end.
    pub(super) async fn run(
        self,
        reader: &mut BodyReader,
        writer: &mut BodyWriter,
        replay: &RefCell<Replay>,
    ) -> Result<(), Failed> {
        // A copy, because this future may be dropped in the middle and yet another attempt needs the bytes.
        let kept = replay.borrow().kept.clone();
        send_all(writer, &kept).await?;
        if self.tunnel {
            replay.borrow_mut().ended = true;
            self.complete(self.started);
            writer.finish(None).map_err(Failed::Sink)?;
            return writer.flush().await.map_err(Failed::Sink);
        }
        // The time, as long as nothing was waited for.
        let mut now = kept.is_empty().then_some(self.started);
        loop {
            let (fill, waited) = fill_or_flush(reader, writer).await?;
            match fill {
                Fill::Data => {
                    now = None;
                    self.pass(reader, writer, replay).await?;
                    self.clock.moved();
                }
                Fill::End => {
                    replay.borrow_mut().ended = true;
                    self.complete(now.filter(|_| !waited).unwrap_or_else(Instant::now));
                    if let Some((mirrors, length)) = self.mirrors {
                        let replay = replay.borrow();
                        if replay.lost {
                            mirrors.abandon();
                        } else {
                            mirrors.launch(&replay.kept, length, reader.trailers());
                        }
                    }
                    let trailers = reader.trailers().filter(|section| self.trailers && !section.is_empty());
                    writer.finish(trailers).map_err(Failed::Sink)?;
                    return writer.flush().await.map_err(Failed::Sink);
                }
            }
        }
    }

    async fn pass(
        &self,
        reader: &mut BodyReader,
        writer: &mut BodyWriter,
        replay: &RefCell<Replay>,
    ) -> Result<(), Failed> {
        let piece = {
            let mut replay = replay.borrow_mut();
            let data = reader.data();
            replay.keep(data);
            (!replay.lost).then_some(data.len())
        };
        match piece {
            None => writer.send_from(reader).await.map(|_| ()).map_err(Failed::Sink),
            Some(length) => {
                // Kept already, so it counts as taken even when sending is given up in the middle.
                let bytes = bytes::Bytes::copy_from_slice(reader.data());
                reader.consume(length);
                send_all(writer, &bytes).await
            }
        }
    }

    /// The request arrived: the route's timeout begins.
    fn complete(&self, now: Instant) {
        self.end.set(Some(now));
        self.clock.request_complete(now, self.timeout);
    }
}

async fn send_all(writer: &mut BodyWriter, mut data: &[u8]) -> Result<(), Failed> {
    while !data.is_empty() {
        let n = writer.send(data, false).await.map_err(Failed::Sink)?;
        data = data.get(n..).unwrap_or_default();
    }
    Ok(())
}
