//! All workloads there are: those that registered, and those that sources found.
//!
//! A workload that registered under a lease proved who it is, so it goes before the same one found by a source; among
//! sources the first by name goes first. What a source found last stays until it says something else, however long it
//! is away, and is written down so that a restart of this service while the source is away loses nothing either.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::keep::{self, Kept};
use super::register::Workloads;
use super::status::{Drift, PROBLEMS_MAX, SourceStatus, Tally, Unusable};
use super::workload::Workload;
use crate::clock::{self, UnixMs};

/// Most workloads of one source.
pub const WORKLOADS_MAX: usize = 50_000;

/// What a source found, all of it.
#[derive(Clone, Default, Debug)]
pub struct Found {
    /// What can be used.
    pub workloads: Vec<Workload>,
    /// What cannot.
    pub unusable: Vec<Unusable>,
    /// For ECS: what runs, to compare with what registered.
    pub tasks: Option<RunningTasks>,
}

/// ECS tasks by their ids.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct RunningTasks {
    /// All that run, whatever they are.
    pub all: BTreeSet<String>,
    /// Those on external hosts that ask to be members: their agent is to register them.
    pub expected: BTreeSet<String>,
}

/// What a reading says of the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// All of it was read.
    Full,
    /// A change was followed: it is up to date.
    Followed,
    /// A change was followed, while another part of it cannot be read.
    Partial,
}

struct Entry {
    kind: &'static str,
    /// By instance, without doubles within the source.
    workloads: Vec<Arc<Workload>>,
    tally: Tally,
    tasks: Option<RunningTasks>,
    /// Expected tasks of the reading before the last: one that has just started is not drift.
    expected_before: BTreeSet<String>,
    known_otherwise: usize,
    /// To be written down.
    is_dirty: bool,
    /// When it was written down last.
    kept_at: UnixMs,
}

/// See the module.
pub struct Catalog {
    registered: watch::Receiver<Workloads>,
    entries: Mutex<BTreeMap<String, Entry>>,
    joined: watch::Sender<Workloads>,
    /// Where what was found is written down; `None`: nowhere.
    folder: Option<PathBuf>,
    dirty: Notify,
}

impl Catalog {
    /// Of these registrations and no sources yet.
    pub fn new(registered: watch::Receiver<Workloads>, folder: Option<PathBuf>) -> Arc<Self> {
        let joined = watch::Sender::new(registered.borrow().clone());
        Arc::new(Self { registered, entries: Mutex::default(), joined, folder, dirty: Notify::new() })
    }

    /// Enters a source, with what is known of it from an earlier run.
    pub async fn add(self: &Arc<Self>, name: &str, kind: &'static str) -> Sink {
        let mut entry = Entry {
            kind,
            workloads: Vec::new(),
            tally: Tally::default(),
            tasks: None,
            expected_before: BTreeSet::new(),
            known_otherwise: 0,
            is_dirty: false,
            kept_at: 0,
        };
        if let Some(folder) = &self.folder {
            match keep::load(folder, name).await {
                Ok(Some(kept)) => {
                    tracing::info!(
                        source = name,
                        workloads = kept.workloads.len(),
                        "last known workloads read"
                    );
                    entry.tally.synced_at = Some(kept.synced_at);
                    entry.workloads = kept.workloads;
                }
                Ok(None) => {}
                Err(error) => tracing::error!(source = name, %error, "last known workloads not read"),
            }
        }
        self.lock().insert(name.to_owned(), entry);
        self.join();
        Sink { catalog: Arc::clone(self), name: name.to_owned() }
    }

    /// All workloads, and their changes.
    pub fn workloads(&self) -> watch::Receiver<Workloads> {
        self.joined.subscribe()
    }

    /// All workloads at this moment: with every registration that was answered.
    pub fn current(&self) -> Workloads {
        self.join();
        self.joined.borrow().clone()
    }

    /// Follows the registrations, and writes down what sources found, for ever.
    pub async fn follow(self: Arc<Self>) {
        let mut registered = self.registered.clone();
        registered.mark_changed();
        let writing = self.keep();
        let joining = async {
            while registered.changed().await.is_ok() {
                registered.mark_unchanged();
                self.join();
            }
        };
        tokio::join!(writing, joining);
    }

    /// How each source is doing, by name.
    pub fn statuses(&self) -> Vec<SourceStatus> {
        let now = clock::unix_ms();
        let registered = self.registered.borrow().clone();
        let entries = self.lock();
        let drifts = drifts(&entries, &registered);
        let status = |(name, entry): (&String, &Entry)| SourceStatus {
            workloads: entry.workloads.len() - entry.known_otherwise,
            known_otherwise: entry.known_otherwise,
            drift: drifts.get(name.as_str()).cloned(),
            ..SourceStatus::of(name, entry.kind, &entry.tally, now)
        };
        entries.iter().map(status).collect()
    }

    /// Puts all lists together. The lock is held until the result is out, so that of two changes the later one stays.
    fn join(&self) {
        let mut entries = self.lock();
        let registered = self.registered.borrow().clone();
        let mut instances: HashSet<(&str, &str)> = HashSet::new();
        let mut tasks: HashSet<&str> = HashSet::new();
        for workload in registered.iter() {
            instances.insert((&workload.namespace, &workload.instance_id));
            tasks.extend(task_of(&workload.instance_id));
        }
        let mut joined: Vec<Arc<Workload>> = registered.to_vec();
        let mut seen: HashSet<(String, String)> = HashSet::new();
        for entry in entries.values_mut() {
            entry.known_otherwise = 0;
            for workload in &entry.workloads {
                let registered_itself =
                    instances.contains(&(workload.namespace.as_str(), workload.instance_id.as_str()));
                let by_agent = task_of(&workload.instance_id).is_some_and(|task| tasks.contains(task));
                if registered_itself
                    || by_agent
                    || !seen.insert((workload.namespace.clone(), workload.instance_id.clone()))
                {
                    entry.known_otherwise += 1;
                } else {
                    joined.push(Arc::clone(workload));
                }
            }
        }
        self.joined.send_if_modified(|held| {
            let same = held.len() == joined.len()
                && held.iter().zip(&joined).all(|(a, b)| Arc::ptr_eq(a, b) || a == b);
            if !same {
                *held = joined.into();
            }
            !same
        });
    }

    async fn keep(&self) {
        let Some(folder) = &self.folder else { return };
        loop {
            self.dirty.notified().await;
            // What comes at once is written at once; what follows waits for the disk.
            let due: Vec<(String, Kept)> = {
                let mut entries = self.lock();
                let dirty = entries.iter_mut().filter(|(_, entry)| entry.is_dirty);
                dirty
                    .map(|(name, entry)| {
                        entry.is_dirty = false;
                        entry.kept_at = clock::unix_ms();
                        let synced_at = entry.tally.synced_at.unwrap_or(0);
                        (name.clone(), Kept { synced_at, workloads: entry.workloads.clone() })
                    })
                    .collect()
            };
            for (name, kept) in due {
                if let Err(error) = keep::save(folder, &name, kept).await {
                    tracing::error!(source = name, %error, "last known workloads not written down");
                }
            }
            tokio::time::sleep(keep::PAUSE).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where one source says what it found.
#[derive(Clone)]
pub struct Sink {
    catalog: Arc<Catalog>,
    name: String,
}

impl Sink {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything there is, now.
    pub fn replace(&self, found: Found, reading: Reading) {
        let now = clock::unix_ms();
        let Found { mut workloads, unusable, tasks } = found;
        workloads.sort_by(|a, b| (&a.namespace, &a.instance_id).cmp(&(&b.namespace, &b.instance_id)));
        workloads.dedup_by(|a, b| (&a.namespace, &a.instance_id) == (&b.namespace, &b.instance_id));
        let over_limit = workloads.len().saturating_sub(WORKLOADS_MAX);
        workloads.truncate(WORKLOADS_MAX);
        let changed = self.with(|entry| {
            let tally = &mut entry.tally;
            if over_limit > 0 && over_limit != tally.over_limit {
                tracing::error!(
                    source = self.name,
                    over_limit,
                    "more than {WORKLOADS_MAX} workloads: the rest is left out"
                );
            }
            if reading != Reading::Partial {
                tally.succeed(now);
            }
            tally.over_limit = over_limit;
            tally.unusable_count = unusable.len();
            tally.unusable = unusable;
            tally.unusable.truncate(PROBLEMS_MAX);
            if reading == Reading::Full {
                tally.syncs += 1;
            }
            if let Some(tasks) = tasks {
                let before = entry.tasks.replace(tasks);
                entry.expected_before = before.map(|tasks| tasks.expected).unwrap_or_default();
            }
            let same = entry.workloads.len() == workloads.len()
                && entry.workloads.iter().zip(&workloads).all(|(held, new)| **held == *new);
            if !same {
                // What did not change keeps its allocation: the join then compares addresses.
                let mut held: HashMap<(String, String), Arc<Workload>> = entry
                    .workloads
                    .drain(..)
                    .map(|held| ((held.namespace.clone(), held.instance_id.clone()), held))
                    .collect();
                entry.workloads = workloads
                    .into_iter()
                    .map(|new| {
                        let key = (new.namespace.clone(), new.instance_id.clone());
                        held.remove(&key).filter(|held| **held == new).unwrap_or_else(|| Arc::new(new))
                    })
                    .collect();
                tally.changes += 1;
            }
            entry.is_dirty |= !same || now.saturating_sub(entry.kept_at) >= keep::REFRESH_MS;
            !same
        });
        if changed {
            self.catalog.join();
        }
        self.catalog.dirty.notify_one();
    }

    /// It was heard of and nothing changed.
    pub fn confirm(&self) {
        self.with(|entry| entry.tally.succeed(clock::unix_ms()));
    }

    /// It could not be read; what was found last stays.
    pub fn fail(&self, error: &str) {
        let first = self.with(|entry| {
            let first = entry.tally.is_current || entry.tally.failures == 0;
            entry.tally.fail(error);
            first
        });
        // Once, and not at each of the tries that follow.
        if first {
            tracing::warn!(source = self.name, error, "source not read; what is known of it stays");
        } else {
            tracing::debug!(source = self.name, error, "source not read");
        }
    }

    /// A call was turned away and is to be made later.
    pub fn throttled(&self) {
        self.with(|entry| entry.tally.throttled += 1);
    }

    fn with<T: Default>(&self, act: impl FnOnce(&mut Entry) -> T) -> T {
        self.catalog.lock().get_mut(&self.name).map(act).unwrap_or_default()
    }
}

/// What the ECS sources and the registrations do not agree about. An instance counts as not running only when every
/// ECS source is up to date: it may be in the cluster of one that is not.
fn drifts<'a>(entries: &'a BTreeMap<String, Entry>, registered: &Workloads) -> BTreeMap<&'a str, Drift> {
    let tasks: HashSet<&str> = registered.iter().filter_map(|w| task_of(&w.instance_id)).collect();
    let ecs = || entries.iter().filter(|(_, entry)| entry.kind == super::settings::ECS);
    let all_current = ecs().all(|(_, entry)| entry.tally.is_current && entry.tasks.is_some());
    let running: HashSet<&str> =
        ecs().filter_map(|(_, e)| e.tasks.as_ref()).flat_map(|t| t.all.iter().map(String::as_str)).collect();
    let mut gone: Vec<String> = Vec::new();
    if all_current {
        let is_gone = |id: &str| task_of(id).is_some_and(|task| !running.contains(task));
        gone.extend(registered.iter().filter(|w| is_gone(&w.instance_id)).map(|w| w.instance_id.clone()));
    }
    ecs()
        .filter_map(|(name, entry)| {
            let expected = &entry.tasks.as_ref()?.expected;
            let due = expected.intersection(&entry.expected_before);
            let missing: Vec<String> = due.filter(|task| !tasks.contains(task.as_str())).cloned().collect();
            let drift = Drift {
                unregistered_count: missing.len(),
                unregistered: missing.into_iter().take(PROBLEMS_MAX).collect(),
                not_running_count: gone.len(),
                not_running: gone.iter().take(PROBLEMS_MAX).cloned().collect(),
            };
            Some((name.as_str(), drift))
        })
        .collect()
}

/// The id of the ECS task an instance id begins with: 32 hexadecimal digits, or, of old tasks, a UUID with its dashes.
pub fn task_of(instance_id: &str) -> Option<&str> {
    const LONG: usize = 32;
    const UUID: usize = 36;
    let ends_at = |end: usize| matches!(instance_id.as_bytes().get(end), None | Some(b'-'));
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let long = instance_id.get(..LONG).filter(|id| is_hex(id) && ends_at(LONG));
    long.or_else(|| {
        let id = instance_id.get(..UUID).filter(|_| ends_at(UUID))?;
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        (lengths == [8, 4, 4, 4, 12] && id.split('-').all(is_hex)).then_some(id)
    })
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
