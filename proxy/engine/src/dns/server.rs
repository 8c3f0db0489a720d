//! The sockets of DNS listeners, and the tasks that serve them.
//!
//! As with other listeners, what is new is bound before a configuration takes effect and put to use after it
//! ([`DnsServers::prepare`], [`DnsServers::commit`]). A task asks the running configuration what it answers with for every
//! question, so a change of the table needs no new socket.

use super::answer::{Verdict, encode, judge};
use super::{Zone, tcp};
use crate::worker::Shared;
use outrigger_traffic::config::{self, ConfigError};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// Largest question, bytes: an EDNS message may be as long as a datagram.
const QUESTION_BYTES_MAX: usize = 4096;
/// Questions over UDP that wait for other servers, of one listener; the servers have a limit of their own beneath.
const WAITING_MAX: usize = 1024;

/// What the tasks of a listener share.
pub(super) struct Service {
    pub(super) listener: Arc<str>,
    shared: Arc<Shared>,
    waiting: AtomicUsize,
}

impl Service {
    /// What it answers with now; `None` when the listener is going.
    fn zone(&self) -> Option<Arc<Zone>> {
        self.shared.live.load().listeners.get(&self.listener)?.dns.clone()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Transport {
    Udp,
    Tcp,
}

type Key = (Arc<str>, SocketAddr, Transport);

/// The open sockets of DNS listeners, by listener, address asked for and transport.
#[derive(Debug)]
pub struct DnsServers {
    runtime: Handle,
    open: HashMap<Key, Open>,
    /// Addresses may be those of another proxy, which this one is to relieve.
    with_predecessor: bool,
}

#[derive(Debug)]
struct Open {
    local: SocketAddr,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
enum Bound {
    Udp(std::net::UdpSocket),
    Tcp(std::net::TcpListener),
}

/// Sockets that are bound and not yet in use; dropping it closes them.
#[derive(Debug)]
pub struct PreparedDns(Vec<(Key, Bound)>);

impl DnsServers {
    /// No socket yet; tasks will run on `runtime`.
    pub fn new(runtime: Handle, with_predecessor: bool) -> Self {
        Self { runtime, open: HashMap::new(), with_predecessor }
    }

    /// Binds what is not open yet.
    ///
    /// *Errors*: every address that cannot be bound.
    pub fn prepare(&self, wanted: &[config::Listener]) -> (PreparedDns, Vec<ConfigError>) {
        let mut new = Vec::new();
        let mut errors = Vec::new();
        for listener in wanted {
            for (i, (address, transport)) in sockets(listener).enumerate() {
                let key: Key = (listener.name.as_str().into(), address, transport);
                if self.open.contains_key(&key) {
                    continue;
                }
                match bind(address, transport, self.with_predecessor) {
                    Ok(bound) => new.push((key, bound)),
                    Err(error) => {
                        let path = match i {
                            0 => "address".to_owned(),
                            n => format!("additional_addresses[{}]", n - 1),
                        };
                        let reason = format!("cannot bind {address}: {error}");
                        errors.push(ConfigError::new(format!("listener/{}", listener.name), path, reason));
                    }
                }
            }
        }
        (PreparedDns(new), errors)
    }

    /// Puts prepared sockets to use and closes those that no listener of `wanted` asks for.
    pub fn commit(&mut self, prepared: PreparedDns, wanted: &[config::Listener], shared: &Arc<Shared>) {
        for (key, bound) in prepared.0 {
            let service = Arc::new(Service {
                listener: key.0.clone(),
                shared: shared.clone(),
                waiting: AtomicUsize::new(0),
            });
            let _entered = self.runtime.enter();
            let started = match bound {
                Bound::Udp(socket) => UdpSocket::from_std(socket).and_then(|socket| {
                    let local = socket.local_addr()?;
                    Ok((local, self.runtime.spawn(serve_udp(service, Arc::new(socket)))))
                }),
                Bound::Tcp(listener) => TcpListener::from_std(listener).and_then(|listener| {
                    let local = listener.local_addr()?;
                    Ok((local, self.runtime.spawn(tcp::serve(service, listener))))
                }),
            };
            match started {
                Ok((local, task)) => {
                    tracing::info!(listener = &*key.0, address = %local, transport = ?key.2, "answering dns");
                    self.open.insert(key, Open { local, task: task.abort_handle() });
                }
                Err(error) => {
                    tracing::error!(listener = &*key.0, error = %error, "dns socket cannot be used");
                }
            }
        }
        self.open.retain(|(name, address, transport), _| {
            let asks = |l: &config::Listener| {
                l.name == **name && sockets(l).any(|(a, t)| a == *address && t == *transport)
            };
            wanted.iter().any(asks)
        });
    }

    /// The bound addresses of a listener, UDP first.
    pub fn local_addrs(&self, name: &str) -> Vec<SocketAddr> {
        let of = |wanted: Transport| {
            self.open
                .iter()
                .filter(move |((n, _, transport), _)| **n == *name && *transport == wanted)
                .map(|(_, open)| open.local)
        };
        of(Transport::Udp).chain(of(Transport::Tcp)).collect()
    }

    /// All bound addresses with the name of their listener.
    pub fn all(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.open.iter().map(|((name, ..), open)| (&**name, open.local))
    }
}

/// UDP first, then the TCP addresses.
fn sockets(listener: &config::Listener) -> impl Iterator<Item = (SocketAddr, Transport)> + '_ {
    let udp = std::iter::once((listener.address, Transport::Udp));
    let tcp = listener.additional_addresses.iter().map(|address| (*address, Transport::Tcp));
    udp.chain(tcp).filter(|_| listener.dns.is_some())
}

/// As for other listeners, a port is shared with a predecessor only; another program on it is found out.
fn bind(address: SocketAddr, transport: Transport, shared: bool) -> io::Result<Bound> {
    let (kind, protocol) = match transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let open = || {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if transport == Transport::Tcp {
            socket.set_reuse_address(true)?;
        }
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        io::Result::Ok(socket)
    };
    if !shared && address.port() != 0 {
        let probe = open()?;
        probe.bind(&address.into())?;
        if transport == Transport::Tcp {
            probe.listen(1)?;
        }
    }
    let socket = open()?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(match transport {
        Transport::Udp => Bound::Udp(socket.into()),
        Transport::Tcp => {
            socket.listen(128)?;
            Bound::Tcp(socket.into())
        }
    })
}

/// Answers a question; `None`: it gets no answer.
pub(super) async fn answer(service: &Service, question: &[u8], over_udp: bool) -> Option<Vec<u8>> {
    let zone = service.zone()?;
    let stats = zone.stats.control();
    let reply = match judge(question, &zone, stats) {
        Verdict::Answer(reply) => reply,
        Verdict::Ignore => return None,
        Verdict::Ask(asked) => match &zone.forward {
            Some(forward) => {
                let found = forward.ask(&asked.name, asked.kind).await;
                asked.answered(found, stats)
            }
            None => return None,
        },
    };
    stats.downstream_tx_responses.inc();
    encode(&reply, over_udp)
}

async fn serve_udp(service: Arc<Service>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    loop {
        // An error of a datagram socket is about an earlier answer that could not be delivered.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let question = buffer.get(..length).unwrap_or_default();
        let Some(zone) = service.zone() else { continue };
        let stats = zone.stats.control();
        match judge(question, &zone, stats) {
            Verdict::Ignore => {}
            Verdict::Answer(reply) => {
                stats.downstream_tx_responses.inc();
                send(&socket, encode(&reply, true), from).await;
            }
            Verdict::Ask(asked) => {
                if service.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
                    let reply = asked.answered(Err(super::AskError::Busy), stats);
                    send(&socket, encode(&reply, true), from).await;
                    continue;
                }
                service.waiting.fetch_add(1, Ordering::Relaxed);
                let (service, socket, zone) = (service.clone(), socket.clone(), zone.clone());
                tokio::spawn(async move {
                    let _waiting = Waiting(&service.waiting);
                    let Some(forward) = &zone.forward else { return };
                    let found = forward.ask(&asked.name, asked.kind).await;
                    let stats = zone.stats.control();
                    let reply = asked.answered(found, stats);
                    stats.downstream_tx_responses.inc();
                    send(&socket, encode(&reply, true), from).await;
                });
            }
        }
    }
}

/// Counts a waiting question down however it ends.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn send(socket: &UdpSocket, reply: Option<Vec<u8>>, to: SocketAddr) {
    if let Some(reply) = reply
        && let Err(error) = socket.send_to(&reply, to).await
    {
        tracing::debug!(client = %to, error = %error, "dns answer could not be sent");
    }
}
