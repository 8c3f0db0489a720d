//! The last good configuration: read at the start, written when something was accepted.

use super::Feed;
use super::held::Held;
use crate::ads::Kind;
use crate::last_good::{LastGood, Snapshot};
use crate::translate::{self, CameFrom, Given, Translated};
use std::io;
use std::sync::Arc;

impl Feed {
    /// Takes in what is on disk.
    pub(super) fn restore(&mut self) {
        let raws = self.last_good.as_ref().map(LastGood::load).unwrap_or_default();
        for raw in raws {
            let Some(kind) = Kind::from_type_url(&raw.type_url) else { continue };
            // A kind that is not followed any more would stay as it was for ever.
            if kind.is_wildcard() && self.links.of_wildcard(kind).is_none() {
                continue;
            }
            let came_from = self.links.of_wildcard(kind).map_or(CameFrom::OwnStream, |link| link.came_from());
            let given = Given { came_from, ingredients: self.ingredients.clone() };
            match translate::translate_any_from(&given, &raw.type_url, &raw.bytes) {
                Ok(Translated { resource, wanted }) => {
                    let name = resource.name().to_owned();
                    let held = Held {
                        version: raw.version,
                        bytes: raw.bytes,
                        resource: Arc::new(resource),
                        wanted: wanted.into(),
                        came_from,
                    };
                    self.accepted.insert((kind, name), held);
                }
                Err(errors) => {
                    tracing::warn!(name = raw.name, ?errors, "resource on disk is not understood any more")
                }
            }
        }
        // Which source brings what is known now: each is told what is held already.
        self.update_interest();
        let sources = self.sources();
        let (links, accepted) = (&mut self.links, &mut self.accepted);
        accepted.retain(|(kind, name), held| {
            let source = sources.get(&(*kind, name.clone())).cloned().unwrap_or_default();
            let link =
                if kind.is_wildcard() { links.of_wildcard(*kind) } else { links.of_kind(*kind, &source) };
            let Some(link) = link else { return false };
            link.session.assume_held(*kind, name, &held.version);
            true
        });
    }

    pub(super) fn note_change(&mut self) {
        self.changes += 1;
        self.unsaved = true;
    }

    /// What is accepted and not on disk yet, to be written where one may block; then [`Self::note_saved`].
    pub fn unsaved(&mut self) -> Option<Snapshot> {
        let file = self.last_good.as_ref()?;
        std::mem::take(&mut self.unsaved).then(|| file.snapshot(self.changes, &self.accepted))
    }

    /// What came of writing.
    pub fn note_saved(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) => self.status.saves += 1,
            Err(error) => {
                self.status.save_failures += 1;
                self.unsaved = true;
                tracing::warn!(%error, "last good configuration cannot be written");
            }
        }
    }

    /// Writes what is not on disk yet. Blocks: before policy is acknowledged, and at the end.
    pub fn flush(&mut self) {
        if let Some(snapshot) = self.unsaved() {
            self.note_saved(snapshot.write());
        }
    }
}
