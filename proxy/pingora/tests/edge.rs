//! The example gateway over real sockets: routes, balancing, retries, ejection, a configuration replaced while it serves, and
//! what is refused.

#[path = "../examples/edge.rs"]
#[allow(dead_code, reason = "an example is a program: its `main` is not called here")]
mod edge;

use outrigger_pingora::Decisions;
use outrigger_traffic::config::{
    Action, ClusterDiscovery, Config, HeaderAppend, HeaderEdit, LbPolicy, PathRewrite, Route, RouteSource,
    Terminal,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// A server that answers every request with this status, its name and the path it saw.
struct Origin {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    requests: Arc<AtomicUsize>,
}

impl Origin {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (status, requests) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        let (code, count) = (status.clone(), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (code, count) = (code.clone(), count.clone());
                std::thread::spawn(move || answer(stream, name, &code, &count));
            }
        });
        Self { address, status, requests }
    }
}

fn answer(mut stream: TcpStream, name: &str, code: &AtomicU16, count: &AtomicUsize) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.extend(byte);
        if head.ends_with(b"\r\n\r\n") {
            count.fetch_add(1, Relaxed);
            let text = String::from_utf8_lossy(&head).into_owned();
            let path = text.split(' ').nth(1).unwrap_or("");
            let added = text.lines().find(|line| line.starts_with("x-added")).unwrap_or("");
            let body = format!("{name} {path} {added}");
            let status = code.load(Relaxed);
            let answer = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
            head.clear();
        }
    }
}

fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.to_owned(), body.to_owned())
}

/// A gateway that ends with the test's process.
fn gateway(decisions: &Arc<Decisions>) -> SocketAddr {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = edge::server(&address.to_string(), decisions.clone());
    std::thread::spawn(move || server.run_forever());
    while TcpStream::connect(address).is_err() {
        std::thread::yield_now();
    }
    address
}

fn routes(config: &mut Config) -> &mut Vec<Route> {
    let Terminal::Http(manager) = &mut config.listeners[0].filter_chains[0].terminal else { unreachable!() };
    let RouteSource::Inline(table) = &mut manager.routes else { unreachable!() };
    &mut table.virtual_hosts[0].routes
}

#[test]
fn requests_are_routed_balanced_and_tried_again() {
    let (one, two) = (Origin::start("one"), Origin::start("two"));
    let decisions = Arc::new(Decisions::new());
    let address = gateway(&decisions);
    assert!(get(address, "/api").0.starts_with("HTTP/1.1 404"), "nothing is routed yet");
    assert_eq!(decisions.apply(edge::config(&[one.address, two.address])).unwrap(), 1);

    let health = get(address, "/health");
    assert!(
        health.0.starts_with("HTTP/1.1 200") && health.0.to_lowercase().contains("content-type: text/plain")
    );
    assert_eq!(health.1, "fine\n");
    let moved = get(address, "/old?x");
    assert!(
        moved.0.starts_with("HTTP/1.1 308")
            && moved.0.to_lowercase().contains("location: http://example/api"),
        "{}",
        moved.0
    );
    assert!(get(address, "/nowhere").0.starts_with("HTTP/1.1 404"));

    let seen: Vec<String> = (0..4).map(|_| get(address, "/api/x").1).collect();
    assert!(
        seen.iter().any(|s| s.starts_with("one /api/x")) && seen.iter().any(|s| s.starts_with("two /api/x")),
        "{seen:?}"
    );

    // One fails: requests are tried again at the other, and after three failures it is left alone.
    one.status.store(503, Relaxed);
    for _ in 0..12 {
        let (head, body) = get(address, "/api");
        assert!(head.starts_with("HTTP/1.1 200") && body.starts_with("two"), "{head} {body}");
    }
    let snapshot = decisions.snapshot();
    let cluster = snapshot.clusters().next().unwrap().1.clone();
    let hosts = cluster.hosts().hosts().to_vec();
    assert_eq!(hosts.iter().map(|h| h.is_ejected()).collect::<Vec<_>>(), [true, false]);
    let met = one.requests.load(Relaxed);
    for _ in 0..6 {
        get(address, "/api");
    }
    assert_eq!(one.requests.load(Relaxed), met, "an ejected host gets nothing");
    assert!(hosts.iter().all(|h| h.live.requests_active.load(Relaxed) == 0), "guards are given back");
}

#[test]
fn configuration_is_replaced_while_requests_are_served() {
    let (one, two) = (Origin::start("one"), Origin::start("two"));
    let decisions = Arc::new(Decisions::new());
    decisions.apply(edge::config(&[one.address])).unwrap();
    let address = gateway(&decisions);
    assert!(get(address, "/api/a?b").1.starts_with("one /api/a?b"));
    let mut config = edge::config(&[two.address]);
    let Some(Action::Forward(action)) = routes(&mut config).get_mut(2).map(|route| &mut route.action) else {
        unreachable!()
    };
    action.path_rewrite = Some(PathRewrite::Prefix("/v2".into()));
    let added = HeaderEdit {
        name: "x-added".into(),
        value: "yes".into(),
        append: HeaderAppend::OverwriteIfExistsOrAdd,
        keep_empty_value: false,
    };
    routes(&mut config)[2].headers.request_add.push(added.clone());
    routes(&mut config)[2].headers.response_add.push(added);
    assert_eq!(decisions.apply(config).unwrap(), 2);
    let (head, body) = get(address, "/api/a?b");
    assert_eq!(body, "two /v2/a?b x-added: yes");
    assert!(head.to_lowercase().contains("x-added: yes"), "{head}");
    // A host that is not there: no answer but 503, as the policy's retries are used up.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    decisions.apply(edge::config(&[gone])).unwrap();
    assert!(get(address, "/api").0.starts_with("HTTP/1.1 503"));
}

#[test]
fn what_is_not_done_here_is_refused_by_name() {
    let decisions = Decisions::new();
    let host = SocketAddr::from(([127, 0, 0, 1], 1));
    type Change = (fn(&mut Config), &'static str);
    let changes: [Change; 6] = [
        (
            |c| c.clusters[0].close_connections_on_host_removal = true,
            "cluster/api: close_connections_on_host_removal",
        ),
        (|c| c.clusters[0].lb_policy = LbPolicy::Registered("x".into()), "cluster/api: lb_policy"),
        (
            |c| c.clusters[0].discovery = ClusterDiscovery::OriginalDst(Default::default()),
            "cluster/api: type",
        ),
        (|c| c.listeners[0].tls_inspector = true, "listener/edge: tls_inspector"),
        (
            |c| {
                let Terminal::Http(m) = &mut c.listeners[0].filter_chains[0].terminal else { unreachable!() };
                m.merge_slashes = true;
            },
            "listener/edge: filter_chains[0].http_connection_manager.merge_slashes",
        ),
        (
            |c| {
                if let Action::Forward(action) = &mut routes(c)[2].action {
                    action.idle_timeout = Some(Duration::ZERO);
                }
            },
            "listener/edge: filter_chains[0].http_connection_manager.route_config.virtual_hosts[0].routes[2].route.idle_timeout",
        ),
    ];
    for (change, path) in changes {
        let mut config = edge::config(&[host]);
        change(&mut config);
        let errors = decisions.apply(config).unwrap_err();
        assert!(errors.iter().any(|error| error.to_string().starts_with(path)), "{path}: {errors:?}");
    }
    assert_eq!(decisions.version(), 0);
}
