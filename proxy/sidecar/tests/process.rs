//! The binary as a user runs it: files, flags, signals, exit codes.

use outrigger_api::opentelemetry::proto::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use outrigger_api::opentelemetry::proto::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;

const PATIENCE: Duration = Duration::from_secs(20);

fn proxy() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"));
    command.stdin(Stdio::null()).env_remove("OUTRIGGER_CONTROL");
    command
}

/// A running proxy, killed when dropped.
struct Running {
    child: Child,
    admin: SocketAddr,
    front: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Below the range of outgoing connections, and free now.
fn free_port() -> u16 {
    (0..1000)
        .map(|_| fastrand::u16(20_000..32_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

fn bootstrap(front: u16, upstream: SocketAddr, tracing: &str, more: &str) -> String {
    format!(
        "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
node: {{id: test-proxy, cluster: test}}
static_resources:
  listeners:
  - name: front
    address: {{socket_address: {{address: 127.0.0.1, port_value: {front}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          {tracing}
          route_config:
            virtual_hosts: [{{name: all, domains: [\"*\"], routes: [{{match: {{prefix: /}}, route: {{cluster: app}}}}]}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: app
    type: STATIC
    load_assignment:
      cluster_name: app
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]
{more}",
        ip = upstream.ip(),
        port = upstream.port(),
    )
}

fn start(text: impl Fn(u16) -> String) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let front = free_port();
    let (config, admin_path) = (folder.path().join("envoy.yaml"), folder.path().join("admin"));
    std::fs::write(&config, text(front)).unwrap();
    let child = proxy()
        .args(["--concurrency", "1", "--drain-time-s", "10", "--log-level", "warning"])
        .arg("-c")
        .arg(&config)
        .arg("--admin-address-path")
        .arg(&admin_path)
        .spawn()
        .unwrap();
    let admin = until(|| std::fs::read_to_string(&admin_path).ok()?.parse().ok());
    let running = Running { child, admin, front: SocketAddr::from(([127, 0, 0, 1], front)), _folder: folder };
    until(|| get(running.admin, "/ready", "").ok().filter(|answer| answer.contains(" 200 ")));
    running
}

fn until<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < end, "not in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn get(address: SocketAddr, path: &str, headers: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nhost: test\r\n{headers}connection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// An origin that tells when a request has arrived and answers when told to.
fn slow_origin() -> (SocketAddr, std::sync::mpsc::Receiver<String>, std::sync::mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (arrived, arrivals) = std::sync::mpsc::channel();
    let (go, told) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        while let Ok((mut peer, _)) = listener.accept() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && peer.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let _ = arrived.send(String::from_utf8_lossy(&head).into_owned());
            let _ = told.recv();
            let _ = peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone");
        }
    });
    (address, arrivals, go)
}

fn validate(folder: &Path, text: &str) -> Output {
    let config = folder.join("envoy.yaml");
    std::fs::write(&config, text).unwrap();
    proxy().arg("-c").arg(config).args(["--mode", "validate"]).output().unwrap()
}

#[test]
fn validate_prints_every_problem_and_exits_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = "127.0.0.1:9".parse().unwrap();
    let good = bootstrap(8080, upstream, "", "");
    let output = validate(folder.path(), &good);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("OK"), "{text}");
    let bad = good.replace(
        "stat_prefix: front",
        "stat_prefix: front\n          codec_tpye: AUTO\n          drain_timeout: -1s",
    );
    let output = validate(folder.path(), &bad);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("codec_tpye") && text.contains("drain_timeout"), "{text}");
}

#[test]
fn configuration_that_is_refused_ends_the_start_with_1() {
    let output =
        proxy().args(["--config-yaml", "static_resources: {listeners: [{nmae: x}]}"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nmae"));
}

#[test]
fn health_verb_follows_readiness() {
    let (upstream, _arrivals, _go) = slow_origin();
    let running = start(|front| bootstrap(front, upstream, "", ""));
    let health = |address: SocketAddr| {
        proxy().args(["health", "--admin-address", &address.to_string()]).output().unwrap().status.code()
    };
    assert_eq!(health(running.admin), Some(0));
    assert_eq!(health(SocketAddr::from(([127, 0, 0, 1], 9))), Some(1));
}

#[test]
fn sigterm_lets_a_request_finish_and_exits_with_0() {
    let (upstream, arrivals, go) = slow_origin();
    let mut running = start(|front| bootstrap(front, upstream, "", ""));
    let front = running.front;
    let client = std::thread::spawn(move || get(front, "/slow", "").unwrap());
    arrivals.recv_timeout(PATIENCE).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(running.child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until(|| TcpStream::connect(front).is_err().then_some(())); // The listener is closed, the request is not over.
    go.send(()).unwrap();
    let answer = client.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
    let status = until(|| running.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let _ = self.0.send(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_of_a_sampled_request_reach_the_collector() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = listener.local_addr().unwrap();
    let (sender, mut exported) = mpsc::unbounded_channel();
    let service = TraceServiceServer::new(Collector(sender));
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let (upstream, arrivals, go) = slow_origin();
    let tracing = "tracing:
            provider:
              name: envoy.tracers.opentelemetry
              typed_config:
                \"@type\": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                grpc_service: {envoy_grpc: {cluster_name: collector}}
                service_name: shop";
    let more = format!(
        "  - name: collector
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: collector
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]
",
        collector.port()
    );
    let front = tokio::task::spawn_blocking(move || {
        let running = start(|front| bootstrap(front, upstream, tracing, &more));
        go.send(()).unwrap();
        let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
        let answer = get(running.front, "/traced", parent).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        running
    });
    let running = front.await.unwrap();
    let seen = arrivals.recv_timeout(PATIENCE).unwrap();
    let mut spans = Vec::new();
    while spans.len() < 2 {
        let request = tokio::time::timeout(PATIENCE, exported.recv()).await.expect("spans in time").unwrap();
        for resource in request.resource_spans {
            let named = resource.resource.unwrap().attributes.into_iter().any(|a| a.key == "service.name");
            assert!(named);
            spans.extend(resource.scope_spans.into_iter().flat_map(|s| s.spans));
        }
    }
    let trace_id = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();
    assert!(spans.iter().all(|s| s.trace_id == trace_id), "{spans:?}");
    let server = spans.iter().find(|s| s.kind == 2).expect("a server span");
    let client = spans.iter().find(|s| s.kind == 3).expect("a client span");
    assert_eq!(server.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!(client.parent_span_id, server.span_id);
    let id: String = client.span_id.iter().map(|b| format!("{b:02x}")).collect();
    assert!(seen.contains(&format!("traceparent: 00-0af7651916cd43dd8448eb211c80319c-{id}-01")), "{seen}");
    drop(running);
}
