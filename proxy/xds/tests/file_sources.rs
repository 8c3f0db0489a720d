//! Configuration from files: taken at the start, taken again when another file is moved there, refused without harm.

mod support;

use outrigger_traffic::config::{ClusterDiscovery, Config, EndpointAddress};
use outrigger_xds::ads::Kind;
use outrigger_xds::feed::Feed;
use outrigger_xds::feed::links::{LinkId, LinkPlan};
use outrigger_xds::files;
use outrigger_xds::source::{FileSource, Source};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use support::Recorder;

/// Moves a new content to a path, as operators are told to.
fn move_there(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

fn clusters(folder: &Path, version: u32, more: &str) -> String {
    let eds = folder.join("eds.yaml");
    format!(
        "version_info: '{version}'
resources:
- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: a
  type: EDS
  eds_cluster_config:
    eds_config: {{path_config_source: {{path: {}, watched_directory: {{path: {}}}}}, initial_fetch_timeout: 1s}}
{more}",
        eds.display(),
        folder.display()
    )
}

fn endpoints(port: u16) -> String {
    format!(
        "resources:
- '@type': type.googleapis.com/envoy.service.discovery.v3.Resource
  name: a
  version: v{port}
  resource:
    '@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
    cluster_name: a
    endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]
"
    )
}

struct Followed {
    folder: tempfile::TempDir,
    cds: PathBuf,
    eds: PathBuf,
    recorder: Arc<Recorder>,
    feed: Arc<Mutex<Feed>>,
}

/// Follows a file of clusters, and what it names, as the proxy does.
fn follow() -> Followed {
    let folder = tempfile::tempdir().unwrap();
    let (cds, eds) = (folder.path().join("cds.yaml"), folder.path().join("eds.yaml"));
    std::fs::write(&eds, endpoints(1)).unwrap();
    std::fs::write(&cds, clusters(folder.path(), 1, "")).unwrap();
    let file = |path: &Path| FileSource { path: path.display().to_string(), watched_directory: None };
    let plan = LinkPlan::own(Kind::Cluster, Source::File(file(&cds)));
    let recorder = Arc::new(Recorder::default());
    let mut feed = Feed::with_links(vec![plan], Config::default(), recorder.clone(), None);
    feed.start(Instant::now()).unwrap();
    let feed = Arc::new(Mutex::new(feed));
    tokio::spawn(files::follow(feed.clone(), LinkId(0), Kind::Cluster, file(&cds)));
    let followed = feed.clone();
    tokio::spawn(async move {
        let bell = followed.lock().unwrap().fresh_bell();
        loop {
            for (id, plan) in followed.lock().unwrap().fresh_links() {
                let Source::File(file) = plan.source else { panic!("a file") };
                let kind = *plan.kinds.first().unwrap();
                tokio::spawn(files::follow(followed.clone(), id, kind, file));
            }
            bell.notified().await;
        }
    });
    Followed { folder, cds, eds, recorder, feed }
}

fn ports(config: &Config) -> Vec<u16> {
    let found = config.endpoints.iter().flat_map(|e| &e.localities).flat_map(|l| &l.endpoints);
    found
        .map(|e| match &e.address {
            EndpointAddress::Socket(address) => address.port(),
            EndpointAddress::Name(_, port) => *port,
        })
        .collect()
}

#[tokio::test]
async fn files_are_taken_and_taken_again_when_they_are_replaced() {
    let f = follow();
    let config = f.recorder.until("both files", |c| ports(c) == [1]).await;
    assert!(
        matches!(&config.clusters[0].discovery, ClusterDiscovery::Eds { service_name } if service_name == "a")
    );
    move_there(&f.eds, &endpoints(2));
    let last = || f.recorder.endpoints.lock().unwrap().last().cloned();
    let end = Instant::now() + support::PATIENCE;
    while last().is_none() && Instant::now() < end {
        tokio::task::yield_now().await;
    }
    let now = Config { endpoints: vec![last().expect("new endpoints")], ..Config::default() };
    assert_eq!(ports(&now), [2]);
    let more = "- {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: b, type: STATIC}\n";
    move_there(&f.cds, &clusters(f.folder.path(), 2, more));
    f.recorder.until("the other cluster", |c| c.clusters.len() == 2 && ports(c) == [2]).await;
}

#[tokio::test]
async fn refused_file_changes_nothing_and_is_counted() {
    let f = follow();
    f.recorder.until("both files", |c| ports(c) == [1]).await;
    move_there(&f.cds, "resources: [{no_such: 1}]");
    let failed = |feed: &Mutex<Feed>| {
        let status = feed.lock().unwrap().status.clone();
        let numbers = status.kinds.get(&Kind::Cluster).copied().unwrap_or_default();
        (numbers.success, numbers.rejected, numbers.failure, status.refused)
    };
    let end = Instant::now() + support::PATIENCE;
    while failed(&f.feed).2 == 0 && Instant::now() < end {
        tokio::task::yield_now().await;
    }
    let (success, rejected, failure, refused) = failed(&f.feed);
    assert_eq!((success, rejected, failure), (1, 0, 1));
    assert!(refused.keys().next().unwrap().starts_with("file "), "{refused:?}");
    assert_eq!(f.recorder.configs.lock().unwrap().last().unwrap().clusters.len(), 1);
    let bad = "- {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: '', type: STATIC}\n";
    move_there(&f.cds, &clusters(f.folder.path(), 3, bad));
    while failed(&f.feed).1 == 0 && Instant::now() < end {
        tokio::task::yield_now().await;
    }
    assert_eq!(failed(&f.feed).1, 1, "{:?}", failed(&f.feed));
    assert_eq!(f.recorder.configs.lock().unwrap().last().unwrap().clusters.len(), 1);
}

#[tokio::test]
async fn file_that_nothing_names_any_more_is_let_go() {
    let f = follow();
    f.recorder.until("both files", |c| ports(c) == [1]).await;
    assert!(!f.feed.lock().unwrap().is_over(LinkId(1)));
    move_there(&f.cds, "version_info: '2'\nresources: []\n");
    f.recorder.until("nothing", |c| c.clusters.is_empty()).await;
    assert!(f.feed.lock().unwrap().is_over(LinkId(1)));
    move_there(&f.cds, &clusters(f.folder.path(), 3, ""));
    f.recorder.until("again", |c| ports(c) == [1]).await;
}
