//! Finding out what a connection is and whether it may come in: first bytes, chain, TLS, network authorization.

use super::connection::{Accepted, Books};
use super::first::first_bytes;
use super::forward_proxy::named_destination;
use super::{ConnFacts, reconsider};
use crate::identity::negotiated;
use crate::io::{Buf, Io, TlsFacts};
use crate::live::{LiveChainRef, LiveListener, LiveRef};
use crate::telemetry::{self, ConnectionRecord, ListenerStats, ResponseFlags, Timeline};
use crate::worker::Worker;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A connection that came in.
pub(super) struct Admitted {
    pub(super) io: Rc<Io>,
    pub(super) facts: Rc<ConnFacts>,
    /// The configuration that the chain belongs to.
    pub(super) live: LiveRef,
    pub(super) chain: LiveChainRef,
    pub(super) books: Books,
}

/// `None`: it did not come in, has been counted and logged, and is closed.
pub(super) async fn admit(worker: &Rc<Worker>, accepted: Accepted) -> Option<Admitted> {
    let started = Instant::now();
    let Accepted { id, live, mut listener, mut tcp, peer, original, mut books, .. } = accepted;
    let local = match original {
        Some(original) => original,
        None => tcp.local_addr().ok()?,
    };
    let mut facts = ConnFacts {
        id,
        peer,
        remote: peer,
        local,
        original,
        listener: listener.name.clone(),
        chain: "".into(),
        server_name: None,
        transport_protocol: "raw_buffer",
        offered_alpn: Vec::new(),
        tls: None,
        principal: "".into(),
        buckets: Default::default(),
    };
    let mut read = None;
    if let Some(rules) = &listener.listener.config.forward_proxy {
        match named_destination(worker, &live, &listener, rules, &mut tcp, books.stats()).await {
            Ok(named) => {
                read = named.prefix;
                if let Some(destination) = named.destination {
                    (facts.local, facts.original) = (destination, Some(destination));
                }
            }
            Err(flags) => {
                log_refusal(worker, &listener, &facts, flags, started);
                return None;
            }
        }
        if let Some(heir) = facts.original.and_then(|named| live.listener_at(named)).cloned() {
            books = Books::open(worker.clone(), heir.stats.clone());
            facts.listener = heir.name.clone();
            listener = heir;
        }
    }
    match enter(worker, &listener, tcp, read, &mut facts, books.stats()).await {
        Ok((io, chain)) => Some(Admitted { io: Rc::new(io), facts: Rc::new(facts), live, chain, books }),
        Err(flags) => {
            log_refusal(worker, &listener, &facts, flags, started);
            None
        }
    }
}

/// The steps in order. Fills `facts` as they become known; an error is why the connection is refused.
async fn enter(
    worker: &Rc<Worker>,
    listener: &LiveListener,
    mut tcp: TcpStream,
    read: Option<Buf>,
    facts: &mut ConnFacts,
    stats: &ListenerStats,
) -> Result<(Io, LiveChainRef), ResponseFlags> {
    // Without it small answers wait for the client's delayed acknowledgement.
    tcp.set_nodelay(true).map_err(|_| ResponseFlags::DOWNSTREAM_TERMINATION)?;
    let beginning = first_bytes(worker, listener, &mut tcp, read, facts, stats).await?;
    facts.server_name = beginning.hello.server_name.map(Arc::from);
    facts.transport_protocol = beginning.transport_protocol;
    facts.offered_alpn = beginning.hello.alpn;
    let Some(chain) =
        reconsider::choose(&listener.listener, facts).and_then(|chosen| listener.chain(chosen)).cloned()
    else {
        stats.no_filter_chain_match.inc();
        tracing::debug!(listener = &*facts.listener, peer = %facts.peer, "no filter chain matches");
        return Err(ResponseFlags::NO_ROUTE);
    };
    facts.chain = chain.name.clone();
    let io = secure(worker, &chain, tcp, beginning.prefix, facts, stats)
        .await
        .ok_or(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)?;
    if !super::network_rbac::allows(&chain, facts, stats) {
        // As Envoy: a denial has no flag of its own.
        return Err(ResponseFlags::NONE);
    }
    io.limit_buffers(listener.listener.config.per_connection_buffer_limit_bytes);
    Ok((io, chain))
}

/// Writes the listener's own access log.
fn log_refusal(
    worker: &Worker,
    listener: &LiveListener,
    facts: &ConnFacts,
    flags: ResponseFlags,
    started: Instant,
) {
    // The record needs a chain; where none was found, nothing in it is said of one.
    let chosen = listener.chains.iter().find(|chain| !chain.name.is_empty() && chain.name == facts.chain);
    let Some(chain) = chosen.or(listener.chains.first()) else { return };
    let timeline = Timeline { end: Some(Instant::now()), ..Timeline::starting(started) };
    let record = ConnectionRecord {
        connection: facts,
        chain,
        flags,
        cluster: None,
        upstream: None,
        attempts: 0,
        timeline: &timeline,
        received_bytes: 0,
        sent_bytes: 0,
    };
    telemetry::log_refused(worker, &listener.logs, &record);
}

/// Terminates TLS where the chain has it. Never goes on without.
async fn secure(
    worker: &Rc<Worker>,
    chain: &LiveChainRef,
    tcp: TcpStream,
    prefix: Option<Buf>,
    facts: &mut ConnFacts,
    stats: &ListenerStats,
) -> Option<Io> {
    let buffers = worker.buffers.clone();
    let Some(tls) = &chain.tls else { return Io::plain(tcp, prefix, buffers).ok() };
    let Some(config) = tls.config(&facts.offered_alpn) else {
        stats.ssl_secret_missing.inc();
        tracing::debug!(listener = &*facts.listener, missing = ?tls.missing(), "secret has not arrived");
        return None;
    };
    let connection = match rustls::ServerConnection::new(config.clone()) {
        Ok(connection) => connection,
        Err(error) => {
            stats.ssl_connection_error.inc();
            tracing::error!(listener = &*facts.listener, error = %error, "tls cannot begin");
            return None;
        }
    };
    let io = Io::tls(tcp, prefix, buffers, connection.into()).ok()?;
    let limit = Some(chain.chain.config.transport_socket_connect_timeout);
    match worker.wheel.timeout(limit, io.handshake()).await {
        None => {
            stats.downstream_cx_transport_socket_connect_timeout.inc();
            return None;
        }
        Some(Err(error)) => {
            count_failure(stats, &error);
            tracing::debug!(listener = &*facts.listener, peer = %facts.peer, error = %error, "tls handshake failed");
            return None;
        }
        Some(Ok(())) => {}
    }
    let sni = facts.server_name.clone();
    let agreed = io.with_tls(|connection| {
        negotiated(connection, tls.verifies_clients(), sni, &mut worker.peers.borrow_mut())
    })?;
    if agreed.resumed && is_over(&agreed) {
        // The chain was verified when the session was made; it may have expired since.
        stats.ssl_fail_verify_error.inc();
        return None;
    }
    stats.ssl_handshake.inc();
    if agreed.resumed {
        stats.ssl_session_reused.inc();
    }
    match &agreed.peer {
        None => stats.ssl_no_certificate.inc(),
        Some(peer) => {
            if let Some(uri) = peer.uri_sans.first() {
                facts.principal = uri.as_str().into();
            }
        }
    }
    let agreed = Arc::new(agreed);
    io.set_tls_facts(agreed.clone());
    facts.tls = Some(agreed);
    Some(io)
}

fn is_over(facts: &TlsFacts) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    facts.peer.as_ref().is_some_and(|peer| i64::try_from(now).map_or(true, |now| now > peer.not_after))
}

fn count_failure(stats: &ListenerStats, error: &io::Error) {
    use rustls::{CertificateError, Error};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => stats.ssl_fail_verify_no_cert.inc(),
        Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            stats.ssl_fail_verify_san.inc();
        }
        Some(Error::InvalidCertificate(_)) => stats.ssl_fail_verify_error.inc(),
        _ => stats.ssl_connection_error.inc(),
    }
}
