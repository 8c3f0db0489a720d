//! The second half of an express exchange: its response is passed on.

use outrigger_wire::h1::ResponseFraming;
use tokio::time::Instant;

use super::super::attempt::{self, End, First};
use super::super::retry::wants_response;
use super::super::set_out::Talk;
use super::super::{Exchange, finish, recycle, response};
use super::Express;
use crate::error::ProxyError;
use crate::http::body::{BodyReader, BodyWriter, Fill};

impl Express {
    /// Passes the response on, or leaves where that would have to wait.
    pub(super) fn complete(mut self: Box<Self>, now: Instant) {
        let Some(framing) = self.take_response() else { return self.leave() };
        let First::Talking(talk, _) = std::mem::take(&mut self.first) else { return };
        match self.pass_on(talk, framing, now) {
            End::Done => {
                finish::finish(&mut self.x, &mut self.notes);
                let memory = self.x.front.worker().memory.clone();
                memory.keep_body(std::mem::take(&mut self.shared.replay.kept));
                if let Some(trailers) = self.notes.trailers.take() {
                    memory.keep_trailers(trailers);
                }
                // The rest of it is dropped where it is.
                let Self { x, .. } = *self;
                recycle(x);
            }
            end => {
                self.first = First::Ended(end);
                self.go_on();
            }
        }
    }

    /// The head of a response that is here as a whole and that the downstream has room for.
    fn take_response(&mut self) -> Option<ResponseFraming> {
        let First::Talking(talk, _) = &mut self.first else { return None };
        let BodyReader::H2(up) = &mut talk.stream.halves.reader else { return None };
        let BodyWriter::H2(down) = &self.x.front.responder.writer else { return None };
        if up.whole_response()? > down.room() {
            return None;
        }
        let memory = self.x.front.connection.worker.memory.clone();
        self.x.front.response = memory.response();
        up.response_now(&mut self.x.front.response)
    }

    /// What [`super::super::converse`] does between a response head and the end of the attempt.
    fn pass_on(&mut self, talk: Talk, framing: ResponseFraming, now: Instant) -> End {
        let Self { x, notes, plan, shared, .. } = self;
        let Talk { held, mut stream } = talk;
        notes.timeline.request_end = notes.timeline.request_end.or(Some(held.sent));
        notes.timeline.upstream_request_end = Some(held.sent);
        notes.timeline.response_start = Some(now);
        x.front.clock.end_attempt();
        let call = held.call(plan);
        let end = match wants_response(&x.front, notes, plan, shared) {
            Some((after, permit)) => {
                response::count(&x.front, notes, &call, now);
                let worker = x.front.worker().clone();
                stream.give_back(&worker, true, now);
                End::Again(permit, after)
            }
            None => {
                let passed = response::begin(&mut x.front, notes, plan, framing, now)
                    .and_then(|()| copy(x, &mut stream.halves.reader));
                response::finish(x, notes, &call, stream, framing, passed, now)
            }
        };
        attempt::conclude(&x.front, notes, &held, &end);
        end
    }
}

/// Passes the body and the trailers on.
fn copy(x: &mut Exchange, reader: &mut BodyReader) -> Result<(), ProxyError> {
    let (BodyReader::H2(reader), BodyWriter::H2(writer)) = (reader, &mut x.front.responder.writer) else {
        return Err(ProxyError::Defect);
    };
    loop {
        match reader.fill_now() {
            Some(Fill::Data) => {
                let last = reader.ends_after_data();
                let length = reader.data().len();
                writer.send_now(reader.data(), last).map_err(|_| ProxyError::ClientGone)?;
                reader.consume(length);
                if writer.is_finished() {
                    // The end, so that the reader has seen it.
                    let _ = reader.fill_now();
                    return Ok(());
                }
            }
            Some(Fill::End) => {
                let section = reader.trailers().filter(|section| !section.is_empty());
                return writer.finish(section).map_err(|_| ProxyError::ClientGone);
            }
            // It was seen to be whole.
            None => return Err(ProxyError::Defect),
        }
    }
}
