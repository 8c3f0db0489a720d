//! Redirecting an application's traffic to its sidecar, inside the application's own network namespace.
//!
//! [`Rules`] say what is redirected; [`nft`] and [`iptables`] write them down as text and commands, purely; [`enter`] is the child
//! process that steps into the namespace; [`netns`] runs it. What is never redirected: the sidecar's own traffic (told by its
//! user), loopback, and the two addresses that ECS and EC2 serve metadata and credentials on.

mod cidr;
pub mod enter;
pub mod iptables;
pub mod netns;
pub mod nft;

pub use cidr::Cidr;

use std::collections::BTreeSet;

use crate::config::{CaptureConfig, FailureMode, Redirect};
use crate::member::{Member, Network};
use crate::sidecar::image::Captures;

/// Destinations of the platform. Redirected, a task would lose its role's credentials. Source: Amazon ECS task metadata
/// endpoint and IAM roles for tasks; EC2 instance metadata (IPv4 and IPv6).
pub const PLATFORM: [&str; 3] = ["169.254.170.2/32", "169.254.169.254/32", "fd00:ec2::254/128"];

/// Where docker's own resolver is in user-defined networks: the one loopback address whose questions are redirected.
pub const DOCKER_DNS: &str = "127.0.0.11";

/// What is redirected in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// User of the sidecar.
    pub uid: u32,
    /// Port of the application → port of the sidecar, for connections that come in.
    pub inbound: Vec<(u16, u16)>,
    /// Port of the sidecar for TCP connections that go out.
    pub outbound: Option<u16>,
    /// Port of the sidecar for DNS questions.
    pub dns: Option<u16>,
    /// Destination ports left alone.
    pub exclude_ports: BTreeSet<u16>,
    /// Destinations left alone.
    pub exclude_cidrs: Vec<Cidr>,
}

impl Rules {
    /// What is redirected for a member whose sidecar listens on `inbound`, one port for each of the member's; `None` when nothing
    /// is. `captures` is what the sidecar's image says it can serve.
    pub fn of(
        member: &Member,
        inbound: &[u16],
        config: &CaptureConfig,
        captures: Captures,
        uid: u32,
    ) -> Option<Self> {
        if !is_captured(member, config) {
            return None;
        }
        let wanted = |redirect: Redirect, able: bool| match redirect {
            Redirect::On => true,
            Redirect::Off => false,
            Redirect::Auto => able,
        };
        let mut exclude_cidrs = config.exclude_cidrs.clone();
        exclude_cidrs.extend(&member.redirect.exclude_cidrs);
        exclude_cidrs.sort();
        exclude_cidrs.dedup();
        Some(Self {
            uid,
            inbound: member
                .ports
                .iter()
                .map(|port| port.declared.target)
                .zip(inbound.iter().copied())
                .collect(),
            outbound: wanted(config.outbound, captures.outbound).then_some(config.outbound_port),
            dns: wanted(config.dns, captures.dns).then_some(config.dns_port),
            exclude_ports: config.exclude_ports.union(&member.redirect.exclude_ports).copied().collect(),
            exclude_cidrs,
        })
    }
}

/// Whether anything of a member's traffic is redirected. In host mode nothing is: the namespace is everybody's.
pub fn is_captured(member: &Member, config: &CaptureConfig) -> bool {
    config.enabled && member.network == Network::Bridge && !member.redirect.off
}

/// What becomes of a member's traffic while its sidecar does not run.
pub fn failure_mode(member: &Member, config: &CaptureConfig) -> FailureMode {
    member.redirect.on_failure.unwrap_or(config.on_failure)
}

/// A program to run inside the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// What it reads.
    pub stdin: String,
    /// Run first; when it succeeds the step is not needed.
    pub unless: Option<Vec<String>>,
    /// Whether the step may fail, because what it takes away may not be there.
    pub may_fail: bool,
}

impl Step {
    pub(crate) fn new(argv: &[&str], stdin: String) -> Self {
        let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
        Self { argv, stdin, unless: None, may_fail: false }
    }
}

#[cfg(test)]
mod tests;
