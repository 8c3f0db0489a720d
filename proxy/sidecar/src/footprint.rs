//! Gives back what the start and a change of the configuration left behind, once it is quiet.

use outrigger_engine::proxy::ProxyHandle;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Between looks at whether the configuration changed.
const TICK: Duration = Duration::from_secs(1);

/// How long nothing must have changed: changes come in bursts.
const QUIET: Duration = Duration::from_secs(2);

/// Between two times, however often the configuration changes: the pages that requests need come back by a minor fault each.
const PAUSE: Duration = Duration::from_secs(60);

/// Gives memory back after the first configuration and after later ones, as long as the proxy runs.
pub async fn keep_small(proxy: ProxyHandle) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut plan = Plan::new(Instant::now());
    loop {
        let now = tick.tick().await;
        if !plan.due(proxy.version(), now) {
            continue;
        }
        match outrigger_footprint::give_back() {
            Ok(given) => tracing::debug!(program_bytes = given.program_bytes, "memory given back"),
            Err(error) => {
                tracing::debug!(%error, "memory cannot be given back");
                return;
            }
        }
    }
}

/// When it is time.
#[derive(Debug)]
struct Plan {
    seen: u64,
    since: Instant,
    done: Option<(u64, Instant)>,
}

impl Plan {
    fn new(now: Instant) -> Self {
        Self { seen: 0, since: now, done: None }
    }

    fn due(&mut self, version: u64, now: Instant) -> bool {
        if version != self.seen {
            (self.seen, self.since) = (version, now);
        }
        let quiet = now.duration_since(self.since) >= QUIET;
        let rested = self.done.is_none_or(|(of, at)| of != version && now.duration_since(at) >= PAUSE);
        let due = quiet && rested;
        if due {
            self.done = Some((version, now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_changes_in_a_burst_due_once_after_it() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut plan = Plan::new(start);
        let due: Vec<bool> = (0..8).map(|s| plan.due(s.min(3), at(s))).collect();
        assert_eq!(due, [false, false, false, false, false, true, false, false]);
    }

    #[test]
    fn plan_later_change_due_when_the_pause_is_over() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut plan = Plan::new(start);
        assert!(!plan.due(1, at(0)) && plan.due(1, at(2)));
        assert!(!plan.due(2, at(10)) && !plan.due(2, at(61)));
        assert!(plan.due(2, at(62)), "a minute after the first time");
        assert!((63..500).all(|s| !plan.due(2, at(s))), "nothing has changed");
    }
}
