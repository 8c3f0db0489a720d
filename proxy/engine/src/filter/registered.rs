//! Filters of the embedding program.

use outrigger_wire::{RequestHead, ResponseHead};
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::{After, Answer, Pending, Verdict};
use crate::error::ProxyError;
use crate::exchange::{Exchange, Notes};
use crate::listener::ConnFacts;
use crate::telemetry::ResponseFlags;

/// A filter of the embedding program. It is registered by name
/// ([`ProxyOptions::filters`](crate::proxy::ProxyOptions::filters)) and takes its place in a connection manager by
/// `FilterConfig::Registered`.
pub trait RequestFilter: Send + Sync + fmt::Debug {
    /// Looks at a request, and may change it. It is called on the worker's thread and must not block.
    fn on_request(&self, request: &mut RequestHead, facts: &ConnFacts) -> Said;

    /// Looks at the head of the response, whoever made it, and may change it. Called for requests that it let pass.
    fn on_response(&self, _response: &mut ResponseHead) {}
}

/// What a [`RequestFilter`] says.
pub enum Said {
    /// The request goes on.
    Next,
    /// The request goes on, and its route is looked for again, because it was changed.
    Reroute,
    /// It is answered.
    Answer(LocalReply),
    /// It waits for this, which then says the rest.
    Wait(Pin<Box<dyn Future<Output = Self>>>),
}

/// An answer of a [`RequestFilter`].
#[derive(Clone, Debug)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u16,
    /// Body, `text/plain` where `fields` do not say otherwise.
    pub body: Vec<u8>,
    /// More fields.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// `%RESPONSE_CODE_DETAILS%`, without spaces.
    pub details: String,
}

/// The filters of an embedding program, by name.
pub type RegisteredFilters = HashMap<String, Arc<dyn RequestFilter>>;

/// A filter of the embedding program that waits.
pub(crate) struct Waiting(Pin<Box<dyn Future<Output = Said>>>);

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiting")
    }
}

pub(super) fn on_request(x: &mut Exchange, notes: &mut Notes, index: usize) -> Verdict {
    let Some(Some(filter)) = x.front.serving.chain.registered.get(index).cloned() else {
        return Verdict::Next;
    };
    let said = filter.on_request(&mut x.front.request, &x.front.connection.facts);
    notes.after.push(After::Registered(filter));
    verdict(said, notes)
}

fn verdict(said: Said, notes: &mut Notes) -> Verdict {
    match said {
        Said::Next => Verdict::Next,
        Said::Reroute => {
            notes.reroute = true;
            Verdict::Next
        }
        Said::Answer(reply) => Verdict::Answer(Box::new(Answer {
            status: reply.status,
            grpc_status: None,
            body: reply.body.into(),
            content_type: None,
            fields: reply.fields.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            edited: true,
            flags: ResponseFlags::NONE,
            details: reply.details.into(),
        })),
        Said::Wait(future) => Verdict::Wait(Pending::Registered(Waiting(future))),
    }
}

pub(super) async fn wait(
    x: &mut Exchange,
    notes: &mut Notes,
    waiting: Waiting,
) -> Result<Verdict, ProxyError> {
    let said = super::guarded(x, waiting.0).await?;
    Ok(verdict(said, notes))
}
