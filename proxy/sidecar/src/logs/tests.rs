use super::{Lines, LogStatus, Reach, entry, export, parsed, record};
use outrigger_api::envoy::config::core::v3::Node;
use outrigger_api::envoy::service::accesslog::v3::access_log_service_server::{
    AccessLogService, AccessLogServiceServer,
};
use outrigger_api::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use outrigger_api::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use outrigger_api::opentelemetry::proto::common::v1::any_value::Value;
use outrigger_channel::ControlAddress;
use outrigger_traffic::config::{AccessLogSink, LogProtocol, LogService};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;

fn service(protocol: LogProtocol) -> LogService {
    LogService {
        protocol,
        cluster: "logs".into(),
        authority: String::new(),
        log_name: "edge".into(),
        resource: vec![("team".into(), "a".into())],
        builtin_labels: true,
        flush_interval: Duration::from_millis(10),
        buffer_bytes: 1,
    }
}

fn node() -> Node {
    Node { id: "n".into(), cluster: "c".into(), ..Node::default() }
}

const LINE: &str = r#"{"start_time":"1700000000123456789","duration":1500,"to_last_rx":"2000000001","remote":"10.0.0.1:7","cluster":"a","flags":"UF,URX","route":null,"attempts":2,"protocol":"HTTP/2","method":"POST","path":"/x","received":3,"code":503,"REQ":{"x-one":"1","x-none":null}}
"#;

#[test]
fn line_becomes_an_entry() {
    let message = entry::message(&service(LogProtocol::EnvoyHttp), Some(&node()), parsed(LINE.as_bytes()));
    assert_eq!(message.identifier.unwrap().log_name, "edge");
    let Some(LogEntries::HttpLogs(logs)) = message.log_entries else { panic!("of requests") };
    let entry = &logs.log_entry[0];
    let common = entry.common_properties.as_ref().unwrap();
    let start = common.start_time.unwrap();
    assert_eq!((start.seconds, start.nanos), (1_700_000_000, 123_456_789));
    let last = common.time_to_last_rx_byte.unwrap();
    assert_eq!((last.seconds, last.nanos), (2, 1));
    let flags = common.response_flags.as_ref().unwrap();
    assert!(
        flags.upstream_connection_failure && flags.upstream_retry_limit_exceeded && !flags.no_route_found
    );
    let (request, response) = (entry.request.as_ref().unwrap(), entry.response.as_ref().unwrap());
    assert_eq!((request.request_method, request.path.as_str(), request.request_body_bytes), (3, "/x", 3));
    assert_eq!(request.request_headers.get("x-one").map(String::as_str), Some("1"));
    assert_eq!(request.request_headers.len(), 1, "absent ones are left out");
    assert_eq!(response.response_code, Some(503));
}

#[test]
fn line_becomes_a_record() {
    let line = r#"{"time":"5","trace_id":"000102030405060708090a0b0c0d0e0f","span_id":null,"body":"GET -","attributes":{"code":200,"gone":null}}
"#;
    let request = record::request(&service(LogProtocol::Otlp), &node(), parsed(line.as_bytes()));
    let logs = &request.resource_logs[0];
    let names: Vec<&str> =
        logs.resource.as_ref().unwrap().attributes.iter().map(|a| a.key.as_str()).collect();
    assert_eq!(names, ["log_name", "zone_name", "cluster_name", "node_name", "team"]);
    let record = &logs.scope_logs[0].log_records[0];
    assert_eq!((record.time_unix_nano, record.trace_id.len(), record.span_id.len()), (5, 16, 0));
    let texts: Vec<Option<Value>> =
        record.attributes.iter().map(|a| a.value.as_ref().unwrap().value.clone()).collect();
    assert_eq!(texts, [Some(Value::StringValue("200".into())), Some(Value::StringValue("-".into()))]);
}

struct Taker(mpsc::Sender<StreamAccessLogsMessage>);

#[tonic::async_trait]
impl AccessLogService for Taker {
    async fn stream_access_logs(
        &self,
        request: tonic::Request<tonic::Streaming<StreamAccessLogsMessage>>,
    ) -> Result<tonic::Response<StreamAccessLogsResponse>, tonic::Status> {
        let mut stream = request.into_inner();
        while let Some(message) = stream.message().await? {
            let _ = self.0.send(message).await;
        }
        Ok(tonic::Response::new(StreamAccessLogsResponse::default()))
    }
}

fn lines() -> (outrigger_engine::telemetry::access_log::LogOutlet, Lines) {
    mpsc::channel(8)
}

#[tokio::test]
async fn lines_reach_the_service_and_the_sender_says_who_it_is_once() {
    let (taken, mut messages) = mpsc::channel(8);
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder()
        .add_service(AccessLogServiceServer::new(Taker(taken)))
        .serve_with_incoming(TcpListenerStream::new(socket).filter(Result::is_ok));
    tokio::spawn(server);
    let reach: Reach = Arc::new(move |_| {
        Some(ControlAddress {
            addresses: vec![address.clone()],
            tls: None,
            server_name: String::new(),
            connect_timeout: Duration::from_secs(2),
        })
    });
    let (sender, receiver) = lines();
    let status = Arc::new(LogStatus::default());
    tokio::spawn(export(receiver, reach, node(), status.clone()));
    let sink = Arc::new(AccessLogSink::Service(Box::new(service(LogProtocol::EnvoyHttp))));
    for is_first in [true, false] {
        sender.send((sink.clone(), LINE.as_bytes().to_vec())).await.unwrap();
        let message = tokio::time::timeout(Duration::from_secs(10), messages.recv()).await.unwrap().unwrap();
        assert_eq!(message.identifier.is_some(), is_first);
    }
    assert_eq!(status.lost.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn lines_for_a_service_that_is_not_there_are_counted() {
    let (sender, receiver) = lines();
    let status = Arc::new(LogStatus::default());
    let exporting = tokio::spawn(export(receiver, Arc::new(|_| None), node(), status.clone()));
    let sink = Arc::new(AccessLogSink::Service(Box::new(service(LogProtocol::Otlp))));
    sender.send((sink, LINE.as_bytes().to_vec())).await.unwrap();
    drop(sender);
    exporting.await.unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while status.lost.load(Ordering::Relaxed) == 0 && std::time::Instant::now() < end {
        tokio::task::yield_now().await;
    }
    assert_eq!(status.lost.load(Ordering::Relaxed), 1);
}
