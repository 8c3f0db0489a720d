//! `PeerAuthentication`: whether callers must prove who they are.

use std::collections::BTreeMap;

use super::read::{Fields, Node};
use super::shape;

/// Modes for the workloads that carry some labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Labels; `None`: the whole namespace, or the mesh when it stands in the root namespace.
    pub selector: Option<BTreeMap<String, String>>,
    /// For all ports; `None`: the more general policy's.
    pub mode: Option<MtlsMode>,
    /// By port of the application; `None`: as the above.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}

/// `PeerAuthentication.MutualTLS.Mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

impl PeerAuthentication {
    pub(super) fn read(spec: &Node<'_>) -> Option<Self> {
        spec.message(&shape::PEER_AUTHENTICATION, |f| {
            let selector = read_selector(f);
            let mut ports = BTreeMap::new();
            for (key, node) in f.field("portLevelMtls").map(|n| n.entries()).unwrap_or_default() {
                match key.parse::<u16>() {
                    Ok(port) if port > 0 => {
                        ports.insert(port, read_mode(&node));
                    }
                    _ => node.problem("the key must be a port number"),
                }
            }
            if !ports.is_empty() && selector.is_none() {
                f.problem("portLevelMtls", "needs a selector");
            }
            Self { selector, mode: f.field("mtls").and_then(|n| read_mode(&n)), ports }
        })
    }
}

fn read_mode(node: &Node<'_>) -> Option<MtlsMode> {
    let modes = [
        ("UNSET", None),
        ("DISABLE", Some(MtlsMode::Disable)),
        ("PERMISSIVE", Some(MtlsMode::Permissive)),
        ("STRICT", Some(MtlsMode::Strict)),
    ];
    node.message(&shape::MUTUAL_TLS, |f| f.field("mode").and_then(|n| n.word(&modes, &[])).flatten())
        .flatten()
}

/// Reads `selector.matchLabels`. A selector without labels selects everything, as none does.
pub(super) fn read_selector(f: &Fields<'_>) -> Option<BTreeMap<String, String>> {
    let labels = f
        .field("selector")
        .and_then(|n| n.message(&shape::SECURITY_SELECTOR, |f| f.texts_by_key("matchLabels")));
    labels.filter(|labels| !labels.is_empty())
}
