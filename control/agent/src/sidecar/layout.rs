//! Which ports a sidecar takes.
//!
//! In bridge mode it has the application's network namespace to itself: fixed ports. Others reach it at the ports of the host
//! that docker maps to the application's: their packets are redirected to it inside. In host mode all sidecars share the
//! host's ports, so each gets a run of its own out of a range.

use std::collections::BTreeSet;

use crate::config::{AgentConfig, CaptureConfig, SidecarConfig};
use crate::member::{Member, Network};

/// Admin ports in bridge mode: two, because during an upgrade two sidecars live in one namespace.
const ADMIN_BRIDGE: [u16; 2] = [15_000, 15_010];

/// Distance between the inbound ports of one member.
const INBOUND_STEP: u16 = 100;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// For each port of the member: the port of the host at which peers reach it.
    pub reached: Vec<u16>,
    /// For each port of the member: the port the sidecar listens on.
    pub inbound: Vec<u16>,
    /// Where it takes the application's calls.
    pub outbound: u16,
    /// Where its admin interface may be.
    pub admin: [u16; 2],
    /// Host mode: the ports it has taken; empty in bridge mode.
    pub host: Vec<u16>,
}

/// No run of free ports is left in `sidecar.hostPorts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {needed} ports in a row are free in sidecar.hostPorts")]
pub struct NoPorts {
    needed: u16,
}

/// The ports for a member's sidecar.
///
/// `first` is the first port of the run a sidecar of this member has already; `taken` are those of the others' runs.
///
/// *Errors*: [`NoPorts`], in host mode.
pub fn layout(
    member: &Member,
    config: &AgentConfig,
    first: Option<u16>,
    taken: &BTreeSet<u16>,
) -> Result<Layout, NoPorts> {
    match member.network {
        Network::Bridge => Ok(bridge(member, &config.capture)),
        Network::Host => host(member, &config.sidecar, first, taken),
    }
}

fn bridge(member: &Member, capture: &CaptureConfig) -> Layout {
    let mut used: BTreeSet<u16> = member.ports.iter().map(|port| port.declared.target).collect();
    used.extend([capture.outbound_port, capture.dns_port]);
    used.extend(ADMIN_BRIDGE);
    let mut inbound = Vec::new();
    let mut next = capture.inbound_port;
    for _ in &member.ports {
        // Ends, because a member has fewer ports than there are numbers.
        while used.contains(&next) || next == 0 {
            next = next.wrapping_add(INBOUND_STEP);
        }
        used.insert(next);
        inbound.push(next);
    }
    let reached = member.ports.iter().filter_map(|port| port.published).collect();
    Layout { reached, inbound, outbound: capture.outbound_port, admin: ADMIN_BRIDGE, host: Vec::new() }
}

fn host(
    member: &Member,
    sidecar: &SidecarConfig,
    first: Option<u16>,
    taken: &BTreeSet<u16>,
) -> Result<Layout, NoPorts> {
    // A port for each of the member's, one for its calls, two for the admin interface.
    let count = u16::try_from(member.ports.len()).unwrap_or(u16::MAX).saturating_add(3);
    let none = NoPorts { needed: count };
    let (low, high) = sidecar.host_ports;
    let fits = |start: u16| {
        start >= low
            && start.checked_add(count - 1).is_some_and(|last| last <= high)
            && (start..start + count).all(|port| !taken.contains(&port))
    };
    let kept = first.filter(|start| fits(*start));
    // From a place of its own in the range, so that an application finds its ports again after a restart of its task.
    let span = high.saturating_sub(low).saturating_sub(count - 1).max(1);
    let seed = low + (digest_number(&member.task.family, &member.task.container) % u64::from(span)) as u16;
    let run = || (seed..=high).chain(low..seed).find(|start| fits(*start));
    let start = kept.or_else(run).ok_or(none)?;
    let all: Vec<u16> = (start..start + count).collect();
    let ports = member.ports.len();
    let at = |index: usize| all.get(index).copied().ok_or(none);
    let inbound: Vec<u16> = all.iter().copied().take(ports).collect();
    Ok(Layout {
        reached: inbound.clone(),
        inbound,
        outbound: match member.outbound_port {
            Some(port) => port,
            None => at(ports)?,
        },
        admin: [at(ports + 1)?, at(ports + 2)?],
        host: all,
    })
}

fn digest_number(one: &str, other: &str) -> u64 {
    // FNV-1a: no more than a spread is needed, but it must be the same in every version.
    let bytes = one.bytes().chain([0]).chain(other.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
