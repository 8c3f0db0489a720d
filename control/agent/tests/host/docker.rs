//! A docker that only remembers: containers, images and events over a unix socket, as far as the agent asks.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;

type Body = BoxBody<Bytes, Infallible>;

/// What it remembers.
#[derive(Default)]
pub(crate) struct State {
    /// Inspections, by id.
    pub(crate) containers: BTreeMap<String, Value>,
    /// What was asked of it that changes something, in order.
    pub(crate) calls: Vec<String>,
    /// Whether sidecars are healthy as soon as they run.
    pub(crate) healthy: bool,
    /// Whether looks at containers fail.
    pub(crate) failing: bool,
    /// How many failed.
    pub(crate) refused: u32,
    /// The sidecars' image.
    pub(crate) image: Option<Value>,
}

/// See the module.
pub(crate) struct Docker {
    pub(crate) socket: PathBuf,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    events: broadcast::Sender<Bytes>,
    serving: Mutex<Option<JoinSet<()>>>,
}

impl Docker {
    pub(crate) fn new(folder: &Path) -> Arc<Self> {
        let state = State {
            healthy: true,
            image: Some(json!({"Id": "sha256:aa", "Config": {"Labels": {}}})),
            ..State::default()
        };
        Arc::new(Self {
            socket: folder.join("docker.sock"),
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            events: broadcast::Sender::new(256),
            serving: Mutex::new(None),
        })
    }

    /// Begins to answer.
    pub(crate) fn start(self: &Arc<Self>) {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let this = self.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // Connections end with their set, as they do when docker ends.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let this = this.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let this = this.clone();
                        async move { Ok::<_, Infallible>(this.answer(request).await) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        *self.serving.lock().unwrap() = Some(serving);
    }

    /// Ends every connection and answers no more.
    pub(crate) fn stop(&self) {
        *self.serving.lock().unwrap() = None;
        std::fs::remove_file(&self.socket).unwrap();
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until a condition holds; fails the test after ten seconds.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let mut changes = self.changed.subscribe();
        let wait = async {
            while !condition(&self.state()) {
                changes.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(10), wait).await;
        assert!(waited.is_ok(), "{what}: {:#?}", self.state().calls);
    }

    /// Adds a container that runs, and says so.
    pub(crate) fn run(&self, id: &str, container: Value) {
        self.state().containers.insert(id.to_owned(), container);
        self.say(id, "start", &[]);
    }

    /// A container ended by itself.
    pub(crate) fn end(&self, id: &str) {
        if let Some(container) = self.state().containers.get_mut(id) {
            container["State"] = json!({"Status": "exited", "Running": false, "Pid": 0});
        }
        self.say(id, "die", &[]);
    }

    /// Sends an event.
    pub(crate) fn say(&self, id: &str, action: &str, more: &[(&str, &str)]) {
        let labels = self.state().containers.get(id).map(|c| c["Config"]["Labels"].clone());
        let mut attributes = labels.unwrap_or(json!({}));
        for (key, value) in more {
            attributes[*key] = (*value).into();
        }
        let event =
            json!({"Type": "container", "Action": action, "Actor": {"ID": id, "Attributes": attributes}});
        // Nobody listens while the agent is away.
        let _ = self.events.send(format!("{event}\n").into());
        self.changed.send_replace(());
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let path = uri.path().to_owned();
        let path = path.strip_prefix("/v1.41").unwrap_or(&path).to_owned();
        let query = uri.query().unwrap_or_default().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let answer = match (method.clone(), parts.as_slice()) {
            (Method::GET, ["version"]) => Ok(json!({"ApiVersion": "1.41", "Version": "20.10.24"})),
            (Method::GET, ["events"]) => return self.follow(),
            (Method::GET, ["containers", "json"]) => Ok(self.list(&query)),
            (Method::GET, ["containers", _, "json"]) if self.state().failing => {
                self.state().refused += 1;
                self.changed.send_replace(());
                Err(StatusCode::INTERNAL_SERVER_ERROR)
            }
            (Method::GET, ["containers", id, "json"]) => self.find(id).ok_or(StatusCode::NOT_FOUND),
            (Method::GET, ["images", _, "json"]) => self.state().image.clone().ok_or(StatusCode::NOT_FOUND),
            (Method::POST, ["containers", "create"]) => self.create(&query, &body),
            (Method::POST, ["containers", id, "start"]) => self.started(id),
            (Method::POST, ["containers", id, "kill"]) => self.killed(id),
            (Method::DELETE, ["containers", id]) => self.removed(id),
            _ => panic!("not asked for: {method} {path}"),
        };
        let (status, value) = match answer {
            Ok(Value::Null) => (StatusCode::NO_CONTENT, None),
            Ok(value) => (StatusCode::OK, Some(value)),
            Err(status) => (status, Some(json!({"message": status.to_string()}))),
        };
        let text = value.map(|value| value.to_string()).unwrap_or_default();
        let mut response = Response::new(Full::new(Bytes::from(text)).boxed());
        *response.status_mut() = status;
        response
    }

    fn follow(&self) -> Response<Body> {
        let events = BroadcastStream::new(self.events.subscribe());
        let frames = events.filter_map(|event| Some(Ok(Frame::data(event.ok()?))));
        Response::new(StreamBody::new(frames).boxed())
    }

    /// By its id or the beginning of it.
    fn find(&self, id: &str) -> Option<Value> {
        let state = self.state();
        state
            .containers
            .iter()
            .find(|(known, _)| known.starts_with(id))
            .map(|(_, container)| container.clone())
    }

    fn list(&self, query: &str) -> Value {
        let query = percent_encoding::percent_decode_str(query).decode_utf8().unwrap().into_owned();
        let of = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let filters: Value = serde_json::from_str(of("filters").unwrap_or("{}")).unwrap();
        let wanted = filters["label"][0].as_str().unwrap_or_default().to_owned();
        let has = |container: &Value| {
            let labels = container["Config"]["Labels"].as_object().unwrap();
            match wanted.split_once('=') {
                Some((key, value)) => labels.get(key).and_then(Value::as_str) == Some(value),
                None => labels.contains_key(&wanted),
            }
        };
        let all = of("all") == Some("true");
        let state = self.state();
        let chosen =
            state.containers.iter().filter(|(_, c)| has(c) && (all || c["State"]["Running"] == true));
        chosen.map(|(id, c)| json!({"Id": id, "Labels": c["Config"]["Labels"]})).collect()
    }

    fn create(&self, query: &str, body: &[u8]) -> Result<Value, StatusCode> {
        let name = query.split('&').find_map(|pair| pair.strip_prefix("name=")).unwrap().to_owned();
        let body: Value = serde_json::from_slice(body).unwrap();
        let mut state = self.state();
        if state.containers.contains_key(&name) {
            return Err(StatusCode::CONFLICT);
        }
        state.calls.push(format!("create {name}"));
        let container = json!({
            "Id": name, "Name": format!("/{name}"), "State": {"Status": "created", "Running": false},
            "HostConfig": body["HostConfig"], "Config": {"Labels": body["Labels"], "Env": body["Env"]},
        });
        state.containers.insert(name.clone(), container);
        Ok(json!({"Id": name, "Warnings": []}))
    }

    fn started(&self, id: &str) -> Result<Value, StatusCode> {
        {
            let mut state = self.state();
            let health = if state.healthy { "healthy" } else { "starting" };
            state.calls.push(format!("start {id}"));
            let container = state.containers.get_mut(id).ok_or(StatusCode::NOT_FOUND)?;
            container["State"] =
                json!({"Status": "running", "Running": true, "Pid": 99, "Health": {"Status": health}});
        }
        self.say(id, "start", &[]);
        Ok(Value::Null)
    }

    fn killed(&self, id: &str) -> Result<Value, StatusCode> {
        self.state().calls.push(format!("kill {id}"));
        self.end(id);
        Ok(Value::Null)
    }

    fn removed(&self, id: &str) -> Result<Value, StatusCode> {
        let gone = self.state().containers.remove(id);
        self.state().calls.push(format!("remove {id}"));
        self.say(id, "destroy", &[]);
        gone.map(|_| Value::Null).ok_or(StatusCode::NOT_FOUND)
    }

    /// Notes something that did not come over the socket, so that the order of everything shows.
    pub(crate) fn note(&self, call: String) {
        self.state().calls.push(call);
        self.changed.send_replace(());
    }
}
