//! What a feed has had and refused: numbers for metrics, reasons for people.

use super::Feed;
use crate::ads::Kind;
use outrigger_traffic::config::ConfigError;
use std::collections::BTreeMap;

/// Numbers for metrics and for `/config_dump`.
#[derive(Clone, Debug, Default)]
pub struct FeedStatus {
    /// Responses handled.
    pub updates: u64,
    /// Responses with at least one refused resource.
    pub rejected: u64,
    /// The same by kind, and files that could not be read.
    pub kinds: BTreeMap<Kind, KindStatus>,
    /// Last refusal of each resource that is still refused.
    pub refused: BTreeMap<String, String>,
    /// How often the last good configuration was written to disk.
    pub saves: u64,
    /// How often that failed.
    pub save_failures: u64,
}

/// Numbers of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStatus {
    /// Responses and files taken.
    pub success: u64,
    /// Responses and files with at least one refused resource.
    pub rejected: u64,
    /// Files that could not be read or understood.
    pub failure: u64,
}

impl FeedStatus {
    pub(super) fn of(&mut self, kind: Kind) -> &mut KindStatus {
        self.kinds.entry(kind).or_default()
    }
}

impl Feed {
    /// A file could not be read or understood: what it brought stays in force.
    pub fn note_failure(&mut self, kind: Kind, path: &str, reason: String) {
        self.status.of(kind).failure += 1;
        self.status.refused.insert(format!("file {path}"), reason);
    }

    /// A file was read and understood.
    pub fn note_read(&mut self, path: &str) {
        self.status.refused.remove(&format!("file {path}"));
    }

    pub(super) fn note_refusals(
        &mut self,
        kind: Kind,
        accepted: &[(String, String)],
        removed: &[String],
        errors: &[ConfigError],
    ) {
        let word = kind.word();
        for name in accepted.iter().map(|(n, _)| n).chain(removed) {
            self.status.refused.remove(&format!("{word}/{name}"));
        }
        for error in errors {
            tracing::warn!(
                resource = error.resource,
                path = error.path,
                reason = error.reason,
                "configuration refused"
            );
            self.status.refused.insert(error.resource.clone(), error.to_string());
        }
        self.status.rejected += u64::from(!errors.is_empty());
        let numbers = self.status.of(kind);
        numbers.success += u64::from(errors.is_empty());
        numbers.rejected += u64::from(!errors.is_empty());
    }
}
