//! One downstream connection, and the configuration its requests are served by.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use outrigger_traffic::TableId;
use outrigger_traffic::config::HttpConnectionManager;
use outrigger_traffic::filter::HttpFilter;
use outrigger_traffic::listener::{HttpChain, Terminal};
use outrigger_traffic::route::RouteTable;
use outrigger_traffic::view::FieldView;
use outrigger_wire::h1::Limits;
use tokio::time::Instant;

use super::forwarded::ClientFacts;
use super::normalize::PathScratch;
use crate::drain::DrainWatch;
use crate::io::Io;
use crate::listener::{ConnFacts, reconsider};
use crate::live::{LiveChain, LiveRef};
use crate::overload::Action;
use crate::telemetry::{HttpStats, Raised};
use crate::worker::Worker;

/// A configuration and the connection manager in it: what a request keeps from its start to its end.
#[derive(Debug)]
pub struct Serving {
    /// The configuration.
    pub live: LiveRef,
    /// The chain, whose terminal is a connection manager.
    pub chain: Arc<LiveChain>,
    /// What the forwarding fields of its requests say about the connection.
    pub client: ClientFacts,
    config: Arc<HttpConnectionManager>,
    table: TableId,
    buffer_limit: usize,
}

impl Serving {
    /// `None` when the chain is not one for HTTP.
    pub fn new(live: LiveRef, chain: Arc<LiveChain>, facts: &ConnFacts) -> Option<Rc<Self>> {
        let Terminal::Http(http) = &chain.chain.terminal else { return None };
        let (config, table) = (http.config.clone(), http.table);
        let peer = facts.tls.as_ref().and_then(|tls| tls.peer.as_deref());
        let own = chain.tls.as_ref().and_then(|tls| tls.certificates().next());
        let by: Vec<Arc<str>> =
            own.map(|own| own.uri_sans.iter().map(|uri| uri.as_str().into()).collect()).unwrap_or_default();
        let listener = live.listeners.get(&facts.listener);
        let buffer_limit =
            listener.map_or(1 << 20, |one| one.listener.config.per_connection_buffer_limit_bytes as usize);
        let client = ClientFacts::new(facts.remote.ip(), facts.tls.is_some(), peer, &by, &config);
        Some(Rc::new(Self { live, chain, client, config, table, buffer_limit }))
    }

    /// The route table of a request; `None` while it has not arrived, or where the request is in no scope.
    pub fn table(&self, request: &impl FieldView) -> Option<&Arc<RouteTable>> {
        let table = match &self.chain.chain.terminal {
            Terminal::Http(HttpChain { scopes: Some(scopes), .. }) => scopes.find(request)?,
            Terminal::Http(_) | Terminal::Tcp(_) => self.table,
        };
        self.live.snapshot.table(table)
    }

    /// Largest body kept for another attempt where the route does not say, bytes.
    pub const fn buffer_limit(&self) -> usize {
        self.buffer_limit
    }

    /// The HTTP filters, in order.
    pub fn filters(&self) -> &[HttpFilter] {
        match &self.chain.chain.terminal {
            Terminal::Http(http) => &http.filters,
            // `new` takes chains for HTTP only, and a chain never changes.
            Terminal::Tcp(_) => &[],
        }
    }

    /// What was asked for.
    pub fn config(&self) -> &HttpConnectionManager {
        &self.config
    }

    /// Counters of the connection manager.
    pub fn stats(&self, worker: &Worker) -> &HttpStats {
        self.chain.stats.at(worker.id)
    }

    /// Limits of a request head.
    pub fn limits(&self) -> Limits {
        let config = self.config();
        let bytes = (config.max_request_headers_kb as usize).saturating_mul(1024);
        let fields = config.max_headers_count as usize;
        Limits {
            max_head_bytes: bytes,
            max_fields: fields,
            max_trailer_bytes: bytes,
            max_trailer_fields: fields,
            ..Limits::default()
        }
    }
}

/// One downstream connection.
pub struct Connection {
    /// Its thread.
    pub worker: Rc<Worker>,
    /// The stream.
    pub io: Rc<Io>,
    /// What was known before the first request.
    pub facts: Rc<ConnFacts>,
    /// Whether it should finish.
    pub drain: DrainWatch,
    /// When it was handed over.
    pub opened: Instant,
    serving: RefCell<Rc<Serving>>,
    requests: Cell<u32>,
    /// Memory for the steps of path normalisation.
    pub paths: RefCell<PathScratch>,
    /// The chain it came by is gone or demands another handshake.
    outdated: Cell<bool>,
    _active: Raised<HttpStats>,
}

impl Connection {
    /// A connection that begins.
    pub fn new(
        worker: Rc<Worker>,
        io: Rc<Io>,
        facts: Rc<ConnFacts>,
        serving: Rc<Serving>,
        drain: DrainWatch,
    ) -> Self {
        let stats = serving.stats(&worker);
        stats.downstream_cx_total.inc();
        if io.is_tls() {
            stats.downstream_cx_ssl_total.inc();
        }
        let active = Raised::new(serving.chain.stats.clone(), worker.id, |stats| &stats.downstream_cx_active);
        Self {
            worker,
            io,
            facts,
            drain,
            opened: Instant::now(),
            serving: RefCell::new(serving),
            requests: Cell::new(0),
            paths: RefCell::default(),
            outdated: Cell::new(false),
            _active: active,
        }
    }

    /// The configuration its last request was served by.
    pub fn serving(&self) -> Rc<Serving> {
        self.serving.borrow().clone()
    }

    /// The configuration for a request that begins now. A chain that changed holds from this request on; when it is
    /// gone or asks for another handshake, the old one serves the request and the connection ends after it.
    pub fn serving_now(&self) -> Rc<Serving> {
        let latest = self.worker.live();
        let current = self.serving.borrow().clone();
        if latest.version == current.live.version {
            return current;
        }
        let chain = reconsider(&latest, &self.facts, &current.chain);
        match chain.and_then(|chain| Serving::new(latest, chain, &self.facts)) {
            Some(next) => {
                self.outdated.set(false);
                *self.serving.borrow_mut() = next.clone();
                next
            }
            None => {
                self.outdated.set(true);
                current
            }
        }
    }

    /// Counts a request; whether the connection must end after it.
    pub fn count_request(&self, serving: &Serving) -> bool {
        let served = self.requests.get().saturating_add(1);
        self.requests.set(served);
        let config = serving.config();
        if config.max_requests_per_connection.is_some_and(|most| served >= most) {
            serving.stats(&self.worker).downstream_cx_max_requests_reached.inc();
            return true;
        }
        self.must_end(serving)
    }

    /// Whether the connection should take no more requests.
    pub fn must_end(&self, serving: &Serving) -> bool {
        if self.drain.is_draining() || self.outdated.get() {
            return true;
        }
        if self.worker.shared.overload.is_active(Action::DisableKeepalive) {
            serving.stats(&self.worker).downstream_cx_overload_disable_keepalive.inc();
            return true;
        }
        let config = serving.config();
        if config.max_connection_duration.is_some_and(|longest| self.opened.elapsed() >= longest) {
            serving.stats(&self.worker).downstream_cx_max_duration_reached.inc();
            return true;
        }
        false
    }

    /// Requests it has carried.
    pub const fn requests(&self) -> u32 {
        self.requests.get()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.worker.tenures.unfollow(self.facts.id);
        let serving = self.serving.borrow();
        let stats = serving.stats(&self.worker);
        stats.downstream_cx_destroy.inc();
        stats.downstream_cx_length.record(self.opened.elapsed());
        stats.downstream_cx_rx_bytes_total.add(self.io.bytes_read());
        stats.downstream_cx_tx_bytes_total.add(self.io.bytes_written());
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("id", &self.facts.id).finish_non_exhaustive()
    }
}
