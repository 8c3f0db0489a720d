//! Steady load of an end user: HTTPS to the gateway over kept-alive connections at a fixed rate.
//!
//! Strict: whatever is not a 200 counts as failed, and so does a connection that ends without having said
//! `connection: close`. Latency is counted from the time a request was due.

use anyhow::Context;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What was seen since the last [`Load::take`].
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Requests answered with 200.
    pub ok: u64,
    /// Everything else.
    pub failed: u64,
    /// The first few failures, in words.
    pub failures: Vec<String>,
    /// By version of service B: latencies in microseconds.
    pub versions: BTreeMap<String, Vec<u32>>,
}

impl Seen {
    /// Share of 200s answered by a version, 0..=1.
    pub fn share(&self, version: &str) -> f64 {
        let all: usize = self.versions.values().map(Vec::len).sum();
        if all == 0 { 0.0 } else { self.versions.get(version).map_or(0, Vec::len) as f64 / all as f64 }
    }

    fn failure(&mut self, text: String) {
        self.failed += 1;
        if self.failures.len() < 5 {
            self.failures.push(text);
        }
    }
}

/// Quantile of latencies, in milliseconds.
pub fn quantile(latencies: &[u32], q: f64) -> f64 {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let index = ((sorted.len() as f64 - 1.0) * q).round().max(0.0) as usize;
    sorted.get(index).map_or(0.0, |us| f64::from(*us) / 1000.0)
}

/// Running load.
pub struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    /// Starts `connections` users that together make `rate` requests a second.
    pub fn start(
        gateway: SocketAddr,
        host: &str,
        roots_pem: &str,
        connections: u32,
        rate: u32,
    ) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(roots_pem.as_bytes()).context("gateway CA")?)?;
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let user = User { gateway, host: host.to_owned(), tls: TlsConnector::from(Arc::new(config)) };
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (seen2, stop2) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async move {
                let gap = Duration::from_secs(1) * connections / rate;
                let users = (0..connections).map(|i| {
                    let (user, seen, stop) = (user.clone(), seen2.clone(), stop2.clone());
                    tokio::spawn(async move { user.run(seen, stop, gap, gap * i / connections).await })
                });
                for user in users.collect::<Vec<_>>() {
                    let _ = user.await;
                }
            });
        });
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// What was seen since the last call.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Connection = BufReader<TlsStream<TcpStream>>;

#[derive(Clone)]
struct User {
    gateway: SocketAddr,
    host: String,
    tls: TlsConnector,
}

impl User {
    async fn run(&self, seen: Arc<Mutex<Seen>>, stop: Arc<AtomicBool>, gap: Duration, offset: Duration) {
        let mut due = Instant::now() + offset;
        let mut connection: Option<Connection> = None;
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep_until(due.into()).await;
            let result = tokio::time::timeout(Duration::from_secs(10), self.request(&mut connection)).await;
            let result = result.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in 10 s")));
            let latency = u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX);
            let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match result {
                Ok((200, body)) => {
                    seen.ok += 1;
                    let version = if body.contains("b-v1") { "v1" } else { "v2" };
                    seen.versions.entry(version.to_owned()).or_default().push(latency);
                }
                Ok((status, body)) => seen.failure(format!("{status}: {}", body.trim())),
                Err(error) => {
                    connection = None;
                    seen.failure(format!("{error:#}"));
                }
            }
            drop(seen);
            due = (due + gap).max(Instant::now() - gap);
        }
    }

    async fn request(&self, kept: &mut Option<Connection>) -> anyhow::Result<(u16, String)> {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.connect().await.context("connecting to the gateway")?,
        };
        let request = format!("GET / HTTP/1.1\r\nhost: {}\r\nuser-agent: outrigger-demo\r\n\r\n", self.host);
        connection.write_all(request.as_bytes()).await?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            anyhow::ensure!(connection.read_line(&mut head).await? > 0, "connection was cut");
        }
        let head = head.to_ascii_lowercase();
        let status = head.get(9..12).and_then(|s| s.parse().ok()).context("answer is not HTTP")?;
        let length =
            head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await?;
        if !head.contains("connection: close") {
            *kept = Some(connection);
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let tcp = TcpStream::connect(self.gateway).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(self.host.clone())?;
        Ok(BufReader::new(self.tls.connect(name, tcp).await?))
    }
}
