//! Keys that a server has. They belong to the proxy, not to a worker: one fetch serves all.

use super::key::Jwk;
use crate::config::RemoteJwks;
use crate::snapshot::ClusterId;
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Shortest time between two fetches ahead.
const AHEAD_MIN: Duration = Duration::from_millis(100);

/// So long before keys would be too old others are fetched.
const BEFORE_END: Duration = Duration::from_secs(5);

/// The keys of an issuer that are fetched. Times are in nanoseconds of any clock that only grows.
#[derive(Debug)]
pub struct RemoteKeys {
    /// As it was asked for.
    pub config: RemoteJwks,
    /// The cluster that reaches the server.
    pub cluster: ClusterId,
    held: ArcSwapOption<Held>,
    busy: AtomicBool,
    failed: AtomicBool,
    ended: AtomicU64,
    due: AtomicU64,
}

#[derive(Debug)]
struct Held {
    keys: Arc<[Jwk]>,
    until: u64,
}

impl RemoteKeys {
    pub(super) fn new(config: &RemoteJwks, cluster: ClusterId) -> Self {
        Self {
            config: config.clone(),
            cluster,
            held: ArcSwapOption::empty(),
            busy: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            ended: AtomicU64::new(0),
            due: AtomicU64::new(0),
        }
    }

    /// The keys, while they may be used.
    pub fn fresh(&self, now: u64) -> Option<Arc<[Jwk]>> {
        let held = self.held.load();
        held.as_ref().filter(|held| now < held.until).map(|held| held.keys.clone())
    }

    /// The keys of the last fetch that succeeded, however old.
    pub fn latest(&self) -> Option<Arc<[Jwk]>> {
        self.held.load().as_ref().map(|held| held.keys.clone())
    }

    /// Begins a fetch; `None`: one is under way.
    pub fn begin(self: &Arc<Self>, now: u64) -> Option<Fetch> {
        let first = !self.busy.swap(true, Ordering::AcqRel);
        if first {
            // As after a failure, until it is known better.
            self.put_off(now, self.config.ahead.unwrap_or(self.config.cache).max(AHEAD_MIN));
        }
        first.then(|| Fetch { keys: self.clone(), done: false })
    }

    /// When the next fetch ahead is to begin.
    pub fn due(&self) -> u64 {
        self.due.load(Ordering::Acquire)
    }

    fn put_off(&self, now: u64, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.due.store(now.saturating_add(by), Ordering::Release);
    }

    /// Fetches that have ended.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether the last one failed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn end(&self, failed: bool) {
        self.failed.store(failed, Ordering::Release);
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.busy.store(false, Ordering::Release);
    }
}

/// A fetch. One that is dropped has failed.
#[derive(Debug)]
pub struct Fetch {
    keys: Arc<RemoteKeys>,
    done: bool,
}

impl Fetch {
    /// Takes over what the server sent.
    ///
    /// # Errors
    /// It is no key set.
    pub fn finish(mut self, body: &str, now: u64) -> Result<(), String> {
        let keys = Jwk::set(body)?;
        let config = &self.keys.config;
        // Keys that are asked for ahead are used until there are others.
        let good = if config.ahead.is_some() { Duration::MAX } else { config.cache };
        let until = now.saturating_add(u64::try_from(good.as_nanos()).unwrap_or(u64::MAX));
        self.keys.held.store(Some(Arc::new(Held { keys: keys.into(), until })));
        // Source: Envoy: five seconds before the time is over, where there are so many.
        let cache = self.keys.config.cache;
        let next = cache.checked_sub(BEFORE_END).filter(|rest| !rest.is_zero()).unwrap_or(cache);
        self.keys.put_off(now, next.max(AHEAD_MIN));
        self.done = true;
        Ok(())
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.keys.end(!self.done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HttpTarget;

    const SET: &str = r#"{"keys": [{"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"}]}"#;

    fn keys(ahead: Option<Duration>) -> Arc<RemoteKeys> {
        let config =
            RemoteJwks { cache: Duration::from_nanos(10), ahead, ..RemoteJwks::at(HttpTarget::default()) };
        Arc::new(RemoteKeys::new(&config, ClusterId(0)))
    }

    #[test]
    fn keys_are_fresh_for_their_time_and_fetched_once_at_a_time() {
        let keys = keys(None);
        assert!(keys.fresh(0).is_none());
        let fetch = keys.begin(0).unwrap();
        assert!(keys.begin(0).is_none());
        fetch.finish(SET, 5).unwrap();
        assert!(
            (keys.fresh(14).is_some(), keys.fresh(15).is_some(), keys.latest().is_some())
                == (true, false, true)
        );
        assert_eq!((keys.ended(), keys.has_failed()), (1, false));
        drop(keys.begin(0));
        assert_eq!((keys.ended(), keys.has_failed()), (2, true));
        assert!(keys.begin(0).unwrap().finish("{}", 20).is_err());
        assert!(keys.has_failed() && keys.fresh(14).is_some());
    }

    #[test]
    fn keys_asked_for_ahead_stay_until_there_are_others() {
        let keys = keys(Some(Duration::from_secs(1)));
        keys.begin(0).unwrap().finish(SET, 5).unwrap();
        assert!(keys.fresh(u64::MAX - 1).is_some());
    }
}
