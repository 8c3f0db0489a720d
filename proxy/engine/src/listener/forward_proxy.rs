//! Clients that name their destination themselves: reading it, finding its address, answering.
//!
//! What comes of it is what undoing a redirection would have given: an address the connection is going to, and the listener
//! of that address. What [`super::named`] does not know is left alone.

use super::detect::read_more;
use super::named::{self, Message, Protocol, Target};
use crate::io::Buf;
use crate::live::{Live, LiveListener};
use crate::telemetry::{ListenerFilterStats, ListenerStats, ResponseFlags};
use crate::worker::Worker;
use outrigger_traffic::config::{DnsFamily, ForwardProxy};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A connection behind the talk about its destination.
pub(super) struct Named {
    /// Where it is going; `None`: it did not say, and everything read is in `prefix`.
    pub(super) destination: Option<SocketAddr>,
    /// What was read and belongs to its stream.
    pub(super) prefix: Option<Buf>,
}

/// Why a connection goes no further.
enum Refusal {
    /// The client went away.
    Closed,
    /// It was refused, and told so.
    Refused,
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// Why a destination is not gone to.
enum Unreachable {
    /// Nobody knows it, and that is not allowed.
    Forbidden,
    /// It has no address.
    Unknown,
}

/// Lets the client say where it wants to go, within the time of the listener's filters.
///
/// *Errors*: the flags of a refused connection, which is counted.
pub(super) async fn named_destination(
    worker: &Rc<Worker>,
    live: &Live,
    listener: &LiveListener,
    rules: &ForwardProxy,
    tcp: &mut TcpStream,
    stats: &ListenerStats,
) -> Result<Named, ResponseFlags> {
    let mut talk = Talk { worker, live, rules, tcp, buf: None };
    let limit = listener.listener.config.listener_filters_timeout;
    stats.downstream_pre_cx_active.inc();
    let talked = worker.wheel.timeout(limit, talk.run()).await;
    stats.downstream_pre_cx_active.dec();
    match talked {
        Some(Ok(destination)) => Ok(Named { destination, prefix: talk.buf }),
        Some(Err(Refusal::Refused)) => {
            stats.downstream_listener_filter_error.inc();
            Err(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)
        }
        Some(Err(Refusal::Closed)) => {
            stats.downstream_listener_filter_remote_close.inc();
            Err(ResponseFlags::DOWNSTREAM_TERMINATION)
        }
        None => {
            stats.downstream_pre_cx_timeout.inc();
            Err(ResponseFlags::STREAM_IDLE_TIMEOUT)
        }
    }
}

struct Talk<'a> {
    worker: &'a Rc<Worker>,
    live: &'a Live,
    rules: &'a ForwardProxy,
    tcp: &'a mut TcpStream,
    buf: Option<Buf>,
}

impl Talk<'_> {
    fn counters(&self) -> &ListenerFilterStats {
        self.worker.shared.listener_filters.at(self.worker.id)
    }

    fn data(&self) -> &[u8] {
        self.buf.as_ref().map_or(&[], Buf::data)
    }

    async fn more(&mut self) -> Result<(), Refusal> {
        match read_more(self.worker, self.tcp, &mut self.buf).await? {
            0 => Err(Refusal::Closed),
            _ => Ok(()),
        }
    }

    fn consume(&mut self, length: usize) {
        if let Some(buf) = &mut self.buf {
            buf.consume(length);
        }
    }

    async fn run(&mut self) -> Result<Option<SocketAddr>, Refusal> {
        loop {
            match named::protocol(self.data()) {
                Protocol::Partial => self.more().await?,
                Protocol::Connect if self.rules.connect => return self.connect().await.map(Some),
                Protocol::Socks5 if self.rules.socks5 => return self.socks().await.map(Some),
                Protocol::Connect | Protocol::Socks5 | Protocol::Other => return Ok(None),
            }
        }
    }

    async fn connect(&mut self) -> Result<SocketAddr, Refusal> {
        self.counters().forward_proxy_connect.inc();
        let target = self.message(named::connect).await?;
        match self.address(&target).await {
            Ok(address) => {
                self.tcp.write_all(named::CONNECT_OK).await?;
                Ok(address)
            }
            Err(Unreachable::Forbidden) => self.refuse(named::CONNECT_FORBIDDEN).await,
            Err(Unreachable::Unknown) => self.refuse(named::CONNECT_UNKNOWN).await,
        }
    }

    async fn socks(&mut self) -> Result<SocketAddr, Refusal> {
        self.counters().forward_proxy_socks5.inc();
        self.message(named::socks_greeting).await?;
        self.tcp.write_all(named::SOCKS_GREETING_OK).await?;
        let target = self.message(named::socks_request).await?;
        match self.address(&target).await {
            Ok(address) => {
                self.tcp.write_all(named::SOCKS_OK).await?;
                Ok(address)
            }
            Err(Unreachable::Forbidden) => self.refuse(named::SOCKS_FORBIDDEN).await,
            Err(Unreachable::Unknown) => self.refuse(named::SOCKS_UNKNOWN).await,
        }
    }

    async fn message<T>(&mut self, read: fn(&[u8]) -> Message<T>) -> Result<T, Refusal> {
        loop {
            match read(self.data()) {
                Message::Partial => self.more().await?,
                Message::Refused(answer) => return self.refuse(answer).await,
                Message::Whole(message, length) => {
                    self.consume(length);
                    return Ok(message);
                }
            }
        }
    }

    async fn refuse<T>(&mut self, answer: &[u8]) -> Result<T, Refusal> {
        self.counters().forward_proxy_refused.inc();
        self.tcp.write_all(answer).await?;
        // Else the answer may be lost to a reset, when something of the client's was not read.
        let _ = self.tcp.shutdown().await;
        Err(Refusal::Refused)
    }

    /// The address of a destination: by the mesh's names, else by the host's resolvers.
    async fn address(&self, target: &Target) -> Result<SocketAddr, Unreachable> {
        let (name, port) = match target {
            Target::Address(address) => {
                let known = self.rules.allow_unknown || self.live.listener_at(*address).is_some();
                return if known { Ok(*address) } else { Err(Unreachable::Forbidden) };
            }
            Target::Name(name, port) => (name, *port),
        };
        let table = self.live.listeners.get(self.rules.names_of.as_str()).and_then(|l| l.dns.as_ref());
        if let Some(entry) = table.and_then(|zone| zone.names.find(name)) {
            let first = entry.addresses.iter().min_by_key(|address| address.is_ipv6());
            return first.map(|ip| SocketAddr::new(*ip, port)).ok_or(Unreachable::Unknown);
        }
        if !self.rules.allow_unknown {
            return Err(Unreachable::Forbidden);
        }
        let found = self.worker.shared.resolver.resolve(name, DnsFamily::V4Preferred).await;
        let answer = found.map_err(|error| {
            tracing::debug!(name, error, "the destination of a forward proxy has no address");
            Unreachable::Unknown
        })?;
        answer.addresses.first().map(|ip| SocketAddr::new(*ip, port)).ok_or(Unreachable::Unknown)
    }
}
