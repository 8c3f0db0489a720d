//! What happens while nothing arrives.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use outrigger_traffic::config::{
    FilterChain, FilterChainMatch, HttpConnectionManager, Listener, Resource, RouteSource, Terminal,
};

use super::held::Held;
use super::warm::HOLD_MAX;
use super::*;
use crate::ads::Kind;

/// Remembers how many listeners each configuration had; refuses while it is told to.
#[derive(Default)]
struct Engine {
    applied: Mutex<Vec<usize>>,
    refuses: AtomicBool,
}

impl Sink for Engine {
    fn apply(&self, config: Config) -> Result<u64, Vec<ConfigError>> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(vec![ConfigError::new("listener/in", "address", "is taken")]);
        }
        self.applied.lock().unwrap().push(config.listeners.len());
        Ok(0)
    }

    fn apply_endpoints(&self, _: &Endpoints) -> Result<(), Vec<ConfigError>> {
        Ok(())
    }
}

/// A feed that holds a listener whose route table has not arrived.
fn waiting(engine: &Arc<Engine>, now: Instant) -> Feed {
    let mut listener = Listener::new("in", "127.0.0.1:1000".parse().unwrap());
    let manager = HttpConnectionManager::new("in", RouteSource::Named("table".into()));
    listener.filter_chains.push(FilterChain {
        name: String::new(),
        matches: FilterChainMatch::default(),
        tls: None,
        transport_socket_connect_timeout: Duration::from_secs(15),
        network_filters: Vec::new(),
        terminal: Terminal::Http(Box::new(manager)),
    });
    let mut feed = Feed::new(Variant::Delta, Config::default(), engine.clone(), None);
    let resource = Arc::new(Resource::Listener(listener));
    let held = Held {
        version: "1".into(),
        bytes: Vec::new().into(),
        resource,
        wanted: Arc::from([]),
        came_from: Default::default(),
    };
    feed.accepted.insert((Kind::Listener, "in".into()), held);
    feed.start(now).unwrap();
    feed
}

#[test]
fn waiting_applies_nothing_twice_and_ends() {
    let engine = Arc::new(Engine::default());
    let now = Instant::now();
    let mut feed = waiting(&engine, now);
    for step in 1..8 {
        feed.tick(now + Duration::from_secs(step));
    }
    assert_eq!(*engine.applied.lock().unwrap(), [0], "nothing changed");
    feed.tick(now + HOLD_MAX);
    feed.tick(now + HOLD_MAX * 2);
    assert_eq!(*engine.applied.lock().unwrap(), [0, 1]);
    assert!(!feed.is_waiting());
}

#[test]
fn what_waited_and_could_not_be_applied_is_tried_again() {
    let engine = Arc::new(Engine::default());
    let now = Instant::now();
    let mut feed = waiting(&engine, now);
    engine.refuses.store(true, Ordering::Relaxed);
    feed.tick(now + HOLD_MAX);
    assert!(feed.is_waiting());
    engine.refuses.store(false, Ordering::Relaxed);
    feed.tick(now + HOLD_MAX + RETRY_AFTER - Duration::from_millis(1));
    assert_eq!(*engine.applied.lock().unwrap(), [0], "not yet");
    feed.tick(now + HOLD_MAX + RETRY_AFTER);
    assert_eq!(*engine.applied.lock().unwrap(), [0, 1]);
    assert!(!feed.is_waiting());
}
