//! Answers of other servers, kept as long as they may be and no longer.

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Answers kept at a time; each costs some hundred bytes.
pub const CACHE_ENTRIES_MAX: usize = 4096;

/// A TTL longer than this is not believed (RFC 8767 section 4 advises a cap of days; names behind a mesh move sooner).
const TTL_MAX: Duration = Duration::from_secs(3600);

/// An answer of another server.
#[derive(Clone, Debug)]
pub struct Found {
    /// `NoError` or `NXDomain`.
    pub code: ResponseCode,
    /// The answer, aliases on the way to it included.
    pub answers: Vec<Record>,
    /// The authority's record that says how long nothing is to be believed.
    pub authorities: Vec<Record>,
}

impl Found {
    /// How long it may be kept: the shortest TTL of its records; of a negative answer, as its authority says (RFC 2308
    /// section 5). Zero: not at all.
    fn ttl(&self) -> Duration {
        let records = self.answers.iter().chain(&self.authorities);
        let shortest = records.map(|record| record.ttl).min().unwrap_or(0);
        Duration::from_secs(shortest.into()).min(TTL_MAX)
    }

    /// The same `age` later.
    fn aged(&self, age: Duration) -> Self {
        let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let mut aged = self.clone();
        for record in aged.answers.iter_mut().chain(&mut aged.authorities) {
            record.ttl = record.ttl.saturating_sub(seconds);
        }
        aged
    }
}

type Key = (Name, RecordType);

struct Kept {
    found: Found,
    since: Instant,
    until: Instant,
}

/// Answers by question. A lock around it is held for a look, never across a wait.
#[derive(Default)]
pub struct Cache(Mutex<HashMap<Key, Kept>>);

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl Cache {
    /// The answer kept for a question, its TTLs as much shorter as it is old.
    pub fn look_up(&self, name: &Name, kind: RecordType, now: Instant) -> Option<Found> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_lowercase(), kind);
        let kept = all.get(&key)?;
        if kept.until <= now {
            all.remove(&key);
            return None;
        }
        Some(kept.found.aged(now.saturating_duration_since(kept.since)))
    }

    /// Keeps an answer. Where there is no room, what is over goes; where nothing is, the answer that would be over first.
    pub fn keep(&self, name: &Name, kind: RecordType, found: &Found, now: Instant) {
        let ttl = found.ttl();
        if ttl.is_zero() {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= CACHE_ENTRIES_MAX {
            all.retain(|_, kept| kept.until > now);
            if all.len() >= CACHE_ENTRIES_MAX
                && let Some(first) = all.iter().min_by_key(|(_, kept)| kept.until).map(|(key, _)| key.clone())
            {
                all.remove(&first);
            }
        }
        all.insert((name.to_lowercase(), kind), Kept { found: found.clone(), since: now, until: now + ttl });
    }

    /// Answers kept now, those that are over included.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::rr::RData;
    use std::net::Ipv4Addr;

    fn found(name: &Name, ttls: &[u32]) -> Found {
        let record = |ttl: &u32| Record::from_rdata(name.clone(), *ttl, RData::A(Ipv4Addr::LOCALHOST.into()));
        Found {
            code: ResponseCode::NoError,
            answers: ttls.iter().map(record).collect(),
            authorities: Vec::new(),
        }
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn answer_is_kept_for_its_shortest_ttl_which_counts_down() {
        let (cache, now) = (Cache::default(), Instant::now());
        let a = name("a.test.");
        cache.keep(&a, RecordType::A, &found(&a, &[60, 30]), now);
        assert!(cache.look_up(&a, RecordType::AAAA, now).is_none());
        let later = cache.look_up(&name("A.test."), RecordType::A, now + Duration::from_secs(29)).unwrap();
        assert_eq!(later.answers.iter().map(|r| r.ttl).collect::<Vec<_>>(), [31, 1]);
        assert!(cache.look_up(&a, RecordType::A, now + Duration::from_secs(30)).is_none());
        assert!(cache.is_empty());
        cache.keep(&a, RecordType::A, &found(&a, &[60, 0]), now);
        cache.keep(&a, RecordType::A, &found(&a, &[]), now);
        assert!(cache.is_empty(), "what may not be kept is not");
    }

    #[test]
    fn cache_is_bounded_and_loses_what_is_over_first() {
        let (cache, now) = (Cache::default(), Instant::now());
        for n in 0..CACHE_ENTRIES_MAX as u32 {
            let at = name(&format!("n{n}.test."));
            cache.keep(&at, RecordType::A, &found(&at, &[if n == 7 { 100 } else { 200 + n }]), now);
        }
        assert_eq!(cache.len(), CACHE_ENTRIES_MAX);
        let one_more = name("more.test.");
        cache.keep(&one_more, RecordType::A, &found(&one_more, &[60]), now);
        assert_eq!(cache.len(), CACHE_ENTRIES_MAX);
        assert!(cache.look_up(&name("n7.test."), RecordType::A, now).is_none());
        assert!(cache.look_up(&one_more, RecordType::A, now).is_some());
    }
}
