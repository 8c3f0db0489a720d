//! Kubernetes clusters as sources: services and their endpoint slices, by list and watch.
//!
//! Our own client rather than a library: two kinds of objects are read, of each a few fields (docs/adr/0019).
//!
//! Reading order: [`object`] (what is read) · [`access`] (kubeconfig, tokens) · [`mirror`] (list and watch) · [`read`]
//! (objects into workloads) · here.

pub mod access;
pub mod mirror;
pub mod object;
pub mod read;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::catalog::{Reading, Sink};
use super::settings::KubernetesSettings;
use super::workload::Reach;
use access::Access;
use mirror::Mirror;
use object::{EndpointSlice, Service};

/// How long changes are collected: a roll-out changes a slice many times in a row.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// How often files that cannot be used are looked at again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Follows a cluster, for ever.
pub async fn run(settings: KubernetesSettings, sink: Sink, reach: Reach) {
    let access = loop {
        match Access::of(&settings) {
            Ok(access) => break Arc::new(access),
            Err(error) => sink.fail(&error.to_string()),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    };
    let changed = Arc::new(Notify::new());
    let services: Mirror<Service> = Mirror::new(Arc::clone(&access), Arc::clone(&changed));
    let slices: Mirror<EndpointSlice> = Mirror::new(access, Arc::clone(&changed));
    let joining = async {
        let mut first = true;
        loop {
            changed.notified().await;
            tokio::time::sleep(DEBOUNCE).await;
            let found = match (&*services.objects(), &*slices.objects()) {
                (Some(services), Some(slices)) => read::read(services, slices, &settings, sink.name(), reach),
                // Half of it would look as if everything else were gone.
                _ => continue,
            };
            let is_current = services.is_current() && slices.is_current();
            let reading = match (is_current, std::mem::take(&mut first)) {
                (false, _) => Reading::Partial,
                (true, true) => Reading::Full,
                (true, false) => Reading::Followed,
            };
            sink.replace(found, reading);
        }
    };
    tokio::join!(services.run(&sink), slices.run(&sink), joining);
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
