//! The first bytes of a connection: the listener filters, in their fixed order, within one time limit.
//!
//! ```text
//!  PROXY header ─▶ TLS? ─▶ HTTP?
//! ```
//!
//! Each step is taken only where the listener has it. What was read and not used stays in the buffer and becomes the
//! beginning of the connection's stream. A client that says nothing may be waiting for the server to speak: where the
//! configuration says so, it goes on as a connection of unknown protocol when the time is over.

use super::ConnFacts;
use super::detect::{Detected, detect, read_more};
use super::hello::Hello;
use super::http_guess::{self, HttpGuess};
use super::proxy_header::{self, ProxyHeader};
use crate::io::Buf;
use crate::live::LiveListener;
use crate::telemetry::{ListenerFilterStats, ListenerStats, ResponseFlags};
use crate::worker::Worker;
use outrigger_traffic::config::{PortPredicate, ProxyProtocol, ProxyProtocolVersion};
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a client may take for its ClientHello where the configuration does not ask for inspection.
const HELLO_TIMEOUT: Duration = Duration::from_secs(15);

/// What the first bytes said.
pub(super) struct Beginning {
    /// `tls` or `raw_buffer`.
    pub(super) transport_protocol: &'static str,
    /// What a ClientHello said; of a plain connection, the protocol found stands in its ALPN.
    pub(super) hello: Hello,
    /// What was read and belongs to the stream.
    pub(super) prefix: Option<Buf>,
}

/// Why a connection goes no further.
enum Refusal {
    /// The peer went away.
    Closed,
    /// It cannot be understood, or is not allowed; counted already.
    Malformed,
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// How far the steps have come, for the case that time runs out.
struct Look<'a> {
    worker: &'a Rc<Worker>,
    listener: &'a LiveListener,
    tcp: &'a mut TcpStream,
    facts: &'a mut ConnFacts,
    buf: Option<Buf>,
    /// Being without an answer may be taken for one.
    may_be_silent: bool,
    transport_protocol: &'static str,
    hello: Hello,
}

/// Takes the steps that the listener asks for. `read` holds what was read before.
///
/// *Errors*: the flags of a refused connection, which is counted.
pub(super) async fn first_bytes(
    worker: &Rc<Worker>,
    listener: &LiveListener,
    tcp: &mut TcpStream,
    read: Option<Buf>,
    facts: &mut ConnFacts,
    stats: &ListenerStats,
) -> Result<Beginning, ResponseFlags> {
    let config = &listener.listener.config;
    let mut look = Look {
        worker,
        listener,
        tcp,
        facts,
        buf: read,
        may_be_silent: true,
        transport_protocol: "raw_buffer",
        hello: Hello::default(),
    };
    if !look.is_needed() {
        return Ok(look.beginning());
    }
    let asked = listener.inspect || config.http_inspector || config.proxy_protocol.is_some();
    let limit = if asked { config.listener_filters_timeout } else { Some(HELLO_TIMEOUT) };
    stats.downstream_pre_cx_active.inc();
    let looked = worker.wheel.timeout(limit, look.run()).await;
    stats.downstream_pre_cx_active.dec();
    match looked {
        Some(Ok(())) => Ok(look.beginning()),
        Some(Err(Refusal::Malformed)) => {
            stats.downstream_listener_filter_error.inc();
            Err(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)
        }
        Some(Err(Refusal::Closed)) => {
            stats.downstream_listener_filter_remote_close.inc();
            Err(ResponseFlags::DOWNSTREAM_TERMINATION)
        }
        None => {
            stats.downstream_pre_cx_timeout.inc();
            if asked && config.continue_on_listener_filters_timeout && look.may_be_silent {
                Ok(look.beginning())
            } else {
                Err(ResponseFlags::STREAM_IDLE_TIMEOUT)
            }
        }
    }
}

impl Look<'_> {
    fn beginning(self) -> Beginning {
        Beginning { transport_protocol: self.transport_protocol, hello: self.hello, prefix: self.buf }
    }

    fn is_off(&self, predicate: Option<&PortPredicate>) -> bool {
        predicate.is_some_and(|predicate| predicate.holds(self.facts.local.port()))
    }

    /// Whether TLS is looked for: where it was asked for, or a chain terminates it and its ALPN may choose a certificate.
    fn wants_tls(&self) -> bool {
        let config = &self.listener.listener.config;
        if self.is_off(config.tls_inspector_disabled.as_ref()) {
            return false;
        }
        self.listener.inspect || self.listener.chains.iter().any(|chain| chain.tls.is_some())
    }

    fn wants_http(&self) -> bool {
        let config = &self.listener.listener.config;
        config.http_inspector && !self.is_off(config.http_inspector_disabled.as_ref())
    }

    fn is_needed(&self) -> bool {
        self.listener.listener.config.proxy_protocol.is_some() || self.wants_tls() || self.wants_http()
    }

    fn counters(&self) -> &ListenerFilterStats {
        self.worker.shared.listener_filters.at(self.worker.id)
    }

    async fn run(&mut self) -> Result<(), Refusal> {
        if let Some(rules) = self.listener.listener.config.proxy_protocol.clone() {
            self.proxy_header(&rules).await?;
        }
        if self.wants_tls() {
            self.tls().await?;
        }
        if self.wants_http() && self.transport_protocol == "raw_buffer" {
            self.http().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<(), Refusal> {
        match read_more(self.worker, self.tcp, &mut self.buf).await? {
            0 => Err(Refusal::Closed),
            _ => Ok(()),
        }
    }

    fn data(&self) -> &[u8] {
        self.buf.as_ref().map_or(&[], Buf::data)
    }

    async fn proxy_header(&mut self, rules: &ProxyProtocol) -> Result<(), Refusal> {
        self.may_be_silent = rules.allow_without;
        loop {
            match proxy_header::read(self.data()) {
                ProxyHeader::Partial => {
                    // Half a header is no silence.
                    self.may_be_silent = rules.allow_without && self.data().is_empty();
                    self.more().await?;
                }
                ProxyHeader::Absent if rules.allow_without => {
                    self.counters().proxy_not_found_allowed.inc();
                    self.may_be_silent = true;
                    return Ok(());
                }
                ProxyHeader::Absent => {
                    self.counters().proxy_not_found_disallowed.inc();
                    return Err(Refusal::Malformed);
                }
                ProxyHeader::Malformed(version) => {
                    let counters = self.counters();
                    match version {
                        ProxyProtocolVersion::V1 => counters.proxy_v1_error.inc(),
                        ProxyProtocolVersion::V2 => counters.proxy_v2_error.inc(),
                    }
                    return Err(Refusal::Malformed);
                }
                ProxyHeader::Found { version, length, addresses } => {
                    let counters = self.counters();
                    let (found, disallowed, count) = match version {
                        ProxyProtocolVersion::V1 => {
                            (&counters.proxy_v1_found, rules.disallow_v1, &counters.proxy_v1_disallowed)
                        }
                        ProxyProtocolVersion::V2 => {
                            (&counters.proxy_v2_found, rules.disallow_v2, &counters.proxy_v2_disallowed)
                        }
                    };
                    if disallowed {
                        count.inc();
                        return Err(Refusal::Malformed);
                    }
                    found.inc();
                    self.believe(length, addresses);
                    self.may_be_silent = true;
                    return Ok(());
                }
            }
        }
    }

    /// Takes over what a PROXY header said.
    fn believe(&mut self, length: usize, addresses: Option<(std::net::SocketAddr, std::net::SocketAddr)>) {
        if let Some(buf) = &mut self.buf {
            buf.consume(length);
        }
        if let Some((source, destination)) = addresses {
            self.facts.remote = source;
            if destination != self.facts.local {
                self.facts.original = Some(destination);
                self.facts.local = destination;
            }
        }
    }

    async fn tls(&mut self) -> Result<(), Refusal> {
        if self.data().is_empty() {
            self.more().await?;
        }
        let Some(buf) = &mut self.buf else { return Err(Refusal::Closed) };
        let detected = detect(self.tcp, buf).await?;
        let asked = self.listener.inspect;
        match detected {
            Detected::Tls(hello) => {
                let counters = self.counters();
                if asked {
                    counters.tls_found.inc();
                    match &hello.server_name {
                        Some(_) => counters.sni_found.inc(),
                        None => counters.sni_not_found.inc(),
                    }
                    if hello.alpn.is_empty() {
                        counters.alpn_not_found.inc()
                    } else {
                        counters.alpn_found.inc()
                    }
                }
                self.transport_protocol = "tls";
                self.hello = hello;
                Ok(())
            }
            Detected::Plain => {
                if asked {
                    self.counters().tls_not_found.inc();
                }
                Ok(())
            }
            // The TLS library says what is wrong with it, by an alert.
            Detected::Malformed if !asked => {
                self.transport_protocol = "tls";
                Ok(())
            }
            Detected::Malformed => Err(Refusal::Malformed),
            Detected::Closed => Err(Refusal::Closed),
        }
    }

    async fn http(&mut self) -> Result<(), Refusal> {
        loop {
            let guess = http_guess::guess(self.data());
            let counters = self.counters();
            match guess {
                HttpGuess::Partial => {
                    self.more().await?;
                    continue;
                }
                HttpGuess::Http10 => counters.http10_found.inc(),
                HttpGuess::Http11 => counters.http11_found.inc(),
                HttpGuess::Http2 => counters.http2_found.inc(),
                HttpGuess::Other => counters.http_not_found.inc(),
            }
            self.hello.alpn.extend(guess.protocol().map(<[u8]>::to_vec));
            return Ok(());
        }
    }
}
