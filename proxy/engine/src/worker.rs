//! What one data thread owns.
//!
//! Everything here is reached through `Rc` on one thread: cells instead of locks, nothing borrowed across an await.

use crate::cluster::Resolve;
use crate::drain::{DrainNode, DrainState};
use crate::exchange::express::Lane;
use crate::exchange::slot::Slots;
use crate::exchange::{self, Exchange, Start};
use crate::filter::RegisteredFilters;
use crate::http::date::DateCache;
use crate::http::h2::memory::Memory;
use crate::identity::Peers;
use crate::io::{BufferPool, Wheel};
use crate::jobs::Jobs;
use crate::listener::Tenures;
use crate::live::{Live, LiveRef};
use crate::overload::Overload;
use crate::telemetry::access_log::WorkerLogs;
use crate::telemetry::trace::WorkerSpans;
use crate::telemetry::{ListenerFilterStats, ServerStats, Sharded, Telemetry, WorkerMetrics};
use crate::upstream::pool::Pools;
use arc_swap::{ArcSwap, Cache};
use outrigger_traffic::balance::Balancers;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, watch};

/// What all threads of a proxy share.
#[derive(Debug)]
pub struct Shared {
    /// The running configuration.
    pub live: Arc<ArcSwap<Live>>,
    /// Number of the running configuration, for those who wait for another one; sent after it is in `live`.
    pub news: watch::Sender<u64>,
    /// How long connections have to finish when the proxy, their listener or their filter chain goes.
    pub drain_time: Duration,
    /// How far the proxy is on its way out.
    pub drain: DrainState,
    /// Counters of the process.
    pub server: Arc<Sharded<ServerStats>>,
    /// Who resolves names.
    pub resolver: Arc<dyn Resolve>,
    /// Counters of listener filters.
    pub listener_filters: Arc<Sharded<ListenerFilterStats>>,
    /// Node labels, series, log and span sinks.
    pub telemetry: Telemetry,
    /// What is refused because memory runs out.
    pub overload: Overload,
    /// A fetch of keys has ended, one way or the other.
    pub keys_fetched: Notify,
    /// Filters of the embedding program.
    pub filters: RegisteredFilters,
    /// Balancing policies of the embedding program.
    pub balancers: Balancers,
    /// Number of data workers.
    pub concurrency: usize,
    /// When the proxy started.
    pub started: Instant,
    /// When the proxy started, for people.
    pub started_at: SystemTime,
    /// Source of connection ids.
    pub connection_ids: AtomicU64,
    /// Downstream connections open now, and how many may be.
    pub connections: AtomicUsize,
    /// Downstream connections that may be open at a time.
    pub connections_max: usize,
}

impl Shared {
    /// A connection id not used before in this proxy.
    pub fn next_connection_id(&self) -> u64 {
        self.connection_ids.fetch_add(1, Ordering::Relaxed)
    }
}

/// One data thread.
pub struct Worker {
    /// 0..concurrency; the shard of every [`Sharded`] that this worker may write.
    pub id: usize,
    /// What all threads share.
    pub shared: Arc<Shared>,
    live: RefCell<Cache<Arc<ArcSwap<Live>>, Arc<Live>>>,
    current: RefCell<LiveRef>,
    /// Random numbers for balancing, sampling, ids, jitter. Not for keys.
    pub rng: RefCell<fastrand::Rng>,
    /// Room for the futures of exchanges.
    pub slots: Slots<Start, (tokio::time::Instant, Box<Exchange>)>,
    /// Exchanges that are served without a task.
    pub lane: Rc<Lane>,
    /// Memory of HTTP/2 exchanges.
    pub memory: Rc<Memory>,
    /// Timers.
    pub wheel: Wheel,
    /// Read and write buffers.
    pub buffers: BufferPool,
    /// What the certificates of peers say.
    pub peers: RefCell<Peers>,
    /// The `date` field of responses.
    pub dates: DateCache,
    /// Connections to hosts.
    pub pools: Pools,
    /// Request metrics of this worker.
    pub metrics: WorkerMetrics,
    /// Access log lines not yet handed to the writer.
    pub logs: WorkerLogs,
    /// Spans not yet handed over.
    pub spans: WorkerSpans,
    /// The way out of this worker's connections; listeners hang below it.
    pub drain: DrainNode,
    /// Tasks of this worker.
    pub jobs: Jobs,
    /// Wakes those that hold on to an old configuration although nothing happens to them.
    pub(crate) news: Notify,
    /// The right of open connections to stay.
    pub(crate) tenures: Tenures,
    /// Says that a tenure was given an end outside of the walk.
    pub(crate) tenures_expire: Notify,
    /// Downstream connections of this worker.
    pub connections: Cell<usize>,
}

impl Worker {
    /// A worker on the current thread. Must be called inside a `LocalSet`, where its timer task is started.
    pub fn new(id: usize, shared: Arc<Shared>) -> Rc<Self> {
        let live = Cache::new(shared.live.clone());
        let current = LiveRef::new(shared.live.load_full());
        Rc::new(Self {
            id,
            live: RefCell::new(live),
            current: RefCell::new(current),
            rng: RefCell::new(fastrand::Rng::new()),
            slots: Slots::new(exchange::serve),
            lane: Rc::default(),
            memory: Rc::default(),
            wheel: Wheel::start(),
            buffers: BufferPool::default(),
            peers: RefCell::default(),
            dates: DateCache::default(),
            pools: Pools::default(),
            metrics: WorkerMetrics::new(&shared.telemetry.series, id),
            logs: WorkerLogs::default(),
            spans: WorkerSpans::default(),
            drain: DrainNode::default(),
            jobs: Jobs::default(),
            news: Notify::new(),
            tenures: Tenures::default(),
            tenures_expire: Notify::new(),
            connections: Cell::new(0),
            shared,
        })
    }

    /// The running configuration as of now. Costs a load and a compare; take it once per request and keep it.
    pub fn live(&self) -> LiveRef {
        let mut cache = self.live.borrow_mut();
        let latest = cache.load();
        let mut current = self.current.borrow_mut();
        if latest.version != current.version {
            *current = LiveRef::new(latest.clone());
        }
        current.clone()
    }

    /// 64 random bits.
    pub fn draw(&self) -> u64 {
        self.rng.borrow_mut().u64(..)
    }

    /// 32 random bits.
    pub fn draw_u32(&self) -> u32 {
        self.rng.borrow_mut().u32(..)
    }
}
