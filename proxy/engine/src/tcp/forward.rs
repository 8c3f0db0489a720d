//! The TCP proxy filter: one downstream connection, one host.

use super::tunnel::{self, Carrier, Refusal};
use super::{CopyEnd, Progress, Side, copy_both};
use crate::cluster::{destination, note_destination, note_way, proxied};
use crate::io::Io;
use crate::listener::{ConnFacts, Tenure};
use crate::live::{LiveChainRef, LiveCluster, LiveRef};
use crate::telemetry::{self, ConnectionRecord, Raised, ResponseFlags, TcpStats, Timeline, UpstreamFacts};
use crate::upstream::pool::Checked;
use crate::upstream::{ConnectError, ConnectOptions, connect, removed};
use crate::worker::Worker;
use outrigger_traffic::balance::PickContext;
use outrigger_traffic::cluster::{ConnectionPermit, Host, HostId};
use outrigger_traffic::config::TcpProxy;
use outrigger_traffic::listener::{TcpChain, Terminal};
use outrigger_traffic::outcome::Outcome;
use outrigger_traffic::route::split::Draw;
use outrigger_traffic::view::NoFields;
use outrigger_wire::{RequestHead, Version};
use smallvec::SmallVec;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use tokio::time::Instant;

/// Picks made in search of a host that was not tried before.
const PICKS_MAX: u32 = 5;

/// A connection to a host and what must be given back when it ends.
struct Upstream {
    way: Way,
    host: Arc<Host>,
    _busy: outrigger_traffic::cluster::InFlight,
}

/// How bytes get to the host.
#[allow(clippy::large_enum_variant, reason = "there is one for each connection")]
enum Way {
    /// As they are.
    Plain(Plain),
    /// In a request.
    Carried(Carrier),
}

/// A connection of its own.
struct Plain {
    io: Rc<Io>,
    _permit: ConnectionPermit,
    _open: outrigger_traffic::cluster::OpenConnection,
    _active: Raised<telemetry::ClusterStats>,
}

impl Upstream {
    /// What was cut must not be taken for whole.
    fn reset(&mut self) {
        match &mut self.way {
            Way::Plain(plain) => plain.io.reset_on_drop(),
            Way::Carried(carrier) => carrier.reset(),
        }
    }
}

/// The two connections, and how long the first one may stay.
struct Ends<'a> {
    io: &'a Io,
    upstream: &'a mut Upstream,
    tenure: &'a Tenure,
}

/// Why passing bytes on is over.
enum Ending {
    Copied(CopyEnd),
    /// The host is not one of the cluster any more, and the cluster wants its connections closed then.
    HostLeft,
    /// The connection may not stay.
    Evicted,
}

/// What is known at the end, for the books.
#[derive(Default)]
struct Outline {
    flags: ResponseFlags,
    cluster: Option<Arc<LiveCluster>>,
    upstream: Option<UpstreamFacts>,
    attempts: u32,
}

/// Serves a connection whose chain ends in a TCP proxy, to its end.
///
/// *Cancel safety*: dropping it drops both connections; the connection is then not logged.
pub async fn forward(
    worker: Rc<Worker>,
    io: Rc<Io>,
    facts: Rc<ConnFacts>,
    chain: LiveChainRef,
    tenure: &Tenure,
) {
    let Terminal::Tcp(tcp) = &chain.chain.terminal else { return };
    let stats = chain.tcp_stats.at(worker.id);
    stats.downstream_cx_total.inc();
    let active = Raised::new(chain.tcp_stats.clone(), worker.id, |stats| &stats.downstream_cx_active);
    let mut timeline = Timeline::starting(Instant::now());
    let mut outline = Outline::default();
    let progress = Progress::default();
    let mut upstream = reach(&worker, tcp, &chain, &timeline, &mut outline, &facts).await;
    let opened = upstream.is_some();
    if let Some(upstream) = &mut upstream {
        timeline.upstream_start = Some(Instant::now());
        telemetry::begin_connection(&worker, &record(&facts, &chain, &outline, &timeline, &progress));
        let ends = Ends { io: &io, upstream, tenure };
        run(&worker, &tcp.config, ends, &progress, &mut outline, stats).await;
        if let Some(cluster) = &outline.cluster {
            let stats = cluster.stats.at(worker.id);
            stats.upstream_cx_rx_bytes_total.add(progress.b_to_a.get());
            stats.upstream_cx_tx_bytes_total.add(progress.a_to_b.get());
            if let Way::Plain(_) = upstream.way {
                stats.upstream_cx_destroy.inc();
            }
        }
    }
    stats.downstream_cx_rx_bytes_total.add(progress.a_to_b.get());
    stats.downstream_cx_tx_bytes_total.add(progress.b_to_a.get());
    timeline.end = Some(Instant::now());
    if let Some(Upstream { way: Way::Carried(carrier), .. }) = upstream {
        carrier.end();
    }
    drop(active);
    telemetry::finish_connection(&worker, &record(&facts, &chain, &outline, &timeline, &progress), opened);
}

fn record<'a>(
    facts: &'a ConnFacts,
    chain: &'a LiveChainRef,
    outline: &'a Outline,
    timeline: &'a Timeline,
    progress: &Progress,
) -> ConnectionRecord<'a> {
    ConnectionRecord {
        connection: facts,
        chain,
        flags: outline.flags,
        cluster: outline.cluster.as_ref(),
        upstream: outline.upstream.as_ref(),
        attempts: outline.attempts,
        timeline,
        received_bytes: progress.a_to_b.get(),
        sent_bytes: progress.b_to_a.get(),
    }
}

/// Finds a cluster and connects to one of its hosts, within the attempts allowed. `None`: `outline` says why.
async fn reach(
    worker: &Rc<Worker>,
    tcp: &TcpChain,
    chain: &LiveChainRef,
    timeline: &Timeline,
    outline: &mut Outline,
    facts: &ConnFacts,
) -> Option<Upstream> {
    let stats = chain.tcp_stats.at(worker.id);
    let live: LiveRef = worker.live();
    let chosen = tcp.choice.choose(&live.snapshot, &NoFields, Draw::Random(worker.draw()));
    let Some(cluster) = chosen.and_then(|(id, _)| live.cluster(id)).cloned() else {
        stats.downstream_cx_no_route.inc();
        outline.flags = ResponseFlags::NO_CLUSTER;
        tracing::debug!(listener = &*facts.listener, "the cluster of a tcp proxy does not exist");
        return None;
    };
    drop(live);
    outline.cluster = Some(cluster.clone());
    let head = match &tcp.tunnel {
        None => None,
        Some(tunnel) => {
            let record = record(facts, chain, outline, timeline, &Progress::default());
            let head = tunnel::head(worker, tunnel, &record, cluster.tls.is_some());
            if head.is_none() {
                tracing::debug!(listener = &*facts.listener, "the hostname of a tunnel is no authority");
                outline.flags = ResponseFlags::NO_CLUSTER;
                return None;
            }
            head
        }
    };
    let mut tried: SmallVec<[HostId; 4]> = SmallVec::new();
    let attempts_max = tcp.config.max_connect_attempts.max(1);
    while outline.attempts < attempts_max {
        let host = pick(worker, &cluster, &tried, outline, facts)?;
        if let Some(head) = &head {
            match carry(worker, &cluster, &host, head, tcp, outline).await {
                Ok(carrier) => {
                    let busy = host.start_request();
                    return Some(Upstream { way: Way::Carried(carrier), host, _busy: busy });
                }
                Err(true) => {
                    tried.push(host.id);
                    continue;
                }
                Err(false) => return None,
            }
        }
        let Ok(permit) = cluster.cluster.try_connection(&host, false) else {
            cluster.stats.at(worker.id).upstream_cx_overflow.inc();
            outline.flags = ResponseFlags::UPSTREAM_OVERFLOW;
            return None;
        };
        outline.attempts += 1;
        let options =
            ConnectOptions { proxied: proxied(&cluster.cluster, facts), ..ConnectOptions::default() };
        match connect(worker, &cluster, &host, options).await {
            Ok(io) => {
                report(worker, &cluster, &host, Outcome::Connected);
                outline.flags = ResponseFlags::NONE;
                outline.upstream = Some(upstream_facts(&host, Some(&io), String::new()));
                cluster.stats.at(worker.id).upstream_cx_total.inc();
                let plain = Plain {
                    _permit: permit,
                    _open: host.open_connection(),
                    _active: Raised::new(cluster.stats.clone(), worker.id, |stats| &stats.upstream_cx_active),
                    io,
                };
                return Some(Upstream { way: Way::Plain(plain), _busy: host.start_request(), host });
            }
            Err(error) => {
                failed(worker, &cluster, &host, &error, outline, facts);
                tried.push(host.id);
            }
        }
    }
    if attempts_max > 1 {
        outline.flags |= ResponseFlags::UPSTREAM_RETRY_LIMIT;
    }
    cluster.stats.at(worker.id).upstream_cx_connect_attempts_exceeded.inc();
    None
}

/// Has a host carry the connection; else whether another one may be asked.
async fn carry(
    worker: &Rc<Worker>,
    cluster: &Arc<LiveCluster>,
    host: &Arc<Host>,
    head: &RequestHead,
    tcp: &TcpChain,
    outline: &mut Outline,
) -> Result<Carrier, bool> {
    outline.attempts += 1;
    let mut reached = upstream_facts(host, None, String::new());
    let connected = |checked: &Checked| {
        reached.local = Some(checked.local_addr());
        reached.tls = checked.tls_facts();
        reached.protocol = checked.protocol();
    };
    // Boxed, because its future is large and most connections are not carried.
    let opening = tunnel::open(worker, cluster, host, head, connected, tcp.config.idle_timeout);
    let opened = Box::pin(opening).await;
    match &opened {
        Ok(_) => outline.flags = ResponseFlags::NONE,
        Err(Refusal::Overflow) => {
            outline.flags = ResponseFlags::UPSTREAM_OVERFLOW;
            return Err(false);
        }
        Err(refusal) => {
            outline.flags = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
            if let Refusal::Unreachable(reason) = refusal {
                reached.failure.clone_from(reason);
            }
            tracing::debug!(cluster = &*cluster.name, endpoint = %host.address, refusal = ?refusal, "a host does not carry a connection");
        }
    }
    outline.upstream = Some(reached);
    opened.map_err(|_| true)
}

fn pick(
    worker: &Worker,
    cluster: &LiveCluster,
    tried: &[HostId],
    outline: &mut Outline,
    facts: &ConnFacts,
) -> Option<Arc<Host>> {
    let mut draw = || worker.draw();
    let mut context = PickContext {
        avoid: tried,
        attempts_max: PICKS_MAX,
        destination: cluster.cluster.original_dst().and_then(|original| destination(original, facts, None)),
        ..PickContext::new(std::time::Instant::now(), &mut draw)
    };
    let picked = cluster.cluster.pick(&mut context);
    note_destination(cluster, worker, &context);
    note_way(cluster, worker, &context);
    match picked {
        Ok(host) => Some(host),
        Err(_) => {
            cluster.stats.at(worker.id).upstream_cx_none_healthy.inc();
            outline.flags = ResponseFlags::NO_HEALTHY_UPSTREAM;
            None
        }
    }
}

fn failed(
    worker: &Worker,
    cluster: &LiveCluster,
    host: &Arc<Host>,
    error: &ConnectError,
    outline: &mut Outline,
    facts: &ConnFacts,
) {
    report(worker, cluster, host, Outcome::ConnectFailed);
    outline.flags = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
    outline.upstream = Some(upstream_facts(host, None, error.to_string()));
    tracing::debug!(
        listener = &*facts.listener,
        cluster = &*cluster.name,
        endpoint = %host.address,
        error = %error,
        "connection to a host failed"
    );
}

fn report(worker: &Worker, cluster: &LiveCluster, host: &Host, outcome: Outcome) {
    cluster.report(worker, host, outcome, std::time::Instant::now());
}

fn upstream_facts(host: &Arc<Host>, io: Option<&Rc<Io>>, failure: String) -> UpstreamFacts {
    UpstreamFacts {
        host: host.clone(),
        local: io.map(|io| io.local_addr()),
        tls: io.and_then(|io| io.tls_facts()),
        protocol: Version::Http11,
        failure,
    }
}

/// Copies until it is over, and says why it was.
async fn run(
    worker: &Rc<Worker>,
    config: &TcpProxy,
    ends: Ends<'_>,
    progress: &Progress,
    outline: &mut Outline,
    stats: &TcpStats,
) {
    let Ends { io, upstream, tenure } = ends;
    let ending = until_over(worker, config, io, upstream, tenure, progress, outline.cluster.clone());
    match worker.wheel.timeout(config.max_downstream_connection_duration, ending).await {
        None => {
            if let Way::Carried(carrier) = &mut upstream.way {
                carrier.reset();
            }
            stats.max_downstream_connection_duration.inc();
            outline.flags = ResponseFlags::DURATION_TIMEOUT;
        }
        Some(Ending::HostLeft) => {
            io.reset_on_drop();
            upstream.reset();
            outline.flags = ResponseFlags::UPSTREAM_TERMINATION;
        }
        Some(Ending::Evicted) => {
            // The tenure has counted it and set our side to be reset.
            upstream.reset();
            outline.flags = ResponseFlags::LOCAL_RESET;
        }
        // Ended in order, or as good as: a side may have closed without TLS's close_notify.
        Some(Ending::Copied(CopyEnd::Finished)) => match progress.cut.get() {
            None => {}
            Some(Side::A) => outline.flags = ResponseFlags::DOWNSTREAM_TERMINATION,
            Some(Side::B) => outline.flags = ResponseFlags::UPSTREAM_TERMINATION,
        },
        Some(Ending::Copied(CopyEnd::Idle)) => {
            stats.idle_timeout.inc();
            outline.flags = ResponseFlags::STREAM_IDLE_TIMEOUT;
        }
        Some(Ending::Copied(CopyEnd::Failed(Side::A, _))) => {
            outline.flags = ResponseFlags::DOWNSTREAM_TERMINATION;
        }
        Some(Ending::Copied(CopyEnd::Failed(Side::B, _))) => {
            outline.flags = ResponseFlags::UPSTREAM_TERMINATION;
            if let Some(cluster) = &outline.cluster {
                report(worker, cluster, &upstream.host, Outcome::Reset);
            }
        }
    }
}

/// Copies until both directions have ended, the host left its cluster, or the connection may not stay.
async fn until_over(
    worker: &Rc<Worker>,
    config: &TcpProxy,
    io: &Io,
    upstream: &mut Upstream,
    tenure: &Tenure,
    progress: &Progress,
    cluster: Option<Arc<LiveCluster>>,
) -> Ending {
    let Upstream { way, host, .. } = upstream;
    let mut copying = pin!(async {
        match way {
            Way::Plain(plain) => copy_both(worker, io, &plain.io, config.idle_timeout, progress).await,
            Way::Carried(carrier) => Box::pin(carrier.copy(io, config.idle_timeout, progress)).await,
        }
    });
    let mut leaving = pin!(async {
        match &cluster {
            Some(cluster) => removed(worker, cluster, host).await,
            None => std::future::pending().await,
        }
    });
    std::future::poll_fn(|cx| {
        if tenure.poll_evicted(cx).is_ready() {
            return Poll::Ready(Ending::Evicted);
        }
        if let Poll::Ready(end) = copying.as_mut().poll(cx) {
            return Poll::Ready(Ending::Copied(end));
        }
        leaving.as_mut().poll(cx).map(|()| Ending::HostLeft)
    })
    .await
}
