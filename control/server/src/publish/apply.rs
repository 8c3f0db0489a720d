//! An operator's change: read, checked, compiled for every proxy, and only then stored.
//!
//! What is checked is the world as it would be. A proxy whose plan the change does not alter is not
//! compiled again. All resources of one call are stored together or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use serde_json::Value;

use super::planner::{Parsed, Problem};
use super::publisher::Publisher;
use super::world::{Resource, World, redacted};
use crate::clock;
use crate::store::{Change, Commit, Expect, Key, StoreError};

/// Most problems one answer lists.
pub const PROBLEMS_MAX: usize = 200;

/// What became, or would become, of one resource.
#[derive(Clone, Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct ResourceChange {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `created`, `configured`, `unchanged` or `deleted`.
    pub action: &'static str,
    /// Its version afterwards; absent in a dry run and after a removal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// What it was; absent when it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is; absent when it is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What an apply did.
#[derive(Clone, Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The store's revision afterwards; what to wait for.
    pub revision: u64,
    /// Whether it was only tried.
    pub dry_run: bool,
    /// Each resource, in the order given.
    pub resources: Vec<ResourceChange>,
    /// Connected proxies whose configuration it changes, by their whole names.
    pub affected_proxies: Vec<String>,
    /// Things to look at.
    pub warnings: Vec<Problem>,
}

/// Why nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The resources, or what follows from them, would not be accepted.
    #[error("{} problem(s), the first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Invalid(Vec<Problem>),
    /// There is none to delete.
    #[error("{0} does not exist")]
    NotFound(Key),
    /// The store refused or failed; [`StoreError::Conflict`] when somebody else was faster.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work ended early.
    #[error("the change was not checked to its end")]
    Aborted,
}

impl Publisher {
    /// Applies every resource in `text` (YAML, several documents, or JSON).
    ///
    /// *Errors*: [`ApplyError`]; nothing has changed then.
    pub async fn apply(self: &Arc<Self>, text: String, dry_run: bool) -> Result<Applied, ApplyError> {
        let planner = Arc::clone(&self.planner);
        let parsed = blocking(move || planner.parse(&text)).await?;
        let outcome = match parsed {
            Ok(parsed) => self.change(parsed.into_iter().map(put).collect(), dry_run).await,
            Err(problems) => Err(invalid(problems)),
        };
        let counter = if outcome.is_ok() { &self.metrics.applies } else { &self.metrics.applies_refused };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    /// Deletes one resource, if every proxy can do without it.
    ///
    /// *Errors*: [`ApplyError`].
    pub async fn delete(
        self: &Arc<Self>,
        key: Key,
        version: Option<u64>,
        dry_run: bool,
    ) -> Result<Applied, ApplyError> {
        let expect = version.map_or(Expect::Any, Expect::Version);
        self.change(vec![Change::Delete { key, expect }], dry_run).await
    }

    async fn change(self: &Arc<Self>, changes: Vec<Change>, dry_run: bool) -> Result<Applied, ApplyError> {
        let _one_at_a_time = self.applying.lock().await;
        let now = clock::unix_ms();
        let publisher = Arc::clone(self);
        let checked = changes.clone();
        let (resources, affected_proxies, warnings) =
            blocking(move || publisher.check(&checked, now)).await??;
        let commit = if dry_run {
            Commit { revision: self.store.blocking().revision()?, records: Vec::new() }
        } else {
            self.store.commit(changes, now).await?
        };
        let mut resources = resources;
        for (line, record) in resources.iter_mut().zip(&commit.records) {
            line.resource_version = record.as_ref().map(|record| record.resource_version.to_string());
        }
        if !dry_run {
            for line in resources.iter().filter(|line| line.action != "unchanged") {
                tracing::info!(
                    kind = line.kind,
                    namespace = line.namespace,
                    name = line.name,
                    action = line.action,
                    revision = commit.revision,
                    "resource changed"
                );
            }
        }
        Ok(Applied { revision: commit.revision, dry_run, resources, affected_proxies, warnings })
    }

    /// Makes the world as it would be and plans for everybody. Blocks.
    #[allow(clippy::type_complexity, reason = "three lists, named where they are taken apart")]
    fn check(
        &self,
        changes: &[Change],
        now: i64,
    ) -> Result<(Vec<ResourceChange>, Vec<String>, Vec<Problem>), ApplyError> {
        let records = self.store.blocking().list(None, None)?;
        let held = World::resources_of(records);
        let mut next = held.clone();
        let mut lines = Vec::with_capacity(changes.len());
        let mut seen = BTreeMap::new();
        for (index, change) in changes.iter().enumerate() {
            if let Some(first) = seen.insert(change.key().clone(), index) {
                let reason = format!("document {} is the same resource as document {}", index + 1, first + 1);
                return Err(invalid(vec![problem(change.key(), reason)]));
            }
            lines.push(preview(change, &held, &mut next, now)?);
        }
        let current = self.prepared.load_full();
        let world = World {
            revision: current.world.revision,
            resources: Arc::new(next),
            workloads: current.world.workloads.clone(),
        };
        let plan = self.planner.prepare(&world).map_err(invalid)?;
        let (mut affected, mut problems) = (Vec::new(), Vec::new());
        let mut warnings = BTreeSet::new();
        for (key, node) in self.nodes(&world) {
            let before = current.plan.assemble(&node);
            let config = plan.assemble(&node);
            if before.version == config.version {
                continue;
            }
            match plan.check(&config) {
                Ok(()) => affected.push(key),
                // What the proxy would have rejected before is not this change's fault.
                Err(_) if current.plan.check(&before).is_err() => {}
                Err(found) => {
                    let proxy = key.to_string();
                    problems
                        .extend(found.into_iter().map(|problem| Problem { proxy: proxy.clone(), ..problem }));
                }
            }
            warnings.extend(config.notices);
            if problems.len() >= PROBLEMS_MAX {
                break;
            }
        }
        if !problems.is_empty() {
            return Err(invalid(problems));
        }
        let proxies = self.lock();
        affected.retain(|key| proxies.find(key).is_some());
        drop(proxies);
        let affected = affected.iter().map(ToString::to_string).collect();
        let warnings = warnings.into_iter().take(PROBLEMS_MAX).map(|notice| Problem {
            resource: notice.resource,
            path: String::new(),
            reason: notice.text,
            proxy: String::new(),
        });
        Ok((lines, affected, warnings.collect()))
    }
}

/// What a change would do; enters it into `next`.
fn preview(
    change: &Change,
    held: &BTreeMap<Key, Arc<Resource>>,
    next: &mut BTreeMap<Key, Arc<Resource>>,
    now: i64,
) -> Result<ResourceChange, ApplyError> {
    let key = change.key();
    let before = held.get(key);
    let found = before.map(|resource| resource.resource_version);
    let (Change::Put { expect, .. } | Change::Delete { expect, .. }) = change;
    if let Expect::Version(version) = expect
        && found != Some(*version)
    {
        let (key, expected) = (key.clone(), *expect);
        return Err(StoreError::Conflict { key, expected, found }.into());
    }
    let (action, after) = match change {
        Change::Delete { .. } if before.is_none() => return Err(ApplyError::NotFound(key.clone())),
        Change::Delete { .. } => {
            next.remove(key);
            ("deleted", None)
        }
        Change::Put { value, .. } => {
            let action = match before {
                None => "created",
                Some(before) if before.object == *value => "unchanged",
                Some(_) => "configured",
            };
            let resource = Resource {
                key: key.clone(),
                object: value.clone(),
                resource_version: found.unwrap_or(0),
                generation: before.map_or(1, |resource| resource.generation),
                created_unix_ms: before.map_or(now, |resource| resource.created_unix_ms),
                updated_unix_ms: now,
            };
            next.insert(key.clone(), Arc::new(resource));
            (action, Some(value.clone()))
        }
    };
    Ok(ResourceChange {
        kind: key.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        action,
        resource_version: None,
        before: before.map(|resource| redacted(resource.object.clone())),
        after: after.map(redacted),
    })
}

fn put(parsed: Parsed) -> Change {
    let expect = parsed.resource_version.map_or(Expect::Any, Expect::Version);
    Change::Put { key: parsed.key, value: parsed.object, expect }
}

fn problem(key: &Key, reason: String) -> Problem {
    Problem { resource: key.to_string(), path: String::new(), reason, proxy: String::new() }
}

/// The same problem found for many proxies is listed once, for the first of them.
fn invalid(problems: Vec<Problem>) -> ApplyError {
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<Problem> = problems
        .into_iter()
        .filter(|problem| {
            seen.insert((problem.resource.clone(), problem.path.clone(), problem.reason.clone()))
        })
        .collect();
    kept.truncate(PROBLEMS_MAX);
    ApplyError::Invalid(kept)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApplyError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "apply ended early");
        ApplyError::Aborted
    })
}
