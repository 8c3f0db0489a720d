//! One kind of object of a cluster, kept up to date: listed once, then watched.
//!
//! ```text
//!  list, page by page ──► watch from the list's version ──► … the server ends it after minutes: watch from the last version
//!      ▲      │ 410: the list's version is too old: from the first page       │ broken: the same, after a pause
//!      └──────┴─────────────────── 410 Gone: the version is too old: list ◄───┘
//! ```
//! What is known stays until a new list is complete, so neither a lost connection nor a version that is gone takes
//! anything away for a moment.
//!
//! Source: Kubernetes, "API concepts": efficient detection of changes, retrieving large results in chunks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::sync::Notify;

use super::access::{Access, AccessError};
use super::object::{Event, Key, List, Object, Status};
use crate::outward::CallError;
use crate::source::backoff::Backoff;
use crate::source::catalog::Sink;

/// Objects of one page.
const PAGE: usize = 500;

/// Most objects of one kind.
pub const OBJECTS_MAX: usize = 50_000;

/// Largest page and largest line of a watch, in bytes. An object has at most 1.5 MiB (etcd).
const PAGE_BYTES_MAX: usize = 64 << 20;
const LINE_BYTES_MAX: usize = 4 << 20;

/// How long the server is asked to keep a watch open.
const WATCH_SECONDS: u64 = 240;

/// How long a watch may be silent: a server that keeps it open ends it after [`WATCH_SECONDS`].
const SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS + 30);

/// Shortest time between two watches that end as they should: a server that ends them at once is not called in a loop.
const WATCH_PAUSE: Duration = Duration::from_millis(100);

/// Why objects could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Who we are.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The server refused.
    #[error("{kind}: {code}: {message}")]
    Refused {
        /// Of which kind.
        kind: &'static str,
        /// HTTP status.
        code: u16,
        /// Its words.
        message: String,
    },
    /// An answer that is not understood.
    #[error("{kind}: the answer is not understood: {reason}")]
    Answer {
        /// Of which kind.
        kind: &'static str,
        /// Why.
        reason: String,
    },
    /// The connection of a watch broke.
    #[error("{kind}: the watch broke: {reason}")]
    Broken {
        /// Of which kind.
        kind: &'static str,
        /// Why.
        reason: String,
    },
    /// More than [`OBJECTS_MAX`].
    #[error("{kind}: more than {OBJECTS_MAX} objects")]
    TooMany {
        /// Of which kind.
        kind: &'static str,
    },
    /// The version is too old: everything has to be listed again.
    #[error("{kind}: the version is gone")]
    Gone {
        /// Of which kind.
        kind: &'static str,
    },
}

/// See the module.
pub struct Mirror<T> {
    access: Arc<Access>,
    objects: Mutex<Option<BTreeMap<Key, T>>>,
    /// Nothing failed since it was last read.
    current: AtomicBool,
    /// Told of every change.
    changed: Arc<Notify>,
}

impl<T: Object> Mirror<T> {
    /// Of a cluster; `changed` is told of every change.
    pub fn new(access: Arc<Access>, changed: Arc<Notify>) -> Self {
        Self { access, objects: Mutex::new(None), current: AtomicBool::new(false), changed }
    }

    /// The objects; `None` until they were listed once.
    pub fn objects(&self) -> MutexGuard<'_, Option<BTreeMap<Key, T>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is known is up to date.
    pub fn is_current(&self) -> bool {
        self.current.load(Ordering::Acquire)
    }

    /// Follows them, for ever.
    pub async fn run(&self, sink: &Sink) {
        let mut backoff = Backoff::default();
        let mut version: Option<String> = None;
        loop {
            let outcome = match version.take() {
                None => self.list(sink).await.map(|listed| version = Some(listed)),
                Some(known) => {
                    let mut at = known;
                    let outcome = self.watch(&mut at, &mut backoff).await;
                    if !matches!(outcome, Err(MirrorError::Gone { .. } | MirrorError::TooMany { .. })) {
                        version = Some(at);
                    }
                    outcome
                }
            };
            match outcome {
                Ok(()) => {
                    backoff.reset();
                    self.changed.notify_one();
                    tokio::time::sleep(WATCH_PAUSE.mul_f64(fastrand::f64())).await;
                }
                Err(MirrorError::Gone { kind }) => {
                    tracing::debug!(source = sink.name(), kind, "version is gone: listing anew");
                    // A server whose lists are gone at once is not called in a loop.
                    tokio::time::sleep(backoff.after_failure(fastrand::f64())).await;
                }
                Err(error) => {
                    if let MirrorError::Refused { code: 401, .. } = error {
                        self.access.forget().await;
                    }
                    if let MirrorError::Refused { code: 429, .. } = error {
                        sink.throttled();
                    }
                    self.current.store(false, Ordering::Release);
                    sink.fail(&error.to_string());
                    tokio::time::sleep(backoff.after_failure(fastrand::f64())).await;
                }
            }
        }
    }

    /// Reads all objects; the version they are of.
    async fn list(&self, sink: &Sink) -> Result<String, MirrorError> {
        let mut objects = BTreeMap::new();
        let mut token = String::new();
        loop {
            let mut query = format!("limit={PAGE}");
            if !token.is_empty() {
                query.push_str("&continue=");
                query.push_str(&escaped(&token));
            }
            let request = self.request(&query).await?;
            let answer = self.access.origin.call(request, PAGE_BYTES_MAX).await?;
            if answer.status != StatusCode::OK {
                return Err(refused::<T>(answer.status, &answer.body));
            }
            let page: List<T> = serde_json::from_slice(&answer.body).map_err(not_understood::<T>)?;
            objects.extend(page.items.into_iter().map(|object| (object.metadata().key(), object)));
            if objects.len() > OBJECTS_MAX {
                return Err(MirrorError::TooMany { kind: T::KIND });
            }
            token = page.metadata.token;
            if token.is_empty() {
                tracing::debug!(source = sink.name(), kind = T::KIND, objects = objects.len(), "listed");
                *self.objects() = Some(objects);
                self.current.store(true, Ordering::Release);
                self.changed.notify_one();
                return Ok(page.metadata.resource_version);
            }
        }
    }

    /// Takes changes in until the server ends the watch. `version` is that of the last one.
    async fn watch(&self, version: &mut String, backoff: &mut Backoff) -> Result<(), MirrorError> {
        let query = format!(
            "watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
            escaped(version)
        );
        let request = self.request(&query).await?;
        let response = self.access.origin.open(request).await?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let body = http_body_util::Limited::new(response.into_body(), LINE_BYTES_MAX);
            let collect = tokio::time::timeout(crate::outward::ANSWER_TIMEOUT, body.collect()).await;
            let body = collect.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
            return Err(refused::<T>(status, &body));
        }
        // It is heard of again, although it may have nothing to say.
        self.current.store(true, Ordering::Release);
        self.changed.notify_one();
        let mut lines = Lines { body: response.into_body(), buffer: BytesMut::new(), searched: 0 };
        while let Some(line) = lines.next::<T>().await? {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let event: Event = serde_json::from_slice(&line).map_err(not_understood::<T>)?;
            if let Some(newer) = self.take_in(event)? {
                *version = newer;
                backoff.reset();
            }
        }
        Ok(())
    }

    /// Takes in one event; the version it leads to.
    fn take_in(&self, event: Event) -> Result<Option<String>, MirrorError> {
        if event.kind == "ERROR" {
            let status: Status = serde_json::from_value(event.object).unwrap_or_default();
            return Err(failure::<T>(status));
        }
        if event.kind == "BOOKMARK" {
            let version = event.object.pointer("/metadata/resourceVersion").and_then(|v| v.as_str());
            return Ok(version.map(str::to_owned));
        }
        let object: T = serde_json::from_value(event.object).map_err(not_understood::<T>)?;
        let (key, version) = (object.metadata().key(), object.metadata().resource_version.clone());
        {
            let mut held = self.objects();
            let objects = held.get_or_insert_default();
            match event.kind.as_str() {
                "ADDED" | "MODIFIED" => {
                    if objects.len() >= OBJECTS_MAX && !objects.contains_key(&key) {
                        return Err(MirrorError::TooMany { kind: T::KIND });
                    }
                    objects.insert(key, object);
                }
                "DELETED" => {
                    objects.remove(&key);
                }
                other => {
                    let reason = format!("event of type {other:?}");
                    return Err(MirrorError::Answer { kind: T::KIND, reason });
                }
            }
        }
        self.changed.notify_one();
        Ok(Some(version))
    }

    async fn request(&self, query: &str) -> Result<Request<Full<Bytes>>, MirrorError> {
        let uri = format!("{}{}?{query}", self.access.prefix, T::PATH);
        let mut request =
            Request::get(uri).header("accept", "application/json").header("user-agent", "outrigger-control");
        if let Some(value) = self.access.authorization().await? {
            request = request.header("authorization", value);
        }
        let bad = |error: http::Error| MirrorError::Answer { kind: T::KIND, reason: error.to_string() };
        request.body(Full::default()).map_err(bad)
    }
}

/// A body, line by line.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// So much of the buffer has no line break.
    searched: usize,
}

impl Lines {
    /// The next line; `None`: the server ended the watch.
    async fn next<T: Object>(&mut self) -> Result<Option<BytesMut>, MirrorError> {
        let broken = |reason: String| MirrorError::Broken { kind: T::KIND, reason };
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at + 1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(broken(format!("a line of more than {LINE_BYTES_MAX} bytes")));
            }
            let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await;
            match frame.map_err(|_| broken("silent for too long".into()))? {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(broken("cut off in the middle of a line".into())),
                Some(Err(error)) => return Err(broken(error.to_string())),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

fn refused<T: Object>(status: StatusCode, body: &[u8]) -> MirrorError {
    let told: Status = serde_json::from_slice(body).unwrap_or_default();
    let message = if told.message.is_empty() { status.to_string() } else { told.message };
    failure::<T>(Status { code: status.as_u16(), message, reason: told.reason })
}

fn failure<T: Object>(status: Status) -> MirrorError {
    if status.code == StatusCode::GONE.as_u16() || status.reason == "Expired" {
        return MirrorError::Gone { kind: T::KIND };
    }
    MirrorError::Refused { kind: T::KIND, code: status.code, message: status.message }
}

fn not_understood<T: Object>(error: serde_json::Error) -> MirrorError {
    MirrorError::Answer { kind: T::KIND, reason: error.to_string() }
}

/// For a query: everything but unreserved characters is escaped (RFC 3986 section 2.3).
fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}
