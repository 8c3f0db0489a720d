//! Circuit breakers: limits on what a cluster may have under way, as permits that release themselves when dropped.

use crate::config::{RetryBudget, Thresholds};
use crate::retry::budget;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// Connections (`cx`).
    Connections,
    /// Requests waiting for a connection (`rq_pending`).
    Pending,
    /// Requests under way (`rq`).
    Requests,
    /// Retries under way (`rq_retry`).
    Retries,
}

/// The breaker of one priority of a cluster. Limits belong to the configuration, counts live on across it.
#[derive(Clone, Debug)]
pub struct Breaker {
    limits: Limits,
    counts: Arc<Counts>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    connections: u32,
    pending: u32,
    requests: u32,
    retries: u32,
    budget: Option<RetryBudget>,
}

/// What is under way.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
}

impl Counts {
    fn of(&self, what: Limited) -> &AtomicU32 {
        match what {
            Limited::Connections => &self.connections,
            Limited::Pending => &self.pending,
            Limited::Requests => &self.requests,
            Limited::Retries => &self.retries,
        }
    }
}

/// Leave for one thing under way; dropping it gives the place back.
#[derive(Debug)]
#[must_use = "a dropped permit is given back at once"]
pub struct Permit {
    counts: Arc<Counts>,
    what: Limited,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counts.of(self.what).fetch_sub(1, Relaxed);
    }
}

impl Breaker {
    /// A breaker with these limits and nothing under way.
    pub fn new(from: &Thresholds) -> Self {
        Self::with(from, Arc::default())
    }

    /// The same things under way, other limits.
    pub fn with_limits(&self, from: &Thresholds) -> Self {
        Self::with(from, self.counts.clone())
    }

    fn with(from: &Thresholds, counts: Arc<Counts>) -> Self {
        let limits = Limits {
            connections: from.max_connections,
            pending: from.max_pending_requests,
            requests: from.max_requests,
            retries: from.max_retries,
            budget: from.retry_budget,
        };
        Self { limits, counts }
    }

    /// Leave for a connection.
    ///
    /// # Errors
    /// The limit is full. So for the others.
    pub fn try_connection(&self) -> Result<Permit, Limited> {
        self.take(Limited::Connections)
    }

    /// Leave to wait for a connection.
    ///
    /// # Errors
    /// The limit is full.
    pub fn try_pending(&self) -> Result<Permit, Limited> {
        self.take(Limited::Pending)
    }

    /// Leave for a request.
    ///
    /// # Errors
    /// The limit is full.
    pub fn try_request(&self) -> Result<Permit, Limited> {
        self.take(Limited::Requests)
    }

    /// Leave for a retry: below `max_retries`, or below the retry budget where there is one.
    ///
    /// # Errors
    /// The limit is full.
    pub fn try_retry(&self) -> Result<Permit, Limited> {
        self.take(Limited::Retries)
    }

    fn take(&self, what: Limited) -> Result<Permit, Limited> {
        let limit = self.limit(what);
        let below = |n: u32| (n < limit).then(|| n + 1);
        match self.counts.of(what).fetch_update(Relaxed, Relaxed, below) {
            Ok(_) => Ok(Permit { counts: self.counts.clone(), what }),
            Err(_) => Err(what),
        }
    }

    /// How many may be under way now.
    pub fn limit(&self, what: Limited) -> u32 {
        match what {
            Limited::Connections => self.limits.connections,
            Limited::Pending => self.limits.pending,
            Limited::Requests => self.limits.requests,
            Limited::Retries => match self.limits.budget {
                None => self.limits.retries,
                Some(rule) => {
                    budget::allowed(rule, self.active(Limited::Requests), self.active(Limited::Pending))
                }
            },
        }
    }

    /// How many are under way.
    pub fn active(&self, what: Limited) -> u32 {
        self.counts.of(what).load(Relaxed)
    }

    /// Whether nothing more fits (`circuit_breakers.<priority>.<what>_open`).
    pub fn is_open(&self, what: Limited) -> bool {
        self.active(what) >= self.limit(what)
    }

    /// How many more fit (`remaining_…`).
    pub fn remaining(&self, what: Limited) -> u32 {
        self.limit(what).saturating_sub(self.active(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fraction;

    const ALL: [Limited; 4] = [Limited::Connections, Limited::Pending, Limited::Requests, Limited::Retries];

    #[test]
    fn each_limit_grants_up_to_its_number_and_not_one_more() {
        for limit in [0, 1, 3] {
            let thresholds = Thresholds {
                max_connections: limit,
                max_pending_requests: limit,
                max_requests: limit,
                max_retries: limit,
                ..Thresholds::default()
            };
            let breaker = Breaker::new(&thresholds);
            for what in ALL {
                let mut held: Vec<_> = (0..limit).map(|_| breaker.take(what).unwrap()).collect();
                assert_eq!(breaker.take(what).unwrap_err(), what);
                assert!(breaker.is_open(what));
                assert_eq!((breaker.active(what), breaker.remaining(what)), (limit, 0));
                if held.pop().is_some() {
                    let again = breaker.take(what).unwrap();
                    assert!(breaker.take(what).is_err());
                    drop(again);
                }
                drop(held);
                assert_eq!(breaker.active(what), 0);
            }
        }
    }

    #[test]
    fn new_limits_keep_what_is_under_way() {
        let old = Breaker::new(&Thresholds { max_requests: 5, ..Thresholds::default() });
        let held: Vec<_> = (0..4).map(|_| old.try_request().unwrap()).collect();
        let new = old.with_limits(&Thresholds { max_requests: 2, ..Thresholds::default() });
        assert!(new.try_request().is_err());
        assert_eq!(new.active(Limited::Requests), 4);
        drop(held);
        let a = new.try_request().unwrap();
        let b = new.try_request().unwrap();
        assert!(new.try_request().is_err());
        drop((a, b));
        assert_eq!(old.active(Limited::Requests), 0);
    }

    #[test]
    fn retry_budget_replaces_the_fixed_limit() {
        let rule = RetryBudget { budget: Fraction::from_percent(20), min_retry_concurrency: 2 };
        let breaker =
            Breaker::new(&Thresholds { max_retries: 0, retry_budget: Some(rule), ..Thresholds::default() });
        let retries: Vec<_> = (0..2).map(|_| breaker.try_retry().unwrap()).collect();
        assert!(breaker.try_retry().is_err());
        let requests: Vec<_> = (0..14).map(|_| breaker.try_request().unwrap()).collect();
        assert!(breaker.try_retry().is_err(), "20 % of 14 is 2");
        let one_more = breaker.try_request().unwrap();
        let third = breaker.try_retry().unwrap();
        assert!(breaker.try_retry().is_err(), "20 % of 15 is 3");
        drop((retries, requests, one_more, third));
    }

    #[test]
    fn permits_from_many_threads_never_exceed_the_limit() {
        let breaker = Breaker::new(&Thresholds { max_requests: 3, ..Thresholds::default() });
        let over = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let permit = breaker.try_request();
                        if breaker.active(Limited::Requests) > 3 {
                            over.fetch_add(1, Relaxed);
                        }
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(over.load(Relaxed), 0);
        assert_eq!(breaker.active(Limited::Requests), 0);
    }
}
