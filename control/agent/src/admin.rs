//! Metrics and health, on an address of the host's own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::agent::Agent;

/// Most connections at a time.
const CONNECTIONS_MAX: usize = 32;

/// Longest time for the head of a request, and for a whole question of [`ask`].
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer that is read: a thousand containers with all their ports.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, agent: Arc<Agent>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let agent = agent.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&agent, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(TIMEOUT).keep_alive(false);
            // A client that went away is nobody's concern.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

fn answer<B>(agent: &Agent, request: &Request<B>) -> Response<Full<Bytes>> {
    let (status, kind, body) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4", agent.metrics.render()),
        "/ready" => match agent.not_ready() {
            None => (StatusCode::OK, "text/plain", "ready\n".to_owned()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{reason}\n")),
        },
        "/containers" => (StatusCode::OK, "application/json", agent.containers_json()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "/metrics, /ready, /containers\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// Asks a running agent something: `/ready` or another of its paths.
///
/// *Errors*: it is not ready, with its reason, or it does not answer.
pub async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let work = async {
        let stream = TcpStream::connect(address).await.with_context(|| address.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "agent").body(Full::default())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        ensure!(status.is_success(), "{text}");
        Ok(text)
    };
    tokio::time::timeout(TIMEOUT, work).await.context("the agent does not answer")?
}
