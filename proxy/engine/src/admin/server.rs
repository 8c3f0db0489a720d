//! Connections and paths of the administration.

use super::Sources;
use super::body::Content;
use crate::proxy::Steering;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 64;

/// A request head must arrive within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Binds the administration's address.
///
/// *Errors*: the system's.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = std::net::TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Serves until the proxy is gone.
pub(crate) async fn serve(socket: std::net::TcpListener, steering: Weak<Steering>, sources: Sources) {
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(error = %error, "administration socket cannot be used");
            return;
        }
    };
    let sources = Arc::new(sources);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let Some(closed) = steering.upgrade().map(|s| s.shared.clone()) else { return };
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed.drain.reached(crate::drain::Phase::Closed) => return,
        };
        let Ok((tcp, _)) = accepted else {
            // Out of descriptors, most likely: try again when some may be free.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (steering, sources) = (steering.clone(), sources.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let (steering, sources) = (steering.clone(), sources.clone());
                async move { Ok::<_, Infallible>(respond(&steering, &sources, &request)) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(tcp), service);
            // A client that breaks off is its own business.
            let _ = connection.await;
        });
    }
}

/// What a path is given.
pub(super) struct Context<'a> {
    pub(super) steering: &'a Arc<Steering>,
    pub(super) sources: &'a Sources,
    query: &'a str,
}

impl Context<'_> {
    /// A query parameter, decoded; empty where it stands without a value.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        self.parameters().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// All query parameters, decoded.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (String, String)> {
        self.query.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name), decode(value))
        })
    }

    /// Whether `format=json` was asked for.
    pub(super) fn wants_json(&self) -> bool {
        self.parameter("format").as_deref() == Some("json")
    }
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// What a path answers.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: Content,
}

impl Reply {
    /// Plain text, 200.
    pub(super) fn text(body: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain; charset=UTF-8",
            body: Content::Text(body.into()),
        }
    }

    /// JSON, 200.
    pub(super) fn json(value: &serde_json::Value) -> Self {
        let body = serde_json::to_string_pretty(value).unwrap_or_default() + "\n";
        Self { status: StatusCode::OK, content_type: "application/json", body: body.into() }
    }

    /// Plain text with another status.
    pub(super) fn status(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, ..Self::text(body) }
    }
}

/// One path.
pub(super) struct Path {
    pub(super) path: &'static str,
    /// Changes something: POST only.
    pub(super) changes: bool,
    pub(super) help: &'static str,
    pub(super) answer: fn(&Context<'_>) -> Reply,
}

fn respond(steering: &Weak<Steering>, sources: &Sources, request: &Request<Incoming>) -> Response<Content> {
    let reply = match steering.upgrade() {
        Some(steering) => {
            let context =
                Context { steering: &steering, sources, query: request.uri().query().unwrap_or_default() };
            route(&context, request.method(), request.uri().path())
        }
        None => Reply::status(StatusCode::SERVICE_UNAVAILABLE, "the proxy has ended\n"),
    };
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::SERVER, HeaderValue::from_static("outrigger"));
    response
}

fn route(context: &Context<'_>, method: &Method, path: &str) -> Reply {
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let Some(found) = super::PATHS.iter().find(|known| known.path == path) else {
        return Reply::status(StatusCode::NOT_FOUND, format!("invalid path. {}", super::help_text()));
    };
    let allowed =
        if found.changes { *method == Method::POST } else { matches!(*method, Method::GET | Method::HEAD) };
    if !allowed {
        let wanted = if found.changes { "POST" } else { "GET" };
        let body = format!("Method {method} not allowed, {wanted} required.\n");
        return Reply::status(StatusCode::METHOD_NOT_ALLOWED, body);
    }
    (found.answer)(context)
}
