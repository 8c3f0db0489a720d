//! Until every connected proxy holds a revision.

use std::time::Duration;

use serde::Serialize;

use super::publisher::Publisher;
use super::table::ProxyKey;

/// How the waiting ended.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Waited {
    /// The revision waited for.
    pub revision: u64,
    /// Whether every connected proxy holds it.
    pub done: bool,
    /// Connected proxies that do not hold it yet, by their whole names.
    pub pending: Vec<String>,
    /// Those of them that rejected what they were sent.
    pub rejected: Vec<String>,
}

impl Publisher {
    /// Waits until every connected proxy has acknowledged a configuration planned at `revision` or later,
    /// one has rejected it, or `deadline` has passed. Proxies that leave are waited for no more.
    pub async fn wait(&self, revision: u64, deadline: Duration) -> Waited {
        let mut progress = self.progress.subscribe();
        let end = tokio::time::sleep(deadline);
        tokio::pin!(end);
        loop {
            progress.mark_unchanged();
            let state = self.waited(revision);
            if state.done || !state.rejected.is_empty() {
                return state;
            }
            tokio::select! {
                () = &mut end => return self.waited(revision),
                changed = progress.changed() => if changed.is_err() { return self.waited(revision) },
            }
        }
    }

    fn waited(&self, revision: u64) -> Waited {
        // The world must have caught up first: without proxies there is nothing else to see it by.
        let planned = self.world().revision >= revision;
        let proxies = self.lock();
        let behind = proxies.connected().filter(|proxy| proxy.acked_revision() < revision);
        let (mut pending, mut rejected) = (Vec::new(), Vec::new());
        for proxy in behind {
            let name = ProxyKey::of(&proxy.node).to_string();
            if planned && proxy.has_rejected_current() {
                rejected.push(name.clone());
            }
            pending.push(name);
        }
        pending.sort();
        rejected.sort();
        Waited { revision, done: planned && pending.is_empty(), pending, rejected }
    }
}
