//! Which requests are health checks, and what was answered to them last.

use crate::config::HealthCheckFilter;
use crate::route::HeaderMatcher;
use crate::view::RequestView;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Compiled [`HealthCheckFilter`].
#[derive(Debug)]
pub struct HealthChecks {
    /// What it was made of.
    pub config: HealthCheckFilter,
    headers: Box<[HeaderMatcher]>,
    /// The last answer: the millisecond until which it is good, and its status in the lowest sixteen bits.
    cached: AtomicU64,
}

impl HealthChecks {
    pub(crate) fn new(from: &HealthCheckFilter, refuse: &mut dyn FnMut(String, String)) -> Self {
        let mut headers = Vec::with_capacity(from.headers.len());
        for (i, header) in from.headers.iter().enumerate() {
            match HeaderMatcher::for_request(header) {
                Ok(matcher) => headers.push(matcher),
                Err(reason) => refuse(format!("headers[{i}]"), reason),
            }
        }
        Self { config: from.clone(), headers: headers.into(), cached: AtomicU64::new(0) }
    }

    /// Whether a request is a health check.
    pub fn concerns<V: RequestView + ?Sized>(&self, view: &V) -> bool {
        self.headers.iter().all(|header| header.matches(view))
    }

    /// The status that is still good at `now_ms`, a time since any fixed point.
    pub fn cached(&self, now_ms: u64) -> Option<u16> {
        let cached = self.cached.load(Relaxed);
        (now_ms < cached >> 16).then_some((cached & 0xffff) as u16)
    }

    /// Keeps a status.
    pub fn keep(&self, status: u16, now_ms: u64) {
        let Some(time) = self.config.cache_time else { return };
        let until = now_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self.cached.store(until.min(u64::MAX >> 16) << 16 | u64::from(status), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn answer_is_good_for_its_time_and_no_longer() {
        let config = HealthCheckFilter {
            pass_through: true,
            cache_time: Some(Duration::from_millis(100)),
            cluster_min_healthy: Vec::new(),
            headers: Vec::new(),
        };
        let checks = HealthChecks::new(&config, &mut |_, _| {});
        assert_eq!(checks.cached(0), None);
        checks.keep(503, 50);
        assert_eq!((checks.cached(149), checks.cached(150)), (Some(503), None));
    }
}
