//! What is to be done about one application's container: a pure function of what is seen and what was done.
//!
//! ```text
//!              not there     ┌───────── spec or namespace changed ─────────┐
//!  member ───► create+start ─┴─► starting ───► healthy ───► older ones: withdraw, SIGTERM, remove
//!     │ closed: rules first        │ open: rules when healthy, away when not
//!     │
//!     ├─ signalled to end ───► withdraw from the registry, SIGTERM to the sidecar
//!     └─ ended, or no member any more ───► withdraw, (rules away), remove
//! ```
//! The plan is made anew after each round of actions, so it never matters how often it is made, or after what interruption.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::capture::Rules;
use crate::config::FailureMode;
use crate::sidecar::{Sidecar, SidecarState};

/// Next look while something is on its way.
const SOON: Duration = Duration::from_millis(250);

/// Next look while something ends.
const ENDING: Duration = Duration::from_secs(1);

/// Next look at a sidecar that is not well.
const UNWELL: Duration = Duration::from_secs(5);

/// How long an application may live on after it was told to end. Then it is taken for one that ignored the signal. Longer
/// than the longest stop time ECS allows on its own hosts by far.
pub const LEAVING_MAX: Duration = Duration::from_secs(300);

/// What the application is.
#[derive(Clone, Debug, PartialEq)]
pub enum App {
    /// Its container ended or is no more. With it went its network namespace and the rules in it.
    Gone,
    /// It runs and is no member, or none any more.
    Foreign,
    /// It was told to end, and still runs.
    Leaving,
    /// It is to have this sidecar.
    Member(Box<Wanted>),
}

/// What a member is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Digest of its sidecar.
    pub spec: String,
    /// Its network namespace.
    pub sandbox: String,
    /// The sidecar's two admin ports.
    pub admin: [u16; 2],
    /// What is redirected.
    pub rules: Option<Rules>,
    /// While no sidecar runs.
    pub on_failure: FailureMode,
    /// What is to be told of its health; `None`: nothing.
    pub healthy: Option<bool>,
    /// Make no new sidecar (one that runs stays); for lack of an image, say.
    pub cannot_create: bool,
}

/// What was done before.
#[derive(Debug, Default)]
pub struct Memory {
    /// Rules in the application's namespace; `None` when that is not known.
    pub rules: Option<Option<Rules>>,
    /// It is, or was, ours; so there may be rules of which nothing is known.
    pub was_member: bool,
    /// Instances taken out of the registry.
    pub withdrawn: BTreeSet<String>,
    /// What was told of the health of instances, by instance.
    pub told: BTreeMap<String, bool>,
    /// Sidecars told to end, and when, by their container's id.
    pub signalled: BTreeMap<String, Instant>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Take the instance of this sidecar out of the registry.
    Withdraw(Sidecar),
    /// Tell the registry whether the application is well: it decides about the instance of this sidecar.
    Report(Sidecar, bool),
    /// Send it SIGTERM: it drains.
    Terminate(Sidecar),
    /// Remove its container and its state.
    Remove(Sidecar),
    /// Start it again.
    Start(Sidecar),
    /// Make the wanted sidecar with this admin port, and start it.
    Create {
        /// Free in the namespace.
        admin_port: u16,
    },
    /// Put these rules in place.
    Install(Rules),
    /// Take all rules away.
    Release,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// When to look again without an event.
    pub again: Option<Duration>,
    /// There is nothing left to care for.
    pub finished: bool,
}

/// Makes the plan. `drain` is how long a sidecar may take to end.
pub fn plan(app: &App, sidecars: &[Sidecar], memory: &Memory, drain: Duration, now: Instant) -> Plan {
    let mut making = Making { plan: Plan::default(), memory, drain, now };
    match app {
        App::Gone => making.gone(sidecars),
        App::Leaving => making.leaving(sidecars),
        App::Foreign => making.foreign(sidecars),
        App::Member(wanted) => making.member(wanted, sidecars),
    }
    making.plan
}

struct Making<'a> {
    plan: Plan,
    memory: &'a Memory,
    drain: Duration,
    now: Instant,
}

impl Making<'_> {
    fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    fn again(&mut self, after: Duration) {
        self.plan.again = Some(self.plan.again.map_or(after, |before| before.min(after)));
    }

    fn gone(&mut self, sidecars: &[Sidecar]) {
        for sidecar in sidecars {
            self.withdraw(sidecar);
            // Without its application there is nobody it could finish anything for.
            self.act(Action::Remove(sidecar.clone()));
        }
        self.plan.finished = sidecars.is_empty();
        if !self.plan.finished {
            self.again(ENDING);
        }
    }

    fn leaving(&mut self, sidecars: &[Sidecar]) {
        for sidecar in sidecars {
            self.withdraw(sidecar);
        }
        for sidecar in sidecars.iter().filter(|s| s.state.runs()) {
            self.terminate(sidecar);
        }
        self.again(ENDING);
    }

    fn foreign(&mut self, sidecars: &[Sidecar]) {
        let rules = match &self.memory.rules {
            Some(known) => known.is_some(),
            // A stranger's namespace is not entered.
            None => self.memory.was_member || !sidecars.is_empty(),
        };
        for sidecar in sidecars {
            self.end(sidecar);
        }
        if rules {
            self.act(Action::Release);
        }
        self.plan.finished = sidecars.is_empty() && !rules;
        if !self.plan.finished {
            self.again(ENDING);
        }
    }

    fn member(&mut self, wanted: &Wanted, sidecars: &[Sidecar]) {
        let (here, astray): (Vec<&Sidecar>, Vec<&Sidecar>) =
            sidecars.iter().partition(|s| s.sandbox == wanted.sandbox);
        let (fresh, older): (Vec<&Sidecar>, Vec<&Sidecar>) =
            here.into_iter().partition(|s| s.spec == wanted.spec);
        // In a namespace that is no more they reach nobody. They have the fresh one's name, so they go first.
        for sidecar in &astray {
            self.act(Action::Remove((*sidecar).clone()));
        }
        let fresh = fresh.first().copied();
        let serves = |sidecar: &Sidecar| {
            sidecar.state == SidecarState::Healthy && !self.memory.signalled.contains_key(&sidecar.id)
        };
        let served = fresh.is_some_and(serves) || older.iter().any(|sidecar| serves(sidecar));
        self.rules(wanted, served);
        if !astray.is_empty() {
            self.again(Duration::ZERO);
            return;
        }
        let serving = fresh.into_iter().chain(older.iter().copied()).filter(|s| serves(s));
        for sidecar in serving.collect::<Vec<_>>() {
            self.report(wanted.healthy, sidecar);
        }
        match fresh {
            None if wanted.cannot_create => self.again(UNWELL),
            None => {
                let taken = |port: &u16| older.iter().any(|s| s.state.runs() && s.admin_port == *port);
                let [one, other] = wanted.admin;
                self.act(Action::Create { admin_port: if taken(&one) { other } else { one } });
                self.again(SOON);
            }
            Some(fresh) => match fresh.state {
                SidecarState::Created | SidecarState::Exited => {
                    self.act(Action::Start(fresh.clone()));
                    self.again(ENDING);
                }
                SidecarState::Starting => self.again(SOON),
                SidecarState::Unhealthy => self.again(UNWELL),
                SidecarState::Healthy => {
                    for sidecar in &older {
                        self.end(sidecar);
                    }
                    if !older.is_empty() {
                        self.again(ENDING);
                    }
                }
            },
        }
        if wanted.on_failure == FailureMode::Open && !served && wanted.rules.is_some() {
            self.again(UNWELL);
        }
    }

    /// Closed: at once and always. Open: only while somebody serves.
    fn rules(&mut self, wanted: &Wanted, served: bool) {
        let due = match wanted.on_failure {
            FailureMode::Closed => wanted.rules.clone(),
            FailureMode::Open => wanted.rules.clone().filter(|_| served),
        };
        if self.memory.rules.as_ref() == Some(&due) {
            return;
        }
        match due {
            Some(rules) => self.act(Action::Install(rules)),
            None => self.act(Action::Release),
        }
    }

    fn report(&mut self, healthy: Option<bool>, sidecar: &Sidecar) {
        let Some(healthy) = healthy else { return };
        // An application that never was unwell is well for its proxy's registry already.
        if self.memory.told.get(&sidecar.instance) != Some(&healthy) {
            self.act(Action::Report(sidecar.clone(), healthy));
        }
    }

    fn withdraw(&mut self, sidecar: &Sidecar) {
        if !self.memory.withdrawn.contains(&sidecar.instance) {
            self.act(Action::Withdraw(sidecar.clone()));
        }
    }

    fn terminate(&mut self, sidecar: &Sidecar) {
        if !self.memory.signalled.contains_key(&sidecar.id) {
            self.act(Action::Terminate(sidecar.clone()));
        }
    }

    /// Ends a sidecar whose application lives on: it may finish what it has.
    fn end(&mut self, sidecar: &Sidecar) {
        self.withdraw(sidecar);
        if !sidecar.state.runs() {
            self.act(Action::Remove(sidecar.clone()));
            return;
        }
        self.terminate(sidecar);
        let since = self.memory.signalled.get(&sidecar.id);
        if since.is_some_and(|since| self.now.saturating_duration_since(*since) > self.drain) {
            self.act(Action::Remove(sidecar.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
