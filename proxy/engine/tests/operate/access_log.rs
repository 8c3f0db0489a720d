//! Lines per request.

use crate::support::*;
use outrigger_testkit::{H1Client, Origin};
use outrigger_traffic::config::{
    AccessLog, AccessLogFormat, AccessLogSink, Comparison, Config, HeaderMatch, HeaderValueMatch, LogFilter,
    LogKind, Order,
};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A folder of this test's own, removed afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("outrigger-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn logging(path: &Path, format: AccessLogFormat, addresses: &[SocketAddr]) -> Config {
    simple_with(addresses, |hcm| {
        let sink = AccessLogSink::File(path.to_str().unwrap().to_owned());
        hcm.access_log = vec![AccessLog { sink, format, filter: None }];
    })
}

async fn lines(path: &Path, count: usize) -> Vec<String> {
    eventually("log lines", async || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        (text.ends_with('\n') && text.lines().count() >= count)
            .then(|| text.lines().map(str::to_owned).collect())
    })
    .await
}

#[tokio::test]
async fn default_line_is_envoys() {
    let folder = Folder::new("default");
    let origin = Origin::h1("one").await;
    let proxy = start();
    let path = folder.file("log");
    proxy.apply(logging(&path, AccessLogFormat::Default, &[origin.address()])).unwrap();
    let mut client = H1Client::connect(address(&proxy)).await;
    let fields = [("host", "h.test"), ("user-agent", "tester")];
    client.request("POST", "/status/201?x=1", &fields, b"12345").await.unwrap();
    let line = lines(&path, 1).await.remove(0);
    let (time, rest) = line.strip_prefix('[').unwrap().split_once("] ").unwrap();
    assert!(time.ends_with('Z') && time.len() == 24, "{line}");
    let parts: Vec<&str> = rest.split('"').collect();
    assert_eq!(parts[1], "POST /status/201?x=1 HTTP/1.1", "{line}");
    let numbers: Vec<&str> = parts[2].trim().split(' ').collect();
    assert_eq!(&numbers[..3], ["201", "-", "5"], "{line}");
    assert!(numbers[4].parse::<u64>().is_ok(), "duration in {line}");
    assert_eq!((parts[5], parts[9]), ("tester", "h.test"), "{line}");
    assert_eq!(parts[11], origin.address().to_string(), "{line}");
}

#[tokio::test]
async fn json_line_has_types_and_flags() {
    let folder = Folder::new("json");
    let proxy = start();
    let path = folder.file("log");
    let Value::Object(format) = json!({
        "status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%",
        "cluster": "%UPSTREAM_CLUSTER%", "host": "%UPSTREAM_HOST%", "route": "%ROUTE_NAME%", "agent": "%REQ(USER-AGENT)%",
        "line": "%REQ(:METHOD)% %REQ(:PATH)%", "from": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "took": "%DURATION%", "nested": {"protocol": "%PROTOCOL%"},
    }) else {
        unreachable!()
    };
    proxy.apply(logging(&path, AccessLogFormat::Json(format), &[])).unwrap();
    let mut client = H1Client::connect(address(&proxy)).await;
    client.request("GET", "/a\"b", &[("host", "h"), ("user-agent", "q\"uote")], b"").await.unwrap();
    let line: Value = serde_json::from_str(&lines(&path, 1).await[0]).unwrap();
    assert_eq!(line["status"], 503);
    assert_eq!((&line["flags"], &line["cluster"], &line["host"]), (&json!("UH"), &json!("a"), &json!(null)));
    assert_eq!((&line["route"], &line["agent"]), (&json!("all"), &json!("q\"uote")));
    assert_eq!(line["details"], "no_healthy_upstream");
    assert_eq!(line["from"], "127.0.0.1");
    assert!(line["took"].is_u64() && line["nested"]["protocol"] == "HTTP/1.1", "{line}");
}

#[tokio::test]
async fn filters_choose_lines_and_operators_say_where_a_request_went() {
    let folder = Folder::new("filters");
    let origin = Origin::h1("one").await;
    let proxy = start();
    let (failed, tagged) = (folder.file("failed"), folder.file("tagged"));
    let format = "%PATH(NQ)% %QUERY_PARAM(q)% %QUERY_PARAMS(ORIG)% %RESPONSE_CODE% %ACCESS_LOG_TYPE% %LISTENER_NAME% \
        %COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%\n";
    let log = |path: &Path, filter| AccessLog {
        sink: AccessLogSink::File(path.to_str().unwrap().to_owned()),
        format: AccessLogFormat::Text(format.into()),
        filter: Some(filter),
    };
    let server_error = LogFilter::Status(Comparison { is: Order::AtLeast, than: 500 });
    let header = LogFilter::Header(HeaderMatch {
        name: "x-log".into(),
        value: HeaderValueMatch::Present(true),
        invert: false,
        treat_missing_as_empty: false,
    });
    let requests = LogFilter::Kind { kinds: vec![LogKind::Request], exclude: false };
    let config = simple_with(&[origin.address()], |hcm| {
        hcm.access_log = vec![
            log(&failed, server_error.clone()),
            log(&tagged, LogFilter::And(vec![header.clone(), requests.clone()])),
        ];
    });
    proxy.apply(config).unwrap();
    let mut client = H1Client::connect(address(&proxy)).await;
    for (path, tag) in [
        ("/status/200?q=1&r=2", "n"),
        ("/status/503?q=a%20b", "n"),
        ("/status/404", "y"),
        ("/status/500?r=1", "y"),
    ] {
        let mut fields = vec![("host", "h")];
        if tag == "y" {
            fields.push(("x-log", "1"));
        }
        client.request("GET", path, &fields, b"").await.unwrap();
    }
    let cut = |line: &String| line.rsplit_once(' ').unwrap().0.to_owned();
    let found: Vec<String> = lines(&failed, 2).await.iter().map(cut).collect();
    assert_eq!(
        found,
        ["/status/503 a b q=a%20b 503 DownstreamEnd in", "/status/500 - r=1 500 DownstreamEnd in"]
    );
    let found: Vec<String> = lines(&tagged, 2).await.iter().map(cut).collect();
    assert_eq!(found, ["/status/404 - - 404 DownstreamEnd in", "/status/500 - r=1 500 DownstreamEnd in"]);
    let took = lines(&tagged, 2).await[0].rsplit_once(' ').unwrap().1.parse::<u64>();
    assert!(took.is_ok_and(|micros| micros > 0));
}

#[tokio::test]
async fn many_lines_all_arrive_and_reopening_follows_the_name() {
    let folder = Folder::new("many");
    let origin = Origin::h1("one").await;
    let proxy = start();
    let path = folder.file("log");
    let format = || AccessLogFormat::Text("%REQ(X-N)% %RESPONSE_CODE%\n".into());
    proxy.apply(logging(&path, format(), &[origin.address()])).unwrap();
    let mut client = H1Client::connect(address(&proxy)).await;
    for n in 0..300 {
        client.request("GET", "/", &[("host", "h"), ("x-n", &n.to_string())], b"").await.unwrap();
    }
    let expected: Vec<String> = (0..300).map(|n| format!("{n} 200")).collect();
    assert_eq!(lines(&path, 300).await, expected);
    let rotated = folder.file("log.1");
    std::fs::rename(&path, &rotated).unwrap();
    assert_eq!(admin(&proxy, "POST", "/reopen_logs").await.status, 200);
    client.request("GET", "/", &[("host", "h"), ("x-n", "after")], b"").await.unwrap();
    assert_eq!(lines(&path, 1).await, ["after 200"]);
    assert_eq!(lines(&rotated, 300).await.len(), 300);
    // What is in a worker's buffer when the proxy ends is written too.
    client.request("GET", "/", &[("host", "h"), ("x-n", "last")], b"").await.unwrap();
    drop(client);
    proxy.drain().await;
    assert_eq!(lines(&path, 2).await, ["after 200", "last 200"]);
}

#[tokio::test]
async fn file_that_cannot_be_opened_is_the_listeners_error() {
    let proxy = start();
    let path = Path::new("/no/such/folder/log");
    let errors = proxy.apply(logging(path, AccessLogFormat::Default, &[])).unwrap_err();
    assert_eq!(errors[0].resource, "listener/in");
    assert_eq!(errors[0].path, "filter_chains[0].access_log[0]");
}
