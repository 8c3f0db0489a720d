//! What active health checks find out about hosts: when a host changes, and when it is asked again.
//!
//! The engine asks; here it is decided what the answers mean. Each host that is probed has a [`Watch`], which is told every
//! result. Flags belong to the address ([`HostLive`]) and outlive updates. Source: Envoy: health checking.

use crate::cluster::HostLive;
use crate::config::HealthCheck;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

/// What probes say of a host; several may hold at a time.
#[derive(Debug, Default)]
pub struct Flags(AtomicU8);

/// One thing that probes say of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flag {
    /// It failed.
    Failed = 1,
    /// It says that it is degraded.
    Degraded = 2,
    /// It was not probed yet, and must be before it counts.
    Pending = 4,
    /// The last failure was no answer in time.
    TimedOut = 8,
    /// It asked to be left out at once.
    Excluded = 16,
}

impl Flags {
    /// Whether this holds.
    pub fn has(&self, flag: Flag) -> bool {
        self.0.load(Relaxed) & flag as u8 != 0
    }

    /// Whether nothing holds.
    pub fn is_clear(&self) -> bool {
        self.0.load(Relaxed) == 0
    }

    pub(crate) fn set(&self, flag: Flag, holds: bool) {
        if holds {
            self.0.fetch_or(flag as u8, Relaxed);
        } else {
            self.0.fetch_and(!(flag as u8), Relaxed);
        }
    }

    pub(crate) fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The host is healthy.
    Healthy,
    /// It is, and says that it is degraded.
    Degraded,
    /// Its answer was wrong.
    Wrong {
        /// Counts against the threshold instead of deciding at once.
        retriable: bool,
        /// It asked to be left out at once.
        exclude: bool,
    },
    /// There was no answer.
    Unreachable,
    /// There was none in time.
    TimedOut,
    /// An answer to ordinary traffic asked that it be left out.
    Passive,
}

/// What a result did to its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Nothing.
    Unchanged,
    /// Not yet anything: the threshold is not reached.
    Pending,
    /// The host must be judged anew.
    Changed,
}

/// Something for the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The host became unhealthy.
    EjectUnhealthy,
    /// It became healthy.
    AddHealthy {
        /// By its first probe.
        first: bool,
    },
    /// A probe succeeded.
    Success,
    /// A probe failed.
    Failure {
        /// Its first probe.
        first: bool,
    },
    /// The host became degraded.
    Degraded,
    /// It is so no more.
    NoLongerDegraded,
}

/// What a result means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it did.
    pub transition: Transition,
    /// Whether the probe succeeded.
    pub passed: bool,
    /// For the event log, in order.
    pub events: Vec<Event>,
}

/// The memory of one host's probes.
#[derive(Debug)]
pub struct Watch {
    first: bool,
    passed: u32,
    failed: u32,
}

impl Default for Watch {
    fn default() -> Self {
        Self { first: true, passed: 0, failed: 0 }
    }
}

impl Watch {
    /// Takes a result in; sets the host's flags. After [`Transition::Changed`] the caller has the host set judged anew.
    pub fn take(&mut self, rules: &HealthCheck, live: &HostLive, found: Found) -> Verdict {
        match found {
            Found::Healthy => self.pass(rules, live, false),
            Found::Degraded => self.pass(rules, live, true),
            Found::Wrong { .. } | Found::Unreachable | Found::TimedOut | Found::Passive => {
                self.fail(rules, live, found)
            }
        }
    }

    fn pass(&mut self, rules: &HealthCheck, live: &HostLive, degraded: bool) -> Verdict {
        let flags = &live.probed;
        self.failed = 0;
        let mut transition = Transition::Unchanged;
        let mut events = Vec::new();
        if flags.has(Flag::Failed) {
            self.passed += 1;
            // One success is enough at the beginning: a proxy that starts must not wait for all of them.
            if self.first || self.passed >= rules.healthy_threshold {
                for flag in [Flag::TimedOut, Flag::Excluded, Flag::Failed] {
                    flags.set(flag, false);
                }
                self.passed = 0;
                live.restart();
                transition = Transition::Changed;
                events.push(Event::AddHealthy { first: self.first });
            } else {
                transition = Transition::Pending;
            }
        }
        if transition != Transition::Changed && rules.log_all_successes {
            events.push(Event::Success);
        }
        transition = no_longer_pending(flags, transition);
        if degraded != flags.has(Flag::Degraded) {
            flags.set(Flag::Degraded, degraded);
            events.push(if degraded { Event::Degraded } else { Event::NoLongerDegraded });
            if transition == Transition::Unchanged {
                transition = Transition::Changed;
            }
        }
        self.first = false;
        Verdict { transition, passed: true, events }
    }

    fn fail(&mut self, rules: &HealthCheck, live: &HostLive, found: Found) -> Verdict {
        let flags = &live.probed;
        self.passed = 0;
        let mut transition = Transition::Unchanged;
        let mut events = Vec::new();
        let counts =
            matches!(found, Found::Unreachable | Found::TimedOut | Found::Wrong { retriable: true, .. });
        if let Found::Wrong { exclude: true, .. } | Found::Passive = found {
            flags.set(Flag::Excluded, true);
        }
        if !flags.has(Flag::Failed) {
            self.failed += u32::from(counts);
            if !counts || self.failed >= rules.unhealthy_threshold {
                flags.set(Flag::Failed, true);
                self.failed = 0;
                transition = Transition::Changed;
                events.push(Event::EjectUnhealthy);
            } else {
                transition = Transition::Pending;
            }
        }
        flags.set(Flag::TimedOut, found == Found::TimedOut && flags.has(Flag::Failed));
        transition = no_longer_pending(flags, transition);
        if self.first || rules.log_all_failures {
            events.push(Event::Failure { first: self.first });
        }
        self.first = false;
        Verdict { transition, passed: false, events }
    }
}

/// A host that was probed counts from now on, whatever was found.
fn no_longer_pending(flags: &Flags, transition: Transition) -> Transition {
    if flags.has(Flag::Pending) {
        flags.set(Flag::Pending, false);
        return Transition::Changed;
    }
    transition
}

/// How long to wait after a verdict. `traffic`: the cluster had connections. `draw` is uniformly random over all 64 bits.
pub fn interval(
    rules: &HealthCheck,
    verdict: &Verdict,
    traffic: bool,
    draw: &mut dyn FnMut() -> u64,
) -> Duration {
    let pending = verdict.transition == Transition::Pending;
    let unhealthy = rules.unhealthy_interval.unwrap_or(rules.interval);
    let base = match (traffic, verdict.passed, pending) {
        (true, true, true) => rules.healthy_edge_interval.unwrap_or(rules.interval),
        (true, true, false) => rules.interval,
        (true, false, true) => rules.unhealthy_edge_interval.unwrap_or(unhealthy),
        (true, false, false) => unhealthy,
        (false, true, false) => rules.no_traffic_healthy_interval.unwrap_or(rules.no_traffic_interval),
        (false, ..) => rules.no_traffic_interval,
    };
    let percent = base.saturating_mul(rules.interval_jitter_percent) / 100;
    (base + part(percent, draw) + part(rules.interval_jitter, draw)).max(Duration::from_millis(1))
}

/// Up to `whole`, at random.
pub fn part(whole: Duration, draw: &mut dyn FnMut() -> u64) -> Duration {
    if whole.is_zero() { whole } else { whole.mul_f64(draw() as f64 / u64::MAX as f64) }
}

#[cfg(test)]
mod tests;
