//! The running proxy and the handle that steers it.
//!
//! [`Proxy::start`] makes one thread per data worker, by the [`Threads`] it is given, and runs the rest (names, sweeps,
//! administration) on the tokio runtime it is called on. [`ProxyHandle`] applies configurations and ends the proxy.
//!
//! ```no_run
//! # async fn example(config: outrigger_traffic::config::Config) -> std::io::Result<()> {
//! use outrigger_engine::proxy::{Proxy, ProxyOptions};
//!
//! let handle = Proxy::start(ProxyOptions::default())?;
//! if let Err(errors) = handle.apply(config) {
//!     for error in errors {
//!         eprintln!("{error}");
//!     }
//! }
//! handle.drain().await;
//! # Ok(())
//! # }
//! ```

use crate::admin;
use crate::cluster::{ClusterJobs, Resolve, Sweeper, SystemResolver, Tidier};
use crate::config::{Applier, Isolated, isolate};
use crate::dns::DnsServers;
use crate::drain::{DrainState, Phase};
use crate::filter::RegisteredFilters;
use crate::listener::{self, Handed, Hands, Listen, Listeners, NotServed};
use crate::live::Live;
use crate::overload::memory::{ReadMemory, SystemMemory};
use crate::overload::{self, Overload};
use crate::telemetry::access_log::LogOutlet;
use crate::telemetry::access_log::log_writer;
use crate::telemetry::{NodeIdentity, Sharded, SpanSink, Telemetry};
use crate::worker::{Shared, Worker};
use arc_swap::ArcSwap;
use outrigger_traffic::balance::Balancers;
use outrigger_traffic::config::{Config, ConfigError, Endpoints, OverloadManager};
use outrigger_traffic::snapshot::Snapshot;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

/// Downstream connections that may be open at a time, unless set otherwise.
pub const CONNECTIONS_MAX: usize = 50_000;

/// Between looks at outliers and old states.
const CONTROL_TICK: Duration = Duration::from_millis(500);

/// Between looks at whether all connections are gone.
const DRAIN_TICK: Duration = Duration::from_millis(10);

/// Workers have nothing to wait for once the proxy is closed; one that takes longer is stuck.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What a thread runs.
pub type ThreadBody = Box<dyn FnOnce() + Send>;

/// Makes the threads of a proxy: the embedding program decides how.
pub trait Threads: Send + Sync + std::fmt::Debug {
    /// Starts a thread of this name (at most 15 bytes, as the system keeps no more).
    ///
    /// *Errors*: the system's.
    fn start(&self, name: String, body: ThreadBody) -> io::Result<()>;
}

/// Plain threads of the operating system.
#[derive(Debug, Default)]
pub struct OsThreads;

impl Threads for OsThreads {
    fn start(&self, name: String, body: ThreadBody) -> io::Result<()> {
        std::thread::Builder::new().name(name).spawn(body).map(drop)
    }
}

/// How a proxy runs. The default has one worker and no administration.
#[derive(Debug)]
pub struct ProxyOptions {
    /// Data workers, at least 1. Default 1.
    pub concurrency: usize,
    /// Who this proxy is.
    pub node: NodeIdentity,
    /// Address of the administration interface; `None`: none. It has no authentication: keep it on loopback.
    pub admin: Option<SocketAddr>,
    /// How long [`ProxyHandle::drain`] waits for requests, and how long the connections of a listener or filter chain that
    /// has gone or changed may stay. Default 600 s, as in Envoy.
    pub drain_time: Duration,
    /// Downstream connections that may be open at a time. Default [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// Where spans of sampled requests go.
    pub spans: Option<Arc<dyn SpanSink>>,
    /// Where access log lines for services go; `None`: they are dropped and counted.
    pub logs: Option<LogOutlet>,
    /// Who resolves names of clusters.
    pub resolver: Arc<dyn Resolve>,
    /// Who makes threads.
    pub threads: Arc<dyn Threads>,
    /// What the administration shows beyond what the engine knows.
    pub admin_sources: admin::Sources,
    /// Whether listeners may share their addresses with another proxy of the same user, so that this one can relieve it
    /// without a moment in which nobody listens. Default false: a second proxy on the same port is a mistake then.
    pub share_ports: bool,
    /// Whether readiness waits for the first configuration. Default true.
    pub ready_after_config: bool,
    /// What is refused when memory runs out. Default: see [`OverloadManager`].
    pub overload: OverloadManager,
    /// Filters of the embedding program, by the names that configurations use. Default none.
    pub filters: RegisteredFilters,
    /// Balancing policies of the embedding program, by the names that configurations use. Default none.
    pub balancers: Balancers,
    /// Who knows how much memory is used. Default: the system.
    pub memory: Arc<dyn ReadMemory>,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            concurrency: 1,
            node: NodeIdentity::default(),
            admin: None,
            drain_time: Duration::from_secs(600),
            connections_max: CONNECTIONS_MAX,
            spans: None,
            logs: None,
            resolver: Arc::new(SystemResolver::default()),
            threads: Arc::new(OsThreads),
            admin_sources: admin::Sources::default(),
            share_ports: false,
            ready_after_config: true,
            overload: OverloadManager::default(),
            filters: RegisteredFilters::new(),
            balancers: Balancers::new(),
            memory: Arc::new(SystemMemory::default()),
        }
    }
}

/// Starts proxies.
#[derive(Debug)]
pub struct Proxy;

impl Proxy {
    /// Starts workers and control jobs with the empty configuration. Must be called on a tokio runtime.
    ///
    /// *Errors*: a thread cannot be made, or the administration's address cannot be bound.
    pub fn start(options: ProxyOptions) -> io::Result<ProxyHandle> {
        let workers = options.concurrency.max(1);
        let server = Arc::new(Sharded::new(workers));
        let (log_channel, write_logs) = log_writer(server.clone(), options.logs.clone());
        let empty = Live {
            version: 0,
            snapshot: Arc::new(Snapshot::default()),
            listeners: HashMap::new(),
            by_address: HashMap::new(),
            clusters: Box::default(),
        };
        let shared = Arc::new(Shared {
            live: Arc::new(ArcSwap::from_pointee(empty)),
            news: watch::Sender::new(0),
            keys_fetched: Notify::new(),
            drain_time: options.drain_time,
            drain: DrainState::default(),
            server,
            resolver: options.resolver.clone(),
            listener_filters: Arc::new(Sharded::new(workers)),
            telemetry: Telemetry::new(options.node, options.spans, log_channel, workers),
            overload: Overload::default(),
            filters: options.filters,
            balancers: options.balancers,
            concurrency: workers,
            started: Instant::now(),
            started_at: SystemTime::now(),
            connection_ids: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            connections_max: options.connections_max,
        });
        shared.server.control().concurrency.set(workers as u64);
        let admin_socket = options.admin.map(admin::bind).transpose()?;
        options.threads.start("outrigger-log".into(), Box::new(write_logs))?;
        let (hands, handed) = Hands::new(workers);
        let (senders, alive) = spawn_workers(&shared, &*options.threads, handed)?;
        let jobs = ClusterJobs::new(Handle::current(), options.resolver, shared.telemetry.access_log.clone());
        let dns = DnsServers::new(Handle::current(), options.share_ports);
        let listeners = Listeners::new(senders, options.share_ports);
        let applier = Applier::new(shared.clone(), listeners, dns, jobs);
        let admin_addr = admin_socket.as_ref().and_then(|socket| socket.local_addr().ok());
        let handle = ProxyHandle(Arc::new(Steering {
            shared,
            applier: Mutex::new(applier),
            admin_addr,
            alive,
            hands,
            quit: watch::Sender::new(false),
            ready_after_config: options.ready_after_config,
        }));
        tokio::spawn(control(Arc::downgrade(&handle.0)));
        tokio::spawn(overload::watch(Arc::downgrade(handle.shared()), options.overload, options.memory));
        if let Some(socket) = admin_socket {
            tokio::spawn(admin::serve(socket, Arc::downgrade(&handle.0), options.admin_sources));
        }
        Ok(handle)
    }
}

/// Starts one thread per worker. Returns where each takes its sockets from, and how many workers live.
fn spawn_workers(
    shared: &Arc<Shared>,
    threads: &dyn Threads,
    handed: Vec<mpsc::Receiver<Handed>>,
) -> io::Result<(Vec<mpsc::UnboundedSender<Listen>>, watch::Receiver<usize>)> {
    let (alive, count) = watch::channel(0);
    let alive = Arc::new(alive);
    let mut senders = Vec::with_capacity(shared.concurrency);
    for (id, handed) in handed.into_iter().enumerate() {
        // Carries listening sockets only: as many as there are listener addresses.
        let (sender, sockets) = mpsc::unbounded_channel();
        alive.send_modify(|n| *n += 1);
        let living = Living { alive: alive.clone(), shared: shared.clone(), id };
        let shared = shared.clone();
        threads.start(
            format!("outrigger-{id}"),
            Box::new(move || {
                let _living = living;
                run_worker(id, shared, sockets, handed);
            }),
        )?;
        senders.push(sender);
    }
    Ok((senders, count))
}

/// The body of a data thread.
fn run_worker(
    id: usize,
    shared: Arc<Shared>,
    sockets: mpsc::UnboundedReceiver<Listen>,
    handed: mpsc::Receiver<Handed>,
) {
    // Tasks that stay on this thread are scheduled without the queue and lock in between that a `LocalSet` adds.
    let options = tokio::runtime::LocalOptions::default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build_local(options) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(worker = id, error = %error, "no runtime for a worker");
            return;
        }
    };
    runtime.block_on(async move {
        let worker = Worker::new(id, shared);
        listener::run(worker.clone(), sockets, handed).await;
        worker.logs.flush();
    });
}

/// Counts a worker down however its thread ends.
struct Living {
    alive: Arc<watch::Sender<usize>>,
    shared: Arc<Shared>,
    id: usize,
}

impl Drop for Living {
    fn drop(&mut self) {
        if self.shared.drain.phase() != Phase::Closed {
            self.shared.server.at(self.id).defects.inc();
            tracing::error!(worker = self.id, "a worker ended while the proxy runs");
        }
        self.alive.send_modify(|n| *n = n.saturating_sub(1));
    }
}

/// Sweeps outliers and frees old states until the proxy is gone.
async fn control(steering: Weak<Steering>) {
    let mut sweeper = Sweeper::default();
    let mut tidier = Tidier::default();
    let mut tick = tokio::time::interval(CONTROL_TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(steering) = steering.upgrade() else { return };
        let live = steering.shared.live.load_full();
        sweeper.sweep(&live, Instant::now());
        tidier.tidy(&live, Instant::now());
        drop(live);
        let mut applier = steering.applier();
        applier.tend();
        applier.reap();
    }
}

/// What the handle steers.
#[derive(Debug)]
pub(crate) struct Steering {
    pub(crate) shared: Arc<Shared>,
    applier: Mutex<Applier>,
    pub(crate) admin_addr: Option<SocketAddr>,
    alive: watch::Receiver<usize>,
    hands: Hands,
    pub(crate) quit: watch::Sender<bool>,
    ready_after_config: bool,
}

impl Steering {
    /// Held while a configuration is applied; never across an await.
    pub(crate) fn applier(&self) -> MutexGuard<'_, Applier> {
        // A panic in between leaves the old state in effect: every field is replaced after the last thing that can fail.
        self.applier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether new connections should be sent here, else why not (Envoy's state names).
    pub(crate) fn readiness(&self) -> Result<(), &'static str> {
        if self.shared.drain.phase() != Phase::Serving || self.shared.drain.is_health_failed() {
            return Err("DRAINING");
        }
        if self.ready_after_config && self.shared.live.load().version == 0 {
            return Err("PRE_INITIALIZING");
        }
        Ok(())
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        // Nobody can steer the workers any more.
        self.shared.drain.advance(Phase::Closed);
    }
}

/// Steers a running proxy; clones steer the same one. When the last one is dropped, the proxy ends at once.
#[derive(Clone, Debug)]
pub struct ProxyHandle(pub(crate) Arc<Steering>);

impl ProxyHandle {
    /// Replaces the configuration and returns the number of the new state, or changes nothing.
    ///
    /// *Errors*: every reason found, each with `kind/name` of the resource at fault. A listener that cannot be bound is one.
    pub fn apply(&self, config: Config) -> Result<u64, Vec<ConfigError>> {
        self.0.applier().apply(config)
    }

    /// Replaces the configuration; a resource that is refused keeps its last good version or is left out, and the rest
    /// takes effect.
    pub fn apply_isolated(&self, config: Config) -> Isolated {
        let mut applier = self.0.applier();
        let last_good = applier.config().clone();
        isolate(config, &last_good, |config| applier.apply(config))
    }

    /// Replaces the endpoints of an EDS service.
    ///
    /// *Errors*: every reason; nothing is changed then.
    pub fn apply_endpoints(&self, endpoints: &Endpoints) -> Result<(), Vec<ConfigError>> {
        self.0.applier().apply_endpoints(endpoints)
    }

    /// Serves a connection that the caller has accepted, as a listener of this name would have. The listener need not be
    /// bound (`bind_to_port: false`). Never blocks; workers take turns.
    ///
    /// *Errors*: why it is not served; it is closed then.
    pub fn serve(&self, listener: &str, stream: TcpStream) -> Result<(), NotServed> {
        let shared = &self.0.shared;
        if shared.drain.phase() != Phase::Serving {
            return Err(NotServed::Draining);
        }
        let live = shared.live.load();
        let Some((name, _)) = live.listeners.get_key_value(listener) else {
            return Err(NotServed::NoListener);
        };
        if shared.connections.load(Ordering::Relaxed) >= shared.connections_max {
            return Err(NotServed::Busy);
        }
        self.0.hands.give(name.clone(), stream)
    }

    /// Number of the state in effect; 0 before the first configuration.
    pub fn version(&self) -> u64 {
        self.0.shared.live.load().version
    }

    /// The configuration in effect.
    pub fn config(&self) -> Config {
        self.0.applier().config().clone()
    }

    /// The address of the administration interface.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.0.admin_addr
    }

    /// The addresses a listener is bound to; a port 0 shows as the port it became.
    pub fn listener_addrs(&self, name: &str) -> Vec<SocketAddr> {
        self.0.applier().local_addrs(name)
    }

    /// The state all threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// Opens access log files anew (log rotation).
    pub fn reopen_logs(&self) -> bool {
        self.0.shared.telemetry.access_log.reopen()
    }

    /// Waits until an operator asked the proxy to end (`/quitquitquit`).
    ///
    /// *Cancel safety*: safe.
    pub async fn quit_requested(&self) {
        let mut quit = self.0.quit.subscribe();
        let _ = quit.wait_for(|quit| *quit).await;
    }

    /// Ends the proxy: readiness fails, listeners close, connections are asked to finish, and when all are gone or the
    /// drain time is over, everything ends. Returns how many connections were cut off.
    pub async fn drain(&self) -> usize {
        self.drain_within(self.0.shared.drain_time).await
    }

    /// As [`Self::drain`], with another drain time.
    pub async fn drain_within(&self, time: Duration) -> usize {
        let shared = &self.0.shared;
        tracing::info!(connections = shared.connections.load(Ordering::Relaxed), "draining");
        shared.drain.advance(Phase::Draining);
        let emptied = async {
            // Workers take in what the kernel had queued before they stop: two looks in a row must find nothing.
            let mut empty = 0;
            while empty < 2 {
                tokio::time::sleep(DRAIN_TICK).await;
                empty = if shared.connections.load(Ordering::Relaxed) == 0 { empty + 1 } else { 0 };
            }
        };
        let _ = tokio::time::timeout(time, emptied).await;
        let left = shared.connections.load(Ordering::Relaxed);
        shared.drain.advance(Phase::Closed);
        self.join().await;
        shared.telemetry.access_log.flushed().await;
        tracing::info!(connections_cut = left, "ended");
        left
    }

    /// Waits until every worker has ended; a worker that is stuck is waited for a few seconds after the end.
    pub async fn join(&self) {
        self.0.shared.drain.reached(Phase::Closed).await;
        let mut alive = self.0.alive.clone();
        if tokio::time::timeout(END_TIMEOUT, alive.wait_for(|n| *n == 0)).await.is_err() {
            tracing::error!("a worker did not end");
        }
    }
}
