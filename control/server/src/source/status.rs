//! How a source is doing, for the operator.

use serde::Serialize;

use crate::clock::{self, UnixMs};

/// Most reasons kept of what could not be used; all of it is counted.
pub const PROBLEMS_MAX: usize = 20;

/// Longest error text kept, in bytes.
const ERROR_BYTES_MAX: usize = 512;

/// Whether what a source says is up to date.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// It was never read, and nothing is known from an earlier run.
    Pending,
    /// It is.
    Synced,
    /// What was known last counts, because the source cannot be reached.
    Stale,
}

/// Something a source has that cannot be used.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Unusable {
    /// Its name at the source.
    pub object: String,
    /// Why.
    pub reason: String,
}

/// What ECS and the registrations of agents do not agree about.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// Tasks that run on external hosts and ask to be members, and that nobody registered; at most [`PROBLEMS_MAX`].
    pub unregistered: Vec<String>,
    /// How many there are.
    pub unregistered_count: usize,
    /// Registered instances of tasks that do not run any more; at most [`PROBLEMS_MAX`].
    pub not_running: Vec<String>,
    /// How many there are.
    pub not_running_count: usize,
}

/// Counts of a source and the times of its last success and failure.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    /// Times everything was read.
    pub syncs: u64,
    /// Changes taken in.
    pub changes: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Calls the source asked to be made later.
    pub throttled: u64,
    /// When it was last known to be up to date.
    pub synced_at: Option<UnixMs>,
    /// Whether that was in this run, and nothing failed since.
    pub is_current: bool,
    /// The last failure, shortened.
    pub error: String,
    /// What cannot be used, shortened.
    pub unusable: Vec<Unusable>,
    /// How much of it there is.
    pub unusable_count: usize,
    /// Left out because of the limit of workloads.
    pub over_limit: usize,
}

impl Tally {
    /// Notes a failure.
    pub fn fail(&mut self, error: &str) {
        self.failures += 1;
        self.is_current = false;
        self.error = shorten(error);
    }

    /// Notes that all is known at `now`.
    pub fn succeed(&mut self, now: UnixMs) {
        self.synced_at = Some(now);
        self.is_current = true;
        self.error.clear();
    }

    /// See [`State`].
    pub fn state(&self) -> State {
        match (self.synced_at, self.is_current) {
            (None, _) => State::Pending,
            (Some(_), true) => State::Synced,
            (Some(_), false) => State::Stale,
        }
    }
}

/// What the operator API shows of a source.
#[derive(Clone, Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// `ecs`, `kubernetes`, `dns` or `file`.
    pub kind: &'static str,
    /// See [`State`].
    pub state: State,
    /// Workloads that count.
    pub workloads: usize,
    /// Workloads it has that are left out because they are known otherwise: they registered, or another source has them.
    pub known_otherwise: usize,
    /// When it was last known to be up to date; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync: Option<String>,
    /// How old that is, in milliseconds; 0 while the source is synced.
    pub stale_ms: i64,
    /// Times everything was read.
    pub syncs: u64,
    /// Changes taken in.
    pub changes: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Calls the source asked to be made later.
    pub throttled: u64,
    /// The last failure, while it lasts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// What cannot be used, at most [`PROBLEMS_MAX`].
    pub unusable: Vec<Unusable>,
    /// How much of it there is.
    pub unusable_count: usize,
    /// Left out because of the limit of workloads.
    pub over_limit: usize,
    /// For ECS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// For metrics.
    #[serde(skip)]
    pub synced_at: Option<UnixMs>,
}

impl SourceStatus {
    /// Of a tally, at `now`.
    pub fn of(name: &str, kind: &'static str, tally: &Tally, now: UnixMs) -> Self {
        let state = tally.state();
        let age = tally.synced_at.map_or(0, |at| now.saturating_sub(at).max(0));
        Self {
            name: name.to_owned(),
            kind,
            state,
            workloads: 0,
            known_otherwise: 0,
            last_sync: tally.synced_at.map(clock::rfc3339),
            stale_ms: if state == State::Synced { 0 } else { age },
            syncs: tally.syncs,
            changes: tally.changes,
            failures: tally.failures,
            throttled: tally.throttled,
            error: tally.error.clone(),
            unusable: tally.unusable.clone(),
            unusable_count: tally.unusable_count,
            over_limit: tally.over_limit,
            drift: None,
            synced_at: tally.synced_at,
        }
    }
}

fn shorten(text: &str) -> String {
    let mut end = text.len().min(ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_makes_what_is_known_stale_and_keeps_its_age() {
        let mut tally = Tally::default();
        assert_eq!(tally.state(), State::Pending);
        tally.fail("no route");
        assert_eq!(tally.state(), State::Pending, "nothing is known yet");
        tally.succeed(1_000);
        assert_eq!(SourceStatus::of("a", "file", &tally, 5_000).stale_ms, 0);
        tally.fail(&"é".repeat(ERROR_BYTES_MAX));
        let status = SourceStatus::of("a", "file", &tally, 5_000);
        assert_eq!(
            (status.state, status.stale_ms, status.error.len()),
            (State::Stale, 4_000, ERROR_BYTES_MAX)
        );
        tally.succeed(6_000);
        assert_eq!(SourceStatus::of("a", "file", &tally, 7_000).error, "");
    }
}
