//! Active health checks over real sockets: who is asked what, and where requests go then.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_engine::telemetry::ClusterStats;
use outrigger_testkit::client::get;
use outrigger_traffic::config::{
    Config, Fraction, GrpcProbe, HealthCheck, HttpProbe, OutlierDetection, Probe, StringMatch, TcpProbe,
};

use crate::bed::{Bed, cluster_at, eventually, forward, listener};

/// A server whose health the test decides about.
#[derive(Clone)]
struct Patient {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Of `/health`; 0 answers nothing.
    status: AtomicU16,
    degraded: AtomicBool,
    exclude: AtomicBool,
    probes: AtomicU32,
    connections: AtomicU32,
    seen: Mutex<Vec<(String, HeaderMap)>>,
}

impl Patient {
    async fn start(http2: bool) -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = Arc::new(State::default());
        state.status.store(200, Relaxed);
        let patient = Self { address: socket.local_addr().unwrap(), state: state.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                state.connections.fetch_add(1, Relaxed);
                let state = state.clone();
                let service = hyper::service::service_fn(move |request| answer(state.clone(), request));
                let io = TokioIo::new(stream);
                tokio::spawn(async move {
                    if http2 {
                        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        drop(builder.serve_connection(io, service).await);
                    } else {
                        drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
                    }
                });
            }
        });
        patient
    }

    fn is(&self, status: u16) {
        self.state.status.store(status, Relaxed);
    }

    fn probes(&self) -> u32 {
        self.state.probes.load(Relaxed)
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, std::convert::Infallible>>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let authority = request.uri().authority().map(ToString::to_string);
    let mut headers = request.headers().clone();
    if let Some(authority) = authority {
        headers.insert("host", authority.parse().unwrap());
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut response = Response::builder();
    if state.degraded.load(Relaxed) {
        response = response.header("x-envoy-degraded", "1");
    }
    if state.exclude.load(Relaxed) {
        response = response.header("x-envoy-immediate-health-check-fail", "1");
    }
    let status = state.status.load(Relaxed);
    if path == "/grpc.health.v1.Health/Check" {
        state.probes.fetch_add(1, Relaxed);
        state.seen.lock().unwrap().push((String::from_utf8_lossy(&body).into_owned(), headers));
        let serving = u8::from(status != 200) + 1;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames =
            vec![Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, serving])), Frame::trailers(trailers)];
        let body = Frames(frames.into_iter());
        return Ok(response.header("content-type", "application/grpc").body(BodyExt::boxed(body)).unwrap());
    }
    if path != "/health" {
        return Ok(response.body(BodyExt::boxed(Full::new(Bytes::from("app")))).unwrap());
    }
    state.probes.fetch_add(1, Relaxed);
    state.seen.lock().unwrap().push((path, headers));
    if status == 0 {
        std::future::pending::<()>().await;
    }
    response = response.status(status).header("x-envoy-upstream-healthchecked-cluster", "shop-7");
    Ok(response.body(BodyExt::boxed(Full::new(Bytes::from("all is well here")))).unwrap())
}

/// A body of these frames.
struct Frames(std::vec::IntoIter<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.next().map(Ok))
    }
}

fn check(probe: Probe) -> HealthCheck {
    let quick = Duration::from_millis(5);
    let mut check = HealthCheck::new(Duration::from_millis(500), quick, (2, 2), probe);
    check.no_traffic_interval = quick;
    check
}

fn http(change: impl FnOnce(&mut HttpProbe)) -> HealthCheck {
    let mut probe = HttpProbe::of("/health");
    change(&mut probe);
    check(Probe::Http(probe))
}

fn checked(patients: &[&Patient], check: HealthCheck) -> Config {
    let addresses: Vec<SocketAddr> = patients.iter().map(|patient| patient.address).collect();
    let mut cluster = cluster_at("a", &addresses);
    cluster.health_check = Some(check);
    // A host that must not be used is not used, however few are left.
    cluster.healthy_panic_threshold = Fraction::ZERO;
    Config {
        clusters: vec![cluster],
        listeners: vec![listener(vec![forward("/", "a")])],
        ..Config::default()
    }
}

fn healthy(bed: &Bed) -> Vec<bool> {
    let live = bed.handle.shared().live.load_full();
    let cluster = live.clusters.iter().flatten().next().unwrap();
    cluster.cluster.hosts().hosts().iter().map(|host| host.is_healthy()).collect()
}

fn count(bed: &Bed, pick: fn(&ClusterStats) -> u64) -> u64 {
    bed.cluster_stat("a", pick)
}

#[tokio::test]
async fn sick_host_gets_no_requests_until_it_is_well_again() {
    let (one, two) = (Patient::start(false).await, Patient::start(false).await);
    let bed = Bed::start(checked(&[&one, &two], http(|_| {})));
    eventually("both to be well", || healthy(&bed) == [true, true]).await;
    one.is(503);
    eventually("one to be out", || healthy(&bed) == [false, true]).await;
    let before = two.state.connections.load(Relaxed);
    for _ in 0..10 {
        assert_eq!(get(bed.address, "h", "/x").await.status, 200);
    }
    assert!(two.state.connections.load(Relaxed) > before);
    let admin = {
        let live = bed.handle.shared().live.load_full();
        live.clusters.iter().flatten().next().unwrap().cluster.hosts().healthy_count()
    };
    assert_eq!(admin, 1);
    two.is(500);
    eventually("both to be out", || healthy(&bed) == [false, false]).await;
    assert_eq!(get(bed.address, "h", "/x").await.status, 503);
    one.is(200);
    eventually("one to be back", || healthy(&bed) == [true, false]).await;
    assert_eq!(get(bed.address, "h", "/x").await.status, 200);
    assert!(count(&bed, |s| s.health_check_success.value()) > 0);
    assert!(count(&bed, |s| s.health_check_failure.value()) > 1);
    assert_eq!(count(&bed, |s| s.health_check_network_failure.value()), 0);
    // Connections of probes are kept.
    assert!(one.probes() > 3);
}

#[tokio::test]
async fn probe_is_the_request_that_was_configured() {
    let patient = Patient::start(false).await;
    let mut config = checked(
        &[&patient],
        http(|probe| {
            probe.host = "check.example".into();
            probe.method = "POST".into();
            probe.send = b"ping".to_vec();
            probe.headers_add = vec![("x-token".into(), "t".into(), false)];
            probe.headers_remove = vec!["user-agent".into()];
            probe.receive = vec![b"all".to_vec(), b"well".to_vec()];
            probe.expected_statuses = vec![(200, 300)];
            probe.service_name = Some(StringMatch::exact("shop-7"));
        }),
    );
    let endpoints = config.clusters[0].clone();
    let bed = Bed::start(config.clone());
    eventually("it to be well", || healthy(&bed) == [true]).await;
    let (path, headers) = patient.state.seen.lock().unwrap()[0].clone();
    assert_eq!(path, "/health");
    assert_eq!(
        (&headers["host"], &headers["x-token"]),
        (&"check.example".parse().unwrap(), &"t".parse().unwrap())
    );
    assert!(!headers.contains_key("user-agent"));
    assert_eq!(headers["content-length"], "4");
    assert!(count(&bed, |s| s.health_check_verify_cluster.value()) > 0);
    // Another text is expected now, out of order: the host is not what it should be.
    config.clusters = vec![endpoints];
    if let Some(Probe::Http(probe)) = config.clusters[0].health_check.as_mut().map(|check| &mut check.probe) {
        probe.receive.reverse();
    }
    bed.handle.apply(config).unwrap();
    eventually("it to be out", || healthy(&bed) == [false]).await;
}

#[tokio::test]
async fn other_port_name_and_no_check_of_an_endpoint_are_respected() {
    let (app, probed, left_alone) =
        (Patient::start(false).await, Patient::start(false).await, Patient::start(false).await);
    left_alone.is(500);
    let mut config = checked(&[&app, &left_alone], http(|_| {}));
    let outrigger_traffic::config::ClusterDiscovery::Static(endpoints) = &mut config.clusters[0].discovery
    else {
        panic!()
    };
    let hosts = &mut endpoints.localities[0].endpoints;
    hosts[0].check.port = Some(probed.address.port());
    hosts[0].check.hostname = "own.example".into();
    hosts[1].check.disabled = true;
    let bed = Bed::start(config);
    eventually("the first to be well", || healthy(&bed) == [true, true]).await;
    assert_eq!((app.probes(), left_alone.probes()), (0, 0));
    assert_eq!(probed.state.seen.lock().unwrap()[0].1["host"], "own.example");
}

#[tokio::test]
async fn host_that_does_not_answer_or_is_not_there_counts_against_the_threshold() {
    let silent = Patient::start(false).await;
    let mut check = http(|_| {});
    check.timeout = Duration::from_millis(30);
    let bed = Bed::start(checked(&[&silent], check));
    eventually("it to be well", || healthy(&bed) == [true]).await;
    silent.is(0);
    eventually("it to be out", || healthy(&bed) == [false]).await;
    assert!(count(&bed, |s| s.health_check_network_failure.value()) >= 2);
    silent.is(200);
    eventually("it to be back", || healthy(&bed) == [true]).await;
}

#[tokio::test]
async fn degraded_and_excluded_hosts_are_told_by_their_answers() {
    let (one, two) = (Patient::start(false).await, Patient::start(false).await);
    let mut config = checked(&[&one, &two], http(|_| {}));
    config.clusters[0].healthy_panic_threshold = Fraction::from_percent(50);
    let bed = Bed::start(config);
    eventually("both to be well", || healthy(&bed) == [true, true]).await;
    one.state.degraded.store(true, Relaxed);
    eventually("one to be degraded", || healthy(&bed) == [false, true]).await;
    one.state.degraded.store(false, Relaxed);
    eventually("one to be well", || healthy(&bed) == [true, true]).await;
    // An answer to ordinary traffic says the same as a failed probe, at once.
    two.is(503);
    two.state.exclude.store(true, Relaxed);
    for _ in 0..2 {
        get(bed.address, "h", "/x").await;
    }
    eventually("two to be out", || healthy(&bed) == [true, false]).await;
}

#[tokio::test]
async fn grpc_host_is_asked_for_its_service() {
    let patient = Patient::start(true).await;
    let probe = GrpcProbe {
        service_name: "shop".into(),
        metadata: vec![("x-a".into(), "b".into(), true)],
        ..GrpcProbe::default()
    };
    let bed = Bed::start(checked(&[&patient], check(Probe::Grpc(probe))));
    eventually("it to be well", || healthy(&bed) == [true]).await;
    let (body, headers) = patient.state.seen.lock().unwrap()[0].clone();
    assert!(body.ends_with("shop"));
    assert_eq!((&headers["host"], &headers["x-a"]), (&"a".parse().unwrap(), &"b".parse().unwrap()));
    assert_eq!(
        (&headers["content-type"], &headers["te"]),
        (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
    );
    patient.is(500);
    eventually("it to be out", || healthy(&bed) == [false]).await;
}

#[tokio::test]
async fn tcp_host_must_connect_and_answer_what_is_expected() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let patient = Patient { address: socket.local_addr().unwrap(), state: Arc::default() };
    let answer = Arc::new(Mutex::new(&b"+PONG and OK"[..]));
    let says = answer.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut asked = [0; 4];
            if stream.read_exact(&mut asked).await.is_ok() && &asked == b"PING" {
                let says = *says.lock().unwrap();
                drop(stream.write_all(says).await);
            }
        }
    });
    let probe = TcpProbe { send: b"PING".to_vec(), receive: vec![b"PONG".to_vec(), b"OK".to_vec()] };
    let bed = Bed::start(checked(&[&patient], check(Probe::Tcp(probe))));
    eventually("it to be well", || healthy(&bed) == [true]).await;
    *answer.lock().unwrap() = b"OK PONG";
    eventually("it to be out", || healthy(&bed) == [false]).await;
}

#[tokio::test]
async fn events_are_written_down_and_success_ends_an_ejection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let (one, two) = (Patient::start(false).await, Patient::start(false).await);
    let mut check = http(|_| {});
    check.event_logs = vec![path.to_str().unwrap().to_owned()];
    check.interval = Duration::from_millis(100);
    let mut config = checked(&[&one, &two], check);
    config.clusters[0].outlier_detection = Some(OutlierDetection {
        consecutive_5xx: 1,
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    });
    let bed = Bed::start(config);
    eventually("both to be well", || healthy(&bed) == [true, true]).await;
    one.is(500);
    eventually("one to be out", || healthy(&bed) == [false, true]).await;
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("the events", || read().contains("eject_unhealthy_event")).await;
    let events: Vec<serde_json::Value> =
        read().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["health_checker_type"], "HTTP");
    assert_eq!(events[0]["add_healthy_event"]["first_check"], true);
    let ejected = events.iter().find(|event| event.get("eject_unhealthy_event").is_some()).unwrap();
    assert_eq!(ejected["eject_unhealthy_event"]["failure_type"], "ACTIVE");
    assert_eq!(ejected["host"]["socket_address"]["port_value"], one.address.port());
    // A host ejected by outlier detection comes back by its next good probe.
    let live = bed.handle.shared().live.load_full();
    let cluster = &live.clusters.iter().flatten().next().unwrap().cluster;
    let host = cluster.hosts().hosts()[1].clone();
    cluster.report(&host, outrigger_traffic::outcome::Outcome::Response(500), std::time::Instant::now(), 0);
    assert!(host.is_ejected());
    eventually("it to be back", || !host.is_ejected()).await;
}

#[tokio::test]
async fn hosts_that_come_later_wait_for_their_first_probe() {
    let (one, two) = (Patient::start(false).await, Patient::start(false).await);
    two.is(503);
    let mut config = checked(&[&one], http(|_| {}));
    config.clusters[0].ignore_new_hosts_until_first_hc = true;
    let mut bed = Bed::start(config);
    eventually("one to be well", || healthy(&bed) == [true]).await;
    bed.change(|config| {
        let check = config.clusters[0].health_check.clone();
        config.clusters = vec![cluster_at("a", &[one.address, two.address])];
        config.clusters[0].health_check = check;
        config.clusters[0].healthy_panic_threshold = Fraction::ZERO;
    });
    assert_eq!(healthy(&bed), [true, false]);
    two.is(200);
    eventually("two to be well", || healthy(&bed) == [true, true]).await;
    bed.change(|config| config.clusters[0].health_check = None);
    two.is(500);
    assert_eq!(healthy(&bed), [true, true], "nobody asks any more");
}
