//! The rotation of signing CAs, as a pure state machine over times.
//!
//! ```text
//!           rotate                signs_from reached            trusted_until reached
//!   (new) ────────▶ Published ───────────────────▶ Signing      (removed)
//!                                                     │              ▲
//!                                                     │ a newer one  │
//!                                                     ▼ signs        │
//!                                                  Retired ──────────┘
//! ```
//!
//! A new CA is trusted by everybody before it signs anything, and an old one is trusted until the last
//! certificate it signed has expired. So at no time does anybody meet a certificate it cannot verify.
//! Times are milliseconds since 1970 and arguments: nothing here reads a clock.

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970.
pub type UnixMs = i64;

/// What a signing CA is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "stage")]
pub enum Stage {
    /// In the trust bundle, does not sign yet.
    #[serde(rename_all = "camelCase")]
    Published {
        /// When it takes over.
        signs_from: UnixMs,
    },
    /// Signs every new certificate. There is exactly one.
    Signing,
    /// Signs no more, but what it signed may still be alive.
    #[serde(rename_all = "camelCase")]
    Retired {
        /// When the last certificate it signed has expired.
        trusted_until: UnixMs,
    },
}

/// One signing CA as the state machine sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Counts up; also names its files.
    pub id: u32,
    /// Where it is in its life.
    #[serde(flatten)]
    pub stage: Stage,
    /// Longest life of a certificate it has signed, in milliseconds.
    pub issued_ttl_ms_max: i64,
}

/// One root. The last one that does not retire certifies signing CAs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// Counts up; also names its files.
    pub id: u32,
    /// Another one has taken its place; it is known until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires_at: Option<UnixMs>,
}

/// All signing CAs the mesh trusts, and the roots. Saved as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// Oldest first.
    pub members: Vec<Member>,
    /// Grows whenever the set of members changes; the trust bundle's version.
    pub bundle_version: u64,
    /// Oldest first. Absent in files of a version that had one for good.
    #[serde(default = "first_roots")]
    pub roots: Vec<Root>,
}

fn first_roots() -> Vec<Root> {
    vec![Root { id: 1, retires_at: None }]
}

/// Why a rotation was not begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RotateError {
    /// The one before has not taken over yet.
    #[error("a rotation is already under way: the new signing CA takes over first")]
    UnderWay,
    /// The root before is still known.
    #[error("a rotation of the root is already under way: the old one retires first")]
    RootUnderWay,
}

impl Rotation {
    /// The state at first start: one CA, signing.
    pub fn first() -> Self {
        let member = Member { id: 1, stage: Stage::Signing, issued_ttl_ms_max: 0 };
        Self { members: vec![member], bundle_version: 1, roots: first_roots() }
    }

    /// The member that signs, if the state is sound.
    pub fn signing(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.stage == Stage::Signing)
    }

    /// The root that certifies signing CAs, if the state is sound.
    pub fn root(&self) -> Option<&Root> {
        self.roots.iter().rev().find(|root| root.retires_at.is_none())
    }

    /// Adds a root that certifies from now on; the one before retires at `retires_at`. Returns its id.
    ///
    /// *Errors*: [`RotateError::RootUnderWay`] while another one has not retired.
    pub fn publish_root(&mut self, retires_at: UnixMs) -> Result<u32, RotateError> {
        if self.roots.iter().any(|root| root.retires_at.is_some()) {
            return Err(RotateError::RootUnderWay);
        }
        let id = self.roots.iter().map(|root| root.id).max().unwrap_or(0).saturating_add(1);
        for root in &mut self.roots {
            root.retires_at = Some(retires_at);
        }
        self.roots.push(Root { id, retires_at: None });
        self.bundle_version += 1;
        Ok(id)
    }

    /// The id the next member will have.
    pub fn next_id(&self) -> u32 {
        self.members.iter().map(|member| member.id).max().unwrap_or(0).saturating_add(1)
    }

    /// Adds a member that is trusted from now on and signs from `signs_from`; returns its id.
    ///
    /// *Errors*: [`RotateError::UnderWay`] while another one is waiting to sign.
    pub fn publish(&mut self, signs_from: UnixMs) -> Result<u32, RotateError> {
        if self.members.iter().any(|member| matches!(member.stage, Stage::Published { .. })) {
            return Err(RotateError::UnderWay);
        }
        let id = self.next_id();
        self.members.push(Member { id, stage: Stage::Published { signs_from }, issued_ttl_ms_max: 0 });
        self.bundle_version += 1;
        Ok(id)
    }

    /// Does what is due at `now`. Returns whether anything changed.
    ///
    /// `margin_ms` is added to the time an old CA stays trusted, for clocks that go wrong.
    pub fn advance(&mut self, now: UnixMs, margin_ms: i64) -> bool {
        let due =
            |member: &Member| matches!(member.stage, Stage::Published { signs_from } if signs_from <= now);
        let mut changed = false;
        if self.members.iter().any(due) {
            for member in &mut self.members {
                if member.stage == Stage::Signing {
                    let trusted_until =
                        now.saturating_add(member.issued_ttl_ms_max).saturating_add(margin_ms);
                    member.stage = Stage::Retired { trusted_until };
                } else if due(member) {
                    member.stage = Stage::Signing;
                }
            }
            changed = true;
        }
        let before = self.members.len();
        self.members.retain(
            |member| !matches!(member.stage, Stage::Retired { trusted_until } if trusted_until <= now),
        );
        let roots_before = self.roots.len();
        // The switch comes first: an old root is not forgotten while what it alone certified still signs.
        if !self.members.iter().any(|member| matches!(member.stage, Stage::Published { .. })) {
            self.roots.retain(|root| root.retires_at.is_none_or(|at| at > now));
        }
        if self.members.len() != before || self.roots.len() != roots_before {
            self.bundle_version += 1;
            changed = true;
        }
        changed
    }

    /// When [`Rotation::advance`] next has something to do; `None` when nothing is pending.
    pub fn next_due(&self) -> Option<UnixMs> {
        self.members
            .iter()
            .filter_map(|member| match member.stage {
                Stage::Published { signs_from } => Some(signs_from),
                Stage::Signing => None,
                Stage::Retired { trusted_until } => Some(trusted_until),
            })
            .chain(self.roots.iter().filter_map(|root| root.retires_at))
            .min()
    }

    /// Notes that a certificate of this life was signed. Returns whether that must be saved *before*
    /// the certificate is handed out.
    pub fn note_issued(&mut self, ttl_ms: i64) -> bool {
        for member in &mut self.members {
            if member.stage == Stage::Signing && member.issued_ttl_ms_max < ttl_ms {
                member.issued_ttl_ms_max = ttl_ms;
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(rotation: &Rotation) -> Vec<(u32, Stage)> {
        rotation.members.iter().map(|member| (member.id, member.stage)).collect()
    }

    #[test]
    fn rotation_overlaps_on_both_sides() {
        let mut rotation = Rotation::first();
        assert!(rotation.note_issued(100));
        assert!(!rotation.note_issued(50), "a shorter life needs no saving");
        assert_eq!(rotation.publish(1_000).unwrap(), 2);
        assert_eq!(rotation.bundle_version, 2);
        assert!(!rotation.advance(999, 5));
        assert_eq!(rotation.signing().unwrap().id, 1, "the new one does not sign early");

        assert!(rotation.advance(1_010, 5));
        assert_eq!(stages(&rotation), [(1, Stage::Retired { trusted_until: 1_115 }), (2, Stage::Signing)]);
        assert_eq!(rotation.bundle_version, 2, "the set of trusted ones is the same");
        assert_eq!(rotation.next_due(), Some(1_115));

        assert!(!rotation.advance(1_114, 5));
        assert!(rotation.advance(1_115, 5));
        assert_eq!(stages(&rotation), [(2, Stage::Signing)]);
        assert_eq!(rotation.bundle_version, 3);
        assert_eq!(rotation.next_due(), None);
    }

    #[test]
    fn second_rotation_waits_for_the_first_to_take_over() {
        let mut rotation = Rotation::first();
        rotation.publish(10).unwrap();
        assert_eq!(rotation.publish(20).unwrap_err(), RotateError::UnderWay);
        rotation.note_issued(1_000);
        rotation.advance(10, 0);
        assert_eq!(rotation.publish(20).unwrap(), 3, "an old one may still be trusted");
        rotation.advance(20, 0);
        assert_eq!(rotation.members.len(), 2, "the middle one signed nothing and left at once");
    }

    #[test]
    fn exactly_one_signs_whatever_the_order_of_calls() {
        for seed in 0..200_u64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut rotation = Rotation::first();
            let mut now = 0;
            for _ in 0..60 {
                match random.u8(0..3) {
                    0 => drop(rotation.publish(now + random.i64(0..50))),
                    1 => drop(rotation.note_issued(random.i64(0..100))),
                    _ => drop(rotation.advance(now, 3)),
                }
                now += random.i64(0..20);
                let signing = rotation.members.iter().filter(|m| m.stage == Stage::Signing).count();
                assert_eq!(signing, 1, "seed {seed}");
            }
        }
    }

    #[test]
    fn state_reads_back_as_it_was_written() {
        let mut rotation = Rotation::first();
        rotation.publish(5).unwrap();
        let text = serde_json::to_string(&rotation).unwrap();
        assert_eq!(serde_json::from_str::<Rotation>(&text).unwrap(), rotation);
    }

    #[test]
    fn old_root_is_known_until_its_time_and_not_before_the_new_one_has_taken_over() {
        let mut rotation = Rotation::first();
        assert_eq!(rotation.publish_root(50).unwrap(), 2);
        assert_eq!(rotation.publish(100).unwrap(), 2);
        assert_eq!(rotation.bundle_version, 3);
        assert_eq!(rotation.root().unwrap().id, 2);
        assert_eq!(rotation.publish_root(60).unwrap_err(), RotateError::RootUnderWay);
        assert!(!rotation.advance(60, 0), "the old one still stands behind what signs");
        assert!(rotation.advance(100, 0));
        assert_eq!(rotation.roots, [Root { id: 2, retires_at: None }]);
        assert_eq!(rotation.publish_root(500).unwrap(), 3);
        assert_eq!(rotation.next_due(), Some(500));
        assert!(!rotation.advance(499, 0));
        let version = rotation.bundle_version;
        assert!(rotation.advance(500, 0));
        assert_eq!((rotation.roots.len(), rotation.bundle_version), (1, version + 1));
    }

    #[test]
    fn state_of_a_version_with_one_root_for_good_is_read() {
        let mut value: serde_json::Value = serde_json::to_value(Rotation::first()).unwrap();
        value.as_object_mut().unwrap().shift_remove("roots");
        assert_eq!(serde_json::from_value::<Rotation>(value).unwrap(), Rotation::first());
    }
}
