//! Out of the lane: the exchange goes on in a task, at the step it has come to.

use super::super::attempt::First;
use super::super::notes::Notes;
use super::super::retry::Attempts;
use super::super::{Decided, Exchange, go_on, recycle};
use crate::error::ProxyError;

/// An exchange and how far it has come.
pub(super) struct Journey {
    pub(super) x: Box<Exchange>,
    pub(super) notes: Notes,
    pub(super) decided: Result<Decided, ProxyError>,
    /// `None` before the first attempt.
    pub(super) shared: Option<Attempts>,
    pub(super) first: First,
}

impl Journey {
    /// Starts the task.
    pub(super) fn start(self) {
        let jobs = self.x.front.worker().jobs.clone();
        jobs.spawn(async move {
            let Self { x, notes, decided, shared, first } = self;
            recycle(go_on(x, notes, decided, shared, first).await);
        });
    }
}
