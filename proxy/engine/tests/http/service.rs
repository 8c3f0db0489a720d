//! A service that filters ask: it answers as a function says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_traffic::config::{Cluster, HttpUpstream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::bed::cluster_at;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Of a gRPC call.
    pub(crate) grpc_status: Option<u32>,
    /// It is never answered.
    pub(crate) never: bool,
}

impl Told {
    pub(crate) fn http(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    /// A unary call's message.
    pub(crate) fn message(message: &[u8]) -> Self {
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend_from_slice(message);
        Self { status: 200, body, grpc_status: Some(0), ..Self::default() }
    }
}

/// A running service.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    pub(crate) async fn start(
        http2: bool,
        answer: impl Fn(&Asked, usize) -> Told + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (list, answer) = (asked.clone(), Arc::new(answer));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (list, answer) = (list.clone(), answer.clone());
                let service = service_fn(move |request| serve(request, list.clone(), answer.clone()));
                tokio::spawn(async move {
                    let io = TokioIo::new(stream);
                    if http2 {
                        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        drop(server.serve_connection(io, service).await);
                    } else {
                        let server = hyper::server::conn::http1::Builder::new();
                        drop(server.serve_connection(io, service).await);
                    }
                });
            }
        });
        Self { address, asked, task }
    }

    /// Everything that was asked.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// A cluster of it alone.
    pub(crate) fn cluster(&self, name: &str, http2: bool) -> Cluster {
        let mut cluster = cluster_at(name, &[self.address]);
        if http2 {
            cluster.http.protocol = HttpUpstream::Http2;
        }
        cluster
    }
}

async fn serve(
    request: Request<Incoming>,
    list: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<impl Fn(&Asked, usize) -> Told>,
) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path_and_query().map_or_else(String::new, |path| path.as_str().to_owned());
    let asked = Asked { method: head.method.to_string(), path, headers: head.headers, body };
    let number = {
        let mut list = list.lock().unwrap();
        list.push(asked.clone());
        list.len()
    };
    let told = answer(&asked, number);
    if told.never {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(told.status);
    for (name, value) in &told.fields {
        response = response.header(*name, value);
    }
    let body = Full::new(Bytes::from(told.body));
    let body = match told.grpc_status {
        Some(status) => {
            let mut trailers = HeaderMap::new();
            let value = HeaderValue::from_str(&status.to_string()).unwrap();
            trailers.insert(HeaderName::from_static("grpc-status"), value);
            body.with_trailers(async move { Some(Ok(trailers)) }).boxed()
        }
        None => body.boxed(),
    };
    Ok(response.body(body).unwrap())
}
