//! An origin that does what the request's path says, over HTTP/1.1, h2c or TLS.
//!
//! ```no_run
//! # async fn example() {
//! use outrigger_testkit::Origin;
//! let origin = Origin::h1("b-1").await;
//! let address = origin.address(); // send `GET /status/503` there
//! assert_eq!(origin.requests(), 0);
//! # }
//! ```
//! The paths are listed at [`script`]. Every response carries `x-origin: NAME`. WebSocket upgrades
//! are echoed on any path of an HTTP/1.1 origin.

mod h1;
pub(crate) mod h2;
pub mod script;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;

use script::Script;

/// Requests remembered by [`Origin::seen`].
const SEEN_MAX: usize = 10_000;

/// What an origin speaks.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// HTTP/1.1 in the clear.
    H1,
    /// HTTP/2 in the clear, with prior knowledge.
    H2c,
    /// TLS; HTTP/2 when ALPN chose `h2`, else HTTP/1.1.
    Tls(Arc<ServerConfig>),
    /// Bytes come back as they were sent, until the sender closes its half.
    TcpEcho,
}

/// A request an origin served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The target as received (`:path` for HTTP/2).
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2`.
    pub version: &'static str,
    /// Fields in order, lower-case names; HTTP/2 has `:authority` and `:scheme` among them.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Vec<(String, String)>,
    /// Number of the connection, from 0.
    pub connection: usize,
}

impl Seen {
    /// First field of this (lower-case) name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        crate::message::find(&self.fields, name)
    }
}

/// State all connections of an origin share.
#[derive(Debug)]
struct Shared {
    name: String,
    script: Script,
    requests: AtomicUsize,
    accepted: AtomicUsize,
    open: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    malformed: Mutex<Vec<String>>,
    changed: Notify,
}

impl Shared {
    fn record(&self, seen: Seen) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let mut list = self.seen.lock().expect("no panic under the lock");
        if list.len() < SEEN_MAX {
            list.push(seen);
        }
        drop(list);
        self.changed.notify_waiters();
    }

    fn refuse(&self, why: String) {
        self.malformed.lock().expect("no panic under the lock").push(why);
    }
}

/// A running origin; dropping it closes its listener and every connection.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

impl Origin {
    /// HTTP/1.1 in the clear.
    pub async fn h1(name: &str) -> Self {
        Self::start(name, Protocol::H1).await
    }

    /// HTTP/2 in the clear, with prior knowledge.
    pub async fn h2c(name: &str) -> Self {
        Self::start(name, Protocol::H2c).await
    }

    /// TLS with this configuration; see [`crate::certs::server_config`].
    pub async fn tls(name: &str, config: Arc<ServerConfig>) -> Self {
        Self::start(name, Protocol::Tls(config)).await
    }

    /// Echoes TCP bytes.
    pub async fn tcp_echo(name: &str) -> Self {
        Self::start(name, Protocol::TcpEcho).await
    }

    /// Any protocol, on a port the system chooses.
    pub async fn start(name: &str, protocol: Protocol) -> Self {
        Self::start_at(name, protocol, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Any protocol at a given address: for an origin that comes back where one was before.
    ///
    /// # Panics
    /// When the address is taken.
    pub async fn start_at(name: &str, protocol: Protocol, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            script: Script::default(),
            requests: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            seen: Mutex::default(),
            malformed: Mutex::default(),
            changed: Notify::new(),
        });
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(accept(listener, protocol, Arc::clone(&shared), stopped));
        Self { address, shared, stop }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name, as in `x-origin`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Requests read completely so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    #[must_use]
    pub fn connections_open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The requests so far, the first 10,000.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no panic under the lock").clone()
    }

    /// Why connections were refused as malformed.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn malformed(&self) -> Vec<String> {
        self.shared.malformed.lock().expect("no panic under the lock").clone()
    }

    /// Waits until `count` requests were read.
    ///
    /// # Panics
    /// After [`crate::PATIENCE`].
    pub async fn wait_for_requests(&self, count: usize) {
        crate::within("requests at the origin", async {
            loop {
                let changed = self.shared.changed.notified();
                if self.requests() >= count {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }

    /// Closes the listener and every connection, as a killed process would.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

async fn accept(
    listener: TcpListener,
    protocol: Protocol,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let _ = stream.set_nodelay(true);
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        let (protocol, shared, mut stopped) = (protocol.clone(), Arc::clone(&shared), stopped.clone());
        tokio::spawn(async move {
            shared.open.fetch_add(1, Ordering::SeqCst);
            tokio::select! {
                () = serve(stream, protocol, &shared, number) => {}
                _ = stopped.changed() => {}
            }
            shared.open.fetch_sub(1, Ordering::SeqCst);
            shared.changed.notify_waiters();
        });
    }
}

async fn serve(stream: TcpStream, protocol: Protocol, shared: &Arc<Shared>, number: usize) {
    match protocol {
        Protocol::H1 => h1::serve(stream, shared, number).await,
        Protocol::H2c => h2::serve(stream, shared, number).await,
        Protocol::TcpEcho => echo(stream).await,
        Protocol::Tls(config) => match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                h2::serve(stream, shared, number).await
            }
            Ok(stream) => h1::serve(stream, shared, number).await,
            Err(error) => shared.refuse(format!("TLS: {error}")),
        },
    }
}

async fn echo<S: AsyncRead + AsyncWrite>(stream: S) {
    let (mut read, mut write) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
}
