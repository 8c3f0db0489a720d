//! The source against a server that lists and watches as Kubernetes does: pages, versions, bookmarks, versions that
//! are gone, connections that break.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::source::Catalog;
use crate::source::settings::{KUBERNETES, KubernetesSettings};
use crate::source::status::State as SourceState;

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

type Line = Result<Bytes, std::io::Error>;

/// What the server has.
#[derive(Default)]
struct Api {
    version: u64,
    /// Path and name → object.
    objects: BTreeMap<(&'static str, String), Value>,
    /// All changes: version, path, event.
    log: Vec<(u64, &'static str, Value)>,
    /// Changes up to this version are forgotten.
    forgotten: u64,
    watchers: Vec<(&'static str, mpsc::UnboundedSender<Line>)>,
    /// Requests by path: how many lists (first pages) and watches.
    lists: HashMap<&'static str, usize>,
    watches: HashMap<&'static str, usize>,
    /// Objects of a page, whatever the client asks for.
    page: usize,
    /// The next continuation is refused.
    token_expires: bool,
    away: bool,
}

#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<Api>>);

fn failure(code: u16, reason: &str) -> Response {
    let status =
        json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason});
    (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response()
}

async fn serve(
    State(cluster): State<Cluster>,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if headers.get("authorization").is_none_or(|value| value != "Bearer abc") {
        return failure(401, "Unauthorized");
    }
    let path = [SERVICES, SLICES].into_iter().find(|path| *path == uri.path()).unwrap();
    let mut api = cluster.0.lock().unwrap();
    if api.away {
        return failure(503, "ServiceUnavailable");
    }
    if query.get("watch").is_some_and(|watch| watch == "1") {
        *api.watches.entry(path).or_default() += 1;
        let from: u64 = query["resourceVersion"].parse().unwrap();
        let (sender, receiver) = mpsc::unbounded_channel::<Line>();
        if from < api.forgotten {
            let gone =
                json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}});
            sender.send(Ok(Bytes::from(format!("{gone}\n")))).unwrap();
        } else {
            for (_, _, event) in api.log.iter().filter(|(v, p, _)| *v > from && *p == path) {
                sender.send(Ok(Bytes::from(format!("{event}\n")))).unwrap();
            }
            api.watchers.push((path, sender));
        }
        let lines = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        return Body::from_stream(lines).into_response();
    }
    let from: usize = match query.get("continue") {
        Some(token) => {
            if std::mem::take(&mut api.token_expires) {
                return failure(410, "Expired");
            }
            token.strip_prefix("from=").unwrap().parse().unwrap()
        }
        None => {
            *api.lists.entry(path).or_default() += 1;
            0
        }
    };
    let all: Vec<Value> =
        api.objects.iter().filter(|((p, _), _)| *p == path).map(|(_, o)| o.clone()).collect();
    let page = if api.page == 0 { usize::MAX } else { api.page };
    let items: Vec<&Value> = all.iter().skip(from).take(page).collect();
    let next = from + items.len();
    let token = if next < all.len() { format!("from={next}") } else { String::new() };
    let list =
        json!({"metadata": {"resourceVersion": api.version.to_string(), "continue": token}, "items": items});
    (StatusCode::OK, list.to_string()).into_response()
}

impl Cluster {
    async fn start(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(serve).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    fn with<T>(&self, act: impl FnOnce(&mut Api) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    fn put(&self, path: &'static str, name: &str, mut object: Value) {
        self.with(|api| {
            api.version += 1;
            object["metadata"]["name"] = json!(name);
            object["metadata"]["namespace"] = json!("shop");
            object["metadata"]["resourceVersion"] = json!(api.version.to_string());
            let key = (path, name.to_owned());
            let kind = if api.objects.insert(key, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
            api.tell(path, json!({"type": kind, "object": object}));
        });
    }

    fn remove(&self, path: &'static str, name: &str) {
        self.with(|api| {
            api.version += 1;
            let mut object = api.objects.remove(&(path, name.to_owned())).unwrap();
            object["metadata"]["resourceVersion"] = json!(api.version.to_string());
            api.tell(path, json!({"type": "DELETED", "object": object}));
        });
    }

    fn service(&self, name: &str) {
        let metadata = json!({"annotations": {"outrigger.io/export": "true"}});
        self.put(
            SERVICES,
            name,
            json!({"metadata": metadata, "spec": {"ports": [{"name": "http", "port": 80}]}}),
        );
    }

    fn slice(&self, name: &str, service: &str, addresses: &[&str]) {
        let endpoints: Vec<Value> =
            addresses.iter().map(|a| json!({"addresses": [a], "conditions": {"ready": true}})).collect();
        let metadata = json!({"labels": {"kubernetes.io/service-name": service}});
        let ports = json!([{"name": "http", "port": 8080}]);
        self.put(
            SLICES,
            name,
            json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}),
        );
    }

    /// Ends all watches: cleanly, or broken in the middle of a line.
    fn cut(&self, broken: bool) {
        self.with(|api| {
            for (_, watcher) in api.watchers.drain(..) {
                if broken {
                    let _ = watcher.send(Ok(Bytes::from_static(b"{\"type\": \"MOD")));
                    let _ = watcher.send(Err(std::io::Error::other("cut")));
                }
            }
        });
    }

    fn lists(&self, path: &'static str) -> usize {
        self.with(|api| api.lists.get(path).copied().unwrap_or(0))
    }
}

impl Api {
    fn tell(&mut self, path: &'static str, event: Value) {
        self.log.push((self.version, path, event.clone()));
        let line = Bytes::from(format!("{event}\n"));
        self.watchers.retain(|(p, watcher)| *p != path || watcher.send(Ok(line.clone())).is_ok());
    }

    /// Forgets all changes, and tells the version of now to those who watch when `bookmark`.
    fn compact(&mut self, bookmark: bool) {
        self.version += 1;
        if bookmark {
            let version = self.version.to_string();
            let event = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}});
            let line = Bytes::from(format!("{event}\n"));
            self.watchers.retain(|(_, watcher)| watcher.send(Ok(line.clone())).is_ok());
        }
        self.log.clear();
        self.forgotten = self.version;
    }
}

struct Fixture {
    cluster: Cluster,
    catalog: Arc<Catalog>,
    job: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

/// A source of a cluster with the service `cart` and two pods.
async fn fixture(prepare: impl FnOnce(&Cluster)) -> Fixture {
    let cluster = Cluster::default();
    cluster.service("cart");
    cluster.slice("cart-1", "cart", &["10.0.0.1", "10.0.0.2"]);
    prepare(&cluster);
    let address = cluster.start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    let text = format!(
        "current-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\nclusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\nusers: [{{name: u, user: {{token: abc}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    let registered = tokio::sync::watch::Sender::new(Vec::new().into());
    let catalog = Catalog::new(registered.subscribe(), None);
    let sink = catalog.add("k8s", KUBERNETES).await;
    let settings = KubernetesSettings { kubeconfig: Some(path), ..KubernetesSettings::default() };
    let job = tokio::spawn(run(settings, sink, Reach::Network));
    Fixture { cluster, catalog, job, _folder: folder }
}

impl Fixture {
    /// Waits until these addresses are known.
    async fn is(&self, addresses: &[&str]) {
        let mut workloads = self.catalog.workloads();
        let wanted = |all: &crate::source::register::Workloads| {
            let mut known: Vec<String> = all.iter().map(|w| w.address.to_string()).collect();
            known.sort();
            known == addresses
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), workloads.wait_for(wanted)).await;
        assert!(waited.is_ok(), "{addresses:?}: {:?}", self.catalog.statuses());
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
    }

    async fn watched(&self, times: usize) {
        self.until(|f| {
            f.cluster
                .with(|api| api.watches.get(SLICES).copied().unwrap_or(0) >= times && api.watchers.len() == 2)
        })
        .await;
    }

    fn state(&self) -> SourceState {
        self.catalog.statuses()[0].state
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.job.abort();
    }
}

#[tokio::test]
async fn changes_are_followed_without_listing_again() {
    let f = fixture(|_| ()).await;
    f.is(&["10.0.0.1", "10.0.0.2"]).await;
    f.watched(1).await;
    f.cluster.slice("cart-1", "cart", &["10.0.0.2", "10.0.0.3"]);
    f.is(&["10.0.0.2", "10.0.0.3"]).await;
    f.cluster.slice("cart-2", "cart", &["10.0.0.4"]);
    f.is(&["10.0.0.2", "10.0.0.3", "10.0.0.4"]).await;
    f.cluster.remove(SLICES, "cart-1");
    f.is(&["10.0.0.4"]).await;
    f.cluster.remove(SERVICES, "cart");
    f.is(&[]).await;
    f.cluster.service("cart");
    f.is(&["10.0.0.4"]).await;
    assert_eq!((f.cluster.lists(SERVICES), f.cluster.lists(SLICES)), (1, 1));
    let status = f.catalog.statuses().remove(0);
    assert_eq!((status.state, status.syncs, status.failures), (SourceState::Synced, 1, 0));
}

#[tokio::test]
async fn list_of_several_pages_is_read_whole_and_begun_anew_when_its_token_is_gone() {
    let f = fixture(|cluster| {
        for i in 1..10 {
            cluster.slice(&format!("cart-{i}"), "cart", &[&format!("10.0.0.{i}")]);
        }
        cluster.with(|api| (api.page, api.token_expires) = (2, true));
    })
    .await;
    let all: Vec<String> = (1..10).map(|i| format!("10.0.0.{i}")).collect();
    f.is(&all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!((f.cluster.lists(SERVICES), f.cluster.lists(SLICES)), (1, 2));
}

#[tokio::test]
async fn watch_goes_on_from_the_last_version_after_it_ended_or_broke() {
    let f = fixture(|_| ()).await;
    f.is(&["10.0.0.1", "10.0.0.2"]).await;
    for (round, broken) in [false, true].into_iter().enumerate() {
        f.watched(round + 1).await;
        f.cluster.cut(broken);
        // What happens while nobody watches is told afterwards.
        f.cluster.slice("cart-1", "cart", &[&format!("10.0.1.{round}")]);
        f.is(&[&format!("10.0.1.{round}")]).await;
    }
    assert_eq!(f.cluster.lists(SLICES), 1);
    f.until(|f| f.state() == SourceState::Synced).await;
    assert!(f.catalog.statuses()[0].failures >= 1, "the broken ones");
}

#[tokio::test]
async fn version_that_is_gone_leads_to_a_new_list_and_a_bookmark_saves_it() {
    let f = fixture(|_| ()).await;
    f.is(&["10.0.0.1", "10.0.0.2"]).await;
    f.watched(1).await;
    f.cluster.with(|api| api.compact(true));
    f.cluster.cut(false);
    f.watched(2).await;
    f.cluster.slice("cart-1", "cart", &["10.0.0.9"]);
    f.is(&["10.0.0.9"]).await;
    assert_eq!(f.cluster.lists(SLICES), 1, "the bookmark's version was still good");

    f.cluster.with(|api| api.watchers.clear());
    f.cluster.slice("cart-1", "cart", &["10.0.0.10"]);
    f.cluster.with(|api| api.compact(false));
    f.is(&["10.0.0.10"]).await;
    f.until(|f| f.cluster.lists(SLICES) >= 2 && f.state() == SourceState::Synced).await;
}

#[tokio::test]
async fn cluster_that_is_away_takes_nobody_away() {
    let f = fixture(|_| ()).await;
    f.is(&["10.0.0.1", "10.0.0.2"]).await;
    f.watched(1).await;
    f.cluster.with(|api| api.away = true);
    f.cluster.cut(true);
    f.until(|f| f.state() == SourceState::Stale).await;
    assert_eq!(f.catalog.workloads().borrow().len(), 2);
    f.cluster.with(|api| api.away = false);
    f.until(|f| f.state() == SourceState::Synced).await;
    f.is(&["10.0.0.1", "10.0.0.2"]).await;
}
