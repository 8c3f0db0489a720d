//! Keys that a server has: fetched when a request needs them, or ahead of that.

use std::rc::Rc;
use std::sync::Arc;

use outrigger_traffic::filter::Filter;
use outrigger_traffic::filter::jwt::{Fetch, Keys, RemoteKeys};
use outrigger_traffic::listener::Terminal;
use tokio::time::Instant;

use crate::filter::call::{self, Call};
use crate::live::{Live, LiveRef};
use crate::telemetry::{HttpStats, Sharded};
use crate::worker::Worker;

/// Longest key set that is taken, bytes.
const SET_MAX: usize = 1 << 20;

/// Counters of the connection manager that a fetch is for.
type Stats = Arc<Sharded<HttpStats>>;

/// A time as keys keep it.
pub(super) fn nanos(worker: &Worker, at: Instant) -> u64 {
    let since = at.into_std().saturating_duration_since(worker.shared.started);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Fetches keys, or waits for the fetch that is under way; whether it went well. The fetch goes on when the one who waits
/// goes away: others may need it.
pub(super) async fn fetched(
    worker: &Rc<Worker>,
    live: &LiveRef,
    stats: &Stats,
    keys: &Arc<RemoteKeys>,
) -> bool {
    let before = keys.ended();
    if let Some(fetch) = keys.begin(nanos(worker, Instant::now())) {
        start(worker, live, stats, keys, fetch);
    }
    loop {
        let ended = worker.shared.keys_fetched.notified();
        tokio::pin!(ended);
        // From here on no end is missed.
        ended.as_mut().enable();
        if keys.ended() != before {
            return !keys.has_failed();
        }
        ended.await;
    }
}

fn start(worker: &Rc<Worker>, live: &LiveRef, stats: &Stats, keys: &Arc<RemoteKeys>, fetch: Fetch) {
    let (worker, live, stats, keys) = (worker.clone(), live.clone(), stats.clone(), keys.clone());
    worker.jobs.clone().spawn(async move {
        let told = Told(&worker);
        let stats = stats.at(worker.id);
        match fetch_now(&worker, &live, &keys, fetch).await {
            Ok(()) => stats.jwt_authn_jwks_fetch_success.inc(),
            Err(reason) => {
                stats.jwt_authn_jwks_fetch_failed.inc();
                let target = &keys.config.target;
                tracing::warn!(cluster = %target.cluster, path = %target.path, error = %reason, "fetch of keys failed");
            }
        }
        drop(told);
    });
}

/// Tells those who wait, however the fetch ends. The fetch itself has ended before.
struct Told<'w>(&'w Worker);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.shared.keys_fetched.notify_waiters();
    }
}

async fn fetch_now(worker: &Rc<Worker>, live: &Live, keys: &RemoteKeys, fetch: Fetch) -> Result<(), String> {
    let target = &keys.config.target;
    let mut call = Call::http(target, b"GET", target.path.as_bytes()).ok_or("the URI cannot be asked for")?;
    call.answer_max = SET_MAX;
    let cluster = call::cluster(live, keys.cluster).map_err(|error| error.to_string())?;
    let reply = call::ask_again(worker, &cluster, &call, keys.config.retry);
    let reply = reply.await.map_err(|error| error.to_string())?;
    if reply.head.status != 200 {
        return Err(format!("status {}", reply.head.status));
    }
    let text = std::str::from_utf8(&reply.body).map_err(|_| "is not UTF-8")?;
    fetch.finish(text, nanos(worker, Instant::now()))
}

/// Fetches keys that are to be there before a request needs them, for as long as the worker lives.
pub(crate) async fn keep_ahead(worker: Rc<Worker>) {
    let mut news = worker.shared.news.subscribe();
    loop {
        news.mark_unchanged();
        let now = nanos(&worker, Instant::now());
        let next = {
            // Not kept while waiting: an old configuration would live for as long.
            let live = worker.live();
            for (keys, stats) in ahead(&live) {
                if keys.due() <= now
                    && let Some(fetch) = keys.begin(now)
                {
                    start(&worker, &live, stats, keys, fetch);
                }
            }
            ahead(&live).map(|(keys, _)| keys.due()).min()
        };
        let Some(next) = next else {
            if news.changed().await.is_err() {
                return;
            }
            continue;
        };
        // A fetch that ends moves what is due; so it is looked again then.
        let wait = std::time::Duration::from_nanos(next.saturating_sub(now));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = worker.shared.keys_fetched.notified() => {}
            changed = news.changed() => if changed.is_err() { return },
        }
    }
}

/// Every set of keys that is fetched ahead.
fn ahead(live: &Live) -> impl Iterator<Item = (&Arc<RemoteKeys>, &Stats)> {
    let chains = live.listeners.values().flat_map(|listener| &listener.chains);
    chains.flat_map(|chain| {
        let filters = match &chain.chain.terminal {
            Terminal::Http(http) => &*http.filters,
            Terminal::Tcp(_) => &[],
        };
        let providers = filters.iter().flat_map(|filter| match &filter.rules {
            Filter::Jwt(authn) => &*authn.providers,
            _ => &[],
        });
        providers.filter_map(|provider| match &provider.keys {
            Keys::Remote(keys) if keys.config.ahead.is_some() => Some((keys, &chain.stats)),
            _ => None,
        })
    })
}
