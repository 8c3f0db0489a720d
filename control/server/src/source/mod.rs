//! Facts about the world: which workloads run, and where.
//!
//! In reading order: [`workload`] (what one of them is, checked), [`lease`] (the pure table of leases), [`register`] (those
//! that registered: leases kept over restarts, and expiring), [`catalog`] (those together with what the discovery
//! sources found; [`keep`] has that on disk, [`status`] says how each source is doing), [`settings`] (the file that
//! names the sources), [`fact`] (what a source says, before it is checked; ports as [`outrigger_member::port`] reads them), [`backoff`], and one module for
//! each kind of source: [`ecs`], [`kubernetes`], [`dns`], [`mod@file`]. [`start`] starts them.

pub mod workload;

pub mod lease;

pub mod register;

pub mod group;

pub mod catalog;

pub mod keep;

pub mod status;

pub mod settings;

pub mod fact;

pub mod backoff;

pub mod ecs;

pub mod kubernetes;

pub mod dns;

pub mod file;

use std::sync::Arc;

use tokio::task::JoinSet;

pub use catalog::Catalog;
pub use register::{Registry, RegistryError};
pub use workload::{Health, Port, Protocol, Reach, Workload};

use crate::outward::CallError;
use settings::{SourceSettings, SourcesFile};

/// Why a source cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("source {name}")]
pub struct SourceError {
    /// Which.
    pub name: String,
    /// Why.
    pub source: CallError,
}

/// Enters all sources into the catalog and starts them. What was known of them is in the catalog when this returns.
///
/// *Errors*: settings that can never work, like a CA file that is not there.
pub async fn start(
    file: &SourcesFile,
    catalog: &Arc<Catalog>,
    reach: Reach,
    jobs: &mut JoinSet<()>,
) -> Result<(), SourceError> {
    for source in &file.sources {
        let failed = |error| SourceError { name: source.name.clone(), source: error };
        let SourceSettings { name, ecs, kubernetes, dns, file } = source.clone();
        if let Some(ecs) = ecs {
            let reader = ecs::Reader::new(ecs).map_err(failed)?;
            let sink = catalog.add(&name, settings::ECS).await;
            jobs.spawn(reader.run(sink, reach));
        }
        if let Some(kubernetes) = kubernetes {
            let sink = catalog.add(&name, settings::KUBERNETES).await;
            jobs.spawn(kubernetes::run(kubernetes, sink, reach));
        }
        if let Some(dns) = dns {
            let sink = catalog.add(&name, settings::DNS).await;
            jobs.spawn(dns::run(dns, sink, reach));
        }
        if let Some(file) = file {
            let sink = catalog.add(&name, settings::FILE).await;
            jobs.spawn(file::run(file, sink, reach));
        }
    }
    Ok(())
}
