//! Out of the lane: the exchange goes on in a task, at the step it has come to.

use super::super::notes::Notes;
use super::super::{Decided, Exchange, Start, go_on, recycle};
use super::Express;
use crate::error::ProxyError;

/// Starts the task of a request that does not go to a cluster, or not as an ordinary one.
pub(super) fn answer(x: Box<Exchange>, notes: Notes, decided: Result<Decided, ProxyError>) {
    let jobs = x.front.worker().jobs.clone();
    jobs.spawn(async move { recycle(go_on(x, notes, decided).await) });
}

impl Express {
    /// Goes on in a task, waiting for the response.
    pub(super) fn leave(self: Box<Self>) {
        self.set_ticket(None);
        self.go_on();
    }

    /// Goes on in a task, from where `first` says.
    pub(super) fn go_on(self: Box<Self>) {
        let worker = self.x.front.worker().clone();
        worker.jobs.clone().spawn(async move {
            let (_, x) = worker.slots.run(Start::Express(self)).await;
            recycle(x);
        });
    }
}
