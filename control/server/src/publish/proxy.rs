//! One proxy: what it is to hold, what it was sent, what it said about it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

use outrigger_plan::{NodeConfig, ProxyNode};

use super::planner::Problem;
use super::table::ProxyKey;
use crate::clock::{self, UnixMs};

/// How many versions back an acknowledgement is still understood.
const HISTORY_MAX: usize = 32;

/// Longest text kept of a rejection, in bytes.
const REJECTION_BYTES_MAX: usize = 16 * 1024;

/// See the module.
pub(super) struct Proxy {
    pub(super) node: ProxyNode,
    pub(super) user_agent: String,
    /// How many streams it has; more than one for a moment when it reconnects.
    pub(super) streams: u32,
    pub(super) connected_at: UnixMs,
    pub(super) disconnected_at: Option<UnixMs>,
    pub(super) config: watch::Sender<Option<Arc<NodeConfig>>>,
    /// The revision the current configuration was planned at; it may be the same one for many.
    planned_revision: u64,
    planned_at: UnixMs,
    plan_problems: Vec<Problem>,
    /// Versions published, with the last revision each was current at. The newest last.
    history: VecDeque<(String, u64)>,
    acked_version: String,
    acked_revision: u64,
    acked_at: Option<UnixMs>,
    rejected: Option<Rejection>,
}

/// What a proxy did not accept.
#[derive(Clone, Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// The version it was sent.
    pub version: String,
    /// The type of resource, as a type URL.
    pub type_url: String,
    /// What it said.
    pub error: String,
    /// When.
    pub at: String,
}

/// What `outrigger proxy status` shows of one proxy.
#[derive(Clone, Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// `NAMESPACE/SERVICE-ACCOUNT/NODE-ID`: nobody else's.
    pub name: String,
    /// `node.id`: what it calls itself. Another identity may use the same.
    pub id: String,
    /// From its certificate.
    pub namespace: String,
    /// From its certificate.
    pub service_account: String,
    /// What program it is.
    pub user_agent: String,
    /// Whether it has a stream.
    pub connected: bool,
    /// `SYNCED`, `PENDING`, `REJECTED`, `NOT PLANNED` or `DISCONNECTED`.
    pub state: &'static str,
    /// Version of the configuration it is to hold.
    pub version: String,
    /// Version it acknowledged last.
    pub acked_version: String,
    /// Revision of the store its configuration was planned at.
    pub revision: u64,
    /// Revision of the store it is known to hold.
    pub acked_revision: u64,
    /// For how long it has been behind, in milliseconds; 0 when it is not.
    pub lag_ms: i64,
    /// When it connected.
    pub connected_at: String,
    /// When it acknowledged last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acked_at: Option<String>,
    /// What it rejected, until it accepts something newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejection>,
    /// Why there is no newer plan for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan_problems: Vec<Problem>,
}

impl Proxy {
    pub(super) fn new(node: ProxyNode, user_agent: String, now: UnixMs) -> Self {
        Self {
            node,
            user_agent,
            streams: 0,
            connected_at: now,
            disconnected_at: None,
            config: watch::Sender::new(None),
            planned_revision: 0,
            planned_at: now,
            plan_problems: Vec::new(),
            history: VecDeque::new(),
            acked_version: String::new(),
            acked_revision: 0,
            acked_at: None,
            rejected: None,
        }
    }

    /// Takes a plan made at `revision`. An older one than it has is dropped. Returns whether it is sent.
    pub(super) fn publish(&mut self, config: NodeConfig, revision: u64, now: UnixMs) -> bool {
        if revision < self.planned_revision {
            return false;
        }
        self.plan_problems.clear();
        self.planned_revision = revision;
        let same = self.config.borrow().as_ref().is_some_and(|held| held.version == config.version);
        if same {
            if let Some(newest) = self.history.back_mut() {
                newest.1 = revision;
            }
            if self.acked_version == config.version {
                self.acked_revision = revision;
            }
            return false;
        }
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back((config.version.clone(), revision));
        self.planned_at = now;
        self.config.send_replace(Some(Arc::new(config)));
        true
    }

    pub(super) fn plan_failed(&mut self, problems: Vec<Problem>) {
        self.plan_problems = problems;
    }

    /// The proxy holds all of `version`.
    pub(super) fn acknowledged(&mut self, version: &str, now: UnixMs) {
        let Some((_, revision)) = self.history.iter().rev().find(|(published, _)| published == version)
        else {
            return;
        };
        self.acked_revision = self.acked_revision.max(*revision);
        self.acked_version = version.to_owned();
        self.acked_at = Some(now);
        self.rejected = None;
    }

    pub(super) fn rejected(&mut self, version: &str, type_url: &str, error: &str, now: UnixMs) {
        let cut = (0..=REJECTION_BYTES_MAX.min(error.len())).rev().find(|at| error.is_char_boundary(*at));
        self.rejected = Some(Rejection {
            version: version.to_owned(),
            type_url: type_url.to_owned(),
            error: error.get(..cut.unwrap_or(0)).unwrap_or_default().to_owned(),
            at: clock::rfc3339(now),
        });
    }

    pub(super) fn acked_revision(&self) -> u64 {
        self.acked_revision
    }

    pub(super) fn has_rejected_current(&self) -> bool {
        let current = self.config.borrow().as_ref().map(|config| config.version.clone()).unwrap_or_default();
        self.rejected.as_ref().is_some_and(|rejection| rejection.version == current)
    }

    pub(super) fn status(&self, now: UnixMs) -> ProxyStatus {
        let version = self.config.borrow().as_ref().map(|config| config.version.clone()).unwrap_or_default();
        let synced = !version.is_empty() && version == self.acked_version;
        let state = if self.streams == 0 {
            "DISCONNECTED"
        } else if !self.plan_problems.is_empty() {
            "NOT PLANNED"
        } else if self.rejected.is_some() {
            "REJECTED"
        } else if synced {
            "SYNCED"
        } else {
            "PENDING"
        };
        ProxyStatus {
            name: ProxyKey::of(&self.node).to_string(),
            id: self.node.id.clone(),
            namespace: self.node.namespace.clone(),
            service_account: self.node.service_account.clone(),
            user_agent: self.user_agent.clone(),
            connected: self.streams > 0,
            state,
            version,
            acked_version: self.acked_version.clone(),
            revision: self.planned_revision,
            acked_revision: self.acked_revision,
            lag_ms: if synced { 0 } else { now.saturating_sub(self.planned_at).max(0) },
            connected_at: clock::rfc3339(self.connected_at),
            acked_at: self.acked_at.map(clock::rfc3339),
            rejected: self.rejected.clone(),
            plan_problems: self.plan_problems.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_plan::NodeKind;

    fn proxy() -> Proxy {
        let node = ProxyNode::without_workload("cart-1", NodeKind::Sidecar, "shop", "cart");
        let mut proxy = Proxy::new(node, "outrigger".to_owned(), 0);
        proxy.streams = 1;
        proxy
    }

    fn config(version: &str) -> NodeConfig {
        NodeConfig {
            version: version.to_owned(),
            config: outrigger_traffic::config::Config::default(),
            api_listeners: Vec::new(),
            notices: Vec::new(),
        }
    }

    #[test]
    fn acknowledgement_counts_for_every_revision_that_led_to_the_same_content() {
        let mut proxy = proxy();
        assert!(proxy.publish(config("a"), 1, 0));
        assert_eq!(proxy.status(50).state, "PENDING");
        assert_eq!(proxy.status(50).lag_ms, 50);
        proxy.acknowledged("a", 60);
        assert_eq!((proxy.status(70).state, proxy.acked_revision()), ("SYNCED", 1));
        assert!(!proxy.publish(config("a"), 5, 80), "same content is not sent again");
        assert_eq!(proxy.acked_revision(), 5, "and is held already");
    }

    #[test]
    fn late_acknowledgement_of_an_older_version_does_not_count_for_the_newer() {
        let mut proxy = proxy();
        proxy.publish(config("a"), 1, 0);
        proxy.publish(config("b"), 2, 10);
        proxy.acknowledged("a", 20);
        assert_eq!((proxy.acked_revision(), proxy.status(30).state), (1, "PENDING"));
        proxy.acknowledged("never-sent", 30);
        assert_eq!(proxy.acked_revision(), 1);
        assert!(!proxy.publish(config("a"), 1, 40), "a plan that was overtaken is dropped");
        assert_eq!(proxy.status(50).version, "b");
    }

    #[test]
    fn rejection_is_shown_until_something_is_accepted() {
        let mut proxy = proxy();
        proxy.publish(config("a"), 1, 0);
        proxy.rejected("a", "type.googleapis.com/x", &"é".repeat(REJECTION_BYTES_MAX), 5);
        let status = proxy.status(6);
        assert_eq!(status.state, "REJECTED");
        assert!(proxy.has_rejected_current());
        assert_eq!(status.rejected.unwrap().error.len(), REJECTION_BYTES_MAX);
        proxy.publish(config("b"), 2, 7);
        assert!(!proxy.has_rejected_current());
        proxy.acknowledged("b", 8);
        assert_eq!(proxy.status(9).state, "SYNCED");
    }
}
